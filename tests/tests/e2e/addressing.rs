//! Where the bucket stands in a URL: in its path, or in the name of the host.

use std::path::Path;

use des_tests::{Corpus, Mount, desfs, run, s3_server, scratch};

#[test]
fn a_bucket_may_stand_in_the_name_of_the_host() {
    let (place, directory) = (s3_server().place(), scratch());
    let in_host = place.through(&s3_server().domain_endpoint());
    let options = format!("{},path_style=no", in_host.options());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    corpus.add_random(4, 40);
    let manifest = corpus.manifest("all");

    let mut pack = in_host.program("des-pack");
    run(pack.args(["--store-option", "path_style=no"]).arg("--input-json").arg(&manifest)).success();

    // Uploads, conditional writes, listings, ranges and deletions, and the same objects for who comes by the path.
    let mount = Mount::new(Path::new(&in_host.uri), &options);
    corpus.assert_shown_in(mount.path(), &[]);
    let gone = (corpus.files[0].day.as_str(), corpus.files[0].uid.as_str());
    std::fs::remove_file(mount.file(gone.0, gone.1)).unwrap();
    corpus.assert_shown_in(Mount::new(Path::new(&place.uri), &place.options()).path(), &[gone]);
    run(desfs().args(["check", &in_host.uri, "-o", &options])).success();
}

#[test]
fn a_bucket_that_is_no_host_is_told_with_the_option_that_makes_it_one() {
    let place = s3_server().place_at("s3://elsewhere/archive").through(&s3_server().domain_endpoint());

    let options = format!("{},path_style=no,retry_attempts=1", place.options());
    let refused = run(desfs().args(["check", &place.uri, "-o", &options]));

    assert_ne!(refused.code(), 0);
    assert!(refused.stdout.contains("in the name of the host (path_style=no) cannot be reached"), "{refused:?}");
}
