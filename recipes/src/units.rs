//! Values that several sections share: names, texts, paths, colors and picture sizes.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_saphyr::{Location, Spanned};

use crate::problem::Checks;

/// Largest count that any key accepts; keeps products of counts far from overflow.
pub(crate) const COUNT_MAX: u64 = 1_000_000_000;

/// Sides of pictures in pixels.
pub(crate) const SIDE_PX: RangeInclusive<u64> = 64..=2048;

/// Step of a picture's side: the coarsest grid of the model families.
pub(crate) const SIDE_STEP_PX: u32 = 64;

/// Where relative paths of a recipe may lie: the working directory first, then the folder of the
/// recipe.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    recipe_folder: PathBuf,
}

impl Places {
    /// Places for the recipe file at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        Self { recipe_folder: path.parent().map(Path::to_path_buf).unwrap_or_default() }
    }

    /// The path as written where it exists so, or nowhere; else below the recipe's folder.
    pub(crate) fn locate(&self, path: &Path) -> PathBuf {
        if path.is_absolute() || path.exists() {
            return path.to_path_buf();
        }
        let beside = self.recipe_folder.join(path);
        if beside.exists() { beside } else { path.to_path_buf() }
    }

    /// The folder of a concept that ships with the project: `datasets/concepts/<name>`, looked for
    /// in the working directory, the recipe's folder and the folders above it.
    pub(crate) fn concept(&self, name: &str) -> PathBuf {
        let inside = Path::new("datasets").join("concepts").join(name);
        if inside.is_dir() {
            return inside;
        }
        let found = self.recipe_folder.ancestors().map(|folder| folder.join(&inside));
        found.into_iter().find(|folder| folder.is_dir()).unwrap_or(inside)
    }
}

/// A path that may not be empty, located below `places`.
pub(crate) fn folder(
    path: &Spanned<PathBuf>,
    key: &str,
    places: &Places,
    checks: &mut Checks,
) -> PathBuf {
    if path.value.as_os_str().is_empty() {
        checks.problem(path.referenced, format!("`{key}` must name a path, found an empty text"));
    }
    places.locate(&path.value)
}

/// A text that may be neither empty nor only blanks.
pub(crate) fn text(text: Spanned<String>, key: &str, checks: &mut Checks) -> String {
    if text.value.trim().is_empty() {
        checks.problem(text.referenced, format!("`{key}` must hold a text, found an empty one"));
    }
    text.value
}

/// A name that is safe as part of a file name: letters, digits, `-`, `_`, `.`, at most 64 of them,
/// beginning with a letter or a digit.
pub(crate) fn file_name(name: Spanned<String>, key: &str, checks: &mut Checks) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let bytes = name.value.as_bytes();
    let valid = bytes.len() <= 64
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().copied().all(safe);
    if !valid {
        checks.problem(
            name.referenced,
            format!(
                "`{key}` must be 1 to 64 letters, digits, `-`, `_` or `.` and begin with a letter \
                 or digit, found `{}`",
                name.value.escape_debug()
            ),
        );
    }
    name.value
}

/// A picture side: within [`SIDE_PX`] and a multiple of [`SIDE_STEP_PX`].
pub(crate) fn side_px(
    side: Option<u64>,
    default: u32,
    key: &str,
    location: Option<Location>,
    checks: &mut Checks,
) -> u32 {
    let Some(side) = side else { return default };
    let side = u32::try_from(side).unwrap_or(default);
    if let Some(location) = location
        && SIDE_PX.contains(&u64::from(side))
        && !side.is_multiple_of(SIDE_STEP_PX)
    {
        checks.problem(
            location,
            format!("`{key}` must be a multiple of {SIDE_STEP_PX}, found `{side}`"),
        );
    }
    side
}

/// Red, green and blue of `#rrggbb`.
pub(crate) fn rgb_from_hex(hex: &str) -> Option<[u8; 3]> {
    let mut rgb = [0; 3];
    hex::decode_to_slice(hex.strip_prefix('#')?, &mut rgb).ok()?;
    Some(rgb)
}

/// `#rrggbb` of red, green and blue.
pub(crate) fn hex_from_rgb(rgb: [u8; 3]) -> String {
    format!("#{}", hex::encode(rgb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{problems_with, with};

    #[test]
    fn colors_go_there_and_back() {
        assert_eq!(rgb_from_hex("#00ff7F"), Some([0, 255, 127]));
        assert_eq!(hex_from_rgb([0, 255, 127]), "#00ff7f");
        for wrong in ["00ff7f", "#00ff7", "#00ff7fff", "#00gg7f", ""] {
            assert_eq!(rgb_from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for name in ["..", ".hidden", "a/b", "a b", "'é'", "''", "-a", "\"a\\nb\"", &"a".repeat(65)]
        {
            let problems = problems_with(&[&format!("name={name}")]);
            assert!(problems[0].contains("`name` must be 1 to 64"), "{problems:?}");
        }
        assert_eq!(with(&["name=no"]).name, "no");
        assert_eq!(with(&["name=2.10"]).name, "2.10");
    }

    #[test]
    fn sides_are_multiples_of_64() {
        let key = "dataset.dreambooth.side_px";
        assert_eq!(
            problems_with(&[&format!("{key}=100")]),
            ["100: `dataset.dreambooth.side_px` must be a multiple of 64, found `100`"]
        );
        assert_eq!(
            problems_with(&[&format!("{key}=0")]),
            ["0: `dataset.dreambooth.side_px` must be at least 64 and at most 2048, found `0`"]
        );
        assert_eq!(with(&[&format!("{key}=128")]).dataset.image_options().side_px, 128);
    }

    #[test]
    fn paths_are_found_beside_the_recipe() {
        let places = Places::of(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/smoke.yaml")));
        assert!(places.locate(Path::new("postcards/vae.yaml")).exists());
        assert_eq!(places.locate(Path::new("nowhere/at/all")), Path::new("nowhere/at/all"));
    }
}
