//! What a model offers: named inputs and outputs with element types and shapes, and the check of a
//! request against them.

use std::collections::BTreeMap;

use crate::tensor::{DataType, Tensor, shape_text};

/// The signature that a request gets which names none.
pub const DEFAULT_SIGNATURE: &str = "serving_default";
/// The method name of a signature that maps tensors to tensors.
pub const PREDICT_METHOD: &str = "tensorflow/serving/predict";

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The edge of the graph: `node:output`.
    pub edge: String,
    /// The type of the elements.
    pub data_type: DataType,
    /// The size of each dimension, `None` where any will do.
    pub shape: Vec<Option<usize>>,
}

/// One way to call a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What kind of call it is.
    pub method_name: String,
    /// What a request must give.
    pub inputs: BTreeMap<String, TensorInfo>,
    /// What it can get.
    pub outputs: BTreeMap<String, TensorInfo>,
}

/// Why a request does not fit a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The inputs given are not the inputs wanted.
    #[error("input keys are [{}], but the signature wants [{}]", given.join(", "), wanted.join(", "))]
    Inputs {
        /// Names in the request.
        given: Vec<String>,
        /// Names in the signature.
        wanted: Vec<String>,
    },
    /// An input's elements are of another type.
    #[error("input {name:?} is of type {given}, but the signature wants {wanted}")]
    Type {
        /// The input.
        name: String,
        /// Its type.
        given: DataType,
        /// The signature's.
        wanted: DataType,
    },
    /// An input's shape fits neither as it is nor by regrouping what follows the first dimension.
    #[error("input {name:?} has shape {given}, but the signature wants {wanted}")]
    Shape {
        /// The input.
        name: String,
        /// Its shape.
        given: String,
        /// The signature's.
        wanted: String,
    },
    /// An output asked for that does not exist.
    #[error("no output {name:?}; the signature has [{}]", known.join(", "))]
    Output {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
}

impl TensorInfo {
    /// The shape as messages show it: `[-1,28,28]`.
    pub fn shape_text(&self) -> String {
        let sizes: Vec<String> = self
            .shape
            .iter()
            .map(|size| size.map_or("-1".to_owned(), |n| n.to_string()))
            .collect();
        format!("[{}]", sizes.join(","))
    }

    /// Brings a tensor into this shape: it fits already, or only the dimensions behind the first
    /// are grouped in another way (an image as one row of pixels, or with a channel dimension).
    pub fn fit(&self, name: &str, tensor: Tensor) -> Result<Tensor, Error> {
        if tensor.data_type() != self.data_type {
            return Err(Error::Type {
                name: name.to_owned(),
                given: tensor.data_type(),
                wanted: self.data_type,
            });
        }
        let given = tensor.shape();
        let fits = given.len() == self.shape.len()
            && given
                .iter()
                .zip(&self.shape)
                .all(|(&size, want)| want.is_none_or(|w| w == size));
        if fits {
            return Ok(tensor);
        }
        let error = Error::Shape {
            name: name.to_owned(),
            given: shape_text(given),
            wanted: self.shape_text(),
        };
        let (Some((&rows, rest)), Some((want_rows, want_rest))) =
            (given.split_first(), self.shape.split_first())
        else {
            return Err(error);
        };
        let fixed: Option<Vec<usize>> = want_rest.iter().copied().collect();
        match fixed {
            Some(fixed)
                if !rest.is_empty()
                    && want_rows.is_none_or(|want| want == rows)
                    && rest.iter().product::<usize>() == fixed.iter().product::<usize>() =>
            {
                let shape = std::iter::once(rows).chain(fixed).collect();
                tensor.reshaped(shape).map_err(|_| error)
            }
            _ => Err(error),
        }
    }
}

impl Signature {
    /// Checks a request's inputs and brings them into the signature's shapes, in its order.
    pub fn fit(&self, mut inputs: BTreeMap<String, Tensor>) -> Result<Vec<Tensor>, Error> {
        if !inputs.keys().eq(self.inputs.keys()) {
            return Err(Error::Inputs {
                given: inputs.into_keys().collect(),
                wanted: self.inputs.keys().cloned().collect(),
            });
        }
        self.inputs
            .iter()
            .filter_map(|(name, info)| Some((name, info, inputs.remove(name)?)))
            .map(|(name, info, tensor)| info.fit(name, tensor))
            .collect()
    }

    /// The outputs that `filter` names, all of them if it names none.
    pub fn select<'a>(
        &'a self,
        filter: &'a [String],
    ) -> Result<Vec<(&'a str, &'a TensorInfo)>, Error> {
        if filter.is_empty() {
            return Ok(self
                .outputs
                .iter()
                .map(|(name, info)| (name.as_str(), info))
                .collect());
        }
        filter
            .iter()
            .map(|name| {
                self.outputs
                    .get_key_value(name)
                    .map(|(name, info)| (name.as_str(), info))
                    .ok_or_else(|| Error::Output {
                        name: name.clone(),
                        known: self.outputs.keys().cloned().collect(),
                    })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> TensorInfo {
        TensorInfo {
            edge: "x:0".to_owned(),
            data_type: DataType::Float,
            shape: vec![None, Some(28), Some(28)],
        }
    }

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::float(shape.to_vec(), vec![0.0; shape.iter().product()]).unwrap()
    }

    #[test]
    fn an_image_fits_as_a_square_as_a_row_and_with_a_channel() {
        for shape in [&[3, 28, 28][..], &[3, 784], &[3, 28, 28, 1], &[3, 1, 784]] {
            assert_eq!(
                image().fit("x", zeros(shape)).unwrap().shape(),
                [3, 28, 28],
                "{shape:?}"
            );
        }
        assert_eq!(
            image().fit("x", zeros(&[0, 784])).unwrap().shape(),
            [0, 28, 28]
        );
    }

    #[test]
    fn other_shapes_and_types_are_refused_with_both_sides_named() {
        for shape in [&[784][..], &[28, 28], &[1, 783], &[1, 28, 28, 2], &[]] {
            let text = image().fit("x", zeros(shape)).unwrap_err().to_string();
            assert!(
                text.contains(&shape_text(shape)) && text.contains("[-1,28,28]"),
                "{text}"
            );
        }
        let bytes = Tensor::new(vec![1, 784], crate::tensor::Values::Uint8(vec![0; 784])).unwrap();
        let text = image().fit("x", bytes).unwrap_err().to_string();
        assert_eq!(
            text,
            "input \"x\" is of type uint8, but the signature wants float"
        );
    }

    #[test]
    fn inputs_and_outputs_are_checked_by_name() {
        let signature = Signature {
            method_name: PREDICT_METHOD.to_owned(),
            inputs: BTreeMap::from([("x".to_owned(), image())]),
            outputs: BTreeMap::from([("classes".to_owned(), image())]),
        };
        let text = signature
            .fit(BTreeMap::from([("y".to_owned(), zeros(&[1, 784]))]))
            .unwrap_err()
            .to_string();
        assert_eq!(text, "input keys are [y], but the signature wants [x]");
        let text = signature
            .select(&["scores".to_owned()])
            .unwrap_err()
            .to_string();
        assert_eq!(text, "no output \"scores\"; the signature has [classes]");
        assert_eq!(signature.select(&[]).unwrap()[0].0, "classes");
    }
}
