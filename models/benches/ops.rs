//! Each op by itself: forward, and forward and backward with every input tracked that is tracked in
//! training. `cargo bench -p acceptance --bench ops -- NAME` runs those whose name holds NAME.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use models::ops::{self, Activation, AdamWStep, Causal};
use models::{Device, Tensor};
use recipes::draws;

type Op<'a> = &'a (dyn Fn(&[Tensor<1>]) -> Tensor<1> + Sync);

/// Unit normal numbers.
fn numbers(n_values: usize, seed: u64) -> Tensor<1> {
    let values = draws::normals(&mut draws::keyed(seed, "bench"), n_values);
    models::base::tensor_from_host(values, [n_values], &Device::flex())
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n_values = tensor.dims().iter().product::<usize>();
    tensor.reshape([n_values])
}

/// Times `op` over operands of these sizes, forward, and forward and backward for the first
/// `n_tracked` of them.
fn time(criterion: &mut Criterion, name: &str, sizes: &[usize], n_tracked: usize, op: Op<'_>) {
    let plain: Vec<Tensor<1>> = (1..).zip(sizes).map(|(seed, &n)| numbers(n, seed)).collect();
    let mut group = criterion.benchmark_group(name);
    let device = Device::flex();
    group.bench_function(BenchmarkId::from_parameter("forward"), |bencher| {
        bencher.iter(|| ops::on_threads(&device, || black_box(op(&plain))));
    });
    group.bench_function(BenchmarkId::from_parameter("forward and backward"), |bencher| {
        bencher.iter(|| {
            let track = |(index, x): (usize, &Tensor<1>)| {
                if index < n_tracked { x.clone().autodiff().require_grad() } else { x.clone() }
            };
            let leaves: Vec<Tensor<1>> = plain.iter().enumerate().map(track).collect();
            // A sum is not what is timed, but it is what a backward pass begins with.
            ops::on_threads(&device, || black_box(op(&leaves).sum().backward()));
        });
    });
    group.finish();
}

fn attention(criterion: &mut Criterion) {
    // batch, heads, queries, keys, head
    for [batch, heads, queries, keys, head] in [
        [16, 4, 256, 256, 32],
        [1, 8, 4096, 4096, 40],
        [1, 8, 1024, 1024, 80],
        [1, 8, 256, 256, 160],
        [1, 8, 4096, 77, 40],
        [1, 10, 4096, 4096, 64],
    ] {
        let name = format!("attention {batch}x{heads}x{queries}x{keys}x{head}");
        let sizes = [queries, keys, keys].map(|n| batch * heads * n * head);
        time(criterion, &name, &sizes, 3, &|x| {
            let heads_of =
                |i: usize, n: usize| x[i].clone().reshape([batch, n, heads, head]).swap_dims(1, 2);
            let scale = 1.0 / (head as f64).sqrt();
            let (q, k, v) = (heads_of(0, queries), heads_of(1, keys), heads_of(2, keys));
            flat(ops::attention(q, k, v, scale, Causal::No))
        });
    }
}

fn norms(criterion: &mut Criterion) {
    for shape in [[32, 64, 16, 16], [1, 320, 64, 64], [1, 640, 32, 32]] {
        let (n_values, channels) = (shape.iter().product(), shape[1]);
        for activation in [Activation::None, Activation::Silu] {
            let name = format!("group norm {activation:?} {shape:?}");
            time(criterion, &name, &[n_values, channels, channels], 1, &|x| {
                let affine = [x[1].clone(), x[2].clone()];
                flat(ops::group_norm(x[0].clone().reshape(shape), affine, 32, 1e-5, activation))
            });
        }
    }
    for shape in [[32, 256, 64], [1, 4096, 320], [1, 1024, 640]] {
        let (n_values, width) = (shape.iter().product(), shape[2]);
        let name = format!("layer norm {shape:?}");
        time(criterion, &name, &[n_values, width, width], 1, &|x| {
            flat(ops::layer_norm(x[0].clone().reshape(shape), x[1].clone(), x[2].clone(), 1e-5))
        });
    }
}

fn activations(criterion: &mut Criterion) {
    for shape in [[32, 256, 512], [1, 4096, 2560]] {
        let n_values = shape.iter().product();
        time(criterion, &format!("geglu {shape:?}"), &[n_values], 1, &|x| {
            flat(ops::geglu(x[0].clone().reshape(shape)))
        });
        time(criterion, &format!("silu {shape:?}"), &[n_values], 1, &|x| ops::silu(x[0].clone()));
    }
}

fn convolutions(criterion: &mut Criterion) {
    // batch, inputs, outputs, side, kernel, stride
    for [batch, inputs, outputs, side, kernel, stride] in [
        [16, 64, 64, 32, 3, 1],
        [32, 128, 128, 16, 3, 1],
        [32, 64, 64, 16, 3, 1],
        [4, 320, 320, 64, 3, 1],
        [1, 640, 640, 32, 3, 1],
        [1, 1280, 1280, 16, 3, 1],
        [1, 1280, 1280, 8, 3, 1],
        [1, 320, 320, 64, 3, 2],
        [1, 320, 320, 64, 1, 1],
    ] {
        let name =
            format!("convolution {kernel}x{kernel}/{stride} {batch}x{inputs}-{outputs} at {side}");
        let sizes = [batch * inputs * side * side, outputs * inputs * kernel * kernel, outputs];
        // In training with a low-rank adapter the weight is frozen.
        time(criterion, &name, &sizes, 1, &|x| {
            let image = x[0].clone().reshape([batch, inputs, side, side]);
            let weight = x[1].clone().reshape([outputs, inputs, kernel, kernel]);
            flat(ops::conv2d(image, weight, Some(x[2].clone()), stride, kernel / 2))
        });
    }
}

fn linear(criterion: &mut Criterion) {
    // rows, inputs, outputs
    for [rows, inputs, outputs] in
        [[8192, 64, 64], [4096, 320, 320], [4096, 320, 2560], [1024, 640, 640], [64, 1280, 1280]]
    {
        let sizes = [rows * inputs, 16 * inputs, outputs * 16, outputs * inputs];
        let matrices = |x: &[Tensor<1>]| {
            let x = |i: usize, shape| x[i].clone().reshape::<2, [usize; 2]>(shape);
            (x(0, [rows, inputs]).unsqueeze::<3>(), x(3, [outputs, inputs]))
        };
        let name = format!("linear {rows}x{inputs}x{outputs}");
        time(criterion, &name, &sizes, 1, &|x| {
            let (x, weight) = matrices(x);
            flat(ops::linear(x, weight, None))
        });
        let name = format!("low-rank linear {rows}x{inputs}x{outputs}, rank 16");
        time(criterion, &name, &sizes, 3, &|operands| {
            let (x, weight) = matrices(operands);
            let [down, up] = [(1, [16, inputs]), (2, [outputs, 16])]
                .map(|(i, shape)| operands[i].clone().reshape(shape));
            flat(ops::low_rank_linear(x, weight, None, [down, up]))
        });
    }
}

fn optimizer(criterion: &mut Criterion) {
    let step = AdamWStep {
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 1e-2,
        number: 10,
        shrink: 0.5,
    };
    for n_values in [100_000, 3_188_736] {
        let [theta, first, second, gradient] = [1, 2, 3, 4].map(|seed| numbers(n_values, seed));
        let second = second.square();
        criterion.bench_function(&format!("adamw {n_values}"), |bencher| {
            bencher.iter(|| {
                let state = [theta.clone(), first.clone(), second.clone()];
                black_box(ops::adamw(state, gradient.clone(), step))
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    attention(&mut criterion);
    norms(&mut criterion);
    activations(&mut criterion);
    convolutions(&mut criterion);
    linear(&mut criterion);
    optimizer(&mut criterion);
    criterion.final_summary();
}
