//! Owns what arrived and what departed without asking a thesaurus: directions of picture space in which
//! one model draws more than the other. Pure: works on embeddings.
//!
//! Pictures are spread out by random Fourier features φ(x) = (cos Wx, sin Wx)/√m, W ~ N(0, I)/σ, so
//! that ⟨φ(x), φ(y)⟩ is about exp(−‖x−y‖²/2σ²). The leading eigenvectors of `Σ_A − η·Σ_B` are modes
//! that the adapted model draws more than η times as often as the base; exchanging A and B gives those
//! that departed.
//!
//! Source: Zhang et al. 2024, arXiv:2402.17287 (KEN) and arXiv:2411.02817 (FINC).

use rayon::prelude::*;
use recipes::draws;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statistics::algebra::{Eigen, add_scaled, dot, leading, norm};
use statistics::number::real;

/// Frequencies m; a picture has twice as many features.
pub const FREQUENCIES: usize = 512;
/// How many times as often a mode must be drawn to count as arrived.
pub const ETAS: [f64; 2] = [1.0, 2.0];
/// Pictures shown per mode.
pub const SHOWN: usize = 24;
/// Fewest pairs.
pub const LEAST_PAIRS: usize = 50;
/// Eigenvalues of one matrix differ by less, whatever the order of its pictures; their traces are 1.
const ROUNDING: f64 = 1e-6;
/// Most pictures whose mutual distances set σ.
const MOST_FOR_SIGMA: usize = 512;

/// What arrived and what departed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModesRecord {
    /// Pictures of each model.
    pub pictures: u64,
    /// Width of the kernel: half the median distance of two pictures' embeddings.
    pub sigma: f64,
    /// Arrived and departed, for each η.
    pub sides: Vec<ModeSide>,
}

/// Modes that one model draws more often than the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModeSide {
    /// Which way the pictures went.
    pub way: Way,
    /// A mode counts if it is drawn more than η times as often.
    pub eta: f64,
    /// Mean largest eigenvalue when the models of each pair are exchanged at random.
    pub floor: f64,
    /// Probability of a largest eigenvalue as large, the observed pairs counted.
    pub p: f64,
    /// Modes, largest eigenvalue first; only those with a positive one.
    pub modes: Vec<Mode>,
}

/// Which way pictures went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The adapted model draws them more often.
    Arrived,
    /// The base draws them more often.
    Departed,
}

/// One mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    /// Eigenvalue: about the surplus share of pictures in the mode.
    pub eigenvalue: f64,
    /// Positions of the pictures that load most on it, most first: of the adapted model for what
    /// arrived, of the base for what departed.
    pub pictures: Vec<u64>,
    /// Their loadings |⟨φ(x), v⟩|, in [0, 1].
    pub loadings: Vec<f64>,
}

/// How modes are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModesSettings {
    /// Seed of frequencies and exchanges.
    pub seed: u64,
    /// Frequencies, usually [`FREQUENCIES`].
    pub frequencies: usize,
    /// Modes per side.
    pub count: usize,
    /// Random exchanges of the models of each pair.
    pub exchanges: u32,
}

/// Modes that arrived and departed between `base` and `adapted` (unit embeddings; equal positions are
/// the same seed).
///
/// # Errors
///
/// The reason for a refusal: fewer than [`LEAST_PAIRS`] pairs, lists of unequal length, pictures that
/// are all alike.
pub fn modes(
    base: &[Vec<f32>],
    adapted: &[Vec<f32>],
    settings: ModesSettings,
) -> Result<ModesRecord, String> {
    if base.len() != adapted.len() || base.len() < LEAST_PAIRS {
        return Err(format!(
            "{} pictures of the base and {} of the adapted model, {LEAST_PAIRS} pairs are needed",
            base.len(),
            adapted.len()
        ));
    }
    let features = Features::new(base, adapted, settings.frequencies, settings.seed)
        .ok_or("the pictures are all alike")?;
    let (before, after) = (features.of_all(base), features.of_all(adapted));
    let mut sides = Vec::new();
    for eta in ETAS {
        let null = exchanged(&before, &after, eta, settings);
        for (way, more, less) in [(Way::Arrived, &after, &before), (Way::Departed, &before, &after)]
        {
            let eigen = surplus(&borrowed(more), &borrowed(less), eta, settings.count);
            sides.push(side(way, eta, more, &eigen, &null));
        }
    }
    let pictures = u64::try_from(base.len()).unwrap_or(u64::MAX);
    Ok(ModesRecord { pictures, sigma: features.sigma, sides })
}

/// Random Fourier features of a Gaussian kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Width of the kernel.
    pub sigma: f64,
    /// W, one row per frequency, already over σ.
    frequencies: Vec<Vec<f64>>,
}

impl Features {
    /// Features whose kernel is half as wide as the median distance between pictures of both models;
    /// `None` if that is 0.
    pub fn new(
        base: &[Vec<f32>],
        adapted: &[Vec<f32>],
        frequencies: usize,
        seed: u64,
    ) -> Option<Self> {
        let sigma = median_distance(base, adapted) / 2.0;
        let width = base.first().map_or(0, Vec::len);
        if sigma <= 0.0 || width == 0 {
            return None;
        }
        let mut stream = draws::keyed(seed, "census.modes");
        let numbers = draws::normals(&mut stream, frequencies * width);
        let row = |row: &[f32]| row.iter().map(|w| f64::from(*w) / sigma).collect();
        Some(Self { sigma, frequencies: numbers.chunks_exact(width).map(row).collect() })
    }

    /// φ(x), of norm 1.
    pub fn of(&self, picture: &[f32]) -> Vec<f64> {
        let wide: Vec<f64> = picture.iter().copied().map(f64::from).collect();
        let scale = 1.0 / libm::sqrt(real(self.frequencies.len()));
        let angles: Vec<f64> = self.frequencies.iter().map(|w| dot(w, &wide)).collect();
        let cosines = angles.iter().map(|angle| scale * libm::cos(*angle));
        cosines.chain(angles.iter().map(|angle| scale * libm::sin(*angle))).collect()
    }

    /// φ of every picture.
    pub fn of_all(&self, pictures: &[Vec<f32>]) -> Vec<Vec<f64>> {
        pictures.par_iter().map(|picture| self.of(picture)).collect()
    }
}

/// Median distance between pictures of both models, at most [`MOST_FOR_SIGMA`] of them, evenly chosen.
fn median_distance(base: &[Vec<f32>], adapted: &[Vec<f32>]) -> f64 {
    let all: Vec<&Vec<f32>> = base.iter().chain(adapted).collect();
    let stride = all.len().div_ceil(MOST_FOR_SIGMA).max(1);
    let chosen: Vec<&Vec<f32>> = all.into_iter().step_by(stride).collect();
    let apart = |a: &[f32], b: &[f32]| {
        let squares = a.iter().zip(b).map(|(x, y)| f64::from(x - y) * f64::from(x - y));
        libm::sqrt(squares.sum::<f64>())
    };
    let mut distances: Vec<f64> = chosen
        .iter()
        .enumerate()
        .flat_map(|(i, a)| chosen[i + 1..].iter().map(move |b| apart(a, b)))
        .collect();
    distances.sort_by(f64::total_cmp);
    distances.get(distances.len() / 2).copied().unwrap_or(0.0)
}

fn borrowed(rows: &[Vec<f64>]) -> Vec<&[f64]> {
    rows.iter().map(Vec::as_slice).collect()
}

/// The `count` leading eigenvectors of `Σ_more − η·Σ_less`, Σ the mean of φφᵀ over the rows.
pub fn surplus(more: &[&[f64]], less: &[&[f64]], eta: f64, count: usize) -> Eigen {
    let width = more.first().or(less.first()).map_or(0, |row| row.len());
    let apply = |vector: &[f64]| {
        let mut image = vec![0.0; width];
        for (rows, factor) in [(more, 1.0), (less, -eta)] {
            let factor = factor / real(rows.len()).max(1.0);
            for row in rows {
                add_scaled(&mut image, row, factor * dot(row, vector));
            }
        }
        image
    };
    leading(width, count, &apply)
}

/// |⟨φ(x), v⟩| of each row.
pub fn loadings(rows: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    rows.iter().map(|row| dot(row, vector).abs()).collect()
}

/// Positions of the largest of `values`, largest first, ties to the first.
pub fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    order.truncate(count);
    order
}

/// Largest eigenvalues when the models of each pair are exchanged with probability ½. The models then
/// follow one law, so that it serves both ways.
fn exchanged(
    before: &[Vec<f64>],
    after: &[Vec<f64>],
    eta: f64,
    settings: ModesSettings,
) -> Vec<f64> {
    let one = |draw: u32| {
        let mut stream = draws::stream(settings.seed, u64::from(draw), 1, draws::Purpose::SignFlip);
        let (mut more, mut less): (Vec<&[f64]>, Vec<&[f64]>) = (Vec::new(), Vec::new());
        for (b, a) in before.iter().zip(after) {
            let (b, a) = if draws::below(&mut stream, 2) == 1 { (a, b) } else { (b, a) };
            more.push(a);
            less.push(b);
        }
        surplus(&more, &less, eta, 1).values.first().copied().unwrap_or(0.0)
    };
    (0..settings.exchanges).into_par_iter().map(one).collect()
}

fn side(way: Way, eta: f64, more: &[Vec<f64>], eigen: &Eigen, null: &[f64]) -> ModeSide {
    let first = eigen.values.first().copied().unwrap_or(0.0);
    let reached = null.iter().filter(|&&value| value >= first - ROUNDING).count();
    let floor = statistics::number::mean(null).unwrap_or(0.0);
    let found = eigen.values.iter().zip(&eigen.vectors);
    let modes = found
        .filter(|(value, vector)| **value > 1e-12 && norm(vector) > 0.0)
        .map(|(&eigenvalue, vector)| {
            let loads = loadings(more, vector);
            let shown = largest(&loads, SHOWN);
            Mode {
                eigenvalue,
                loadings: shown.iter().map(|&i| loads[i]).collect(),
                pictures: shown.iter().filter_map(|&i| u64::try_from(i).ok()).collect(),
            }
        })
        .collect();
    ModeSide { way, eta, floor, p: real(1 + reached) / real(1 + null.len()), modes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use statistics::number::single;

    const SETTINGS: ModesSettings =
        ModesSettings { seed: 3, frequencies: 64, count: 2, exchanges: 19 };

    /// Pictures around four axes; `which` says around which one each lies.
    fn pictures(which: &dyn Fn(u64) -> usize, sample: u64) -> Vec<Vec<f32>> {
        (0..160)
            .map(|i| {
                let mut stream = draws::stream(sample, i, 0, draws::Purpose::Noise);
                let mut row: Vec<f64> = draws::normals(&mut stream, 8)
                    .into_iter()
                    .map(|x| 0.1 * f64::from(x))
                    .collect();
                row[which(i)] += 1.0;
                let length = norm(&row);
                row.into_iter().map(|x| single(x / length)).collect()
            })
            .collect()
    }

    fn of(record: &ModesRecord, way: Way, eta: usize) -> &ModeSide {
        let mut sides = record.sides.iter().filter(|side| side.way == way);
        sides.nth(eta).unwrap()
    }

    fn thirds(i: u64) -> usize {
        usize::try_from(i % 3).unwrap()
    }

    #[test]
    fn what_arrived_and_what_departed_are_found_and_told_apart() {
        let base = pictures(&thirds, 1);
        // Every fourth picture is now of a fourth kind.
        let adapted = pictures(&|i| if i.is_multiple_of(4) { 3 } else { thirds(i) }, 2);
        let found = modes(&base, &adapted, SETTINGS).unwrap();
        assert_eq!((found.pictures, found.sides.len()), (160, 4));
        for eta in 0..2 {
            let arrived = of(&found, Way::Arrived, eta);
            assert!((arrived.p - 0.05).abs() < 1e-12, "{arrived:?}");
            let mode = &arrived.modes[0];
            assert!(mode.eigenvalue > 0.15 && mode.eigenvalue > 3.0 * arrived.floor, "{mode:?}");
            assert_eq!(mode.pictures.len(), SHOWN);
            assert!(mode.pictures.iter().all(|i| i.is_multiple_of(4)), "{mode:?}");
        }
        // Each old kind lost a quarter: enough for η = 1, by far not twice as much for η = 2.
        let departed = of(&found, Way::Departed, 0);
        assert!(departed.modes[0].eigenvalue < of(&found, Way::Arrived, 0).modes[0].eigenvalue);
        let twice = of(&found, Way::Departed, 1);
        assert!(twice.modes.first().is_none_or(|mode| mode.eigenvalue < 0.02), "{twice:?}");
    }

    #[test]
    fn two_samples_of_one_law_show_no_mode_beyond_chance() {
        let found = modes(&pictures(&thirds, 5), &pictures(&thirds, 6), SETTINGS).unwrap();
        for side in &found.sides {
            assert!(side.p > 0.05, "{side:?}");
        }
    }

    #[test]
    fn a_zero_adapter_has_no_modes() {
        let base = pictures(&thirds, 1);
        let found = modes(&base, &base, SETTINGS).unwrap();
        assert!(found.sides.iter().all(|side| side.modes.is_empty() || side.eta > 1.5));
        assert!(found.sides.iter().all(|side| (side.p - 1.0).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn features_are_of_norm_one_and_make_a_kernel() {
        let base = pictures(&thirds, 1);
        let features = Features::new(&base, &base, 2048, 1).unwrap();
        let (x, y) = (features.of(&base[0]), features.of(&base[3]));
        assert!((norm(&x) - 1.0).abs() < 1e-12);
        let squares = base[0].iter().zip(&base[3]).map(|(a, b)| f64::from(a - b).powi(2));
        let kernel = libm::exp(-squares.sum::<f64>() / (2.0 * features.sigma * features.sigma));
        assert!((dot(&x, &y) - kernel).abs() < 0.06, "{} {kernel}", dot(&x, &y));
    }

    #[test]
    fn too_few_or_equal_pictures_are_refused() {
        let base = pictures(&thirds, 1);
        assert!(modes(&base[..40], &base[..40], SETTINGS).is_err());
        assert!(modes(&base, &base[..100], SETTINGS).is_err());
        let still = vec![base[0].clone(); 60];
        assert!(modes(&still, &still, SETTINGS).unwrap_err().contains("alike"));
    }
}
