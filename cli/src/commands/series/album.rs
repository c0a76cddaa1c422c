//! The folder of a series file: its pictures, and the record that says which of them are there.
//!
//! A picture is there if its file has the hash of the record and the record has the hash of all that
//! the picture follows from. The record is written anew after each picture, so that whatever ends a
//! command, the next one goes on with the first picture that is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use checkpoints::hash::{bytes_sha256, file_sha256};
use image::RgbImage;
use recipes::AlphaPolicy;
use recipes::series::{Picture, SeriesFile};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::consistency::Consistency;
use super::studio::Provenance;
use super::{contact_sheet, page};
use crate::error::JobError;
use crate::picture;

/// The format of the record.
const SCHEMA: &str = "populate/series-record/1";
/// The files beside the folders of pictures.
const RECORD: &str = "series.json";
const INSTRUCTIONS: &str = "instructions.csv";
const SHEET_PICTURE: &str = "contact-sheet.png";
const SHEET_PAGE: &str = "contact-sheet.html";
/// Over which transparent places are laid; our own pictures have none.
const GROUND: AlphaPolicy = AlphaPolicy::Flatten([255; 3]);

/// The folder and what belongs into it.
#[derive(Debug)]
pub(super) struct Album<'a> {
    folder: PathBuf,
    name: &'a str,
    provenance: &'a Provenance,
    /// SHA-256 of the series file.
    file_sha256: String,
    pages: Vec<Page<'a>>,
}

/// One picture of the album.
#[derive(Debug)]
pub(super) struct Page<'a> {
    /// Name of its series.
    pub(super) series: &'a str,
    /// Its place in the series, from 1.
    pub(super) number: usize,
    /// What it is to show.
    pub(super) picture: &'a Picture,
    /// Path within the folder, with `/`.
    pub(super) path: String,
    /// Hash of all that it follows from.
    identity_sha256: String,
    /// Hash of its file, once that is there.
    sha256: Option<String>,
}

/// The record of an album.
#[derive(Debug, Serialize)]
struct Record<'a> {
    schema: &'static str,
    name: &'a str,
    series_file_sha256: &'a str,
    provenance: &'a Provenance,
    complete: bool,
    pictures: Vec<PictureRecord<'a>>,
    consistency: Option<&'a Consistency>,
}

/// The record of one picture that is there.
#[derive(Debug, Serialize)]
struct PictureRecord<'a> {
    series: &'a str,
    number: usize,
    instruction: &'a str,
    slots: &'a BTreeMap<String, String>,
    seed: u64,
    file: &'a str,
    sha256: &'a str,
    identity_sha256: &'a str,
}

/// What is read of an earlier record.
#[derive(Debug, Deserialize)]
struct Earlier {
    schema: String,
    pictures: Vec<EarlierPicture>,
}

/// What is read of an earlier picture.
#[derive(Debug, Deserialize)]
struct EarlierPicture {
    file: String,
    sha256: String,
    identity_sha256: String,
}

impl<'a> Album<'a> {
    /// The album of a series file, with the pictures that are there already.
    ///
    /// # Errors
    ///
    /// A folder that is a file; a record of another format; a disk that cannot be read.
    pub(super) fn open(
        folder: &Path,
        file: &'a SeriesFile,
        provenance: &'a Provenance,
        file_sha256: String,
    ) -> Result<Self, JobError> {
        if folder.exists() && !folder.is_dir() {
            return Err(JobError::usage(format!(
                "`--out` must name a folder, found the file `{}`",
                folder.display()
            )));
        }
        let mut pages = Vec::new();
        for series in &file.series {
            for (index, picture) in series.pictures.iter().enumerate() {
                let number = index + 1;
                pages.push(Page {
                    series: &series.name,
                    number,
                    picture,
                    path: format!("{}/{number:03}.png", series.name),
                    identity_sha256: provenance.identity_sha256(picture),
                    sha256: None,
                });
            }
        }
        let folder = folder.to_owned();
        let mut album = Self { folder, name: &file.name, provenance, file_sha256, pages };
        album.find_earlier()?;
        Ok(album)
    }

    /// Finds the pictures that an earlier command drew as they are wanted now.
    fn find_earlier(&mut self) -> Result<(), JobError> {
        let path = self.folder.join(RECORD);
        if !path.is_file() {
            return Ok(());
        }
        let earlier: Earlier = checkpoints::fs::read_json(&path)?;
        if earlier.schema != SCHEMA {
            return Err(JobError::Data {
                message: format!(
                    "`{}` has schema `{}`, expected `{SCHEMA}`",
                    path.display(),
                    earlier.schema
                ),
                hint: Some("name another folder with `--out`".to_owned()),
            });
        }
        for page in &mut self.pages {
            let is_meant = |known: &&EarlierPicture| {
                known.file == page.path && known.identity_sha256 == page.identity_sha256
            };
            let Some(known) = earlier.pictures.iter().find(is_meant) else { continue };
            let file = self.folder.join(&page.path);
            if file.is_file() && file_sha256(&file)?.0 == known.sha256 {
                page.sha256 = Some(known.sha256.clone());
            }
        }
        Ok(())
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// All pictures, series by series.
    pub(super) fn pages(&self) -> &[Page<'a>] {
        &self.pages
    }

    /// Places in [`Self::pages`] whose pictures are not there yet.
    pub(super) fn missing(&self) -> Vec<usize> {
        let pages = self.pages.iter().enumerate();
        pages.filter(|(_, page)| page.sha256.is_none()).map(|(place, _)| place).collect()
    }

    /// Writes a picture, then the record; the path of its file.
    ///
    /// # Errors
    ///
    /// A disk that is full or cannot be written.
    pub(super) fn add(&mut self, place: usize, image: &RgbImage) -> Result<PathBuf, JobError> {
        let page = &self.pages[place];
        let path = self.folder.join(&page.path);
        let mut about = json!(self.provenance);
        about["prompt"] = json!(page.picture.instruction);
        about["seed"] = json!(page.picture.seed);
        let bytes = picture::png(image, &[("populate", &about.to_string())])?;
        checkpoints::fs::atomic_write(&path, &bytes)?;
        self.pages[place].sha256 = Some(bytes_sha256(&bytes));
        self.write_record(None)?;
        Ok(path)
    }

    /// Reads a picture.
    ///
    /// # Errors
    ///
    /// A file that is no picture.
    pub(super) fn image(&self, place: usize) -> Result<RgbImage, JobError> {
        let path = self.folder.join(&self.pages[place].path);
        Ok(datasets::image_from_file(&path, GROUND)?)
    }

    /// Writes the record with what was measured, and the list of instructions.
    ///
    /// # Errors
    ///
    /// A disk that is full or cannot be written.
    pub(super) fn finish(&self, consistency: &Consistency) -> Result<(), JobError> {
        let instructions = self.instructions();
        let path = self.folder.join(INSTRUCTIONS);
        checkpoints::fs::atomic_write(&path, instructions.as_bytes())?;
        self.write_record(Some(consistency))
    }

    /// Writes both contact sheets; the path of the one for browsers.
    ///
    /// # Errors
    ///
    /// A picture that cannot be read; a disk that is full or cannot be written.
    pub(super) fn lay_out(&self, consistency: &Consistency) -> Result<PathBuf, JobError> {
        let sheet = contact_sheet::sheet(self)?;
        checkpoints::fs::atomic_write(&self.folder.join(SHEET_PICTURE), &sheet)?;
        let page = page::page(self, consistency)?;
        let path = self.folder.join(SHEET_PAGE);
        checkpoints::fs::atomic_write(&path, page.as_bytes())?;
        Ok(path)
    }

    /// Name of the series file.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// What all pictures have in common.
    pub(super) fn provenance(&self) -> &'a Provenance {
        self.provenance
    }

    /// The places of each series, by its name, in order.
    pub(super) fn series(&self) -> Vec<(&'a str, Vec<usize>)> {
        let mut all: Vec<(&str, Vec<usize>)> = Vec::new();
        for (place, page) in self.pages.iter().enumerate() {
            match all.last_mut() {
                Some((name, places)) if *name == page.series => places.push(place),
                Some(_) | None => all.push((page.series, vec![place])),
            }
        }
        all
    }

    fn write_record(&self, consistency: Option<&Consistency>) -> Result<(), JobError> {
        let pictures = self.pages.iter().filter_map(|page| {
            Some(PictureRecord {
                series: page.series,
                number: page.number,
                instruction: &page.picture.instruction,
                slots: &page.picture.slots,
                seed: page.picture.seed,
                file: &page.path,
                sha256: page.sha256.as_deref()?,
                identity_sha256: &page.identity_sha256,
            })
        });
        let record = Record {
            schema: SCHEMA,
            name: self.name,
            series_file_sha256: &self.file_sha256,
            provenance: self.provenance,
            complete: consistency.is_some(),
            pictures: pictures.collect(),
            consistency,
        };
        Ok(checkpoints::fs::atomic_write_json(&self.folder.join(RECORD), &record)?)
    }

    /// The instructions as CSV: header, UTF-8, LF; a column for each slot of the file.
    fn instructions(&self) -> String {
        let names = self.pages.iter().flat_map(|page| page.picture.slots.keys());
        let slots: BTreeSet<&String> = names.collect();
        let leading = ["series", "number", "file", "seed", "instruction"];
        let mut header: Vec<String> = leading.map(str::to_owned).to_vec();
        header.extend(slots.iter().map(|slot| format!("slot.{slot}")));
        let mut text = String::new();
        eval::rows::write_record(&mut text, &header);
        for page in &self.pages {
            let Picture { instruction, slots: values, seed } = page.picture;
            let mut record = vec![
                page.series.to_owned(),
                page.number.to_string(),
                page.path.clone(),
                seed.to_string(),
                instruction.clone(),
            ];
            record.extend(slots.iter().map(|slot| values.get(*slot).cloned().unwrap_or_default()));
            eval::rows::write_record(&mut text, &record);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
schema: populate/series/1
name: week
base: postcards
templates: { card: \"a {thing}, {time}\" }
slots: { thing: [boat, tower], time: [day, \"night, dark\"] }
series:
  harbor: { pictures: 3 }
  winter: { pictures: 2, slots: { thing: tower } }
";

    fn file(text: &str) -> SeriesFile {
        recipes::series::parse(text, "t.yaml").unwrap()
    }

    fn open<'a>(
        folder: &Path,
        file: &'a SeriesFile,
        provenance: &'a Provenance,
    ) -> Result<Album<'a>, JobError> {
        Album::open(folder, file, provenance, "5".repeat(64))
    }

    /// A picture that tells its place.
    fn drawn(place: usize) -> RgbImage {
        RgbImage::from_pixel(4, 4, image::Rgb([place as u8 * 20; 3]))
    }

    fn fill(album: &mut Album<'_>) {
        for place in album.missing() {
            album.add(place, &drawn(place)).unwrap();
        }
    }

    #[test]
    fn pictures_lie_in_the_folder_of_their_series() {
        let dir = tempfile::tempdir().unwrap();
        let (file, provenance) = (file(FILE), Provenance::imagined());
        let mut album = open(dir.path(), &file, &provenance).unwrap();
        assert_eq!(album.missing(), [0, 1, 2, 3, 4]);
        fill(&mut album);
        assert!(album.missing().is_empty());
        let paths: Vec<&str> = album.pages().iter().map(|page| page.path.as_str()).collect();
        let expected = [
            "harbor/001.png",
            "harbor/002.png",
            "harbor/003.png",
            "winter/001.png",
            "winter/002.png",
        ];
        assert_eq!(paths, expected);
        assert_eq!(album.series(), [("harbor", vec![0, 1, 2]), ("winter", vec![3, 4])]);
        assert_eq!(album.image(3).unwrap(), drawn(3));
        assert!(dir.path().join("winter/001.png").is_file());
    }

    #[test]
    fn a_picture_that_is_there_is_not_drawn_again() {
        let dir = tempfile::tempdir().unwrap();
        let (file, provenance) = (file(FILE), Provenance::imagined());
        let mut album = open(dir.path(), &file, &provenance).unwrap();
        // As if the command had been killed behind the second picture.
        album.add(0, &drawn(0)).unwrap();
        album.add(3, &drawn(3)).unwrap();
        let mut album = open(dir.path(), &file, &provenance).unwrap();
        assert_eq!(album.missing(), [1, 2, 4]);
        fill(&mut album);
        assert!(open(dir.path(), &file, &provenance).unwrap().missing().is_empty());
        // One that was changed, and one that is gone.
        checkpoints::fs::atomic_write(&dir.path().join("harbor/002.png"), b"retouched").unwrap();
        checkpoints::fs::remove_file(&dir.path().join("winter/002.png")).unwrap();
        assert_eq!(open(dir.path(), &file, &provenance).unwrap().missing(), [1, 4]);
    }

    #[test]
    fn pictures_of_other_settings_are_drawn_again_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (first, provenance) = (file(FILE), Provenance::imagined());
        fill(&mut open(dir.path(), &first, &provenance).unwrap());
        let stronger = Provenance { guidance_scale: 9.0, ..Provenance::imagined() };
        assert_eq!(open(dir.path(), &first, &stronger).unwrap().missing(), [0, 1, 2, 3, 4]);
        // A series that comes, even before the others, and another instruction in one that was.
        let more = FILE
            .replace("  harbor", "  autumn: { pictures: 1 }\n  harbor")
            .replace("{ thing: tower }", "{ thing: tower, time: day }, seeds: [1, 2]");
        let more = file(&more);
        let album = open(dir.path(), &more, &provenance).unwrap();
        assert_eq!(album.missing(), [0, 4, 5]);
    }

    #[test]
    fn the_record_grows_with_the_pictures_and_has_the_same_bytes_each_time() {
        let bytes = |folder: &Path| checkpoints::fs::read(&folder.join(RECORD)).unwrap();
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (file, provenance) = (file(FILE), Provenance::imagined());
        for dir in &dirs {
            fill(&mut open(dir.path(), &file, &provenance).unwrap());
        }
        assert_eq!(bytes(dirs[0].path()), bytes(dirs[1].path()));
        let record: serde_json::Value =
            checkpoints::fs::read_json(&dirs[0].path().join(RECORD)).unwrap();
        assert_eq!(record["complete"], false, "nothing was measured");
        let pictures = record["pictures"].as_array().unwrap();
        assert_eq!(pictures.len(), 5);
        let second = &pictures[1];
        assert_eq!(second["instruction"], "a tower, night, dark");
        assert_eq!(second["slots"], json!({ "thing": "tower", "time": "night, dark" }));
        assert_eq!((&second["series"], &second["number"]), (&json!("harbor"), &json!(2)));
        assert_eq!(second["seed"], json!(file.series[0].pictures[1].seed));
        let sha256 = file_sha256(&dirs[0].path().join("harbor/002.png")).unwrap().0;
        assert_eq!(second["sha256"], json!(sha256));
        let text = String::from_utf8(bytes(dirs[0].path())).unwrap();
        assert!(!text.contains(&dirs[0].path().display().to_string()), "no path of this machine");
    }

    #[test]
    fn a_record_of_another_format_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, provenance) = (file(FILE), Provenance::imagined());
        let other = json!({ "schema": "populate/series-record/2", "pictures": [] });
        checkpoints::fs::atomic_write_json(&dir.path().join(RECORD), &other).unwrap();
        let error = open(dir.path(), &file, &provenance).unwrap_err();
        assert!(error.to_string().contains("expected `populate/series-record/1`"), "{error}");
        let taken = dir.path().join("taken");
        checkpoints::fs::atomic_write(&taken, b"").unwrap();
        let error = open(&taken, &file, &provenance).unwrap_err();
        assert!(error.to_string().starts_with("`--out` must name a folder"), "{error}");
    }

    #[test]
    fn instructions_are_a_table_with_a_column_for_each_slot() {
        let dir = tempfile::tempdir().unwrap();
        let (file, provenance) = (file(FILE), Provenance::imagined());
        let album = open(dir.path(), &file, &provenance).unwrap();
        let text = album.instructions();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("series,number,file,seed,instruction,slot.thing,slot.time"));
        let seed = file.series[0].pictures[1].seed;
        let second = format!(
            "harbor,2,harbor/002.png,{seed},\"a tower, night, dark\",tower,\"night, dark\""
        );
        assert_eq!(lines.nth(1), Some(second.as_str()));
        assert_eq!(text.lines().count(), 6);
    }
}
