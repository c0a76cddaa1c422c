//! AdamW over one flat vector, in one pass.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::element::{Dense, Element, tensor};
use super::lanes::sum;
use super::parallel::{for_each, room};
use super::simd::vectorized;

/// Elements of a task.
const PIECE: usize = 1 << 14;
/// Elements whose squares are summed in single precision.
pub(super) const ROW: usize = 1 << 12;

/// The numbers of one update; see [`super::adamw`](fn@super::adamw).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay λ.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub number: u64,
    /// What the gradient is multiplied with first: the clip of its norm.
    pub shrink: f64,
}

impl AdamWStep {
    /// 1 − βᵗ for both moments.
    pub(super) fn corrections(&self) -> [f64; 2] {
        let power = i32::try_from(self.number).unwrap_or(i32::MAX);
        [self.beta1, self.beta2].map(|beta| 1.0 - beta.powi(power))
    }
}

/// θ, m and v after one update; all are `[n_values]` in f32.
pub(super) fn update(tensors: &[FlexTensor; 4], step: AdamWStep) -> [FlexTensor; 3] {
    let n_values = tensors[0].layout().num_elements();
    let dense = tensors.each_ref().map(Dense::new);
    let [theta, first, second, gradient] = dense.each_ref().map(Dense::values::<f32>);
    let [mut new_theta, mut new_first, mut new_second] = [(); 3].map(|()| room::<f32>(n_values));
    let pieces = new_theta
        .par_chunks_mut(PIECE)
        .zip(new_first.par_chunks_mut(PIECE))
        .zip(new_second.par_chunks_mut(PIECE))
        .enumerate();
    for_each(pieces, PIECE, |(index, ((theta_out, first_out), second_out))| {
        let range = index * PIECE..index * PIECE + theta_out.len();
        theta_out.copy_from_slice(&theta[range.clone()]);
        first_out.copy_from_slice(&first[range.clone()]);
        second_out.copy_from_slice(&second[range.clone()]);
        advance(theta_out, first_out, second_out, &gradient[range], step);
    });
    [new_theta, new_first, new_second].map(|values| tensor(values, [n_values]))
}

vectorized! {
    fn advance<T: Element>(
        theta: &mut [T],
        first: &mut [T],
        second: &mut [T],
        gradient: &[T],
        step: AdamWStep,
    ) {
        let [correction1, correction2] = step.corrections();
        let [shrink, beta1, beta2] = [step.shrink, step.beta1, step.beta2].map(T::of);
        let [rest1, rest2] = [1.0 - step.beta1, 1.0 - step.beta2].map(T::of);
        let root = T::of(1.0 / correction2.sqrt());
        let [rate, epsilon] = [step.learning_rate / correction1, step.epsilon].map(T::of);
        let kept = T::of(1.0 - step.learning_rate * step.weight_decay);
        let moments = first.iter_mut().zip(second);
        for ((theta, (first, second)), &gradient) in theta.iter_mut().zip(moments).zip(gradient) {
            let gradient = gradient * shrink;
            *first = *first * beta1 + gradient * rest1;
            *second = *second * beta2 + gradient * gradient * rest2;
            *theta = *theta * kept - *first / (second.sqrt() * root + epsilon) * rate;
        }
    }

    fn squares<T: Element>(x: &[T]) -> T {
        sum(x, |x| x * x)
    }
}

/// Σ x² of every 4,096 elements.
pub(super) fn square_sums(x: &FlexTensor) -> FlexTensor {
    let dense = Dense::new(x);
    let values = dense.values::<f32>();
    let mut sums = room::<f32>(values.len().div_ceil(ROW));
    for_each(sums.par_iter_mut().zip(values.par_chunks(ROW)), ROW, |(sum, values)| {
        *sum = squares(values);
    });
    let n_sums = sums.len();
    tensor(sums, [n_sums])
}
