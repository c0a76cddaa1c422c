//! An adapter from the difference of two models: per layer the best approximation of low rank.

use std::collections::BTreeMap;

use checkpoints::folder::ComponentFiles;
use checkpoints::{CheckpointError, ModelFiles, WeightsProblem};

use super::linear_algebra::{Svd, dot_f32, leading};
use super::resize::from_parts;
use super::{Adapter, Layer, select};
use crate::error::ModelError;
use crate::skeleton::file_layers;

/// Which part of a difference becomes an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtractOptions {
    /// Rank of linear layers and 1×1 convolutions; less where a layer has less.
    pub rank: usize,
    /// Rank of larger convolutions; `None`: `rank` as well.
    pub conv_rank: Option<usize>,
    /// Patterns over layer paths.
    pub targets: Vec<String>,
}

/// What became of the difference in one component.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ComponentChange {
    /// Modules of the adapter.
    pub modules: usize,
    /// Chosen layers whose weight is the same in both models.
    pub unchanged: usize,
    /// ‖W' − W‖² over all tensors of the component.
    pub change: f64,
    /// The part of it that lies in chosen layers.
    pub chosen: f64,
    /// The part of that which the adapter holds.
    pub kept: f64,
}

/// An adapter and what it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Extracted {
    /// The adapter; alpha is the rank of each module.
    pub adapter: Adapter,
    /// What became of the difference, by component.
    pub components: BTreeMap<String, ComponentChange>,
}

/// The networks whose weights are compared.
const NETWORKS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

/// The adapter that leads from `base` to `tuned` as far as its rank allows: of each chosen layer the
/// leading singular directions of W' − W, convolutions as `[out, in·k·k]`.
///
/// One layer of both is in memory at a time. `watch` is told how many tensors of how many are done.
///
/// # Errors
///
/// [`ModelError::Adapter`] for models of different layers, or models that do not differ in the
/// chosen ones; [`ModelError::NoSuchLayer`]; [`ModelError::Checkpoint`] for tensors that cannot be
/// read or are not finite.
pub fn extract(
    base: &ModelFiles,
    tuned: &ModelFiles,
    options: &ExtractOptions,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Extracted, ModelError> {
    let (layers, _) = file_layers(base)?;
    let (tuned_layers, _) = file_layers(tuned)?;
    check_alike(&layers, &tuned_layers, tuned)?;
    let chosen: BTreeMap<String, Layer> = select(&layers, &options.targets)?
        .into_iter()
        .map(|layer| (layer.path.clone(), layer))
        .collect();
    let present = base.components();
    let networks: Vec<&str> =
        NETWORKS.into_iter().filter(|name| present.iter().any(|other| other == name)).collect();
    let mut pairs = Vec::with_capacity(networks.len());
    for name in networks {
        pairs.push((name, base.component(name)?, tuned.component(name)?));
    }
    let total: usize = pairs.iter().map(|(_, base, _)| base.weights.len()).sum();
    let mut done = 0;
    let mut extracted = Extracted { adapter: Adapter::default(), components: BTreeMap::new() };
    for (component, base, tuned) in &pairs {
        let mut change = ComponentChange::default();
        for name in base.weights.names() {
            let layer = name
                .strip_suffix(".weight")
                .and_then(|inner| chosen.get(&format!("{component}.{inner}")));
            one_tensor((base, tuned, name), layer, options, (&mut extracted.adapter, &mut change))?;
            done += 1;
            watch(done, total);
        }
        extracted.components.insert((*component).to_owned(), change);
    }
    if extracted.adapter.modules.is_empty() {
        return Err(ModelError::Adapter {
            module: tuned.path().display().to_string(),
            reason: format!(
                "differs from `{}` in none of the {} chosen layers",
                base.path().display(),
                chosen.len()
            ),
        });
    }
    Ok(extracted)
}

/// Refuses models that have not the same layers.
fn check_alike(base: &[Layer], tuned: &[Layer], files: &ModelFiles) -> Result<(), ModelError> {
    let differs = base.iter().zip(tuned).find(|(left, right)| left != right);
    let reason = match differs {
        Some((left, right)) => format!(
            "has other layers than the base: `{}` of shape {:?} in place of `{}` of shape {:?}",
            right.path, right.weight, left.path, left.weight
        ),
        None if base.len() != tuned.len() => {
            format!("has {} layers, the base has {}", tuned.len(), base.len())
        }
        None => return Ok(()),
    };
    Err(ModelError::Adapter { module: files.path().display().to_string(), reason })
}

/// Measures how a tensor differs, and turns a chosen layer into a module.
fn one_tensor(
    (base, tuned, name): (&ComponentFiles, &ComponentFiles, &str),
    layer: Option<&Layer>,
    options: &ExtractOptions,
    (adapter, change): (&mut Adapter, &mut ComponentChange),
) -> Result<(), ModelError> {
    let difference = difference(base, tuned, name)?;
    let energy = dot_f32(&difference);
    change.change += energy;
    let Some(layer) = layer else { return Ok(()) };
    if energy == 0.0 {
        change.unchanged += 1;
        return Ok(());
    }
    let rows = layer.weight.first().copied().unwrap_or(1);
    let columns = difference.len() / rows.max(1);
    let rank = rank_of(layer, options).min(rows).min(columns);
    let Svd { left, values, right } = leading(&difference, [rows, columns], rank, &layer.path);
    let values = &values[..rank.min(values.len())];
    let ones = vec![1; layer.weight.len().saturating_sub(2)];
    let up_shape = [&[rows, rank][..], &ones].concat();
    let factors = from_parts((&left, values, &right), [&up_shape, &layer.weight]);
    change.modules += 1;
    change.chosen += energy;
    // The products were rounded to f32, so that a layer of low rank may seem to hold more than all.
    change.kept += values.iter().map(|value| value * value).sum::<f64>().min(energy);
    adapter.modules.insert(layer.path.clone(), factors);
    Ok(())
}

fn rank_of(layer: &Layer, options: &ExtractOptions) -> usize {
    match options.conv_rank {
        Some(rank) if layer.is_spatial() => rank,
        _ => options.rank,
    }
}

/// W' − W in f32.
fn difference(
    base: &ComponentFiles,
    tuned: &ComponentFiles,
    name: &str,
) -> Result<Vec<f32>, ModelError> {
    let (old, new) = (base.weights.read_f32(name)?, tuned.weights.read_f32(name)?);
    let wrong = |problem| {
        let path = tuned.weights.path().to_owned();
        ModelError::from(CheckpointError::Weights { path, problem })
    };
    if old.shape != new.shape {
        let (tensor, expected, found) = (name.to_owned(), old.shape, new.shape);
        return Err(wrong(WeightsProblem::Shape { tensor, expected, found }));
    }
    let values: Vec<f32> =
        old.f32().iter().zip(new.f32().iter()).map(|(old, new)| new - old).collect();
    if values.iter().all(|value| value.is_finite()) {
        return Ok(values);
    }
    Err(wrong(WeightsProblem::NotFinite { tensor: name.to_owned() }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use checkpoints::{Family, HostTensor, ModelOptions};
    use recipes::draws;

    use super::*;
    use crate::adapter::{Factors, StoreAs, differences, merge_into_folder, relative_difference};
    use crate::tiny;

    /// Factors with every value drawn.
    fn factors(layer: &Layer, rank: usize) -> Factors {
        let mut stream = draws::keyed(9, &layer.path);
        let mut tensor = |shape: Vec<usize>| {
            let values = draws::normals(&mut stream, shape.iter().product());
            HostTensor::from_f32(shape, values.into_iter().map(|value| 0.1 * value).collect())
        };
        let (mut down, mut up) = (layer.weight.clone(), vec![1; layer.weight.len()]);
        down[0] = rank;
        (up[0], up[1]) = (layer.weight[0], rank);
        Factors { down: tensor(down), up: tensor(up), alpha: 1.5 }
    }

    fn opened(path: &Path) -> ModelFiles {
        ModelFiles::open(path, &ModelOptions::default()).unwrap()
    }

    /// A tiny base, the same with an adapter of rank 2 merged into the layers of `targets`, and the
    /// adapter.
    fn pair(dir: &Path, family: Family, targets: &[&str]) -> (ModelFiles, ModelFiles, Adapter) {
        let (base, tuned) = (dir.join("base"), dir.join("tuned"));
        tiny::write_family(&base, family, 5, &Device::flex()).unwrap();
        let files = opened(&base);
        let layers = file_layers(&files).unwrap().0;
        let targets: Vec<String> = targets.iter().map(|&text| text.to_owned()).collect();
        let modules = select(&layers, &targets).unwrap();
        let modules = modules.iter().map(|layer| (layer.path.clone(), factors(layer, 2)));
        let adapter = Adapter { modules: modules.collect() };
        let adapters = [(adapter.clone(), 1.0)];
        merge_into_folder(&files, &adapters, StoreAs::AsRead, &tuned).unwrap();
        (files, opened(&tuned), adapter)
    }

    fn options(rank: usize, conv_rank: Option<usize>, targets: &[&str]) -> ExtractOptions {
        let targets = targets.iter().map(|&text| text.to_owned()).collect();
        ExtractOptions { rank, conv_rank, targets }
    }

    const ALL: [&str; 2] = ["unet.**", "text_encoder*.**"];

    #[test]
    fn what_was_merged_is_found_again_with_all_its_energy() {
        let dir = tempfile::tempdir().unwrap();
        let targets = ["unet.**.attn*.**", "unet.**.conv1", "text_encoder*.**.mlp.*"];
        let (base, tuned, adapter) = pair(dir.path(), Family::Sdxl, &targets);
        let mut told = Vec::new();
        let mut watch = |done, total| told.push((done, total));
        let found = extract(&base, &tuned, &options(2, None, &targets), &mut watch).unwrap();
        // What is rounded away is that of the merged weights in f32.
        assert_eq!(differences(&found.adapter, &adapter, 1e-4), Vec::<String>::new());
        assert_eq!(found.components.len(), 3);
        for (name, change) in &found.components {
            assert_eq!(change.unchanged, 0, "{name}");
            assert!(change.kept > 0.9999 * change.chosen, "{name}: {change:?}");
            assert!((change.chosen / change.change - 1.0).abs() < 1e-6, "{name}: {change:?}");
        }
        let n_tensors = told.len();
        assert_eq!(told.last(), Some(&(n_tensors, n_tensors)));
        for factors in found.adapter.modules.values() {
            assert!((factors.scale() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_lower_rank_keeps_the_part_that_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let (base, tuned, adapter) = pair(dir.path(), Family::Postcards, &["unet.**.conv1"]);
        let found = extract(&base, &tuned, &options(2, Some(1), &ALL), &mut |_, _| {}).unwrap();
        let change = found.components["unet"];
        assert!(change.unchanged > 10 && change.modules == adapter.modules.len());
        // Only the text encoder is as it was.
        let text = found.components["text_encoder"];
        assert_eq!((text.modules, text.change), (0, 0.0));
        let mut lost = 0.0;
        for (path, original) in &adapter.modules {
            let found = &found.adapter.modules[path];
            assert_eq!(found.rank(), 1, "{path}");
            let size = crate::adapter::delta_norm(original);
            lost += (relative_difference(found, original) * size).powi(2);
        }
        let expected = change.chosen - change.kept;
        assert!((lost / expected - 1.0).abs() < 1e-3, "{lost} instead of {expected}");
        assert!(change.kept < 0.99 * change.chosen);
    }

    #[test]
    fn models_that_are_the_same_or_of_other_shapes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (base, tuned, _) = pair(dir.path(), Family::Sd1, &["unet.**.to_q"]);
        let same = extract(&base, &base, &options(1, None, &ALL), &mut |_, _| {});
        assert!(same.unwrap_err().to_string().contains("in none of the"));
        let elsewhere = options(1, None, &["unet.**.conv2"]);
        let elsewhere = extract(&base, &tuned, &elsewhere, &mut |_, _| {});
        assert!(elsewhere.unwrap_err().to_string().contains("in none of the"));
        let other = dir.path().join("other");
        tiny::write_family(&other, Family::Sd2, 5, &Device::flex()).unwrap();
        let other = extract(&base, &opened(&other), &options(1, None, &ALL), &mut |_, _| {});
        let message = other.unwrap_err().to_string();
        assert!(message.contains("has other layers than the base"), "{message}");
    }
}
