//! The folder of a sham: its pictures with their captions, its recipe, and the record that says which
//! pictures are there.
//!
//! The record is written anew before each picture, so that whatever ends a command, the next one goes
//! on with the first picture that is missing. No picture, caption or recipe is ever replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::hash::{bytes_sha256, file_sha256};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::recipe::{FILE, Sham};
use crate::error::JobError;
use crate::picture;

/// The format of the record.
const SCHEMA: &str = "populate/sham-record/1";
/// The record's file.
const RECORD: &str = "sham.json";
/// Begins the names of files that were being written when a program was killed.
const LEFTOVER: &str = ".tmp-";
/// What to do about a folder that is taken.
const OTHER_FOLDER: &str = "name another folder with `--out`";

/// What all pictures of a sham have in common: all that determines them beside caption and place. Names
/// of files, no paths: pictures are given away.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct About {
    /// Program and version.
    pub(super) tool: String,
    /// Scheme of the random draws.
    pub(super) draws: String,
    /// Name of the recipe whose sham it is.
    pub(super) recipe: String,
    /// Name of the base.
    pub(super) base: String,
    /// One hash of the base, with what was settled in it before.
    pub(super) base_sha256: String,
    /// Number format in which the UNet was computed.
    pub(super) precision: String,
    /// Layer of the text encoder that was read, counted from its end.
    pub(super) clip_skip: u32,
    /// The sampler, as a recipe has it.
    pub(super) sampler: Value,
    /// Guidance weight w.
    pub(super) guidance_scale: f64,
    /// Share by which guided outputs got back the contrast of unguided ones.
    pub(super) guidance_rescale: f64,
    /// Side of the pictures.
    pub(super) side_px: u32,
    /// Seed of the recipe.
    pub(super) seed: u64,
}

impl About {
    /// One hash of all that pictures of these captions follow from. Names are left out, since hashes
    /// speak for what they name.
    fn identity_sha256(&self, captions: &[String]) -> String {
        // Lists keep their order whatever map type the program was built with.
        let all = json!([
            [self.tool, self.draws, self.base_sha256, self.precision, self.clip_skip],
            [self.sampler, self.guidance_scale, self.guidance_rescale, self.side_px, self.seed],
            captions,
        ]);
        bytes_sha256(all.to_string().as_bytes())
    }
}

/// The folder and what belongs into it.
#[derive(Debug)]
pub(super) struct Folder<'a> {
    dir: PathBuf,
    about: &'a About,
    identity_sha256: String,
    pages: Vec<Page>,
}

/// One picture of the folder.
#[derive(Debug)]
struct Page {
    /// Path within the folder, with `/` and without an ending.
    stem: String,
    /// What it was drawn from.
    caption: String,
    /// Hash of its file, once that is there.
    sha256: Option<String>,
}

impl Page {
    fn file(&self) -> String {
        format!("{}.png", self.stem)
    }
}

/// The record of a folder.
#[derive(Debug, Serialize)]
struct Record<'a> {
    schema: &'static str,
    identity_sha256: &'a str,
    about: &'a About,
    complete: bool,
    pictures: Vec<PictureRecord<'a>>,
}

/// The record of one picture that is there.
#[derive(Debug, Serialize)]
struct PictureRecord<'a> {
    file: String,
    caption: &'a str,
    sha256: &'a str,
}

/// What is read of an earlier record.
#[derive(Debug, Deserialize)]
pub(super) struct Earlier {
    schema: String,
    identity_sha256: String,
    pictures: Vec<EarlierPicture>,
}

/// What is read of an earlier picture.
#[derive(Debug, Deserialize)]
struct EarlierPicture {
    file: String,
    sha256: String,
}

/// The record of an earlier sham in a folder, if there is one. Needs no picture and no base.
///
/// # Errors
///
/// [`JobError::Usage`] for a file, for a folder that holds anything else, and for one whose recipe is
/// not that of `sham`; [`JobError::Data`] for a record of another format.
pub(super) fn earlier(dir: &Path, sham: &Sham) -> Result<Option<Earlier>, JobError> {
    if dir.exists() && !dir.is_dir() {
        return Err(taken(format!(
            "`--out` must name a folder, found the file `{}`",
            dir.display()
        )));
    }
    let record = dir.join(RECORD);
    if !record.is_file() {
        let is_left = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(LEFTOVER))
        };
        let files = checkpoints::fs::list(dir)?;
        return match files.iter().find(|path| !is_left(path)) {
            None => Ok(None),
            Some(path) => Err(taken(format!(
                "`--out` must name a folder that is new, empty or of an earlier sham, found `{}`",
                path.display()
            ))),
        };
    }
    let earlier: Earlier = checkpoints::fs::read_json(&record)?;
    if earlier.schema != SCHEMA {
        let (path, found) = (record.display(), &earlier.schema);
        return Err(JobError::Data {
            message: format!("`{path}` has schema `{found}`, expected `{SCHEMA}`"),
            hint: Some(OTHER_FOLDER.to_owned()),
        });
    }
    let recipe = dir.join(FILE);
    if recipe.exists() && checkpoints::fs::read(&recipe)? != sham.text.as_bytes() {
        let path = recipe.display();
        return Err(JobError::Usage {
            message: format!("`{path}` is another recipe than the one that would be written"),
            hint: Some(
                "remove it, and it is written again; the pictures are kept if they are the same"
                    .to_owned(),
            ),
        });
    }
    Ok(Some(earlier))
}

fn taken(message: String) -> JobError {
    JobError::Usage { message, hint: Some(OTHER_FOLDER.to_owned()) }
}

impl<'a> Folder<'a> {
    /// The folder with the pictures of these captions, which stand in it in this order; those that an
    /// earlier command drew are there already.
    ///
    /// # Errors
    ///
    /// [`JobError::Usage`] if the earlier sham is another one; [`JobError::Data`] for a picture that
    /// was changed since.
    pub(super) fn open(
        (dir, earlier): (&Path, Option<Earlier>),
        about: &'a About,
        sham: &Sham,
        captions: &[String],
    ) -> Result<Self, JobError> {
        let identity_sha256 = about.identity_sha256(captions);
        let mut known = BTreeMap::new();
        if let Some(earlier) = earlier {
            if earlier.identity_sha256 != identity_sha256 {
                return Err(taken(format!(
                    "`{}` holds a sham of other captions, another base or seed, or by another version",
                    dir.display()
                )));
            }
            known.extend(earlier.pictures.into_iter().map(|known| (known.file, known.sha256)));
        }
        let n_digits = captions.len().to_string().len().max(4);
        let mut pages = Vec::new();
        for (index, caption) in captions.iter().enumerate() {
            let number = index + 1;
            let stem = format!("{}/{number:0n_digits$}", sham.pictures);
            let mut page = Page { stem, caption: caption.clone(), sha256: None };
            let file = page.file();
            if let Some(sha256) = known.get(&file) {
                page.sha256 = still_there(&dir.join(&file), sha256)?;
            }
            pages.push(page);
        }
        Ok(Self { dir: dir.to_owned(), about, identity_sha256, pages })
    }

    /// How many pictures belong into it.
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Places of the pictures that are not there yet, ascending.
    pub(super) fn missing(&self) -> Vec<usize> {
        let pages = self.pages.iter().enumerate();
        pages.filter(|(_, page)| page.sha256.is_none()).map(|(place, _)| place).collect()
    }

    /// Writes the record, then the picture; the path of the picture's file. Killed in between, the picture
    /// is recorded and missing, and is drawn again, be it with other bits.
    ///
    /// # Errors
    ///
    /// [`JobError::Data`] if another file has its name; a disk that is full or cannot be written.
    pub(super) fn add(&mut self, place: usize, image: &RgbImage) -> Result<PathBuf, JobError> {
        let page = &self.pages[place];
        let path = self.dir.join(page.file());
        let mut about = json!(self.about);
        about["prompt"] = json!(page.caption);
        about["place"] = json!(place);
        let bytes = picture::png(image, &[("populate", &about.to_string())])?;
        self.pages[place].sha256 = Some(bytes_sha256(&bytes));
        self.write_record()?;
        keep(&path, &bytes)?;
        Ok(path)
    }

    /// Writes the record of what is there. Done before the first picture, so that a folder is known
    /// for what it is from its first file on.
    ///
    /// # Errors
    ///
    /// A disk that is full or cannot be written.
    pub(super) fn write_record(&self) -> Result<(), JobError> {
        let mut pictures = Vec::new();
        for page in &self.pages {
            if let Some(sha256) = &page.sha256 {
                pictures.push(PictureRecord { file: page.file(), caption: &page.caption, sha256 });
            }
        }
        let record = Record {
            schema: SCHEMA,
            identity_sha256: &self.identity_sha256,
            about: self.about,
            complete: pictures.len() == self.pages.len(),
            pictures,
        };
        Ok(checkpoints::fs::atomic_write_json(&self.dir.join(RECORD), &record)?)
    }

    /// Writes the caption of each picture beside it.
    ///
    /// # Errors
    ///
    /// [`JobError::Data`] if another file has its name; a disk that is full or cannot be written.
    pub(super) fn write_captions(&self) -> Result<(), JobError> {
        for page in &self.pages {
            let path = self.dir.join(format!("{}.txt", page.stem));
            keep(&path, format!("{}\n", page.caption).as_bytes())?;
        }
        Ok(())
    }

    /// Writes the recipe; the path of its file.
    ///
    /// # Errors
    ///
    /// As [`Self::write_captions`].
    pub(super) fn write_recipe(&self, sham: &Sham) -> Result<PathBuf, JobError> {
        let path = self.dir.join(FILE);
        keep(&path, sham.text.as_bytes())?;
        Ok(path)
    }
}

/// The hash of a recorded picture if its file is there.
fn still_there(path: &Path, recorded: &str) -> Result<Option<String>, JobError> {
    if !path.exists() {
        return Ok(None);
    }
    let found = file_sha256(path)?.0;
    if found == recorded { Ok(Some(found)) } else { Err(changed(path)) }
}

/// Writes a file that is not there yet; one that is there must be the same.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), JobError> {
    if !path.exists() {
        return Ok(checkpoints::fs::atomic_write(path, bytes)?);
    }
    if checkpoints::fs::read(path)? == bytes { Ok(()) } else { Err(changed(path)) }
}

fn changed(path: &Path) -> JobError {
    JobError::Data {
        message: format!("`{}` has other bytes than those that belong there", path.display()),
        hint: Some("move it away, and the same command writes it again".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::stage;

    const RECIPE: &str = "\
name: small
base: postcards
dataset:
  dreambooth:
    instance: { images: towers, identifier: sks, class: tower, prompt: a sks tower }
adapter: lora
fit: { steps: 300, optimizer: { adamw: { learning_rate: 1.0e-3 } } }
";

    fn sham(out: &Path, sets: &[&str]) -> Sham {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let loaded = recipes::load_text(Path::new("t.yaml"), RECIPE, &sets).unwrap();
        Sham::of(&stage::settlement(loaded, "sham").unwrap(), out).unwrap()
    }

    fn about() -> About {
        About {
            tool: "populate 0".to_owned(),
            draws: "populate/rng/1".to_owned(),
            recipe: "small".to_owned(),
            base: "imagined".to_owned(),
            base_sha256: "0".repeat(64),
            precision: "f32".to_owned(),
            clip_skip: 1,
            sampler: json!({ "ddim": { "steps": 20, "eta": 0.0 } }),
            guidance_scale: 3.0,
            guidance_rescale: 0.0,
            side_px: 64,
            seed: 7,
        }
    }

    fn captions() -> Vec<String> {
        ["a sks tower", "sks at night", "a sks tower"].map(str::to_owned).to_vec()
    }

    fn open<'a>(dir: &Path, about: &'a About) -> Result<Folder<'a>, JobError> {
        let sham = sham(dir, &[]);
        Folder::open((dir, earlier(dir, &sham)?), about, &sham, &captions())
    }

    /// A picture that tells its place.
    fn drawn(place: usize) -> RgbImage {
        RgbImage::from_pixel(4, 4, image::Rgb([place as u8 * 20; 3]))
    }

    fn bytes(path: &Path) -> Vec<u8> {
        checkpoints::fs::read(path).unwrap()
    }

    #[test]
    fn pictures_lie_with_their_captions_in_a_folder_that_names_the_concept() {
        let dir = tempfile::tempdir().unwrap();
        let about = about();
        let mut folder = open(dir.path(), &about).unwrap();
        assert_eq!((folder.len(), folder.missing()), (3, vec![0, 1, 2]));
        for place in folder.missing() {
            let path = folder.add(place, &drawn(place)).unwrap();
            assert_eq!(path, dir.path().join(format!("towers-sham/000{}.png", place + 1)));
            let picture = image::load_from_memory(&bytes(&path)).unwrap().into_rgb8();
            assert_eq!(picture, drawn(place));
        }
        folder.write_captions().unwrap();
        let second = dir.path().join("towers-sham/0002.txt");
        assert_eq!(bytes(&second), b"sks at night\n");
        let path = folder.write_recipe(&sham(dir.path(), &[])).unwrap();
        assert_eq!(path, dir.path().join("sham.yaml"));
        // All of it again.
        let again = open(dir.path(), &about).unwrap();
        assert!(again.missing().is_empty());
        again.write_captions().unwrap();
    }

    #[test]
    fn the_record_grows_with_the_pictures_and_names_no_path() {
        let dir = tempfile::tempdir().unwrap();
        let about = about();
        let mut folder = open(dir.path(), &about).unwrap();
        folder.write_record().unwrap();
        assert_eq!(open(dir.path(), &about).unwrap().missing(), [0, 1, 2]);
        folder.add(1, &drawn(1)).unwrap();
        assert_eq!(open(dir.path(), &about).unwrap().missing(), [0, 2]);
        let text = String::from_utf8(bytes(&dir.path().join(RECORD))).unwrap();
        let record: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["complete"], false);
        assert_eq!(record["pictures"][0]["caption"], "sks at night");
        assert!(!text.contains(&dir.path().display().to_string()), "{text}");
        // A picture that is gone is drawn again.
        checkpoints::fs::remove_file(&dir.path().join("towers-sham/0002.png")).unwrap();
        assert_eq!(open(dir.path(), &about).unwrap().missing(), [0, 1, 2]);
    }

    #[test]
    fn what_a_picture_follows_from_is_its_identity_and_names_are_not() {
        let same = about().identity_sha256(&captions());
        let others = [
            About { tool: "populate 1".to_owned(), ..about() },
            About { draws: "populate/rng/2".to_owned(), ..about() },
            About { base_sha256: "1".repeat(64), ..about() },
            About { precision: "bf16".to_owned(), ..about() },
            About { clip_skip: 2, ..about() },
            About { sampler: json!("euler"), ..about() },
            About { guidance_scale: 2.0, ..about() },
            About { guidance_rescale: 0.7, ..about() },
            About { side_px: 128, ..about() },
            About { seed: 8, ..about() },
        ];
        for other in others {
            assert_ne!(other.identity_sha256(&captions()), same, "{other:?}");
        }
        assert_ne!(about().identity_sha256(&captions()[1..]), same);
        let renamed = About { recipe: "b".to_owned(), base: "c".to_owned(), ..about() };
        assert_eq!(renamed.identity_sha256(&captions()), same);
    }

    #[test]
    fn a_folder_of_anything_else_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("letter.txt");
        checkpoints::fs::atomic_write(&file, b"dear").unwrap();
        for taken in [dir.path(), file.as_path()] {
            let error = open(taken, &about()).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{error}");
        }
        assert_eq!(bytes(&file), b"dear");
        // What a killed program was writing is no reason.
        let other = tempfile::tempdir().unwrap();
        checkpoints::fs::atomic_write(&other.path().join(".tmp-sham.json-1-1"), b"{").unwrap();
        assert_eq!(open(other.path(), &about()).unwrap().missing(), [0, 1, 2]);
        let record = json!({ "schema": "x", "identity_sha256": "", "pictures": [] });
        checkpoints::fs::atomic_write_json(&other.path().join(RECORD), &record).unwrap();
        let error = open(other.path(), &about()).unwrap_err();
        assert_eq!(error.exit(), Exit::Data, "{error}");
    }

    #[test]
    fn another_sham_in_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = about();
        let folder = open(dir.path(), &first).unwrap();
        folder.write_record().unwrap();
        let error = open(dir.path(), &About { seed: 8, ..about() }).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage, "{error}");
        // The same pictures for a recipe that trains longer.
        folder.write_recipe(&sham(dir.path(), &[])).unwrap();
        open(dir.path(), &first).unwrap();
        let error = earlier(dir.path(), &sham(dir.path(), &["fit.steps=301"])).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage, "{error}");
    }

    #[test]
    fn a_file_that_was_changed_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let about = about();
        let mut folder = open(dir.path(), &about).unwrap();
        let path = folder.add(0, &drawn(0)).unwrap();
        checkpoints::fs::atomic_write(&path, b"retouched").unwrap();
        let error = open(dir.path(), &about).unwrap_err();
        assert_eq!(error.exit(), Exit::Data);
        assert!(error.to_string().contains("0001.png"), "{error}");
        assert!(folder.add(0, &drawn(0)).is_err());
        assert_eq!(bytes(&path), b"retouched");
    }
}
