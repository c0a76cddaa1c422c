use std::path::PathBuf;

use burn::tensor::Device;
use checkpoints::fs::Fs;
use checkpoints::{Family, ModelOptions};
use recipes::draws;

use super::*;
use crate::adapter::{Layer, attach, base_layers, concatenated};
use crate::base::{Base, host_values, load, tensor_from_host};
use crate::conditioning::SizeConditions;
use crate::tiny;

/// Factors of this rank for a weight, with every value drawn.
fn factors(weight: &[usize], rank: usize, key: &str) -> Factors {
    let mut stream = draws::keyed(3, key);
    let mut tensor = |shape: Vec<usize>, size: f32| {
        let values = draws::normals(&mut stream, shape.iter().product());
        HostTensor::from_f32(shape, values.into_iter().map(|value| size * value).collect())
    };
    let (mut down, mut up) = (weight.to_vec(), vec![1; weight.len()]);
    down[0] = rank;
    (up[0], up[1]) = (weight[0], rank);
    Factors { down: tensor(down, 0.2), up: tensor(up, 0.2), alpha: 3.0 }
}

/// An adapter for every layer of a base.
fn adapter(base: &Base, rank: usize) -> Adapter {
    let module = |layer: Layer| {
        let factors = factors(&layer.weight, rank, &layer.path);
        (layer.path, factors)
    };
    Adapter { modules: base_layers(base).into_iter().map(module).collect() }
}

fn attached(base: &Base, adapter: &Adapter, dose: f64) -> Base {
    let mut base = base.clone();
    for (root, network) in base.adapted() {
        let own = adapter.modules.iter().filter(|(path, _)| path.split('.').next() == Some(root));
        let own = own.map(|(path, factors)| (path.clone(), factors.clone()));
        attach(network, root, &Adapter { modules: own.collect() }, dose).unwrap();
    }
    base
}

fn output(base: &Base) -> Vec<f32> {
    let side = tiny::SIDE_PX;
    let [channels, height, width] = base.latent_shape([side; 2]).unwrap();
    let mut stream = draws::keyed(1, "noise");
    let noise = draws::normals(&mut stream, channels * height * width);
    let noisy = tensor_from_host(noise, [1, channels, height, width], &base.device);
    let text = base.text_states(&["a tower"]).unwrap();
    let given = base.conditioning(text, &[SizeConditions::whole([side; 2])]);
    host_values(base.denoise(noisy, base.timesteps(321.0, 1), &given).unwrap()).unwrap()
}

fn distance(left: &[f32], right: &[f32]) -> f64 {
    let pairs = left.iter().zip(right);
    pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

fn length(values: &[f32]) -> f64 {
    distance(values, &vec![0.0; values.len()])
}

fn opened(path: &Path) -> ModelFiles {
    ModelFiles::open(path, &ModelOptions::default()).unwrap()
}

#[test]
fn a_merged_base_puts_out_what_the_adapted_one_does() {
    for family in [Family::Sd1, Family::Sdxl] {
        let dir = tempfile::tempdir().unwrap();
        let base = tiny::family_base(dir.path(), family, 5, &Device::flex()).unwrap();
        let adapter = adapter(&base, 2);
        let expected = output(&attached(&base, &adapter, -0.7));
        let out = dir.path().join("merged");
        let adapters = [(adapter, -0.7)];
        let merged =
            merge_into_folder(&opened(dir.path()), &adapters, StoreAs::AsRead, &out).unwrap();
        assert_eq!(merged, Merged { changed: base_layers(&base).len(), dropped: 0 });
        let found = output(&load(&opened(&out), &Device::flex()).unwrap());
        let moved = distance(&output(&base), &expected);
        assert!(moved > 0.01 * length(&expected), "the adapter moves nothing");
        let difference = distance(&found, &expected);
        assert!(difference < 1e-4 * length(&expected), "{family:?}: {difference:e}");
        assert!(out.join("evaluator/config.json").is_file());
    }
}

#[test]
fn dose_zero_keeps_every_bit_of_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let base = tiny::family_base(dir.path(), Family::Sdxl, 5, &Device::flex()).unwrap();
    let adapters = [(adapter(&base, 2), 0.0)];
    let out = dir.path().join("merged");
    let files = opened(dir.path());
    merge_into_folder(&files, &adapters, StoreAs::AsRead, &out).unwrap();
    assert_eq!(opened(&out).hashes().unwrap(), files.hashes().unwrap());
    // Written anew in the type that it has, a network keeps its bits, too.
    merge_into_folder(&files, &adapters, StoreAs::F32, &out).unwrap();
    let hash = |files: &ModelFiles| files.component("unet").unwrap().weights.tensors_sha256();
    assert_eq!(hash(&opened(&out)), hash(&files));
}

#[test]
fn what_is_copied_of_a_variant_gets_plain_names() {
    let dir = tempfile::tempdir().unwrap();
    let base = tiny::base(dir.path(), 5, &Device::flex()).unwrap();
    let [unet, text, vae] = ["unet", "text_encoder", "vae"].map(|name| dir.path().join(name));
    for (folder, stem) in
        [(&unet, "diffusion_pytorch_model"), (&text, "model"), (&vae, "diffusion_pytorch_model")]
    {
        let [plain, half] =
            ["", ".fp16"].map(|part| folder.join(format!("{stem}{part}.safetensors")));
        StdFs.rename(&plain, &half).unwrap();
    }
    let mut adapter = adapter(&base, 1);
    adapter.modules.retain(|path, _| path.starts_with("unet."));
    let out = dir.path().join("merged");
    merge_into_folder(&opened(dir.path()), &[(adapter, 1.0)], StoreAs::AsRead, &out).unwrap();
    for file in [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let files = checkpoints::fs::list(&out.join("text_encoder")).unwrap();
    assert_eq!(
        files,
        ["config.json", "model.safetensors"].map(|name| out.join("text_encoder").join(name))
    );
    load(&opened(&out), &Device::flex()).unwrap();
}

#[test]
fn a_damaged_tensor_of_a_single_file_is_refused_though_no_adapter_changes_it() {
    let source = TensorFile::open(&golden("sd1.safetensors")).unwrap();
    let name = source.names().find(|name| name.starts_with("first_stage_model.")).unwrap();
    let mut tensors: checkpoints::TensorMap =
        source.names().map(|name| (name.to_owned(), source.read(name).unwrap())).collect();
    let shape = tensors[name].shape.clone();
    let values = vec![f32::INFINITY; shape.iter().product()];
    tensors.insert(name.to_owned(), HostTensor::from_f32(shape, values));
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (dir.path().join("base.safetensors"), dir.path().join("out.safetensors"));
    checkpoints::write_tensors(&path, &tensors, source.metadata()).unwrap();
    let error =
        merge_into_file(&opened(&path), &[], StoreAs::AsRead, &out).unwrap_err().to_string();
    assert!(error.contains("base.safetensors") && error.contains(name), "{error}");
    assert!(!out.exists());
}

#[test]
fn a_module_without_scale_changes_no_layer() {
    let dir = tempfile::tempdir().unwrap();
    let base = tiny::base(dir.path(), 5, &Device::flex()).unwrap();
    let mut adapter = adapter(&base, 1);
    adapter.modules.values_mut().skip(2).for_each(|factors| factors.alpha = 0.0);
    let merged = merge_into_folder(
        &opened(dir.path()),
        &[(adapter, 1.0)],
        StoreAs::AsRead,
        &dir.path().join("merged"),
    );
    assert_eq!(merged.unwrap().changed, 2);
}

#[test]
fn the_order_of_two_adapters_is_no_matter() {
    let dir = tempfile::tempdir().unwrap();
    let base = tiny::base(dir.path(), 5, &Device::flex()).unwrap();
    let (one, other) = ((adapter(&base, 2), 0.5), (adapter(&base, 1), -1.0));
    let files = opened(dir.path());
    let merged = |name: &str, adapters: &[(Adapter, f64)]| {
        let out = dir.path().join(name);
        merge_into_folder(&files, adapters, StoreAs::AsRead, &out).unwrap();
        output(&load(&opened(&out), &Device::flex()).unwrap())
    };
    let forward = merged("forward", &[one.clone(), other.clone()]);
    let backward = merged("backward", &[other.clone(), one.clone()]);
    assert!(distance(&forward, &backward) < 1e-4 * length(&forward));
    let as_one = concatenated(&[one, other]).unwrap();
    let concatenated = merged("concatenated", &[(as_one, 1.0)]);
    assert!(distance(&forward, &concatenated) < 1e-4 * length(&forward));
}

#[test]
fn a_weight_that_becomes_infinite_is_named_and_nothing_of_it_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let base = tiny::base(dir.path(), 5, &Device::flex()).unwrap();
    let mut adapter = adapter(&base, 1);
    let path = "unet.mid_block.resnets.0.conv1";
    adapter.modules.retain(|other, _| other == path);
    adapter.modules.get_mut(path).unwrap().alpha = 1e9;
    let out = dir.path().join("merged");
    let adapters = [(adapter, 1.0)];
    let files = opened(dir.path());
    let error = merge_into_folder(&files, &adapters, StoreAs::F16, &out).unwrap_err().to_string();
    assert!(error.contains("infinite") && error.contains("mid_block.resnets.0.conv1"), "{error}");
    assert!(!out.join("unet/diffusion_pytorch_model.safetensors").exists());
    merge_into_folder(&files, &adapters, StoreAs::Bf16, &out).unwrap();
}

#[test]
fn modules_of_another_base_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    tiny::write(dir.path(), 5, &Device::flex()).unwrap();
    let files = opened(dir.path());
    let out = dir.path().join("merged");
    for (path, weight, reason) in [
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", [8, 8], "no network"),
        ("unet.mid_block.attentions.7.proj_in", [8, 8], "no such layer"),
        ("unet.time_embedding.linear_1", [8, 8], "do not fit"),
    ] {
        let modules = [(path.to_owned(), factors(&weight, 1, path))].into();
        let adapters = [(Adapter { modules }, 1.0)];
        let error = merge_into_folder(&files, &adapters, StoreAs::AsRead, &out).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(path) && error.contains(reason), "{error}");
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/golden/single_file").join(name)
}

/// Modules for all layers of one attention, one resnet and the first layers of the text encoders.
fn some_modules(files: &ModelFiles) -> Adapter {
    let mut adapter = Adapter::default();
    let components = files.components();
    for (component, _) in NETWORKS.iter().filter(|(name, _)| components.iter().any(|c| c == name)) {
        let weights = files.component(component).unwrap().weights;
        let wanted = ["mid_block.", "encoder.layers.0.", "text_projection"];
        for name in weights.names().filter(|name| wanted.iter().any(|part| name.contains(part))) {
            let shape = &weights.info(name).unwrap().shape;
            if let (Some(layer), true) = (name.strip_suffix(".weight"), shape.len() >= 2) {
                let path = format!("{component}.{layer}");
                let factors = factors(shape, 1, &path);
                adapter.modules.insert(path, factors);
            }
        }
    }
    adapter
}

/// Every tensor of `found` is that of `before`, plus what the adapter adds at the dose.
fn check_changed(before: &ModelFiles, found: &ModelFiles, adapter: &Adapter, dose: f64) {
    for component in ["unet", "text_encoder", "text_encoder_2", "vae"] {
        if !before.components().iter().any(|name| name == component) {
            continue;
        }
        let (before, found) =
            (before.component(component).unwrap(), found.component(component).unwrap());
        assert!(before.weights.names().eq(found.weights.names()), "{component}");
        for name in before.weights.names() {
            let (old, new) =
                (before.weights.read(name).unwrap(), found.weights.read(name).unwrap());
            let path = name.strip_suffix(".weight").map(|layer| format!("{component}.{layer}"));
            let Some(factors) = path.and_then(|path| adapter.modules.get(&path)) else {
                assert!(old == new, "{component}: {name}");
                continue;
            };
            let (rank, up, down) = (factors.rank(), factors.up.f32(), factors.down.f32());
            let columns = down.len() / rank;
            let mut expected = old.f32().into_owned();
            for (index, value) in expected.iter_mut().enumerate() {
                let (row, column) = (index / columns, index % columns);
                let product: f32 =
                    (0..rank).map(|k| up[row * rank + k] * down[k * columns + column]).sum();
                *value += (factors.scale() * dose) as f32 * product;
            }
            // Half precision at worst.
            let difference = distance(&new.f32(), &expected);
            assert!(difference < 1e-3 * length(&expected), "{component}: {name}");
            assert!(distance(&new.f32(), &old.f32()) > 0.01 * length(&expected), "{name}");
        }
    }
}

#[test]
fn a_single_file_keeps_its_names_and_holds_the_changed_layers() {
    for family in ["sd1", "sd2", "sdxl"] {
        let path = golden(&format!("{family}.safetensors"));
        let before = opened(&path);
        let adapter = some_modules(&before);
        assert!(adapter.modules.len() > 20, "{family}");
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("merged.safetensors");
        let adapters = [(adapter, 1.5)];
        let (merged, hashes) = merge_into_file(&before, &adapters, StoreAs::AsRead, &out).unwrap();
        assert_eq!(merged.changed, adapters[0].0.modules.len());
        let (theirs, ours) = (TensorFile::open(&path).unwrap(), TensorFile::open(&out).unwrap());
        assert_eq!(ours.file_sha256(), hashes.file_sha256);
        let kept = theirs.names().filter(|name| !name.contains(AVERAGE));
        assert!(kept.eq(ours.names()), "{family}");
        assert_eq!(merged.dropped, theirs.len() - ours.len());
        check_changed(&before, &opened(&out), &adapters[0].0, 1.5);
    }
}

#[test]
fn a_single_file_becomes_a_folder_with_the_changed_layers() {
    for family in ["sd1", "sdxl"] {
        let before = opened(&golden(&format!("{family}.safetensors")));
        let adapters = [(some_modules(&before), -1.0)];
        let dir = tempfile::tempdir().unwrap();
        merge_into_folder(&before, &adapters, StoreAs::AsRead, dir.path()).unwrap();
        let found = opened(dir.path());
        assert_eq!(found.family(), before.family());
        check_changed(&before, &found, &adapters[0].0, -1.0);
    }
}
