//! Samplers as a recipe names them: `ddim: { steps: 20, eta: 0.0 }`.

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, json};
use serde_saphyr::Spanned;

use crate::base::BaseSpec;
use crate::choice::Choice;
use crate::field::{Field, Flag, Real, Whole, raw_section, words};
use crate::problem::Checks;

/// How pictures are drawn from noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerSpec {
    /// The algorithm.
    pub kind: SamplerKind,
    /// Network evaluations per picture (without guidance), 1 to 1000.
    pub steps: u32,
    /// Where on the noise schedule the steps lie; `None`: as the base's scheduler says. Always
    /// `None` where the algorithm spaces its own noise levels ([`KarrasSigmas::On`]).
    pub spacing: Option<Spacing>,
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
    /// Euler's method in σ with ancestral step noise, `euler_a` in recipes.
    EulerAncestral,
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

words! {
    /// Where on the noise schedule a sampler's steps lie.
    Spacing {
        /// At multiples of the step; never at the noisiest level.
        Leading,
        /// Counted back from the noisiest level.
        Trailing,
        /// Evenly from the noisiest to the cleanest level, both included.
        Linspace,
    }
}

impl Serialize for SamplerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut settings = Map::new();
        settings.insert("steps".to_owned(), json!(self.steps));
        let name = match self.kind {
            SamplerKind::Ddim { eta } => {
                settings.insert("eta".to_owned(), json!(eta));
                "ddim"
            }
            SamplerKind::Ddpm => "ddpm",
            SamplerKind::Euler => "euler",
            SamplerKind::EulerAncestral => "euler_a",
            SamplerKind::DpmPp2M { karras } => {
                settings.insert("karras".to_owned(), json!(karras == KarrasSigmas::On));
                "dpmpp_2m"
            }
        };
        // Left out where the base decides, so that older recipes keep their fingerprints.
        if let Some(spacing) = self.spacing {
            settings.insert("spacing".to_owned(), json!(spacing));
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &settings)?;
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
    /// Euler's method with new noise at every step.
    #[serde(rename = "euler_a")]
    EulerAncestral(RawPlain),
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
        /// Where on the noise schedule the steps lie (default: as the base's scheduler says).
        spacing: Choice<Spacing>,
    }
}

raw_section! {
    /// Settings of a sampler that has only steps.
    RawPlain {
        /// Network evaluations per picture.
        #[schemars(range(min = 1, max = 1000))]
        steps: Whole,
        /// Where on the noise schedule the steps lie (default: as the base's scheduler says).
        spacing: Choice<Spacing>,
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
        /// Where on the noise schedule the steps lie (default: as the base's scheduler says); only
        /// with karras false.
        spacing: Choice<Spacing>,
    }
}

/// Resolves a sampler under `key`; what is not said comes from `default`, whose kind is DDIM, and
/// from the base.
pub(crate) fn resolve(
    raw: Field<Choice<RawSampler>>,
    default: SamplerSpec,
    base: &BaseSpec,
    key: &str,
    checks: &mut Checks,
) -> SamplerSpec {
    let Some(raw) = raw.chosen(key, checks) else {
        return SamplerSpec { spacing: base.spacing(), ..default };
    };
    let (name, kind, steps, spacing) = match raw.value {
        RawSampler::Ddim(raw) => {
            let default_eta = match default.kind {
                SamplerKind::Ddim { eta } => eta,
                SamplerKind::Ddpm
                | SamplerKind::Euler
                | SamplerKind::EulerAncestral
                | SamplerKind::DpmPp2M { .. } => 0.0,
            };
            let eta_key = format!("{key}.ddim.eta");
            let eta = raw.eta.number_or(default_eta, &eta_key, &(0.0..=1.0), checks);
            ("ddim", SamplerKind::Ddim { eta }, raw.steps, raw.spacing)
        }
        RawSampler::Ddpm(raw) => ("ddpm", SamplerKind::Ddpm, raw.steps, raw.spacing),
        RawSampler::Euler(raw) => ("euler", SamplerKind::Euler, raw.steps, raw.spacing),
        RawSampler::EulerAncestral(raw) => {
            ("euler_a", SamplerKind::EulerAncestral, raw.steps, raw.spacing)
        }
        RawSampler::DpmPp2M(raw) => {
            let karras = raw.karras.plain(&format!("{key}.dpmpp_2m.karras"), checks);
            let karras = if karras.is_none_or(|karras| karras.value) {
                KarrasSigmas::On
            } else {
                KarrasSigmas::Off
            };
            ("dpmpp_2m", SamplerKind::DpmPp2M { karras }, raw.steps, raw.spacing)
        }
    };
    let key = format!("{key}.{name}");
    let steps = steps.count_or(default.steps, &format!("{key}.steps"), &(1..=1000), checks);
    SamplerSpec { kind, steps, spacing: resolve_spacing(spacing, kind, base, &key, checks) }
}

/// The spacing of the sampler at `key`.
fn resolve_spacing(
    raw: Field<Choice<Spacing>>,
    kind: SamplerKind,
    base: &BaseSpec,
    key: &str,
    checks: &mut Checks,
) -> Option<Spacing> {
    let spaces_itself = matches!(kind, SamplerKind::DpmPp2M { karras: KarrasSigmas::On });
    let Some(Spanned { value: spacing, referenced, .. }) =
        raw.chosen(&format!("{key}.spacing"), checks)
    else {
        return if spaces_itself { None } else { base.spacing() };
    };
    if spaces_itself {
        checks.problem_with_hint(
            referenced,
            format!("`{key}.spacing` has no meaning beside Karras' noise levels"),
            "say `karras: false`, or remove the key",
        );
    } else if spacing == Spacing::Leading && base.has_zero_terminal_snr() {
        checks.problem_with_hint(
            referenced,
            format!(
                "`{key}.spacing` must be `trailing` or `linspace` with the base's \
                 `zero_terminal_snr`, found `leading`"
            ),
            "leading steps never begin at the level of pure noise",
        );
    }
    Some(spacing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{problems_with, recipe, with};
    use crate::fingerprint::resolved_yaml;

    const ZERO_SNR: &str = "base={sd2: {weights: w, zero_terminal_snr: true}}";

    fn preview(set: &str) -> SamplerSpec {
        with(&[&format!("fit.previews.sampler={set}")]).fit.previews.sampler
    }

    #[test]
    fn a_bare_sampler_takes_the_steps_of_its_place() {
        let bare = |kind| SamplerSpec { kind, steps: 20, spacing: None };
        assert_eq!(preview("euler"), bare(SamplerKind::Euler));
        assert_eq!(preview("euler_a"), bare(SamplerKind::EulerAncestral));
        assert_eq!(preview("ddpm"), bare(SamplerKind::Ddpm));
        let kind = SamplerKind::DpmPp2M { karras: KarrasSigmas::On };
        assert_eq!(preview("dpmpp_2m"), bare(kind));
        let kind = SamplerKind::DpmPp2M { karras: KarrasSigmas::Off };
        assert_eq!(
            preview("{dpmpp_2m: {steps: 9, karras: false}}"),
            SamplerSpec { kind, steps: 9, spacing: None }
        );
    }

    #[test]
    fn every_sampler_takes_a_spacing_and_is_written_with_it() {
        for (set, spacing) in [
            ("{ddim: {spacing: trailing}}", Spacing::Trailing),
            ("{ddpm: {spacing: leading}}", Spacing::Leading),
            ("{euler: {spacing: linspace}}", Spacing::Linspace),
            ("{euler_a: {steps: 7, spacing: trailing}}", Spacing::Trailing),
            ("{dpmpp_2m: {karras: false, spacing: trailing}}", Spacing::Trailing),
        ] {
            let once = with(&[&format!("fit.previews.sampler={set}")]);
            assert_eq!(once.fit.previews.sampler.spacing, Some(spacing), "{set}");
            assert_eq!(recipe(&resolved_yaml(&once)), once, "{set}");
        }
        let written = serde_json::to_value(preview("{euler_a: {spacing: trailing}}")).unwrap();
        assert_eq!(written, json!({ "euler_a": { "steps": 20, "spacing": "trailing" } }));
        // As older recipes were written.
        let written = serde_json::to_value(preview("ddim")).unwrap();
        assert_eq!(written, json!({ "ddim": { "steps": 20, "eta": 0.0 } }));
        let written = serde_json::to_value(preview("dpmpp_2m")).unwrap();
        assert_eq!(written, json!({ "dpmpp_2m": { "steps": 20, "karras": true } }));
    }

    #[test]
    fn levels_after_karras_have_no_spacing() {
        assert_eq!(
            problems_with(&["fit.previews.sampler={dpmpp_2m: {spacing: trailing}}"]),
            [
                "trailing: `fit.previews.sampler.dpmpp_2m.spacing` has no meaning beside Karras' noise \
              levels"
            ]
        );
        assert_eq!(
            problems_with(&["census.sampler={euler: {spacing: karras}}"]),
            ["karras: `census.sampler.euler.spacing` must be one of `leading`, `trailing`, \
              `linspace`, found `karras`"]
        );
    }

    #[test]
    fn pure_noise_is_where_steps_then_begin() {
        let recipe = with(&[ZERO_SNR]);
        assert_eq!(recipe.fit.previews.sampler.spacing, Some(Spacing::Trailing));
        assert_eq!(recipe.census.unwrap().sampler.spacing, Some(Spacing::Trailing));
        let of = |set: &str| with(&[ZERO_SNR, set]).fit.previews.sampler.spacing;
        assert_eq!(of("fit.previews.sampler=euler_a"), Some(Spacing::Trailing));
        let linspace = "fit.previews.sampler={euler: {spacing: linspace}}";
        assert_eq!(of(linspace), Some(Spacing::Linspace));
        assert_eq!(of("fit.previews.sampler=dpmpp_2m"), None);
        assert_eq!(
            problems_with(&[ZERO_SNR, "fit.previews.sampler={ddim: {spacing: leading}}"]),
            [
                "leading: `fit.previews.sampler.ddim.spacing` must be `trailing` or `linspace` with the \
              base's `zero_terminal_snr`, found `leading`"
            ]
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
