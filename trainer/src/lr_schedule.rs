//! The learning rate as a pure function of the step: nothing to save, nothing to restore.

use recipes::LrScheduleSpec;

/// Learning rate of the 0-based optimizer step `step` of `total`, with peak `peak`.
///
/// Warm-up is (step + 1)/W, so that the first step already learns. After it, with
/// p = (step − W)/(total − W) and floor f: constant 1; linear f + (1 − f)(1 − p);
/// cosine f + (1 − f)(1 + cos πp)/2.
///
/// Source: diffusers `get_scheduler`, from which only the warm-up differs (it starts at 0 there).
pub fn learning_rate(spec: &LrScheduleSpec, peak: f64, step: u64, total: u64) -> f64 {
    let (warmup, floor) = match *spec {
        LrScheduleSpec::Constant { warmup_steps } => (warmup_steps, 1.0),
        LrScheduleSpec::Linear { warmup_steps, floor }
        | LrScheduleSpec::Cosine { warmup_steps, floor } => (warmup_steps, floor),
    };
    if step < warmup {
        return peak * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    let falling = match spec {
        LrScheduleSpec::Constant { .. } => 1.0,
        LrScheduleSpec::Linear { .. } => 1.0 - progress,
        LrScheduleSpec::Cosine { .. } => {
            f64::midpoint(1.0, libm::cos(std::f64::consts::PI * progress))
        }
    };
    peak * (floor + (1.0 - floor) * falling)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(step: u64) -> f64 {
        learning_rate(&LrScheduleSpec::Cosine { warmup_steps: 10, floor: 0.0 }, 1e-4, step, 100)
    }

    #[test]
    fn cosine_falls_as_in_diffusers_after_the_warm_up() {
        for (step, expected) in [(32, 8.596_699e-5), (55, 5.0e-5), (99, 3.045_865e-8)] {
            assert!((cosine(step) / expected - 1.0).abs() < 1e-6, "step {step}: {}", cosine(step));
        }
    }

    #[test]
    fn the_first_step_already_learns() {
        assert!((cosine(0) - 1e-5).abs() < 1e-12);
        assert!((cosine(9) - 1e-4).abs() < 1e-12);
    }

    #[test]
    fn linear_ends_at_its_floor() {
        let spec = LrScheduleSpec::Linear { warmup_steps: 0, floor: 0.1 };
        assert!((learning_rate(&spec, 1.0, 0, 10) - 1.0).abs() < 1e-12);
        assert!((learning_rate(&spec, 1.0, 10, 10) - 0.1).abs() < 1e-12);
    }
}
