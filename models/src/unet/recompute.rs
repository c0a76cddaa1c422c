//! Training steps that keep the input of every unit and no activation within one.
//!
//! The first pass runs on constants. Backwards, each unit is run once more on leaves, from the last
//! to the first: its output y, of which the gradient g is known by then, gives Σ g·y, whose
//! gradients are those of the unit's input, of what it reads besides, and of its parameters. So no
//! more than the activations of one unit exist at a time, at the price of a second forward pass.
//!
//! Source: Chen et al. 2016, arXiv:1604.06174, section 4.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::{Gradients, Tensor};

use super::unit::{Beside, Conditions, Hidden, Part, Unit, Units};
use super::{AddedConditions, Entry, UNet2DConditionModel};
use crate::adapter::LowRank;
use crate::error::ModelError;
use crate::layer::{Conv2d, Linear};
use crate::ops::on_threads;
use crate::visit::{Network, Slot, Visitor};

/// The gradients of one backward pass, in as many parts as it was run in. Those of a leaf lie in
/// one of them.
pub struct GradientParts {
    parts: Vec<Gradients>,
    /// Where the last one was found: leaves that are visited one after the other mostly lie
    /// together.
    at: usize,
}

impl fmt::Debug for GradientParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GradientParts")
            .field("n_parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

impl From<Gradients> for GradientParts {
    /// Of a pass that was run in one.
    fn from(gradients: Gradients) -> Self {
        Self { parts: vec![gradients], at: 0 }
    }
}

impl GradientParts {
    /// Takes the gradient of a leaf, `[n_values]`; `None` for a constant or an unused leaf.
    pub fn take(&mut self, slot: &dyn Slot) -> Option<Tensor<1>> {
        let order = (self.at..self.parts.len()).chain(0..self.at);
        for part in order {
            if let Some(gradient) = slot.take_gradient(&mut self.parts[part]) {
                self.at = part;
                return Some(gradient);
            }
        }
        None
    }
}

/// A forward pass that can be run backwards although it kept only the inputs of units.
#[derive(Debug)]
pub struct Recomputation<'a> {
    units: Units<'a>,
    /// What stands before the units, within the graph where something there is trained.
    entry: Entry,
    /// Values 0 to n − 1, constants.
    inputs: Vec<Hidden>,
    /// Number of the first value that depends on something trained.
    tracked_from: usize,
    /// The last value, a leaf if it depends on something trained.
    last: Tensor<4>,
}

impl UNet2DConditionModel {
    /// As [`UNet2DConditionModel::forward`], with the same output, but the backward pass begins at
    /// the end of the last unit: gradients of a loss over the output are handed to
    /// [`Recomputation::backward`], which goes on from there.
    ///
    /// # Errors
    ///
    /// As [`UNet2DConditionModel::forward`].
    pub fn forward_recomputed(
        &self,
        noisy: Tensor<4>,
        timesteps: Tensor<1>,
        context: &Tensor<3>,
        added: Option<&AddedConditions>,
    ) -> Result<(Tensor<4>, Recomputation<'_>), ModelError> {
        on_threads(&noisy.device(), || {
            let entry = self.entry(noisy, timesteps, context, added)?;
            let units = self.units();
            let tracked_from = first_tracked(&units, &entry);
            let mut constant = self.clone();
            cut(&mut constant);
            let (inputs, last) = inputs(&constant.units(), &entry);
            let is_tracked = tracked_from <= units.as_slice().len();
            let last = if is_tracked { leaf(last) } else { last };
            let output = self.head(last.clone());
            Ok((output, Recomputation { units, entry, inputs, tracked_from, last }))
        })
    }
}

/// The input of every unit and the last value, all constants.
fn inputs(units: &Units<'_>, entry: &Entry) -> (Vec<Hidden>, Tensor<4>) {
    let activated_time = entry.activated_time.clone().inner();
    let context = entry.context.clone().inner();
    let given = Conditions { activated_time: &activated_time, context: &context };
    let mut inputs: Vec<Hidden> = Vec::with_capacity(units.as_slice().len());
    let mut hidden = Hidden::Map(entry.map.clone().inner());
    for unit in units.as_slice() {
        let beside = match unit.beside {
            Beside::Nothing => None,
            Beside::Value(value) | Beside::SidesOf(value) => inputs.get(value).cloned(),
        };
        inputs.push(hidden.clone());
        hidden = unit.forward(hidden, beside, given);
    }
    (inputs, hidden.into_map())
}

/// Number of the first value that depends on something trained; beyond all values if none does.
fn first_tracked(units: &Units<'_>, entry: &Entry) -> usize {
    if entry.map.is_tracked() {
        return 0;
    }
    let is_trained = |unit: &Unit<'_>| match unit.part {
        Part::Resnet(resnet) => entry.activated_time.is_tracked() || cut(&mut resnet.clone()),
        Part::Transformer(transformer, _) => {
            entry.context.is_tracked() || cut(&mut transformer.clone())
        }
        Part::Downsample(downsampler) => cut(&mut downsampler.clone()),
        Part::Upsample(upsampler) => cut(&mut upsampler.clone()),
    };
    units.as_slice().iter().position(is_trained).map_or(usize::MAX, |unit| unit + 1)
}

/// Gradients found so far, except those of the value that the last unit read.
#[derive(Default)]
struct Found {
    parts: Vec<Gradients>,
    /// Of values that were read besides, until their own turn comes.
    values: BTreeMap<usize, Hidden>,
    activated_time: Option<Tensor<2>>,
    context: Option<Tensor<3>>,
}

impl Found {
    /// Adds what another reader of a value has found.
    fn complete(&mut self, value: usize, gradient: Hidden) -> Hidden {
        match self.values.remove(&value) {
            Some(other) => gradient.plus(other),
            None => gradient,
        }
    }
}

impl Recomputation<'_> {
    /// Goes on backwards from `head`, the gradients of a loss over the output of the forward pass,
    /// through the units and what stands before them, text encoders included where the text states
    /// came with their graph.
    pub fn backward(mut self, mut head: Gradients) -> GradientParts {
        let mut gradient = self.last.grad_remove(&mut head).map(Hidden::Map);
        let mut found = Found { parts: vec![head], ..Found::default() };
        while let Some(input) = self.inputs.pop() {
            let Some(known) = gradient.take() else { break };
            gradient = self.backward_of_unit(input, known, &mut found);
        }
        let gradient = gradient.map(|gradient| found.complete(0, gradient).into_map());
        // One root for all, because what is behind them may be the same text encoder.
        let roots = [
            root(self.entry.map, gradient),
            root(self.entry.activated_time, found.activated_time),
            root(self.entry.context, found.context),
        ];
        let mut parts = found.parts;
        if let Some(root) = roots.into_iter().flatten().reduce(|sum, root| sum + root) {
            parts.push(root.backward());
        }
        GradientParts { parts, at: 0 }
    }

    /// Runs the unit that read `input`, the newest of the inputs, forwards and backwards from the
    /// gradient of its output. Gives the gradient of its input if that depends on something
    /// trained.
    fn backward_of_unit(
        &self,
        input: Hidden,
        gradient: Hidden,
        found: &mut Found,
    ) -> Option<Hidden> {
        let index = self.inputs.len();
        let unit = self.units.as_slice().get(index)?;
        let gradient = found.complete(index + 1, gradient);
        let input = self.tracked(index, input);
        let beside = match unit.beside {
            Beside::Nothing => None,
            Beside::Value(value) => {
                self.inputs.get(value).map(|hidden| self.tracked(value, hidden.clone()))
            }
            Beside::SidesOf(value) => self.inputs.get(value).cloned(),
        };
        let activated_time = as_leaf(&self.entry.activated_time);
        let context = as_leaf(&self.entry.context);
        let given = Conditions { activated_time: &activated_time, context: &context };
        let root = unit.forward(input.clone(), beside.clone(), given).dot(gradient);
        if !root.is_tracked() {
            return None;
        }
        let mut gradients = root.backward();
        if let (Beside::Value(value), Some(beside)) = (unit.beside, beside)
            && let Some(gradient) = beside.take_gradient(&mut gradients)
        {
            let gradient = found.complete(value, gradient);
            found.values.insert(value, gradient);
        }
        add(&mut found.activated_time, activated_time.grad_remove(&mut gradients));
        add(&mut found.context, context.grad_remove(&mut gradients));
        let gradient = input.take_gradient(&mut gradients);
        found.parts.push(gradients);
        gradient
    }

    /// A value as a leaf if it depends on something trained.
    fn tracked(&self, value: usize, hidden: Hidden) -> Hidden {
        if value < self.tracked_from {
            return hidden;
        }
        match hidden {
            Hidden::Map(map) => Hidden::Map(leaf(map)),
            Hidden::Positions(positions, sides) => Hidden::Positions(leaf(positions), sides),
        }
    }
}

impl Hidden {
    /// Σ self·gradient, whose gradient with regard to `self` is `gradient`. Its value means
    /// nothing.
    fn dot(self, gradient: Self) -> Tensor<1> {
        match (self, gradient) {
            (Self::Positions(x, _), Self::Positions(gradient, _)) => (x * gradient).sum(),
            (x, gradient) => (x.into_map() * gradient.into_map()).sum(),
        }
    }

    /// The sum of two gradients of one value.
    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Positions(one, sides), Self::Positions(other, _)) => {
                Self::Positions(one + other, sides)
            }
            (one, other) => Self::Map(one.into_map() + other.into_map()),
        }
    }

    /// Takes the gradient of a leaf.
    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Self> {
        match self {
            Self::Map(map) => map.grad_remove(gradients).map(Self::Map),
            Self::Positions(positions, sides) => {
                positions.grad_remove(gradients).map(|gradient| Self::Positions(gradient, *sides))
            }
        }
    }
}

/// A constant as a leaf of the autodiff graph.
fn leaf<const D: usize>(constant: Tensor<D>) -> Tensor<D> {
    constant.autodiff().require_grad()
}

/// The same values without the graph that they came with: a leaf if there was one, else constants.
fn as_leaf<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    let constant = x.clone().inner();
    if x.is_tracked() { leaf(constant) } else { constant }
}

/// Σ x·gradient, from which the graph of `x` is run backwards; `None` if `x` has none.
fn root<const D: usize>(x: Tensor<D>, gradient: Option<Tensor<D>>) -> Option<Tensor<1>> {
    let gradient = gradient?;
    x.is_tracked().then(|| (x * gradient).sum())
}

fn add<const D: usize>(sum: &mut Option<Tensor<D>>, term: Option<Tensor<D>>) {
    if let Some(term) = term {
        *sum = Some(match sum.take() {
            Some(sum) => term + sum,
            None => term,
        });
    }
}

/// Cuts all values of a network off the autodiff graph, sharing their storage; whether one was in
/// it.
fn cut(network: &mut dyn Network) -> bool {
    let mut constants = Constants { n_cut: 0 };
    network.visit("", &mut constants);
    constants.n_cut > 0
}

struct Constants {
    n_cut: usize,
}

impl Constants {
    fn cut<const D: usize>(&mut self, values: &mut Tensor<D>) {
        if values.is_autodiff() {
            self.n_cut += 1;
            *values = values.clone().inner();
        }
    }

    fn cut_adapters<const D: usize>(&mut self, adapters: &mut [LowRank<D>]) {
        for adapter in adapters {
            self.cut(&mut adapter.down);
            self.cut(&mut adapter.up);
        }
    }
}

impl Visitor for Constants {
    /// Vectors: biases, and what norms hold. All else belongs to the two kinds of layer below,
    /// where it keeps its layout in memory, too.
    fn parameter(&mut self, _path: &str, slot: &mut dyn Slot) {
        if slot.shape().len() != 1 {
            return;
        }
        let mut values = slot.flat();
        if values.is_autodiff() {
            self.cut(&mut values);
            slot.set(values);
        }
    }

    fn linear(&mut self, _path: &str, layer: &mut Linear) {
        self.cut(&mut layer.weight);
        self.cut_adapters(&mut layer.adapters);
    }

    fn conv2d(&mut self, _path: &str, layer: &mut Conv2d) {
        self.cut(&mut layer.weight);
        self.cut_adapters(&mut layer.adapters);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use checkpoints::Family;
    use recipes::{LoraInit, LoraSpec, draws};

    use super::*;
    use crate::adapter::{self, DropoutDraw};
    use crate::base::{host_values, tensor_from_host, timesteps};
    use crate::tiny;

    /// Shows every parameter to a closure.
    struct Show<'a>(&'a mut dyn FnMut(&str, &mut dyn Slot));

    impl Visitor for Show<'_> {
        fn parameter(&mut self, path: &str, slot: &mut dyn Slot) {
            (self.0)(path, slot);
        }
    }

    fn drawn<const D: usize>(label: &str, shape: [usize; D]) -> Tensor<D> {
        let values = draws::normals(&mut draws::keyed(1, label), shape.iter().product());
        tensor_from_host(values, shape, &Device::flex())
    }

    /// The denoiser of a tiny base with trained adapters on `targets` that drop this share of values.
    fn adapted(family: Family, targets: &str, dropout: f64) -> UNet2DConditionModel {
        let dir = tempfile::tempdir().unwrap();
        let mut unet = tiny::family_base(dir.path(), family, 3, &Device::flex()).unwrap().unet;
        let spec = LoraSpec {
            rank: 2,
            alpha: 2.0,
            targets: vec![targets.to_owned()],
            conv_rank: None,
            conv_alpha: None,
            dropout: 0.0,
            init: LoraInit::KaimingUniform,
        };
        let layers = adapter::layers(&mut unet, "unet");
        let initial = adapter::initial(&layers, &spec, 0).unwrap();
        adapter::attach(&mut unet, "unet", &initial, 1.0).unwrap();
        // Away from B = 0, where half of the factors have no gradient.
        adapter::visit_factors(&mut unet, "unet", &mut |path, slot| {
            let n_values = slot.shape().iter().product();
            slot.set_leaf(drawn(path, [n_values]).mul_scalar(0.2));
        });
        adapter::set_dropout(&mut unet, dropout, DropoutDraw { seed: 1, step: 2, first_sample: 3 });
        unet
    }

    /// What one pass is given.
    struct Sample {
        noisy: Tensor<4>,
        levels: Tensor<1>,
        context: Tensor<3>,
        added: Option<AddedConditions>,
    }

    impl Sample {
        /// Two latents of odd sides.
        fn of(unet: &UNet2DConditionModel) -> Self {
            let config = unet.config();
            let added = config.text_time.map(|text_time| {
                let width = text_time.input_width - 6 * text_time.time_width;
                AddedConditions {
                    pooled_text: drawn("pooled", [2, width]),
                    time_ids: drawn("sizes", [2, 6]).mul_scalar(100.0),
                }
            });
            Self {
                noisy: drawn("noisy", [2, config.in_channels, 5, 7]),
                levels: timesteps(&[20.0, 700.0], &Device::flex()),
                context: drawn("context", [2, 6, config.cross_attention_dim]),
                added,
            }
        }

        /// As if text encoders were trained.
        fn with_trained_text(unet: &UNet2DConditionModel) -> Self {
            let mut sample = Self::of(unet);
            sample.context = leaf(sample.context);
            if let Some(added) = &mut sample.added {
                added.pooled_text = leaf(added.pooled_text.clone());
            }
            sample
        }
    }

    fn loss(output: Tensor<4>) -> Tensor<1> {
        let target = drawn("target", output.dims());
        (output - target).powi_scalar(2).mean()
    }

    /// Output and gradients of one pass as a whole.
    fn kept(unet: &UNet2DConditionModel, sample: &Sample) -> (Vec<f32>, GradientParts) {
        let Sample { noisy, levels, context, added } = sample;
        let output = unet.forward(noisy.clone(), levels.clone(), context, added.as_ref()).unwrap();
        let gradients = loss(output.clone()).backward();
        (host_values(output.inner()).unwrap(), gradients.into())
    }

    /// Output and gradients of a pass by units.
    fn recomputed(unet: &UNet2DConditionModel, sample: &Sample) -> (Vec<f32>, GradientParts) {
        let Sample { noisy, levels, context, added } = sample;
        let (output, recomputation) = unet
            .forward_recomputed(noisy.clone(), levels.clone(), context, added.as_ref())
            .unwrap();
        let head = loss(output.clone()).backward();
        (host_values(output.inner()).unwrap(), recomputation.backward(head))
    }

    /// The gradients of all leaves, by path.
    fn gradients(
        unet: &mut UNet2DConditionModel,
        sample: &Sample,
        mut parts: GradientParts,
    ) -> BTreeMap<String, Vec<f32>> {
        let mut found = BTreeMap::new();
        let mut take = |path: &str, slot: &mut dyn Slot| {
            if let Some(gradient) = parts.take(slot) {
                found.insert(path.to_owned(), host_values(gradient).unwrap());
            }
        };
        adapter::visit_factors(unet, "unet", &mut take);
        unet.visit("unet", &mut Show(&mut take));
        take("context", &mut sample.context.clone());
        if let Some(added) = &sample.added {
            take("pooled", &mut added.pooled_text.clone());
        }
        found
    }

    /// Holds a pass by units against one as a whole; the gradients, and the number of parts.
    fn check(
        unet: &mut UNet2DConditionModel,
        sample: &Sample,
    ) -> (BTreeMap<String, Vec<f32>>, usize) {
        let largest =
            |values: &[f32]| values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let (expected_output, parts) = kept(unet, sample);
        let expected = gradients(unet, sample, parts);
        let (output, parts) = recomputed(unet, sample);
        let n_parts = parts.parts.len();
        let found = gradients(unet, sample, parts);
        assert_eq!(output, expected_output);
        assert!(found.keys().eq(expected.keys()));
        // Rounding of gradients that are zero in exact arithmetic is judged by the largest of all.
        let floor = 1e-6 * expected.values().map(|values| largest(values)).fold(0.0, f32::max);
        assert!(floor > 0.0);
        for (path, expected) in &expected {
            let allowed = 1e-5 * largest(expected) + floor;
            for (found, expected) in found[path].iter().zip(expected) {
                assert!((found - expected).abs() <= allowed, "{path}: {found}, not {expected}");
            }
        }
        (found, n_parts)
    }

    #[test]
    fn every_gradient_is_that_of_a_pass_as_a_whole() {
        // Without dropout a low-rank branch is one op with its layer.
        for (family, dropout) in [(Family::Sd1, 0.3), (Family::Sdxl, 0.3), (Family::Sdxl, 0.0)] {
            let mut unet = adapted(family, "unet.**", dropout);
            let sample = Sample::with_trained_text(&unet);
            let mut n_leaves = 0;
            unet.visit(
                "unet",
                &mut Show(&mut |_, slot| {
                    slot.set_leaf(slot.flat());
                    n_leaves += 1;
                }),
            );
            adapter::visit_factors(&mut unet, "unet", &mut |_, _| n_leaves += 1);
            let (found, _) = check(&mut unet, &sample);
            let n_texts = if family == Family::Sdxl { 2 } else { 1 };
            assert_eq!(found.len(), n_leaves + n_texts);
        }
    }

    #[test]
    fn text_alone_can_be_trained() {
        let dir = tempfile::tempdir().unwrap();
        let base = tiny::family_base(dir.path(), Family::Sdxl, 3, &Device::flex()).unwrap();
        let mut unet = base.unet;
        let sample = Sample::with_trained_text(&unet);
        let (found, _) = check(&mut unet, &sample);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["context", "pooled"]);
    }

    #[test]
    fn units_before_the_first_trained_layer_are_not_run_again() {
        let mut unet = adapted(Family::Sd1, "unet.**.attn2.to_k", 0.0);
        let sample = Sample::of(&unet);
        let (n_units, first) = {
            let units = unet.units();
            let is_transformer = |unit: &Unit<'_>| matches!(unit.part, Part::Transformer(..));
            let first = units.as_slice().iter().position(is_transformer).unwrap();
            (units.as_slice().len(), first)
        };
        assert!(first > 0);
        let (_, n_parts) = check(&mut unet, &sample);
        // The head, and no root before the units.
        assert_eq!(n_parts, 1 + n_units - first);
    }

    #[test]
    fn each_block_of_a_transformer_is_a_unit_and_what_is_kept_is_outside_the_graph() {
        let unet = adapted(Family::Sdxl, "unet.**", 0.0);
        let Sample { noisy, levels, context, added } = Sample::with_trained_text(&unet);
        let (_, recomputation) =
            unet.forward_recomputed(noisy, levels, &context, added.as_ref()).unwrap();
        let units = recomputation.units.as_slice();
        let n_blocks =
            units.iter().filter(|unit| matches!(unit.part, Part::Transformer(..))).count();
        // One of one block and one of two on the way down, one of two in the middle, two of two and
        // two of one on the way up; 11 resnets; two changes of resolution each way.
        assert_eq!((n_blocks, units.len()), (1 + 2 + 2 + 4 + 2, 11 + 11 + 4));
        assert_eq!(recomputation.inputs.len(), units.len());
        for input in &recomputation.inputs {
            let in_graph = match input {
                Hidden::Map(map) => map.is_autodiff(),
                Hidden::Positions(positions, _) => positions.is_autodiff(),
            };
            assert!(!in_graph);
        }
    }
}
