//! Models written and read back.

use super::*;
use crate::network::{Kind, Network};
use crate::tensor::{DataType, Values};
use prost::Message as _;

fn digits(rows: usize) -> Tensor {
    let mut pixels = vec![0.0; rows * 784];
    for (row, image) in pixels.chunks_exact_mut(784).enumerate() {
        crate::mnist::test_set().write_floats(row, image);
    }
    Tensor::float(vec![rows, 784], pixels).unwrap()
}

fn predict(model: &SavedModel, rows: usize) -> BTreeMap<String, Tensor> {
    let inputs = BTreeMap::from([("x".to_owned(), digits(rows))]);
    model.predict("serving_default", inputs, &[]).unwrap()
}

#[test]
fn an_exported_model_reads_back_and_answers_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [Kind::Cnn, Kind::Linear] {
        let model = Network::initial(kind, 3).into_saved_model();
        let path = model
            .export(&dir.path().join("deep/export"), 1_700_000_000)
            .unwrap();
        let again = SavedModel::read(&path).unwrap();
        assert!(again.signatures().eq(model.signatures()));
        for rows in [1, 5] {
            let answer = predict(&model, rows);
            assert_eq!(predict(&again, rows), answer);
            assert_eq!(answer["predictions"].shape(), [rows, 10]);
            assert_eq!(answer["classes"].data_type(), DataType::Uint8);
            let scores = answer["predictions"].as_floats().unwrap().chunks_exact(10);
            for (row, class) in scores.zip(answer["classes"].as_uint8().unwrap()) {
                assert_eq!(crate::kernels::arg_max(row), usize::from(*class));
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
    }
    // The second export found its version taken.
    let mut names: Vec<_> = std::fs::read_dir(dir.path().join("deep/export"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["1700000000", "1700000001"]);
}

#[test]
fn rows_together_and_one_by_one_agree() {
    let model = Network::initial(Kind::Cnn, 4).into_saved_model();
    let together = predict(&model, 70);
    let scores = together["predictions"].as_floats().unwrap();
    let images = digits(70);
    for (row, image) in images.as_floats().unwrap().chunks_exact(784).enumerate() {
        let x = Tensor::float(vec![1, 28, 28], image.to_vec()).unwrap();
        let alone = model
            .predict(
                "classes",
                BTreeMap::from([("x".to_owned(), x)]),
                &["predictions".to_owned()],
            )
            .unwrap();
        assert_eq!(alone.len(), 1);
        let pairs = alone["predictions"]
            .as_floats()
            .unwrap()
            .iter()
            .zip(&scores[row * 10..]);
        for (a, b) in pairs {
            assert!((a - b).abs() < 1e-5, "{a} against {b}");
        }
    }
}

#[test]
fn an_export_that_fails_names_the_path_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let model = Network::initial(Kind::Linear, 1).into_saved_model();
    let text = model
        .export(&file.join("export"), 1)
        .unwrap_err()
        .to_string();
    assert!(text.contains(&file.display().to_string()), "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Changes the linear model's message and reads it.
fn changed(change: impl FnOnce(&mut proto::MetaGraphDef)) -> Result<SavedModel, Error> {
    let mut proto = Network::initial(Kind::Linear, 1)
        .into_saved_model()
        .to_proto();
    change(&mut proto.meta_graphs[0]);
    SavedModel::from_proto(proto)
}

fn node<'a>(meta: &'a mut proto::MetaGraphDef, name: &str) -> &'a mut proto::NodeDef {
    let nodes = &mut meta.graph_def.as_mut().unwrap().node;
    nodes.iter_mut().find(|node| node.name == name).unwrap()
}

#[test]
fn what_cannot_be_read_is_named() {
    let check = |change: &dyn Fn(&mut proto::MetaGraphDef), parts: &[&str]| {
        let text = stdx_chain(&changed(change).unwrap_err());
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    };
    check(
        &|m| node(m, "predictions").op = "Erfc".to_owned(),
        &["\"predictions\"", "Erfc"],
    );
    check(
        &|m| node(m, "predictions").input[0] = "gone".to_owned(),
        &["\"predictions\"", "gone"],
    );
    check(
        &|m| node(m, "predictions").input[0] = "logits/sum:1".to_owned(),
        &["logits/sum:1"],
    );
    check(
        &|m| node(m, "logits/product").input[0] = "logits/sum".to_owned(),
        &["depends on itself"],
    );
    check(
        &|m| node(m, "predictions").input.clear(),
        &["takes 1 inputs and has 0"],
    );
    check(
        &|m| drop(node(m, "classes").attr.remove("DstT")),
        &["classes", "DstT", "missing"],
    );
    check(
        &|m| m.meta_info_def.as_mut().unwrap().tags = vec!["train".to_owned()],
        &["train"],
    );
    check(&|m| m.signature_def.clear(), &["no signature"]);
    check(
        &|m| m.signature_def.get_mut("classes").unwrap().inputs.clear(),
        &["\"x\"", "Placeholder"],
    );
    check(
        &|m| {
            let value = node(m, "logits/bias").attr.get_mut("value").unwrap();
            if let Some(proto::attr_value::Value::Tensor(tensor)) = &mut value.value {
                tensor.tensor_content.truncate(7);
            }
        },
        &["logits/bias", "1 elements given for shape [10]"],
    );
}

fn stdx_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn nodes_that_no_signature_needs_do_not_matter() {
    let model = changed(|meta| {
        let saver = proto::NodeDef {
            name: "save/restore".to_owned(),
            op: "RestoreV2".to_owned(),
            ..proto::NodeDef::default()
        };
        meta.graph_def.as_mut().unwrap().node.push(saver);
        node(meta, "predictions")
            .input
            .push("^save/restore".to_owned());
    });
    assert_eq!(model.unwrap().signatures().count(), 2);
}

#[test]
fn files_that_are_not_models_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let text = SavedModel::read(dir.path()).unwrap_err().to_string();
    assert!(text.ends_with("saved_model.pb"), "{text}");
    std::fs::write(dir.path().join(FILE_NAME), b"<html>").unwrap();
    assert!(matches!(
        SavedModel::read(dir.path()),
        Err(Error::Decode { .. })
    ));
    let mut half = Network::initial(Kind::Linear, 1)
        .into_saved_model()
        .to_proto()
        .encode_to_vec();
    half.truncate(half.len() / 2);
    std::fs::write(dir.path().join(FILE_NAME), half).unwrap();
    assert!(SavedModel::read(dir.path()).is_err());
}

#[test]
fn a_request_that_does_not_fit_gets_told_why() {
    let model = Network::initial(Kind::Linear, 1).into_saved_model();
    let x = || Tensor::new(vec![1, 784], Values::Float(vec![0.0; 784])).unwrap();
    let call = |signature: &str, name: &str, filter: &[String]| {
        let inputs = BTreeMap::from([(name.to_owned(), x())]);
        model
            .predict(signature, inputs, filter)
            .unwrap_err()
            .to_string()
    };
    assert!(call("other", "x", &[]).contains("[classes, serving_default]"));
    assert!(call("classes", "y", &[]).contains("wants [x]"));
    assert!(call("classes", "x", &["logits".to_owned()]).contains("[classes, predictions]"));
}
