//! Large sets of files go in and come out as they were, as far as any program can tell.

use des_tests::{
    DataSet, Mount, assert_each_file_is_in_one_live_shard, assert_programs_agree, des_pack, mixed_files, objects_below,
    real_files, run, scratch,
};

#[test]
fn sixty_thousand_real_files_come_back_as_they_were() {
    let real = real_files();

    comes_back(&real, &|pack| {
        pack.arg("--input-dir").arg(&real.source).args(["--uid", "path", "--created-at", "20240115"]);
    });
}

#[test]
fn twenty_thousand_documents_with_uids_of_all_kinds_come_back_as_they_were() {
    let mixed = mixed_files();
    let manifest = mixed.manifest.clone().unwrap();

    comes_back(&mixed, &|pack| {
        pack.arg("--input-json").arg(&manifest);
    });
}

fn comes_back(data: &DataSet, input: &dyn Fn(&mut std::process::Command)) {
    let place = scratch();
    let archive = place.path().join("archive");
    let report = place.path().join("report.json");
    let pack = || {
        let mut pack = des_pack(&archive);
        input(&mut pack);
        run(pack.arg("--report").arg(&report)).success()
    };

    pack();

    let mount = Mount::new(&archive, "");
    assert_programs_agree(&data.expected, mount.path());
    mount.unmount();

    let before = objects_below(&archive, "shards");
    pack();
    assert_eq!(objects_below(&archive, "shards"), before, "packing the same again adds nothing");
    assert_each_file_is_in_one_live_shard(&archive, data.files);
}
