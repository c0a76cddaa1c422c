//! What every op owes: gradients that agree with finite differences in double precision, agreement
//! with the composed body in single precision, the same bits on any number of threads, and nothing
//! computed for inputs that nobody tracks.

use burn::backend::Flex;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{Activation, Causal, composed};

type Operands = Vec<Tensor<1>>;
/// An op over flat operands, so that one check serves ranks and signatures of every kind.
type Op<'a> = &'a (dyn Fn(Operands) -> Tensor<1> + Sync);

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

fn flat(values: Vec<f64>, dtype: DType) -> Tensor<1> {
    let n = values.len();
    Tensor::<1>::from_data(TensorData::new(values, [n]), (&Device::flex(), DType::F64)).cast(dtype)
}

fn operands(sizes: &[usize], dtype: DType) -> Operands {
    (1..).zip(sizes).map(|(seed, &n)| flat(numbers(n, seed), dtype)).collect()
}

fn values(tensor: Tensor<1>) -> Vec<f64> {
    tensor.cast(DType::F64).into_data().try_to_vec().unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The output of `op` and the gradient of ⟨output, fixed numbers⟩ of each operand in `tracked`.
fn run(op: Op<'_>, operands: &Operands, tracked: &[usize]) -> (Vec<f64>, Vec<Option<Vec<f64>>>) {
    let leaves: Operands = (0..)
        .zip(operands)
        .map(
            |(i, x)| {
                if tracked.contains(&i) { x.clone().autodiff().require_grad() } else { x.clone() }
            },
        )
        .collect();
    let y = op(leaves.clone());
    let out = values(y.clone().inner());
    if tracked.is_empty() {
        return (out, vec![None; operands.len()]);
    }
    let weights = flat(numbers(out.len(), 77), operands[0].dtype()).autodiff();
    let mut grads = (y * weights).sum().backward();
    let gradient = |x: &Tensor<1>| {
        if x.device().is_autodiff() { x.grad_remove(&mut grads) } else { None }
    };
    (out, leaves.iter().map(gradient).map(|x| x.map(values)).collect())
}

/// Directional finite differences in double precision, each operand tracked alone, then all.
fn assert_gradients(name: &str, sizes: &[usize], op: Op<'_>) {
    const H: f64 = 1e-5;
    let base = operands(sizes, DType::F64);
    let all: Vec<usize> = (0..sizes.len()).collect();
    let sets = all.iter().map(|&i| vec![i]).chain([all.clone()]);
    for tracked in sets {
        let (out, gradients) = run(op, &base, &tracked);
        let weights = numbers(out.len(), 77);
        let moved = |sign: f64| {
            let mut operands = base.clone();
            for &i in &tracked {
                let v = flat(numbers(sizes[i], 50 + i as u64), DType::F64);
                operands[i] = operands[i].clone() + v.mul_scalar(sign * H);
            }
            dot(&values(op(operands)), &weights)
        };
        let expected = (moved(1.0) - moved(-1.0)) / (2.0 * H);
        let found: f64 = tracked
            .iter()
            .map(|&i| dot(gradients[i].as_ref().unwrap(), &numbers(sizes[i], 50 + i as u64)))
            .sum();
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

/// Relative L2 distance.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    (difference / dot(b, b).max(1e-30)).sqrt()
}

/// Kernel against composed body, outputs and gradients, in single precision.
fn assert_agrees(name: &str, sizes: &[usize], kernel: Op<'_>, composed: Op<'_>) {
    let base = operands(sizes, DType::F32);
    let all: Vec<usize> = (0..sizes.len()).collect();
    let (y, gradients) = run(kernel, &base, &all);
    let (expected_y, expected) = run(composed, &base, &all);
    assert!(distance(&y, &expected_y) <= 1e-5, "{name}: {}", distance(&y, &expected_y));
    for (i, (found, expected)) in gradients.iter().zip(&expected).enumerate() {
        let distance = distance(found.as_ref().unwrap(), expected.as_ref().unwrap());
        assert!(distance <= 1e-5, "{name}, operand {i}: {distance}");
    }
}

/// The same bits in pools of several sizes and in a repeated run.
fn assert_reproducible(name: &str, sizes: &[usize], op: Op<'_>) {
    let base = operands(sizes, DType::F32);
    let all: Vec<usize> = (0..sizes.len()).collect();
    let results = [1, 2, 7, 7].map(|n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| run(op, &base, &all))
    });
    for other in &results[1..] {
        assert!(results[0] == *other, "{name}: the number of threads changes the result");
    }
}

/// All of the above for one op at one shape.
fn check(name: &str, sizes: &[usize], kernel: Op<'_>, composed: Op<'_>) {
    assert_gradients(name, sizes, kernel);
    assert_agrees(name, sizes, kernel, composed);
    assert_reproducible(name, sizes, kernel);
}

/// The next operand as a tensor of `shape`.
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

#[test]
fn group_norm_is_differentiated_rightly() {
    for (shape, groups) in
        [([2, 4, 3, 3], 2), ([1, 6, 1, 1], 1), ([3, 6, 5, 7], 6), ([5, 8, 9, 9], 2)]
    {
        for activation in [Activation::None, Activation::Silu] {
            let channels = shape[1];
            let sizes = [shape.iter().product(), channels, channels];
            let with =
                |norm: fn(Tensor<4>, [Tensor<1>; 2], usize, f64, Activation) -> Tensor<4>| {
                    move |operands: Operands| {
                        let mut operands = operands.into_iter();
                        let x = take(&mut operands, shape);
                        let affine = [(); 2].map(|()| take(&mut operands, [channels]));
                        flatten(norm(x, affine, groups, 1e-5, activation))
                    }
                };
            let name = format!("group norm {shape:?} {groups} {activation:?}");
            check(&name, &sizes, &with(super::group_norm), &with(composed::group_norm));
        }
    }
}

#[test]
fn layer_norm_is_differentiated_rightly() {
    for shape in [[2, 3, 5], [1, 1, 64], [3, 131, 33]] {
        let width = shape[2];
        let with = |norm: fn(Tensor<3>, Tensor<1>, Tensor<1>, f64) -> Tensor<3>| {
            move |operands: Operands| {
                let mut operands = operands.into_iter();
                let x = take(&mut operands, shape);
                let [gamma, beta] = [(); 2].map(|()| take(&mut operands, [width]));
                flatten(norm(x, gamma, beta, 1e-5))
            }
        };
        let sizes = [shape.iter().product(), width, width];
        let name = format!("layer norm {shape:?}");
        check(&name, &sizes, &with(super::layer_norm), &with(composed::layer_norm));
    }
}

#[test]
fn activations_are_differentiated_rightly() {
    type Unary = fn(Tensor<1>) -> Tensor<1>;
    let pairs: [(&str, Unary, Unary); 3] = [
        ("silu", super::silu, composed::silu),
        ("gelu", super::gelu, composed::gelu),
        ("quick gelu", super::quick_gelu, composed::quick_gelu),
    ];
    for (name, kernel, composed) in pairs {
        for n in [1, 33, 20_011] {
            // Spread out, so that the flat ends are seen as well.
            let with = |op: Unary| move |x: Operands| op(x[0].clone().mul_scalar(4.0));
            check(name, &[n], &with(kernel), &with(composed));
        }
    }
}

#[test]
fn gated_unit_is_differentiated_rightly() {
    for shape in [[1, 1, 2], [2, 3, 10], [3, 67, 130]] {
        let with = |op: fn(Tensor<3>) -> Tensor<3>| {
            move |operands: Operands| {
                flatten(op(take(&mut operands.into_iter(), shape).mul_scalar(2.0)))
            }
        };
        let name = format!("geglu {shape:?}");
        check(&name, &[shape.iter().product()], &with(super::geglu), &with(composed::geglu));
    }
}

#[test]
fn linear_is_differentiated_rightly() {
    type Linear = fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>) -> Tensor<3>;
    for (shape, outputs) in
        [([1, 1, 3], 5), ([2, 7, 4], 3), ([3, 401, 6], 10), ([1, 20, 6], 201), ([2, 9, 150], 5)]
    {
        for biased in [true, false] {
            let with = |op: Linear| {
                move |operands: Operands| {
                    let mut operands = operands.into_iter();
                    let x = take(&mut operands, shape);
                    let weight = take(&mut operands, [outputs, shape[2]]);
                    flatten(op(x, weight, operands.next()))
                }
            };
            let sizes = [shape.iter().product(), outputs * shape[2], outputs];
            let sizes = if biased { &sizes[..] } else { &sizes[..2] };
            let name = format!("linear {shape:?} {outputs}");
            check(&name, sizes, &with(super::linear), &with(composed::linear));
        }
    }
}

#[test]
fn a_low_rank_branch_is_differentiated_rightly() {
    for (shape, outputs, rank) in
        [([1, 1, 3], 5, 1), ([2, 7, 4], 3, 2), ([3, 401, 6], 10, 4), ([1, 20, 140], 201, 3)]
    {
        for biased in [true, false] {
            let with = |fused: bool| {
                move |operands: Operands| {
                    let mut operands = operands.into_iter();
                    let x = take(&mut operands, shape);
                    let [down, up, weight]: [Tensor<2>; 3] =
                        [[rank, shape[2]], [outputs, rank], [outputs, shape[2]]]
                            .map(|n| take(&mut operands, n));
                    let bias = operands.next();
                    if fused {
                        return flatten(super::low_rank_linear(x, weight, bias, [down, up]));
                    }
                    let branch = composed::linear(x.clone(), down, None);
                    flatten(composed::linear(x, weight, bias) + composed::linear(branch, up, None))
                }
            };
            let n_values = shape.iter().product();
            let sizes = [n_values, rank * shape[2], outputs * rank, outputs * shape[2], outputs];
            let sizes = if biased { &sizes[..] } else { &sizes[..4] };
            let name = format!("low rank {shape:?} {outputs} {rank}");
            check(&name, sizes, &with(true), &with(false));
        }
    }
}

/// With B = 0 the branch adds zeros: an adapter that was not trained leaves the base's bits.
#[test]
fn a_branch_of_zeros_leaves_every_bit() {
    for [tokens, inputs, outputs] in [[1, 3, 5], [77, 40, 300], [900, 24, 33]] {
        let x = flat(numbers(tokens * inputs, 1), DType::F32).reshape([1, tokens, inputs]);
        let weight = flat(numbers(outputs * inputs, 2), DType::F32).reshape([outputs, inputs]);
        let down = flat(numbers(4 * inputs, 3), DType::F32).reshape([4, inputs]);
        let up = Tensor::<2>::zeros([outputs, 4], &Device::flex());
        let bias = flat(numbers(outputs, 4), DType::F32);
        let plain = super::linear(x.clone(), weight.clone(), Some(bias.clone()));
        let beside = super::low_rank_linear(x, weight, Some(bias), [down, up]);
        assert_eq!(values(flatten(plain)), values(flatten(beside)));
    }
}

#[test]
fn the_update_is_that_of_its_composed_body() {
    let step = super::AdamWStep {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
        number: 7,
        shrink: 0.3,
    };
    for n in [1, 33, 20_011] {
        let [theta, first, second, gradient] =
            [1, 2, 3, 4].map(|seed| flat(numbers(n, seed), DType::F32));
        let state = [theta, first, second.square()];
        let found = super::adamw(state.clone(), gradient.clone(), step);
        let expected = composed::adamw(state, gradient.clone(), step);
        for (found, expected) in found.into_iter().zip(expected) {
            let distance = distance(&values(found), &values(expected));
            assert!(distance <= 1e-6, "{n}: {distance}");
        }
        let sum = |sums: Tensor<1>| values(sums).iter().sum::<f64>();
        let exact = values(gradient.clone()).iter().map(|x| x * x).sum::<f64>();
        let [ours, theirs] =
            [super::square_sums(gradient.clone()), composed::square_sums(gradient)].map(sum);
        assert!((ours / exact - 1.0).abs() < 1e-5 && (theirs / exact - 1.0).abs() < 1e-5);
    }
}

#[test]
fn convolution_is_differentiated_rightly() {
    type Conv = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, usize, usize) -> Tensor<4>;
    let cases = [
        // shape, outputs, kernel, stride, padding
        ([2, 3, 5, 4], 4, 3, 1, 1),
        ([9, 2, 6, 5], 3, 3, 2, 1),
        ([9, 3, 4, 4], 5, 1, 1, 0),
        ([2, 3, 17, 19], 5, 1, 1, 0),
        ([1, 1, 1, 1], 1, 3, 1, 1),
        ([3, 2, 2, 2], 2, 5, 1, 2),
        ([2, 3, 7, 7], 4, 4, 4, 0),
        ([2, 2, 6, 6], 3, 3, 1, 0),
        ([2, 2, 4, 4], 3, 1, 2, 0),
        ([19, 2, 17, 16], 3, 3, 1, 1),
        // In tiles.
        ([2, 3, 13, 14], 5, 3, 1, 1),
        ([1, 18, 8, 5], 17, 3, 1, 1),
        // Few images, many channels.
        ([1, 66, 4, 4], 70, 3, 2, 1),
        ([3, 70, 2, 2], 66, 3, 1, 1),
        ([1, 65, 3, 3], 80, 1, 1, 0),
    ];
    for (shape, outputs, kernel, stride, padding) in cases {
        for biased in [true, false] {
            let with = |op: Conv| {
                move |operands: Operands| {
                    let mut operands = operands.into_iter();
                    let x = take(&mut operands, shape);
                    let weight = take(&mut operands, [outputs, shape[1], kernel, kernel]);
                    flatten(op(x, weight, operands.next(), stride, padding))
                }
            };
            let sizes = [shape.iter().product(), outputs * shape[1] * kernel * kernel, outputs];
            let sizes = if biased { &sizes[..] } else { &sizes[..2] };
            let name = format!("convolution {shape:?} → {outputs}, {kernel}/{stride}+{padding}");
            check(&name, sizes, &with(super::conv2d), &with(composed::conv2d));
        }
    }
}

/// Above the size of the largest buffer of columns: what computes it must not depend on whether the
/// weight is trained.
#[test]
fn a_large_image_has_the_same_bits_under_a_trained_weight() {
    let shape = [1, 16, 128, 120];
    let x = flat(numbers(shape.iter().product(), 1), DType::F32).reshape(shape);
    let weight = flat(numbers(8 * 16 * 9, 2), DType::F32).reshape([8, 16, 3, 3]);
    let leaf = weight.clone().autodiff().require_grad();
    let frozen = super::conv2d(x.clone(), weight.clone(), None, 1, 1);
    let trained = super::conv2d(x.clone(), leaf.clone(), None, 1, 1);
    assert_eq!(values(flatten(frozen)), values(flatten(trained.clone().inner())));
    let found = leaf.grad_remove(&mut trained.sum().backward()).unwrap();
    let leaf = weight.autodiff().require_grad();
    let expected = composed::conv2d(x, leaf.clone(), None, 1, 1);
    let expected = leaf.grad_remove(&mut expected.sum().backward()).unwrap();
    let distance = distance(&values(flatten(found)), &values(flatten(expected)));
    assert!(distance <= 1e-5, "{distance}");
}

#[test]
fn attention_is_differentiated_rightly() {
    type Attention = fn(Tensor<4>, Tensor<4>, Tensor<4>, f64, Causal) -> Tensor<4>;
    // batch, heads, queries, keys, head
    let cases = [
        [1, 1, 1, 1, 1],
        [2, 3, 5, 7, 4],
        [1, 2, 192, 40, 3],
        [2, 2, 9, 9, 8],
        [1, 2, 160, 160, 5],
    ];
    for [batch, heads, queries, keys, head] in cases {
        for causal in [Causal::No, Causal::Yes] {
            if causal == Causal::Yes && queries != keys {
                continue;
            }
            // Heads as a projection leaves them: not contiguous.
            let with = |op: Attention| {
                move |operands: Operands| {
                    let mut operands = operands.into_iter();
                    let [q, k, v] = [queries, keys, keys]
                        .map(|n| take(&mut operands, [batch, n, heads, head]).swap_dims(1, 2));
                    flatten(op(q, k, v, 0.7, causal).swap_dims(1, 2))
                }
            };
            let sizes = [queries, keys, keys].map(|n| batch * heads * n * head);
            let name = format!("attention {batch}·{heads}·{queries}·{keys}·{head} {causal:?}");
            check(&name, &sizes, &with(super::attention), &with(composed::attention));
        }
    }
}

#[test]
fn views_and_expanded_inputs_are_read_where_they_lie() {
    let base = operands(&[4 * 6 * 5 * 5, 6], DType::F32);
    let x = base[0].clone().reshape([5, 5, 6, 4]).permute([3, 2, 0, 1]).narrow(0, 1, 2);
    let gamma = base[1].clone();
    let copy = |x: Tensor<4>| {
        let shape = x.dims();
        Tensor::<4>::from_data(x.into_data(), &Device::flex()).reshape(shape)
    };
    let norm = |x| super::group_norm(x, [gamma.clone(), gamma.clone()], 3, 1e-5, Activation::Silu);
    assert_eq!(values(flatten(norm(x.clone()))), values(flatten(norm(copy(x.clone())))));
    let expanded = x.clone().narrow(2, 0, 1).expand([2, 6, 5, 5]);
    assert_eq!(
        values(flatten(super::silu(expanded.clone()))),
        values(flatten(super::silu(copy(expanded.clone()))))
    );
    let weight = base[0].clone().narrow(0, 3, 6 * 6).reshape([6, 6, 1, 1]).swap_dims(0, 1);
    let conv = |x, weight| super::conv2d(x, weight, None, 1, 0);
    assert_eq!(
        values(flatten(conv(expanded.clone(), weight.clone()))),
        values(flatten(conv(copy(expanded), copy(weight))))
    );
}

/// Whether nothing but `x` itself holds its buffer.
fn unshared<const D: usize>(x: Tensor<D>) -> bool {
    x.inner().try_into_primitive::<Flex>().unwrap().is_unique()
}

#[test]
fn products_keep_their_input_only_for_a_tracked_weight() {
    let device = Device::flex();
    for tracked in [true, false] {
        let weight = Tensor::<2>::ones([3, 4], &device);
        let weight = if tracked { weight.autodiff().require_grad() } else { weight };
        let x = Tensor::<3>::ones([2, 5, 4], &device).autodiff().require_grad();
        let y = super::linear(x.clone(), weight.clone(), None);
        assert_eq!(unshared(x), !tracked);
        drop(y);

        let x = Tensor::<4>::ones([2, 4, 5, 5], &device).autodiff().require_grad();
        let y = super::conv2d(x.clone(), weight.reshape([3, 4, 1, 1]), None, 1, 0);
        assert_eq!(unshared(x), !tracked);
        drop(y);
    }
}

#[test]
fn what_is_not_a_number_stays_visible() {
    let x = flat(vec![1.0, f64::NAN, -2.0, f64::INFINITY], DType::F32);
    for y in [super::silu(x.clone()), super::gelu(x.clone()), super::quick_gelu(x.clone())] {
        let y = values(y);
        assert!(y[1].is_nan() && y[0].is_finite() && y[2].is_finite());
    }
    let affine = [flat(vec![1.0], DType::F32), flat(vec![0.0], DType::F32)];
    let y = super::group_norm(x.reshape([1, 1, 2, 2]), affine, 1, 1e-5, Activation::Silu);
    assert!(values(flatten(y)).iter().all(|y| y.is_nan()));
}

/// What one sample gives, alone or among others, must be the same bits: a pair of pictures of one
/// seed would otherwise differ by the company that each was drawn in.
fn assert_same_alone<const D: usize>(
    name: &str,
    sample: [usize; D],
    op: &dyn Fn(Tensor<D>) -> Tensor<1>,
) {
    let together = |n: usize| {
        let shape: [usize; D] =
            std::array::from_fn(|axis| sample[axis] * if axis == 0 { n } else { 1 });
        values(op(flat(numbers(shape.iter().product(), 9), DType::F32).reshape(shape)))
    };
    // The draws of a larger batch begin with those of a smaller one.
    let whole = together(37);
    for n in [1, 2, 3, 5, 8, 24, 36] {
        let some = together(n);
        let differing = some.iter().zip(&whole).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert_eq!(differing, 0, "{name} {sample:?}: {differing} values of {n} samples");
    }
}

#[test]
fn a_sample_does_not_depend_on_its_company() {
    let weights =
        |shape: [usize; 2]| flat(numbers(shape[0] * shape[1], 3), DType::F32).reshape(shape);
    for inputs in [1, 2, 3, 64, 129, 700] {
        for outputs in [1, 8, 67, 300] {
            for tokens in [1, 16, 64, 100] {
                assert_same_alone("linear", [1, tokens, inputs], &|x: Tensor<3>| {
                    flatten(super::linear(x, weights([outputs, inputs]), None))
                });
            }
        }
    }
    for [tokens, inputs, outputs] in [[1, 3, 5], [16, 70, 300], [100, 8, 64]] {
        assert_same_alone("low rank", [1, tokens, inputs], &|x: Tensor<3>| {
            let factors = [weights([4, inputs]), weights([outputs, 4])];
            flatten(super::low_rank_linear(x, weights([outputs, inputs]), None, factors))
        });
    }
    for [side, channels, outputs, kernel] in [
        [2, 16, 8, 3],
        [4, 64, 33, 3],
        [4, 64, 130, 3],
        [1, 7, 3, 1],
        [8, 16, 16, 1],
        [8, 16, 80, 1],
        [8, 20, 36, 3],
        [16, 4, 8, 3],
        [64, 3, 16, 3],
    ] {
        assert_same_alone("convolution", [1, channels, side, side], &|x: Tensor<4>| {
            let weight = weights([outputs, channels * kernel * kernel]);
            let weight = weight.reshape([outputs, channels, kernel, kernel]);
            flatten(super::conv2d(x, weight, None, 1, kernel / 2))
        });
    }
    for [queries, keys, head] in [[64, 48, 4], [256, 32, 48], [16, 16, 32], [5, 7, 3]] {
        assert_same_alone("attention", [1, 2, queries, head], &|q: Tensor<4>| {
            let n = q.dims()[0];
            let [k, v] = [4, 5].map(|seed| {
                flat(numbers(2 * keys * head, seed), DType::F32)
                    .reshape([1, 2, keys, head])
                    .repeat_dim(0, n)
            });
            flatten(super::attention(q, k, v, 0.3, Causal::No))
        });
    }
    for [tokens, width] in [[1, 3], [16, 17], [64, 130]] {
        let affine = || [4, 5].map(|seed| flat(numbers(width, seed), DType::F32));
        assert_same_alone("layer norm", [1, tokens, width], &|x: Tensor<3>| {
            let [gamma, beta] = affine();
            flatten(super::layer_norm(x, gamma, beta, 1e-5))
        });
        assert_same_alone("group norm", [1, width, tokens, 3], &|x: Tensor<4>| {
            flatten(super::group_norm(x, affine(), 1, 1e-5, Activation::Silu))
        });
        assert_same_alone("activations", [1, tokens, 2 * width], &|x: Tensor<3>| {
            flatten(super::geglu(super::silu(super::gelu(super::quick_gelu(x)))))
        });
    }
}
