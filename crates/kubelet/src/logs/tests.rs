//! Reading, tailing and following logs that grow and rotate.

use super::*;
use std::io::Write as _;
use tokio::sync::{mpsc, oneshot};

fn record(n: u32) -> String {
    format!("2026-01-01T00:00:{n:02}.000000000Z stdout F line {n}\n")
}

fn write(path: &Path, records: std::ops::Range<u32>) {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    for n in records {
        file.write_all(record(n).as_bytes()).unwrap();
    }
}

async fn read(path: &Path, options: Options) -> String {
    let (sender, mut receiver) = mpsc::channel(100);
    stream(path.to_owned(), options, std::future::pending(), sender)
        .await
        .unwrap();
    let mut out = Vec::new();
    while let Some(bytes) = receiver.recv().await {
        out.extend_from_slice(&bytes);
    }
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn a_log_is_read_across_its_parts_with_every_option() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    write(&rotated(&path, 2), 0..2);
    write(&rotated(&path, 1), 2..4);
    write(&path, 4..6);
    let all = "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\n";
    assert_eq!(read(&path, Options::default()).await, all);
    let tail = |n| Options {
        tail_lines: Some(n),
        ..Options::default()
    };
    assert_eq!(read(&path, tail(0)).await, "");
    assert_eq!(read(&path, tail(1)).await, "line 5\n");
    assert_eq!(read(&path, tail(2)).await, "line 4\nline 5\n");
    assert_eq!(read(&path, tail(3)).await, "line 3\nline 4\nline 5\n");
    assert_eq!(read(&path, tail(99)).await, all);
    let since = Options {
        since: Some("2026-01-01T00:00:05Z".parse().unwrap()),
        timestamps: true,
        ..Options::default()
    };
    assert_eq!(
        read(&path, since).await,
        "2026-01-01T00:00:05.000000000Z line 5\n"
    );
    let limited = Options {
        limit_bytes: Some(10),
        ..Options::default()
    };
    assert_eq!(read(&path, limited).await, "line 0\nlin");
    assert_eq!(String::from_utf8(tail_text(&path, 1)).unwrap(), "line 5\n");
}

#[tokio::test]
async fn parts_of_a_line_are_joined_and_streams_can_be_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    std::fs::write(
        &path,
        "2026-01-01T00:00:00Z stdout P ab\n2026-01-01T00:00:00Z stdout F cd\n2026-01-01T00:00:01Z stderr F err\nnot a record\n",
    )
    .unwrap();
    assert_eq!(
        read(&path, Options::default()).await,
        "abcd\nerr\nnot a record\n"
    );
    let options = Options {
        timestamps: true,
        stream: Some("stdout".into()),
        ..Options::default()
    };
    assert_eq!(
        read(&path, options).await,
        "2026-01-01T00:00:00Z abcd\nnot a record\n"
    );
}

#[tokio::test]
async fn following_goes_on_through_rotations_until_the_container_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    write(&path, 0..1);
    let (sender, mut receiver) = mpsc::channel(100);
    let (end, ended) = oneshot::channel::<()>();
    let options = Options {
        follow: true,
        ..Options::default()
    };
    let following = stream(
        path.clone(),
        options,
        async move {
            drop(ended.await);
        },
        sender,
    );
    let writing = async {
        assert_eq!(receiver.recv().await.unwrap(), "line 0\n");
        write(&path, 1..2);
        assert_eq!(receiver.recv().await.unwrap(), "line 1\n");
        // Two rotations at once: the part in between must not be skipped.
        std::fs::rename(&path, rotated(&path, 2)).unwrap();
        write(&rotated(&path, 1), 2..4);
        write(&path, 4..5);
        let mut text = String::new();
        while text != "line 2\nline 3\nline 4\n" {
            text.push_str(std::str::from_utf8(&receiver.recv().await.unwrap()).unwrap());
        }
        write(&path, 5..6);
        end.send(()).unwrap();
        let mut rest = String::new();
        while let Some(bytes) = receiver.recv().await {
            rest.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        assert_eq!(rest, "line 5\n");
    };
    let (result, ()) = tokio::join!(following, writing);
    result.unwrap();
}
