//! Counts as real numbers: the one place where an integer becomes an `f64`.

/// `count` as an `f64`; exact below 2⁵³, far above any census.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of pictures stay far below 2^53, where every integer is exact"
)]
pub fn real(count: usize) -> f64 {
    count as f64
}

/// `count` as an `f64`; exact below 2⁵³.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of pictures stay far below 2^53, where every integer is exact"
)]
pub fn real_u64(count: u64) -> f64 {
    count as f64
}

/// Non-negative `value` rounded down to an index.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the argument is clamped to the range of indices first"
)]
pub fn index(value: f64) -> usize {
    value.clamp(0.0, 4_294_967_295.0) as usize
}

/// `count` in 64 bits.
pub fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / real(values.len()))
}

/// The nearest `f32` of a cosine or a share.
#[expect(clippy::cast_possible_truncation, reason = "cosines and shares lie in [-1, 1]")]
pub fn single(value: f64) -> f32 {
    value as f32
}
