//! Requests and answers in both layouts.

use super::*;
use model::TensorInfo;

fn signature(names: &[&str]) -> Signature {
    let info = |name: &str| TensorInfo {
        edge: format!("{name}:0"),
        data_type: if name == "n" {
            DataType::Int32
        } else {
            DataType::Float
        },
        shape: vec![None, None],
    };
    Signature {
        method_name: String::new(),
        inputs: names
            .iter()
            .map(|name| ((*name).to_owned(), info(name)))
            .collect(),
        outputs: BTreeMap::new(),
    }
}

fn read(names: &[&str], body: &str) -> Result<BTreeMap<String, Tensor>, Failure> {
    inputs(parse_body(body.as_bytes())?.layout, &signature(names))
}

#[test]
fn both_layouts_give_the_same_tensors() {
    let x = Tensor::float(vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5]).unwrap();
    for body in [
        r#"{"instances": [[1, 2, 3], [4, 5, 6.5]]}"#,
        r#"{"instances": [{"x": [1, 2, 3]}, {"x": [4, 5, 6.5]}]}"#,
        r#"{"inputs": [[1, 2, 3], [4, 5, 6.5]]}"#,
        r#"{"inputs": {"x": [[1, 2, 3], [4, 5, 6.5]]}, "signature_name": "s"}"#,
    ] {
        assert_eq!(read(&["x"], body).unwrap()["x"], x, "{body}");
    }
    let two = read(
        &["n", "x"],
        r#"{"instances": [{"x": 1.5, "n": 1}, {"x": 2, "n": 2}]}"#,
    )
    .unwrap();
    assert_eq!(
        two["n"],
        Tensor::new(vec![2], Values::Int32(vec![1, 2])).unwrap()
    );
    assert_eq!(two["x"].shape(), [2]);
}

#[test]
fn what_is_wrong_with_a_body_is_said() {
    for (body, part) in [
        ("[1", "JSON Parse error"),
        ("[1]", "not a JSON object"),
        ("{}", "Missing 'inputs' or 'instances'"),
        (r#"{"instances": []}"#, "at least one"),
        (r#"{"instances": 5}"#, "at least one"),
        (r#"{"instances": [1], "inputs": 1}"#, "together"),
        (
            r#"{"instances": [1], "signature_name": 7}"#,
            "'signature_name'",
        ),
        (r#"{"instances": [[1, 2], [3]]}"#, "lists of 2 and of 1"),
        (r#"{"instances": [[1, 2], 3]}"#, "side by side"),
        (r#"{"instances": [["a"]]}"#, "\"a\" is not a number"),
        (
            r#"{"instances": [{"y": 1}]}"#,
            "no input \"y\"; the signature has [x]",
        ),
        (r#"{"instances": [{"x": 1}, {"y": 1}]}"#, "same inputs"),
        (r#"{"instances": [{"x": 1}, {}]}"#, "same inputs"),
        (r#"{"inputs": {"y": 1}}"#, "no input \"y\""),
    ] {
        let failure = read(&["x"], body).unwrap_err();
        assert!(
            failure.message.contains(part),
            "{body}: {}",
            failure.message
        );
        assert_eq!(failure.code, tonic::Code::InvalidArgument);
    }
    let failure = read(&["n", "x"], r#"{"inputs": [1]}"#).unwrap_err();
    assert!(
        failure.message.contains("by name: n, x"),
        "{}",
        failure.message
    );
    let failure = read(&["n"], r#"{"instances": [1.5]}"#).unwrap_err();
    assert!(
        failure.message.contains("1.5 is not of type int32"),
        "{}",
        failure.message
    );
}

#[test]
fn answers_follow_the_layout_of_the_request() {
    let scores = Tensor::float(vec![2, 2], vec![0.1, 0.9, 1.0, 1e-7]).unwrap();
    let classes = Tensor::new(vec![2], Values::Uint8(vec![1, 0])).unwrap();
    let one = BTreeMap::from([("scores".to_owned(), scores.clone())]);
    let two = BTreeMap::from([
        ("classes".to_owned(), classes),
        ("scores".to_owned(), scores),
    ]);
    assert_eq!(
        answer(&one, true).unwrap(),
        r#"{"predictions":[[0.1,0.9],[1.0,1e-7]]}"#
    );
    assert_eq!(
        answer(&one, false).unwrap(),
        r#"{"outputs":[[0.1,0.9],[1.0,1e-7]]}"#
    );
    assert_eq!(
        answer(&two, true).unwrap(),
        r#"{"predictions":[{"classes":1,"scores":[0.1,0.9]},{"classes":0,"scores":[1.0,1e-7]}]}"#
    );
    assert_eq!(
        answer(&two, false).unwrap(),
        r#"{"outputs":{"classes":[1,0],"scores":[[0.1,0.9],[1.0,1e-7]]}}"#
    );
    let scalar = BTreeMap::from([("s".to_owned(), Tensor::float(vec![], vec![2.0]).unwrap())]);
    assert!(answer(&scalar, true).is_err());
    assert_eq!(answer(&scalar, false).unwrap(), r#"{"outputs":2.0}"#);
}
