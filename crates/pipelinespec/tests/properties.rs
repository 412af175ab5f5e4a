//! No input makes the compiler panic.

use pipelinespec::Package;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes(name in "[a-z.]{0,8}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Package::from_file(&name, &bytes);
        for magic in [&b"PK\x03\x04"[..], &[0x1f, 0x8b, 8]] {
            let _ = Package::from_file("p", &[magic, &bytes].concat());
        }
    }

    #[test]
    fn any_text_in_a_template(text in "\\PC{0,60}", braces in "[{}=.a-z\"'!<>&|() ]{0,40}") {
        for text in [text, braces] {
            let step = serde_json::json!({"name": "s", "container": {"image": text, "args": [text]}});
            let task = serde_json::json!({"name": "a", "template": "s", "when": text});
            let workflow = serde_json::json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
                "spec": {"entrypoint": "m", "templates": [{"name": "m", "dag": {"tasks": [task]}}, step]},
            });
            let _ = Package::from_text(&workflow.to_string());
        }
    }
}
