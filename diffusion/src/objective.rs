//! What is minimised: a squared error per sample, weighted by noise level.

use burn::tensor::{Tensor, TensorData};

/// Noise whose mean per sample and channel also varies: ε + o·n.
///
/// The result replaces ε everywhere, in the noisy latents *and* in the target.
///
/// # Shapes
///
/// - `noise`, result: `[batch, channels, height, width]`, unit normal
/// - `per_channel`: `[batch, channels, 1, 1]`, unit normal, drawn apart
///
/// `strength` o is usually 0.05 to 0.1; 0 changes nothing.
///
/// Source: Guttenberg 2023, "Diffusion with offset noise"; as in diffusers' training scripts.
pub fn offset_noise(noise: Tensor<4>, per_channel: Tensor<4>, strength: f64) -> Tensor<4> {
    if strength == 0.0 {
        return noise;
    }
    noise + per_channel.mul_scalar(strength)
}

/// Mean over channels, height and width of (output − target)², one number per sample.
///
/// # Shapes
///
/// - `output`, `target`: `[batch, channels, height, width]`, `f32`
/// - result: `[batch]`
pub fn mean_squared_errors(output: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
    let [n_samples, channels, height, width] = output.dims();
    let difference = output - target;
    let squared = difference.clone() * difference;
    squared.reshape([n_samples, channels * height * width]).mean_dim(1).reshape([n_samples])
}

/// Mean over the samples of weight × loss, a scalar to run backwards from.
///
/// # Shapes
///
/// - `losses`: `[batch]`
/// - `weights`: one per sample, at least 0, not normalised
/// - result: `[1]`
///
/// # Panics
///
/// If there is not exactly one weight per sample.
pub fn weighted_mean(losses: Tensor<1>, weights: &[f64]) -> Tensor<1> {
    let [n_samples] = losses.dims();
    assert_eq!(weights.len(), n_samples, "one weight per sample");
    let data = TensorData::new(weights.to_vec(), [n_samples]);
    let weights = Tensor::from_data(data, (&losses.device(), losses.dtype()));
    (losses * weights).mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn tensor<const N: usize>(values: [f32; N], shape: [usize; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    #[test]
    fn offset_noise_moves_a_whole_channel() {
        let noise = tensor([1.0, 2.0, 3.0, 4.0], [1, 2, 1, 2]);
        let per_channel = tensor([10.0, -10.0], [1, 2, 1, 1]);
        let moved = offset_noise(noise.clone(), per_channel.clone(), 0.1);
        assert_eq!(values(moved), [2.0, 3.0, 2.0, 3.0]);
        assert_eq!(values(offset_noise(noise, per_channel, 0.0)), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn squared_errors_are_averaged_within_samples_and_weighted_between_them() {
        let output = tensor([1.0, 2.0, 3.0, 4.0], [2, 1, 1, 2]);
        let target = tensor([1.0, 0.0, 0.0, 0.0], [2, 1, 1, 2]);
        let losses = mean_squared_errors(output, target);
        assert_eq!(values(losses.clone()), [2.0, 12.5]);
        assert_eq!(values(weighted_mean(losses, &[0.5, 2.0])), [13.0]);
    }
}
