//! How containers become processes. The processes themselves are the spawner's tests.

use std::net::Ipv4Addr;

use super::*;
use crate::runtime::{Image, LogSpec, Mount};

pub(crate) fn spec(kind: ImageKind, command: &[&str], args: &[&str]) -> ContainerSpec {
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    ContainerSpec {
        container: ContainerRef {
            id: "abc".to_owned(),
            state_dir: "/state".into(),
        },
        namespace: "default".to_owned(),
        pod: "pod".to_owned(),
        pod_uid: "uid".to_owned(),
        name: "main".to_owned(),
        image: Image {
            reference: "x".to_owned(),
            id: "docker.io/library/x:latest".to_owned(),
            kind,
            entrypoint: words(&["/entry"]),
            cmd: words(&["cmd"]),
            env: Vec::new(),
            working_dir: None,
            user: None,
            size_bytes: 0,
        },
        command: words(command),
        args: words(args),
        env: Vec::new(),
        working_dir: Some("/work".into()),
        mounts: vec![Mount {
            source: "/a".into(),
            target: "/b".into(),
            read_only: true,
        }],
        hosts_dir: Some("/hosts".into()),
        hostname: Some("pod".to_owned()),
        pod_ip: Ipv4Addr::LOCALHOST,
        host_network: false,
        security: SecuritySpec {
            read_only_root: true,
            ..SecuritySpec::default()
        },
        memory_limit: None,
        cpu_limit: None,
        log: LogSpec {
            path: "/log/0.log".into(),
            max_bytes: 1,
            max_files: 2,
        },
        stdin: false,
        stdin_once: false,
        tty: false,
    }
}

fn built_in() -> ImageKind {
    ImageKind::BuiltIn("serving".to_owned())
}

#[test]
fn a_built_in_image_is_this_binary_with_the_containers_arguments() {
    for (command, args, expected) in [
        (&[][..], &[][..], &["image", "serving", "/entry", "cmd"][..]),
        (
            &[],
            &["--port=1"],
            &["image", "serving", "/entry", "--port=1"],
        ),
        (
            &["/usr/bin/server"],
            &["--port=1"],
            &["image", "serving", "--port=1"],
        ),
        (
            &["python", "/opt/model.py"],
            &[],
            &["image", "serving", "/opt/model.py"],
        ),
    ] {
        let (program, arguments) = program(&spec(built_in(), command, args));
        assert_eq!(program, Program::SelfExe);
        assert_eq!(arguments, expected);
    }
}

#[test]
fn a_shell_in_a_built_in_image_is_the_hosts() {
    let (program, args) = program(&spec(built_in(), &["/bin/sh", "-c"], &["echo"]));
    assert_eq!(program, Program::Path("/bin/sh".to_owned()));
    assert_eq!(args, ["-c", "echo"]);
}

#[test]
fn a_host_image_runs_its_command_on_the_host() {
    let (program, args) = program(&spec(ImageKind::Host, &[], &["-c", "x"]));
    assert_eq!(
        (program, args.len()),
        (Program::Path("/entry".to_owned()), 2)
    );
    let launch = launch_spec(&spec(ImageKind::Host, &["sleep"], &["1"]), None, true);
    assert_eq!(launch.program, Program::Path("sleep".to_owned()));
    assert_eq!(launch.mounts, [MountSpec::bind("/a", "/b", true)]);
    assert_eq!(launch.cwd.as_deref(), Some("/work"));
    assert!(launch.read_only_root);
}

#[test]
fn failures_keep_the_message_that_users_know() {
    let container = spec(ImageKind::Host, &[], &[]).container;
    let start = |step, errno| {
        failure(
            &container,
            spawner::Error::NotStarted(spawner::StartError {
                step,
                message: "why".to_owned(),
                errno,
            }),
        )
    };
    let missing = rustix::io::Errno::NOENT.raw_os_error();
    assert_eq!(
        start(spawner::StartStep::Exec, Some(missing)),
        Error::CannotRun {
            exit_code: 127,
            message: "why".to_owned()
        }
    );
    assert_eq!(
        start(spawner::StartStep::Mount, Some(missing)),
        Error::Setup("why".to_owned())
    );
    let gone = rustix::io::Errno::SRCH.raw_os_error();
    assert_eq!(
        start(spawner::StartStep::Isolate, Some(gone)),
        Error::NotRunning("abc".to_owned())
    );
}

#[test]
fn a_command_of_kfps_is_read_by_this_binary_in_the_container() {
    let seated = Seated {
        env: vec![("A".to_owned(), "b".to_owned())],
        mounts: vec![Mount {
            source: "/cache".into(),
            target: "/cache".into(),
            read_only: true,
        }],
        helped: true,
    };
    let kind = ImageKind::Python("3.11".to_owned());
    let launch = launch_spec(&spec(kind, &["sh", "-c"], &["x"]), Some(seated), true);
    assert_eq!(launch.program, Program::SelfExe);
    assert_eq!(launch.args, ["__pyenv", "sh", "-c", "x"]);
    assert_eq!(launch.env, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(
        launch.mounts,
        [
            MountSpec::bind("/cache", "/cache", true),
            MountSpec::bind("/a", "/b", true)
        ]
    );
}

#[test]
fn a_program_of_an_image_volume_runs_in_place_of_a_built_in_images() {
    let mut from_volume = spec(built_in(), &["/b/launch", "--", "x"], &["y"]);
    from_volume
        .env
        .push((IMAGE_VARIABLE.to_owned(), "{}".to_owned()));
    for (mounts, path) in [(true, "/b/launch"), (false, "/a/launch")] {
        let launch = launch_spec(&from_volume, None, mounts);
        assert_eq!(launch.program, Program::Path(path.to_owned()));
        assert_eq!(launch.args, ["--", "x", "y"]);
    }
}
