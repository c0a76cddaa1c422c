//! What is asked for, as far as it can be known before a base is opened: mistakes of the command
//! line are said at once, not after minutes of loading.

use std::path::{Path, PathBuf};

use diffusion::Sampler;
use image::RgbImage;

use super::init_image;
use crate::args::{
    GenerateArguments, PictureArguments, SamplerName, SamplingArguments, SpacingName,
    StartArguments, Switch,
};
use crate::error::JobError;

/// Pictures of `--grid`.
const GRID: u32 = 9;
/// Share of the steps that is taken from a picture, if nobody says.
const STRENGTH: f64 = 0.75;
/// Most pixels of a sheet: 768 MiB in memory.
const MAX_SHEET_PX: u64 = 1 << 28;
/// Range of a share.
const SHARE: &str = "at least 0 and at most 1";
/// Most steps, as `--steps` has it.
const MAX_STEPS: f64 = 1000.0;
/// The sheet of `--grid` in a folder, and the trajectory there.
const SHEET: &str = "sheet.png";
const TRAJECTORY: &str = "trajectory";

/// What is asked for.
#[derive(Debug)]
pub(super) struct Order {
    /// At least one.
    pub(super) prompts: Vec<String>,
    /// Seeds of each prompt, unless a file of latents says how many pictures there are.
    pub(super) seeds: Vec<u64>,
    /// The picture to start from, upright and opaque.
    pub(super) picture: Option<InitImage>,
    /// Where the pictures go.
    pub(super) out: Destination,
    /// Whether a folder gets a sheet, too.
    pub(super) sheet: Sheet,
    /// Where the trajectory goes.
    pub(super) trajectory: Option<Destination>,
}

/// The picture to start from.
#[derive(Debug)]
pub(super) struct InitImage {
    /// 8-bit RGB.
    pub(super) image: RgbImage,
    /// sha256 of the file, 64 hex digits.
    pub(super) sha256: String,
    /// Share of the steps that is taken, in (0, 1].
    pub(super) strength: f64,
}

/// Whether there is a sheet in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sheet {
    /// There is one.
    Beside,
    /// There is none.
    Absent,
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// One file.
    File(PathBuf),
    /// Files of their own in a folder, which need not be there.
    Folder(PathBuf),
}

impl Destination {
    /// A folder if there is one or the path ends in a separator, else a file with one of these
    /// endings.
    fn of(flag: &str, path: &Path, endings: &[&str]) -> Result<Self, JobError> {
        // Without the separators at its end, with which no file is found.
        let bare = path.components().as_path();
        let ends_as_folder = path.to_string_lossy().ends_with(std::path::is_separator);
        if ends_as_folder && bare.is_file() {
            return Err(JobError::Usage {
                message: format!("`{flag}` names a folder, but `{}` is a file", bare.display()),
                hint: Some("leave out the `/` at its end, or take another name".to_owned()),
            });
        }
        if path.is_dir() || ends_as_folder {
            return Ok(Self::Folder(path.to_owned()));
        }
        let ending = path.extension().unwrap_or_default();
        if endings.iter().any(|known| ending.eq_ignore_ascii_case(known)) {
            return Ok(Self::File(path.to_owned()));
        }
        let endings: Vec<String> = endings.iter().map(|ending| format!("`.{ending}`")).collect();
        let found = path.display();
        Err(JobError::Usage {
            message: format!("`{flag}` must end in {}, found `{found}`", endings.join(" or ")),
            hint: Some(format!("a folder is written with `/` at its end: `{found}/`")),
        })
    }

    /// The file of a sheet that goes here.
    pub(super) fn sheet(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Folder(folder) => folder.join(SHEET),
        }
    }

    /// The files of a trajectory that goes here.
    pub(super) fn trajectory(&self) -> Vec<PathBuf> {
        match self {
            Self::File(path) => vec![path.clone()],
            Self::Folder(folder) => {
                let named = |ending: &str| folder.join(TRAJECTORY).with_extension(ending);
                ["png", "gif", "webp"].map(named).into()
            }
        }
    }

    /// Whether a picture that goes here, or the sheet, may have this path.
    fn has_picture(&self, path: &Path) -> bool {
        let place = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = place(path);
        match self {
            // Nor is there a place below a file.
            Self::File(own) => path.starts_with(place(own)),
            Self::Folder(folder) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let parent = path.parent().unwrap_or(&path);
                place(folder) == parent && (name == SHEET || is_picture(&name))
            }
        }
    }
}

/// Whether a name is INDEX-SEED.png.
fn is_picture(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = name.strip_suffix(".png").and_then(|stem| stem.split_once('-'));
    parts.is_some_and(|(index, seed)| is_number(index) && is_number(seed))
}

/// Refuses a trajectory that would take the place of a picture.
fn check_apart(out: &Destination, trajectory: &Destination) -> Result<(), JobError> {
    let paths = trajectory.trajectory();
    let Some(path) = paths.iter().find(|path| out.has_picture(path)) else { return Ok(()) };
    Err(JobError::Usage {
        message: format!("`{}` is a place of pictures and of `--trajectory`", path.display()),
        hint: Some("give the trajectory another name, or a folder of its own".to_owned()),
    })
}

impl Order {
    /// Reads prompts and picture, and checks all that needs no base.
    ///
    /// # Errors
    ///
    /// Numbers out of range, flags that contradict each other, files that cannot be read.
    pub(super) fn of(arguments: &GenerateArguments) -> Result<Self, JobError> {
        let output = &arguments.output;
        let out = Destination::of("--out", &output.out, &["png"])?;
        let endings = ["png", "gif", "webp"];
        let trajectory = output.trajectory.as_deref();
        let trajectory = trajectory.map(|path| Destination::of("--trajectory", path, &endings));
        let trajectory = trajectory.transpose()?;
        if let Some(trajectory) = &trajectory {
            check_apart(&out, trajectory)?;
        }
        check_guidance(&arguments.sampling, &arguments.pictures.negative)?;
        check_sampling(&arguments.sampling, arguments.base.zero_terminal_snr)?;
        let strength = strength(&arguments.start, arguments.sampling.steps)?;
        let picture = arguments.start.init_image.as_deref();
        Ok(Self {
            prompts: prompts(&arguments.pictures)?,
            seeds: seeds(&arguments.pictures),
            picture: picture.map(|path| init_image::read(path, strength)).transpose()?,
            out,
            sheet: if arguments.pictures.grid { Sheet::Beside } else { Sheet::Absent },
            trajectory,
        })
    }

    /// The first step that is taken.
    pub(super) fn first_step(&self, sampler: &Sampler) -> usize {
        self.picture.as_ref().map_or(0, |picture| sampler.first_step(picture.strength))
    }

    /// Refuses a sheet that no program could open.
    ///
    /// # Errors
    ///
    /// [`JobError::Usage`] with its size.
    pub(super) fn check_sheet(&self, n_seeds: usize, size_px: [usize; 2]) -> Result<(), JobError> {
        let n_pictures = (self.prompts.len() * n_seeds) as u64;
        let n_px = size_px.iter().map(|&side_px| side_px as u64).product::<u64>() * n_pictures;
        let is_laid = matches!(self.out, Destination::File(_)) || self.sheet == Sheet::Beside;
        if n_pictures > 1 && is_laid && n_px > MAX_SHEET_PX {
            let hint = match self.sheet {
                Sheet::Absent => "`--out` with a folder writes them one by one",
                Sheet::Beside => {
                    "`--count 9` in place of `--grid`, and `--out` with a folder, writes them one by \
                     one"
                }
            };
            return Err(JobError::Usage {
                message: format!(
                    "a sheet of {n_pictures} pictures would have {n_px} pixels, expected at most \
                     {MAX_SHEET_PX}"
                ),
                hint: Some(hint.to_owned()),
            });
        }
        Ok(())
    }
}

fn outside(flag: &str, expected: &str, found: f64) -> JobError {
    JobError::usage(format!("`{flag}` must be {expected}, found `{found}`"))
}

fn check_guidance(sampling: &SamplingArguments, negative: &str) -> Result<(), JobError> {
    let (weight, rescale) = (sampling.guidance, sampling.guidance_rescale);
    if let Some(weight) = weight.filter(|weight| !(weight.is_finite() && *weight >= 0.0)) {
        return Err(outside("--guidance", "at least 0", weight));
    }
    if !(0.0..=1.0).contains(&rescale) {
        return Err(outside("--guidance-rescale", SHARE, rescale));
    }
    let idle = [("--negative", !negative.is_empty()), ("--guidance-rescale", rescale > 0.0)];
    if let Some((flag, _)) = idle.iter().find(|(_, given)| *given)
        && weight == Some(1.0)
    {
        return Err(JobError::usage(format!(
            "`{flag}` has no meaning with `--guidance 1`, which is without guidance"
        )));
    }
    Ok(())
}

fn check_sampling(
    sampling: &SamplingArguments,
    zero_terminal_snr: Option<Switch>,
) -> Result<(), JobError> {
    if let Some(eta) = sampling.eta {
        if !(0.0..=1.0).contains(&eta) {
            return Err(outside("--eta", SHARE, eta));
        }
        if sampling.sampler != SamplerName::Ddim {
            return Err(JobError::usage("`--eta` has a meaning only with `--sampler ddim`"));
        }
    }
    let Some(spacing) = sampling.spacing else { return Ok(()) };
    if sampling.sampler == SamplerName::DpmPp2MKarras {
        return Err(JobError::usage("`--spacing` has no meaning beside Karras' noise levels"));
    }
    if spacing == SpacingName::Leading && zero_terminal_snr == Some(Switch::On) {
        return Err(leading_refused("with `--zero-terminal-snr on`"));
    }
    Ok(())
}

/// The error about leading spacing where the last noise level bears no signal.
pub(super) fn leading_refused(there: &str) -> JobError {
    JobError::Usage {
        message: format!("`--spacing` must be `trailing` or `linspace` {there}"),
        hint: Some("`leading` never visits the last noise level".to_owned()),
    }
}

/// Share of the steps that is taken; some step must be left.
fn strength(start: &StartArguments, n_steps: u32) -> Result<f64, JobError> {
    let strength = start.strength.unwrap_or(STRENGTH);
    if !(strength > 0.0 && strength <= 1.0) {
        return Err(JobError::usage(format!(
            "`--strength` must be above 0 and at most 1, found `{strength}`"
        )));
    }
    if start.init_image.is_some() && f64::from(n_steps) * strength < 1.0 {
        let needed = strength.recip().ceil();
        let hint = if needed > MAX_STEPS {
            "take a larger `--strength`".to_owned()
        } else {
            format!("take at least {needed} steps")
        };
        return Err(JobError::Usage {
            message: format!("`--strength` `{strength}` of {n_steps} steps leaves none to take"),
            hint: Some(hint),
        });
    }
    Ok(strength)
}

fn seeds(pictures: &PictureArguments) -> Vec<u64> {
    if let Some(list) = &pictures.seeds {
        return list.0.clone();
    }
    let count = if pictures.grid { GRID } else { pictures.count.unwrap_or(1) };
    (0..count).map(|index| pictures.seed.wrapping_add(index.into())).collect()
}

/// Those of the command line, then those of the file.
fn prompts(pictures: &PictureArguments) -> Result<Vec<String>, JobError> {
    let mut prompts = pictures.prompts.clone();
    let Some(path) = &pictures.prompt_file else {
        if prompts.is_empty() {
            prompts.push(String::new());
        }
        return Ok(prompts);
    };
    let shown = path.display();
    let text = String::from_utf8(checkpoints::fs::read(path)?).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        JobError::data(format!("`{shown}` is no UTF-8 text: an invalid byte at offset {offset}"))
    })?;
    let before = prompts.len();
    // Some editors begin a file with this mark.
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    prompts.extend(lines.map(str::to_owned));
    if prompts.len() == before {
        return Err(JobError::data(format!(
            "`{shown}` holds no prompt, expected one on each line"
        )));
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Verb};

    fn order(more: &[&str]) -> Result<Order, JobError> {
        let line = [&["populate", "generate", "--out", "a.png"][..], more].concat();
        match Arguments::try_parse_from(line).map(|arguments| arguments.verb) {
            Ok(Verb::Generate(arguments)) => Order::of(&arguments),
            Ok(_) => panic!("another verb"),
            Err(error) => panic!("{error}"),
        }
    }

    fn refused(more: &[&str]) -> String {
        order(more).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn what_contradicts_itself_is_refused_before_a_base_is_opened() {
        assert!(refused(&["--guidance=-1"]).contains("must be at least 0"));
        assert!(refused(&["--guidance", "inf"]).contains("found `inf`"));
        assert!(refused(&["--guidance", "nan"]).contains("found `NaN`"));
        assert!(refused(&["--guidance-rescale", "1.1"]).contains("at most 1"));
        let idle = refused(&["--guidance", "1", "--guidance-rescale", "0.7"]);
        assert!(idle.contains("no meaning with `--guidance 1`"), "{idle}");
        assert!(refused(&["--eta", "0.5", "--sampler", "euler"]).contains("--sampler ddim"));
        let karras = ["--sampler", "dpmpp-2m-karras", "--spacing", "trailing"];
        assert!(refused(&karras).contains("Karras"));
        let leading = ["--base", "b", "--zero-terminal-snr", "on", "--spacing", "leading"];
        assert!(refused(&leading).contains("must be `trailing`"));
        let weak = ["--init-image", "absent.png", "--strength", "0.03", "--steps", "30"];
        assert!(refused(&weak).contains("leaves none"), "{}", refused(&weak));
        let hint = |strength: &str| {
            let weak = ["--init-image", "absent.png", "--strength", strength];
            order(&weak).unwrap_err().hint().unwrap()
        };
        assert_eq!(hint("0.03"), "take at least 34 steps");
        assert_eq!(hint("0.0009"), "take a larger `--strength`");
        let strong = ["--init-image", "absent.png", "--strength", "1.5"];
        assert!(refused(&strong).contains("at most 1"));
    }

    #[test]
    fn seeds_are_counted_from_the_first_or_named() {
        let seeds = |more: &[&str]| order(more).unwrap().seeds;
        assert_eq!(seeds(&[]), [0]);
        assert_eq!(seeds(&["--seed", "7", "--count", "3"]), [7, 8, 9]);
        assert_eq!(seeds(&["--seeds", "4,1-2"]), [4, 1, 2]);
        assert_eq!(seeds(&["--seed", "18446744073709551615", "--count", "2"]), [u64::MAX, 0]);
        assert_eq!(seeds(&["--grid"]).len(), 9);
        assert_eq!(order(&[]).unwrap().prompts, [""]);
    }

    #[test]
    fn a_destination_is_a_file_of_a_known_kind_or_a_folder() {
        let of = |path: &str| Destination::of("--out", Path::new(path), &["png"]);
        assert_eq!(of("a.PNG").unwrap(), Destination::File("a.PNG".into()));
        assert_eq!(of("new/").unwrap(), Destination::Folder("new/".into()));
        assert_eq!(of(".").unwrap(), Destination::Folder(".".into()));
        let message = of("a.jpg").unwrap_err().to_string();
        assert_eq!(message, "`--out` must end in `.png`, found `a.jpg`");
        assert!(of("a").unwrap_err().hint().unwrap().contains("`a/`"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.png");
        checkpoints::fs::atomic_write(&file, b"").unwrap();
        assert!(of(&format!("{}/", file.display())).unwrap_err().to_string().contains("is a file"));
    }

    #[test]
    fn a_trajectory_takes_the_place_of_no_picture() {
        let apart = |out: &str, trajectory: &str| {
            let out = Destination::of("--out", Path::new(out), &["png"]).unwrap();
            let endings = ["png", "webp"];
            let to = Destination::of("--trajectory", Path::new(trajectory), &endings).unwrap();
            check_apart(&out, &to).is_ok()
        };
        assert!(!apart("a.png", "./a.png"));
        assert!(!apart("a.png", "a.png/"));
        assert!(!apart("way/trajectory.png", "way/"));
        assert!(!apart("d/", "d/sheet.png"));
        assert!(!apart("d/", "d/0012-7.png"));
        assert!(apart("a.png", "b.png"));
        assert!(apart("way/a.png", "way/"));
        assert!(apart("d/", "d/"));
        assert!(apart("d/", "d/way-7.png"));
        assert!(apart("d/", "sheet.png"));
    }

    #[test]
    fn a_sheet_has_a_largest_size_and_a_folder_has_none() {
        let order = order(&["--seeds", "1-4000"]).unwrap();
        order.check_sheet(order.seeds.len(), [64; 2]).unwrap();
        assert!(order.check_sheet(order.seeds.len(), [512; 2]).is_err());
        let folder = Order { out: Destination::Folder("a/".into()), ..order };
        folder.check_sheet(folder.seeds.len(), [512; 2]).unwrap();
        let grid = Order { sheet: Sheet::Beside, ..folder };
        let hint = grid.check_sheet(grid.seeds.len(), [512; 2]).unwrap_err().hint().unwrap();
        assert!(hint.contains("in place of `--grid`"), "{hint}");
    }
}
