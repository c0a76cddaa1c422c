//! The two number types of the kernels and their elementary functions.
//!
//! `f32` is what networks run in; its functions are polynomials that a compiler can vectorise.
//! `f64` goes through the C library's algorithms and serves to check gradients.

use core::fmt::Debug;
use core::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};

/// A number that the kernels compute with.
pub(crate) trait Element:
    Copy
    + Send
    + Sync
    + PartialOrd
    + Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + 'static
{
    /// The tensor type of this number.
    const DTYPE: DType;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// −∞.
    const LOWEST: Self;

    /// The nearest number to `value`.
    fn of(value: f64) -> Self;
    /// √x.
    fn sqrt(self) -> Self;
    /// eˣ; in `f32` x is clamped to ±87.3 and the relative error stays below 2e-7.
    fn exp(self) -> Self;
    /// ln x.
    fn ln(self) -> Self;
    /// The error function; in `f32` the absolute error stays below 4e-7.
    fn erf(self) -> Self;
    /// The buffer behind a tensor of this type, whatever its layout.
    fn storage(tensor: &FlexTensor) -> &[Self];
    /// The buffer of a new tensor.
    fn bytes(values: Vec<Self>) -> Bytes;

    /// 1/(1 + e⁻ˣ).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::ONE / (Self::ONE + (-self).exp())
    }

    /// The greater of two numbers; a number that is not one wins only on the left.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = Self::NEG_INFINITY;

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked for")]
    fn of(value: f64) -> Self {
        value as Self
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    /// Source: Moshier, Cephes `expf`: eˣ = 2ⁿ·eʳ with r = x − n·ln 2, a polynomial in |r| ≤ ln 2/2.
    #[inline(always)]
    fn exp(self) -> Self {
        const LIMIT: f32 = 87.3;
        // Adding 1.5·2²³ leaves the nearest integer in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        let x = if self < -LIMIT { -LIMIT } else { self };
        let x = if x > LIMIT { LIMIT } else { x };
        let shifted = x * core::f32::consts::LOG2_E + MAGIC;
        let n = shifted - MAGIC;
        let r = x - n * 0.693_359_4;
        let r = r - n * -2.121_944_4e-4;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_199_9e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 0.166_666_65;
        let p = p * r + 0.5;
        let p = p * (r * r) + r + 1.0;
        p * Self::from_bits(shifted.to_bits().wrapping_add(127) << 23)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        libm::logf(self)
    }

    /// Source: `OpenXLA`, `ErfImpl32`, a rational function of x on |x| ≤ 3.83.
    #[inline(always)]
    fn erf(self) -> Self {
        const LIMIT: f32 = 3.832_507;
        let x = if self < -LIMIT { -LIMIT } else { self };
        let x = if x > LIMIT { LIMIT } else { x };
        let z = x * x;
        let p = 2.290_506_6e-4;
        let p = p * z + 3.408_291e-3;
        let p = p * z + 5.095_569_5e-2;
        let p = p * z + 0.185_208_32;
        let p = p * z + core::f32::consts::FRAC_2_SQRT_PI;
        let q = -1.179_160_3e-7;
        let q = q * z + 2.354_796_6e-5;
        let q = q * z + 1.017_962_6e-3;
        let q = q * z + 1.407_047e-2;
        let q = q * z + 0.110_985_05;
        let q = q * z + 0.497_469_25;
        let q = q * z + 1.0;
        x * p / q
    }

    fn storage(tensor: &FlexTensor) -> &[Self] {
        tensor.storage()
    }

    fn bytes(values: Vec<Self>) -> Bytes {
        Bytes::from_elems(values)
    }
}

impl Element for f64 {
    const DTYPE: DType = DType::F64;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = Self::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn exp(self) -> Self {
        libm::exp(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        libm::log(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        libm::erf(self)
    }

    fn storage(tensor: &FlexTensor) -> &[Self] {
        tensor.storage()
    }

    fn bytes(values: Vec<Self>) -> Bytes {
        Bytes::from_elems(values)
    }
}

/// A tensor in row-major order, whatever the order of the one that came in.
#[derive(Debug)]
pub(crate) struct Dense(FlexTensor);

impl Dense {
    /// Takes `tensor` as it is where its elements lie in order, a copy elsewhere.
    pub(crate) fn new(tensor: &FlexTensor) -> Self {
        Self(if tensor.is_contiguous() { tensor.clone() } else { tensor.to_contiguous() })
    }

    /// The elements in row-major order.
    pub(crate) fn values<T: Element>(&self) -> &[T] {
        let layout = self.0.layout();
        &T::storage(&self.0)[layout.start_offset()..][..layout.num_elements()]
    }
}

/// A new tensor of `values` in row-major order.
pub(crate) fn tensor<T: Element>(values: Vec<T>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(T::bytes(values), Layout::contiguous(shape.into()), T::DTYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_precision_exponential_is_accurate_to_two_in_ten_million() {
        for i in 0..=174_000_u32 {
            let x = f32::of(f64::from(i).mul_add(1e-3, -87.0));
            let exact = libm::exp(f64::from(x));
            let error = (f64::from(Element::exp(x)) - exact).abs() / exact;
            assert!(error <= 2e-7, "exp({x}) is wrong by {error}");
        }
    }

    #[test]
    fn single_precision_error_function_is_accurate_to_four_in_ten_million() {
        for i in 0..=12_000_u32 {
            let x = f32::of(f64::from(i).mul_add(1e-3, -6.0));
            let error = (f64::from(Element::erf(x)) - libm::erf(f64::from(x))).abs();
            assert!(error <= 4e-7, "erf({x}) is wrong by {error}");
        }
    }
}
