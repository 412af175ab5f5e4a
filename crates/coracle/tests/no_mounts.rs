//! The tutorial on a machine that refuses mounts: built-in images find their files and names by
//! themselves.

mod support;

use support::{Server, tutorial};

#[tokio::test]
async fn the_tutorial_passes_where_mounting_is_refused() {
    let server = Server::start_with(&["--no-mounts"]);
    let pipeline = tutorial::set_up(&server, true).await;
    let id = tutorial::start(&server, &pipeline).await;
    tutorial::three_steps(&server, &id).await;
    tutorial::page(&server).await;
    // What it trained lies in the volume, not in some place of the host's that it took for it.
    let exported = server.scratch().join("volume").join("export");
    let versions: Vec<_> = std::fs::read_dir(&exported).unwrap().flatten().collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
    assert!(versions[0].path().join("saved_model.pb").exists());
}
