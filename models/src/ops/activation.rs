//! Element-wise activations and the gated unit.

use burn::backend::flex::FlexTensor;
use burn::tensor::DType;
use rayon::prelude::*;

use super::element::{Dense, Element, tensor};
use super::parallel::{for_each, room};
use super::simd::vectorized;

/// Elements of a task.
const PIECE: usize = 1 << 12;
/// Rate of the sigmoid that stands for Φ.
const QUICK: f64 = 1.702;

/// An activation of one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    /// x·σ(x).
    Silu,
    /// x·Φ(x).
    Gelu,
    /// x·σ(1.702·x).
    QuickGelu,
}

#[inline(always)]
fn silu<T: Element>(x: T, rate: T) -> T {
    x * (rate * x).sigmoid()
}

#[inline(always)]
fn silu_slope<T: Element>(x: T, rate: T) -> T {
    let s = (rate * x).sigmoid();
    s * (T::ONE + rate * x * (T::ONE - s))
}

/// Φ(x), the share of a standard normal distribution below x.
#[inline(always)]
fn below<T: Element>(x: T) -> T {
    T::of(0.5) * (T::ONE + (x * T::of(core::f64::consts::FRAC_1_SQRT_2)).erf())
}

#[inline(always)]
fn gelu_slope<T: Element>(x: T) -> T {
    // 1/√(2π)
    let density = T::of(0.398_942_280_401_432_7) * (T::of(-0.5) * x * x).exp();
    below(x) + x * density
}

/// The activation of every element.
pub(crate) fn forward(x: &FlexTensor, unary: Unary) -> FlexTensor {
    if x.dtype() == DType::F32 {
        run_forward::<f32>(x, unary)
    } else {
        run_forward::<f64>(x, unary)
    }
}

fn run_forward<T: Element>(x: &FlexTensor, unary: Unary) -> FlexTensor {
    let dense = Dense::new(x);
    let values = dense.values::<T>();
    let mut y = room(values.len());
    for_each(y.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE)), PIECE, |(y, x)| {
        activate(y, x, unary);
    });
    tensor(y, x.layout().shape().clone())
}

vectorized! {
    /// f(x) of every element.
    fn activate<T: Element>(y: &mut [T], x: &[T], unary: Unary) {
        let pairs = y.iter_mut().zip(x);
        match unary {
            Unary::Silu => {
                for (y, &x) in pairs {
                    *y = silu(x, T::ONE);
                }
            }
            Unary::Gelu => {
                for (y, &x) in pairs {
                    *y = x * below(x);
                }
            }
            Unary::QuickGelu => {
                for (y, &x) in pairs {
                    *y = silu(x, T::of(QUICK));
                }
            }
        }
    }

    /// dy·f′(x) of every element.
    fn activation_slopes<T: Element>(dx: &mut [T], x: &[T], dy: &[T], unary: Unary) {
        let triples = dx.iter_mut().zip(x).zip(dy);
        match unary {
            Unary::Silu => {
                for ((dx, &x), &dy) in triples {
                    *dx = dy * silu_slope(x, T::ONE);
                }
            }
            Unary::Gelu => {
                for ((dx, &x), &dy) in triples {
                    *dx = dy * gelu_slope(x);
                }
            }
            Unary::QuickGelu => {
                for ((dx, &x), &dy) in triples {
                    *dx = dy * silu_slope(x, T::of(QUICK));
                }
            }
        }
    }

    /// a·gelu(b) of the halves of one row.
    fn gated_row<T: Element>(y: &mut [T], x: &[T]) {
        let (value, gate) = x.split_at(y.len());
        for ((y, &a), &b) in y.iter_mut().zip(value).zip(gate) {
            *y = a * (b * below(b));
        }
    }

    /// The gradient of both halves of one row.
    fn gated_row_slopes<T: Element>(dx: &mut [T], x: &[T], dy: &[T]) {
        let (value, gate) = x.split_at(dy.len());
        let (d_value, d_gate) = dx.split_at_mut(dy.len());
        let outputs = d_value.iter_mut().zip(d_gate);
        for (((&a, &b), &dy), (da, db)) in value.iter().zip(gate).zip(dy).zip(outputs) {
            *da = dy * (b * below(b));
            *db = dy * a * gelu_slope(b);
        }
    }
}

/// dy times the slope at x.
pub(crate) fn backward(x: &FlexTensor, dy: &FlexTensor, unary: Unary) -> FlexTensor {
    if x.dtype() == DType::F32 {
        run_backward::<f32>(x, dy, unary)
    } else {
        run_backward::<f64>(x, dy, unary)
    }
}

fn run_backward<T: Element>(x: &FlexTensor, dy: &FlexTensor, unary: Unary) -> FlexTensor {
    let (dense, slopes) = (Dense::new(x), Dense::new(dy));
    let (values, slopes) = (dense.values::<T>(), slopes.values::<T>());
    let mut dx = room(values.len());
    let pieces = dx.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE));
    for_each(pieces.zip(slopes.par_chunks(PIECE)), PIECE, |((dx, x), dy)| {
        activation_slopes(dx, x, dy, unary);
    });
    tensor(dx, x.layout().shape().clone())
}

/// a·gelu(b) of the halves a, b of every row.
pub(crate) fn geglu_forward(x: &FlexTensor) -> FlexTensor {
    if x.dtype() == DType::F32 { run_geglu_forward::<f32>(x) } else { run_geglu_forward::<f64>(x) }
}

fn run_geglu_forward<T: Element>(x: &FlexTensor) -> FlexTensor {
    let mut shape = x.layout().shape().clone();
    let last = shape.num_dims() - 1;
    shape[last] /= 2;
    let width = shape[last].max(1);
    let dense = Dense::new(x);
    let values = dense.values::<T>();
    let mut y = room(values.len() / 2);
    let rows = y.par_chunks_exact_mut(width).zip(values.par_chunks_exact(2 * width));
    for_each(rows, 2 * width, |(y, x)| {
        gated_row(y, x);
    });
    tensor(y, shape)
}

/// The gradient of [`geglu_forward`] with respect to both halves.
pub(crate) fn geglu_backward(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    if x.dtype() == DType::F32 {
        run_geglu_backward::<f32>(x, dy)
    } else {
        run_geglu_backward::<f64>(x, dy)
    }
}

fn run_geglu_backward<T: Element>(x: &FlexTensor, dy: &FlexTensor) -> FlexTensor {
    let shape = x.layout().shape().clone();
    let width = (shape[shape.num_dims() - 1] / 2).max(1);
    let (dense, slopes) = (Dense::new(x), Dense::new(dy));
    let (values, slopes) = (dense.values::<T>(), slopes.values::<T>());
    let mut dx = room(values.len());
    let rows = dx.par_chunks_exact_mut(2 * width).zip(values.par_chunks_exact(2 * width));
    for_each(rows.zip(slopes.par_chunks_exact(width)), 3 * width, |((dx, x), dy)| {
        gated_row_slopes(dx, x, dy);
    });
    tensor(dx, shape)
}
