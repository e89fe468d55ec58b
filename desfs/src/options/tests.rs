use super::*;

fn parse(text: &str) -> Result<MountOptions, OptionError> {
    MountOptions::parse([text], false)
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn options_of_others_change_nothing() {
    let line = "_netdev,nofail,auto,noauto,user,users,nouser,owner,group,rw,dev,nodev,suid,nosuid,noexec,atime,noatime,\
                relatime,x-systemd.automount,x-systemd.idle-timeout=5min,X-mount.mkdir,comment=a=b,defaults,\
                default_permissions,,";
    assert_eq!(parse(line), Ok(MountOptions::default()));
}

#[test]
fn ours_are_read() {
    let options = parse(
        "ro,exec,allow_other,xattr,strict,n_bits=12,ttl=5,uid=1000,gid=100,umask=027,memory=2G,cache_dir=/var/cache/des,\
         cache_size=32M,deadline=1500ms,\
         delete=1000:1001,unlink=journal,journal=/var/lib/j,delete_limit=50/m,deny_comm=updatedb+locate,log=/var/log/desfs.log,region=eu-1,path_style",
    );
    let mut store = StoreOptions::default();
    store.set("region", Some("eu-1")).unwrap();
    store.set("path_style", None).unwrap();
    let expected = MountOptions {
        read_only: true,
        exec: true,
        allow_other: true,
        xattr: true,
        strict: true,
        legacy_bits: BucketBits::new(12).unwrap(),
        ttl: Duration::from_secs(5),
        owner: Some(1000),
        group: Some(100),
        umask: 0o027,
        memory_bytes: Some(2 << 30),
        cache_directory: Some("/var/cache/des".into()),
        cache_bytes: 32 << 20,
        deadline: Duration::from_millis(1500),
        delete: Permission::Users([1000, 1001].into()),
        unlinking: Unlinking::Journal,
        journal: Some(PathBuf::from("/var/lib/j")),
        delete_limit: Some(DeleteLimit { count: 50, period: Duration::from_mins(1) }),
        denied_programs: ["updatedb".to_owned(), "locate".to_owned()].into(),
        log: Some(PathBuf::from("/var/log/desfs.log")),
        store,
    };
    assert_eq!(options, Ok(expected));
}

#[test]
fn later_options_win_and_lists_add_up() {
    let options = MountOptions::parse(["ro,ttl=5,deny_comm=a", "rw,ttl=7,deny_comm=b"], false).unwrap();
    assert!(!options.read_only);
    assert_eq!(options.ttl, Duration::from_secs(7));
    assert_eq!(options.denied_programs.len(), 2);
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_one() {
    assert_eq!(refusal("allow_others"), "unknown mount option \"allow_others\"; did you mean \"allow_other\"?");
    assert_eq!(refusal("endpiont=x"), "unknown mount option \"endpiont\"; did you mean \"endpoint\"?");
    assert_eq!(refusal("memroy=1G"), "unknown mount option \"memroy\"; did you mean \"memory\"?");
    assert_eq!(refusal("frobnicate"), "unknown mount option \"frobnicate\"");
    assert_eq!(refusal("q"), "unknown mount option \"q\"");
}

#[test]
fn sloppy_ignores_what_is_unknown_and_nothing_else() {
    assert_eq!(MountOptions::parse(["frobnicate,ro"], true).unwrap(), parse("ro").unwrap());
    assert!(MountOptions::parse(["ttl=soon"], true).is_err());
    assert!(MountOptions::parse(["remount"], true).is_err());
}

#[test]
fn users_and_groups_may_be_named() {
    let options = parse("uid=root,gid=root,delete=root:1000").unwrap();
    assert_eq!((options.owner, options.group), (Some(0), Some(0)));
    assert_eq!(options.delete, Permission::Users([0, 1000].into()));
}

#[test]
fn a_remount_is_refused_in_words() {
    assert_eq!(
        refusal("remount,ro"),
        "mount option remount: nothing can be changed while mounted; unmount it and mount it again with the new options"
    );
}

#[test]
fn bad_values_are_refused_with_what_is_wanted() {
    for (option, reason) in [
        ("n_bits=17", "\"17\" is not a number from 0 to 16"),
        ("ttl=soon", "\"soon\" is not a time such as 500ms, 60s, 5m, 1h or 1d"),
        ("ttl=400d", "\"400d\" is above 365d"),
        ("deadline=0", "must be longer than nothing"),
        ("uid=no-such", "\"no-such\" is neither the number of a user nor a name in /etc/passwd"),
        ("gid=4294967295", "\"4294967295\" is neither the number of a group nor a name in /etc/group"),
        ("umask=888", "\"888\" is not an octal number from 0 to 777"),
        ("cache_size=1M", "must be at least 16M"),
        ("cache_dir=", "\"\" is no absolute path of a directory"),
        ("memory=lots", "\"lots\" is not a size such as 256M or 2G"),
        ("memory=99999999T", "\"99999999T\" is not a size such as 256M or 2G"),
        (
            "delete=maybe",
            "must be allow, deny or USER:USER...; \"maybe\" is neither the number of a user nor a name in /etc/passwd",
        ),
        ("delete_limit=5", "\"5\" is not a limit such as 1000/h"),
        ("delete_limit=0/h", "0 would let nothing through; say delete=deny"),
        ("deny_comm=a::b", "\"a::b\" is not a list such as a:b:c"),
        ("ttl", "needs a value: ttl=VALUE"),
        ("xattr=yes", "takes no value"),
        ("endpoint", "needs a value: endpoint=VALUE"),
        ("part_size=1M", "\"1M\" is not from 5M to 256M"),
    ] {
        let name = option.split('=').next().unwrap();
        assert_eq!(refusal(option), format!("mount option {name}: {reason}"));
    }
}

#[test]
fn every_listed_option_is_handled() {
    for name in FLAGS {
        parse(name).unwrap();
    }
    for name in WITH_VALUE {
        drop(parse(&format!("{name}=1")));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_parsing_panic(text: String) {
        drop(parse(&text));
    }
}

#[test]
fn allow_exec_says_what_mount_keeps_to_itself() {
    assert!(parse("allow_exec").unwrap().exec);
    assert_eq!(parse("allow_exec"), parse("exec"));
}
