//! Loss weights per noise level.

use crate::Prediction;

/// How much each noise level counts in the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weighting {
    /// Every level counts 1 in the space of the prediction.
    Uniform,
    /// The weight min(snr, γ) in the space of the clean image.
    MinSnr {
        /// Cap of the weight, positive; 5 in the paper.
        gamma: f64,
    },
}

impl Weighting {
    /// The factor of a sample's squared error at signal-to-noise ratio `snr`.
    ///
    /// Min-SNR is defined once, as W = min(snr, γ) on the error of x̂₀, and carried over by
    /// |Δε|² = snr·|Δx₀|² and |Δv|² = (snr + 1)·|Δx₀|²: min(snr, γ)/snr for noise,
    /// min(snr, γ)/(snr + 1) for velocity. `snr` is at least 0 and finite; at 0 the noise weight
    /// is its limit 1.
    ///
    /// Source: Hang et al. 2023, arXiv:2303.09556, section 3.4; diffusers' `compute_snr` users
    /// disagree about velocity, ours are those that divide by snr + 1.
    pub fn loss_weight(&self, snr: f64, prediction: Prediction) -> f64 {
        match (*self, prediction) {
            (Self::MinSnr { gamma }, Prediction::Sample) => snr.min(gamma),
            (Self::MinSnr { gamma }, Prediction::V) => snr.min(gamma) / (snr + 1.0),
            (Self::MinSnr { gamma }, Prediction::Epsilon) if snr > gamma => gamma / snr,
            (Self::Uniform, _) | (Self::MinSnr { .. }, Prediction::Epsilon) => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoiseSchedule, SchedulerConfig};

    #[test]
    fn min_snr_weights_have_their_known_values() {
        let config = SchedulerConfig::stable_diffusion(Prediction::Epsilon);
        let schedule = NoiseSchedule::new(&config).unwrap();
        let weighting = Weighting::MinSnr { gamma: 5.0 };
        for (t, epsilon, v) in [
            (1, 0.008_534, 0.008_520),
            (100, 0.591_443, 0.528_883),
            (250, 1.0, 0.673_793),
            (500, 1.0, 0.276_333),
            (999, 1.0, 0.004_660),
        ] {
            let snr = schedule.snr(t);
            let found = weighting.loss_weight(snr, Prediction::Epsilon);
            assert!((found - epsilon).abs() < 1e-6, "epsilon weight at {t} is {found}");
            let found = weighting.loss_weight(snr, Prediction::V);
            assert!((found - v).abs() < 1e-6, "v weight at {t} is {found}");
            let found = weighting.loss_weight(snr, Prediction::Sample);
            assert!((found - snr.min(5.0)).abs() < 1e-12);
        }
    }

    #[test]
    fn min_snr_is_finite_where_no_signal_is_left() {
        let weighting = Weighting::MinSnr { gamma: 5.0 };
        assert!((weighting.loss_weight(0.0, Prediction::Epsilon) - 1.0).abs() < 1e-15);
        assert!(weighting.loss_weight(0.0, Prediction::V).abs() < 1e-15);
    }

    #[test]
    fn uniform_weights_are_one() {
        for prediction in Prediction::ALL {
            assert!((Weighting::Uniform.loss_weight(3.0, prediction) - 1.0).abs() < 1e-15);
        }
    }
}
