//! Checks of a result before it counts as one: finite, alive, known to its readers, the same again
//! when read back.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor};
use checkpoints::key_map::KeyMap;
use checkpoints::readers::{Reader, unknown_keys};
use checkpoints::{HostTensor, TensorFile, TensorMap};
use models::adapter::{self, Adapter, Factors};
use models::base::{Base, Precision, host_values, tensor_from_host};
use models::{SizeConditions, Slot};
use recipes::{AdapterDtype, AdapterFormat, draws};
use serde::Serialize;

use crate::error::TrainError;
use crate::trainee::{Show, Trainee, part_of};

/// How far each module moves its layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Modules by layer path.
    pub modules: BTreeMap<String, ModuleReport>,
    /// ‖ΔW‖ over all modules, Frobenius norm.
    pub delta_norm: f64,
}

/// How far one module moves its layer; Frobenius norms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ModuleReport {
    /// Rank.
    pub rank: usize,
    /// ‖ΔW‖ = α/r·‖B·A‖.
    pub delta_norm: f64,
    /// ‖W₀‖.
    pub weight_norm: f64,
}

/// Q1: every value is finite and every module changes its layer.
///
/// # Errors
///
/// [`TrainError::Postflight`] `finite` or `alive`, with every module that fails.
pub fn check_adapter(adapter: &Adapter, base: &Base) -> Result<Report, TrainError> {
    let finite = |factors: &Factors| factors.down.all_finite() && factors.up.all_finite();
    fail("finite", names(adapter, |factors| !finite(factors)), "holds a value that is not finite")?;
    let weights = weight_norms(base)?;
    let mut modules = BTreeMap::new();
    for (path, factors) in &adapter.modules {
        let weight_norm = weights.get(path).copied().unwrap_or(0.0);
        let delta_norm = delta_norm(factors);
        modules
            .insert(path.clone(), ModuleReport { rank: factors.rank(), delta_norm, weight_norm });
    }
    let dead = modules.iter().filter(|(_, module)| module.delta_norm == 0.0);
    fail("alive", dead.map(|(path, _)| path.clone()).collect(), "changes nothing")?;
    let delta_norm = modules.values().map(|module| module.delta_norm.powi(2)).sum::<f64>().sqrt();
    Ok(Report { modules, delta_norm })
}

fn names(adapter: &Adapter, fails: impl Fn(&Factors) -> bool) -> Vec<String> {
    let failing = adapter.modules.iter().filter(|(_, factors)| fails(factors));
    failing.map(|(path, _)| path.clone()).collect()
}

fn fail(check: &'static str, names: Vec<String>, what: &str) -> Result<(), TrainError> {
    if names.is_empty() {
        return Ok(());
    }
    let findings = names.into_iter().map(|name| format!("`{name}` {what}")).collect();
    Err(TrainError::Postflight { check, findings })
}

/// α/r·‖B·A‖ from two r×r products: ‖BA‖² = Σ (BᵀB)∘(AAᵀ).
fn delta_norm(factors: &Factors) -> f64 {
    let rank = factors.rank();
    let (down, up) = (factors.down.f32(), factors.up.f32());
    let row = |index: usize| down.chunks(down.len() / rank.max(1)).nth(index).unwrap_or(&[]);
    let rows = |left: usize, right: usize| -> f64 {
        row(left).iter().zip(row(right)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let columns = |left: usize, right: usize| -> f64 {
        up.chunks(rank).map(|row| f64::from(row[left]) * f64::from(row[right])).sum()
    };
    let pairs = (0..rank).flat_map(|left| (0..rank).map(move |right| (left, right)));
    let square: f64 = pairs.map(|(left, right)| rows(left, right) * columns(left, right)).sum();
    factors.scale() * square.max(0.0).sqrt()
}

/// ‖W₀‖ of every layer by its path.
fn weight_norms(base: &Base) -> Result<BTreeMap<String, f64>, TrainError> {
    let mut base = base.clone();
    let mut weights = Vec::new();
    for (component, network) in base.adapted() {
        let mut collect = |path: &str, slot: &mut dyn Slot| {
            if let Some(layer) = path.strip_suffix(".weight") {
                weights.push((layer.to_owned(), slot.flat()));
            }
        };
        network.visit(component, &mut Show(&mut collect));
    }
    // A sum of squares in bf16 would be wrong in its second digit.
    let norm = |weight: Tensor<1>| crate::optimizer::norm(&weight.cast(DType::F32));
    weights.into_iter().map(|(path, weight)| Ok((path, norm(weight)?))).collect()
}

/// Q2 to Q4: layout, readers, and the same effect when read back.
///
/// # Errors
///
/// [`TrainError::Postflight`] `layout`, `readers` or `same`. The file is removed then.
pub fn check_file(
    path: &Path,
    format: AdapterFormat,
    dtype: AdapterDtype,
    expected: (&Adapter, &KeyMap, &Base),
) -> Result<(), TrainError> {
    let checked = check_layout(path, format, expected)
        .and_then(|()| check_readers(path, format, expected.1))
        .and_then(|()| check_same(path, dtype, expected));
    if checked.is_err() {
        // The failed check is the error to report.
        let _ = checkpoints::fs::remove_file(path);
    }
    checked
}

/// Q2: the tensors are those of the modules, with one alpha per component.
fn check_layout(
    path: &Path,
    format: AdapterFormat,
    (adapter, map, _): (&Adapter, &KeyMap, &Base),
) -> Result<(), TrainError> {
    let file = TensorFile::open(path)?;
    let per_module = match format {
        AdapterFormat::Kohya => 3,
        AdapterFormat::Diffusers => 2,
    };
    let mut findings = Vec::new();
    let (found, wanted) = (file.len(), per_module * adapter.modules.len());
    if found != wanted {
        findings.push(format!("expected {wanted} tensors, found {found}"));
    }
    let mut alphas: BTreeMap<String, f32> = BTreeMap::new();
    for name in file.names().filter(|name| name.strip_suffix(".alpha").is_some()) {
        let component = map.parse(name)?.path.split('.').next().unwrap_or_default().to_owned();
        let alpha = file.read(name)?.f32()[0];
        if alphas.insert(component, alpha).is_some_and(|other| other.to_bits() != alpha.to_bits()) {
            findings.push(format!("`{name}` is {alpha}, unlike other alphas of its component"));
        }
    }
    for name in file.names() {
        if !file.read(name)?.all_finite() {
            findings.push(format!("`{name}` is not finite in this number format"));
        }
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(TrainError::Postflight { check: "layout", findings })
    }
}

/// Q3: every reader of this form knows every key.
fn check_readers(path: &Path, format: AdapterFormat, map: &KeyMap) -> Result<(), TrainError> {
    let file = TensorFile::open(path)?;
    let readers: &[Reader] = match format {
        AdapterFormat::Kohya => &Reader::ALL,
        // The others read this form in part at best; for them there is the first file.
        AdapterFormat::Diffusers => &[Reader::Diffusers],
    };
    let finding = |reader: &Reader| {
        let unknown = unknown_keys(file.names(), map, *reader);
        let first = unknown.first()?;
        Some(format!(
            "{} does not know {} keys, `{first}` among them",
            reader.name(),
            unknown.len()
        ))
    };
    let findings: Vec<String> = readers.iter().filter_map(finding).collect();
    if findings.is_empty() {
        Ok(())
    } else {
        Err(TrainError::Postflight { check: "readers", findings })
    }
}

/// Whether a relative difference is more than rounding to a number format can explain; one that is
/// not a number is.
fn exceeds(difference: f64, dtype: AdapterDtype) -> bool {
    is_above(difference, tolerance(dtype))
}

/// Whether a difference is above a limit, or not a number.
fn is_above(difference: f64, limit: f64) -> bool {
    difference.is_nan() || difference > limit
}

/// Largest relative difference of two outputs of one denoiser that rounding can explain: of factors
/// to a number format and, in a base in bf16, of every activation.
fn output_tolerance(dtype: AdapterDtype, precision: Precision) -> f64 {
    match precision {
        Precision::F32 => tolerance(dtype),
        Precision::Bf16 => tolerance(dtype).max(BF16_OUTPUTS),
    }
}

/// How far two forward passes in bf16 may be apart: twice what one of them may be from f32, since
/// the smallest change of a factor rounds other activations another way.
const BF16_OUTPUTS: f64 = 6e-2;

/// Largest relative difference that rounding to a number format can explain.
fn tolerance(dtype: AdapterDtype) -> f64 {
    match dtype {
        // Only an alpha that differs between modules moves the last bits.
        AdapterDtype::F32 => 1e-5,
        AdapterDtype::F16 => 2e-3,
        AdapterDtype::Bf16 => 1.6e-2,
    }
}

/// Q4: the adapted network puts out the same with the file as with the values in memory, measured
/// against what the adapter changes.
fn check_same(
    path: &Path,
    dtype: AdapterDtype,
    (adapter, map, base): (&Adapter, &KeyMap, &Base),
) -> Result<(), TrainError> {
    let read = adapter::adapter_from_file(path, &adapter::base_layers(base), map)?.adapter;
    let mut findings = Vec::new();
    for (path, factors) in &adapter.modules {
        let Some(found) = read.modules.get(path) else {
            findings.push(format!("`{path}` is missing"));
            continue;
        };
        for (name, difference) in [
            ("down", difference((&found.down, 1.0), (&factors.down, 1.0), dtype)),
            ("up", difference((&found.up, found.scale()), (&factors.up, factors.scale()), dtype)),
        ] {
            if exceeds(difference, dtype) {
                findings.push(format!("the {name} factor of `{path}` differs by {difference:e}"));
            }
        }
    }
    let (found, wanted) = (probe(base, &read)?, probe(base, adapter)?);
    let difference = distance(&found, &wanted) / length(&wanted);
    if is_above(difference, output_tolerance(dtype, base.precision)) {
        findings.push(format!("the network's output differs by {difference:e}"));
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(TrainError::Postflight { check: "same", findings })
    }
}

/// Relative difference of two scaled tensors, beyond what the format cannot tell from 0: factors
/// that only rounding noise has moved may be so small.
fn difference(
    (found, found_scale): (&HostTensor, f64),
    (wanted, wanted_scale): (&HostTensor, f64),
    dtype: AdapterDtype,
) -> f64 {
    let scaled = |tensor: &HostTensor, scale: f64| -> Vec<f32> {
        tensor.f32().iter().map(|&value| (f64::from(value) * scale) as f32).collect()
    };
    let (found, wanted) = (scaled(found, found_scale), scaled(wanted, wanted_scale));
    if found.len() != wanted.len() {
        return f64::INFINITY;
    }
    let lost = half_step_at_zero(dtype) * wanted_scale * (wanted.len() as f64).sqrt();
    let (size, beyond) = (length(&wanted), (distance(&found, &wanted) - lost).max(0.0));
    if size == 0.0 { beyond } else { beyond / size }
}

/// Half the distance between 0 and the next number of a format, the most that rounding moves a
/// value there.
fn half_step_at_zero(dtype: AdapterDtype) -> f64 {
    match dtype {
        AdapterDtype::F32 | AdapterDtype::Bf16 => 0.0,
        AdapterDtype::F16 => 2.0_f64.powi(-25),
    }
}

fn length(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

fn distance(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Output of the adapted network for one noisy latent and the empty prompt.
fn probe(base: &Base, adapter: &Adapter) -> Result<Vec<f32>, TrainError> {
    let mut base = base.clone();
    for (component, network) in base.adapted() {
        adapter::attach(network, component, &part_of(adapter, component), 1.0)?;
    }
    output(&base)
}

fn output(base: &Base) -> Result<Vec<f32>, TrainError> {
    let side = base.unet.config().side_multiple() * base.vae.config().factor();
    // The smallest picture of at least 64 pixels that all levels can halve.
    let side = side * 64usize.div_ceil(side);
    let [channels, height, width] = base.latent_shape([side; 2])?;
    let mut stream = draws::keyed(0, "postflight");
    let values = draws::normals(&mut stream, channels * height * width);
    let noisy = tensor_from_host(values, [1, channels, height, width], &base.device);
    let given = base.conditioning(base.text_states(&[""])?, &[SizeConditions::whole([side; 2])]);
    Ok(host_values(base.denoise(noisy, base.timesteps(500.0, 1), &given)?)?)
}

/// Q1 for trained parameters: finite, and not all as they were.
///
/// # Errors
///
/// [`TrainError::Postflight`] `finite` or `alive`.
pub fn check_values(values: &TensorMap, base: &Base) -> Result<(), TrainError> {
    let wrong = values.iter().filter(|(_, tensor)| !tensor.all_finite());
    fail(
        "finite",
        wrong.map(|(path, _)| path.clone()).collect(),
        "holds a value that is not finite",
    )?;
    let mut base = base.clone();
    let mut before = Vec::new();
    for (component, network) in base.adapted() {
        let mut collect = |path: &str, slot: &mut dyn Slot| {
            if values.contains_key(path) {
                before.push((path.to_owned(), slot.flat()));
            }
        };
        network.visit(component, &mut Show(&mut collect));
    }
    for (path, before) in before {
        if host_values(before)? != *values[&path].f32() {
            return Ok(());
        }
    }
    fail("alive", vec!["every trained parameter".to_owned()], "is as it was")
}

/// Q4 for a base folder: the same output as with the values in memory.
///
/// # Errors
///
/// [`TrainError::Postflight`] `same`.
pub fn check_base(read: &Base, trainee: &Trainee, dtype: AdapterDtype) -> Result<(), TrainError> {
    let (found, wanted) = (output(read)?, output(trainee.base())?);
    let difference = distance(&found, &wanted) / length(&wanted);
    if !exceeds(difference, dtype) {
        return Ok(());
    }
    let findings = vec![format!("the network's output differs by {difference:e}")];
    Err(TrainError::Postflight { check: "same", findings })
}

#[cfg(test)]
mod tests {
    use checkpoints::Family;
    use models::base::load_with;

    use super::*;
    use crate::fixtures::World;

    /// An adapter of the tiny base with every value drawn.
    fn adapter(world: &World) -> Adapter {
        let recipe = world.recipe(&[]);
        let recipes::AdapterSpec::Lora(spec) = &recipe.adapter else { panic!("no LoRA") };
        let mut adapter = adapter::initial(&adapter::base_layers(&world.base), spec, 1).unwrap();
        for (path, factors) in &mut adapter.modules {
            let values = draws::normals(&mut draws::keyed(1, path), factors.up.len());
            let values = values.iter().map(|value| 0.3 * value).collect();
            factors.up = HostTensor::from_f32(factors.up.shape.clone(), values);
        }
        adapter
    }

    fn failed<T>(result: Result<T, TrainError>) -> &'static str {
        match result.err() {
            Some(TrainError::Postflight { check, .. }) => check,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_module_that_changes_nothing_or_is_not_finite_is_named() {
        let world = World::new();
        let good = adapter(&world);
        let report = check_adapter(&good, &world.base).unwrap();
        assert!(
            report
                .modules
                .values()
                .all(|module| module.delta_norm > 0.0 && module.weight_norm > 0.0)
        );
        let first = good.modules.keys().next().unwrap().clone();
        for (value, check) in [(0.0, "alive"), (f32::NAN, "finite")] {
            let mut bad = good.clone();
            let up = &mut bad.modules.get_mut(&first).unwrap().up;
            *up = HostTensor::from_f32(up.shape.clone(), vec![value; up.len()]);
            let result = check_adapter(&bad, &world.base);
            assert!(result.as_ref().unwrap_err().to_string().contains(&first));
            assert_eq!(failed(result), check);
        }
    }

    #[test]
    fn the_norm_of_a_module_is_that_of_its_product() {
        let factors = Factors {
            down: HostTensor::from_f32([2, 3], vec![1.0, 2.0, 0.0, -1.0, 0.5, 3.0]),
            up: HostTensor::from_f32([2, 2], vec![2.0, 1.0, 0.0, -1.0]),
            alpha: 4.0,
        };
        // BA = [[1, 4.5, 3], [1, -0.5, -3]], scale 2.
        let expected = 2.0 * (1.0f64 + 20.25 + 9.0 + 1.0 + 0.25 + 9.0).sqrt();
        assert!((delta_norm(&factors) - expected).abs() < 1e-9);
    }

    #[test]
    fn outputs_of_a_base_in_bf16_may_differ_by_its_own_rounding_and_factors_may_not() {
        for dtype in [AdapterDtype::F32, AdapterDtype::F16, AdapterDtype::Bf16] {
            let [wide, narrow] =
                [Precision::F32, Precision::Bf16].map(|base| output_tolerance(dtype, base));
            assert!((wide - tolerance(dtype)).abs() < 1e-12 && wide < narrow, "{dtype:?}");
            assert!(exceeds(2.0 * wide, dtype) && !is_above(2.0 * wide, narrow), "{dtype:?}");
            assert!(is_above(f64::NAN, narrow), "{dtype:?}");
        }
    }

    #[test]
    fn a_base_in_bf16_has_the_norms_of_its_weights() {
        let world = World::of(Family::Sd1, 64);
        let rounded = load_with(&world.files, &world.base.device, Precision::Bf16).unwrap();
        let (wide, narrow) = (weight_norms(&world.base).unwrap(), weight_norms(&rounded).unwrap());
        assert_eq!(wide.len(), narrow.len());
        for (path, norm) in wide {
            assert!((narrow[&path] - norm).abs() <= 4e-3 * norm, "{path}: {}", narrow[&path]);
        }
    }

    #[test]
    fn a_file_must_hold_the_adapter_in_names_that_readers_know() {
        let world = World::new();
        let adapter = adapter(&world);
        let layers = adapter::base_layers(&world.base);
        let map = adapter::key_map(&layers, world.base.unet.config()).unwrap();
        let path = world.dir.path().join("adapter.safetensors");
        let write = |tensors: &TensorMap| {
            checkpoints::write_tensors(&path, tensors, &BTreeMap::new()).unwrap();
        };
        let expected = (&adapter, &map, &world.base);
        for dtype in [AdapterDtype::F32, AdapterDtype::F16, AdapterDtype::Bf16] {
            let kohya = adapter::kohya_tensors(&adapter, &map, dtype).unwrap();
            write(&kohya);
            check_file(&path, AdapterFormat::Kohya, dtype, expected).unwrap();
            write(&adapter::diffusers_tensors(&adapter, &map, dtype).unwrap().0);
            check_file(&path, AdapterFormat::Diffusers, dtype, expected).unwrap();
            // Names of diffusers in place of kohya's.
            let check = check_readers(&path, AdapterFormat::Kohya, &map);
            assert_eq!(failed(check), "readers");
        }
        let mut tensors = adapter::kohya_tensors(&adapter, &map, AdapterDtype::F32).unwrap();
        let key = tensors.keys().find(|key| key.ends_with("lora_up.weight")).unwrap().clone();
        let mut values = tensors[&key].f32().into_owned();
        values[0] += 0.1;
        tensors.insert(key.clone(), HostTensor::from_f32(tensors[&key].shape.clone(), values));
        write(&tensors);
        let check = check_file(&path, AdapterFormat::Kohya, AdapterDtype::F32, expected);
        assert_eq!(failed(check), "same");
        assert!(!path.exists(), "a result that fails its checks must not stay");
        tensors.remove(&key);
        write(&tensors);
        assert_eq!(
            failed(check_file(&path, AdapterFormat::Kohya, AdapterDtype::F32, expected)),
            "layout"
        );
    }
}
