//! Dropout of an adapter's hidden activations, from keyed draws.

use burn::tensor::{DType, Tensor, TensorData};
use recipes::draws;

use super::in_type_of;

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
