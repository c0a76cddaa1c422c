//! What is odd about a dataset that can be used nevertheless.

use std::path::PathBuf;

/// What is odd about a dataset that can be used nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// Files with the same bytes: their pictures count several times.
    #[error("identical pictures: {}", .paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", "))]
    Duplicates {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// Files that nothing reads.
    #[error("`{}` has {count} files that are not read, the first is `{first}`", .folder.display())]
    Unread {
        /// The folder.
        folder: PathBuf,
        /// How many.
        count: usize,
        /// Name of the first.
        first: String,
    },
    /// An identifier that nothing is trained to answer to.
    #[error("`{}`: identifier `{identifier}` stands in none of {count} captions; say `identifier_at: front` to add it", .folder.display())]
    IdentifierAbsent {
        /// The folder of the pictures.
        folder: PathBuf,
        /// The identifier.
        identifier: String,
        /// Captions.
        count: usize,
    },
    /// A folder whose name other trainers read as a number of repeats.
    #[error("the folder name `{name}` is not read; say `repeats: {repeats}` in the recipe")]
    RepeatsInName {
        /// The folder's name.
        name: String,
        /// The number that leads it.
        repeats: u32,
    },
    /// A color profile that is not sRGB and is not applied.
    #[error("`{}` has a color profile other than sRGB, which is not applied", .path.display())]
    ColorProfile {
        /// The picture.
        path: PathBuf,
    },
    /// Weights or alternatives that other programs read, literal here.
    #[error("`{}`: `{found}` in the caption is read as plain text", .path.display())]
    LiteralMarkup {
        /// The picture.
        path: PathBuf,
        /// The text in question.
        found: String,
    },
    /// A caption of several lines, of which the first is read.
    #[error("`{}`: only the first of {lines} lines of the caption is read", .path.display())]
    FirstLineOnly {
        /// The picture.
        path: PathBuf,
        /// How many lines hold text.
        lines: usize,
    },
    /// A picture smaller than the size it is trained at.
    #[error("`{}` is {width} × {height} and is enlarged", .path.display())]
    Enlarged {
        /// The picture.
        path: PathBuf,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// A picture that loses more than a fifth of itself at the edges.
    #[error("`{}` loses {percent} % of its area by cropping", .path.display())]
    Cropped {
        /// The picture.
        path: PathBuf,
        /// Share of the area that is cut off, in percent.
        percent: u32,
    },
}
