//! Classifier-free guidance.
//!
//! A negative prompt is nothing of its own here: its output takes the place of the unconditional.

use burn::tensor::Tensor;

/// Guided output u + w·(c − u).
///
/// w = 1 gives the conditional output back without touching the unconditional one; samplers then
/// need one forward pass instead of two.
///
/// # Shapes
///
/// - `unconditional`, `conditional`, result: `[batch, channels, height, width]`
///
/// Source: Ho & Salimans 2022, arXiv:2207.12598, equation 6, with w counted as in diffusers
/// (their w + 1).
#[expect(clippy::float_cmp, reason = "exactly 1 means no guidance")]
pub fn guide(unconditional: Tensor<4>, conditional: Tensor<4>, guidance_scale: f64) -> Tensor<4> {
    if guidance_scale == 1.0 {
        return conditional;
    }
    unconditional.clone() + (conditional - unconditional).mul_scalar(guidance_scale)
}

/// Guided output brought back towards the standard deviation of the conditional one.
///
/// g·(φ·std(c)/std(g) + 1 − φ), standard deviations over each sample; φ = `rescale` in [0, 1],
/// 0 changes nothing.
///
/// # Shapes
///
/// - `guided`, `conditional`, result: `[batch, channels, height, width]`
///
/// Source: Lin et al. 2023, arXiv:2305.08891, equations 15 and 16; diffusers `rescale_noise_cfg`.
pub fn rescale_guidance(guided: Tensor<4>, conditional: Tensor<4>, rescale: f64) -> Tensor<4> {
    if rescale == 0.0 {
        return guided;
    }
    let ratio = deviation(conditional) / deviation(guided.clone());
    guided * (ratio.mul_scalar(rescale).add_scalar(1.0 - rescale))
}

/// Standard deviation of each sample, `[batch, 1, 1, 1]`.
fn deviation(tensor: Tensor<4>) -> Tensor<4> {
    let [n_samples, channels, height, width] = tensor.dims();
    let flat = tensor.reshape([n_samples, channels * height * width]);
    flat.var(1).sqrt().reshape([n_samples, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn tensor(values: [f32; 4]) -> Tensor<4> {
        Tensor::from_data(TensorData::new(values.to_vec(), [2, 1, 1, 2]), &Device::flex())
    }

    fn check(found: Tensor<4>, expected: [f32; 4]) {
        for (found, expected) in found.into_data().iter::<f32>().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn guidance_extrapolates_from_unconditional_to_conditional() {
        let (unconditional, conditional) =
            (tensor([0.0, 1.0, 2.0, 3.0]), tensor([1.0, 1.0, 0.0, 5.0]));
        let guided = |scale| guide(unconditional.clone(), conditional.clone(), scale);
        check(guided(7.5), [7.5, 1.0, -13.0, 18.0]);
        check(guided(0.0), [0.0, 1.0, 2.0, 3.0]);
        check(guided(1.0), [1.0, 1.0, 0.0, 5.0]);
    }

    #[test]
    fn rescaling_restores_the_deviation_of_each_sample() {
        let (guided, conditional) = (tensor([-4.0, 4.0, 1.0, 3.0]), tensor([-1.0, 1.0, 4.0, 8.0]));
        check(rescale_guidance(guided.clone(), conditional.clone(), 1.0), [-1.0, 1.0, 2.0, 6.0]);
        check(rescale_guidance(guided.clone(), conditional.clone(), 0.5), [-2.5, 2.5, 1.5, 4.5]);
        check(rescale_guidance(guided, conditional, 0.0), [-4.0, 4.0, 1.0, 3.0]);
    }
}
