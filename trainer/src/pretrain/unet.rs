//! UNet and text encoder from scratch, together.

use std::cell::RefCell;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use checkpoints::folder::{ComponentFiles, Library, write_component};
use checkpoints::{CheckpointError, Watch};
use diffusion::{NoiseSchedule, Prediction, SchedulerConfig, Weighting};
use models::base::{tensor_from_host, timesteps};
use models::clip::{CLIPTextModel, ClipTextConfig, TextProjection};
use models::tokenizer::OverLength;
use models::unet::{UNet2DConditionModel, UNetConfig};
use models::{Builder, ClipTokenizer, Network};
use rayon::prelude::*;
use recipes::draws::{self, Purpose};
use recipes::{PretrainRecipe, PretrainSpec};
use serde_json::{Value, json};

use super::PretrainError;
use super::pictures::{CaptionShares, Pictures};
use super::run::{Pretrained, Progress, Show, Trained, half_precision};
use super::vocabulary;

/// Everything a step reads and nothing it changes.
struct Given<'a> {
    recipe: &'a PretrainRecipe,
    pictures: Pictures,
    /// Posterior means, then log-variances, per picture.
    moments: Vec<Vec<f32>>,
    latent_shape: [usize; 3],
    scaling_factor: f64,
    schedule: NoiseSchedule,
    prediction: Prediction,
    weighting: Weighting,
    shares: CaptionShares,
    tokenizer: ClipTokenizer,
    device: &'a Device,
}

/// The two networks that are trained.
struct Pair {
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
}

impl Network for Pair {
    fn visit(&mut self, _path: &str, visitor: &mut dyn models::Visitor) {
        self.text_encoder.visit("text_encoder", visitor);
        self.unet.visit("unet", visitor);
    }
}

/// The configurations, as they are written beside the weights.
struct Configs {
    unet: Value,
    text_encoder: Value,
    scheduler: Value,
}

pub(super) fn train(
    recipe: &PretrainRecipe,
    run_dir: &Path,
    device: &Device,
    watch: &mut Watch<'_, Progress>,
) -> Result<Pretrained, PretrainError> {
    let configs = configs(recipe, &recipe.into.join("tokenizer"))?;
    let given = given(recipe, &configs, device)?;
    let builder = Builder::initial(recipe.seed, device);
    let text_config = ClipTextConfig::from_json("text_encoder/config.json", &configs.text_encoder)?;
    let unet_config = UNetConfig::from_json("unet/config.json", &configs.unet)?;
    let pair = RefCell::new(Pair {
        text_encoder: CLIPTextModel::new(
            &builder.at("text_encoder"),
            &text_config,
            TextProjection::Without,
        ),
        unet: UNet2DConditionModel::new(&builder.at("unet"), &unet_config),
    });
    let mut visit = |show: &mut dyn FnMut(&str, &mut dyn models::Slot)| {
        pair.borrow_mut().visit("", &mut Show(show));
    };
    let mut trained = Trained::begin(recipe, &mut visit, run_dir, device)?;
    let mut objective = |step: u64| given.loss(&pair.borrow(), step);
    let done = trained.fit(recipe, &mut visit, &mut objective, watch)?;
    if !done {
        return Ok(Pretrained::Interrupted(trained.step()));
    }
    trained.finish(&mut visit);
    write(recipe, &configs, pair.into_inner())
}

fn configs(recipe: &PretrainRecipe, tokenizer: &Path) -> Result<Configs, PretrainError> {
    let PretrainSpec::Unet { unet, text_encoder, scheduler, .. } = &recipe.network else {
        return Err(super::wrong_network("unet"));
    };
    let read = |path: &Path| checkpoints::fs::read_json::<Value>(path);
    let mut text_encoder = read(text_encoder)?;
    vocabulary::write(tokenizer, &mut text_encoder)?;
    Ok(Configs { unet: read(unet)?, text_encoder, scheduler: read(scheduler)? })
}

fn given<'a>(
    recipe: &'a PretrainRecipe,
    configs: &Configs,
    device: &'a Device,
) -> Result<Given<'a>, PretrainError> {
    let PretrainSpec::Unet {
        scheduler, vae, caption_dropout, caption_shorten, min_snr_gamma, ..
    } = &recipe.network
    else {
        return Err(super::wrong_network("unet"));
    };
    let schedule_error =
        |source| PretrainError::Schedule { path: scheduler.display().to_string(), source };
    let config: SchedulerConfig = serde_json::from_value(configs.scheduler.clone())
        .map_err(|source| CheckpointError::Json { path: scheduler.clone(), source })?;
    config.check().map_err(schedule_error)?;
    let vae = models::base::load_vae(&ComponentFiles::open(vae)?, device)?;
    let pictures = Pictures::draw(&recipe.dataset, recipe.seed, 0);
    let side = pictures.side_px / vae.config().factor();
    let moments = super::vae::moments(&vae, &pictures, pictures.scenes.len())?;
    Ok(Given {
        recipe,
        moments,
        pictures,
        latent_shape: [vae.config().latent_channels, side, side],
        scaling_factor: vae.config().scaling_factor,
        schedule: NoiseSchedule::new(&config).map_err(schedule_error)?,
        prediction: config.prediction_type,
        weighting: Weighting::MinSnr { gamma: *min_snr_gamma },
        shares: CaptionShares { dropped: *caption_dropout, shortened: *caption_shorten },
        tokenizer: ClipTokenizer::load(&recipe.into.join("tokenizer"))?,
        device,
    })
}

/// The random parts of one sample.
struct Sample {
    clean: Vec<f32>,
    noise: Vec<f32>,
    timestep: usize,
    token_ids: Vec<u32>,
}

impl Given<'_> {
    fn sample(&self, step: u64, sample: u64, picture: usize) -> Result<Sample, PretrainError> {
        let seed = self.recipe.seed;
        let stream = |purpose| draws::stream(seed, step, sample, purpose);
        let n_values = self.latent_shape.iter().product();
        let (mean, log_variance) = self.moments[picture].split_at(n_values);
        let posterior = draws::normals(&mut stream(Purpose::Posterior), n_values);
        let scale = self.scaling_factor as f32;
        let latent = |((mean, log_variance), noise): ((&f32, &f32), &f32)| {
            (mean + (0.5 * log_variance).exp() * noise) * scale
        };
        let caption = self
            .pictures
            .captioner(seed, step, sample, self.shares)
            .of(&self.pictures.scenes[picture]);
        Ok(Sample {
            clean: mean.iter().zip(log_variance).zip(&posterior).map(latent).collect(),
            noise: draws::normals(&mut stream(Purpose::Noise), n_values),
            timestep: draws::below(&mut stream(Purpose::Timestep), self.schedule.len() as u64)
                as usize,
            token_ids: self.tokenizer.encode(&caption, OverLength::Error)?,
        })
    }

    /// Weighted mean squared error of the prediction.
    fn loss(&self, pair: &Pair, step: u64) -> Result<Tensor<1>, PretrainError> {
        let n_samples = self.recipe.fit.batch.images as usize;
        let chosen = self.pictures.batch(self.recipe.seed, step, n_samples);
        let samples: Vec<Sample> = chosen
            .par_iter()
            .enumerate()
            .map(|(sample, &picture)| self.sample(step, sample as u64, picture))
            .collect::<Result<_, _>>()?;
        let [channels, height, width] = self.latent_shape;
        let upload = |values: Vec<f32>| {
            tensor_from_host(values, [n_samples, channels, height, width], self.device)
        };
        let clean = upload(samples.iter().flat_map(|sample| sample.clean.clone()).collect());
        let noise = upload(samples.iter().flat_map(|sample| sample.noise.clone()).collect());
        let levels: Vec<usize> = samples.iter().map(|sample| sample.timestep).collect();
        let noisy =
            diffusion::noisy_from_clean(&self.schedule, clean.clone(), noise.clone(), &levels);
        let target = diffusion::target(&self.schedule, self.prediction, clean, noise, &levels);
        let ids: Vec<Vec<u32>> = samples.into_iter().map(|sample| sample.token_ids).collect();
        let context = pair.text_encoder.forward(&ids).last;
        let times: Vec<f64> = levels.iter().map(|&level| level as f64).collect();
        let output = pair.unet.forward(noisy, timesteps(&times, self.device), &context, None)?;
        let weight =
            |&level: &usize| self.weighting.loss_weight(self.schedule.snr(level), self.prediction);
        let weights: Vec<f64> = levels.iter().map(weight).collect();
        Ok(diffusion::weighted_mean(diffusion::mean_squared_errors(output, target), &weights))
    }
}

fn write(
    recipe: &PretrainRecipe,
    configs: &Configs,
    mut pair: Pair,
) -> Result<Pretrained, PretrainError> {
    let into = &recipe.into;
    let text = half_precision(&mut pair.text_encoder)?;
    write_component(
        &into.join("text_encoder"),
        Library::Transformers,
        &configs.text_encoder,
        &text,
    )?;
    write_component(
        &into.join("unet"),
        Library::Diffusers,
        &configs.unet,
        &half_precision(&mut pair.unet)?,
    )?;
    checkpoints::fs::atomic_write_json(
        &into.join("scheduler/scheduler_config.json"),
        &configs.scheduler,
    )?;
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.0",
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", configs.scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    checkpoints::fs::atomic_write_json(&into.join("model_index.json"), &index)?;
    Ok(Pretrained::Finished(into.clone()))
}
