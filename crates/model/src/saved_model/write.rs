//! Writing a model so that TensorFlow loads it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use prost::Message as _;

use super::{Error, FILE_NAME, SERVE_TAG, SavedModel};
use crate::codec::{self, Encoding};
use crate::graph::{Graph, Node, Op};
use crate::kernels::Padding;
use crate::proto::{self, AttrValue, attr_value::ListValue, attr_value::Value};
use crate::tensor::DataType;

/// The version of TensorFlow whose operations and attributes are written, and its graph version.
const OPS_OF: &str = "1.15.0";
const PRODUCER: i32 = 134;
const MIN_CONSUMER: i32 = 12;

impl SavedModel {
    /// Writes the model to the directory `base/version`, or to the first version after it that is
    /// free, and answers that directory. It appears whole or not at all.
    pub fn export(&self, base: &Path, version: u64) -> Result<PathBuf, Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Write { path, source }
        };
        fs::create_dir_all(base).map_err(at(base))?;
        // Not a number, so nobody takes it for a version.
        let temporary = base.join(format!(".export-{version}-{}", std::process::id()));
        let outcome = self.write_to(&temporary).and_then(|()| {
            let mut version = version;
            loop {
                let target = base.join(version.to_string());
                if target.exists() {
                    version += 1;
                    continue;
                }
                return match fs::rename(&temporary, &target) {
                    Ok(()) => sync(base).map(|()| target),
                    // Somebody else took the version just now.
                    Err(_) if target.exists() => continue,
                    Err(source) => Err(Error::Write {
                        path: target,
                        source,
                    }),
                };
            }
        });
        if outcome.is_err() {
            // The first error is the one to report.
            drop(fs::remove_dir_all(&temporary));
        }
        outcome
    }

    fn write_to(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE_NAME);
        fs::create_dir_all(dir).map_err(|source| Error::Write {
            path: dir.to_owned(),
            source,
        })?;
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&self.to_proto().encode_to_vec())?;
            file.sync_all()
        });
        written.map_err(|source| Error::Write { path, source })?;
        sync(dir)
    }

    /// The model as a message.
    pub fn to_proto(&self) -> proto::SavedModel {
        let meta_info = proto::meta_graph_def::MetaInfoDef {
            meta_graph_version: String::new(),
            tags: vec![SERVE_TAG.to_owned()],
            tensorflow_version: OPS_OF.to_owned(),
            tensorflow_git_version: "coracle".to_owned(),
            stripped_default_attrs: false,
        };
        let signatures = self.signatures();
        let meta_graph = proto::MetaGraphDef {
            meta_info_def: Some(meta_info),
            graph_def: Some(graph_def(&self.graph)),
            signature_def: signatures
                .map(|(name, signature)| (name.to_owned(), signature.to_proto()))
                .collect(),
        };
        proto::SavedModel {
            saved_model_schema_version: 1,
            meta_graphs: vec![meta_graph],
        }
    }
}

fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| Error::Write {
            path: dir.to_owned(),
            source,
        })
}

fn graph_def(graph: &Graph) -> proto::GraphDef {
    let mut types: Vec<DataType> = Vec::new();
    let mut nodes = Vec::new();
    for (_, node) in graph.nodes() {
        let input_types: Vec<DataType> = node.inputs.iter().map(|input| types[input.0]).collect();
        types.push(result_type(&node.op, &input_types));
        nodes.push(proto::NodeDef {
            name: node.name.clone(),
            op: node.op.name().to_owned(),
            input: node
                .inputs
                .iter()
                .map(|&input| graph.node(input).name.clone())
                .collect(),
            device: String::new(),
            attr: attributes(node, &input_types),
        });
    }
    let versions = proto::VersionDef {
        producer: PRODUCER,
        min_consumer: MIN_CONSUMER,
        bad_consumers: Vec::new(),
    };
    proto::GraphDef {
        node: nodes,
        versions: Some(versions),
    }
}

fn result_type(op: &Op, inputs: &[DataType]) -> DataType {
    match op {
        Op::Placeholder { data_type, .. } => *data_type,
        Op::Const(tensor) => tensor.data_type(),
        Op::ArgMax { output } => *output,
        Op::Cast { to } => *to,
        _ => inputs[0],
    }
}

/// All attributes of a node, those with their default values too: not every reader fills them in.
fn attributes(node: &Node, inputs: &[DataType]) -> BTreeMap<String, AttrValue> {
    let kind = |data_type: DataType| Value::Type(data_type.to_proto().into());
    let first = || ("T", kind(inputs[0]));
    let text = |text: &str| Value::S(text.as_bytes().to_vec());
    let list = |values: &[usize]| {
        let i = values.iter().map(|&value| value as i64).collect();
        Value::List(ListValue {
            i,
            ..ListValue::default()
        })
    };
    let around = |[y, x]: [usize; 2]| list(&[1, y, x, 1]);
    let padding = |padding: Padding| match padding {
        Padding::Same => text("SAME"),
        Padding::Valid => text("VALID"),
    };
    let pairs = match &node.op {
        Op::Placeholder { data_type, shape } => {
            let shape = codec::shape_to_proto(shape.iter().copied());
            vec![("dtype", kind(*data_type)), ("shape", Value::Shape(shape))]
        }
        Op::Const(tensor) => vec![
            ("dtype", kind(tensor.data_type())),
            ("value", Value::Tensor(tensor.to_proto(Encoding::Content))),
        ],
        Op::Identity | Op::Add | Op::Relu | Op::Softmax => vec![first()],
        Op::Reshape => vec![first(), ("Tshape", kind(inputs[1]))],
        Op::Conv2D {
            strides,
            padding: around_image,
        } => vec![
            first(),
            ("strides", around(*strides)),
            ("padding", padding(*around_image)),
            ("explicit_paddings", list(&[])),
            ("use_cudnn_on_gpu", Value::B(true)),
            ("data_format", text("NHWC")),
            ("dilations", list(&[1, 1, 1, 1])),
        ],
        Op::BiasAdd => vec![first(), ("data_format", text("NHWC"))],
        Op::MaxPool {
            window,
            strides,
            padding: around_image,
        } => vec![
            first(),
            ("ksize", around(*window)),
            ("strides", around(*strides)),
            ("padding", padding(*around_image)),
            ("data_format", text("NHWC")),
        ],
        Op::MatMul {
            transpose_a,
            transpose_b,
        } => vec![
            first(),
            ("transpose_a", Value::B(*transpose_a)),
            ("transpose_b", Value::B(*transpose_b)),
        ],
        Op::ArgMax { output } => {
            vec![
                first(),
                ("Tidx", kind(inputs[1])),
                ("output_type", kind(*output)),
            ]
        }
        Op::Cast { to } => {
            vec![
                ("SrcT", kind(inputs[0])),
                ("DstT", kind(*to)),
                ("Truncate", Value::B(false)),
            ]
        }
    };
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), AttrValue { value: Some(value) }))
        .collect()
}
