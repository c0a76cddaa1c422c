//! Milliseconds of each op at the shapes of a small UNet, composed of burn's primitives and as the
//! kernel of this crate: `cargo run --release -p models --example ops_bench [batch] [filter]`.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

#[path = "../src/ops/mod.rs"]
mod ops;

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use ops::{Activation, Causal, composed};

/// Values between −1 and 1 in no recognisable order.
fn values<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    let n: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let values: Vec<f32> = (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u16::try_from(state >> 16).unwrap_or(0)) / 32_768.0 - 1.0
        })
        .collect();
    Tensor::<1>::from_data(values.as_slice(), device).reshape(shape)
}

/// The fastest of some runs, in milliseconds.
fn time(mut work: impl FnMut()) -> f64 {
    work();
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut n = 0;
    while n < 5 || (begin.elapsed().as_secs_f64() < 0.3 && n < 100) {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
        n += 1;
    }
    best
}

/// Which inputs of an op want gradients.
#[derive(Clone, Copy)]
enum Pass {
    Forward,
    Inputs,
    All,
}

struct Case<'a> {
    name: String,
    filter: &'a str,
    device: Device,
}

impl Case<'_> {
    fn tensor<const D: usize>(&self, shape: [usize; D], seed: u32, pass: Pass) -> Tensor<D> {
        let tensor = values(shape, seed, &self.device);
        match (pass, seed) {
            (Pass::Forward, _) => tensor,
            (Pass::Inputs, 10..) => tensor.autodiff(),
            (Pass::Inputs | Pass::All, _) => tensor.autodiff().require_grad(),
        }
    }

    /// Times `kernel` against `composed`; both get their operands from `make`.
    fn run<I: Clone, const D: usize>(
        &self,
        make: impl Fn(&Self, Pass) -> I,
        kernel: impl Fn(I) -> Tensor<D>,
        composed: impl Fn(I) -> Tensor<D>,
    ) {
        if !self.name.contains(self.filter) {
            return;
        }
        let mut line = vec![format!("{:<34}", self.name)];
        for pass in [Pass::Forward, Pass::Inputs, Pass::All] {
            let operands = make(self, pass);
            let dy = values(kernel(operands.clone()).dims(), 99, &self.device);
            let measure = |op: &dyn Fn(I) -> Tensor<D>| {
                time(|| {
                    let y = op(operands.clone());
                    if !matches!(pass, Pass::Forward) {
                        let gradients = (y * dy.clone().autodiff()).sum().backward();
                        drop(gradients);
                    }
                })
            };
            let (before, after) = (measure(&composed), measure(&kernel));
            line.push(format!("{before:>9.2} → {after:>7.2}"));
        }
        println!("{}", line.concat());
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let batch = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(16);
    let filter = arguments.next().unwrap_or_default();
    let device = Device::flex();
    println!(
        "batch {batch}; milliseconds, composed → kernel: forward, with dx, with all gradients"
    );
    let case = |name: String| Case { name, filter: &filter, device: device.clone() };
    for (channels, side) in [(64, 16), (96, 8), (128, 4)] {
        images(&case, batch, channels, side);
    }
    for (width, tokens) in [(64, 256), (96, 64), (128, 16)] {
        rows(&case, batch, width, tokens);
    }
}

type Unary = fn(Tensor<4>) -> Tensor<4>;

fn images<'a>(case: &dyn Fn(String) -> Case<'a>, batch: usize, channels: usize, side: usize) {
    let shape = [batch, channels, side, side];
    let norm = |case: &Case<'_>, pass| {
        (case.tensor(shape, 1, pass), [11, 12].map(|seed| case.tensor([channels], seed, pass)))
    };
    case(format!("group_norm_silu {channels}x{side}")).run(
        norm,
        |(x, affine)| ops::group_norm(x, affine, 8, 1e-5, Activation::Silu),
        |(x, affine)| composed::group_norm(x, affine, 8, 1e-5, Activation::Silu),
    );
    case(format!("group_norm {channels}x{side}")).run(
        norm,
        |(x, affine)| ops::group_norm(x, affine, 8, 1e-6, Activation::None),
        |(x, affine)| composed::group_norm(x, affine, 8, 1e-6, Activation::None),
    );
    let unary: [(&str, Unary, Unary); 3] = [
        ("silu", ops::silu, composed::silu),
        ("gelu", ops::gelu, composed::gelu),
        ("quick_gelu", ops::quick_gelu, composed::quick_gelu),
    ];
    for (name, kernel, composed) in unary {
        let operand = |case: &Case<'_>, pass| case.tensor(shape, 1, pass);
        case(format!("{name} {channels}x{side}")).run(operand, kernel, composed);
    }
    let shifted = |(x, shift): (Tensor<4>, Tensor<4>)| x + shift;
    case(format!("shift {channels}x{side}")).run(
        |case, pass| (case.tensor(shape, 1, pass), case.tensor([batch, channels, 1, 1], 2, pass)),
        shifted,
        shifted,
    );
    for (kernel, stride) in [(3, 1), (3, 2), (1, 1)] {
        let convolution = |case: &Case<'_>, pass| {
            (
                case.tensor(shape, 1, pass),
                case.tensor([channels, channels, kernel, kernel], 11, pass),
                Some(case.tensor([channels], 12, pass)),
            )
        };
        case(format!("conv {kernel}x{kernel}/{stride} {channels}x{side}")).run(
            convolution,
            |(x, w, b)| ops::conv2d(x, w, b, stride, kernel / 2),
            |(x, w, b)| composed::conv2d(x, w, b, stride, kernel / 2),
        );
    }
}

fn rows<'a>(case: &dyn Fn(String) -> Case<'a>, batch: usize, width: usize, tokens: usize) {
    let shape = [batch, tokens, width];
    for outputs in [width, 8 * width] {
        let operands = |case: &Case<'_>, pass| {
            (
                case.tensor(shape, 1, pass),
                case.tensor([outputs, width], 11, pass),
                Some(case.tensor([outputs], 12, pass)),
            )
        };
        case(format!("linear {tokens}x{width}→{outputs}")).run(
            operands,
            |(x, w, b)| ops::linear(x, w, b),
            |(x, w, b)| composed::linear(x, w, b),
        );
    }
    case(format!("layer_norm {tokens}x{width}")).run(
        |case, pass| (case.tensor(shape, 1, pass), [11, 12].map(|s| case.tensor([width], s, pass))),
        |(x, [gamma, beta])| ops::layer_norm(x, gamma, beta, 1e-5),
        |(x, [gamma, beta])| composed::layer_norm(x, gamma, beta, 1e-5),
    );
    case(format!("geglu {tokens}x{width}")).run(
        |case, pass| case.tensor([batch, tokens, 8 * width], 1, pass),
        ops::geglu,
        composed::geglu,
    );
    let heads = width / 32;
    for keys in [tokens, 24] {
        let operands = |case: &Case<'_>, pass| {
            [(1, tokens), (2, keys), (3, keys)]
                .map(|(seed, n)| case.tensor([batch, n, heads, 32], seed, pass))
        };
        case(format!("attention {tokens}x{keys} {heads}·32")).run(
            operands,
            |operands| joined(operands, ops::attention, Causal::No),
            |operands| joined(operands, composed::attention, Causal::No),
        );
    }
}

/// Attention between the projections of a transformer: heads split before and joined after.
fn joined(
    operands: [Tensor<4>; 3],
    attention: fn(Tensor<4>, Tensor<4>, Tensor<4>, f64, Causal) -> Tensor<4>,
    causal: Causal,
) -> Tensor<3> {
    let [batch, tokens, heads, head] = operands[0].dims();
    let [q, k, v] = operands.map(|heads| heads.swap_dims(1, 2));
    let y = attention(q, k, v, 0.177, causal);
    y.swap_dims(1, 2).reshape([batch, tokens, heads * head])
}
