//! Tensors between memory and the wire.

use bytes::Bytes;

use crate::proto::{self, TensorProto, TensorShapeProto, tensor_shape_proto::Dim};
use crate::tensor::{DataType, Tensor, Values};

/// A message may name a shape of this many elements and bring fewer.
const MOST_FILLED: usize = 1 << 26;

/// Why a message is not a tensor that can be handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An element type that graphs here do not handle.
    #[error(
        "element type {name} is not supported; supported are DT_FLOAT, DT_UINT8, DT_INT32 and DT_INT64"
    )]
    Type {
        /// TensorFlow's name of the type.
        name: String,
    },
    /// A shape with sizes that are open, negative or too large together.
    #[error("shape {shape} is not one of a tensor in memory")]
    Shape {
        /// The shape.
        shape: String,
    },
    /// More or fewer elements than the shape has.
    #[error("{found} elements given for shape {shape}, which has {wanted}")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there should be.
        wanted: usize,
        /// The shape.
        shape: String,
    },
    /// An element that its type cannot hold.
    #[error("element {value} is not a uint8")]
    Range {
        /// The element.
        value: i32,
    },
}

/// How the elements of a tensor are put into a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As bytes.
    Content,
    /// In the repeated field of their type.
    Fields,
}

impl DataType {
    /// The type of the wire.
    pub fn to_proto(self) -> proto::DataType {
        match self {
            Self::Float => proto::DataType::DtFloat,
            Self::Uint8 => proto::DataType::DtUint8,
            Self::Int32 => proto::DataType::DtInt32,
            Self::Int64 => proto::DataType::DtInt64,
        }
    }

    /// The type of memory.
    pub fn from_proto(number: i32) -> Result<Self, Error> {
        match proto::DataType::try_from(number) {
            Ok(proto::DataType::DtFloat) => Ok(Self::Float),
            Ok(proto::DataType::DtUint8) => Ok(Self::Uint8),
            Ok(proto::DataType::DtInt32) => Ok(Self::Int32),
            Ok(proto::DataType::DtInt64) => Ok(Self::Int64),
            Ok(other) => Err(Error::Type {
                name: other.as_str_name().to_owned(),
            }),
            Err(_) => Err(Error::Type {
                name: number.to_string(),
            }),
        }
    }
}

/// A shape with open sizes as -1.
pub(crate) fn shape_to_proto(shape: impl IntoIterator<Item = Option<usize>>) -> TensorShapeProto {
    let dim = |size: Option<usize>| Dim {
        size: size.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1),
        name: String::new(),
    };
    TensorShapeProto {
        dim: shape.into_iter().map(dim).collect(),
        unknown_rank: false,
    }
}

/// A shape; `None` if not even the number of dimensions is known.
pub(crate) fn shape_from_proto(shape: &TensorShapeProto) -> Option<Vec<Option<usize>>> {
    (!shape.unknown_rank).then(|| {
        shape
            .dim
            .iter()
            .map(|dim| usize::try_from(dim.size).ok())
            .collect()
    })
}

impl Tensor {
    /// The tensor as a message.
    pub fn to_proto(&self, encoding: Encoding) -> TensorProto {
        let mut proto = TensorProto {
            dtype: self.data_type().to_proto().into(),
            tensor_shape: Some(shape_to_proto(self.shape().iter().copied().map(Some))),
            ..TensorProto::default()
        };
        if encoding == Encoding::Content {
            proto.tensor_content = content(self.values());
            return proto;
        }
        match self.values() {
            Values::Float(values) => proto.float_val.clone_from(values),
            Values::Uint8(values) => proto.int_val = values.iter().map(|&v| v.into()).collect(),
            Values::Int32(values) => proto.int_val.clone_from(values),
            Values::Int64(values) => proto.int64_val.clone_from(values),
        }
        proto
    }

    /// The tensor that a message holds, in either encoding.
    pub fn from_proto(proto: &TensorProto) -> Result<Self, Error> {
        let data_type = DataType::from_proto(proto.dtype)?;
        let default = TensorShapeProto::default();
        let wire = proto.tensor_shape.as_ref().unwrap_or(&default);
        let sizes: Vec<String> = wire.dim.iter().map(|dim| dim.size.to_string()).collect();
        let text = format!("[{}]", sizes.join(","));
        let no_shape = || Error::Shape {
            shape: text.clone(),
        };
        let shape: Vec<usize> = shape_from_proto(wire)
            .and_then(|shape| shape.into_iter().collect())
            .ok_or_else(no_shape)?;
        let wanted = shape
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size))
            .filter(|&count| count <= isize::MAX as usize / 8)
            .ok_or_else(no_shape)?;
        let count = |found| Error::Count {
            found,
            wanted,
            shape: text.clone(),
        };

        let values = if proto.tensor_content.is_empty() {
            match data_type {
                DataType::Float => Values::Float(fill(&proto.float_val, wanted).map_err(count)?),
                DataType::Int32 => Values::Int32(fill(&proto.int_val, wanted).map_err(count)?),
                DataType::Int64 => Values::Int64(fill(&proto.int64_val, wanted).map_err(count)?),
                DataType::Uint8 => {
                    let bytes: Result<Vec<u8>, Error> = proto
                        .int_val
                        .iter()
                        .map(|&value| u8::try_from(value).map_err(|_| Error::Range { value }))
                        .collect();
                    Values::Uint8(fill(&bytes?, wanted).map_err(count)?)
                }
            }
        } else {
            from_content(data_type, &proto.tensor_content, wanted).map_err(count)?
        };
        Self::new(shape, values).map_err(|error| count(error.found))
    }
}

fn content(values: &Values) -> Bytes {
    match values {
        Values::Float(values) if cfg!(target_endian = "little") => {
            Bytes::copy_from_slice(bytemuck::cast_slice(values))
        }
        Values::Float(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Values::Uint8(values) => Bytes::copy_from_slice(values),
        Values::Int32(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Values::Int64(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// Decodes bytes; on a wrong length answers how many elements there are.
fn from_content(data_type: DataType, bytes: &[u8], wanted: usize) -> Result<Values, usize> {
    let size = match data_type {
        DataType::Uint8 => 1,
        DataType::Float | DataType::Int32 => 4,
        DataType::Int64 => 8,
    };
    if bytes.len() != wanted * size {
        return Err(bytes.len() / size);
    }
    let (fours, _) = bytes.as_chunks::<4>();
    let (eights, _) = bytes.as_chunks::<8>();
    Ok(match data_type {
        DataType::Uint8 => Values::Uint8(bytes.to_vec()),
        DataType::Float => Values::Float(fours.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DataType::Int32 => Values::Int32(fours.iter().map(|b| i32::from_le_bytes(*b)).collect()),
        DataType::Int64 => Values::Int64(eights.iter().map(|b| i64::from_le_bytes(*b)).collect()),
    })
}

/// The elements, the last one repeated up to the count wanted (zero if there is none).
fn fill<T: Copy + Default>(given: &[T], wanted: usize) -> Result<Vec<T>, usize> {
    if given.len() > wanted || (given.len() < wanted && wanted > MOST_FILLED) {
        return Err(given.len());
    }
    let mut values = Vec::with_capacity(wanted);
    values.extend_from_slice(given);
    values.resize(wanted, given.last().copied().unwrap_or_default());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_come_back_as_they_were() {
        let tensors = [
            Tensor::float(vec![2, 2], vec![1.0, -2.5, 0.0, f32::MAX]).unwrap(),
            Tensor::new(vec![3], Values::Uint8(vec![0, 7, 255])).unwrap(),
            Tensor::new(vec![1], Values::Int32(vec![-5])).unwrap(),
            Tensor::new(vec![], Values::Int64(vec![i64::MIN])).unwrap(),
            Tensor::float(vec![0, 28, 28], Vec::new()).unwrap(),
        ];
        for tensor in tensors {
            for encoding in [Encoding::Content, Encoding::Fields] {
                let proto = tensor.to_proto(encoding);
                assert_eq!(Tensor::from_proto(&proto).unwrap(), tensor);
            }
        }
    }

    #[test]
    fn a_short_field_is_filled_with_its_last_element() {
        let mut proto = Tensor::float(vec![4], vec![0.0; 4])
            .unwrap()
            .to_proto(Encoding::Fields);
        proto.float_val = vec![1.0, 2.0];
        let tensor = Tensor::from_proto(&proto).unwrap();
        assert_eq!(tensor.as_floats().unwrap(), [1.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn broken_messages_are_errors() {
        let good = Tensor::float(vec![2], vec![1.0, 2.0])
            .unwrap()
            .to_proto(Encoding::Content);
        let check = |change: &dyn Fn(&mut TensorProto), part: &str| {
            let mut proto = good.clone();
            change(&mut proto);
            let text = Tensor::from_proto(&proto).unwrap_err().to_string();
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        };
        let set_size = |proto: &mut TensorProto, size| {
            proto.tensor_shape.as_mut().unwrap().dim[0].size = size;
        };
        check(
            &|p| p.tensor_content.truncate(7),
            "1 elements given for shape [2], which has 2",
        );
        check(&|p| p.dtype = 7, "DT_STRING");
        check(&|p| p.dtype = 99, "99");
        check(&|p| set_size(p, -1), "[-1]");
        check(&|p| set_size(p, i64::MAX), "9223372036854775807");
        check(
            &|p| {
                p.tensor_content = Bytes::new();
                p.float_val = vec![1.0];
                set_size(p, 1 << 40);
            },
            "1 elements given",
        );
        check(
            &|p| {
                p.tensor_content = Bytes::new();
                p.dtype = 4;
                p.int_val = vec![1, 256];
            },
            "element 256",
        );
    }
}
