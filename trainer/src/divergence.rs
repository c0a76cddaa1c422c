//! What is known of a step whose loss, gradient or updated weights were not finite.

use std::fmt;
use std::path::PathBuf;

/// The step that diverged, with what is needed to look into it.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// The step, counted from 1; nothing of it was saved.
    pub step: u64,
    /// What was not finite.
    pub quantity: &'static str,
    /// Its value.
    pub value: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Gradient norm of the step before, if there was one.
    pub last_grad_norm: Option<f64>,
    /// The pictures of the batch.
    pub pictures: Vec<PictureDraw>,
}

/// A picture of a batch and what was drawn for it.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureDraw {
    /// The file.
    pub path: PathBuf,
    /// Its caption, as it was used.
    pub caption: String,
    /// Its noise level.
    pub timestep: usize,
}

impl fmt::Display for Divergence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, quantity, value, learning_rate, .. } = self;
        write!(formatter, "{quantity} of step {step} is {value}, expected a finite number")?;
        write!(formatter, " (learning rate {learning_rate:e}")?;
        if let Some(norm) = self.last_grad_norm {
            write!(formatter, ", last gradient norm {norm}")?;
        }
        formatter.write_str(")")?;
        for picture in &self.pictures {
            let PictureDraw { path, caption, timestep } = picture;
            write!(
                formatter,
                "\n  `{}`, caption `{caption}`, timestep {timestep}",
                path.display()
            )?;
        }
        Ok(())
    }
}
