//! Which timesteps are visited: spacing for samplers, uniform and stratified draws for training.

/// Which of the T training timesteps a sampler visits.
///
/// Source: Lin et al. 2023, arXiv:2305.08891, table 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Multiples of T div n, plus the offset; never reaches the noisiest levels.
    Leading,
    /// T − k·T/n, minus 1; begins at the noisiest level.
    Trailing,
    /// Evenly from T − 1 to 0, both included.
    Linspace,
}

impl TimestepSpacing {
    /// Every spacing.
    pub const ALL: [Self; 3] = [Self::Leading, Self::Trailing, Self::Linspace];

    /// The value of `timestep_spacing` in a scheduler configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Trailing => "trailing",
            Self::Linspace => "linspace",
        }
    }
}

/// Counts from which a sampler's timesteps follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) spacing: TimestepSpacing,
    /// T.
    pub(crate) n_train: usize,
    /// n, in `1..=n_train`.
    pub(crate) n_steps: usize,
    /// Added under leading spacing.
    pub(crate) offset: usize,
}

impl Grid {
    /// Timesteps of Euler, noisiest first; linspace is not rounded.
    ///
    /// Source: diffusers `EulerDiscreteScheduler.set_timesteps`.
    pub(crate) fn continuous(self) -> Vec<f64> {
        let Self { spacing, n_train, n_steps, offset } = self;
        match spacing {
            TimestepSpacing::Leading => {
                let stride = n_train / n_steps;
                (0..n_steps).rev().map(|k| real(k * stride + offset)).collect()
            }
            TimestepSpacing::Trailing => {
                let stride = real(n_train) / real(n_steps);
                let timestep = |k| (real(n_train) - real(k) * stride).round_ties_even() - 1.0;
                (0..n_steps).map(timestep).collect()
            }
            TimestepSpacing::Linspace => {
                let mut timesteps = linspace(0.0, real(n_train - 1), n_steps);
                timesteps.reverse();
                timesteps
            }
        }
    }

    /// Timesteps of DDIM and DDPM: whole numbers, noisiest first.
    ///
    /// Source: diffusers `DDIMScheduler.set_timesteps`.
    pub(crate) fn whole(self) -> Vec<f64> {
        self.continuous().into_iter().map(f64::round_ties_even).collect()
    }

    /// Timesteps of DPM++ multistep: whole numbers, noisiest first; leading and linspace are cut
    /// into one step more, whose end is left out.
    ///
    /// Source: diffusers `DPMSolverMultistepScheduler.set_timesteps`.
    pub(crate) fn multistep(self) -> Vec<f64> {
        let Self { spacing, n_train, n_steps, offset } = self;
        match spacing {
            TimestepSpacing::Leading => {
                let stride = n_train / (n_steps + 1);
                (1..=n_steps).rev().map(|k| real(k * stride + offset)).collect()
            }
            TimestepSpacing::Trailing => self.whole(),
            TimestepSpacing::Linspace => {
                let all = linspace(0.0, real(n_train - 1), n_steps + 1);
                all.into_iter().skip(1).rev().map(f64::round_ties_even).collect()
            }
        }
    }
}

/// `count` numbers evenly from `first` to `last`, both included; a single one is `first`.
pub(crate) fn linspace(first: f64, last: f64, count: usize) -> Vec<f64> {
    let intervals = count.saturating_sub(1).max(1);
    let stride = (last - first) / real(intervals);
    let mut values: Vec<f64> = (0..count).map(|idx| first + real(idx) * stride).collect();
    if count > 1 {
        values[count - 1] = last;
    }
    values
}

/// A count as a real number.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
pub(crate) fn real(count: usize) -> f64 {
    count as f64
}

/// The whole part of a real number that is at least 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "callers pass numbers from 0 to the length of a schedule"
)]
pub(crate) fn whole_part(value: f64) -> usize {
    debug_assert!(value >= 0.0, "{value} is negative");
    value as usize
}

/// A training timestep from a uniform draw: ⌊lo + u·(hi − lo)⌋ for the range `lo..hi`.
///
/// `unit` lies in [0, 1); the result lies in `range`, whose end is exclusive.
///
/// # Panics
///
/// If the range is empty.
pub fn timestep_from_unit(unit: f64, range: std::ops::Range<usize>) -> usize {
    assert!(!range.is_empty(), "range of timesteps {range:?} is empty");
    let drawn = whole_part(unit * real(range.len())).min(range.len() - 1);
    range.start + drawn
}

/// Training timesteps of a batch, one from each equal slice of the range `lo..hi`.
///
/// `units` holds one uniform draw in [0, 1) per sample; sample i of n gets
/// ⌊lo + (i + uᵢ)/n·(hi − lo)⌋, so that every batch covers all noise levels.
///
/// # Panics
///
/// If the range is empty.
pub fn stratified_timesteps(units: &[f64], range: std::ops::Range<usize>) -> Vec<usize> {
    let n_samples = real(units.len());
    units
        .iter()
        .enumerate()
        .map(|(idx, unit)| timestep_from_unit((real(idx) + unit) / n_samples, range.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(spacing: TimestepSpacing, n_steps: usize) -> Grid {
        Grid { spacing, n_train: 1000, n_steps, offset: 1 }
    }

    /// Compares whole timesteps exactly.
    fn check(found: &[f64], expected: &[u32]) {
        let expected: Vec<f64> = expected.iter().map(|&t| f64::from(t)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn leading_timesteps_are_the_known_ones() {
        let expected: Vec<u32> = (0..20).rev().map(|k| 50 * k + 1).collect();
        assert_eq!((expected[0], expected[19]), (951, 1));
        check(&grid(TimestepSpacing::Leading, 20).whole(), &expected);
        check(&grid(TimestepSpacing::Leading, 20).continuous(), &expected);
        let multistep = [
            941, 894, 847, 800, 753, 706, 659, 612, 565, 518, 471, 424, 377, 330, 283, 236, 189,
            142, 95, 48,
        ];
        check(&grid(TimestepSpacing::Leading, 20).multistep(), &multistep);
        let fifty = grid(TimestepSpacing::Leading, 50).whole();
        check(&fifty[..3], &[981, 961, 941]);
        check(&fifty[49..], &[1]);
        let thirty = grid(TimestepSpacing::Leading, 30).whole();
        check(&thirty[..2], &[958, 925]);
        check(&thirty[29..], &[1]);
    }

    #[test]
    fn trailing_timesteps_are_the_known_ones() {
        let expected: Vec<u32> = (1..=20).rev().map(|k| 50 * k - 1).collect();
        assert_eq!((expected[0], expected[19]), (999, 49));
        let grid = grid(TimestepSpacing::Trailing, 20);
        check(&grid.whole(), &expected);
        check(&grid.continuous(), &expected);
        check(&grid.multistep(), &expected);
    }

    #[test]
    fn linspace_timesteps_are_the_known_ones() {
        let whole = [
            999, 946, 894, 841, 789, 736, 684, 631, 578, 526, 473, 421, 368, 315, 263, 210, 158,
            105, 53, 0,
        ];
        let grid = grid(TimestepSpacing::Linspace, 20);
        check(&grid.whole(), &whole);
        let continuous = grid.continuous();
        for (idx, expected) in [(0, 999.0), (1, 946.421), (2, 893.842), (18, 52.579), (19, 0.0)] {
            assert!((continuous[idx] - expected).abs() < 5e-4, "{}", continuous[idx]);
        }
        let multistep = grid.multistep();
        check(&multistep[..3], &[999, 949, 899]);
        check(&multistep[8..12], &[599, 549, 500, 450]);
        check(&multistep[18..], &[100, 50]);
    }

    #[test]
    fn a_range_of_timesteps_excludes_its_end() {
        assert_eq!(timestep_from_unit(0.0, 10..20), 10);
        assert_eq!(timestep_from_unit(0.999_999, 10..20), 19);
        assert_eq!(timestep_from_unit(0.55, 0..1000), 550);
        assert_eq!(timestep_from_unit(0.5, 7..8), 7);
    }

    #[test]
    fn stratified_timesteps_take_one_from_each_slice() {
        assert_eq!(stratified_timesteps(&[0.0, 0.5, 0.99, 0.0], 0..1000), [0, 375, 747, 750]);
        assert_eq!(stratified_timesteps(&[0.5], 100..200), [150]);
    }
}
