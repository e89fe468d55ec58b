//! What `des-repack` refuses: stores without conditions.

use des_tests::{ChaosProxy, Corpus, Fault, Kind, Rule, Script, run, s3_server, scratch};

#[test]
fn a_bucket_that_ignores_conditions_is_neither_repacked_nor_collected_from() {
    let (place, directory) = (s3_server().place(), scratch());
    let mut corpus = Corpus::new(&directory.path().join("source"));
    for number in 0..20 {
        corpus.add("20240301", &format!("INV-{number}"), format!("content {number}"));
    }
    run(place.program("des-pack").arg("--input-json").arg(corpus.manifest("all")).args(["--n-bits", "0"])).success();
    run(place.program("des-tombstones").args(["add", "INV-3", "20240301", "--yes"])).success();
    let proxy = ChaosProxy::start(s3_server().endpoint(), Script::default());
    let through = place.through(&proxy.endpoint());
    for kinds in [&[Kind::Put][..], &[Kind::Put, Kind::CompleteUpload]] {
        proxy.follow(Script { rules: vec![Rule::always(Fault::IgnoreCondition).on(kinds)], ..Script::default() });
        for words in
            [&["--max-age", "0s"][..], &["gc", "--yes"], &["--rollback", "shards/20240301/20240301_0_0000.des"]]
        {
            proxy.take_seen();

            let refused = run(through.program("des-repack").args(words).arg("--spool").arg(directory.path())).exits(1);

            let reason = refused.one_line_of_reason();
            assert!(reason.contains("does not honour conditional writes") && reason.contains("nothing was changed"));
            let writes = |kind| matches!(kind, Kind::Put | Kind::Delete | Kind::DeleteMany | Kind::Part);
            let seen = proxy.take_seen();
            let touched: Vec<_> =
                seen.iter().filter(|seen| writes(seen.asked.kind)).map(|seen| &seen.asked.path).collect();
            assert!(touched.iter().all(|path| path.contains("/probe/")), "{touched:?}");
        }
    }
    // What only looks is let through, and what vouches for being alone does not exist here.
    let plan = run(through.program("des-repack").args(["--max-age", "0s", "--dry-run"])).success();
    assert!(plan.stdout.contains("would repack 1 shards"), "{}", plan.stdout);
    run(through.program("des-repack").arg("--single-writer")).exits(2);
}
