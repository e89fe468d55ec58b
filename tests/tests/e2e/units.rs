//! The systemd units: accepted by systemd as they are, with the real program.

use std::fs;
use std::path::Path;

use des_tests::{command, desfs, run, scratch};

#[test]
fn systemd_accepts_the_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let place = scratch();
    let desfs = desfs().get_program().to_str().unwrap().to_owned();
    let mut count = 0;
    for unit in fs::read_dir(units).unwrap() {
        let unit = unit.unwrap();
        let text = fs::read_to_string(unit.path()).unwrap();
        let copy = place.path().join(unit.file_name());
        fs::write(&copy, text.replace("/usr/bin/desfs", &desfs)).unwrap();
        let verified = run(command("systemd-analyze").args(["verify", "--man=no"]).arg(&copy));

        assert_eq!((verified.code(), verified.stderr.as_str()), (0, ""), "{:?}", unit.file_name());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_unit_of_the_mount_stays_within_its_exposure() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd/desfs@.service");
    let mut security = command("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold=45"]).arg(unit);

    run(&mut security).success();
}
