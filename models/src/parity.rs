//! The networks against diffusers, transformers and PEFT: the golden cases of `scripts/golden`.
//!
//! Tolerance in f32: max |Δ| ≤ 2·10⁻⁴ · max |reference| for outputs, five times that for gradients.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Gradients, Tensor};
use checkpoints::{HostTensor, TensorFile, TensorMap, Weights};

use crate::adapter::{self, Adapter, AdapterForm, Factors};
use crate::base::{host_values, tensor_from_host, timesteps};
use crate::clip::{
    CLIPTextModel, CLIPVisionModelWithProjection, ClipTextConfig, ClipVisionConfig, TextProjection,
};
use crate::evaluator::{ClipModel, unit_rows};
use crate::source::Builder;
use crate::tokenizer::{ClipTokenizer, OverLength};
use crate::unet::{AddedConditions, UNet2DConditionModel, UNetConfig};
use crate::vae::{AutoencoderKL, VaeConfig};
use crate::visit::{Network, Slot, Visitor};

const OUTPUT: f64 = 2e-4;
const GRADIENT: f64 = 5.0 * OUTPUT;

pub(crate) fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/golden").join(case)
}

/// The tensors of one case.
pub(crate) struct Case(TensorFile);

impl Case {
    pub(crate) fn open(case: &str, file: &str) -> Self {
        Self(TensorFile::open(&folder(case).join(file)).unwrap())
    }

    fn host(&self, name: &str) -> HostTensor {
        self.0.read(name).unwrap()
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let host = self.host(name);
        let shape: [usize; D] = host.shape.clone().try_into().unwrap();
        tensor_from_host(host.f32().into_owned(), shape, &Device::flex())
    }

    pub(crate) fn scalar(&self, name: &str) -> f64 {
        f64::from(self.host(name).f32()[0])
    }

    fn ids(&self) -> Vec<Vec<u32>> {
        let host = self.host("input_ids");
        let id = |&id: &f32| id as u32;
        host.f32().chunks(host.shape[1]).map(|row| row.iter().map(id).collect()).collect()
    }

    pub(crate) fn check<const D: usize>(&self, name: &str, found: Tensor<D>) {
        let reference = self.host(name);
        assert_eq!(found.dims().to_vec(), reference.shape, "{name}");
        check(name, &host_values(found).unwrap(), &reference.f32(), OUTPUT, 0.0);
    }

    fn check_scalar(&self, name: &str, found: Tensor<1>) {
        check(name, &host_values(found).unwrap(), &self.host(name).f32(), OUTPUT, 0.0);
    }
}

fn check(name: &str, found: &[f32], reference: &[f32], tolerance: f64, floor: f64) {
    assert_eq!(found.len(), reference.len(), "{name}");
    let largest = reference.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let pairs = found.iter().zip(reference);
    let worst = pairs.fold(0.0f32, |worst, (found, value)| {
        // A difference that is not a number must not pass.
        if (found - value).is_nan() { f32::INFINITY } else { worst.max((found - value).abs()) }
    });
    let allowed = tolerance * f64::from(largest) + floor;
    assert!(f64::from(worst) <= allowed, "{name}: differs by {worst:e}, largest value {largest:e}");
}

fn config(case: &str) -> serde_json::Value {
    checkpoints::fs::read_json(&folder(case).join("config.json")).unwrap()
}

fn weights(case: &str) -> Weights {
    Weights::open(&folder(case).join("weights.safetensors")).unwrap()
}

pub(crate) fn unet(case: &str) -> UNet2DConditionModel {
    let weights = weights(case);
    let builder = Builder::from_source(&weights, &Device::flex());
    let unet =
        UNet2DConditionModel::new(&builder, &UNetConfig::from_json(case, &config(case)).unwrap());
    builder.finish(|_| false).unwrap();
    unet
}

fn unet_output(unet: &UNet2DConditionModel, case: &Case) -> Tensor<4> {
    unet_output_of(unet, case, "sample")
}

fn unet_output_of(unet: &UNet2DConditionModel, case: &Case, sample: &str) -> Tensor<4> {
    let levels: Vec<f64> = case.host("timesteps").f32().iter().map(|&t| f64::from(t)).collect();
    let added = case.0.info("text_embeds").map(|_| AddedConditions {
        pooled_text: case.tensor("text_embeds"),
        time_ids: case.tensor("time_ids"),
    });
    let context = case.tensor("encoder_hidden_states");
    let levels = timesteps(&levels, &Device::flex());
    unet.forward(case.tensor(sample), levels, &context, added.as_ref()).unwrap()
}

fn check_unet(name: &str) {
    let case = Case::open(name, "case.safetensors");
    case.check("output", unet_output(&unet(name), &case));
}

#[test]
fn unet_sd1() {
    check_unet("unet_sd1");
}

#[test]
fn unet_sd1_shallow() {
    check_unet("unet_sd1_shallow");
}

#[test]
fn unet_sd1_odd() {
    let case = Case::open("unet_sd1_odd", "case.safetensors");
    let mut unet = unet("unet_sd1");
    case.check("low.output", unet_output_of(&unet, &case, "low.sample"));
    track(&mut unet);
    let output = unet_output(&unet, &case);
    case.check("output", output.clone().inner());
    let loss = mse(output, case.tensor("target"));
    case.check_scalar("loss", loss.clone().inner());
    let found = gradients_of(&mut unet, &mut loss.backward());
    for path in ["conv_in", "up_blocks.0.upsamplers.0.conv", "up_blocks.1.upsamplers.0.conv"] {
        let path = format!("{path}.weight");
        let reference = case.host(&format!("gradient.{path}"));
        check(&path, &found[&path], &reference.f32(), GRADIENT, 0.0);
    }
}

#[test]
fn unet_sd2() {
    check_unet("unet_sd2");
}

#[test]
fn unet_sdxl() {
    check_unet("unet_sdxl");
}

/// Shows every parameter to a closure.
struct Show<F>(F);

impl<F: FnMut(&str, &mut dyn Slot)> Visitor for Show<F> {
    fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
        (self.0)(path, slot);
    }
}

/// Makes every parameter a leaf of the autodiff graph.
fn track(network: &mut dyn Network) {
    network.visit("", &mut Show(|_: &str, slot: &mut dyn Slot| slot.set_leaf(slot.flat())));
}

fn taken(slot: &mut dyn Slot, gradients: &mut Gradients) -> Vec<f32> {
    let n_values = slot.shape().iter().product();
    slot.take_gradient(gradients)
        .map_or_else(|| vec![0.0; n_values], |gradient| host_values(gradient).unwrap())
}

/// Gradients of a network under the names of its file.
fn gradients_of(
    network: &mut dyn Network,
    gradients: &mut Gradients,
) -> BTreeMap<String, Vec<f32>> {
    let mut found = BTreeMap::new();
    network.visit(
        "",
        &mut Show(|path: &str, slot: &mut dyn Slot| {
            found.insert(path.to_owned(), taken(slot, gradients));
        }),
    );
    found
}

/// Compares all gradients; `name` turns a name of the reference into ours. Rounding of gradients
/// that are zero in exact arithmetic (the bias of keys) is judged by the largest of all.
fn check_gradients(
    found: &BTreeMap<String, Vec<f32>>,
    reference: &TensorMap,
    name: impl Fn(&str) -> String,
) {
    let largest =
        |tensor: &HostTensor| tensor.f32().iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let floor = 1e-6 * f64::from(reference.values().map(largest).fold(0.0, f32::max));
    assert_eq!(found.len(), reference.len());
    for (path, reference) in reference {
        let found = found.get(&name(path)).unwrap_or_else(|| panic!("no gradient of {path}"));
        check(path, found, &reference.f32(), GRADIENT, floor);
    }
}

fn mse<const D: usize>(output: Tensor<D>, target: Tensor<D>) -> Tensor<1> {
    (output - target).powi_scalar(2).mean()
}

#[test]
fn full_grad() {
    let case = Case::open("full_grad", "case.safetensors");
    let mut unet = unet("unet_sd1");
    track(&mut unet);
    let output = unet_output(&unet, &case);
    let loss = mse(output.clone(), case.tensor("target"));
    case.check("output", output.inner());
    case.check_scalar("loss", loss.clone().inner());
    let found = gradients_of(&mut unet, &mut loss.backward());
    let reference = Case::open("full_grad", "gradients.safetensors").0.read_all().unwrap();
    check_gradients(&found, &reference, str::to_owned);
}

/// The network of the case `vae`.
pub(crate) fn autoencoder() -> AutoencoderKL {
    let weights = weights("vae");
    let builder = Builder::from_source(&weights, &Device::flex());
    let vae = AutoencoderKL::new(&builder, &VaeConfig::from_json("vae", &config("vae")).unwrap());
    builder.finish(|_| false).unwrap();
    vae
}

#[test]
fn vae() {
    let case = Case::open("vae", "case.safetensors");
    let mut vae = autoencoder();
    let posterior = vae.posterior_from_pixels(case.tensor("pixels")).unwrap();
    case.check("mean", posterior.mean);
    case.check("logvar", posterior.log_variance);
    case.check("decoded", vae.pixels_from_unscaled(case.tensor("latents")));

    track(&mut vae);
    let pixels: Tensor<4> = case.tensor("pixels");
    let posterior = vae.posterior_from_pixels(pixels.clone()).unwrap();
    let reconstruction = vae.pixels_from_unscaled(posterior.sample(case.tensor("noise")));
    case.check("reconstruction", reconstruction.clone().inner());
    let (mean, log_variance) = (posterior.mean, posterior.log_variance);
    let kl = (mean.powi_scalar(2) + log_variance.clone().exp() - log_variance)
        .sub_scalar(1.0)
        .mul_scalar(0.5)
        .mean();
    case.check_scalar("kl", kl.clone().inner());
    let loss = mse(reconstruction, pixels) + kl.mul_scalar(case.scalar("kl_weight"));
    case.check_scalar("loss", loss.clone().inner());
    let found = gradients_of(&mut vae, &mut loss.backward());
    let reference = Case::open("vae", "gradients.safetensors").0.read_all().unwrap();
    check_gradients(&found, &reference, str::to_owned);
}

pub(crate) fn text_model(case: &str, projection: TextProjection) -> CLIPTextModel {
    let weights = weights(case);
    let builder = Builder::from_source(&weights, &Device::flex());
    let model = CLIPTextModel::new(
        &builder,
        &ClipTextConfig::from_json(case, &config(case)).unwrap(),
        projection,
    );
    builder.finish(|name| name.ends_with("position_ids")).unwrap();
    model
}

#[test]
fn clip_text() {
    let case = Case::open("clip_text", "case.safetensors");
    let mut model = text_model("clip_text", TextProjection::Without);
    let output = model.forward(&case.ids());
    // Implementations differ in whether a list of hidden states ends before or after the final norm.
    for (index, state) in output.hidden.iter().enumerate() {
        case.check(&format!("hidden.{index}"), state.clone());
    }
    case.check("last_hidden_state", output.last);
    case.check("pooler_output", output.pooled);
    track(&mut model);
    let loss = mse(model.forward(&case.ids()).last, case.tensor("target"));
    case.check_scalar("loss", loss.clone().inner());
    let found = gradients_of(&mut model, &mut loss.backward());
    let reference = Case::open("clip_text", "gradients.safetensors").0.read_all().unwrap();
    check_gradients(&found, &reference, |name| format!("text_model.{name}"));
}

#[test]
fn clip_text_projection() {
    let case = Case::open("clip_text_projection", "case.safetensors");
    let output = text_model("clip_text_projection", TextProjection::With).forward(&case.ids());
    case.check("last_hidden_state", output.last);
    case.check("pooler_output", output.pooled);
    case.check("text_embeds", output.projected.unwrap());
}

#[test]
fn clip_vision() {
    let case = Case::open("clip_vision", "case.safetensors");
    let weights = weights("clip_vision");
    let builder = Builder::from_source(&weights, &Device::flex());
    let settings = ClipVisionConfig::from_json("clip_vision", &config("clip_vision")).unwrap();
    let model = CLIPVisionModelWithProjection::new(&builder, &settings);
    builder.finish(|name| name.ends_with("position_ids")).unwrap();
    case.check("image_embeds", model.forward(case.tensor("pixel_values")));
}

#[test]
fn clip_joint() {
    let case = Case::open("clip_joint", "case.safetensors");
    let weights = weights("clip_joint");
    let builder = Builder::from_source(&weights, &Device::flex());
    let mut model = ClipModel::new(&builder, "clip_joint", &config("clip_joint")).unwrap();
    builder.finish(|name| name.ends_with("position_ids")).unwrap();
    track(&mut model);
    let text = unit_rows(model.text.forward(&case.ids()).projected.unwrap());
    let image = unit_rows(model.vision.forward(case.tensor("pixel_values")));
    case.check("text_embeds", text.clone().inner());
    case.check("image_embeds", image.clone().inner());
    let scale: Tensor<2> = model.logit_scale.clone().exp().unsqueeze();
    let logits = image.matmul(text.transpose()) * scale;
    case.check("logits_per_image", logits.clone().inner());
    let own = |logits: Tensor<2>| {
        let n_rows = logits.dims()[0];
        let likelihoods = burn::tensor::activation::log_softmax(logits, 1);
        let diagonal = Tensor::<2>::eye(n_rows, &Device::flex());
        (likelihoods * diagonal).sum().div_scalar(-(n_rows as f64))
    };
    let loss = (own(logits.clone()) + own(logits.transpose())).mul_scalar(0.5);
    case.check_scalar("loss", loss.clone().inner());
    let found = gradients_of(&mut model, &mut loss.backward());
    let reference = Case::open("clip_joint", "gradients.safetensors").0.read_all().unwrap();
    check_gradients(&found, &reference, str::to_owned);
}

#[test]
fn tokenizer() {
    let captions: Vec<String> =
        checkpoints::fs::read_json(&folder("tokenizer").join("captions.json")).unwrap();
    assert!(captions.len() > 200);
    let case = Case::open("tokenizer", "case.safetensors");
    for form in ["pad_end", "pad_end_json", "pad_exclamation", "pad_exclamation_json"] {
        let tokenizer = ClipTokenizer::load(&folder("tokenizer").join(form)).unwrap();
        let reference = case.host(&format!("ids.{}", form.trim_end_matches("_json")));
        let values = reference.f32();
        for (caption, reference) in captions.iter().zip(values.chunks(reference.shape[1])) {
            let found = tokenizer.encode(caption, OverLength::Truncate).unwrap();
            let reference: Vec<u32> = reference.iter().map(|&id| id as u32).collect();
            assert_eq!(found, reference, "{form}: {caption:?}");
        }
    }
}

/// Gradients of the factors of a network, under the keys of diffusers.
fn factor_gradients(
    network: &mut dyn Network,
    root: &str,
    gradients: &mut Gradients,
) -> BTreeMap<String, Vec<f32>> {
    let mut found = BTreeMap::new();
    adapter::visit_factors(network, root, &mut |path, slot| {
        let path =
            path.replace(".lora_down", ".lora_A.weight").replace(".lora_up", ".lora_B.weight");
        found.insert(path, taken(slot, gradients));
    });
    found
}

#[test]
fn lora_sd1() {
    let case = Case::open("lora_sd1", "case.safetensors");
    let mut unet = unet("unet_sd1");
    let layers = adapter::layers(&mut unet, "unet");
    let map = adapter::key_map(&layers, unet.config()).unwrap();
    case.check("output_base", unet_output(&unet, &case));
    let forms = [
        ("kohya", AdapterForm::Kohya),
        ("pytorch_lora_weights", AdapterForm::Diffusers),
        ("save_lora_adapter", AdapterForm::Diffusers),
        ("adapter_model", AdapterForm::Peft),
    ];
    for (file, form) in forms {
        let path = folder("lora_sd1").join(format!("{file}.safetensors"));
        let read = adapter::adapter_from_file(&path, &layers, &map).unwrap();
        assert_eq!((read.form, read.adapter.modules.len()), (form, 197), "{file}");
        adapter::attach(&mut unet, "unet", &read.adapter, case.scalar("dose")).unwrap();
        case.check("output_dosed", unet_output(&unet, &case));
        adapter::set_dose(&mut unet, 1.0);
        case.check("output", unet_output(&unet, &case));
        adapter::visit_factors(&mut unet, "unet", &mut |_, slot| slot.set_leaf(slot.flat()));
        let loss = mse(unet_output(&unet, &case), case.tensor("target"));
        case.check_scalar("loss", loss.clone().inner());
        let found = factor_gradients(&mut unet, "unet", &mut loss.backward());
        let reference = Case::open("lora_sd1", "gradients.safetensors").0.read_all().unwrap();
        check_gradients(&found, &reference, str::to_owned);
        adapter::detach(&mut unet);
    }
}

#[test]
fn lora_text() {
    let case = Case::open("lora_text", "case.safetensors");
    let mut model = text_model("clip_text", TextProjection::Without);
    let layers = adapter::layers(&mut model, "text_encoder");
    let sd1 = UNetConfig::from_json("unet_sd1", &config("unet_sd1")).unwrap();
    let map = adapter::key_map(&layers, &sd1).unwrap();
    let path = folder("lora_text").join("kohya.safetensors");
    let read = adapter::adapter_from_file(&path, &layers, &map).unwrap();
    adapter::attach(&mut model, "text_encoder", &read.adapter, 1.0).unwrap();
    adapter::visit_factors(&mut model, "text_encoder", &mut |_, slot| slot.set_leaf(slot.flat()));
    let output = model.forward(&case.ids()).last;
    case.check("last_hidden_state", output.clone().inner());
    let loss = mse(output, case.tensor("target"));
    case.check_scalar("loss", loss.clone().inner());
    let found = factor_gradients(&mut model, "text_encoder", &mut loss.backward());
    let reference = Case::open("lora_text", "gradients.safetensors").0.read_all().unwrap();
    check_gradients(&found, &reference, str::to_owned);
}

#[test]
fn a_zero_adapter_changes_no_bit() {
    let case = Case::open("lora_sd1", "case.safetensors");
    let mut unet = unet("unet_sd1");
    let bits = |unet: &UNet2DConditionModel| -> Vec<u32> {
        host_values(unet_output(unet, &case)).unwrap().iter().map(|value| value.to_bits()).collect()
    };
    let before = bits(&unet);
    let layers = adapter::layers(&mut unet, "unet");
    let factors = |layer: &adapter::Layer| {
        let (mut down, mut up) = (layer.weight.clone(), vec![1; layer.weight.len()]);
        (down[0], up[0], up[1]) = (2, layer.weight[0], 2);
        let values = |shape: &[usize], value: f32| vec![value; shape.iter().product()];
        Factors {
            down: HostTensor::from_f32(down.clone(), values(&down, 0.3)),
            up: HostTensor::from_f32(up.clone(), values(&up, 0.0)),
            alpha: 2.0,
        }
    };
    let modules = layers.iter().map(|layer| (layer.path.clone(), factors(layer))).collect();
    adapter::attach(&mut unet, "unet", &Adapter { modules }, 1.0).unwrap();
    assert_eq!(bits(&unet), before);
}
