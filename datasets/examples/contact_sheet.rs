//! Writes a contact sheet of postcards to look at: `contact_sheet OUT.png [KIND] [SEED] [SCALE]`.
//!
//! KIND: `subjects` (every subject in every color), `settings` (every subject in every setting
//! and style), `random` (drawn from the prior), `cylinder` and `hatching` (the concepts, made small
//! from 256 px as a loader does).

use std::error::Error;

use datasets::concept::{cylinder, hatching};
use datasets::postcards::{
    Color, Factors, Scene, Setting, Style, Subject, paint, scene, scene_with,
};
use image::RgbImage;
use image::imageops::{FilterType, overlay, resize};

const SIDE_PX: u32 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let out = arguments.first().ok_or("expected a path of a PNG to write")?;
    let kind = arguments.get(1).map_or("random", String::as_str);
    let seed = arguments.get(2).map_or(Ok(1), |text| text.parse())?;
    let scale: u32 = arguments.get(3).map_or(Ok(2), |text| text.parse())?;
    let rows = match kind {
        "subjects" => painted(&subjects(seed)),
        "settings" => painted(&settings(seed)),
        "random" => painted(&grid(10, 14, |index| scene(seed, index))),
        "cylinder" => grid(2, 8, |index| small(&cylinder(seed, index, 256).0)),
        "hatching" => grid(2, 8, |index| small(&hatching(seed, index, 256).0)),
        other => return Err(format!("unknown kind `{other}`").into()),
    };
    let sheet = sheet(&rows);
    let (width, height) = sheet.dimensions();
    resize(&sheet, width * scale, height * scale, FilterType::Nearest).save(out)?;
    Ok(())
}

fn grid<T>(rows: u64, columns: u64, cell: impl Fn(u64) -> T) -> Vec<Vec<T>> {
    (0..rows).map(|row| (0..columns).map(|column| cell(row * columns + column)).collect()).collect()
}

fn small(picture: &RgbImage) -> RgbImage {
    resize(picture, SIDE_PX, SIDE_PX, FilterType::Lanczos3)
}

fn painted(rows: &[Vec<Scene>]) -> Vec<Vec<RgbImage>> {
    rows.iter().map(|row| row.iter().map(|scene| paint(scene, SIDE_PX)).collect()).collect()
}

/// One row per subject, one column per color.
fn subjects(seed: u64) -> Vec<Vec<Scene>> {
    let row = |subject: Subject| {
        let cell = |color: Color| {
            let index = (subject.position() * 8 + color.position()) as u64;
            let Factors { setting, style, .. } = scene(seed, index).factors;
            scene_with(Factors { subject, color, setting, style }, seed, index)
        };
        Color::ALL.map(cell).to_vec()
    };
    Subject::ALL.map(row).to_vec()
}

/// One row per subject, one column per setting and style.
fn settings(seed: u64) -> Vec<Vec<Scene>> {
    let mut rows = Vec::new();
    for subject in Subject::ALL {
        let mut row = Vec::new();
        for setting in Setting::ALL {
            for style in Style::ALL {
                let index = (subject.position() * 12 + row.len()) as u64;
                let color = Color::ALL[(subject.position() + row.len()) % 8];
                row.push(scene_with(Factors { subject, color, setting, style }, seed, index));
            }
        }
        rows.push(row);
    }
    rows
}

fn sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (columns, n_rows) =
        (u32::try_from(columns).unwrap_or(0), u32::try_from(rows.len()).unwrap_or(0));
    let pitch = SIDE_PX + 2;
    let mut sheet = RgbImage::from_pixel(columns * pitch, n_rows * pitch, image::Rgb([90, 90, 90]));
    for (y, row) in rows.iter().enumerate() {
        for (x, picture) in row.iter().enumerate() {
            overlay(&mut sheet, picture, (x * pitch as usize) as i64, (y * pitch as usize) as i64);
        }
    }
    sheet
}
