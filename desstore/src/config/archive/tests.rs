use desfmt::Bucket;

use super::super::{Format, parse};
use super::*;

fn place(text: &str) -> Result<(Location, StoreOptions), String> {
    let path = Path::new("a.yaml");
    let environment = |name: &str| (name == "REGION").then(|| "eu".to_owned());
    let config: ArchiveConfig = parse(path, Format::Yaml, text, &environment).map_err(|error| error.to_string())?;
    config.place(path).map_err(|error| error.to_string())
}

fn zoned(text: &str) -> ZonedLocation {
    match place(text).unwrap() {
        (Location::Zones(zoned), _) => *zoned,
        (other, _) => panic!("{other}"),
    }
}

/// The homes of a few buckets.
fn homes(zoned: &ZonedLocation, bits: u8, buckets: &[u32]) -> Vec<String> {
    let bits = BucketBits::new(bits).unwrap();
    let home = |bucket: &u32| zoned.map.zones(Bucket::new(*bucket, bits).unwrap(), bits)[0];
    buckets.iter().map(|bucket| zoned.zones[home(bucket)].name.clone()).collect()
}

#[test]
fn one_place_and_its_options_are_read() {
    let text = "archive: s3://bucket/a\n\
                store: {endpoint: 'http://127.0.0.1:1', region: '${REGION}', insecure: true, retry_attempts: 7}\n";
    let (location, options) = place(text).unwrap();

    assert_eq!(location.to_string(), "s3://bucket/a");
    assert_eq!((options.region.as_deref(), options.insecure), (Some("eu"), true));
    assert_eq!(options.patience.retry.attempts_max, 7);
}

#[test]
fn a_zones_file_of_the_ancestor_is_read() {
    let zoned = zoned(
        "n_bits: 8\n\
         zones:\n\
         - name: zone-a\n  range: {start: 0, end: 127}\n  \
           s3: {bucket: des-a, prefix: archive/, region_name: eu-central-1, endpoint_url: 'http://127.0.0.1:9000'}\n\
         - name: zone-b\n  range: {start: 128, end: 255}\n  s3: {bucket: des-b, region_name: us-east-1}\n",
    );

    assert_eq!(zoned.to_string(), "zones zone-a (s3://des-a/archive), zone-b (s3://des-b)");
    assert_eq!(homes(&zoned, 8, &[0, 127, 128, 255]), ["zone-a", "zone-a", "zone-b", "zone-b"]);
    assert_eq!(zoned.zones[0].options.region.as_deref(), Some("eu-central-1"));
    assert_eq!(zoned.zones[0].options.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
}

#[test]
fn ranges_may_be_shares_and_have_copies() {
    let zoned = zoned(
        "home: b\nmax_staleness: 5m\ndeadline: 10s\nstore: {region: eu}\n\
         zones:\n\
         - {name: a, archive: /srv/a, range: {from: 0, to: 1/3}, copies: [b, c]}\n\
         - {name: b, archive: /srv/b, range: {from: 1/3, to: 1}, copies: [a], store: {region: us}}\n\
         - {name: c, archive: /srv/c}\n",
    );

    assert_eq!((zoned.map.home(), zoned.settings.deadline.as_secs()), (1, 10));
    assert_eq!(zoned.settings.max_staleness.as_secs(), 300);
    assert_eq!(homes(&zoned, 8, &[0, 85, 86, 255]), ["a", "a", "b", "b"]);
    let regions: Vec<_> = zoned.zones.iter().map(|zone| zone.options.region.as_deref()).collect();
    assert_eq!(regions, [Some("eu"), Some("us"), Some("eu")]);
}

#[test]
fn the_example_of_the_documentation_is_right() {
    let page = include_str!("../../../../docs/configuration.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let path = Path::new("a.toml");

    let config: ArchiveConfig = parse(path, Format::Toml, example, &|_| None).unwrap();
    let (location, _) = config.place(path).unwrap();

    assert_eq!(location.to_string(), "zones frankfurt (s3://des-frankfurt/archive), paris (s3://des-paris/archive)");
    let Location::Zones(zoned) = location else { panic!("{location}") };
    assert_eq!(homes(&zoned, 8, &[127, 128]), ["frankfurt", "paris"]);
    assert_eq!(zoned.zones[1].options.endpoint.as_deref(), Some("https://s3.par.example.org"));
    assert_eq!(zoned.zones[1].options.path_style, Some(true));
}

#[test]
fn what_makes_no_whole_is_refused_where_it_stands() {
    let zone = |name: &str, rest: &str| format!("- {{name: {name}, archive: /srv/{name}, {rest}}}\n");
    for (text, reason) in [
        (String::new(), "neither the key \"archive\" nor \"zones\""),
        ("archive: gopher://x".to_owned(), "archive: gopher://x: gopher:// is not known"),
        ("archive: /srv/a\nstore: {regoin: x}".to_owned(), "store: unknown key \"regoin\"; did you mean \"region\"?"),
        ("archive: /srv/a\nhome: a".to_owned(), "home: there are no zones"),
        (
            "archive: /srv/a\nstore: {retry_attempts: 0}".to_owned(),
            "store: retry_attempts: \"0\" is not a number from 1",
        ),
        (
            format!(
                "n_bits: 8\nzones:\n{}{}",
                zone("a", "range: {start: 0, end: 99}"),
                zone("b", "range: {start: 128, end: 255}")
            ),
            "zones: buckets 100 to 127 (64 to 7F) belongs to no zone",
        ),
        (
            format!(
                "n_bits: 8\nzones:\n{}{}",
                zone("a", "range: {start: 0, end: 130}"),
                zone("b", "range: {start: 128, end: 255}")
            ),
            "zones: buckets 128 to 130 (80 to 82) belongs to two ranges",
        ),
        (format!("zones:\n{}", zone("a", "range: {from: 0, to: 0.5}")), "zones: 0.5 to 1 belongs to no zone"),
        (
            format!("n_bits: 4\nzones:\n{}", zone("a", "range: {start: 0, end: 16}")),
            "zones[0].range: with n_bits = 4 the last bucket is 15",
        ),
        (
            format!("zones:\n{}", zone("a", "range: {from: 0, end: 16}")),
            "zones[0].range: \"start\" and \"end\" are needed",
        ),
        (format!("zones:\n{}", zone("a", "range: {from: 0, to: 2}")), "zones[0].range.to: \"2\" is not a share"),
        (
            format!("zones:\n{}", zone("a", "range: {from: 0, to: 1}, copies: [x]")),
            "zones[0].copies: there is no zone \"x\"; there are a",
        ),
        (
            format!("zones:\n{}", zone("a", "range: {from: 0, to: 1}, copies: [a]")),
            "zones[0].copies: the zone \"a\" holds",
        ),
        (
            format!("zones:\n{}{}", zone("a", "range: {from: 0, to: 1}"), zone("a", "range: {from: 0, to: 1}")),
            "zones[1].name: there are two",
        ),
        (format!("home: x\nzones:\n{}", zone("a", "range: {from: 0, to: 1}")), "home: there is no zone \"x\""),
        ("zones:\n- {name: a/b, archive: /srv/a}".to_owned(), "zones[0].name: \"a/b\" is no name"),
        ("zones:\n- {name: a}".to_owned(), "zones[0].archive: where the zone lies is missing"),
        ("zones:\n- {name: a, archive: /srv/a, copies: [a]}".to_owned(), "zones[0].copies: the zone has no range"),
    ] {
        let refused = place(&text).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}

#[test]
fn the_variables_of_the_ancestor_say_where_the_archive_lies() {
    let read = |variables: &[(&str, &str)]| {
        let environment =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let place = place_of_ancestor(&environment).map_err(|error| error.to_string())?;
        Ok::<_, String>(place.map(|(location, options)| (location.to_string(), options.endpoint, options.region)))
    };
    let s3 = [("DES_S3_BUCKET", "bucket"), ("DES_S3_PREFIX", "p/"), ("DES_S3_REGION", "eu"), ("DES_BACKEND", "local")];

    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&s3), Ok(Some(("s3://bucket/p".to_owned(), None, Some("eu".to_owned())))));
    let local = read(&[("DES_BACKEND", "local"), ("DES_BASE_DIR", "/srv/des")]);
    assert_eq!(local, Ok(Some(("/srv/des".to_owned(), None, None))));
    for (variables, reason) in [
        ([("DES_BACKEND", "s3")], "DES_S3_BUCKET: it is not set"),
        ([("DES_BACKEND", "multi_s3")], "DES_ZONES_CONFIG: it is not set"),
        ([("DES_BACKEND", "ftp")], "DES_BACKEND: \"ftp\" is none of"),
        ([("DES_ZONES_CONFIG", "/nowhere.yaml")], "/nowhere.yaml"),
    ] {
        let refused = read(&variables).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}
