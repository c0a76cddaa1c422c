//! The section `adapter`: what is trained, and in which layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use crate::base::{BasePrecision, BaseSpec};
use crate::choice::Choice;
use crate::field::{Field, Found, Real, Whole, WordOrList, raw_section, words};
use crate::pattern;
use crate::problem::{Checks, above, items};
use crate::suggest;

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterSpec {
    /// A low-rank adapter: ΔW = (alpha / rank) · B · A.
    Lora(LoraSpec),
    /// The weights themselves; the result is a base folder, not an adapter file.
    Full(FullSpec),
}

/// A low-rank adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraSpec {
    /// Rank r of linear layers and 1 × 1 convolutions, at least 1.
    pub rank: u32,
    /// Numerator of the scale alpha / rank, above 0.
    pub alpha: f64,
    /// Patterns over layer paths such as `unet.**.attn*.to_q`; presets are expanded. See
    /// [`pattern_matches`](crate::pattern_matches).
    pub targets: Vec<String>,
    /// Rank of convolutions larger than 1 × 1; `None`: they use `rank` if a pattern names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conv_rank: Option<u32>,
    /// Scale numerator that belongs to `conv_rank`; given exactly when `conv_rank` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conv_alpha: Option<f64>,
    /// Share of the values of A·x that are dropped while training, in [0, 1).
    pub dropout: f64,
    /// Start values of A; B always starts at 0.
    pub init: LoraInit,
}

/// Full training of chosen parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FullSpec {
    /// Patterns over parameter paths of `unet` and `text_encoder`.
    pub targets: Vec<String>,
}

words! {
    /// How A is drawn; B is 0.
    LoraInit {
        /// Uniform in ±1/√`fan_in`, as in kohya, PEFT and torchtune.
        KaimingUniform,
        /// Normal with deviation 1/rank, as in the first LoRA code for diffusion models.
        Gaussian,
    }
}

/// What is trained.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawAdapter {
    /// A low-rank adapter beside frozen weights.
    Lora(Box<RawLora>),
    /// The weights themselves; writes a base folder instead of an adapter.
    Full(RawFull),
}

raw_section! {
    /// A low-rank adapter.
    RawLora {
        /// Size of the adapter (default 16). Higher learns more detail and displaces more.
        #[schemars(range(min = 1, max = 4096))]
        rank: Whole,
        /// Numerator of the scale alpha / rank (default: rank, so that the scale is 1).
        #[schemars(range(min = 0))]
        alpha: Real,
        /// `attn`, `attn_ff`, `attn_ff_proj` (default) or `attn_ff_proj_conv`, or a list of patterns
        /// over layer paths such as `unet.**.attn*.to_q`.
        targets: WordOrList,
        /// Rank of convolutions larger than 1 x 1 (default: rank, for `attn_ff_proj_conv`).
        #[schemars(range(min = 1, max = 4096))]
        conv_rank: Whole,
        /// Scale numerator of those convolutions (default: `conv_rank`).
        #[schemars(range(min = 0))]
        conv_alpha: Real,
        /// Share of A·x dropped while training (default 0).
        #[schemars(range(min = 0, max = 1))]
        dropout: Real,
        /// How A is drawn (default `kaiming_uniform`); B starts at 0.
        init: Choice<LoraInit>,
    }
}

raw_section! {
    /// Training of the weights themselves.
    RawFull {
        /// Patterns over parameter paths, e.g. ["unet.**"].
        #[schemars(!default, required)]
        targets: WordOrList,
    }
}

/// The preset sets of layers.
const PRESETS: [&str; 4] = ["attn", "attn_ff", "attn_ff_proj", "attn_ff_proj_conv"];
const DEFAULT_PRESET: &str = "attn_ff_proj";
const CONV_PRESET: &str = "attn_ff_proj_conv";
const DEFAULT_RANK: u32 = 16;

const ATTN: [&str; 4] =
    ["unet.**.attn*.to_q", "unet.**.attn*.to_k", "unet.**.attn*.to_v", "unet.**.attn*.to_out.0"];
const FEED_FORWARD: [&str; 2] = ["unet.**.ff.net.0.proj", "unet.**.ff.net.2"];
const PROJECTIONS: [&str; 2] = ["unet.**.attentions.*.proj_in", "unet.**.attentions.*.proj_out"];
const CONVOLUTIONS: [&str; 6] = [
    "unet.**.resnets.*.conv1",
    "unet.**.resnets.*.conv2",
    "unet.**.resnets.*.conv_shortcut",
    "unet.**.resnets.*.time_emb_proj",
    "unet.**.downsamplers.*.conv",
    "unet.**.upsamplers.*.conv",
];

/// The patterns of a preset set of layers, such as `attn_ff_proj`, if `name` is one.
pub fn preset(name: &str) -> Option<Vec<String>> {
    let n_parts = 1 + PRESETS.iter().position(|preset| *preset == name)?;
    let parts: [&[&str]; 4] = [&ATTN, &FEED_FORWARD, &PROJECTIONS, &CONVOLUTIONS];
    Some(parts.iter().take(n_parts).copied().flatten().map(|&part| part.to_owned()).collect())
}

/// Resolves the section; an absent key is a problem of the recipe at `root`.
pub(crate) fn resolve(
    raw: Field<Choice<RawAdapter>>,
    base: &BaseSpec,
    root: Location,
    checks: &mut Checks,
) -> Option<AdapterSpec> {
    let Spanned { value: raw, referenced, .. } = raw.required_choice("adapter", root, checks)?;
    match raw {
        RawAdapter::Lora(raw) => Some(AdapterSpec::Lora(raw.resolve(base, checks))),
        RawAdapter::Full(raw) => {
            check_full(base, referenced, checks);
            let targets = raw.targets.required("adapter.full.targets", referenced, checks)?;
            let targets = full_targets(targets, base, checks);
            Some(AdapterSpec::Full(FullSpec { targets }))
        }
    }
}

/// Refuses to train weights that are held rounded: most updates are smaller than what a rounded
/// weight can change by.
fn check_full(base: &BaseSpec, section: Location, checks: &mut Checks) {
    if base.model().is_some_and(|model| model.precision == BasePrecision::Bf16) {
        checks.problem_with_hint(
            section,
            "`adapter.full` needs a base in f32, found `precision: bf16`",
            "remove `precision` from `base`, or write `precision: f32`",
        );
    }
}

impl RawLora {
    fn resolve(self, base: &BaseSpec, checks: &mut Checks) -> LoraSpec {
        let rank = self.rank.count_or(DEFAULT_RANK, "adapter.lora.rank", &(1..=4096), checks);
        let alpha_range = above(0.0, 1.0e6);
        let alpha =
            self.alpha.number_or(f64::from(rank), "adapter.lora.alpha", &alpha_range, checks);
        let wants_conv = matches!(&self.targets,
            Field::Given(Spanned { value: WordOrList::Word(Found::Text(word)), .. })
                if word == CONV_PRESET);
        let wants_list =
            matches!(&self.targets, Field::Given(Spanned { value: WordOrList::List(_), .. }));
        let targets = self.targets.given("adapter.lora.targets", checks).map_or_else(
            || preset(DEFAULT_PRESET).unwrap_or_default(),
            |targets| lora_targets(targets, base, checks),
        );
        if let (false, false, Some(location)) = (wants_conv, wants_list, self.conv_rank.location())
        {
            let message = format!(
                "`adapter.lora.conv_rank` is for convolutions, which the targets leave out; \
                 say `targets: {CONV_PRESET}` or list patterns"
            );
            checks.problem(location, message);
        }
        let conv_alpha_at = self.conv_alpha.location();
        let conv_rank = self
            .conv_rank
            .number("adapter.lora.conv_rank", &(1..=4096), checks)
            .and_then(|conv_rank| u32::try_from(conv_rank).ok())
            .or(wants_conv.then_some(rank));
        let conv_alpha = self.conv_alpha.number("adapter.lora.conv_alpha", &alpha_range, checks);
        if let (None, Some(location)) = (conv_rank, conv_alpha_at) {
            checks
                .problem(location, "`adapter.lora.conv_alpha` needs `conv_rank`, which is missing");
        }
        LoraSpec {
            rank,
            alpha,
            targets,
            conv_rank,
            conv_alpha: conv_rank.map(|conv_rank| conv_alpha.unwrap_or(f64::from(conv_rank))),
            dropout: self.dropout.number_or(0.0, "adapter.lora.dropout", &(0.0..1.0), checks),
            init: self.init.choice_or(LoraInit::KaimingUniform, "adapter.lora.init", checks),
        }
    }
}

fn lora_targets(targets: Spanned<WordOrList>, base: &BaseSpec, checks: &mut Checks) -> Vec<String> {
    const KEY: &str = "adapter.lora.targets";
    let location = targets.referenced;
    let found = match targets.value {
        WordOrList::List(list) => {
            return patterns((items(list, KEY, checks), location), KEY, base, checks);
        }
        WordOrList::Word(found) => found,
    };
    let word = if let Found::Text(word) = &found { word.as_str() } else { "" };
    if let Some(patterns) = preset(word) {
        return patterns;
    }
    let message = format!(
        "`{KEY}` must be one of `{}` or a list of patterns, found {found}",
        PRESETS.join("`, `")
    );
    let hint = suggest::nearest(word, &PRESETS).map_or_else(
        || "write a single pattern as a list, in brackets".to_owned(),
        |preset| format!("did you mean `{preset}`?"),
    );
    checks.problem_with_hint(location, message, hint);
    Vec::new()
}

fn full_targets(targets: Spanned<WordOrList>, base: &BaseSpec, checks: &mut Checks) -> Vec<String> {
    const KEY: &str = "adapter.full.targets";
    let location = targets.referenced;
    match targets.value {
        WordOrList::List(list) => patterns((items(list, KEY, checks), location), KEY, base, checks),
        WordOrList::Word(found) => {
            checks.problem(location, format!("`{KEY}` must be a list of patterns, found {found}"));
            Vec::new()
        }
    }
}

/// Checks each pattern's syntax and that it begins in a component that can be trained.
fn patterns(
    (list, location): (Vec<Spanned<String>>, Location),
    key: &str,
    base: &BaseSpec,
    checks: &mut Checks,
) -> Vec<String> {
    if list.is_empty() {
        checks.problem(location, format!("`{key}` must name at least one pattern, found none"));
    }
    let mut checked = Vec::with_capacity(list.len());
    for Spanned { value: pattern, referenced, .. } in list {
        if let Err(reason) = pattern::check(&pattern) {
            checks.problem(
                referenced,
                format!("`{key}`: `{}` is no pattern: {reason}", pattern.escape_debug()),
            );
        } else if !starts_in(base.trainable(), &pattern) {
            let components = base.trainable().join("` or `");
            checks.problem(
                referenced,
                format!("`{key}` must begin with `{components}`, found `{pattern}`"),
            );
        }
        checked.push(pattern);
    }
    checked
}

/// True if the pattern's first part can be one of `components`.
fn starts_in(components: &[&str], pattern: &str) -> bool {
    let first = pattern.split('.').next().unwrap_or(pattern);
    first == "**" || components.iter().any(|component| pattern::matches(first, component))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{SMALL, one_problem, problems_with, recipe, with};

    fn lora(sets: &[&str]) -> LoraSpec {
        match with(sets).adapter {
            AdapterSpec::Lora(lora) => lora,
            AdapterSpec::Full(full) => panic!("expected lora, found {full:?}"),
        }
    }

    /// Layer paths of the Stable Diffusion 1 UNet that presets speak about.
    fn sd1_layers() -> Vec<String> {
        let mut paths = Vec::new();
        let mut block = |name: &str, n_resnets: usize, n_attentions: usize, shortcuts: &[usize]| {
            for idx in 0..n_resnets {
                let resnet = format!("unet.{name}.resnets.{idx}");
                paths.extend(["conv1", "conv2", "time_emb_proj"].map(|l| format!("{resnet}.{l}")));
                if shortcuts.contains(&idx) {
                    paths.push(format!("{resnet}.conv_shortcut"));
                }
            }
            for idx in 0..n_attentions {
                let attention = format!("unet.{name}.attentions.{idx}");
                paths.extend(["proj_in", "proj_out"].map(|l| format!("{attention}.{l}")));
                let inner = format!("{attention}.transformer_blocks.0");
                for attn in ["attn1", "attn2"] {
                    let layers = ["to_q", "to_k", "to_v", "to_out.0"];
                    paths.extend(layers.map(|l| format!("{inner}.{attn}.{l}")));
                }
                paths.extend(["ff.net.0.proj", "ff.net.2"].map(|l| format!("{inner}.{l}")));
            }
        };
        for (idx, (n_attentions, shortcuts)) in
            [(2, &[][..]), (2, &[0]), (2, &[0]), (0, &[])].into_iter().enumerate()
        {
            block(&format!("down_blocks.{idx}"), 2, n_attentions, shortcuts);
        }
        block("mid_block", 2, 1, &[]);
        for (idx, n_attentions) in [0, 3, 3, 3].into_iter().enumerate() {
            block(&format!("up_blocks.{idx}"), 3, n_attentions, &[0, 1, 2]);
        }
        paths.extend((0..3).map(|idx| format!("unet.down_blocks.{idx}.downsamplers.0.conv")));
        paths.extend((0..3).map(|idx| format!("unet.up_blocks.{idx}.upsamplers.0.conv")));
        paths.extend(
            ["unet.conv_in", "unet.conv_out", "unet.time_embedding.linear_1"].map(Into::into),
        );
        paths
    }

    #[test]
    fn presets_choose_as_many_layers_as_other_trainers() {
        let layers = sd1_layers();
        for (word, n_layers) in
            [("attn", 128), ("attn_ff", 160), ("attn_ff_proj", 192), ("attn_ff_proj_conv", 278)]
        {
            let targets = lora(&[&format!("adapter.lora.targets={word}")]).targets;
            let chosen = |path: &&String| targets.iter().any(|t| pattern::matches(t, path));
            assert_eq!(layers.iter().filter(chosen).count(), n_layers, "{word}");
        }
    }

    #[test]
    fn a_bare_lora_has_rank_16_scale_1_and_the_kohya_set() {
        let lora = lora(&[]);
        assert_eq!((lora.rank, lora.conv_rank, lora.init), (16, None, LoraInit::KaimingUniform));
        assert!((lora.alpha - 16.0).abs() < 1e-12);
        assert_eq!(lora.targets.len(), 8);
    }

    #[test]
    fn alpha_follows_the_rank_unless_given() {
        assert!((lora(&["adapter.lora.rank=4"]).alpha - 4.0).abs() < 1e-12);
        assert!((lora(&["adapter.lora.rank=4", "adapter.lora.alpha=1"]).alpha - 1.0).abs() < 1e-12);
    }

    #[test]
    fn convolutions_get_a_rank_only_where_they_are_targets() {
        let spec = lora(&["adapter.lora.targets=attn_ff_proj_conv", "adapter.lora.rank=4"]);
        assert_eq!((spec.conv_rank, spec.conv_alpha), (Some(4), Some(4.0)));
        let spec = lora(&["adapter.lora.targets=[unet.**.conv1]", "adapter.lora.conv_rank=2"]);
        assert_eq!((spec.conv_rank, spec.conv_alpha), (Some(2), Some(2.0)));
        assert_eq!(
            problems_with(&["adapter.lora.conv_rank=2"]),
            ["2: `adapter.lora.conv_rank` is for convolutions, which the targets leave out; \
              say `targets: attn_ff_proj_conv` or list patterns"]
        );
        assert_eq!(
            problems_with(&["adapter.lora.conv_alpha=2"]),
            ["2: `adapter.lora.conv_alpha` needs `conv_rank`, which is missing"]
        );
    }

    #[test]
    fn numbers_outside_their_range_are_named_with_it() {
        assert_eq!(
            problems_with(&["adapter={lora: {rank: 0, alpha: 0, dropout: 1.0, conv_rank: 5000, \
                 targets: attn_ff_proj_conv}}"]),
            [
                "0: `adapter.lora.rank` must be at least 1 and at most 4096, found `0`",
                "0: `adapter.lora.alpha` must be above 0 and at most 1000000, found `0`",
                "1.0: `adapter.lora.dropout` must be at least 0 and below 1, found `1`",
                "5000: `adapter.lora.conv_rank` must be at least 1 and at most 4096, found `5000`",
            ]
        );
    }

    #[test]
    fn targets_are_checked_one_by_one() {
        assert_eq!(
            problems_with(&["adapter.lora.targets=[unet.**.to_q, 'vae.**', 'unet..x', '']"]),
            [
                "'vae.**': `adapter.lora.targets` must begin with `unet` or `text_encoder`, found \
                 `vae.**`",
                "'unet..x': `adapter.lora.targets`: `unet..x` is no pattern: a part between dots is \
                 empty",
                "'': `adapter.lora.targets`: `` is no pattern: a part between dots is empty",
            ]
        );
        let second = "adapter.lora.targets=['text_encoder_2.**.q_proj']";
        assert!(problems_with(&[second])[0].ends_with("found `text_encoder_2.**.q_proj`"));
        for base in ["sdxl", "folder"] {
            with(&[&format!("base={{{base}: {{weights: w}}}}"), second]);
        }
        let problems = problems_with(&["adapter.lora.targets=[]"]);
        assert!(
            problems[0].ends_with("must name at least one pattern, found none"),
            "{problems:?}"
        );
        let problems = problems_with(&["adapter.lora.targets=atnn"]);
        assert!(problems[0].starts_with("atnn: `adapter.lora.targets` must be one of"));
    }

    #[test]
    fn full_training_refuses_a_base_in_bf16() {
        let text = |precision: &str| {
            let base = format!("base: {{ sd1: {{ weights: w, precision: {precision} }} }}");
            let small = SMALL.replace("base: postcards", &base);
            small.replace("adapter: lora", "adapter: { full: { targets: ['unet.**'] } }")
        };
        let message = "`adapter.full` needs a base in f32, found `precision: bf16`";
        one_problem(&text("bf16"), (6, 10), "{", message);
        for precision in ["auto", "f32"] {
            let adapter = recipe(&text(precision)).adapter;
            assert!(matches!(adapter, AdapterSpec::Full(_)), "{precision}");
        }
        with(&["base={sd1: {weights: w, precision: bf16}}"]);
    }

    #[test]
    fn full_training_names_its_parameters() {
        let spec = with(&["adapter={full: {targets: ['unet.**']}}"]).adapter;
        assert_eq!(spec, AdapterSpec::Full(FullSpec { targets: vec!["unet.**".to_owned()] }));
        assert_eq!(problems_with(&["adapter=full"]), ["full: `adapter.full.targets` is missing"]);
        assert_eq!(
            problems_with(&["adapter={full: {targets: attn}}"]),
            ["attn: `adapter.full.targets` must be a list of patterns, found the text `attn`"]
        );
    }
}
