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

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound of A is 1/√(inputs under the window), as PEFT's Kaiming draw with a = √5 gives; B is 0.
    #[test]
    fn factors_start_as_in_peft() {
        let layer =
            |path: &str, weight: &[usize]| Layer { path: path.to_owned(), weight: weight.to_vec() };
        let layers = [
            layer("unet.linear", &[64, 256]),
            layer("unet.pointwise", &[32, 64, 1, 1]),
            layer("unet.spatial", &[32, 16, 3, 3]),
        ];
        let spec = |init| LoraSpec {
            rank: 8,
            alpha: 4.0,
            targets: vec!["unet.**".to_owned()],
            conv_rank: Some(2),
            conv_alpha: Some(3.0),
            dropout: 0.0,
            init,
        };
        let adapter = initial(&layers, &spec(LoraInit::KaimingUniform), 1).unwrap();
        for (path, down, alpha) in [
            ("unet.linear", vec![8, 256], 4.0),
            ("unet.pointwise", vec![8, 64, 1, 1], 4.0),
            ("unet.spatial", vec![2, 16, 3, 3], 3.0),
        ] {
            let factors = &adapter.modules[path];
            assert_eq!(factors.down.shape, down, "{path}");
            assert!((factors.alpha - alpha).abs() < 1e-12, "{path}");
            assert!(factors.up.f32().iter().all(|&value| value == 0.0), "{path}");
            let bound = 1.0 / (down[1..].iter().product::<usize>() as f32).sqrt();
            let values = factors.down.f32();
            let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            assert!(largest <= bound && largest > 0.95 * bound, "{path}: {largest} of {bound}");
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            assert!(mean.abs() < 0.15 * bound, "{path}: {mean}");
        }
        // PEFT's Gaussian start has the deviation 1/r.
        let adapter = initial(&layers, &spec(LoraInit::Gaussian), 1).unwrap();
        let values = adapter.modules["unet.linear"].down.f32();
        let square = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
        assert!((square.sqrt() * 8.0 - 1.0).abs() < 0.05, "{square}");
    }
}
