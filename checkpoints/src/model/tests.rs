use super::*;
use crate::WeightsProblem;
use crate::folder::{INDEX, Library, write_component};
use crate::safetensors::{TensorFile, write_tensors};
use crate::tensors::{HostTensor, TensorMap};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/golden/single_file").join(name)
}

fn file(family: &str, options: &ModelOptions) -> ModelFiles {
    ModelFiles::open(&golden(&format!("{family}.safetensors")), options).unwrap()
}

fn predicting(predicts: Predicts) -> ModelOptions {
    ModelOptions { prediction: Some(predicts), ..ModelOptions::default() }
}

fn with_variant(variant: &str) -> ModelOptions {
    ModelOptions { variant: Some(variant.to_owned()), ..ModelOptions::default() }
}

fn with_vae(path: PathBuf) -> ModelOptions {
    ModelOptions { vae: Some(path), ..ModelOptions::default() }
}

/// The message and the advice of an error.
fn told<T: std::fmt::Debug>(result: Result<T, CheckpointError>) -> String {
    let error = result.unwrap_err();
    format!("{error}\n{}", error.hint().unwrap_or_default())
}

/// A folder of a base whose networks are one tensor each.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "requires_safety_checker": true,
    });
    let path = dir.path();
    crate::fs::atomic_write_json(&path.join(INDEX), &index).unwrap();
    let schedule = json!({"_class_name": "PNDMScheduler", "prediction_type": "epsilon"});
    crate::fs::atomic_write_json(&path.join(scheduler::FILE), &schedule).unwrap();
    crate::fs::atomic_write(&path.join("tokenizer/merges.txt"), b"#version: 0.2\n").unwrap();
    let tensors = TensorMap::from([("conv_in.weight".to_owned(), HostTensor::scalar(1.0))]);
    let unet = json!({"block_out_channels": [8, 8, 8, 8]});
    write_component(&path.join("unet"), Library::Diffusers, &unet, &tensors).unwrap();
    let vae = json!({"_class_name": "AutoencoderKL", "scaling_factor": 0.31});
    write_component(&path.join("vae"), Library::Diffusers, &vae, &tensors).unwrap();
    dir
}

fn open(dir: &tempfile::TempDir, options: &ModelOptions) -> Result<ModelFiles, CheckpointError> {
    ModelFiles::open(dir.path(), options)
}

#[test]
fn a_single_file_is_read_as_the_folder_that_it_amounts_to() {
    let sd1 = file("sd1", &ModelOptions::default());
    assert_eq!(sd1.family(), Family::Sd1);
    assert_eq!(sd1.components(), ["scheduler", "text_encoder", "tokenizer", "unet", "vae"]);
    assert_eq!(sd1.name(), "sd1");
    assert!(sd1.folder().is_none());
    assert!(sd1.evaluator_dir().ends_with("single_file/evaluator"));
    let end = TokenizerFiles::Clip { pad: "<|endoftext|>" };
    assert_eq!(sd1.tokenizer("tokenizer").unwrap(), end);
    let message = told(sd1.component("text_encoder_2"));
    assert!(message.contains("the component `text_encoder_2`, found scheduler, text"), "{message}");
    assert!(sd1.tokenizer("tokenizer_2").is_err());
    assert!(!sd1.force_zeros_for_empty_prompt());
}

#[test]
fn a_single_file_of_sdxl_amounts_to_seven_components() {
    let sdxl = file("sdxl", &ModelOptions::default());
    assert_eq!(sdxl.family(), Family::Sdxl);
    assert_eq!(sdxl.components().len(), 7);
    let end = TokenizerFiles::Clip { pad: "<|endoftext|>" };
    assert_eq!(sdxl.tokenizer("tokenizer").unwrap(), end);
    let exclamation = TokenizerFiles::Clip { pad: "!" };
    assert_eq!(sdxl.tokenizer("tokenizer_2").unwrap(), exclamation);
    assert!(sdxl.force_zeros_for_empty_prompt());
    assert_eq!(sdxl.index()["text_encoder_2"][1], "CLIPTextModelWithProjection");
    let sd2 = file("sd2", &ModelOptions::default());
    assert_eq!(sd2.tokenizer("tokenizer").unwrap(), exclamation);
}

#[test]
fn a_single_file_of_sd2_must_be_told_what_it_predicts() {
    let sd2 = file("sd2", &ModelOptions::default());
    let message = told(sd2.scheduler());
    assert!(message.contains("sd2.safetensors` does not say what it predicts"), "{message}");
    assert!(message.contains("`prediction: v`"), "{message}");
    let side = |files: &ModelFiles| {
        files.component("unet").unwrap().config.get("sample_size").and_then(Value::as_u64)
    };
    assert_eq!(side(&sd2), None);
    for (predicts, name, expected) in
        [(Predicts::V, "v_prediction", 96), (Predicts::Epsilon, "epsilon", 64)]
    {
        let files = file("sd2", &predicting(predicts));
        assert_eq!(side(&files), Some(expected));
        let schedule = files.scheduler().unwrap();
        assert_eq!(schedule["prediction_type"], name);
        assert_eq!(schedule["_class_name"], "DDIMScheduler");
    }
}

#[test]
fn the_schedule_of_a_single_file_is_that_of_its_family() {
    for (family, class) in [("sd1", "PNDMScheduler"), ("sdxl", "EulerDiscreteScheduler")] {
        let schedule = file(family, &ModelOptions::default()).scheduler().unwrap();
        assert_eq!(schedule["_class_name"], class);
        assert_eq!(schedule["prediction_type"], "epsilon");
        assert_eq!(schedule["beta_start"], 0.00085);
        assert_eq!(schedule["beta_end"], 0.012);
        assert_eq!(schedule["beta_schedule"], "scaled_linear");
        assert_eq!(schedule["steps_offset"], 1);
        assert_eq!(schedule["set_alpha_to_one"], false);
        assert_eq!(schedule["clip_sample"], false);
        assert!(schedule.get("rescale_betas_zero_snr").is_none());
    }
    let sdxl = file("sdxl", &ModelOptions::default()).scheduler().unwrap();
    assert_eq!(sdxl["timestep_spacing"], "leading");
}

#[test]
fn markers_in_a_file_of_sdxl_set_its_schedule_and_options_override_them() {
    let mut tensors = TensorFile::open(&golden("sdxl.safetensors")).unwrap().read_all().unwrap();
    for marker in ["v_pred", "ztsnr"] {
        tensors.insert(marker.to_owned(), HostTensor::from_f32([0], Vec::new()));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("marked.safetensors");
    write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let schedule = ModelFiles::open(&path, &ModelOptions::default()).unwrap().scheduler().unwrap();
    assert_eq!(schedule["prediction_type"], "v_prediction");
    assert_eq!(schedule["rescale_betas_zero_snr"], true);
    assert_eq!(schedule["timestep_spacing"], "trailing");
    let options = ModelOptions { zero_terminal_snr: Some(false), ..predicting(Predicts::Epsilon) };
    let schedule = ModelFiles::open(&path, &options).unwrap().scheduler().unwrap();
    assert_eq!(schedule["prediction_type"], "epsilon");
    assert_eq!(schedule["rescale_betas_zero_snr"], false);
    assert_eq!(schedule["timestep_spacing"], "leading");
}

#[test]
fn options_override_the_schedule_of_a_folder() {
    let dir = folder();
    let plain = open(&dir, &ModelOptions::default()).unwrap().scheduler().unwrap();
    assert_eq!(plain, json!({"_class_name": "PNDMScheduler", "prediction_type": "epsilon"}));
    let options = ModelOptions { zero_terminal_snr: Some(true), ..predicting(Predicts::V) };
    let expected = json!({
        "_class_name": "DDIMScheduler", "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": true,
    });
    let files = open(&dir, &options).unwrap();
    assert_eq!(files.scheduler().unwrap(), expected);
    let to = tempfile::tempdir().unwrap();
    files.copy_component("scheduler", to.path()).unwrap();
    let written: Value = crate::fs::read_json(&to.path().join("scheduler_config.json")).unwrap();
    assert_eq!(written, expected);
    crate::fs::atomic_write(&dir.path().join(scheduler::FILE), b"[]").unwrap();
    assert!(told(files.scheduler()).contains("expected an object"));
}

#[test]
fn the_identity_of_a_folder_is_as_it_was_and_every_option_moves_it() {
    let dir = folder();
    let own = ModelFolder::open(dir.path()).unwrap();
    let plain = open(&dir, &ModelOptions::default()).unwrap();
    assert_eq!(plain.hashes().unwrap(), own.hashes().unwrap());
    assert_eq!(plain.sha256().unwrap(), own.sha256().unwrap());
    assert_eq!(ModelFiles::from(own.clone()).sha256().unwrap(), own.sha256().unwrap());
    let named = ModelOptions { name: Some("x".to_owned()), ..ModelOptions::default() };
    assert_eq!(open(&dir, &named).unwrap().sha256().unwrap(), own.sha256().unwrap());
    assert_eq!(open(&dir, &named).unwrap().name(), "x");
    let half = dir.path().join("unet/diffusion_pytorch_model.fp16.safetensors");
    let tensors = TensorMap::from([("conv_in.weight".to_owned(), HostTensor::scalar(2.0))]);
    write_tensors(&half, &tensors, &BTreeMap::new()).unwrap();
    let vae = vae_file(&dir, 1.0);
    let mut seen = vec![plain.sha256().unwrap()];
    for options in [
        with_variant("fp16"),
        with_vae(vae),
        with_vae(vae_file(&dir, 2.0)),
        predicting(Predicts::Epsilon),
        predicting(Predicts::V),
        ModelOptions { zero_terminal_snr: Some(true), ..ModelOptions::default() },
        ModelOptions { zero_terminal_snr: Some(false), ..ModelOptions::default() },
    ] {
        let found = open(&dir, &options).unwrap().sha256().unwrap();
        assert!(!seen.contains(&found), "{options:?}");
        seen.push(found);
    }
}

#[test]
fn the_identity_of_a_single_file_is_its_bytes_and_not_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.safetensors");
    let bytes = crate::fs::read(&golden("sd1.safetensors")).unwrap();
    crate::fs::atomic_write(&path, &bytes).unwrap();
    let plain = file("sd1", &ModelOptions::default());
    let other = ModelFiles::open(&path, &ModelOptions::default()).unwrap();
    assert_eq!(other.sha256().unwrap(), plain.sha256().unwrap());
    assert_eq!(plain.hashes().unwrap()["single_file"], hash::bytes_sha256(&bytes));
    let average = ModelOptions { which: WhichWeights::Average, ..ModelOptions::default() };
    assert_ne!(file("sd1", &average).sha256().unwrap(), plain.sha256().unwrap());
}

#[test]
fn a_single_file_written_as_a_folder_is_the_same_base() {
    for (family, options) in [
        ("sd1", ModelOptions::default()),
        ("sd2", predicting(Predicts::V)),
        ("sdxl", ModelOptions::default()),
    ] {
        let files = file(family, &options);
        let dir = tempfile::tempdir().unwrap();
        for name in files.components() {
            files.copy_component(&name, &dir.path().join(&name)).unwrap();
        }
        crate::fs::atomic_write_json(&dir.path().join(INDEX), &files.index()).unwrap();
        let written = ModelFiles::open(dir.path(), &ModelOptions::default()).unwrap();
        assert_eq!(written.family(), files.family());
        assert_eq!(written.components(), files.components());
        assert_eq!(written.scheduler().unwrap(), files.scheduler().unwrap());
        for name in files.components() {
            if name == "scheduler" || name.starts_with("tokenizer") {
                continue;
            }
            let (found, expected) =
                (written.component(&name).unwrap(), files.component(&name).unwrap());
            assert_eq!(found.config, expected.config, "{family} {name}");
            assert!(
                found.weights.read_all().unwrap() == expected.weights.read_all().unwrap(),
                "{family} {name}"
            );
        }
        let TokenizerFiles::Folder(tokenizer) = written.tokenizer("tokenizer").unwrap() else {
            panic!("a folder has its tokenizer in one");
        };
        let vocabulary: BTreeMap<String, u32> =
            crate::fs::read_json(&tokenizer.join("vocab.json")).unwrap();
        assert_eq!((vocabulary.len(), vocabulary["cat</w>"]), (49_408, 2368));
        let merges = crate::fs::read(&tokenizer.join("merges.txt")).unwrap();
        assert_eq!(merges, clip_vocabulary::merges().as_bytes());
        let settings: Value =
            crate::fs::read_json(&tokenizer.join("tokenizer_config.json")).unwrap();
        assert_eq!(settings["pad_token"], if family == "sd2" { "!" } else { "<|endoftext|>" });
    }
}

#[test]
fn a_component_of_a_folder_is_copied_byte_for_byte_less_weights_that_were_not_chosen() {
    let dir = folder();
    let unet = dir.path().join("unet");
    let half = "diffusion_pytorch_model.fp16.safetensors";
    let tensors = TensorMap::from([("conv_in.weight".to_owned(), HostTensor::scalar(2.0))]);
    write_tensors(&unet.join(half), &tensors, &BTreeMap::new()).unwrap();
    crate::fs::atomic_write(&unet.join("diffusion_pytorch_model.bin"), b"PK").unwrap();
    crate::fs::atomic_write(&unet.join("NOTES"), b"kept").unwrap();
    let plain = "diffusion_pytorch_model.safetensors";
    for (options, chosen) in [(ModelOptions::default(), plain), (with_variant("fp16"), half)] {
        let to = tempfile::tempdir().unwrap();
        open(&dir, &options).unwrap().copy_component("unet", to.path()).unwrap();
        let names = |dir: &Path| {
            let paths = crate::fs::list(dir).unwrap();
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            paths.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(to.path()), ["NOTES", "config.json", plain]);
        for name in names(to.path()) {
            let source = if name == plain { chosen } else { &name };
            let bytes = |path: &Path| crate::fs::read(path).unwrap();
            assert_eq!(bytes(&to.path().join(&name)), bytes(&unet.join(source)));
        }
    }
}

#[test]
fn a_variant_is_taken_where_it_is_and_refused_where_no_component_has_it() {
    let dir = folder();
    let half = dir.path().join("unet/diffusion_pytorch_model.fp16.safetensors");
    let message = told(open(&dir, &with_variant("fp16")));
    assert!(
        message.contains(
            "expected weights of the variant `fp16`, \
             found unet/ with `diffusion_pytorch_model.safetensors`; vae/ with"
        ),
        "{message}"
    );
    let tensors = TensorMap::from([("half".to_owned(), HostTensor::scalar(2.0))]);
    write_tensors(&half, &tensors, &BTreeMap::new()).unwrap();
    let names = |options: &ModelOptions, component: &str| {
        let weights = open(&dir, options).unwrap().component(component).unwrap().weights;
        weights.names().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&with_variant("fp16"), "unet"), ["half"]);
    assert_eq!(names(&with_variant("fp16"), "vae"), ["conv_in.weight"]);
    assert_eq!(names(&ModelOptions::default(), "unet"), ["conv_in.weight"]);
    let message = told(ModelFiles::open(&golden("sd1.safetensors"), &with_variant("fp16")));
    assert!(message.contains("found a single file"), "{message}");
}

#[test]
fn options_that_the_files_cannot_meet_are_refused() {
    let dir = folder();
    let average = ModelOptions { which: WhichWeights::Average, ..ModelOptions::default() };
    assert!(told(open(&dir, &average)).contains("found a folder"));
    assert!(told(open(&dir, &with_vae(dir.path().join("nowhere")))).contains("nowhere"));
    let other = json!({"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]});
    crate::fs::atomic_write_json(&dir.path().join(INDEX), &other).unwrap();
    let message = told(open(&dir, &ModelOptions::default()));
    assert!(message.contains("component `unet`, found FluxPipeline with vae"), "{message}");
    let pickle = dir.path().join("model.ckpt");
    crate::fs::atomic_write(&pickle, b"PK\x03\x04").unwrap();
    let error = ModelFiles::open(&pickle, &ModelOptions::default()).unwrap_err();
    assert!(matches!(error, CheckpointError::Weights { problem: WeightsProblem::Pickle, .. }));
    let nowhere = told(ModelFiles::open(Path::new("no-base"), &ModelOptions::default()));
    assert!(nowhere.contains("`no-base` is not a model folder"), "{nowhere}");
}

#[test]
fn the_index_of_a_written_folder_does_not_name_what_was_not_copied() {
    let dir = folder();
    let index = open(&dir, &ModelOptions::default()).unwrap().index();
    assert_eq!(index["safety_checker"], json!([null, null]));
    assert_eq!(index["requires_safety_checker"], false);
    assert_eq!(index["unet"], json!(["diffusers", "UNet2DConditionModel"]));
}

/// A VAE of its own in the names of ldm, all of whose values are multiplied by a factor.
fn vae_file(dir: &tempfile::TempDir, factor: f32) -> PathBuf {
    let file = TensorFile::open(&golden("sd1.safetensors")).unwrap();
    let mut tensors = TensorMap::new();
    for name in file.names().filter(|name| name.starts_with("first_stage_model.")) {
        let tensor = file.read(name).unwrap();
        let values = tensor.f32().iter().map(|value| value * factor).collect();
        tensors.insert(name.to_owned(), HostTensor::from_f32(tensor.shape.clone(), values));
    }
    let path = dir.path().join(format!("own-{factor}.safetensors"));
    write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
    path
}

#[test]
fn a_vae_of_its_own_takes_the_place_of_the_bases() {
    let dir = folder();
    let path = vae_file(&dir, 1.0);
    let factor =
        |files: &ModelFiles| files.component("vae").unwrap().config["scaling_factor"].clone();
    // In the scale in which the network of the base was trained.
    let files = open(&dir, &with_vae(path.clone())).unwrap();
    assert_eq!(files.component("vae").unwrap().weights.len(), 248);
    assert_eq!(factor(&files), 0.31);
    assert_eq!(files.component("unet").unwrap().weights.len(), 1);
    let to = tempfile::tempdir().unwrap();
    files.copy_component("vae", to.path()).unwrap();
    let copied = ComponentFiles::open(to.path()).unwrap();
    assert_eq!((copied.weights.len(), &copied.config["scaling_factor"]), (248, &json!(0.31)));
    // Of a family, where the base is a single file.
    assert_eq!(factor(&file("sdxl", &with_vae(path.clone()))), 0.13025);
    // Another program's configuration beside it means nothing, its own does.
    let beside = dir.path().join("config.json");
    crate::fs::atomic_write_json(&beside, &json!({"scaling_factor": 9.0})).unwrap();
    assert_eq!(factor(&open(&dir, &with_vae(path.clone())).unwrap()), 0.31);
    let own = json!({"_class_name": "AutoencoderKL", "scaling_factor": 0.7});
    crate::fs::atomic_write_json(&beside, &own).unwrap();
    assert_eq!(factor(&open(&dir, &with_vae(path)).unwrap()), 0.7);
    // A folder of one, and the folder of a whole base.
    let other = folder();
    for vae in [other.path().join("vae"), other.path().to_owned()] {
        let files = file("sd1", &with_vae(vae));
        assert_eq!(files.component("vae").unwrap().weights.len(), 1);
    }
}
