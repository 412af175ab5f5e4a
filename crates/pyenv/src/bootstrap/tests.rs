//! Commands of kfp's compilers, and ones that only look like them.

use super::*;

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

const ENSURE: &str = "
if ! [ -x \"$(command -v pip)\" ]; then
    python3 -m ensurepip || python3 -m ensurepip --user || apt-get install python3-pip
fi

";
const RUN: &str = "program_path=$(mktemp -d)

printf \"%s\" \"$0\" > \"$program_path/ephemeral_component.py\"
_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main                         --component_module_path                         \"$program_path/ephemeral_component.py\"                         \"$@\"
";

fn v2(installer: &str) -> Vec<String> {
    argv(&[
        "sh",
        "-c",
        installer,
        "sh",
        "-ec",
        RUN,
        "def f(): pass\n",
        "--executor_input",
        "{\"a\": \"$x\"}",
        "--function_to_execute",
        "f",
    ])
}

fn text(text: &str) -> Arg {
    Arg::Text(text.to_owned())
}

#[test]
fn a_lightweight_component_is_its_packages_and_one_call_of_python() {
    let script = format!(
        "{ENSURE}PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet \
         --no-warn-script-location 'pandas==2.2.0' 'scikit-learn'  &&  python3 -m pip install \
         --quiet --no-warn-script-location 'kfp==2.14.3' '--no-deps' \
         'typing-extensions>=3.7.4,<5; python_version<\"3.9\"' && \"$0\" \"$@\"\n"
    );
    let found = recognise(&v2(&script)).unwrap();
    assert_eq!(found.installs.len(), 2);
    assert_eq!(
        found.installs[0].requirements,
        ["pandas==2.2.0", "scikit-learn"]
    );
    assert!(!found.installs[0].no_deps);
    assert_eq!(found.installs[1].kfp(), Some("2.14.3"));
    assert_eq!(
        found.installs[1].requirements[1],
        "typing-extensions>=3.7.4,<5; python_version<\"3.9\""
    );
    let Then::Program(program) = found.then else {
        panic!("{found:?}")
    };
    assert_eq!(program.source, "def f(): pass\n");
    assert_eq!(program.file, "ephemeral_component.py");
    assert_eq!(
        program.env,
        [("_KFP_RUNTIME".to_owned(), "true".to_owned())]
    );
    assert_eq!(
        program.args,
        [
            text("-m"),
            text("kfp.dsl.executor_main"),
            text("--component_module_path"),
            Arg::File,
            text("--executor_input"),
            text("{\"a\": \"$x\"}"),
            text("--function_to_execute"),
            text("f"),
        ]
    );
}

#[test]
fn index_urls_and_virtual_environments_are_understood() {
    let script = format!(
        "{ENSURE}PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet \
         --no-warn-script-location --index-url https://a/simple --extra-index-url \
         https://b/simple --trusted-host https://a/simple 'x' && \n\
         export PIP_DISABLE_PIP_VERSION_CHECK=1\ntmp=$(mktemp -d)\n\
         python3 -m venv \"$tmp/venv\" --system-site-packages\n. \"$tmp/venv/bin/activate\"\n \
         python3 -m pip install --quiet --no-warn-script-location 'kfp==2.14.3' '--no-deps' && \
         \"$0\" \"$@\"\n"
    );
    let found = recognise(&v2(&script)).unwrap();
    assert!(found.system_packages);
    // Without packages of its own the first line sets a variable for nobody.
    let alone = script.replace(
        "python3 -m pip install --quiet --no-warn-script-location --index-url https://a/simple \
         --extra-index-url https://b/simple --trusted-host https://a/simple 'x' && ",
        "",
    );
    assert!(alone.contains("=1 \nexport"), "{alone}");
    assert_eq!(recognise(&v2(&alone)).unwrap().installs.len(), 1);
    assert_eq!(
        found.installs[0].options,
        [
            "--index-url",
            "https://a/simple",
            "--extra-index-url",
            "https://b/simple",
            "--trusted-host",
            "https://a/simple"
        ]
    );
    assert_eq!(found.installs[1].kfp(), Some("2.14.3"));
}

#[test]
fn a_component_of_the_first_sdk_installs_in_two_ways_and_runs_a_file() {
    let install = "PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip install --quiet \
                   --no-warn-script-location 'numpy==1.26.4'";
    let script = format!("({install} || {install} --user) && \"$0\" \"$@\"");
    let run = "program_path=$(mktemp)\nprintf \"%s\" \"$0\" > \"$program_path\"\n\
               python3 -u \"$program_path\" \"$@\"\n";
    let found = recognise(&argv(&[
        "sh", "-c", &script, "sh", "-ec", run, "print(1)", "--a", "1",
    ]))
    .unwrap();
    assert_eq!(found.installs[0].requirements, ["numpy==1.26.4"]);
    let Then::Program(program) = found.then else {
        panic!("{found:?}")
    };
    assert_eq!(
        program.args,
        [text("-u"), Arg::File, text("--a"), text("1")]
    );
    // Without packages there is only the second shell.
    let plain = recognise(&argv(&["sh", "-ec", run, "print(1)"])).unwrap();
    assert!(plain.installs.is_empty());
}

#[test]
fn any_command_may_follow_an_installation() {
    let found = recognise(&argv(&[
        "bash",
        "-c",
        "pip install -q requests==2.32.3 --no-cache-dir && \"$0\" \"$@\"",
        "python3",
        "-c",
        "import requests",
    ]))
    .unwrap();
    assert_eq!(found.installs[0].requirements, ["requests==2.32.3"]);
    assert_eq!(
        found.then,
        Then::Command(argv(&["python3", "-c", "import requests"]))
    );
}

#[test]
fn what_has_another_shape_is_left_alone() {
    let kept = |script: &str| recognise(&argv(&["sh", "-c", script, "python3", "x.py"]));
    for script in [
        "pip install x && python3 \"$0\"",
        "pip install -r requirements.txt && \"$0\" \"$@\"",
        "pip install . && \"$0\" \"$@\"",
        "pip install -e git+https://a && \"$0\" \"$@\"",
        "pip install $PACKAGES && \"$0\" \"$@\"",
        "apt-get install y && pip install x && \"$0\" \"$@\"",
        "pip install x; echo done > /tmp/x && \"$0\" \"$@\"",
        "pip install --target /somewhere x && \"$0\" \"$@\"",
        "(pip install x || pip install y) && \"$0\" \"$@\"",
        "if true; then pip install x; fi\n \"$0\" \"$@\"",
        "echo \"$0\" \"$@\"",
        "pip install 'unclosed && \"$0\" \"$@\"",
    ] {
        assert_eq!(kept(script), None, "{script}");
    }
    assert_eq!(recognise(&argv(&["sh", "-c", "echo $0", "x"])), None);
    assert_eq!(recognise(&argv(&["echo", "pip install x"])), None);
    assert_eq!(
        recognise(&argv(&["sh", "-c", "pip install x && \"$0\" \"$@\""])),
        None
    );
    let other = "p=$(mktemp)\nprintf \"%s\" \"$0\" > \"$p\"\nperl \"$p\"";
    assert_eq!(recognise(&argv(&["sh", "-ec", other, "x"])), None);
}
