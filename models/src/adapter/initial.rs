//! Factors of an adapter that has not been trained.

use checkpoints::HostTensor;
use recipes::{LoraInit, LoraSpec, draws};

use super::{Adapter, Factors, Layer, select};
use crate::error::ModelError;

/// The adapter of `spec` over `layers` before its first step: B is 0, so it changes nothing.
///
/// A is uniform in ±1/√fan-in (Kaiming with a = √5), fan-in = in·k·k, or normal with deviation 1/r.
/// Each layer draws from its own stream, keyed by seed and path.
///
/// # Errors
///
/// A pattern without layer; a rank above what a layer's weight can have.
///
/// Source: `peft.tuners.lora.LoraLayer.reset_lora_parameters`.
pub fn initial(layers: &[Layer], spec: &LoraSpec, seed: u64) -> Result<Adapter, ModelError> {
    let mut adapter = Adapter::default();
    for layer in select(layers, &spec.targets)? {
        let factors = factors(&layer, spec, seed)?;
        adapter.modules.insert(layer.path, factors);
    }
    Ok(adapter)
}

fn factors(layer: &Layer, spec: &LoraSpec, seed: u64) -> Result<Factors, ModelError> {
    let (n_out, fan_in) = (layer.weight[0], layer.weight[1..].iter().product::<usize>());
    let spatial = layer.weight.len() == 4 && layer.weight[2..] != [1, 1];
    let (rank, alpha) = match (spatial, spec.conv_rank, spec.conv_alpha) {
        (true, Some(rank), Some(alpha)) => (rank, alpha),
        _ => (spec.rank, spec.alpha),
    };
    let rank = rank as usize;
    if rank > n_out.min(fan_in) {
        let reason = format!("rank {rank} is above {}, the rank of its weight", n_out.min(fan_in));
        return Err(ModelError::Adapter { module: layer.path.clone(), reason });
    }
    let mut stream = draws::keyed(seed, &format!("{}.lora_down", layer.path));
    let n_values = rank * fan_in;
    let down: Vec<f32> = match spec.init {
        LoraInit::KaimingUniform => {
            let bound = 1.0 / (fan_in as f64).sqrt();
            (0..n_values)
                .map(|_| ((draws::uniform(&mut stream) * 2.0 - 1.0) * bound) as f32)
                .collect()
        }
        LoraInit::Gaussian => draws::normals(&mut stream, n_values)
            .into_iter()
            .map(|value| value / rank as f32)
            .collect(),
    };
    let mut down_shape = layer.weight.clone();
    down_shape[0] = rank;
    let mut up_shape = vec![1; layer.weight.len()];
    up_shape[0] = n_out;
    up_shape[1] = rank;
    Ok(Factors {
        down: HostTensor::from_f32(down_shape, down),
        up: HostTensor::from_f32(up_shape, vec![0.0; n_out * rank]),
        alpha,
    })
}
