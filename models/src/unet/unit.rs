//! The network as a sequence of units: small parts, each of which reads what the one before it puts
//! out, and at most one earlier value besides.
//!
//! Which unit stands where is said by the blocks. A forward pass walks the sequence here; the pass
//! that keeps few activations (`recompute`) walks the same sequence forwards and backwards.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;

use super::attention::{Transformer2DModel, map_from_positions};
use super::resnet::{Downsample2D, ResnetBlock2D, Upsample2D};

/// What is given to every unit of a forward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions<'a> {
    /// SiLU of the timestep embedding, `[batch, time_width]`.
    pub(crate) activated_time: &'a Tensor<2>,
    /// Text states, `[batch, tokens, width]`.
    pub(crate) context: &'a Tensor<3>,
}

/// What flows from one unit to the next.
#[derive(Clone, Debug)]
pub(crate) enum Hidden {
    /// A feature map, `[batch, channels, height, width]`.
    Map(Tensor<4>),
    /// The positions of a map of these sides within a transformer, `[batch, height·width,
    /// channels]`.
    Positions(Tensor<3>, [usize; 2]),
}

impl Hidden {
    /// The feature map, `[batch, channels, height, width]`.
    pub(crate) fn into_map(self) -> Tensor<4> {
        match self {
            Self::Map(map) => map,
            Self::Positions(positions, sides) => map_from_positions(positions, sides),
        }
    }

    /// Height and width of the feature map.
    pub(crate) fn sides(&self) -> [usize; 2] {
        match self {
            Self::Map(map) => {
                let [_, _, height, width] = map.dims();
                [height, width]
            }
            Self::Positions(_, sides) => *sides,
        }
    }
}

/// What a unit reads besides its input, by the number of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nothing.
    Nothing,
    /// This value, for the last time.
    Value(usize),
    /// Height and width of this value.
    SidesOf(usize),
}

/// What a unit is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// The value beside the input, a skip connection, is joined to it along the channels.
    Resnet(&'a ResnetBlock2D),
    /// The block of this number, with the way into the transformer before the first block and the
    /// way out after the last. The value beside the input is what entered the transformer.
    Transformer(&'a Transformer2DModel, usize),
    /// Halves the resolution.
    Downsample(&'a Downsample2D),
    /// Doubles the resolution, to the sides of the value beside the input.
    Upsample(&'a Upsample2D),
}

/// One part of the network and what it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit<'a> {
    /// What it is made of.
    pub(crate) part: Part<'a>,
    /// What it reads besides the value before it.
    pub(crate) beside: Beside,
}

impl Unit<'_> {
    /// The next value. `beside` is the one that [`Unit::beside`] names.
    pub(crate) fn forward(
        &self,
        input: Hidden,
        beside: Option<Hidden>,
        given: Conditions<'_>,
    ) -> Hidden {
        match self.part {
            Part::Resnet(resnet) => {
                let mut x = input.into_map();
                if let Some(skip) = beside {
                    x = Tensor::cat(vec![x, skip.into_map()], 1);
                }
                Hidden::Map(resnet.forward(x, Some(given.activated_time)))
            }
            Part::Transformer(transformer, index) => {
                transformer.forward_block(index, input, beside, given.context)
            }
            Part::Downsample(downsampler) => Hidden::Map(downsampler.forward(input.into_map())),
            Part::Upsample(upsampler) => {
                let x = input.into_map();
                Hidden::Map(match beside {
                    Some(skip) => upsampler.forward_to(x, skip.sides()),
                    None => upsampler.forward(x),
                })
            }
        }
    }
}

/// The units of a network in their order.
///
/// Value k is what unit k reads: value 0 comes from `conv_in`, and the last one is what the last
/// unit puts out.
#[derive(Clone, Debug)]
pub(crate) struct Units<'a> {
    ordered: Vec<Unit<'a>>,
    /// Values that the way up has not asked for yet, the newest last.
    skips: Vec<usize>,
    /// Values that are read again after the unit that they enter.
    read_again: BTreeSet<usize>,
}

impl<'a> Units<'a> {
    /// No unit yet; the first skip connection is value 0.
    pub(crate) fn new() -> Self {
        Self { ordered: Vec::new(), skips: vec![0], read_again: BTreeSet::new() }
    }

    /// The units in their order.
    pub(crate) fn as_slice(&self) -> &[Unit<'a>] {
        &self.ordered
    }

    /// Appends a unit that reads nothing besides its input.
    pub(crate) fn add(&mut self, part: Part<'a>) {
        self.add_beside(part, Beside::Nothing);
    }

    /// Appends a unit that reads the newest skip connection, too, and takes it away.
    pub(crate) fn add_with_skip(&mut self, part: Part<'a>) {
        let beside = self.skips.pop().map_or(Beside::Nothing, Beside::Value);
        self.add_beside(part, beside);
    }

    /// Appends a unit whose result has the sides of the newest skip connection.
    pub(crate) fn add_with_sides(&mut self, part: Part<'a>) {
        let beside = self.skips.last().copied().map_or(Beside::Nothing, Beside::SidesOf);
        self.add_beside(part, beside);
    }

    /// Appends one unit for each block of a transformer.
    pub(crate) fn add_transformer(&mut self, transformer: &'a Transformer2DModel) {
        let entered = self.ordered.len();
        let n_blocks = transformer.n_blocks();
        for index in 0..n_blocks {
            let leaves_elsewhere = index > 0 && index + 1 == n_blocks;
            let beside = if leaves_elsewhere { Beside::Value(entered) } else { Beside::Nothing };
            self.add_beside(Part::Transformer(transformer, index), beside);
        }
    }

    /// Makes the newest value a skip connection.
    pub(crate) fn skip(&mut self) {
        self.skips.push(self.ordered.len());
    }

    fn add_beside(&mut self, part: Part<'a>, beside: Beside) {
        if let Beside::Value(value) = beside {
            self.read_again.insert(value);
        }
        self.ordered.push(Unit { part, beside });
    }

    /// Walks all units from value 0 to the last, `[batch, channels, height, width]` both. A value
    /// is dropped with its last reader.
    pub(crate) fn forward(&self, first: Tensor<4>, given: Conditions<'_>) -> Tensor<4> {
        let mut kept: BTreeMap<usize, Hidden> = BTreeMap::new();
        let mut hidden = Hidden::Map(first);
        for (index, unit) in self.ordered.iter().enumerate() {
            if self.read_again.contains(&index) {
                kept.insert(index, hidden.clone());
            }
            let beside = match unit.beside {
                Beside::Nothing => None,
                Beside::Value(value) => kept.remove(&value),
                Beside::SidesOf(value) => kept.get(&value).cloned(),
            };
            hidden = unit.forward(hidden, beside, given);
        }
        hidden.into_map()
    }
}
