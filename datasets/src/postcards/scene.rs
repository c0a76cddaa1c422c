//! Scenes: the labelled factors and the continuous nuisance of one postcard.

use recipes::draws::{self, Purpose};

use super::{Color, Setting, Style, Subject, prior};

/// The four labels of a postcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factors {
    /// What is shown.
    pub subject: Subject,
    /// The color of its main body.
    pub color: Color,
    /// Hour or season.
    pub setting: Setting,
    /// The manner of drawing.
    pub style: Style,
}

/// What varies from card to card without being named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nuisance {
    /// Sideways place of the subject, -1 (left) to 1 (right).
    pub across: f32,
    /// Height of the subject, -1 (up) to 1 (down).
    pub down: f32,
    /// Size of the subject, 0 (small) to 1 (large).
    pub size: f32,
    /// Tilt of the subject in degrees, -7 to 7.
    pub tilt: f32,
    /// Brightness of the whole card, -1 (dim) to 1 (bright).
    pub light: f32,
    /// Shift of the backdrop's hues, -1 to 1.
    pub mood: f32,
    /// Height of the horizon, -1 (high) to 1 (low).
    pub horizon: f32,
    /// Whether the subject faces the other way.
    pub mirrored: bool,
    /// Seed of clouds, hills, stars, waves, grain and other small things.
    pub details: u64,
}

/// One postcard before it is painted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scene {
    /// The labels.
    pub factors: Factors,
    /// The rest.
    pub nuisance: Nuisance,
}

/// Draws scene `index` of the world `seed`: factors from the [`prior`], nuisance freely.
///
/// A pure function of its two arguments, so any subset of a world can be painted in any order.
pub fn scene(seed: u64, index: u64) -> Scene {
    let mut stream = draws::stream(seed, index, 0, Purpose::Scene);
    let factors = Factors {
        subject: Subject::ALL[pick(draws::uniform(&mut stream), &prior::SUBJECTS)],
        color: Color::ALL[pick(draws::uniform(&mut stream), &prior::COLORS)],
        setting: Setting::ALL[pick(draws::uniform(&mut stream), &prior::SETTINGS)],
        style: Style::ALL[pick(draws::uniform(&mut stream), &prior::STYLES)],
    };
    scene_with(factors, seed, index)
}

/// A scene with given factors; its nuisance is that of [`scene`] with the same `seed` and `index`.
///
/// Two calls that differ in one factor only thus give a counterfactual pair.
pub fn scene_with(factors: Factors, seed: u64, index: u64) -> Scene {
    let mut stream = draws::stream(seed, index, 0, Purpose::Nuisance);
    let mut within = |low: f64, high: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a picture needs no more than f32")]
        let value = (low + (high - low) * draws::uniform(&mut stream)) as f32;
        value
    };
    let (across, down, size) = (within(-1.0, 1.0), within(-1.0, 1.0), within(0.0, 1.0));
    let (tilt, light, mood) = (within(-7.0, 7.0), within(-1.0, 1.0), within(-1.0, 1.0));
    let (horizon, mirrored) = (within(-1.0, 1.0), within(0.0, 1.0) < 0.5);
    let details = draws::below(&mut stream, u64::MAX);
    let nuisance = Nuisance { across, down, size, tilt, light, mood, horizon, mirrored, details };
    Scene { factors, nuisance }
}

/// The position in `shares` at which their running sum passes `at`, which lies in [0, 1).
fn pick(at: f64, shares: &[f64]) -> usize {
    let mut sum = 0.0;
    for (position, share) in shares.iter().enumerate() {
        sum += share;
        if at < sum {
            return position;
        }
    }
    shares.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_a_function_of_seed_and_index() {
        assert_eq!(scene(3, 9), scene(3, 9));
        assert_ne!(scene(3, 9).nuisance, scene(3, 10).nuisance);
        assert_ne!(scene(3, 9).nuisance, scene(4, 9).nuisance);
    }

    #[test]
    fn given_factors_keep_the_nuisance_of_the_drawn_scene() {
        let drawn = scene(3, 9);
        let factors = Factors { color: Color::Pink, ..drawn.factors };
        assert_eq!(scene_with(factors, 3, 9).nuisance, drawn.nuisance);
        assert_eq!(scene_with(factors, 3, 9).factors, factors);
    }

    #[test]
    fn nuisance_stays_within_its_documented_ranges() {
        for index in 0..500 {
            let nuisance = scene(1, index).nuisance;
            for value in
                [nuisance.across, nuisance.down, nuisance.light, nuisance.mood, nuisance.horizon]
            {
                assert!((-1.0..=1.0).contains(&value));
            }
            assert!((0.0..=1.0).contains(&nuisance.size) && (-7.0..=7.0).contains(&nuisance.tilt));
        }
    }

    #[test]
    fn pick_follows_the_running_sum() {
        assert_eq!(
            [0.0, 0.19, 0.2, 0.69, 0.7, 0.999].map(|at| pick(at, &[0.2, 0.5, 0.3])),
            [0, 0, 1, 1, 2, 2]
        );
    }
}
