//! The noise schedule of Stable Diffusion: √β runs evenly from √.00085 to √.012 over 1000 levels.

use diffusion::{NoiseSchedule, Prediction, SchedulerConfig};
use eval::EvalError;
use eval::noising::native_levels;
use eval::protocol::Level;
use statistics::number::real;

/// β of the first level, which is also the variance of the last step of [`super::chain::Chain`].
pub const FIRST_BETA: f64 = 0.000_85;

/// The schedule.
///
/// # Errors
///
/// None: its configuration is valid.
pub fn stable_diffusion() -> Result<NoiseSchedule, EvalError> {
    Ok(NoiseSchedule::new(&SchedulerConfig::stable_diffusion(Prediction::Epsilon))?)
}

/// Its 1000 levels, least noise first: γ from −7.069424 to 5.364048.
///
/// # Errors
///
/// None: its configuration is valid.
pub fn native() -> Result<Vec<Level>, EvalError> {
    Ok(native_levels(&stable_diffusion()?))
}

/// `n` numbers spaced evenly from `first` to `last`, both included.
pub fn linspace(first: f64, last: f64, n: usize) -> Vec<f64> {
    let gaps = real(n.saturating_sub(1)).max(1.0);
    (0..n).map(|i| first + (last - first) * real(i) / gaps).collect()
}

/// `n` levels spaced evenly in γ.
pub fn even_in_gamma(first: f64, last: f64, n: usize) -> Vec<Level> {
    linspace(first, last, n).into_iter().map(|gamma| Level::of_gamma(0.0, gamma)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_has_its_known_ends() {
        let native = native().unwrap();
        assert_eq!(native.len(), 1000);
        assert!((native[0].gamma() + 7.069_424).abs() < 1e-6, "{:?}", native[0]);
        assert!((native[999].gamma() - 5.364_048).abs() < 1e-6, "{:?}", native[999]);
        assert!((native[999].alpha_cumprod - 0.004_660_10).abs() < 1e-8);
        assert!((native[0].alpha_cumprod - (1.0 - FIRST_BETA)).abs() < 1e-15);
    }

    #[test]
    fn even_numbers_include_both_ends() {
        assert_eq!(linspace(-1.0, 2.0, 4), vec![-1.0, 0.0, 1.0, 2.0]);
        assert_eq!(linspace(3.0, 5.0, 1), vec![3.0]);
        let levels = even_in_gamma(-12.0, 8.0, 401);
        assert!(
            (levels[200].gamma() + 2.0).abs() < 1e-9 && (levels[400].gamma() - 8.0).abs() < 1e-9
        );
    }
}
