//! Owns the pictures of the page: files beside it, each content once, or `data:` URIs within it.

use super::Form;
use super::thumbnail::{self, Reduced};
use eval::Pictures;
use std::collections::{BTreeMap, BTreeSet};

/// Longest side of a picture beside the page in pixels; larger ones are reduced.
const BESIDE_PX: u32 = 512;

/// A picture as the page refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plate {
    /// Where it lies, seen from the page, or all of it.
    pub(crate) source: String,
    /// Width in pixels.
    pub(crate) width: u32,
    /// Height in pixels.
    pub(crate) height: u32,
}

/// All pictures that the page may show.
#[derive(Clone, Debug)]
pub(crate) struct Plates {
    form: Form,
    shown: BTreeMap<String, Plate>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Plates {
    /// Pictures as files of `img/`: PNG as they are, larger ones as smaller JPEG. Pictures of the same
    /// content are one file, named after the first of them.
    pub(crate) fn beside(pictures: &Pictures) -> Self {
        let mut plates = BTreeMap::new();
        let mut files = BTreeMap::new();
        let mut known: BTreeMap<&[u8], Plate> = BTreeMap::new();
        for (path, png) in &pictures.files {
            if let Some(plate) = known.get(png.as_slice()) {
                plates.insert(path.clone(), plate.clone());
                continue;
            }
            let Some(picture) = thumbnail::reduced(png, BESIDE_PX) else { continue };
            let name = free_name(path, picture.extension(), &files);
            let plate = Plate {
                source: format!("img/{name}"),
                width: picture.width,
                height: picture.height,
            };
            files.insert(name, picture.bytes);
            known.insert(png, plate.clone());
            plates.insert(path.clone(), plate);
        }
        Self { form: Form::Folder, shown: plates, files }
    }

    /// Pictures within the page, none larger than `longest_px`; none at all of `None`.
    pub(crate) fn within(pictures: &Pictures, longest_px: Option<u32>) -> Self {
        let plate = |png: &[u8]| {
            let Reduced { bytes, width, height, jpeg } = thumbnail::reduced(png, longest_px?)?;
            let kind = if jpeg { "jpeg" } else { "png" };
            let source = format!("data:image/{kind};base64,{}", thumbnail::base64(&bytes));
            Some(Plate { source, width, height })
        };
        let plates = pictures
            .files
            .iter()
            .filter_map(|(path, png)| Some((path.clone(), plate(png)?)))
            .collect();
        Self { form: Form::SelfContained, shown: plates, files: BTreeMap::new() }
    }

    /// How the page keeps its pictures.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// A picture by its path within the census.
    pub(crate) fn get(&self, path: &str) -> Option<&Plate> {
        self.shown.get(path)
    }

    /// The files that these pages show, by their path within the run directory.
    pub(crate) fn shown(self, pages: &[String]) -> Vec<(String, Vec<u8>)> {
        let shown: BTreeSet<&str> = pages
            .iter()
            .flat_map(|page| page.split("src=\"img/").skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let files = self.files.into_iter().filter(|(name, _)| shown.contains(name.as_str()));
        files.map(|(name, bytes)| (format!("report/img/{name}"), bytes)).collect()
    }
}

/// A file name that tells where a picture comes from: `adapted-1-empty-empty-00016.png`.
fn free_name(path: &str, extension: &str, taken: &BTreeMap<String, Vec<u8>>) -> String {
    let stem = path.strip_prefix("pictures/").unwrap_or(path);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let stem: String = stem.to_ascii_lowercase().chars().map(plain).collect();
    let numbered = |n: usize| match n {
        1 => format!("{stem}.{extension}"),
        _ => format!("{stem}-{n}.{extension}"),
    };
    // One of so many names more than there are files is free.
    (1..=taken.len() + 1).map(numbered).find(|name| !taken.contains_key(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::tests::png;

    fn pictures() -> Pictures {
        let files = [
            ("pictures/base-0/empty-empty/00001.png", png(64, 10)),
            ("pictures/adapted-0/empty-empty/00001.png", png(64, 10)),
            ("pictures/adapted-1/empty-empty/00001.png", png(64, 200)),
            ("pictures/adapted-1/empty empty/00001.png", png(900, 90)),
        ];
        let files = files.map(|(path, png)| (path.to_owned(), png));
        Pictures { files: files.into_iter().collect(), references: Vec::new() }
    }

    #[test]
    fn pictures_of_the_same_content_are_one_file() {
        let plates = Plates::beside(&pictures());
        let source = |path: &str| plates.get(path).unwrap().source.clone();
        let zero = source("pictures/adapted-0/empty-empty/00001.png");
        assert_eq!(zero, "img/adapted-0-empty-empty-00001.png");
        assert_eq!(zero, source("pictures/base-0/empty-empty/00001.png"));
        assert_eq!(plates.files.len(), 3);
        let large = plates.get("pictures/adapted-1/empty empty/00001.png").unwrap();
        assert_eq!((large.width, large.height), (512, 512));
        assert_eq!(large.source, "img/adapted-1-empty-empty-00001.jpg");
        assert_eq!(plates.files["adapted-0-empty-empty-00001.png"], png(64, 10));
        let pages = [format!("<img src=\"{zero}\" alt=\"\"><img src=\"img/other.png\">")];
        let shown = plates.shown(&pages);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].0, "report/img/adapted-0-empty-empty-00001.png");
    }

    #[test]
    fn pictures_within_the_page_are_uris() {
        let plates = Plates::within(&pictures(), Some(128));
        let small = plates.get("pictures/adapted-1/empty-empty/00001.png").unwrap();
        assert!(small.source.starts_with("data:image/png;base64,iVBOR"));
        let large = plates.get("pictures/adapted-1/empty empty/00001.png").unwrap();
        assert!(large.source.starts_with("data:image/jpeg;base64,/9j/"));
        assert_eq!(large.width, 128);
        let none = Plates::within(&pictures(), None);
        assert!(none.get("pictures/adapted-1/empty-empty/00001.png").is_none());
    }

    #[test]
    fn names_of_files_never_meet() {
        let taken = [("a-b.png".to_owned(), Vec::new())].into_iter().collect();
        assert_eq!(free_name("pictures/a/b.png", "png", &taken), "a-b-2.png");
        assert_eq!(free_name("pictures/../ü/b.png", "png", &taken), "..---b.png");
    }
}
