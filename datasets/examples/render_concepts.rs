//! Draws the shipped concepts and fixtures: `render_concepts [ROOT]`.
//!
//! Writes 16 pictures and captions to `ROOT/concepts/{cylinder,hatching}` and 8 to
//! `ROOT/fixtures/tiny`; ROOT is `datasets` unless given.

use std::error::Error;
use std::path::Path;

use datasets::concept::{SHIPPED_SEED as SEED, SHIPPED_SIDE_PX as SIDE_PX, cylinder, hatching};
use datasets::postcards::{Detail, caption, paint, scene};
use image::RgbImage;

fn main() -> Result<(), Box<dyn Error>> {
    let root = std::env::args().nth(1).unwrap_or_else(|| "datasets".to_owned());
    let root = Path::new(&root);
    for index in 0..16 {
        write(&root.join("concepts/cylinder"), "cylinder", index, cylinder(SEED, index, SIDE_PX))?;
        write(&root.join("concepts/hatching"), "hatching", index, hatching(SEED, index, SIDE_PX))?;
    }
    for index in 0..8 {
        let scene = scene(SEED, index);
        let pair = (paint(&scene, 64), caption(&scene, Detail::Full, SEED, index));
        write(&root.join("fixtures/tiny"), "postcard", index, pair)?;
    }
    Ok(())
}

fn write(
    folder: &Path,
    name: &str,
    index: u64,
    pair: (RgbImage, String),
) -> Result<(), Box<dyn Error>> {
    let (picture, caption) = pair;
    fs_err::create_dir_all(folder)?;
    picture.save(folder.join(format!("{name}-{index:02}.png")))?;
    fs_err::write(folder.join(format!("{name}-{index:02}.txt")), format!("{caption}\n"))?;
    Ok(())
}
