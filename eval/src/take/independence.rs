//! Whether the judge is independent of the accused: the evaluator may hold no tensor of the text
//! encoders that the pictures are drawn with, and that a settlement may train.

use crate::error::EvalError;
use checkpoints::{HostTensor, TensorMap, tensors_sha256};
use models::base::host_values;
use models::clip::CLIPTextModel;
use models::{Base, Evaluator, ModelError, Network, Slot, Tensor, Visitor};
use std::collections::BTreeSet;

/// Tensors of at most so many values are not compared: biases and norms may agree by chance, while
/// weights of more values agree only if one was copied from the other.
const SMALL: usize = 4096;

/// Keeps the values of every large parameter.
#[derive(Default)]
struct Large(Vec<Tensor<1>>);

impl Visitor for Large {
    fn parameter(&mut self, _path: &str, slot: &mut dyn Slot) {
        if slot.shape().iter().product::<usize>() > SMALL {
            self.0.push(slot.flat());
        }
    }
}

/// Refuses an evaluator whose text tower shares a large tensor with a text encoder of the base.
///
/// # Errors
///
/// [`EvalError::SharedEvaluator`] with the hash of the first shared tensor; a fault of the device.
pub fn check(evaluator: &Evaluator, base: &Base) -> Result<(), EvalError> {
    let mut accused: BTreeSet<String> = hashes(&base.text_encoder)?.into_iter().collect();
    if let Some(second) = &base.text_encoder_2 {
        accused.extend(hashes(second)?);
    }
    match hashes(evaluator.text_tower())?.into_iter().find(|hash| accused.contains(hash)) {
        None => Ok(()),
        Some(sha256) => Err(EvalError::SharedEvaluator { sha256 }),
    }
}

/// SHA-256 of each large tensor in half precision, since one of two copies of the same weights is
/// often stored so.
fn hashes(network: &CLIPTextModel) -> Result<Vec<String>, ModelError> {
    let mut large = Large::default();
    network.clone().visit("", &mut large);
    large
        .0
        .into_iter()
        .map(|values| {
            let values = host_values(values)?;
            let tensor = HostTensor::from_f32([values.len()], values).to_f16();
            Ok(tensors_sha256(&TensorMap::from([(String::new(), tensor)])))
        })
        .collect()
}
