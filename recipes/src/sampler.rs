//! Samplers as a recipe names them: `ddim: { steps: 20, eta: 0.0 }`.

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::choice::Choice;
use crate::field::{Field, Flag, Real, Whole, raw_section};
use crate::problem::Checks;

/// How pictures are drawn from noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerSpec {
    /// The algorithm.
    pub kind: SamplerKind,
    /// Network evaluations per picture (without guidance), 1 to 1000.
    pub steps: u32,
}

/// The algorithm of a sampler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SamplerKind {
    /// Song et al. 2020, arXiv:2010.02502.
    Ddim {
        /// 0 draws without step noise, 1 is ancestral; in [0, 1].
        eta: f64,
    },
    /// Ho et al. 2020, arXiv:2006.11239.
    Ddpm,
    /// Euler's method in σ (Karras et al. 2022).
    Euler,
    /// DPM-Solver++(2M) (Lu et al. 2022).
    DpmPp2M {
        /// Spacing of the noise levels.
        karras: KarrasSigmas,
    },
}

/// Spacing of noise levels after Karras et al. 2022, equation 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KarrasSigmas {
    /// Used.
    On,
    /// Not used: the schedule's own levels.
    Off,
}

impl Serialize for SamplerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let steps = self.steps;
        let mut map = serializer.serialize_map(Some(1))?;
        match self.kind {
            SamplerKind::Ddim { eta } => {
                map.serialize_entry("ddim", &serde_json::json!({ "steps": steps, "eta": eta }))?;
            }
            SamplerKind::Ddpm => {
                map.serialize_entry("ddpm", &serde_json::json!({ "steps": steps }))?;
            }
            SamplerKind::Euler => {
                map.serialize_entry("euler", &serde_json::json!({ "steps": steps }))?;
            }
            SamplerKind::DpmPp2M { karras } => {
                let karras = karras == KarrasSigmas::On;
                let settings = serde_json::json!({ "steps": steps, "karras": karras });
                map.serialize_entry("dpmpp_2m", &settings)?;
            }
        }
        map.end()
    }
}

/// How pictures are drawn from noise.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawSampler {
    /// DDIM.
    Ddim(RawDdim),
    /// DDPM, ancestral.
    Ddpm(RawPlain),
    /// Euler's method.
    Euler(RawPlain),
    /// DPM-Solver++(2M).
    #[serde(rename = "dpmpp_2m")]
    DpmPp2M(RawDpmPp2M),
}

raw_section! {
    /// Settings of DDIM.
    RawDdim {
        /// Network evaluations per picture.
        #[schemars(range(min = 1, max = 1000))]
        steps: Whole,
        /// 0 (previews' default) draws without step noise, 1 (the census' default) is ancestral.
        #[schemars(range(min = 0, max = 1))]
        eta: Real,
    }
}

raw_section! {
    /// Settings of a sampler that has only steps.
    RawPlain {
        /// Network evaluations per picture.
        #[schemars(range(min = 1, max = 1000))]
        steps: Whole,
    }
}

raw_section! {
    /// Settings of DPM-Solver++(2M).
    RawDpmPp2M {
        /// Network evaluations per picture.
        #[schemars(range(min = 1, max = 1000))]
        steps: Whole,
        /// Whether noise levels are spaced after Karras et al. (default true).
        karras: Flag,
    }
}

/// Resolves a sampler under `key`; what is not said comes from `default`, whose kind is DDIM.
pub(crate) fn resolve(
    raw: Field<Choice<RawSampler>>,
    default: SamplerSpec,
    key: &str,
    checks: &mut Checks,
) -> SamplerSpec {
    let Some(raw) = raw.chosen(key, checks) else { return default };
    let count = |steps: Field<Whole>, name: &str, checks: &mut Checks| {
        steps.count_or(default.steps, &format!("{key}.{name}.steps"), &(1..=1000), checks)
    };
    match raw.value {
        RawSampler::Ddim(raw) => {
            let default_eta = match default.kind {
                SamplerKind::Ddim { eta } => eta,
                SamplerKind::Ddpm | SamplerKind::Euler | SamplerKind::DpmPp2M { .. } => 0.0,
            };
            let eta_key = format!("{key}.ddim.eta");
            let eta = raw.eta.number_or(default_eta, &eta_key, &(0.0..=1.0), checks);
            SamplerSpec { kind: SamplerKind::Ddim { eta }, steps: count(raw.steps, "ddim", checks) }
        }
        RawSampler::Ddpm(raw) => {
            SamplerSpec { kind: SamplerKind::Ddpm, steps: count(raw.steps, "ddpm", checks) }
        }
        RawSampler::Euler(raw) => {
            SamplerSpec { kind: SamplerKind::Euler, steps: count(raw.steps, "euler", checks) }
        }
        RawSampler::DpmPp2M(raw) => {
            let karras = raw.karras.plain(&format!("{key}.dpmpp_2m.karras"), checks);
            let karras = if karras.is_none_or(|karras| karras.value) {
                KarrasSigmas::On
            } else {
                KarrasSigmas::Off
            };
            SamplerSpec {
                kind: SamplerKind::DpmPp2M { karras },
                steps: count(raw.steps, "dpmpp_2m", checks),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{problems_with, with};

    fn preview(set: &str) -> SamplerSpec {
        with(&[&format!("fit.previews.sampler={set}")]).fit.previews.sampler
    }

    #[test]
    fn a_bare_sampler_takes_the_steps_of_its_place() {
        assert_eq!(preview("euler"), SamplerSpec { kind: SamplerKind::Euler, steps: 20 });
        assert_eq!(preview("ddpm"), SamplerSpec { kind: SamplerKind::Ddpm, steps: 20 });
        let kind = SamplerKind::DpmPp2M { karras: KarrasSigmas::On };
        assert_eq!(preview("dpmpp_2m"), SamplerSpec { kind, steps: 20 });
        let kind = SamplerKind::DpmPp2M { karras: KarrasSigmas::Off };
        assert_eq!(
            preview("{dpmpp_2m: {steps: 9, karras: false}}"),
            SamplerSpec { kind, steps: 9 }
        );
    }

    #[test]
    fn previews_draw_without_step_noise_and_the_census_with() {
        assert_eq!(preview("ddim").kind, SamplerKind::Ddim { eta: 0.0 });
        assert_eq!(with(&[]).census.unwrap().sampler.kind, SamplerKind::Ddim { eta: 1.0 });
        let census = with(&["census.sampler=ddim"]).census.unwrap();
        assert_eq!(census.sampler.kind, SamplerKind::Ddim { eta: 1.0 });
    }

    #[test]
    fn settings_of_a_sampler_have_ranges() {
        assert_eq!(
            problems_with(&["fit.previews.sampler={ddim: {steps: 0, eta: 1.5}}"]),
            [
                "0: `fit.previews.sampler.ddim.steps` must be at least 1 and at most 1000, found `0`",
                "1.5: `fit.previews.sampler.ddim.eta` must be at least 0 and at most 1, found `1.5`",
            ]
        );
    }

    #[test]
    fn two_samplers_are_not_one() {
        let problems = problems_with(&["fit.previews.sampler={ddim: {}, euler: {}}"]);
        assert!(problems[0].ends_with("expected exactly one alternative, found also `euler`"));
    }
}
