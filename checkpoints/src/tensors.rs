//! Named tensors in host memory: what lies between a file and a device.
//!
//! Owns shapes, element types and their conversion. Layout is row-major; nothing here knows what a tensor means.

use std::borrow::Cow;
use std::collections::BTreeMap;

use half::{bf16, f16};
use sha2::{Digest, Sha256};

/// Tensors under their names, in the order of the names.
pub type TensorMap = BTreeMap<String, HostTensor>;

/// Element type of a tensor in a file, spelled as safetensors does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Truth values, one byte each; read as I64.
    Bool,
    /// Unsigned bytes; read as I64.
    U8,
    /// Signed bytes; read as I64.
    I8,
    /// Read as I64.
    U16,
    /// Read as I64.
    I16,
    /// Read as I64.
    U32,
    /// Read as I64.
    I32,
    /// Refused if a value exceeds the range of I64.
    U64,
    /// Kept.
    I64,
    /// Eight-bit float, known by name only: reading is refused.
    F8E4M3,
    /// Eight-bit float, known by name only: reading is refused.
    F8E5M2,
    /// IEEE half precision; kept.
    F16,
    /// bfloat16; kept.
    Bf16,
    /// Single precision; kept.
    F32,
    /// Double precision; rounded to F32 when read.
    F64,
}

impl Dtype {
    /// All types that a header may name.
    pub const ALL: [Self; 15] = [
        Self::Bool,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
    ];

    /// The spelling in a safetensors header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::U16 => "U16",
            Self::I16 => "I16",
            Self::U32 => "U32",
            Self::I32 => "I32",
            Self::U64 => "U64",
            Self::I64 => "I64",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
        }
    }

    /// The type with this spelling, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type that a tensor has after reading: F64 becomes F32, integers become I64.
    #[must_use]
    pub const fn in_memory(self) -> Self {
        match self {
            Self::F16 => Self::F16,
            Self::Bf16 => Self::Bf16,
            // Reading a float of 8 bits is refused by name.
            Self::F32 | Self::F64 | Self::F8E4M3 | Self::F8E5M2 => Self::F32,
            Self::Bool
            | Self::U8
            | Self::I8
            | Self::U16
            | Self::I16
            | Self::U32
            | Self::I32
            | Self::U64
            | Self::I64 => Self::I64,
        }
    }

    /// Bytes per element.
    pub const fn n_bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// The elements of a tensor, row-major, in the type they are stored with.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Single precision.
    F32(Vec<f32>),
    /// Half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// Integers of every stored width.
    I64(Vec<i64>),
}

impl Values {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::I64(values) => values.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type with which these values are written.
    pub const fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::Bf16,
            Self::I64(_) => Dtype::I64,
        }
    }
}

/// A tensor in host memory. `shape` is empty for a scalar; its product is the number of values.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Lengths of the axes, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub values: Values,
}

impl HostTensor {
    /// A single-precision tensor.
    ///
    /// # Panics
    ///
    /// If the product of `shape` is not the number of values.
    pub fn from_f32(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "shape {shape:?} must hold all values"
        );
        Self { shape, values: Values::F32(values) }
    }

    /// A 0-d single-precision tensor, as `alpha` is stored.
    pub fn scalar(value: f32) -> Self {
        Self { shape: Vec::new(), values: Values::F32(vec![value]) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values in single precision; borrowed if they are stored so. Integers are rounded to the nearest f32.
    pub fn f32(&self) -> Cow<'_, [f32]> {
        match &self.values {
            Values::F32(values) => Cow::Borrowed(values),
            Values::F16(values) => Cow::Owned(values.iter().map(|value| value.to_f32()).collect()),
            Values::Bf16(values) => Cow::Owned(values.iter().map(|value| value.to_f32()).collect()),
            Values::I64(values) => {
                Cow::Owned(values.iter().map(|&value| f32_from_i64(value)).collect())
            }
        }
    }

    /// The same tensor in single precision.
    #[must_use]
    pub fn to_f32(&self) -> Self {
        Self { shape: self.shape.clone(), values: Values::F32(self.f32().into_owned()) }
    }

    /// The same tensor in half precision, rounded to nearest even. Magnitudes above 65,504 become infinite.
    #[must_use]
    pub fn to_f16(&self) -> Self {
        let values = self.f32().iter().map(|&value| f16::from_f32(value)).collect();
        Self { shape: self.shape.clone(), values: Values::F16(values) }
    }

    /// The same tensor in bfloat16, rounded to nearest even.
    #[must_use]
    pub fn to_bf16(&self) -> Self {
        let values = self.f32().iter().map(|&value| bf16::from_f32(value)).collect();
        Self { shape: self.shape.clone(), values: Values::Bf16(values) }
    }

    /// Whether no value is infinite or not a number.
    pub fn all_finite(&self) -> bool {
        match &self.values {
            Values::F32(values) => values.iter().all(|value| value.is_finite()),
            Values::F16(values) => values.iter().all(|value| value.is_finite()),
            Values::Bf16(values) => values.iter().all(|value| value.is_finite()),
            Values::I64(_) => true,
        }
    }

    /// Hands the little-endian bytes of all values to `sink`, in pieces of bounded size.
    pub(crate) fn each_bytes<E>(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.values {
            Values::F32(values) => pieces(values, f32::to_le_bytes, sink),
            Values::F16(values) => pieces(values, f16::to_le_bytes, sink),
            Values::Bf16(values) => pieces(values, bf16::to_le_bytes, sink),
            Values::I64(values) => pieces(values, i64::to_le_bytes, sink),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the documented meaning: round to the nearest f32")]
fn f32_from_i64(value: i64) -> f32 {
    value as f32
}

fn pieces<T: Copy, const N: usize, E>(
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
    sink: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    const VALUES_PER_PIECE: usize = 1 << 15;
    let mut bytes = Vec::with_capacity(VALUES_PER_PIECE.min(values.len()) * N);
    for piece in values.chunks(VALUES_PER_PIECE) {
        bytes.clear();
        bytes.extend(piece.iter().flat_map(|&value| to_bytes(value)));
        sink(&bytes)?;
    }
    Ok(())
}

/// Order of tensors in a file: descending alignment, then type, then name, as the safetensors crate writes them.
pub(crate) fn file_order(tensors: &TensorMap) -> Vec<(&String, &HostTensor)> {
    let mut order: Vec<_> = tensors.iter().collect();
    let rank = |tensor: &HostTensor| match tensor.values {
        Values::I64(_) => 0,
        Values::F32(_) => 1,
        Values::Bf16(_) => 2,
        Values::F16(_) => 3,
    };
    order.sort_by(|(name, tensor), (other_name, other)| {
        rank(tensor).cmp(&rank(other)).then(name.cmp(other_name))
    });
    order
}

/// sha256, in 64 hex digits, of all bytes that follow the header when these tensors are written.
///
/// It identifies an adapter whatever its metadata says (`modelspec.hash_sha256` is this with the prefix `0x`).
pub fn tensors_sha256(tensors: &TensorMap) -> String {
    let mut hasher = Sha256::new();
    for (_, tensor) in file_order(tensors) {
        let hashed: Result<(), std::convert::Infallible> = tensor.each_bytes(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        });
        let Ok(()) = hashed;
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_rounds_to_nearest_and_keeps_the_shape() {
        let tensor = HostTensor::from_f32([2, 2], vec![1.0, -2.5, 65_504.0, 0.1]);
        let half = tensor.to_f16();
        assert_eq!(half.shape, [2, 2]);
        assert_eq!(half.values.dtype(), Dtype::F16);
        assert_eq!(half.f32().as_ref(), [1.0, -2.5, 65_504.0, 0.099_975_586]);
        assert_eq!(tensor.to_bf16().f32().as_ref(), [1.0, -2.5, 65_536.0, 0.100_097_656]);
    }

    #[test]
    fn a_value_beyond_half_precision_is_not_finite_afterwards() {
        let tensor = HostTensor::scalar(70_000.0);
        assert!(tensor.all_finite());
        assert!(!tensor.to_f16().all_finite());
        assert!(!HostTensor::scalar(f32::NAN).all_finite());
    }

    #[test]
    fn every_dtype_is_found_under_its_own_name() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::from_name("F128"), None);
    }

    #[test]
    fn the_hash_of_one_scalar_is_the_hash_of_its_four_bytes() {
        let tensors = TensorMap::from([("alpha".to_owned(), HostTensor::scalar(1.0))]);
        assert_eq!(tensors_sha256(&tensors), hex::encode(Sha256::digest(1.0_f32.to_le_bytes())));
    }
}
