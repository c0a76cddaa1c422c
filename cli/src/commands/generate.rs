//! `populate generate`: pictures of any base, with any adapters at any dose.

use std::fmt::Write as _;
use std::path::Path;

use checkpoints::TensorFile;
use checkpoints::folder::ModelFolder;
use diffusion::SamplerKind;
use models::{Base, ModelError};
use recipes::BaseSpec;
use recipes::draws::Purpose;
use serde_json::{Value, json};

use super::{Job, Outcome};
use crate::args::{GenerateArguments, SamplerName};
use crate::drawing::{Drawing, Start, draw};
use crate::error::JobError;
use crate::progress::Tick;
use crate::stage;
use crate::{environment, picture};

/// The tensor of `--init-latents`.
const LATENTS: &str = "latents";
/// Guidance where the user gives none: what the embedded base, and what others, were made for.
const GUIDANCE: (f64, f64) = (3.0, 7.5);

/// Draws and writes one PNG file.
pub(crate) fn execute(arguments: &GenerateArguments, job: &Job<'_>) -> Result<Outcome, JobError> {
    if arguments.out.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("png")) {
        let found = arguments.out.display();
        return Err(JobError::usage(format!("`--out` must end in `.png`, found `{found}`")));
    }
    let folder = base_folder(arguments)?;
    let device = job.device()?;
    let mut base = stage::load_base(&folder, &device.device)?;
    for adapter in &arguments.adapters {
        let exchanged = stage::read_adapter(&adapter.path, &base)?;
        base = eval::sample::settled(&base, &exchanged.adapter, adapter.dose)?;
    }
    let size_px = arguments
        .size
        .map_or_else(|| [base.nominal_side_px(); 2], |size| [size.height_px, size.width_px]);
    let drawing = Drawing {
        prompt: &arguments.prompt,
        negative: &arguments.negative,
        sampler: sampler_kind(arguments.sampler),
        steps: arguments.steps as usize,
        guidance_scale: guidance_scale(arguments)?,
        latent_shape: base.latent_shape(size_px)?,
    };
    check_prompts(&base, &drawing)?;
    let starts = starts(arguments, &drawing)?;
    let mut progress = job.progress();
    let total = starts.len() as u64;
    let mut drawn = |done: usize| {
        let done = done as u64;
        progress.tick(&Tick { phase: "draw", unit: "pictures", done, total, figures: &[] });
    };
    let pictures = draw(&base, &drawing, &starts, job.stop.flag(), &mut drawn)?;
    progress.end();
    let n_pictures = pictures.len();
    if n_pictures > 0 {
        let sheet = picture::sheet(&picture::square(pictures));
        let about = about(arguments, &drawing, size_px, &folder);
        let parameters = parameters(arguments, &drawing, size_px, &folder);
        let texts = [("parameters", parameters.as_str()), ("populate", &about.to_string())];
        checkpoints::fs::atomic_write(&arguments.out, &picture::png(&sheet, &texts)?)?;
        let mut record = about;
        record["event"] = json!("generated");
        record["out"] = json!(arguments.out);
        job.give(&format!("wrote {}", arguments.out.display()), &record);
    }
    Ok(if n_pictures == starts.len() {
        Outcome::Done
    } else {
        Outcome::Requeue { go_on: environment::own_command() }
    })
}

fn base_folder(arguments: &GenerateArguments) -> Result<ModelFolder, JobError> {
    stage::base_folder(&match &arguments.base {
        None => BaseSpec::Postcards,
        Some(folder) => BaseSpec::Folder { weights: folder.clone() },
    })
}

fn guidance_scale(arguments: &GenerateArguments) -> Result<f64, JobError> {
    let (embedded, other) = GUIDANCE;
    let default = if arguments.base.is_none() { embedded } else { other };
    let scale = arguments.guidance.unwrap_or(default);
    if scale.is_finite() && scale >= 0.0 {
        Ok(scale)
    } else {
        Err(JobError::usage(format!("`--guidance` must be at least 0, found `{scale}`")))
    }
}

const fn sampler_kind(name: SamplerName) -> SamplerKind {
    match name {
        SamplerName::Ddim => SamplerKind::Ddim { eta: 0.0 },
        SamplerName::DdimEta1 => SamplerKind::Ddim { eta: 1.0 },
        SamplerName::Ddpm => SamplerKind::Ddpm,
        SamplerName::Euler => SamplerKind::Euler,
        SamplerName::EulerA => SamplerKind::EulerAncestral,
        SamplerName::DpmPp2M => SamplerKind::DpmPp2M { karras: false },
        SamplerName::DpmPp2MKarras => SamplerKind::DpmPp2M { karras: true },
    }
}

/// Names of samplers as A1111's interface shows them; other tools read a picture's settings so.
const fn shown_name(name: SamplerName) -> &'static str {
    match name {
        SamplerName::Ddim | SamplerName::DdimEta1 => "DDIM",
        SamplerName::Ddpm => "DDPM",
        SamplerName::Euler => "Euler",
        SamplerName::EulerA => "Euler a",
        SamplerName::DpmPp2M => "DPM++ 2M",
        SamplerName::DpmPp2MKarras => "DPM++ 2M Karras",
    }
}

/// A prompt that is too long is a mistake of the command line, not of a file.
fn check_prompts(base: &Base, drawing: &Drawing<'_>) -> Result<(), JobError> {
    for prompt in [drawing.prompt, drawing.negative] {
        let encoded = base.tokenizer.encode(prompt, models::tokenizer::OverLength::Error);
        if let Err(error @ ModelError::PromptTooLong { .. }) = encoded {
            return Err(JobError::Usage { message: error.to_string(), hint: error.hint() });
        }
    }
    Ok(())
}

/// Where the pictures begin: the seeds' noise, or the latents of a file.
fn starts(arguments: &GenerateArguments, drawing: &Drawing<'_>) -> Result<Vec<Start>, JobError> {
    let seeds = (0..arguments.count).map(|index| arguments.seed.wrapping_add(u64::from(index)));
    let Some(path) = &arguments.init_latents else {
        let start = |seed| Start::of_seed(seed, drawing.latent_shape, Purpose::Generate);
        return Ok(seeds.map(start).collect());
    };
    if arguments.count != 1 {
        return Err(JobError::usage(
            "`--count` has no meaning beside `--init-latents`, whose first axis counts the pictures",
        ));
    }
    let all = latents(path, drawing.latent_shape)?;
    let start = |(latents, seed): (&[f32], u64)| Start { latents: latents.to_vec(), seed };
    let n_values: usize = drawing.latent_shape.iter().product();
    let seeds = (0..).map(|index: u64| arguments.seed.wrapping_add(index));
    Ok(all.chunks(n_values.max(1)).zip(seeds).map(start).collect())
}

/// The values of `[n, channels, height, width]` or `[channels, height, width]`.
fn latents(path: &Path, expected: [usize; 3]) -> Result<Vec<f32>, JobError> {
    let tensor = TensorFile::open(path)?.read(LATENTS)?;
    let shape = match tensor.shape.as_slice() {
        [n, rest @ ..] if rest.len() == 3 && *n > 0 => rest,
        whole => whole,
    };
    if shape != expected {
        return Err(JobError::Data {
            message: format!(
                "`{}` holds `{LATENTS}` of shape {:?}, expected [n, {}, {}, {}]",
                path.display(),
                tensor.shape,
                expected[0],
                expected[1],
                expected[2]
            ),
            hint: Some("`--size` must be the size that these latents become".to_owned()),
        });
    }
    if !tensor.all_finite() {
        let path = path.display();
        return Err(JobError::data(format!("`{path}` holds values that are not finite")));
    }
    Ok(tensor.f32().into_owned())
}

/// What made the picture, for programs. Names of files, no paths: pictures are given away.
fn about(
    arguments: &GenerateArguments,
    drawing: &Drawing<'_>,
    [height_px, width_px]: [usize; 2],
    folder: &ModelFolder,
) -> Value {
    let adapters: Vec<Value> = arguments
        .adapters
        .iter()
        .map(|adapter| json!({ "name": file_stem(&adapter.path), "dose": adapter.dose }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "base": file_stem(folder.path()),
        "prompt": arguments.prompt,
        "negative_prompt": arguments.negative,
        "steps": arguments.steps,
        "sampler": shown_name(arguments.sampler),
        "guidance_scale": drawing.guidance_scale,
        "seed": arguments.seed,
        "count": arguments.count,
        "init_latents": arguments.init_latents.is_some(),
        "width_px": width_px,
        "height_px": height_px,
        "adapters": adapters,
    })
}

/// The same in the words of A1111's interface.
fn parameters(
    arguments: &GenerateArguments,
    drawing: &Drawing<'_>,
    [height_px, width_px]: [usize; 2],
    folder: &ModelFolder,
) -> String {
    let mut text = arguments.prompt.clone();
    for adapter in &arguments.adapters {
        // Writing into a string cannot fail.
        let _ = write!(text, " <lora:{}:{}>", file_stem(&adapter.path), adapter.dose);
    }
    if !arguments.negative.is_empty() {
        let _ = write!(text, "\nNegative prompt: {}", arguments.negative);
    }
    let settings = format!(
        "\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {width_px}x{height_px}, Model: {}",
        arguments.steps,
        shown_name(arguments.sampler),
        drawing.guidance_scale,
        arguments.seed,
        file_stem(folder.path()),
    );
    text + &settings
}

fn file_stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
