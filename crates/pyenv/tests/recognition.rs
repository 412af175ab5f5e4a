//! Every command in `data/lightweight.json` is recognised. They are the distinct forms among the
//! compiled pipelines that the tests of kubeflow/pipelines keep (Apache-2.0), of kfp 2.1 to 2.15, with
//! their functions cut down.

use pyenv::{Arg, Then};

#[test]
fn every_lightweight_component_is_recognised() {
    let commands: Vec<Vec<String>> =
        serde_json::from_str(include_str!("data/lightweight.json")).unwrap();
    assert!(commands.len() >= 15);
    for command in commands {
        let script = &command[2];
        assert!(pyenv::resembles(&command), "{script}");
        let Some(found) = pyenv::recognise(&command) else {
            panic!("not recognised: {script}")
        };
        let asked: usize = found.installs.iter().map(|i| i.requirements.len()).sum();
        // Each is quoted, `--no-deps` too, and one has quotes inside.
        let quoted = script.matches('\'').count() / 2;
        assert_eq!(asked, quoted - 1, "{script}");
        let Then::Program(program) = found.then else {
            panic!("{script}")
        };
        assert_eq!(program.source, command[6]);
        assert_eq!(program.file, "ephemeral_component.py");
        assert_eq!(
            program.args[1],
            Arg::Text("kfp.dsl.executor_main".to_owned())
        );
        assert!(program.args.contains(&Arg::File));
        let rest: Vec<Arg> = command[7..].iter().cloned().map(Arg::Text).collect();
        assert!(program.args.ends_with(&rest));
    }
}
