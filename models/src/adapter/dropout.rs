//! Dropout of an adapter's hidden activations, from keyed draws.

use burn::tensor::{DType, Tensor, TensorData};
use recipes::draws;

use super::in_type_of;
use crate::ops::is_half;

/// Which samples of which step are being processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutDraw {
    /// Seed of the run.
    pub seed: u64,
    /// Optimizer step.
    pub step: u64,
    /// Index of the micro-batch's first sample in the step's global batch.
    pub first_sample: u64,
}

/// Dropout at one layer: each hidden value of a sample is kept with probability `1 − probability`
/// and then divided by it. Its mask is a function of (seed, step, sample, layer), so that
/// recomputing a step, or cutting the batch elsewhere, gives the same mask.
///
/// As in kohya's networks it acts on A·x; PEFT drops parts of x instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Share of the values that is set to 0, in [0, 1).
    pub probability: f64,
    /// Path of the layer.
    pub layer: String,
    /// The step.
    pub draw: DropoutDraw,
}

impl Dropout {
    /// `hidden` with its mask; the first axis counts samples.
    pub(crate) fn apply<const D: usize>(dropout: Option<&Self>, hidden: Tensor<D>) -> Tensor<D> {
        let Some(dropout) = dropout else { return hidden };
        let shape = hidden.dims();
        let per_sample = shape.iter().skip(1).product::<usize>();
        let mask: Vec<f32> =
            (0..shape[0]).flat_map(|row| dropout.mask(row as u64, per_sample)).collect();
        let device = hidden.device().without_autodiff();
        let mask = Tensor::<D>::from_data(TensorData::new(mask, shape), (&device, DType::F32));
        let dtype = hidden.dtype();
        if is_half(dtype) {
            // Rounded, 1/(1 − probability) itself would shift every value the same way.
            return (hidden.cast(DType::F32) * mask).cast(dtype);
        }
        hidden.clone() * in_type_of(mask, &hidden)
    }

    fn mask(&self, row: u64, n_values: usize) -> Vec<f32> {
        let DropoutDraw { seed, step, first_sample } = self.draw;
        let label = format!("adapter dropout/{step}/{}/{}", first_sample + row, self.layer);
        let mut stream = draws::keyed(seed, &label);
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        (0..n_values)
            .map(|_| if draws::uniform(&mut stream) < self.probability { 0.0 } else { kept })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::base::host_values;

    #[test]
    fn in_a_half_type_the_kept_values_make_up_for_the_dropped_ones_on_average() {
        const N: usize = 4096;
        let values: Vec<f32> = (0..N).map(|i| 1.0 + (i % 128) as f32 / 128.0).collect();
        let hidden = Tensor::<2>::from_data(
            TensorData::new(values.clone(), [1, N]),
            (&Device::flex(), DType::F32),
        );
        let draw = DropoutDraw { seed: 1, step: 2, first_sample: 3 };
        let dropout = Dropout { probability: 0.1, layer: "unet.to_q".to_owned(), draw };
        let found = Dropout::apply(Some(&dropout), hidden.cast(DType::BF16));
        assert_eq!(found.dtype(), DType::BF16);
        let found = host_values(found).unwrap();
        let kept = found.iter().filter(|&&value| value != 0.0).count();
        assert!(kept > N * 8 / 10 && kept < N, "{kept} values are kept");
        let pairs = found.iter().zip(&values).filter(|(found, _)| **found != 0.0);
        let [sum, expected] = pairs.fold([0.0, 0.0], |[sum, expected], (found, value)| {
            [sum + f64::from(*found), expected + f64::from(*value) / 0.9]
        });
        // bf16 holds 1/0.9 as 1.1094, short by one part in 640.
        assert!((sum / expected - 1.0).abs() < 3e-4, "{sum} instead of {expected}");
    }
}
