//! The likelihood census: how many nats of log density a model lost on the base's own pictures.
//!
//! `Δnats(x) = ½∫ E_ε[‖ε − ε̂_A(x_γ)‖² − ‖ε − ε̂_B(x_γ)‖²] dγ`, summed over dimensions, without
//! guidance, both models on the same (γ, ε). For exact scores it is the loss of log density between the
//! two ends of γ. What the autoencoder adds cancels, as long as both models share it. Owns the figure
//! and its reduction; which pictures are scored under which prompt is the caller's.
//!
//! Source: Kingma et al. 2021, arXiv:2107.00630 (the loss in continuous time); Kong et al. 2023,
//! arXiv:2302.03792 (its difference as an exact one of log densities).

use crate::error::EvalError;
use crate::means::{self, Mean};
use crate::noising::{Grid, NoiseSource, Noised, Samples, at_each_level};
use crate::protocol::{Condition, Denoiser, predicted};
use crate::record::{LikelihoodEntity, LikelihoodRecord, LikelihoodUnit};
use serde_json::Value;
use statistics::interval::{Estimate, Resampler};
use statistics::number::{index, real};

/// Most bins of a profile over γ.
const BINS: usize = 32;

/// ½·δγ·‖ε − ε̂‖² of one denoiser, `[sample][level]`; the sum over levels is `L(x)`.
///
/// # Errors
///
/// The denoiser's own; [`EvalError::Length`] for samples and noise that do not fit.
pub fn energies(
    denoiser: &mut dyn Denoiser,
    condition: Condition<'_>,
    samples: Samples<'_>,
    grid: &Grid,
    noise: &NoiseSource<'_>,
) -> Result<Vec<Vec<f64>>, EvalError> {
    let width = denoiser.width();
    let mut energies = vec![Vec::new(); samples.keys.len()];
    at_each_level(width, samples, grid, noise, &mut |at: &Noised<'_>| {
        let said = predicted(denoiser, at.noisy, at.level, condition)?;
        for (i, row) in energies.iter_mut().enumerate() {
            let part = i * width..(i + 1) * width;
            let square: f64 = at.noise[part.clone()]
                .iter()
                .zip(&said[part])
                .map(|(eps, said)| (eps - said) * (eps - said))
                .sum();
            row.push(at.weight / 2.0 * square);
        }
        Ok(())
    })?;
    Ok(energies)
}

/// Nats that each further model lost against the first: `[other][sample][level]`, to be summed over
/// levels.
///
/// All models see the same (γ, ε) under the same words. The first is the base; it is asked once,
/// however many others there are.
///
/// # Errors
///
/// A denoiser's own; [`EvalError::Length`] for samples and noise that do not fit.
pub fn nats_lost(
    models: &mut [&mut dyn Denoiser],
    condition: Condition<'_>,
    samples: Samples<'_>,
    grid: &Grid,
    noise: &NoiseSource<'_>,
) -> Result<Vec<Vec<Vec<f64>>>, EvalError> {
    let Some((base, others)) = models.split_first_mut() else {
        return Ok(Vec::new());
    };
    let width = base.width();
    let mut lost = vec![vec![Vec::new(); samples.keys.len()]; others.len()];
    at_each_level(width, samples, grid, noise, &mut |at: &Noised<'_>| {
        let before = predicted(&mut **base, at.noisy, at.level, condition)?;
        for (other, rows) in others.iter_mut().zip(&mut lost) {
            let after = predicted(&mut **other, at.noisy, at.level, condition)?;
            add_gaps(rows, at, &before, &after);
        }
        Ok(())
    })?;
    Ok(lost)
}

/// Appends ½·δγ·(‖ε − `worse`‖² − ‖ε − `better`‖²) of each sample to its row.
pub(crate) fn add_gaps(rows: &mut [Vec<f64>], at: &Noised<'_>, better: &[f64], worse: &[f64]) {
    let width = at.noise.len() / rows.len().max(1);
    for (i, row) in rows.iter_mut().enumerate() {
        let part = i * width..(i + 1) * width;
        let (eps, better, worse) = (&at.noise[part.clone()], &better[part.clone()], &worse[part]);
        // ⟨b − a, 2ε − a − b⟩ is the difference of the squares without their cancellation.
        let squares =
            eps.iter().zip(better).zip(worse).map(|((eps, b), a)| (b - a) * (2.0 * eps - a - b));
        let gap: f64 = squares.sum();
        row.push(at.weight / 2.0 * gap);
    }
}

/// Whether to go on where a figure is no likelihood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insistence {
    /// Refuse it.
    Refuse,
    /// Give the figure under its own name.
    Force,
}

/// What the figures of a model are, given why it counts as distilled, if it does.
///
/// # Errors
///
/// [`EvalError::Distilled`] for a distilled, guidance-embedded or few-step model, unless forced: its
/// outputs are no scores of one density.
pub fn unit(distilled: Option<&str>, insistence: Insistence) -> Result<LikelihoodUnit, EvalError> {
    match (distilled, insistence) {
        (None, _) => Ok(LikelihoodUnit::Nats),
        (Some(_), Insistence::Force) => Ok(LikelihoodUnit::ScoreGap),
        (Some(sign), Insistence::Refuse) => Err(EvalError::Distilled { sign: sign.to_owned() }),
    }
}

/// Words in the names of bases whose outputs are no scores of one density.
const DISTILLED: [&str; 8] =
    ["lcm", "tcd", "turbo", "lightning", "hyper", "schnell", "dmd2", "distilled"];

/// Why a base counts as distilled or few-step: from its own names, which are looked at word by word,
/// and from the configurations of its network and scheduler. `None` where there is no sign of it.
///
/// An adapter's name is not asked: it may well be about lightning.
pub fn sign_of_distillation(names: &[&str], configurations: &[&Value]) -> Option<String> {
    let word = |name: &&str| {
        let lower = name.to_lowercase();
        let mut words = lower.split(|c: char| !c.is_ascii_alphanumeric());
        words.find(|word| DISTILLED.contains(word)).map(|word| format!("`{word}` in `{name}`"))
    };
    let setting = |configuration: &&Value| {
        let class = configuration.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        if class.starts_with("LCM") || class.starts_with("TCD") {
            return Some(format!("`_class_name` is `{class}`"));
        }
        if configuration.get("time_cond_proj_dim").is_some_and(Value::is_number) {
            return Some("`time_cond_proj_dim` is set".to_owned());
        }
        let embedded = configuration.get("guidance_embeds").and_then(Value::as_bool);
        (embedded == Some(true)).then(|| "`guidance_embeds` is true".to_owned())
    };
    names.iter().find_map(word).or_else(|| configurations.iter().find_map(setting))
}

/// Refuses an adapter that touches the autoencoder: its terms would no longer cancel.
///
/// # Errors
///
/// [`EvalError::AdaptedVae`] naming the first such module.
pub fn check_shared_vae<'a>(modules: impl IntoIterator<Item = &'a str>) -> Result<(), EvalError> {
    match modules.into_iter().find(|module| module.split('.').next() == Some("vae")) {
        None => Ok(()),
        Some(module) => Err(EvalError::AdaptedVae { module: module.to_owned() }),
    }
}

/// −log(`P_A`/`P_B`) of one entity, from the counted census.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    value: f64,
    replicates: Vec<f64>,
}

impl Population {
    /// From the entity's shares (base, adapted) and the same of each bootstrap replicate; `None` where
    /// a share is 0. Replicates in which it was not drawn are left out.
    pub fn new((base, adapted): (f64, f64), replicates: &[(f64, f64)]) -> Option<Self> {
        let loss = |base: f64, adapted: f64| {
            (base > 0.0 && adapted > 0.0).then(|| -libm::log(adapted / base))
        };
        Some(Self {
            value: loss(base, adapted)?,
            replicates: replicates
                .iter()
                .filter_map(|&(base, adapted)| loss(base, adapted))
                .collect(),
        })
    }

    /// Standard deviation of the replicates.
    fn error(&self) -> f64 {
        Mean::of(&self.replicates).error * libm::sqrt(real(self.replicates.len()))
    }

    /// Replicate number `draw`, again from the first on if there are fewer.
    fn replicate(&self, draw: usize) -> f64 {
        let n = self.replicates.len().max(1);
        self.replicates.get(draw % n).copied().unwrap_or(self.value)
    }
}

/// What was scored of one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityNats {
    /// Entity of the concept's facet.
    pub id: String,
    /// Nats lost, `[picture][level]`, as [`nats_lost`] gives them.
    pub nats: Vec<Vec<f64>>,
    /// The counted part; `None` where a count is 0.
    pub population: Option<Population>,
}

/// The record of scored entities: totals, deformation = total − population, and where on γ it lies.
///
/// Pictures are resampled within each entity; intervals are simultaneous over the entities. The
/// identity total = population + deformation holds for densities alone, so a score gap has no parts.
pub fn reduce(
    entities: &[EntityNats],
    grid: &Grid,
    unit: LikelihoodUnit,
    resampler: Resampler,
) -> LikelihoodRecord {
    let kept: Vec<&EntityNats> = entities.iter().filter(|entity| !entity.nats.is_empty()).collect();
    let totals: Vec<Vec<f64>> = kept
        .iter()
        .map(|entity| entity.nats.iter().map(|levels| levels.iter().sum::<f64>()).collect())
        .collect();
    let own: Vec<Mean> = totals.iter().map(|values| Mean::of(values)).collect();
    let drawn = means::replicates(&totals, resampler);
    let bins = Bins::new(grid);
    let parts = Parts::new(&kept, unit, &own, &drawn);
    let total = means::simultaneous(&own, &drawn);
    let entities =
        kept.iter().zip(total).enumerate().map(|(i, (entity, total))| LikelihoodEntity {
            id: entity.id.clone(),
            pictures: entity.nats.len() as u64,
            total,
            population: parts.population[i],
            deformation: parts.deformation[i].map(|(estimate, _)| estimate),
            instruments_disagree: parts.deformation[i]
                .is_some_and(|(estimate, error)| estimate.value < -2.0 * error),
            profile: bins.profile(&entity.nats),
        });
    LikelihoodRecord {
        unit,
        levels: grid.levels.len() as u64,
        entities: entities.collect(),
        gammas: bins.middles,
    }
}

/// What a total is made of, per entity.
struct Parts {
    population: Vec<Option<Estimate>>,
    /// With its standard error.
    deformation: Vec<Option<(Estimate, f64)>>,
}

impl Parts {
    fn new(
        entities: &[&EntityNats],
        unit: LikelihoodUnit,
        own: &[Mean],
        drawn: &[Vec<Mean>],
    ) -> Self {
        let parts: Vec<(usize, &Population)> = entities
            .iter()
            .enumerate()
            .filter(|(_, entity)| {
                unit == LikelihoodUnit::Nats && entity.nats.len() >= means::LEAST_VALUES
            })
            .filter_map(|(i, entity)| entity.population.as_ref().map(|part| (i, part)))
            .collect();
        let errors: Vec<f64> = parts.iter().map(|(_, part)| part.error()).collect();
        let counted = |draw: Option<usize>| -> Vec<Mean> {
            let value = |part: &Population| draw.map_or(part.value, |draw| part.replicate(draw));
            parts
                .iter()
                .zip(&errors)
                .map(|((_, part), &error)| Mean { value: value(part), error })
                .collect()
        };
        let rest = |scored: &[Mean], counted: &[Mean]| -> Vec<Mean> {
            let one = |((i, _), counted): (&(usize, &Population), &Mean)| Mean {
                value: scored[*i].value - counted.value,
                error: libm::hypot(scored[*i].error, counted.error),
            };
            parts.iter().zip(counted).map(one).collect()
        };
        let own_counts = counted(None);
        let own_rest = rest(own, &own_counts);
        let drawn_counts: Vec<Vec<Mean>> = (0..drawn.len()).map(|k| counted(Some(k))).collect();
        let drawn_rest: Vec<Vec<Mean>> = drawn
            .iter()
            .zip(&drawn_counts)
            .map(|(scored, counted)| rest(scored, counted))
            .collect();
        let population = means::simultaneous(&own_counts, &drawn_counts);
        let deformation = means::simultaneous(&own_rest, &drawn_rest);
        let mut all = Self {
            population: vec![None; entities.len()],
            deformation: vec![None; entities.len()],
        };
        for (k, (i, _)) in parts.iter().enumerate() {
            all.population[*i] = Some(population[k]);
            all.deformation[*i] = Some((deformation[k], own_rest[k].error));
        }
        all
    }
}

/// Equal parts of the range of γ.
struct Bins {
    middles: Vec<f64>,
    of_level: Vec<usize>,
}

impl Bins {
    fn new(grid: &Grid) -> Self {
        let gammas = grid.gammas();
        let n = gammas.len().min(BINS);
        let (Some(&low), Some(&high)) = (gammas.first(), gammas.last()) else {
            return Self { middles: Vec::new(), of_level: Vec::new() };
        };
        let width = (high - low) / real(n);
        let bin = |gamma: &f64| {
            if width > 0.0 { index((gamma - low) / width).min(n - 1) } else { 0 }
        };
        Self {
            middles: (0..n).map(|i| low + width * (real(i) + 0.5)).collect(),
            of_level: gammas.iter().map(bin).collect(),
        }
    }

    /// Mean over the pictures of what each bin adds; sums to the mean total.
    fn profile(&self, nats: &[Vec<f64>]) -> Vec<f64> {
        let mut profile = vec![0.0; self.middles.len()];
        for (value, &bin) in nats.iter().flat_map(|levels| levels.iter().zip(&self.of_level)) {
            profile[bin] += value / real(nats.len());
        }
        profile
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noising::keyed_noise;
    use crate::protocol::Level;
    use recipes::draws;
    use serde_json::json;

    const RESAMPLER: Resampler = Resampler { seed: 2, draws: 300 };

    /// Says what a function of the noisy value says.
    struct Says(fn(f64) -> f64);

    impl Denoiser for Says {
        fn width(&self) -> usize {
            2
        }

        fn noise(
            &mut self,
            noisy: &[f64],
            _: Level,
            _: Condition<'_>,
        ) -> Result<Vec<f64>, EvalError> {
            Ok(noisy.iter().map(|&x| self.0(x)).collect())
        }
    }

    fn grid() -> Grid {
        Grid::trapezoid((0..5).map(|i| Level::of_gamma(0.0, f64::from(i) - 2.0)).collect())
    }

    #[test]
    fn energy_is_half_the_squared_error_summed_over_dimensions_and_levels() {
        let samples = Samples { values: &[0.0; 4], keys: &[3, 4] };
        let noise = |_: usize, key: u64| vec![statistics::number::real_u64(key); 2];
        let found =
            energies(&mut Says(|_| 1.0), Condition::Nothing, samples, &grid(), &noise).unwrap();
        // Errors of 2 and 3 in two dimensions over a range of 4.
        for (row, error) in found.iter().zip([2.0, 3.0]) {
            assert!((row.iter().sum::<f64>() - 0.5 * 4.0 * 2.0 * error * error).abs() < 1e-12);
        }
    }

    #[test]
    fn nats_are_the_difference_of_the_energies_and_zero_of_equal_models() {
        let samples = Samples { values: &[0.3, -0.2, 1.0, 0.5], keys: &[3, 4] };
        let noise = keyed_noise(9, 2);
        let (mut base, mut other, mut same) =
            (Says(|x| 0.8 * x), Says(|x| 0.5 * x + 0.1), Says(|x| 0.8 * x));
        let before = energies(&mut base, Condition::Nothing, samples, &grid(), &noise).unwrap();
        let after = energies(&mut other, Condition::Nothing, samples, &grid(), &noise).unwrap();
        let mut models: [&mut dyn Denoiser; 3] = [&mut base, &mut other, &mut same];
        let lost = nats_lost(&mut models, Condition::Nothing, samples, &grid(), &noise).unwrap();
        for picture in 0..2 {
            for level in 0..5 {
                let expected = after[picture][level] - before[picture][level];
                assert!((lost[0][picture][level] - expected).abs() < 1e-12);
            }
        }
        assert_eq!(lost[1], vec![vec![0.0; 5]; 2]);
    }

    #[test]
    fn a_distilled_model_is_refused_or_named() {
        assert_eq!(unit(None, Insistence::Refuse).unwrap(), LikelihoodUnit::Nats);
        assert_eq!(unit(Some("x"), Insistence::Force).unwrap(), LikelihoodUnit::ScoreGap);
        let refused = unit(Some("`lcm` in `a`"), Insistence::Refuse).unwrap_err();
        assert!(matches!(refused, EvalError::Distilled { sign } if sign == "`lcm` in `a`"));
    }

    #[test]
    fn signs_of_distillation_are_words_and_settings() {
        let none = json!({ "_class_name": "PNDMScheduler", "time_cond_proj_dim": null });
        let sign = |name: &str, value: &Value| sign_of_distillation(&[name], &[value]);
        assert_eq!(sign("stable-diffusion-v1-5", &none), None);
        assert_eq!(sign("hyperreal-lcmish", &none), None);
        assert!(sign("sdxl-turbo", &none).is_some_and(|sign| sign.contains("turbo")));
        assert!(sign("SDXL_Lightning_4step", &none).is_some());
        let wanted = [
            json!({ "_class_name": "LCMScheduler" }),
            json!({ "time_cond_proj_dim": 256 }),
            json!({ "guidance_embeds": true }),
        ];
        for value in wanted {
            assert!(sign("plain", &value).is_some(), "{value}");
        }
        assert_eq!(sign("plain", &json!({ "guidance_embeds": false })), None);
    }

    #[test]
    fn an_adapter_of_the_autoencoder_is_refused() {
        assert!(check_shared_vae(["unet.mid", "text_encoder.vae"]).is_ok());
        let refused = check_shared_vae(["unet.mid", "vae.decoder.conv_in"]).unwrap_err();
        assert!(
            matches!(refused, EvalError::AdaptedVae { module } if module == "vae.decoder.conv_in")
        );
    }

    /// Pictures whose nats scatter around `mean`, spread evenly over five levels.
    fn entity(id: &str, mean: f64, shares: (f64, f64)) -> EntityNats {
        let mut stream = draws::keyed(1, id);
        let nats = draws::normals(&mut stream, 40)
            .into_iter()
            .map(|z| vec![(mean + 0.1 * f64::from(z)) / 5.0; 5])
            .collect();
        let replicates: Vec<(f64, f64)> = draws::normals(&mut stream, 300)
            .into_iter()
            .map(|z| (shares.0, shares.1 * (1.0 + 0.05 * f64::from(z))))
            .collect();
        EntityNats { id: id.to_owned(), nats, population: Population::new(shares, &replicates) }
    }

    #[test]
    fn deformation_is_the_total_less_what_was_counted() {
        let entities = [
            entity("fell", 1.2, (0.20, 0.08)),
            entity("odd", -0.5, (0.20, 0.20)),
            entity("gone", 3.0, (0.20, 0.0)),
            EntityNats { id: "none".into(), nats: Vec::new(), population: None },
        ];
        let record = reduce(&entities, &grid(), LikelihoodUnit::Nats, RESAMPLER);
        assert_eq!(
            record.entities.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(),
            ["fell", "odd", "gone"]
        );
        let fell = &record.entities[0];
        let population = fell.population.unwrap();
        assert!((population.value - (0.20_f64 / 0.08).ln()).abs() < 1e-12);
        let deformation = fell.deformation.unwrap();
        assert!((deformation.value - (fell.total.value - population.value)).abs() < 1e-12);
        let [low, high] = deformation.ci.unwrap();
        // The counts scatter by .05, the mean of 40 pictures by .016; two of three entities take part.
        assert!(low > deformation.value - 0.2 && high > deformation.value + 0.09, "{fell:?}");
        assert!(!fell.instruments_disagree && record.entities[1].instruments_disagree);
        assert!(
            record.entities[2].population.is_none() && record.entities[2].deformation.is_none()
        );
        for entity in &record.entities {
            assert!((entity.profile.iter().sum::<f64>() - entity.total.value).abs() < 1e-12);
        }
    }

    #[test]
    fn a_score_gap_has_no_parts() {
        let record = reduce(
            &[entity("fell", 1.2, (0.20, 0.08))],
            &grid(),
            LikelihoodUnit::ScoreGap,
            RESAMPLER,
        );
        assert_eq!(record.unit, LikelihoodUnit::ScoreGap);
        let only = &record.entities[0];
        assert!(only.population.is_none() && only.deformation.is_none());
        assert!(!only.instruments_disagree && (only.total.value - 1.2).abs() < 0.1);
    }

    #[test]
    fn a_profile_has_at_most_thirty_two_bins_that_cover_the_range() {
        let levels = (0..401).map(|i| Level::of_gamma(0.0, -12.0 + f64::from(i) / 20.0)).collect();
        let bins = Bins::new(&Grid::trapezoid(levels));
        assert_eq!(bins.middles.len(), 32);
        assert!((bins.middles[0] + 12.0 - 0.3125).abs() < 1e-6, "{:?}", bins.middles);
        assert_eq!((bins.of_level[0], bins.of_level[400]), (0, 31));
        let profile = bins.profile(&[vec![1.0; 401], vec![3.0; 401]]);
        assert!((profile.iter().sum::<f64>() - 802.0).abs() < 1e-9);
        assert!(profile.iter().all(|part| (24.0..=28.0).contains(part)), "{profile:?}");
    }
}
