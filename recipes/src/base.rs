//! The section `base`: which frozen model a concept is settled in.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

use crate::choice::Choice;
use crate::field::{Field, Flag, Whole, raw_section, words};
use crate::problem::Checks;
use crate::sampler::Spacing;
use crate::units::{Places, file_name, folder};
use crate::weights::WeightsSource;

/// The frozen model that is adapted.
///
/// The UNet of [`BaseSpec::Postcards`] and of [`BaseSpec::Folder`] is always computed in f32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseSpec {
    /// The miniature base that the binary carries: pictures of 64 × 64 pixels.
    Postcards,
    /// A folder in the diffusers layout (`model_index.json`, `unet/`, `vae/`, …), of any family.
    Folder {
        /// The folder.
        weights: PathBuf,
    },
    /// Stable Diffusion 1.x.
    Sd1(ModelSpec),
    /// Stable Diffusion 2.x.
    Sd2(ModelSpec),
    /// Stable Diffusion XL.
    Sdxl(ModelSpec),
}

/// How the files of a base of a released family are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// Where they lie.
    pub weights: WeightsSource,
    /// A VAE in place of the base's own: a safetensors file, or a folder in the diffusers layout.
    pub vae: Option<PathBuf>,
    /// Variant of the weight files, such as `fp16`; `None`: the plain files, else fp16.
    pub variant: Option<String>,
    /// Which weights of a file that holds two sets.
    pub weights_set: WeightsSet,
    /// What the network puts out.
    pub prediction: BasePrediction,
    /// Whether the last noise level holds no picture at all.
    pub zero_terminal_snr: ZeroTerminalSnr,
    /// Layer of the text encoder that is read, counted from its end: 1 (the last) to 12; always 1
    /// for [`BaseSpec::Sdxl`].
    pub clip_skip: u32,
    /// Number format in which the UNet is computed; VAE and text encoders are computed in f32.
    pub precision: BasePrecision,
}

impl Serialize for ModelSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("weights", &self.weights)?;
        if let Some(vae) = &self.vae {
            map.serialize_entry("vae", vae)?;
        }
        if let Some(variant) = &self.variant {
            map.serialize_entry("variant", variant)?;
        }
        map.serialize_entry("weights_set", &self.weights_set)?;
        map.serialize_entry("prediction", &self.prediction)?;
        match self.zero_terminal_snr {
            ZeroTerminalSnr::Auto => {}
            ZeroTerminalSnr::On => map.serialize_entry("zero_terminal_snr", &true)?,
            ZeroTerminalSnr::Off => map.serialize_entry("zero_terminal_snr", &false)?,
        }
        // The key has no meaning for every family, so its default is not written.
        if self.clip_skip != LAST_LAYER {
            map.serialize_entry("clip_skip", &self.clip_skip)?;
        }
        // Runs from before there was a choice keep their names.
        if self.precision != BasePrecision::Auto {
            map.serialize_entry("precision", &self.precision)?;
        }
        map.end()
    }
}

words! {
    /// Which weights of a file that holds two sets.
    WeightsSet {
        /// The trained weights.
        Plain,
        /// Their moving average.
        Average,
    }
}

words! {
    /// What the network puts out.
    BasePrediction {
        /// What the files say.
        Auto,
        /// The noise ε.
        Epsilon,
        /// The velocity v = √ᾱ·ε − √(1−ᾱ)·x₀.
        V,
        /// The clean picture x₀.
        Sample,
    }
}

words! {
    /// Number format in which the UNet is computed.
    BasePrecision {
        /// bf16 on an NVIDIA card; f32 on the processor, and where the weights themselves are trained.
        Auto,
        /// Single precision.
        F32,
        /// bfloat16, beside an adapter that is trained in single precision.
        Bf16,
    }
}

/// Whether the noise schedule is rescaled so that its last level holds no picture at all.
///
/// Source: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroTerminalSnr {
    /// As the files say.
    Auto,
    /// Rescaled.
    On,
    /// As the betas say.
    Off,
}

impl BaseSpec {
    /// How the files of a released family are read; `None` for the embedded base and for a folder
    /// of any family.
    pub fn model(&self) -> Option<&ModelSpec> {
        match self {
            Self::Postcards | Self::Folder { .. } => None,
            Self::Sd1(model) | Self::Sd2(model) | Self::Sdxl(model) => Some(model),
        }
    }

    /// Side of the square pictures the base was made for, where a recipe does not say it.
    pub(crate) fn side_px(&self) -> u32 {
        match self {
            Self::Postcards => 64,
            Self::Folder { .. } | Self::Sd1(_) => 512,
            // Of 2.x there are two kinds: 512 px with epsilon, 768 px with v.
            Self::Sd2(model) if model.prediction == BasePrediction::Epsilon => 512,
            Self::Sd2(_) => 768,
            Self::Sdxl(_) => 1024,
        }
    }

    /// Guidance weight of previews and census, where a recipe does not say it; for the released
    /// families, what their diffusers pipelines take by default.
    pub(crate) fn guidance_scale(&self) -> f64 {
        match self {
            Self::Postcards => 3.0,
            Self::Folder { .. } | Self::Sd1(_) | Self::Sd2(_) => 7.5,
            Self::Sdxl(_) => 5.0,
        }
    }

    /// Thesaurus whose entities are counted, where a recipe does not say it.
    pub(crate) fn thesaurus(&self) -> &'static str {
        match self {
            Self::Postcards => "postcards",
            Self::Folder { .. } | Self::Sd1(_) | Self::Sd2(_) | Self::Sdxl(_) => "starter",
        }
    }

    /// Components whose layers can be trained; of a folder the family is not known yet.
    pub(crate) fn trainable(&self) -> &'static [&'static str] {
        match self {
            Self::Postcards | Self::Sd1(_) | Self::Sd2(_) => &["unet", "text_encoder"],
            Self::Folder { .. } | Self::Sdxl(_) => &["unet", "text_encoder", "text_encoder_2"],
        }
    }

    /// True if the recipe asks for a last noise level without any picture.
    pub(crate) fn has_zero_terminal_snr(&self) -> bool {
        self.model().is_some_and(|model| model.zero_terminal_snr == ZeroTerminalSnr::On)
    }

    /// Spacing of a sampler's steps where a recipe does not say it; `None`: the base's own.
    pub(crate) fn spacing(&self) -> Option<Spacing> {
        // Leading steps would never begin at the level that training then includes.
        self.has_zero_terminal_snr().then_some(Spacing::Trailing)
    }
}

/// Which frozen model the concept is settled in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawBase {
    /// The miniature base that the binary carries (64 x 64 pixels); it needs no download.
    Postcards,
    /// A folder in the diffusers layout, of any family.
    Folder(RawFolder),
    /// Stable Diffusion 1.x (512 x 512 pixels).
    Sd1(Box<RawModel>),
    /// Stable Diffusion 2.x (768 x 768 pixels; 512 x 512 with `prediction: epsilon`).
    Sd2(Box<RawModel>),
    /// Stable Diffusion XL (1024 x 1024 pixels).
    Sdxl(Box<RawModel>),
}

raw_section! {
    /// A base that lies in a folder.
    RawFolder {
        /// Folder with `model_index.json`, `unet/`, `vae/`, `text_encoder/`, `tokenizer/`, `scheduler/`.
        #[schemars(!default, required)]
        weights: PathBuf,
    }
}

raw_section! {
    /// A base of a released family: a folder, a single file, or a model of the Hugging Face hub.
    RawModel {
        /// A folder in the diffusers layout, one `.safetensors` file, or a model of the Hugging Face
        /// hub: `hf:org/name[/file.safetensors][@revision]`.
        #[schemars(!default, required)]
        weights: String,
        /// A VAE in place of the base's own: a `.safetensors` file or a folder in the diffusers
        /// layout.
        vae: String,
        /// Variant of a folder's weight files, such as fp16 (default: the plain files, else fp16).
        variant: String,
        /// Of one file that holds the trained weights and their moving average: plain (default) or
        /// average.
        weights_set: Choice<WeightsSet>,
        /// What the network puts out: auto (default, what the files say), epsilon, v or sample. A
        /// single file of Stable Diffusion 2.x does not say it.
        prediction: Choice<BasePrediction>,
        /// Whether the last noise level holds no picture at all (default: what the files say), so
        /// that very dark and very bright pictures can be drawn. Not for epsilon.
        zero_terminal_snr: Flag,
        /// Layer of the text encoder that is read, counted from its end (default 1, the last). Not
        /// for `sdxl`.
        #[schemars(range(min = 1, max = 12))]
        clip_skip: Whole,
        /// Number format in which the UNet is computed: auto (default, bf16 on an NVIDIA card and f32
        /// on the processor), f32 or bf16. VAE and text encoders are always computed in f32, and so
        /// are the bases `postcards` and `folder`.
        precision: Choice<BasePrecision>,
    }
}

/// The text encoder's last layer, counted from its end.
const LAST_LAYER: u32 = 1;

/// Resolves the section; an absent key is a problem of the recipe at `root`.
pub(crate) fn resolve(
    raw: Field<Choice<RawBase>>,
    root: Location,
    places: &Places,
    checks: &mut Checks,
) -> Option<BaseSpec> {
    let Spanned { value: raw, referenced, .. } = raw.required_choice("base", root, checks)?;
    match raw {
        RawBase::Postcards => Some(BaseSpec::Postcards),
        RawBase::Folder(raw) => {
            let weights = raw.weights.required("base.folder.weights", referenced, checks)?;
            let weights = folder(&weights, "base.folder.weights", places, checks);
            Some(BaseSpec::Folder { weights })
        }
        RawBase::Sd1(raw) => raw.resolve("base.sd1", referenced, places, checks).map(BaseSpec::Sd1),
        RawBase::Sd2(raw) => raw.resolve("base.sd2", referenced, places, checks).map(BaseSpec::Sd2),
        RawBase::Sdxl(raw) => {
            if let Some(location) = raw.clip_skip.location() {
                checks.problem_with_hint(
                    location,
                    "`base.sdxl.clip_skip` has no meaning: Stable Diffusion XL reads the last layer \
                     but one of both text encoders",
                    "remove the key",
                );
            }
            let raw = RawModel { clip_skip: Field::Absent, ..*raw };
            raw.resolve("base.sdxl", referenced, places, checks).map(BaseSpec::Sdxl)
        }
    }
}

impl RawModel {
    /// Resolves the section `key` at `section`.
    fn resolve(
        self,
        key: &str,
        section: Location,
        places: &Places,
        checks: &mut Checks,
    ) -> Option<ModelSpec> {
        let of = |name: &str| format!("{key}.{name}");
        let given = Given {
            variant: self.variant.location(),
            weights_set: self.weights_set.location(),
            zero_terminal_snr: self.zero_terminal_snr.location(),
        };
        let weights = self.weights.required(&of("weights"), section, checks);
        let weights = weights.and_then(|text| source(&text, &of("weights"), places, checks));
        let vae = self.vae.given(&of("vae"), checks);
        let vae = vae.and_then(|text| path(&text, &of("vae"), places, checks));
        let variant = self.variant.given(&of("variant"), checks);
        let variant = variant.map(|name| file_name(name, &of("variant"), checks));
        let default = WeightsSet::Plain;
        let weights_set = self.weights_set.choice_or(default, &of("weights_set"), checks);
        let default = BasePrediction::Auto;
        let prediction = self.prediction.choice_or(default, &of("prediction"), checks);
        let zero = self.zero_terminal_snr.plain(&of("zero_terminal_snr"), checks);
        let zero_terminal_snr = match zero.map(|zero| zero.value) {
            None => ZeroTerminalSnr::Auto,
            Some(true) => ZeroTerminalSnr::On,
            Some(false) => ZeroTerminalSnr::Off,
        };
        let clip_skip_key = of("clip_skip");
        let clip_skip = self.clip_skip.count_or(LAST_LAYER, &clip_skip_key, &(1..=12), checks);
        let precision = self.precision.choice_or(BasePrecision::Auto, &of("precision"), checks);
        let model = ModelSpec {
            weights: weights?,
            vae,
            variant,
            weights_set,
            prediction,
            zero_terminal_snr,
            clip_skip,
            precision,
        };
        given.check(&model, key, checks);
        Some(model)
    }
}

/// Where keys stand that fit only some values of others.
struct Given {
    variant: Option<Location>,
    weights_set: Option<Location>,
    zero_terminal_snr: Option<Location>,
}

impl Given {
    /// Records what would be read by nobody or contradicts itself.
    fn check(&self, model: &ModelSpec, key: &str, checks: &mut Checks) {
        let one_file = model.weights.is_one_file();
        if let (Some(location), Some(true)) = (self.variant, one_file) {
            let message = format!(
                "`{key}.variant` chooses among the files of a folder, but `weights` is one file, \
                 `{}`",
                model.weights
            );
            checks.problem(location, message);
        }
        if let (Some(location), Some(false)) = (self.weights_set, one_file)
            && model.weights_set == WeightsSet::Average
        {
            let message = format!(
                "`{key}.weights_set: average` needs one file that holds two sets, but `weights` is \
                 a folder, `{}`",
                model.weights
            );
            checks.problem(location, message);
        }
        if let Some(location) = self.zero_terminal_snr
            && model.zero_terminal_snr == ZeroTerminalSnr::On
            && model.prediction == BasePrediction::Epsilon
        {
            checks.problem_with_hint(
                location,
                format!(
                    "`{key}.zero_terminal_snr` must be `false` with `prediction: epsilon`, found \
                     `true`"
                ),
                "from pure noise the noise tells nothing about the picture; such a base predicts v",
            );
        }
    }
}

/// A path below `places` or a model of the hub.
fn source(
    text: &Spanned<String>,
    key: &str,
    places: &Places,
    checks: &mut Checks,
) -> Option<WeightsSource> {
    match text.value.parse::<WeightsSource>() {
        Ok(WeightsSource::Path(path)) => {
            let Spanned { referenced, defined, .. } = *text;
            let path = Spanned { value: path, referenced, defined };
            Some(WeightsSource::Path(folder(&path, key, places, checks)))
        }
        Ok(WeightsSource::Hub(model)) => Some(WeightsSource::Hub(model)),
        Err(reason) => {
            checks.problem_with_hint(
                text.referenced,
                format!("`{key}` names no model of the hub: {reason}"),
                "`hf:org/name`, then `/file.safetensors` for a single file and `@revision` for a \
                 branch, tag or commit",
            );
            None
        }
    }
}

/// A path below `places`; a model of the hub is recorded.
fn path(
    text: &Spanned<String>,
    key: &str,
    places: &Places,
    checks: &mut Checks,
) -> Option<PathBuf> {
    match source(text, key, places, checks)? {
        WeightsSource::Path(path) => Some(path),
        WeightsSource::Hub(model) => {
            checks.problem_with_hint(
                text.referenced,
                format!("`{key}` must be a path, found `{model}`"),
                "only `weights` may name a model of the hub",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{SMALL, one_problem, problems_with, recipe, with};
    use crate::fingerprint::resolved_yaml;
    use crate::weights::HubModel;

    /// The base of the small recipe with this section.
    fn base(section: &str) -> BaseSpec {
        with(&[&format!("base={{{section}}}")]).base
    }

    fn model(section: &str) -> ModelSpec {
        let base = base(section);
        base.model().unwrap_or_else(|| panic!("no model in {base:?}")).clone()
    }

    fn problems(section: &str) -> Vec<String> {
        problems_with(&[&format!("base={{{section}}}")])
    }

    #[test]
    fn the_base_decides_size_guidance_and_thesaurus() {
        for (section, side_px, guidance_scale) in [
            ("folder: {weights: w/sd15}", 512, 7.5),
            ("sd1: {weights: w}", 512, 7.5),
            ("sd2: {weights: w}", 768, 7.5),
            ("sd2: {weights: w, prediction: v}", 768, 7.5),
            ("sd2: {weights: w, prediction: epsilon}", 512, 7.5),
            ("sdxl: {weights: w}", 1024, 5.0),
        ] {
            let recipe = with(&[&format!("base={{{section}}}")]);
            assert_eq!(recipe.dataset.image_options().side_px, side_px, "{section}");
            let found = recipe.fit.previews.guidance_scale;
            assert!((found - guidance_scale).abs() < 1e-12, "{section}");
            let census = recipe.census.unwrap();
            assert!((census.guidance_scale - guidance_scale).abs() < 1e-12, "{section}");
            let starter = crate::ThesaurusSource::Named("starter".to_owned());
            assert_eq!(census.thesaurus, starter, "{section}");
        }
        assert_eq!(base("folder: {weights: w}"), BaseSpec::Folder { weights: "w".into() });
        assert_eq!(with(&[]).dataset.image_options().side_px, 64);
    }

    #[test]
    fn a_base_is_needed() {
        let text = SMALL.replace("base: postcards\n", "");
        one_problem(&text, (1, 1), "", "`base` is missing");
    }

    #[test]
    fn every_base_but_the_embedded_one_needs_its_weights() {
        for word in ["folder", "sd1", "sd2", "sdxl"] {
            let missing = format!("{word}: `base.{word}.weights` is missing");
            assert_eq!(problems_with(&[&format!("base={word}")]), [missing]);
            let rule = format!("'': `base.{word}.weights` must name a path, found an empty text");
            assert_eq!(problems(&format!("{word}: {{weights: ''}}")), [rule]);
        }
        let rule = "`base` must be one of `postcards`, `folder`, `sd1`, `sd2`, `sdxl`, found `sd3`";
        assert_eq!(problems_with(&["base=sd3"]), [format!("sd3: {rule}")]);
    }

    #[test]
    fn what_is_not_said_is_left_to_the_files() {
        let expected = ModelSpec {
            weights: WeightsSource::Path("w".into()),
            vae: None,
            variant: None,
            weights_set: WeightsSet::Plain,
            prediction: BasePrediction::Auto,
            zero_terminal_snr: ZeroTerminalSnr::Auto,
            clip_skip: 1,
            precision: BasePrecision::Auto,
        };
        assert_eq!(base("sd1: {weights: w}"), BaseSpec::Sd1(expected.clone()));
        assert_eq!(base("sd2: {weights: w}"), BaseSpec::Sd2(expected.clone()));
        assert_eq!(base("sdxl: {weights: w}"), BaseSpec::Sdxl(expected));
        assert_eq!(with(&[]).base.model(), None);
    }

    #[test]
    fn every_key_is_read() {
        let found = model(
            "sd2: {weights: x.safetensors, vae: v, weights_set: average, prediction: v, \
             zero_terminal_snr: true, clip_skip: 2, precision: bf16}",
        );
        let expected = ModelSpec {
            weights: WeightsSource::Path("x.safetensors".into()),
            vae: Some("v".into()),
            variant: None,
            weights_set: WeightsSet::Average,
            prediction: BasePrediction::V,
            zero_terminal_snr: ZeroTerminalSnr::On,
            clip_skip: 2,
            precision: BasePrecision::Bf16,
        };
        assert_eq!(found, expected);
        let found = model("sd1: {weights: w, variant: fp16, zero_terminal_snr: false}");
        assert_eq!(found.variant.as_deref(), Some("fp16"));
        assert_eq!(found.zero_terminal_snr, ZeroTerminalSnr::Off);
        let found = model("sd1: {weights: w, prediction: sample}");
        assert_eq!(found.prediction, BasePrediction::Sample);
        for (word, precision) in [("auto", BasePrecision::Auto), ("f32", BasePrecision::F32)] {
            let found = model(&format!("sdxl: {{weights: w, precision: {word}}}")).precision;
            assert_eq!(found, precision, "{word}");
        }
    }

    #[test]
    fn weights_may_lie_on_the_hub() {
        let found = model("sdxl: {weights: 'hf:org/name/x.safetensors@v2'}").weights;
        let expected = HubModel {
            repo: "org/name".to_owned(),
            file: Some("x.safetensors".to_owned()),
            revision: Some("v2".to_owned()),
        };
        assert_eq!(found, WeightsSource::Hub(expected));
        assert_eq!(
            problems("sd1: {weights: hf:name, vae: hf:org/vae}"),
            [
                "hf:name: `base.sd1.weights` names no model of the hub: expected `hf:org/name`, \
                 found `hf:name`",
                "hf:org/vae: `base.sd1.vae` must be a path, found `hf:org/vae`",
            ]
        );
    }

    #[test]
    fn an_override_moves_the_weights() {
        let text = SMALL.replace("base: postcards", "base: { sd1: { weights: hf:org/name } }");
        let sets = ["base.sd1.weights=here/sd15".to_owned(), "base.sd1.clip_skip=2".to_owned()];
        let path = std::path::Path::new("t.yaml");
        let Ok(crate::Loaded::Settle(recipe)) = crate::load_text(path, &text, &sets) else {
            panic!("it settles")
        };
        let model = recipe.base.model().unwrap();
        assert_eq!(model.weights, WeightsSource::Path("here/sd15".into()));
        assert_eq!(model.clip_skip, 2);
    }

    #[test]
    fn weights_are_found_beside_the_recipe() {
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/x.yaml");
        let places = Places::of(std::path::Path::new(recipe));
        let (value, here) = ("postcards/vae.json".to_owned(), Location::UNKNOWN);
        let text = Spanned { value, referenced: here, defined: here };
        let found = source(&text, "base.sd1.weights", &places, &mut Checks::default());
        let Some(WeightsSource::Path(path)) = found else { panic!("no path in {found:?}") };
        assert!(path.is_file(), "{}", path.display());
    }

    #[test]
    fn numbers_and_words_outside_their_range_are_named_with_it() {
        assert_eq!(
            problems("sd1: {weights: w, prediction: eps, clip_skip: 13, zero_terminal_snr: auto}"),
            [
                "eps: `base.sd1.prediction` must be one of `auto`, `epsilon`, `v`, `sample`, found \
                 `eps`",
                "13: `base.sd1.clip_skip` must be at least 1 and at most 12, found `13`",
                "auto: `base.sd1.zero_terminal_snr` must be `true` or `false`, found the text `auto`",
            ]
        );
        assert_eq!(
            problems("sd1: {weights: w, precision: fp16}"),
            ["fp16: `base.sd1.precision` must be one of `auto`, `f32`, `bf16`, found `fp16`"]
        );
        let problems = problems("sd1: {weights: w, variant: ../fp16}");
        assert!(problems[0].starts_with("../fp16: `base.sd1.variant` must be 1 to 64 letters"));
    }

    #[test]
    fn keys_that_nothing_would_read_are_refused() {
        assert_eq!(
            problems("sdxl: {weights: w, clip_skip: 99}"),
            ["99: `base.sdxl.clip_skip` has no meaning: Stable Diffusion XL reads the last layer \
              but one of both text encoders"]
        );
        assert_eq!(
            problems("sd1: {weights: x.safetensors, variant: fp16}"),
            ["fp16: `base.sd1.variant` chooses among the files of a folder, but `weights` is one \
              file, `x.safetensors`"]
        );
        assert_eq!(
            problems("sd1: {weights: hf:org/name, weights_set: average}"),
            ["average: `base.sd1.weights_set: average` needs one file that holds two sets, but \
              `weights` is a folder, `hf:org/name`"]
        );
    }

    #[test]
    fn epsilon_cannot_begin_at_pure_noise() {
        let problems = problems("sd1: {weights: w, prediction: epsilon, zero_terminal_snr: true}");
        let rule = "must be `false` with `prediction: epsilon`, found `true`";
        assert_eq!(problems, [format!("true: `base.sd1.zero_terminal_snr` {rule}")]);
        model("sd1: {weights: w, prediction: epsilon, zero_terminal_snr: false}");
        model("sd1: {weights: w, zero_terminal_snr: true}");
    }

    #[test]
    fn a_resolved_base_resolves_to_itself() {
        for section in [
            "sd1: {weights: w}",
            "sd1: {weights: 'hf:org/name@1e3', vae: '12', variant: 'no', clip_skip: 3}",
            "sd2: {weights: a b.safetensors, weights_set: average, zero_terminal_snr: true}",
            "sd1: {weights: w, precision: f32}",
            "sd2: {weights: w, precision: bf16}",
            "sdxl: {weights: w, precision: auto}",
            "sdxl: {weights: hf:org/name/x.safetensors, prediction: v, zero_terminal_snr: false}",
        ] {
            let once = with(&[&format!("base={{{section}}}")]);
            let text = resolved_yaml(&once);
            assert_eq!(once, recipe(&text), "{text}");
        }
    }
}
