//! Worlds whose answers are known: closed-form denoisers behind the protocol that networks stand
//! behind, and a chain that samples them.

pub mod chain;
pub mod gauss;
pub mod ring;
pub mod schedule;

use eval::EvalError;
use eval::protocol::{Condition, Denoiser, Level};

/// An adapter at a dose: `ε_s = ε_B + s·(ε_A − ε_B)`. Dose 0 is the base, bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Dosed<B, A> {
    /// The base.
    pub base: B,
    /// The model at dose 1.
    pub adapted: A,
    /// Dose s.
    pub dose: f64,
}

impl<B: Denoiser, A: Denoiser> Denoiser for Dosed<B, A> {
    fn width(&self) -> usize {
        self.base.width()
    }

    fn noise(
        &mut self,
        noisy: &[f64],
        level: Level,
        condition: Condition<'_>,
    ) -> Result<Vec<f64>, EvalError> {
        let base = self.base.noise(noisy, level, condition)?;
        let adapted = self.adapted.noise(noisy, level, condition)?;
        Ok(base.iter().zip(adapted).map(|(b, a)| b + self.dose * (a - b)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worlds::gauss::Gauss;

    #[test]
    fn doses_run_from_the_base_to_the_adapted_model_and_beyond() {
        let (base, adapted) = (Gauss::new(0.3, 0.25, 1), Gauss::new(0.5, 0.36, 1));
        let level = Level::of_gamma(0.0, -0.4);
        let says = |mut world: Gauss| world.noise(&[0.7], level, Condition::Nothing).unwrap()[0];
        let (b, a) = (says(base.clone()), says(adapted.clone()));
        for dose in [0.0, 0.25, 1.0, -0.5, 1.25] {
            let mut dosed = Dosed { base: base.clone(), adapted: adapted.clone(), dose };
            let found = dosed.noise(&[0.7], level, Condition::Nothing).unwrap()[0];
            assert!((found - (b + dose * (a - b))).abs() < 1e-15, "{dose}");
            assert_eq!(found.to_bits() == b.to_bits(), dose.abs() < 1e-12, "{dose}");
        }
    }
}
