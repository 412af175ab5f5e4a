//! Arrays of numbers with a shape, as they go in and out of a model.

use std::fmt;

/// The element types that graphs here handle; the names are TensorFlow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// `DT_FLOAT`.
    Float,
    /// `DT_UINT8`.
    Uint8,
    /// `DT_INT32`.
    Int32,
    /// `DT_INT64`.
    Int64,
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float",
            Self::Uint8 => "uint8",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
        })
    }
}

/// The elements of a [`Tensor`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// Elements of [`DataType::Float`].
    Float(Vec<f32>),
    /// Elements of [`DataType::Uint8`].
    Uint8(Vec<u8>),
    /// Elements of [`DataType::Int32`].
    Int32(Vec<i32>),
    /// Elements of [`DataType::Int64`].
    Int64(Vec<i64>),
}

impl Values {
    /// The type of the elements.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Float(_) => DataType::Float,
            Self::Uint8(_) => DataType::Uint8,
            Self::Int32(_) => DataType::Int32,
            Self::Int64(_) => DataType::Int64,
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Uint8(values) => values.len(),
            Self::Int32(values) => values.len(),
            Self::Int64(values) => values.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A shape that its elements do not fill.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} elements do not fill the shape {}", shape_text(shape))]
pub struct ShapeError {
    /// The shape.
    pub shape: Vec<usize>,
    /// How many elements there are.
    pub found: usize,
}

/// A dense array, last dimension fastest. The shape is always filled.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    values: Values,
}

impl Tensor {
    /// A tensor of these elements.
    pub fn new(shape: Vec<usize>, values: Values) -> Result<Self, ShapeError> {
        let wanted = shape
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size));
        if wanted == Some(values.len()) {
            Ok(Self { shape, values })
        } else {
            Err(ShapeError {
                shape,
                found: values.len(),
            })
        }
    }

    /// A tensor of floats.
    pub fn float(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, ShapeError> {
        Self::new(shape, Values::Float(values))
    }

    /// The size of each dimension, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The elements, given away.
    pub fn into_values(self) -> Values {
        self.values
    }

    /// The type of the elements.
    pub fn data_type(&self) -> DataType {
        self.values.data_type()
    }

    /// The elements if they are floats.
    pub fn as_floats(&self) -> Option<&[f32]> {
        match &self.values {
            Values::Float(values) => Some(values),
            _ => None,
        }
    }

    /// The elements if they are bytes.
    pub fn as_uint8(&self) -> Option<&[u8]> {
        match &self.values {
            Values::Uint8(values) => Some(values),
            _ => None,
        }
    }

    /// The same elements in another shape.
    pub fn reshaped(self, shape: Vec<usize>) -> Result<Self, ShapeError> {
        Self::new(shape, self.values)
    }
}

/// A shape as messages show it: `[2,28,28]`.
pub fn shape_text(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", sizes.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_must_be_filled_and_must_not_overflow() {
        assert!(Tensor::float(vec![2, 3], vec![0.0; 6]).is_ok());
        let error = Tensor::float(vec![2, 3], vec![0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "5 elements do not fill the shape [2,3]");
        assert!(Tensor::float(vec![usize::MAX, 2], Vec::new()).is_err());
        assert!(Tensor::float(vec![0, usize::MAX], Vec::new()).is_ok());
    }
}
