//! What a node owes: outputs and gradients of the chain that burn differentiates, gradients that
//! agree with finite differences in double precision, in half types no rounding on the way, and
//! nothing kept for inputs that nobody tracks.

use burn::backend::{Dispatch, Flex};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::chunked::{self, Chunk};
use super::lean::{self, LeanOps};
use super::{oracle, product};
use crate::adapter::LowRank;
use crate::layer::{Conv2d, Linear};
use crate::ops::{self, Activation, Causal};

type Operands = Vec<Tensor<1>>;
/// An op over flat operands, so that one check serves ranks and signatures of every kind.
type Op<'a> = &'a dyn Fn(Operands) -> Tensor<1>;

/// Numbers of a rough bell shape that follow from `seed`.
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX)
    };
    (0..n).map(|_| (0..4).map(|_| uniform()).sum::<f64>() - 2.0).collect()
}

fn flat(values: &[f64], dtype: DType) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::<1>::from_data(data, (&Device::flex(), DType::F64)).cast(dtype)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.cast(DType::F64).into_data().try_to_vec().unwrap()
}

/// The nearest numbers that bf16 holds.
fn rounded(numbers: &[f64]) -> Vec<f64> {
    values(flat(numbers, DType::BF16))
}

fn drawn(sizes: &[usize]) -> Vec<Vec<f64>> {
    (1..).zip(sizes).map(|(seed, &n)| numbers(n, seed)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Relative L2 distance.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (difference / dot(b, b).max(1e-30)).sqrt()
}

/// The output of `op`, and of each operand in `tracked` the gradient of ⟨output, fixed numbers⟩,
/// which are the same in every type.
fn run(
    op: Op<'_>,
    operands: &[Vec<f64>],
    dtype: DType,
    tracked: &[usize],
) -> (Vec<f64>, Vec<Option<Vec<f64>>>) {
    let leaf = |(i, x): (usize, &Vec<f64>)| {
        let x = flat(x, dtype);
        if tracked.contains(&i) { x.autodiff().require_grad() } else { x }
    };
    let leaves: Operands = operands.iter().enumerate().map(leaf).collect();
    let y = op(leaves.clone());
    let out = values(y.clone().inner());
    if tracked.is_empty() {
        return (out, vec![None; operands.len()]);
    }
    let weights = flat(&rounded(&numbers(out.len(), 77)), dtype).autodiff();
    let mut gradients = (y * weights).sum().backward();
    let gradient = |x: &Tensor<1>| {
        if x.device().is_autodiff() { x.grad_remove(&mut gradients) } else { None }
    };
    (out, leaves.iter().map(gradient).map(|x| x.map(values)).collect())
}

fn all(operands: &[Vec<f64>]) -> Vec<usize> {
    (0..operands.len()).collect()
}

/// Directional finite differences in double precision, each operand tracked alone, then all.
fn assert_gradients(name: &str, operands: &[Vec<f64>], op: Op<'_>) {
    const H: f64 = 1e-5;
    let direction = |i: usize| numbers(operands[i].len(), 50 + i as u64);
    let all = all(operands);
    for tracked in all.iter().map(|&i| vec![i]).chain([all.clone()]) {
        let (out, gradients) = run(op, operands, DType::F64, &tracked);
        let weights = rounded(&numbers(out.len(), 77));
        let moved = |by: f64| {
            let mut operands = operands.to_vec();
            for &i in &tracked {
                operands[i].iter_mut().zip(direction(i)).for_each(|(x, v)| *x += by * v);
            }
            dot(&run(op, &operands, DType::F64, &[]).0, &weights)
        };
        let expected = (moved(H) - moved(-H)) / (2.0 * H);
        let found: f64 =
            tracked.iter().map(|&i| dot(gradients[i].as_ref().unwrap(), &direction(i))).sum();
        let scale = expected.abs().max(found.abs()).max(1.0);
        assert!(
            (expected - found).abs() <= 1e-7 * scale,
            "{name}, operands {tracked:?}: the differences say {expected}, the gradient {found}"
        );
        for i in all.iter().filter(|i| !tracked.contains(i)) {
            assert!(gradients[*i].is_none(), "{name}: operand {i} is untracked");
        }
    }
}

/// Holds output and gradients in `dtype` against those of the oracle in `reference`; the limits are
/// those of the output and of the gradients.
fn assert_near(
    name: &str,
    operands: &[Vec<f64>],
    [dtype, reference]: [DType; 2],
    limits: [f64; 2],
    [op, oracle]: [Op<'_>; 2],
) {
    let all = all(operands);
    let (y, gradients) = run(op, operands, dtype, &all);
    let (expected_y, expected) = run(oracle, operands, reference, &all);
    let found = distance(&y, &expected_y);
    assert!(found <= limits[0], "{name} in {dtype:?}: {found}");
    for (i, (found, expected)) in gradients.iter().zip(&expected).enumerate() {
        let found = distance(found.as_ref().unwrap(), expected.as_ref().unwrap());
        assert!(found <= limits[1], "{name} in {dtype:?}, operand {i}: {found}");
    }
}

/// Agreement with the oracle in single and double precision, and finite differences.
fn check(name: &str, sizes: &[usize], op: Op<'_>, oracle: Op<'_>) {
    let operands = drawn(sizes);
    assert_near(name, &operands, [DType::F64; 2], [1e-12; 2], [op, oracle]);
    assert_near(name, &operands, [DType::F32; 2], [1e-5; 2], [op, oracle]);
    assert_gradients(name, &operands, op);
}

/// Agreement in bf16 with the oracle in double precision, on operands that bf16 holds.
fn check_rounding(name: &str, operands: &[Vec<f64>], limits: [f64; 2], ops: [Op<'_>; 2]) {
    let operands: Vec<Vec<f64>> = operands.iter().map(|x| rounded(x)).collect();
    assert_near(name, &operands, [DType::BF16, DType::F64], limits, ops);
}

fn take<const D: usize>(
    operands: &mut impl Iterator<Item = Tensor<1>>,
    shape: [usize; D],
) -> Tensor<D> {
    operands.next().unwrap().reshape(shape)
}

fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.shape().num_elements();
    tensor.reshape([n])
}

/// Sizes `[batch, heads, queries, keys, head]`, cross attention among them.
const ATTENTIONS: [[usize; 5]; 5] =
    [[2, 3, 5, 7, 40], [1, 2, 33, 33, 64], [3, 1, 9, 13, 80], [2, 2, 6, 6, 160], [1, 1, 1, 1, 1]];

/// Runs `attention` on heads as a projection leaves them: not contiguous. The scores are those of
/// queries that are `sharp` times as long.
fn on_heads(
    [batch, heads, queries, keys, head]: [usize; 5],
    sharp: f64,
    attention: impl Fn([Tensor<4>; 3], f64) -> Tensor<4>,
) -> impl Fn(Operands) -> Tensor<1> {
    move |operands: Operands| {
        let mut operands = operands.into_iter();
        let qkv = [queries, keys, keys]
            .map(|n| take(&mut operands, [batch, n, heads, head]).swap_dims(1, 2));
        let y = attention(qkv, sharp / (head as f64).sqrt());
        flatten(y.swap_dims(1, 2))
    }
}

fn attention_sizes([batch, heads, queries, keys, head]: [usize; 5]) -> [usize; 3] {
    [queries, keys, keys].map(|n| batch * heads * n * head)
}

#[test]
fn attention_in_chunks_of_any_size_is_that_of_all_scores() {
    for case in ATTENTIONS {
        let [batch, heads, queries, keys, _] = case;
        for causal in [Causal::No, Causal::Yes] {
            let whole =
                on_heads(case, 1.0, |[q, k, v], scale| oracle::attention(q, k, v, scale, causal));
            let of_query = heads * keys;
            // One query, two, three, an image, two images, everything.
            let sizes = [1, 2 * of_query, 3 * of_query, queries * of_query, 2 * queries * of_query];
            for scores in sizes.into_iter().chain([batch * queries * of_query, chunked::SCORES]) {
                let op = on_heads(case, 1.0, |operands, scale| {
                    let options = chunked::Options { scale, causal, scores };
                    lean::attention_in_chunks(operands, options)
                });
                let name = format!("attention {case:?} {causal:?}, {scores} scores");
                check(&name, &attention_sizes(case), &op, &whole);
            }
        }
    }
}

#[test]
fn a_chunk_has_no_more_scores_than_allowed_and_wastes_no_room() {
    for [batch, heads, queries, keys] in
        [[1, 8, 4096, 4096], [8, 8, 4096, 4096], [4, 10, 4096, 77], [3, 5, 7, 11], [1, 1, 1, 1]]
    {
        for scores in [1, 100, 4000, 1 << 20, chunked::SCORES] {
            let Chunk { images, queries: rows } = Chunk::new([batch, heads, queries, keys], scores);
            assert!((1..=batch).contains(&images) && (1..=queries).contains(&rows));
            let held = |images: usize, rows: usize| images * heads * rows * keys;
            assert!(held(images, rows) <= scores || (images, rows) == (1, 1));
            assert!(rows == queries || held(1, rows + 1) > scores);
            assert!(rows < queries || images == batch || held(images + 1, rows) > scores);
        }
    }
    let found = Chunk::new([8, 8, 4096, 4096], chunked::SCORES);
    assert_eq!(found, Chunk { images: 1, queries: 2048 });
}

/// With scores rounded to bf16 the output would be off by 0.5 per cent, its slopes by more than one.
#[test]
fn attention_in_bf16_takes_its_scores_in_single_precision() {
    for case in [ATTENTIONS[0], ATTENTIONS[1]] {
        let op =
            on_heads(case, 16.0, |[q, k, v], scale| lean::attention(q, k, v, scale, Causal::No));
        let whole =
            on_heads(case, 16.0, |[q, k, v], scale| oracle::attention(q, k, v, scale, Causal::No));
        let operands = drawn(&attention_sizes(case));
        check_rounding(&format!("attention {case:?}"), &operands, [3.5e-3, 3e-2], [&op, &whole]);
        let (y, _) = run(&op, &operands, DType::BF16, &[]);
        let (expected, _) = run(&whole, &operands, DType::BF16, &[]);
        assert_ne!(y, expected, "the chain rounds its scores");
    }
}

type GroupNorm = fn(Tensor<4>, [Tensor<1>; 2], usize, f64, Activation) -> Tensor<4>;

fn group_norm(
    norm: GroupNorm,
    shape: [usize; 4],
    groups: usize,
    activation: Activation,
) -> impl Fn(Operands) -> Tensor<1> {
    move |operands: Operands| {
        let mut operands = operands.into_iter();
        let x = take(&mut operands, shape);
        let affine = [(); 2].map(|()| take(&mut operands, [shape[1]]));
        flatten(norm(x, affine, groups, 1e-5, activation))
    }
}

#[test]
fn group_norm_keeps_its_input_and_is_differentiated_rightly() {
    for (shape, groups) in
        [([2, 4, 3, 3], 2), ([1, 6, 1, 1], 1), ([3, 6, 5, 7], 6), ([5, 8, 9, 9], 2)]
    {
        for activation in [Activation::None, Activation::Silu] {
            let sizes = [shape.iter().product(), shape[1], shape[1]];
            let op = group_norm(lean::group_norm, shape, groups, activation);
            let whole = group_norm(oracle::group_norm, shape, groups, activation);
            check(&format!("group norm {shape:?} {groups} {activation:?}"), &sizes, &op, &whole);
        }
    }
}

/// The chain rounds five times, and its output is off by 0.4 per cent.
#[test]
fn group_norm_in_bf16_rounds_its_result_alone() {
    for (shape, groups) in [([3, 6, 5, 7], 6), ([5, 8, 9, 9], 2)] {
        let mut operands = drawn(&[shape.iter().product(), shape[1], shape[1]]);
        // Far from zero, where a variance in bf16 would be noise.
        operands[0].iter_mut().for_each(|x| *x += 3.0);
        let op = group_norm(lean::group_norm, shape, groups, Activation::Silu);
        let whole = group_norm(oracle::group_norm, shape, groups, Activation::Silu);
        let name = format!("group norm {shape:?}");
        check_rounding(&name, &operands, [2.5e-3, 4e-3], [&op, &whole]);
    }
}

#[test]
fn layer_norm_keeps_its_input_and_is_differentiated_rightly() {
    for shape in [[2, 3, 5], [1, 1, 64], [3, 31, 33]] {
        let with = |norm: fn(Tensor<3>, Tensor<1>, Tensor<1>, f64) -> Tensor<3>| {
            move |operands: Operands| {
                let mut operands = operands.into_iter();
                let x = take(&mut operands, shape);
                let [gamma, beta] = [(); 2].map(|()| take(&mut operands, [shape[2]]));
                flatten(norm(x, gamma, beta, 1e-5))
            }
        };
        let sizes = [shape.iter().product(), shape[2], shape[2]];
        let (op, whole) = (with(lean::layer_norm), with(oracle::layer_norm));
        check(&format!("layer norm {shape:?}"), &sizes, &op, &whole);
        check_rounding(
            &format!("layer norm {shape:?}"),
            &drawn(&sizes),
            [3.5e-3, 6e-3],
            [&op, &whole],
        );
    }
}

#[test]
fn gated_unit_keeps_its_input_and_is_differentiated_rightly() {
    for shape in [[1, 1, 2], [2, 3, 10], [3, 67, 130]] {
        let with = |op: fn(Tensor<3>) -> Tensor<3>| {
            move |operands: Operands| {
                flatten(op(take(&mut operands.into_iter(), shape).mul_scalar(2.0)))
            }
        };
        let sizes = [shape.iter().product()];
        let (op, whole) = (with(lean::geglu), with(oracle::geglu));
        check(&format!("geglu {shape:?}"), &sizes, &op, &whole);
        if shape[0] == 3 {
            // The chain is off by 0.26 per cent.
            check_rounding("geglu", &drawn(&sizes), [2.1e-3, 3e-3], [&op, &whole]);
        }
    }
}

#[test]
fn product_is_differentiated_rightly() {
    for [rows, inputs, outputs] in [[1, 3, 5], [14, 4, 3], [401, 6, 10]] {
        let with = |op: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
            move |operands: Operands| {
                let mut operands = operands.into_iter();
                let x = take(&mut operands, [rows, inputs]);
                flatten(op(x, take(&mut operands, [outputs, inputs])))
            }
        };
        let whole = with(|x, weight| x.matmul(weight.transpose()));
        let name = format!("product {rows}·{inputs}·{outputs}");
        check(&name, &[rows * inputs, outputs * inputs], &with(lean::product), &whole);
    }
}

/// A convolution without bias as a node, whatever the types.
fn convolved(x: Tensor<4>, weight: Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let convolution = product::Convolution { stride, padding, bias: None };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::lean_convolution(x, weight, convolution))
}

#[test]
fn convolution_is_differentiated_rightly() {
    let cases = [
        // shape, outputs, kernel, stride, padding
        ([2, 3, 5, 4], 4, 3, 1, 1),
        ([2, 2, 6, 5], 3, 3, 2, 1),
        ([2, 2, 7, 8], 3, 3, 2, 1),
        ([3, 3, 4, 4], 5, 1, 1, 0),
        ([1, 1, 1, 1], 1, 3, 1, 1),
        ([2, 2, 6, 6], 3, 3, 1, 0),
    ];
    for (shape, outputs, kernel, stride, padding) in cases {
        let with = |op: fn(Tensor<4>, Tensor<4>, usize, usize) -> Tensor<4>| {
            move |operands: Operands| {
                let mut operands = operands.into_iter();
                let x = take(&mut operands, shape);
                let weight = take(&mut operands, [outputs, shape[1], kernel, kernel]);
                flatten(op(x, weight, stride, padding))
            }
        };
        let whole =
            with(|x, weight, stride, padding| super::conv2d(x, weight, None, stride, padding));
        let sizes = [shape.iter().product(), outputs * shape[1] * kernel * kernel];
        let name = format!("convolution {shape:?} → {outputs}, {kernel}/{stride}+{padding}");
        check(&name, &sizes, &with(convolved), &whole);
    }
}

/// A frozen weight and bias in a half type, as the base's are.
#[test]
fn a_frozen_convolution_adds_its_bias_and_hands_on_the_slope() {
    let (shape, weight_shape) = ([2, 3, 5, 4], [4, 3, 3, 3]);
    let weight = numbers(4 * 3 * 9, 8);
    let bias = numbers(4, 9);
    let with = |conv: fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, usize, usize) -> Tensor<4>| {
        let (weight, bias) = (rounded(&weight), rounded(&bias));
        move |operands: Operands| {
            let dtype = operands[0].dtype();
            let x = take(&mut operands.into_iter(), shape);
            let weight = flat(&weight, dtype).reshape(weight_shape);
            flatten(conv(x, weight, Some(flat(&bias, dtype)), 1, 1))
        }
    };
    let (op, whole) = (with(ops::conv2d), with(super::conv2d));
    check_rounding("convolution", &drawn(&[2 * 3 * 5 * 4]), [4e-3; 2], [&op, &whole]);
}

/// Whether nothing but `x` itself holds its buffer.
fn unshared<const D: usize>(x: Tensor<D>) -> bool {
    x.inner().try_into_primitive::<Flex>().unwrap().is_unique()
}

#[test]
fn in_a_half_type_products_keep_their_input_for_a_factor_alone() {
    let device = Device::flex();
    for tracked in [true, false] {
        let factor = |dtype: DType| {
            let weight = Tensor::<2>::ones([3, 4], &device).cast(dtype);
            if tracked { weight.autodiff().require_grad() } else { weight }
        };
        let dtype = if tracked { DType::F32 } else { DType::BF16 };
        let x = Tensor::<2>::ones([10, 4], &device).cast(DType::BF16).autodiff().require_grad();
        let y = lean::product(x.clone(), factor(dtype));
        assert_eq!(unshared(x), !tracked);
        drop(y);

        let x = Tensor::<4>::ones([2, 4, 5, 5], &device).cast(DType::BF16);
        let x = x.autodiff().require_grad();
        let y = ops::conv2d(x.clone(), factor(dtype).reshape([3, 4, 1, 1]), None, 1, 0);
        assert_eq!(unshared(x), !tracked);
        drop(y);
    }
}

/// dW of operands in bf16, as exact as single precision is: rounded, it would be off by 0.2 per cent.
#[test]
fn the_gradient_of_a_factor_is_not_rounded() {
    let (rows, inputs, outputs) = (301, 12, 5);
    let x = rounded(&numbers(rows * inputs, 1));
    let slopes = rounded(&numbers(rows * outputs, 2));
    let matrix = |values: &[f64], columns: usize, dtype: DType| -> Tensor<2> {
        flat(values, dtype).reshape([values.len() / columns, columns])
    };
    let expected: Tensor<2> =
        matrix(&slopes, outputs, DType::F64).transpose().matmul(matrix(&x, inputs, DType::F64));
    let weight = matrix(&numbers(outputs * inputs, 3), inputs, DType::F32);
    let weight = weight.autodiff().require_grad();
    let y = lean::product(matrix(&x, inputs, DType::BF16), weight.clone());
    assert_eq!(y.dtype(), DType::BF16);
    let slopes = matrix(&slopes, outputs, DType::BF16);
    let mut gradients = (y * slopes.autodiff()).sum().backward();
    let found = weight.grad_remove(&mut gradients).unwrap();
    assert_eq!(found.dtype(), DType::F32);
    let found = distance(&values(found), &values(expected));
    assert!(found <= 1e-6, "{found}");
}

/// A pair of factors of rank 3, as leaves.
fn factors<const D: usize>(down: [usize; D], up: [usize; D]) -> LowRank<D> {
    let leaf = |shape: [usize; D], seed: u64| {
        let x = flat(&numbers(shape.iter().product(), seed), DType::F32);
        x.reshape(shape).autodiff().require_grad()
    };
    LowRank { down: leaf(down, 4), up: leaf(up, 5), scale: 0.5, dose: 1.0, dropout: None }
}

/// Whether the gradient holds what bf16 could not.
fn assert_unrounded<const D: usize>(
    name: &str,
    leaf: &Tensor<D>,
    gradients: &mut burn::tensor::Gradients,
) {
    let gradient = leaf.grad_remove(gradients).unwrap();
    assert_eq!(gradient.dtype(), DType::F32, "{name}");
    let gradient = values(gradient);
    let n_rounded =
        gradient.iter().zip(rounded(&gradient)).filter(|(a, b)| (*a - b).abs() == 0.0).count();
    assert!(n_rounded < gradient.len() / 4, "{name}: {n_rounded} of {}", gradient.len());
}

#[test]
fn a_layer_in_bf16_hands_its_adapters_gradients_in_single_precision() {
    let bf16 = |n: usize, seed: u64| flat(&numbers(n, seed), DType::BF16);
    let adapters = vec![factors([3, 12], [6, 3]), factors([3, 12], [6, 3])];
    let weight = bf16(6 * 12, 1).reshape([6, 12]);
    let layer = Linear { weight, bias: Some(bf16(6, 2)), adapters };
    let y = layer.forward(bf16(2 * 7 * 12, 3).reshape([2, 7, 12]));
    assert_eq!((y.dims(), y.dtype()), ([2, 7, 6], DType::BF16));
    let mut gradients = (y.clone() * y).sum().backward();
    for (index, adapter) in layer.adapters.iter().enumerate() {
        assert_unrounded(&format!("A of linear {index}"), &adapter.down, &mut gradients);
        assert_unrounded(&format!("B of linear {index}"), &adapter.up, &mut gradients);
    }

    let layer = Conv2d {
        weight: bf16(6 * 4 * 9, 1).reshape([6, 4, 3, 3]),
        bias: Some(bf16(6, 2)),
        stride: 2,
        padding: 1,
        adapters: vec![factors([3, 4, 3, 3], [6, 3, 1, 1])],
    };
    let y = layer.forward(bf16(2 * 4 * 7 * 6, 3).reshape([2, 4, 7, 6]));
    assert_eq!((y.dims(), y.dtype()), ([2, 6, 4, 3], DType::BF16));
    let mut gradients = (y.clone() * y).sum().backward();
    assert_unrounded("A of a convolution", &layer.adapters[0].down, &mut gradients);
    assert_unrounded("B of a convolution", &layer.adapters[0].up, &mut gradients);
}

#[test]
fn what_is_not_a_number_stays_visible() {
    let x = flat(&[1.0, f64::NAN, -2.0, 3.0], DType::BF16);
    let affine = [flat(&[1.0], DType::BF16), flat(&[0.0], DType::BF16)];
    let y = ops::group_norm(x.clone().reshape([1, 1, 2, 2]), affine, 1, 1e-5, Activation::Silu);
    assert!(values(y).iter().all(|y| y.is_nan()));
    let y = values(ops::geglu(x.clone().reshape([1, 2, 2])));
    assert!(y[0].is_nan() && y[1].is_finite());
    let [q, k, v] = [1.0, 2.0, 3.0].map(|value| flat(&[value; 4], DType::BF16));
    let [q, k] = [q + x, k].map(|x| x.reshape([1, 1, 4, 1]));
    let y = values(ops::attention(q, k, v.reshape([1, 1, 4, 1]), 1.0, Causal::No));
    assert!(y[1].is_nan() && y[0].is_finite() && y[2].is_finite());
}
