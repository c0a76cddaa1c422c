//! The part of a base that is trained: an adapter's factors, or chosen parameters themselves.
//!
//! It holds its own handles of the base's networks; the base it was made from keeps its bits.

use std::collections::BTreeMap;

use checkpoints::key_map::KeyMap;
use checkpoints::{HostTensor, TensorMap};
use models::adapter::{self, Adapter, DropoutDraw, Factors, Layer};
use models::base::{Base, Precision, host_values, tensor_from_host};
use models::{Network, Slot, Visitor};
use recipes::{AdapterSpec, pattern_matches};

use crate::error::TrainError;

const DOWN: &str = ".lora_down";
const UP: &str = ".lora_up";
/// Beginning of the paths of the first text encoder.
const FIRST_ENCODER: &str = "text_encoder.";

/// A base with trainable values.
#[derive(Clone, Debug)]
pub struct Trainee {
    base: Base,
    kind: Kind,
}

/// What is trained.
#[derive(Clone, Debug)]
enum Kind {
    /// The factors of an adapter that is attached.
    Lora { template: Adapter, dropout: f64 },
    /// The parameters that one of these patterns matches.
    Full { patterns: Vec<String> },
}

impl Trainee {
    /// `base` before its first step: an adapter that changes nothing, or parameters as they are.
    ///
    /// # Errors
    ///
    /// A pattern without layer or parameter; a rank above what a layer's weight can have;
    /// [`TrainError::Rounded`] for weights themselves of a base that is not in f32.
    pub fn new(spec: &AdapterSpec, base: &Base, seed: u64) -> Result<Self, TrainError> {
        match spec {
            AdapterSpec::Lora(spec) => {
                let template = adapter::initial(&trainable_layers(base), spec, seed)?;
                Self::with_adapter(base, template, spec.dropout)
            }
            AdapterSpec::Full(spec) => {
                // Updates would be lost in the rounding, and what is written is read again in f32.
                if base.precision != Precision::F32 {
                    return Err(TrainError::Rounded { found: base.precision.name() });
                }
                let patterns = spec.targets.clone();
                let mut trainee = Self { base: base.clone(), kind: Kind::Full { patterns } };
                trainee.check_patterns(&spec.targets)?;
                Ok(trainee)
            }
        }
    }

    fn with_adapter(base: &Base, template: Adapter, dropout: f64) -> Result<Self, TrainError> {
        let mut base = base.clone();
        for (component, network) in base.adapted() {
            adapter::attach(network, component, &part_of(&template, component), 1.0)?;
        }
        Ok(Self { base, kind: Kind::Lora { template, dropout } })
    }

    fn check_patterns(&mut self, patterns: &[String]) -> Result<(), TrainError> {
        let mut paths = Vec::new();
        for (component, network) in self.base.adapted() {
            let mut collect = |path: &str, _: &mut dyn Slot| paths.push(path.to_owned());
            network.visit(component, &mut Show(&mut collect));
        }
        match patterns
            .iter()
            .find(|pattern| !paths.iter().any(|path| pattern_matches(pattern, path)))
        {
            Some(pattern) => Err(TrainError::NoSuchParameter { pattern: pattern.clone() }),
            None => Ok(()),
        }
    }

    /// The base with what has been trained.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Whether an adapter is trained, not the weights themselves.
    pub fn is_adapter(&self) -> bool {
        matches!(self.kind, Kind::Lora { .. })
    }

    /// Shows every trainable value, always in the same order: `unet.….lora_down`, `unet.….lora_up`,
    /// or `unet.….weight`.
    pub fn visit(&mut self, show: &mut dyn FnMut(&str, &mut dyn Slot)) {
        for (component, network) in self.base.adapted() {
            match &self.kind {
                Kind::Lora { .. } => adapter::visit_factors(network, component, show),
                Kind::Full { patterns } => {
                    let mut chosen = |path: &str, slot: &mut dyn Slot| {
                        if patterns.iter().any(|pattern| pattern_matches(pattern, path)) {
                            show(path, slot);
                        }
                    };
                    network.visit(component, &mut Show(&mut chosen));
                }
            }
        }
    }

    /// Sets the dropout of the samples that the next forward pass will hold.
    pub fn set_dropout(&mut self, draw: DropoutDraw) {
        let Kind::Lora { dropout, .. } = self.kind else { return };
        if dropout > 0.0 {
            for (_, network) in self.base.adapted() {
                adapter::set_dropout(network, dropout, draw);
            }
        }
    }

    /// Switches dropout off.
    pub fn clear_dropout(&mut self) {
        let draw = DropoutDraw { seed: 0, step: 0, first_sample: 0 };
        for (_, network) in self.base.adapted() {
            adapter::set_dropout(network, 0.0, draw);
        }
    }

    /// The adapter with its present factors; `None` if the weights themselves are trained.
    ///
    /// # Errors
    ///
    /// [`models::ModelError::Device`].
    pub fn adapter(&mut self) -> Result<Option<Adapter>, TrainError> {
        let Kind::Lora { template, .. } = &self.kind else { return Ok(None) };
        let mut modules = template.modules.clone();
        for (path, tensor) in self.values()? {
            let (layer, is_down) = match (path.strip_suffix(DOWN), path.strip_suffix(UP)) {
                (Some(layer), _) => (layer, true),
                (None, Some(layer)) => (layer, false),
                (None, None) => continue,
            };
            if let Some(factors) = modules.get_mut(layer) {
                *(if is_down { &mut factors.down } else { &mut factors.up }) = tensor;
            }
        }
        Ok(Some(Adapter { modules }))
    }

    /// Every trainable value under its path, on the host.
    ///
    /// # Errors
    ///
    /// [`models::ModelError::Device`].
    pub fn values(&mut self) -> Result<TensorMap, TrainError> {
        let mut found = Vec::new();
        self.visit(&mut |path, slot| found.push((path.to_owned(), slot.shape(), slot.flat())));
        let host = |(path, shape, values): (String, Vec<usize>, _)| {
            Ok((path, HostTensor::from_f32(shape, host_values(values)?)))
        };
        found.into_iter().map(host).collect()
    }

    /// Tensors of a checkpoint: an adapter under kohya's names, or parameters under their paths, in
    /// f32 and exact.
    ///
    /// # Errors
    ///
    /// [`models::ModelError::Device`].
    pub fn tensors(&mut self, map: &KeyMap) -> Result<TensorMap, TrainError> {
        match self.adapter()? {
            Some(adapter) => Ok(adapter::exact_tensors(&adapter, map)?),
            None => self.values(),
        }
    }

    /// Puts values of [`Trainee::tensors`] back, `None` if a value is missing or of another shape.
    pub fn restore(&mut self, tensors: &TensorMap, map: &KeyMap) -> Option<()> {
        let by_path: BTreeMap<String, &HostTensor> = match self.kind {
            Kind::Full { .. } => {
                tensors.iter().map(|(path, tensor)| (path.clone(), tensor)).collect()
            }
            Kind::Lora { .. } => tensors
                .iter()
                .filter_map(|(key, tensor)| Some((path_of(key, map)?, tensor)))
                .collect(),
        };
        let device = self.base.device.clone();
        let (mut n_found, mut complete) = (0, true);
        self.visit(&mut |path, slot| match by_path.get(path) {
            Some(tensor) if tensor.shape == slot.shape() => {
                let values = tensor.f32().into_owned();
                let shape = [values.len()];
                slot.set(tensor_from_host(values, shape, &device));
                n_found += 1;
            }
            _ => complete = false,
        });
        (complete && n_found == by_path.len()).then_some(())
    }
}

/// The path that [`Trainee::visit`] shows for a key of a kohya file; `None` for alpha.
fn path_of(key: &str, map: &KeyMap) -> Option<String> {
    use checkpoints::key_map::Part;
    let parsed = map.parse(key).ok()?;
    match parsed.part {
        Part::Down => Some(format!("{}{DOWN}", parsed.path)),
        Part::Up => Some(format!("{}{UP}", parsed.path)),
        Part::Alpha | Part::Mid | Part::DoraScale => None,
    }
}

/// The modules of one component.
pub(crate) fn part_of(adapter: &Adapter, component: &str) -> Adapter {
    let own = |(path, factors): (&String, &Factors)| {
        let inside = path.split_once('.').is_some_and(|(first, _)| first == component);
        inside.then(|| (path.clone(), factors.clone()))
    };
    Adapter { modules: adapter.modules.iter().filter_map(own).collect() }
}

/// A component of a base that can be trained, by its name.
pub(crate) fn network<'a>(base: &'a mut Base, component: &str) -> Option<&'a mut dyn Network> {
    base.adapted().into_iter().find(|(name, _)| *name == component).map(|(_, network)| network)
}

/// The layers that an adapter can reach and that the denoiser's output depends on.
///
/// Of the first text encoder the denoiser reads states before the end: of SDXL those before the
/// last layer, under clip skip k those before the last k − 1. What lies behind them gets no gradient,
/// so that an adapter there could not learn. The projection of pooled text is left out because the
/// web interfaces have no name for an adapter of it.
pub fn trainable_layers(base: &Base) -> Vec<Layer> {
    let n_unread = if base.text_encoder_2.is_some() { 1 } else { base.clip_skip.saturating_sub(1) };
    let n_layers = base.text_encoder.config().tower.num_hidden_layers;
    let is_read = |layer: &Layer| match layer.path.strip_prefix(FIRST_ENCODER) {
        _ if layer.path.ends_with(".text_projection") => false,
        Some(inner) => number_of(inner).is_none_or(|number| number + n_unread < n_layers),
        None => true,
    };
    adapter::base_layers(base).into_iter().filter(is_read).collect()
}

/// The number of the encoder layer in which a path within a text encoder lies.
fn number_of(inner: &str) -> Option<usize> {
    inner.strip_prefix("text_model.encoder.layers.")?.split('.').next()?.parse().ok()
}

/// Shows every parameter to a closure.
pub(crate) struct Show<'a>(pub(crate) &'a mut dyn FnMut(&str, &mut dyn Slot));

impl Visitor for Show<'_> {
    fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
        (self.0)(path, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::World;

    fn has(layers: &[Layer], part: &str) -> bool {
        layers.iter().any(|layer| layer.path.starts_with(part))
    }

    #[test]
    fn layers_behind_the_states_that_are_read_carry_no_adapter() {
        let world = World::sdxl();
        let (all, read) = (adapter::base_layers(&world.base), trainable_layers(&world.base));
        let layer =
            |encoder: &str, number: usize| format!("{encoder}.text_model.encoder.layers.{number}.");
        for (part, is_read) in [
            (layer("text_encoder", 0), true),
            (layer("text_encoder", 1), false),
            (layer("text_encoder_2", 0), true),
            (layer("text_encoder_2", 1), true),
            ("text_encoder_2.text_projection".to_owned(), false),
            ("unet.mid_block.".to_owned(), true),
        ] {
            assert!(has(&all, &part), "{part}");
            assert_eq!(has(&read, &part), is_read, "{part}");
        }
    }

    #[test]
    fn weights_that_are_held_rounded_are_not_trained_themselves() {
        let mut base = World::new().base;
        let targets = vec!["unet.mid_block.**".to_owned()];
        let full = AdapterSpec::Full(recipes::FullSpec { targets });
        Trainee::new(&full, &base, 1).unwrap();
        base.precision = Precision::Bf16;
        let error = Trainee::new(&full, &base, 1).unwrap_err();
        assert!(matches!(error, TrainError::Rounded { found: "bf16" }), "{error}");
    }

    #[test]
    fn clip_skip_takes_the_last_layers_out() {
        let mut base = World::new().base;
        assert_eq!(trainable_layers(&base), adapter::base_layers(&base));
        base.clip_skip = 2;
        let read = trainable_layers(&base);
        assert!(has(&read, "unet.") && !has(&read, "text_encoder."));
    }

    #[test]
    fn all_three_networks_of_sdxl_are_trained_and_put_back() {
        let world = World::sdxl();
        let targets = "adapter.lora.targets=[unet.**.to_q, text_encoder*.**.q_proj]";
        let recipe = world.recipe(&[targets]);
        let mut trainee = Trainee::new(&recipe.adapter, &world.base, recipe.seed).unwrap();
        let map =
            adapter::key_map(&adapter::base_layers(&world.base), world.base.unet.config()).unwrap();
        let tensors = trainee.tensors(&map).unwrap();
        for stem in ["lora_unet_", "lora_te1_", "lora_te2_"] {
            assert!(tensors.keys().any(|key| key.starts_with(stem)), "{stem}");
        }
        let mut changed = tensors.clone();
        for tensor in changed.values_mut().filter(|tensor| tensor.shape.len() == 2) {
            *tensor = HostTensor::from_f32(tensor.shape.clone(), vec![0.25; tensor.len()]);
        }
        trainee.restore(&changed, &map).unwrap();
        assert_eq!(trainee.tensors(&map).unwrap(), changed);
        let mut incomplete = tensors;
        incomplete.retain(|key, _| !key.starts_with("lora_te2_"));
        assert!(trainee.restore(&incomplete, &map).is_none());
    }
}
