//! Plans against a walk over the graph node by node.

use super::*;
use crate::tensor::DataType;

fn numbers(count: usize, salt: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 29 + salt * 7) % 31) as f32 / 15.0 - 1.0)
        .collect()
}

fn floats(shape: &[usize], salt: usize) -> Tensor {
    Tensor::float(shape.to_vec(), numbers(shape.iter().product(), salt)).unwrap()
}

fn ints(values: &[i32]) -> Tensor {
    Tensor::new(vec![values.len()], Values::Int32(values.to_vec())).unwrap()
}

struct Small {
    graph: Graph,
    x: NodeId,
    inner: Vec<NodeId>,
    scores: NodeId,
    best: NodeId,
}

/// Convolution, pooling, two dense layers: each of the joined steps once.
fn small() -> Small {
    let mut graph = Graph::new();
    let shape = vec![None, Some(6), Some(6), Some(2)];
    let x = Op::Placeholder {
        data_type: DataType::Float,
        shape,
    };
    let x = graph.add("x", x, &[]).unwrap();
    let mut inner = Vec::new();
    let mut add = |name: &str, op: Op, inputs: &[NodeId]| {
        let id = graph.add(name, op, inputs).unwrap();
        inner.push(id);
        id
    };
    let kernel = add("kernel", Op::Const(floats(&[3, 3, 2, 4], 1)), &[]);
    let conv = Op::Conv2D {
        strides: [1, 1],
        padding: Padding::Same,
    };
    let conv = add("conv", conv, &[x, kernel]);
    let bias = add("bias", Op::Const(floats(&[4], 2)), &[]);
    let bias = add("bias/read", Op::Identity, &[bias]);
    let sum = add("sum", Op::BiasAdd, &[conv, bias]);
    let relu = add("relu", Op::Relu, &[sum]);
    let pool = Op::MaxPool {
        window: [2, 2],
        strides: [2, 2],
        padding: Padding::Valid,
    };
    let pool = add("pool", pool, &[relu]);
    let shape = add("shape", Op::Const(ints(&[-1, 36])), &[]);
    let flat = add("flat", Op::Reshape, &[pool, shape]);
    let weights = add("weights", Op::Const(floats(&[5, 36], 3)), &[]);
    let product = Op::MatMul {
        transpose_a: false,
        transpose_b: true,
    };
    let product = add("product", product, &[flat, weights]);
    let offsets = add("offsets", Op::Const(floats(&[5], 4)), &[]);
    let logits = add("logits", Op::Add, &[product, offsets]);
    let scores = add("scores", Op::Softmax, &[logits]);
    let axis = add("axis", Op::Const(ints(&[-1])), &[]);
    let best = add(
        "best",
        Op::ArgMax {
            output: DataType::Int32,
        },
        &[scores, axis],
    );
    Small {
        graph,
        x,
        inner,
        scores,
        best,
    }
}

#[test]
fn joined_steps_answer_what_single_steps_answer() {
    let Small {
        graph,
        x,
        inner,
        scores,
        best,
    } = small();
    let graph = Arc::new(graph);
    let joined = Plan::new(Arc::clone(&graph), &[x], &[scores, best]).unwrap();
    // Whoever asks for every node gets every node by itself.
    let all: Vec<NodeId> = inner.iter().copied().chain([scores, best]).collect();
    let single = Plan::new(Arc::clone(&graph), &[x], &all).unwrap();
    assert_eq!((joined.steps.len(), single.steps.len()), (5, 9));
    for rows in [1, 2, 7, 200] {
        let input = floats(&[rows, 6, 6, 2], 9);
        let found = joined.run(vec![input.clone()]).unwrap();
        let wanted = single.run(vec![input.clone()]).unwrap();
        assert_eq!(found[0].shape(), [rows, 5]);
        assert_eq!(found[1], wanted[all.len() - 1]);
        let pairs = found[0]
            .as_floats()
            .unwrap()
            .iter()
            .zip(wanted[all.len() - 2].as_floats().unwrap());
        for (a, b) in pairs {
            assert!((a - b).abs() < 1e-6, "{a} against {b}");
        }
        // Memory of the first run is used again and must not show.
        assert_eq!(joined.run(vec![input]).unwrap(), found);
    }
    let none = joined.run(vec![floats(&[0, 6, 6, 2], 0)]).unwrap();
    assert_eq!((none[0].shape(), none[1].shape()), (&[0, 5][..], &[0][..]));
}

#[test]
fn a_graph_that_mixes_rows_is_run_whole() {
    let mut graph = Graph::new();
    let x = Op::Placeholder {
        data_type: DataType::Float,
        shape: vec![None, Some(3)],
    };
    let x = graph.add("x", x, &[]).unwrap();
    let turn = Op::MatMul {
        transpose_a: true,
        transpose_b: false,
    };
    let gram = graph.add("gram", turn, &[x, x]).unwrap();
    let plan = Plan::new(Arc::new(graph), &[x], &[gram]).unwrap();
    let rows = 300;
    let answer = plan
        .run(vec![
            Tensor::float(vec![rows, 3], vec![1.0; 3 * rows]).unwrap(),
        ])
        .unwrap();
    assert_eq!(answer[0].shape(), [3, 3]);
    let wanted = Tensor::float(vec![3, 3], vec![300.0; 9]).unwrap();
    assert_eq!(answer[0], wanted);
}

#[test]
fn casts_wrap_and_shapes_that_do_not_fit_name_their_node() {
    let mut graph = Graph::new();
    let x = Op::Placeholder {
        data_type: DataType::Int64,
        shape: vec![None],
    };
    let x = graph.add("x", x, &[]).unwrap();
    let bytes = graph
        .add(
            "bytes",
            Op::Cast {
                to: DataType::Uint8,
            },
            &[x],
        )
        .unwrap();
    let shape = graph.add("shape", Op::Const(ints(&[-1, 4])), &[]).unwrap();
    let fours = graph.add("fours", Op::Reshape, &[bytes, shape]).unwrap();
    let plan = Plan::new(Arc::new(graph), &[x], &[fours]).unwrap();
    let run = |values: Vec<i64>| {
        plan.run(vec![
            Tensor::new(vec![values.len()], Values::Int64(values)).unwrap(),
        ])
    };
    assert_eq!(
        run(vec![1, 256, 255, -1]).unwrap()[0].as_uint8().unwrap(),
        [1, 0, 255, 255]
    );
    let text = run(vec![1, 2, 3]).unwrap_err().to_string();
    assert!(
        text.contains("\"fours\" (Reshape)") && text.contains("[3]"),
        "{text}"
    );
}

#[test]
fn what_is_not_fed_is_named() {
    let Small { graph, scores, .. } = small();
    let error = Plan::new(Arc::new(graph), &[], &[scores]).unwrap_err();
    assert_eq!(
        error,
        Error::NotFed {
            node: "x".to_owned()
        }
    );
}
