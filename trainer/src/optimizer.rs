//! The update rule, clipping and the moving average, on the flat vector.

use burn::tensor::Tensor;
use models::ModelError;
use models::base::host_values;
use models::ops::{AdamWStep, adamw, is_host, square_sums};
use recipes::{EmaSpec, OptimizerSpec};

/// State of AdamW.
///
/// Source: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2 with η = 1, as
/// `torch.optim.AdamW`: p ← p·(1 − lr·λ); m, v moving averages of g and g²;
/// p ← p − lr/(1 − β₁ᵗ)·m / (√v/√(1 − β₂ᵗ) + ε).
#[derive(Clone, Debug)]
pub struct AdamW {
    /// First moment m, `[n_values]`.
    pub first: Tensor<1>,
    /// Second moment v, `[n_values]`.
    pub second: Tensor<1>,
    /// Updates done, t.
    pub step: u64,
}

impl AdamW {
    /// The state before the first update of `theta`.
    pub fn new(theta: &Tensor<1>) -> Self {
        Self { first: theta.zeros_like(), second: theta.zeros_like(), step: 0 }
    }

    /// `theta` after one update at this learning rate with `gradient` (both `[n_values]`), which is
    /// multiplied with the number beside it first, see [`clipped`].
    pub fn update(
        &mut self,
        spec: &OptimizerSpec,
        learning_rate: f64,
        theta: Tensor<1>,
        (gradient, shrink): (Tensor<1>, f64),
    ) -> Tensor<1> {
        let OptimizerSpec::AdamW { beta1, beta2, epsilon, weight_decay, .. } = *spec;
        self.step += 1;
        let number = self.step;
        let step = AdamWStep { learning_rate, beta1, beta2, epsilon, weight_decay, number, shrink };
        let state = [theta, self.first.clone(), self.second.clone()];
        let [theta, first, second] = adamw(state, gradient, step);
        (self.first, self.second) = (first, second);
        theta
    }
}

/// Euclidean length of a vector, in f64.
///
/// Rows are summed on the device and their sums on the host in order: a sum over the whole of a long
/// vector would depend on how threads happened to share it.
///
/// # Errors
///
/// [`ModelError::Device`] for a fault of this or an earlier operation.
pub fn norm(gradient: &Tensor<1>) -> Result<f64, ModelError> {
    Ok(length(&host_values(square_sums(gradient.clone()))?))
}

/// Euclidean length of a vector from the sums that [`square_sums`] gives of it.
pub fn length(sums: &[f32]) -> f64 {
    sums.iter().copied().map(f64::from).sum::<f64>().sqrt()
}

/// The values of several vectors of one device, read at once: a read waits until the device has
/// done all that was asked of it.
///
/// # Errors
///
/// [`ModelError::Device`] for a fault of this or an earlier operation.
pub fn read(vectors: Vec<Tensor<1>>) -> Result<Vec<Vec<f32>>, ModelError> {
    let lengths: Vec<usize> = vectors.iter().map(|vector| vector.dims()[0]).collect();
    let mut values = host_values(Tensor::cat(vectors, 0))?.into_iter();
    Ok(lengths.into_iter().map(|length| values.by_ref().take(length).collect()).collect())
}

/// What shortens a gradient of this `norm` to at most `max_norm`: min(1, max/(norm + 1e-6)).
///
/// Source: `torch.nn.utils.clip_grad_norm_`.
pub fn clip(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

/// A gradient and what it is still to be multiplied with, so that its length, whose `sums` are those
/// of [`square_sums`], is at most `max_norm`; see [`clip`].
///
/// On the processor the length is read, in double precision, and the gradient left as it is. On other
/// devices it is multiplied there by a number that never leaves them.
///
/// # Errors
///
/// [`ModelError::Device`] for a fault of this or an earlier operation.
pub fn clipped(
    gradient: Tensor<1>,
    sums: &Tensor<1>,
    max_norm: f64,
) -> Result<(Tensor<1>, f64), ModelError> {
    if is_host(&gradient.device()) {
        let shrink = clip(length(&host_values(sums.clone())?), max_norm);
        return Ok((gradient, shrink));
    }
    Ok((clipped_where_it_lies(gradient, sums, max_norm), 1.0))
}

/// As [`clip`], without a read.
fn clipped_where_it_lies(gradient: Tensor<1>, sums: &Tensor<1>, max_norm: f64) -> Tensor<1> {
    let norm = sums.clone().sum().sqrt();
    let shrink = norm.add_scalar(1e-6).recip().mul_scalar(max_norm).clamp_max(1.0);
    gradient * shrink
}

/// Decay of the moving average after update `n` (1-based): d, or under warm-up
/// min(d, (1 + s)/(10 + s)) with s = n − 1, and 0 at s = 0: the average begins with the first update.
///
/// Source: diffusers `EMAModel.get_decay`.
pub fn ema_decay(spec: &EmaSpec, n: u64) -> f64 {
    if !spec.warmup {
        return spec.decay;
    }
    if n <= 1 {
        return 0.0;
    }
    let s = (n - 1) as f64;
    spec.decay.min((1.0 + s) / (10.0 + s))
}

/// The average after one more value: decay·average + (1 − decay)·theta.
pub fn ema_update(average: Tensor<1>, theta: &Tensor<1>, decay: f64) -> Tensor<1> {
    average.mul_scalar(decay) + theta.clone().mul_scalar(1.0 - decay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn vector(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
    }

    fn values(tensor: Tensor<1>) -> Vec<f32> {
        host_values(tensor).expect("flex reads")
    }

    #[test]
    fn three_updates_equal_torch() {
        let spec = OptimizerSpec::AdamW {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        };
        let mut theta = vector(&[1.0, -2.0, 0.5]);
        let mut adamw = AdamW::new(&theta);
        let steps = [
            ([0.1, -0.2, 0.3], [0.899_000_01, -1.898_000_005, 0.399_500_003]),
            ([0.05, 0.4, -0.3], [0.804_883_058, -1.932_712_357, 0.404_363_661]),
            ([0.0, 0.0, 1.0], [0.732_020_43, -1.959_079_552, 0.346_732_999]),
        ];
        for (gradient, expected) in steps {
            theta = adamw.update(&spec, 0.1, theta, (vector(&gradient), 1.0));
            for (found, expected) in values(theta.clone()).iter().zip(expected) {
                assert!(
                    (f64::from(*found) - expected).abs() < 2e-6,
                    "{found} instead of {expected}"
                );
            }
        }
    }

    #[test]
    fn the_norm_of_a_vector_longer_than_a_row_counts_every_value() {
        let n_values = 2 * 4096 + 3;
        let found = norm(&vector(&vec![0.5; n_values])).expect("flex reads");
        assert!((found - 0.5 * (n_values as f64).sqrt()).abs() < 1e-3);
    }

    #[test]
    fn clipping_shortens_a_long_gradient_and_leaves_a_short_one() {
        assert!((clip(5.0, 1.0) - 0.2).abs() < 1e-6);
        assert!((clip(0.5, 1.0) - 1.0).abs() < 1e-12);
        // The first moment of the first update is a tenth of the clipped gradient.
        let spec = OptimizerSpec::AdamW {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        };
        let theta = vector(&[0.0, 0.0]);
        let mut adamw = AdamW::new(&theta);
        adamw.update(&spec, 0.1, theta, (vector(&[3.0, 4.0]), clip(5.0, 1.0)));
        let first = values(adamw.first);
        assert!((first[0] - 0.06).abs() < 1e-6 && (first[1] - 0.08).abs() < 1e-6, "{first:?}");
    }

    #[test]
    fn a_gradient_is_clipped_alike_where_it_lies_and_by_a_number() {
        let gradient: Vec<f32> = (0..9000).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        let gradient = vector(&gradient);
        let sums = square_sums(gradient.clone());
        for max_norm in [1.0, 50.0, 1e6] {
            let (same, shrink) = clipped(gradient.clone(), &sums, max_norm).expect("flex reads");
            let expected = values(same);
            let found = values(clipped_where_it_lies(gradient.clone(), &sums, max_norm));
            for (found, expected) in found.into_iter().zip(expected) {
                let expected = f64::from(expected) * shrink;
                assert!((f64::from(found) - expected).abs() <= 1e-6 * expected.abs());
            }
        }
    }

    #[test]
    fn what_is_read_at_once_comes_apart_as_it_was() {
        let parts: [Vec<f32>; 3] = [vec![1.0, 2.0, 3.0], vec![4.0], vec![5.0, 6.0]];
        let found = read(parts.iter().map(|part| vector(part)).collect()).expect("flex reads");
        assert_eq!(found, parts);
    }

    #[test]
    fn the_average_follows_fast_at_the_start() {
        let spec = EmaSpec { decay: 0.999, warmup: true };
        assert!(ema_decay(&spec, 1).abs() < 1e-12);
        for (n, expected) in [(2, 0.181_818), (10, 0.526_316), (100, 0.917_431), (1000, 0.991_080)]
        {
            assert!((ema_decay(&spec, n) - expected).abs() < 1e-6);
        }
    }
}
