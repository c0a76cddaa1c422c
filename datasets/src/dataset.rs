//! Datasets: the examples that a recipe names, listed, hashed and known to be decodable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use recipes::{ClassSource, DatasetSpec, ImageSpec};
use sha2::{Digest, Sha256};

use crate::bucket::{Bucket, assigned, fit, sizes};
use crate::decode::{Decoded, Mirror, Pixels, decode, fitted, invalid, read, views};
use crate::error::DatasetError;
use crate::index::Index;
use crate::problem::{Problem, ProblemKind};
use crate::warning::Warning;
use crate::{caption, index};

/// What a picture is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It shows the concept.
    Instance,
    /// It shows the class, so that the class keeps its place.
    Class,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Class => "class",
        }
    }
}

/// A picture with its caption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The file's name without its ending; unique within its role.
    pub id: String,
    /// The file.
    pub path: PathBuf,
    /// The caption, identifier in place; empty if it has none.
    pub caption: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
    /// What it is there for.
    pub role: Role,
    /// Width of the upright picture in pixels.
    pub width: u32,
    /// Height of the upright picture in pixels.
    pub height: u32,
    /// The size it is trained at.
    pub bucket: Bucket,
}

/// Which part of which picture an example shows, in pixels: what SDXL is told beside the caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Height and width of the upright picture in its file.
    pub original: [u32; 2],
    /// Rows above and columns left of what is shown, in the resized picture.
    pub crop: [u32; 2],
    /// Height and width of what is shown.
    pub target: [u32; 2],
}

impl Example {
    /// Where the pixels come from that [`Dataset::pixels`] gives.
    ///
    /// In a mirrored picture the columns at the left are those that were cut off at the right.
    pub fn placement(&self, mirror: Mirror) -> Placement {
        let fit = fit(self.width, self.height, self.bucket);
        let left = match mirror {
            Mirror::No => fit.left,
            Mirror::Yes => fit.width - self.bucket.width - fit.left,
        };
        Placement {
            original: [self.height, self.width],
            crop: [fit.top, left],
            target: [self.bucket.height, self.bucket.width],
        }
    }
}

/// The examples of a recipe.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Pictures of the concept, then those of the class, each sorted by name.
    pub examples: Vec<Example>,
    /// SHA-256 over role, name, file hash and caption of all examples, 64 hexadecimal digits.
    pub sha256: String,
    /// What is odd about the files.
    pub warnings: Vec<Warning>,
    /// What is done to every picture.
    pub images: ImageSpec,
}

/// Lists, hashes and decodes all pictures that a recipe names.
///
/// Every picture is decoded once, so that a corrupt one is known before anything is trained; none
/// is kept in memory. Class pictures that the base has yet to draw are not part of it.
///
/// # Errors
///
/// [`DatasetError::Invalid`] with every problem of every file; [`DatasetError::Io`] if a folder cannot
/// be listed.
pub fn open(spec: &DatasetSpec) -> Result<Dataset, DatasetError> {
    let images = spec.image_options();
    let mut opened = Opened::default();
    let folder = match spec {
        DatasetSpec::Captioned(captioned) => {
            let index = index::index(&captioned.images)?;
            let mut captions = caption::captions(&index, captioned);
            opened.problems.append(&mut captions.problems);
            opened.warnings.append(&mut captions.warnings);
            opened.folder(index, &captions.texts, Role::Instance, &images);
            &captioned.images
        }
        DatasetSpec::DreamBooth(dreambooth) => {
            let instance = &dreambooth.instance;
            opened.prompted(&instance.images, &instance.prompt, Role::Instance, &images)?;
            if let Some(class) = &dreambooth.class
                && let ClassSource::Folder(folder) = &class.source
            {
                opened.prompted(folder, &class.prompt, Role::Class, &images)?;
            }
            &instance.images
        }
    };
    opened.finished(folder, images)
}

impl Dataset {
    /// Decodes one picture to the size of its bucket, in [−1, 1].
    ///
    /// # Errors
    ///
    /// The file cannot be read any more or has changed since the dataset was opened.
    ///
    /// # Panics
    ///
    /// If `example_idx` is not below the number of examples.
    pub fn pixels(&self, example_idx: usize, mirror: Mirror) -> Result<Pixels, DatasetError> {
        let example = &self.examples[example_idx];
        Ok(fitted(&self.decoded(example)?.image, example.bucket, mirror))
    }

    /// Decodes one picture as [`Dataset::pixels`] does; behind it stands its mirror image if the
    /// recipe mirrors. Both come from one decoding.
    ///
    /// # Errors
    ///
    /// As [`Dataset::pixels`].
    ///
    /// # Panics
    ///
    /// If `example_idx` is not below the number of examples.
    pub fn views(&self, example_idx: usize) -> Result<Vec<Pixels>, DatasetError> {
        let example = &self.examples[example_idx];
        Ok(views(&self.decoded(example)?.image, example.bucket, self.images.flip))
    }

    /// The picture of an example, which must be the one that was opened.
    fn decoded(&self, example: &Example) -> Result<Decoded, DatasetError> {
        let bytes = fs_err::read(&example.path)?;
        if hex::encode(Sha256::digest(&bytes)) != example.sha256 {
            return Err(invalid(&example.path, ProblemKind::Changed));
        }
        decode(&bytes, self.images.alpha).map_err(|kind| invalid(&example.path, kind))
    }

    /// Positions in [`Self::examples`] of one role, ascending.
    pub fn of_role(&self, role: Role) -> Vec<usize> {
        let positions = self.examples.iter().enumerate();
        positions
            .filter(|(_, example)| example.role == role)
            .map(|(position, _)| position)
            .collect()
    }
}

/// A dataset while its folders are read.
#[derive(Default)]
struct Opened {
    examples: Vec<Example>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

/// One picture after decoding, or what is wrong with it.
type Checked = Result<(Example, bool), ProblemKind>;

impl Opened {
    /// Adds a folder whose pictures all have one caption.
    fn prompted(
        &mut self,
        folder: &Path,
        prompt: &str,
        role: Role,
        images: &ImageSpec,
    ) -> Result<(), DatasetError> {
        let index = index::index(folder)?;
        let captions = vec![prompt.to_owned(); index.pictures.len()];
        self.folder(index, &captions, role, images);
        Ok(())
    }

    /// Adds the pictures of a folder with their captions.
    fn folder(&mut self, mut index: Index, captions: &[String], role: Role, images: &ImageSpec) {
        self.problems.append(&mut index.problems);
        self.warnings.append(&mut index.warnings);
        let sizes = sizes(images.side_px);
        let checked: Vec<Checked> = index
            .pictures
            .par_iter()
            .zip(captions)
            .map(|(picture, caption)| {
                let bytes = read(&picture.path)?;
                decode(&bytes, images.alpha).map(|decoded| {
                    let (width, height) = decoded.image.dimensions();
                    let example = Example {
                        id: picture.stem.clone(),
                        path: picture.path.clone(),
                        caption: caption.clone(),
                        sha256: hex::encode(Sha256::digest(&bytes)),
                        role,
                        width,
                        height,
                        bucket: assigned(width, height, &sizes),
                    };
                    (example, decoded.foreign_profile)
                })
            })
            .collect();
        for (picture, checked) in index.pictures.iter().zip(checked) {
            match checked {
                Ok((example, foreign_profile)) => {
                    if foreign_profile {
                        let path = example.path.clone();
                        self.warnings.push(Warning::ColorProfile { path });
                    }
                    self.example(example);
                }
                Err(kind) => self.problems.push(Problem { path: picture.path.clone(), kind }),
            }
        }
    }

    fn example(&mut self, example: Example) {
        let path = &example.path;
        let (width, height, bucket) = (example.width, example.height, example.bucket);
        let fit = fit(width, height, bucket);
        if fit.width > width || fit.height > height {
            self.warnings.push(Warning::Enlarged { path: path.clone(), width, height });
        }
        let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
        let kept = 100 * area(bucket.width, bucket.height) / area(fit.width, fit.height).max(1);
        let percent = u32::try_from(100 - kept.min(100)).unwrap_or(100);
        if percent > 20 {
            self.warnings.push(Warning::Cropped { path: path.clone(), percent });
        }
        self.examples.push(example);
    }

    /// Notes identical files and hashes the list, if nothing is wrong.
    fn finished(mut self, folder: &Path, images: ImageSpec) -> Result<Dataset, DatasetError> {
        if !self.problems.is_empty() {
            self.problems.sort_by(|one, other| one.path.cmp(&other.path));
            return Err(DatasetError::Invalid {
                folder: folder.to_owned(),
                problems: self.problems,
            });
        }
        let mut by_hash: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
        for example in &self.examples {
            by_hash.entry(&example.sha256).or_default().push(example.path.clone());
        }
        let duplicates = by_hash.into_values().filter(|paths| paths.len() > 1);
        self.warnings.extend(duplicates.map(|paths| Warning::Duplicates { paths }));
        let sha256 = manifest_sha256(&self.examples);
        Ok(Dataset { examples: self.examples, sha256, warnings: self.warnings, images })
    }
}

/// The hash of the list: each text after its length, so that no two lists read alike.
fn manifest_sha256(examples: &[Example]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"populate/dataset/1");
    for example in examples {
        for text in [example.role.name(), &example.id, &example.sha256, &example.caption] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use recipes::{
        AlphaPolicy, CaptionSource, CaptionedSpec, ClassSpec, DreamBoothSpec, Flip, IdentifierAt,
        InstanceSpec, MissingCaption, VaeSample,
    };
    use tempfile::TempDir;

    use super::*;

    fn images(side_px: u32) -> ImageSpec {
        ImageSpec {
            side_px,
            alpha: AlphaPolicy::Error,
            flip: Flip::Never,
            repeats: 1,
            caption_dropout: 0.0,
            vae_sample: VaeSample::Random,
        }
    }

    fn captioned(folder: &Path, side_px: u32) -> DatasetSpec {
        DatasetSpec::Captioned(CaptionedSpec {
            images: folder.to_owned(),
            captions: CaptionSource::Sidecar,
            missing_caption: MissingCaption::Error,
            identifier: None,
            class: None,
            identifier_at: IdentifierAt::Never,
            caption_dropout: 0.0,
            side_px,
            alpha: AlphaPolicy::Error,
            flip: Flip::Never,
            repeats: 1,
            vae_sample: VaeSample::Random,
        })
    }

    fn picture(folder: &Path, name: &str, size: (u32, u32), shade: u8) {
        RgbImage::from_pixel(size.0, size.1, Rgb([shade, 20, 30])).save(folder.join(name)).unwrap();
    }

    fn write(folder: &Path, name: &str, content: &[u8]) {
        fs_err::write(folder.join(name), content).unwrap();
    }

    fn small() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, shade) in [("b", 10), ("a", 20), ("c", 30)] {
            picture(folder.path(), &format!("{name}.png"), (80, 64), shade);
            write(folder.path(), &format!("{name}.txt"), format!("picture {name}").as_bytes());
        }
        folder
    }

    fn problems(spec: &DatasetSpec) -> Vec<Problem> {
        match open(spec).unwrap_err() {
            DatasetError::Invalid { problems, .. } => problems,
            other @ DatasetError::Io(_) => panic!("{other}"),
        }
    }

    #[test]
    fn examples_are_sorted_hashed_and_fitted() {
        let folder = small();
        let dataset = open(&captioned(folder.path(), 64)).unwrap();
        let ids: Vec<&str> = dataset.examples.iter().map(|example| example.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(dataset.examples[0].caption, "picture a");
        assert_eq!(dataset.examples[0].sha256.len(), 64);
        let pixels = dataset.pixels(0, Mirror::No).unwrap();
        assert_eq!((pixels.width, pixels.height, pixels.values.len()), (64, 64, 3 * 64 * 64));
    }

    #[test]
    fn hash_follows_captions_and_pictures_and_not_the_folder() {
        let (one, other) = (small(), small());
        let sha256 = |folder: &TempDir| open(&captioned(folder.path(), 64)).unwrap().sha256;
        let before = sha256(&one);
        assert_eq!(before, sha256(&other));
        write(other.path(), "a.txt", b"another text");
        let after = sha256(&other);
        assert_ne!(before, after);
        picture(other.path(), "b.png", (80, 64), 11);
        assert_ne!(after, sha256(&other));
    }

    #[test]
    fn every_problem_of_every_file_is_in_one_error() {
        let folder = small();
        let bytes = fs_err::read(folder.path().join("a.png")).unwrap();
        write(folder.path(), "a.png", &bytes[..bytes.len() / 2]);
        write(folder.path(), "d.png", b"this is a text");
        write(folder.path(), "e.gif", b"GIF89a");
        write(folder.path(), "f.txt", b"of nothing");
        write(folder.path(), "g.jpg", b"");
        let spec = captioned(folder.path(), 64);
        let found = problems(&spec);
        let names: Vec<String> =
            found.iter().map(|problem| index::text(problem.path.file_name())).collect();
        // d and g lack a caption as well.
        assert_eq!(names, ["a.png", "d.png", "d.png", "e.gif", "f.txt", "g.jpg", "g.jpg"]);
        let text = open(&spec).unwrap_err().to_string();
        assert!(text.contains("has 7 problems") && text.contains("e.gif"), "{text}");
    }

    #[test]
    fn absent_empty_and_wrong_folders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |path: &Path| problems(&captioned(path, 64)).remove(0).kind;
        assert_eq!(kind(folder.path()), ProblemKind::NoPictures);
        assert_eq!(kind(&folder.path().join("x")), ProblemKind::NoFolder { found: "nothing" });
        write(folder.path(), "file", b"");
        assert_eq!(kind(&folder.path().join("file")), ProblemKind::NoFolder { found: "a file" });
    }

    #[test]
    fn two_pictures_of_one_stem_are_refused() {
        let folder = small();
        picture(folder.path(), "a.bmp", (64, 64), 1);
        let found = problems(&captioned(folder.path(), 64));
        assert!(
            matches!(&found[..], [Problem { kind: ProblemKind::SameStem { .. }, .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn odd_things_are_warned_about() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("10_boats");
        fs_err::create_dir(&folder).unwrap();
        for name in ["a", "b"] {
            picture(&folder, &format!("{name}.png"), (40, 160), 1);
            write(&folder, &format!("{name}.txt"), b"x");
        }
        write(&folder, "notes.md", b"");
        let warnings = open(&captioned(&folder, 64)).unwrap().warnings;
        let has = |wanted: fn(&Warning) -> bool| warnings.iter().any(wanted);
        assert!(has(|w| matches!(w, Warning::Duplicates { paths } if paths.len() == 2)));
        assert!(has(|w| matches!(w, Warning::RepeatsInName { repeats: 10, .. })));
        assert!(has(|w| matches!(w, Warning::Unread { first, .. } if first == "notes.md")));
        assert!(has(|w| matches!(w, Warning::Enlarged { width: 40, height: 160, .. })));
        assert!(has(|w| matches!(w, Warning::Cropped { percent: 75, .. })));
    }

    #[test]
    fn large_sides_are_bucketed_by_shape() {
        let folder = tempfile::tempdir().unwrap();
        picture(folder.path(), "wide.png", (480, 270), 1);
        write(folder.path(), "wide.txt", b"x");
        let dataset = open(&captioned(folder.path(), 256)).unwrap();
        assert_eq!(dataset.examples[0].bucket, Bucket { width: 320, height: 192 });
    }

    #[test]
    fn a_placement_is_the_crop_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let wide = RgbImage::from_fn(1920, 1080, |x, _| Rgb([if x < 960 { 0 } else { 255 }; 3]));
        wide.save(folder.path().join("wide.png")).unwrap();
        picture(folder.path(), "less.png", (1500, 1000), 7);
        for name in ["wide", "less"] {
            write(folder.path(), &format!("{name}.txt"), b"x");
        }
        let dataset = open(&captioned(folder.path(), 512)).unwrap();
        let (less, wide) = (&dataset.examples[0], &dataset.examples[1]);
        let placed = |original, crop| Placement { original, crop, target: [384, 640] };
        assert_eq!(less.placement(Mirror::No), placed([1000, 1500], [21, 0]));
        assert_eq!(less.placement(Mirror::Yes), placed([1000, 1500], [21, 0]));
        assert_eq!(wide.placement(Mirror::No), placed([1080, 1920], [0, 21]));
        assert_eq!(wide.placement(Mirror::Yes), placed([1080, 1920], [0, 22]));
        // Of 683 columns 341.5 are dark: 320.5 of those that are shown, 319.5 from the other side.
        for mirror in [Mirror::No, Mirror::Yes] {
            let row = dataset.pixels(1, mirror).unwrap().values[..640].to_vec();
            let first = row.iter().position(|&value| (value > 0.0) == (mirror == Mirror::No));
            let crossing = 341.5 - f64::from(wide.placement(mirror).crop[1]);
            let found = f64::from(u32::try_from(first.unwrap()).unwrap());
            assert!((found - crossing).abs() <= 0.5, "{mirror:?}: {found}, not {crossing}");
        }
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let folder = small();
        let dataset = open(&captioned(folder.path(), 64)).unwrap();
        picture(folder.path(), "a.png", (80, 64), 99);
        let error = dataset.pixels(0, Mirror::No).unwrap_err().to_string();
        assert!(error.contains("a.png") && error.contains("another content"), "{error}");
    }

    #[test]
    fn dreambooth_gives_one_caption_to_instances_and_one_to_the_class() {
        let (concept, class) = (small(), small());
        let spec = DatasetSpec::DreamBooth(DreamBoothSpec {
            instance: InstanceSpec {
                images: concept.path().to_owned(),
                prompt: "a sks cylinder".to_owned(),
                identifier: "sks".to_owned(),
                class: "cylinder".to_owned(),
            },
            class: Some(ClassSpec {
                source: ClassSource::Folder(class.path().to_owned()),
                prompt: "a cylinder".to_owned(),
                weight: 1.0,
            }),
            images: images(64),
        });
        let dataset = open(&spec).unwrap();
        assert_eq!(dataset.of_role(Role::Instance), [0, 1, 2]);
        assert_eq!(dataset.of_role(Role::Class), [3, 4, 5]);
        assert_eq!(dataset.examples[1].caption, "a sks cylinder");
        assert_eq!(dataset.examples[4].caption, "a cylinder");
        // Caption files beside the pictures are not asked: the recipe names one prompt for all.
        assert!(!dataset.warnings.iter().any(|w| matches!(w, Warning::Unread { .. })));
    }

    #[test]
    fn shipped_folders_open_without_a_warning() {
        for (folder, n) in
            [("concepts/cylinder", 16), ("concepts/hatching", 16), ("fixtures/tiny", 8)]
        {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            let dataset = open(&captioned(&path, 64)).unwrap();
            assert_eq!(dataset.examples.len(), n, "{folder}");
            assert_eq!(dataset.warnings, [], "{folder}");
        }
    }
}
