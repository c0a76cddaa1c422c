//! Every op against PyTorch, whose double precision was rounded: the golden case `ops`.
//!
//! Tolerance: relative L2 distance 10⁻⁵, in single precision.

use burn::tensor::{Device, Tensor};

use super::{Activation, AdamWStep, Causal};
use crate::base::host_values;
use crate::parity::Case;

const TOLERANCE: f64 = 1e-5;

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let pairs = found.iter().zip(expected);
    let difference: f64 = pairs.map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let length: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
    (difference / length).sqrt()
}

fn near<const D: usize>(case: &Case, name: &str, found: Tensor<D>) {
    let expected = host_values(case.tensor::<D>(name)).unwrap();
    let distance = distance(&host_values(found).unwrap(), &expected);
    assert!(distance <= TOLERANCE, "{name}: {distance}");
}

/// Takes an input of a case as a leaf.
struct Leaves<'a> {
    case: &'a Case,
    name: &'a str,
}

impl Leaves<'_> {
    fn constant<const D: usize>(&self, key: &str) -> Tensor<D> {
        self.case.tensor(&format!("{}.{key}", self.name))
    }

    fn leaf<const D: usize>(&self, key: &str) -> Tensor<D> {
        self.constant::<D>(key).autodiff().require_grad()
    }

    /// Holds the output, and runs backwards with the slopes of the case.
    fn backward<const D: usize>(&self, output: Tensor<D>) -> burn::tensor::Gradients {
        near(self.case, &format!("{}.output", self.name), output.clone().inner());
        (output * self.constant("slope").autodiff()).sum().backward()
    }

    fn gradient<const D: usize>(
        &self,
        key: &str,
        leaf: &Tensor<D>,
        gradients: &mut burn::tensor::Gradients,
    ) {
        let found = leaf.grad_remove(gradients).unwrap();
        near(self.case, &format!("{}.gradient.{key}", self.name), found);
    }
}

fn each(n: usize, kind: &str, check: impl Fn(&Leaves<'_>)) {
    let case = Case::open("ops", "case.safetensors");
    for index in 0..n {
        check(&Leaves { case: &case, name: &format!("{kind}.{index}") });
    }
}

#[test]
fn attention_is_that_of_torch() {
    each(5, "attention", |case| {
        let [q, k, v] = ["q", "k", "v"].map(|key| case.leaf::<4>(key));
        let scale = 1.0 / (q.dims()[3] as f64).sqrt();
        let y = super::attention(q.clone(), k.clone(), v.clone(), scale, Causal::No);
        let mut gradients = case.backward(y);
        for (key, leaf) in [("q", q), ("k", k), ("v", v)] {
            case.gradient(key, &leaf, &mut gradients);
        }
    });
}

#[test]
fn norms_are_those_of_torch() {
    let groups = [3, 1, 8];
    each(3, "group_norm", |case| {
        let index = usize::from(case.name.as_bytes()[case.name.len() - 1] - b'0');
        let (x, affine) = (case.leaf::<4>("x"), ["weight", "bias"].map(|key| case.leaf::<1>(key)));
        let (x_of, affine_of) = (x.clone(), affine.clone());
        let y = super::group_norm(x_of, affine_of, groups[index], 1e-5, Activation::Silu);
        let mut gradients = case.backward(y);
        case.gradient("x", &x, &mut gradients);
        case.gradient("weight", &affine[0], &mut gradients);
        case.gradient("bias", &affine[1], &mut gradients);
    });
    each(2, "layer_norm", |case| {
        let (x, affine) = (case.leaf::<3>("x"), ["weight", "bias"].map(|key| case.leaf::<1>(key)));
        let [gamma, beta] = affine.clone();
        let mut gradients = case.backward(super::layer_norm(x.clone(), gamma, beta, 1e-5));
        case.gradient("x", &x, &mut gradients);
        case.gradient("weight", &affine[0], &mut gradients);
        case.gradient("bias", &affine[1], &mut gradients);
    });
}

#[test]
fn activations_are_those_of_torch() {
    type Unary = fn(Tensor<1>) -> Tensor<1>;
    each(2, "geglu", |case| {
        let x = case.leaf::<3>("x");
        let mut gradients = case.backward(super::geglu(x.clone()));
        case.gradient("x", &x, &mut gradients);
    });
    let ops: [(&str, Unary); 3] =
        [("silu", super::silu), ("gelu", super::gelu), ("quick_gelu", super::quick_gelu)];
    let case = Case::open("ops", "case.safetensors");
    for (name, op) in ops {
        let case = Leaves { case: &case, name };
        let x = case.leaf::<1>("x");
        let mut gradients = case.backward(op(x.clone()));
        case.gradient("x", &x, &mut gradients);
    }
}

#[test]
fn convolution_is_that_of_torch() {
    let windows = [(1, 1), (1, 1), (1, 1), (2, 1), (1, 0)];
    each(5, "convolution", |case| {
        let index = usize::from(case.name.as_bytes()[case.name.len() - 1] - b'0');
        let (stride, padding) = windows[index];
        let (x, weight) = (case.leaf::<4>("x"), case.leaf::<4>("weight"));
        let bias = case.leaf::<1>("bias");
        let inputs = (x.clone(), weight.clone(), Some(bias.clone()));
        let mut gradients =
            case.backward(super::conv2d(inputs.0, inputs.1, inputs.2, stride, padding));
        case.gradient("x", &x, &mut gradients);
        case.gradient("weight", &weight, &mut gradients);
        case.gradient("bias", &bias, &mut gradients);
    });
}

#[test]
fn a_low_rank_branch_is_that_of_torch() {
    each(2, "low_rank", |case| {
        let x = case.leaf::<3>("x");
        let [down, up] = ["down", "up"].map(|key| case.leaf::<2>(key));
        let (weight, bias) = (case.constant("weight"), case.constant("bias"));
        let factors = [down.clone(), up.clone()];
        let y = super::low_rank_linear(x.clone(), weight, Some(bias), factors);
        let mut gradients = case.backward(y);
        case.gradient("x", &x, &mut gradients);
        case.gradient("down", &down, &mut gradients);
        case.gradient("up", &up, &mut gradients);
    });
}

#[test]
fn a_hundred_updates_are_those_of_torch() {
    let case = Case::open("ops", "case.safetensors");
    for (name, limit) in [("adamw.clipped", 1.0), ("adamw.free", 1e6)] {
        let theta = case.tensor::<1>(&format!("{name}.theta"));
        let gradients = case.tensor::<2>(&format!("{name}.gradients"));
        let n_values = theta.dims()[0];
        let zeros = Tensor::<1>::zeros([n_values], &Device::flex());
        let mut state = [theta, zeros.clone(), zeros];
        for number in 1..=100_u64 {
            let row = number as usize - 1;
            let gradient = gradients.clone().slice([row..row + 1, 0..n_values]).squeeze_dim(0);
            let sums = host_values(super::square_sums(gradient.clone())).unwrap();
            let norm = sums.into_iter().map(f64::from).sum::<f64>().sqrt();
            let step = AdamWStep {
                learning_rate: 1e-2,
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-8,
                weight_decay: 0.1,
                number,
                shrink: (limit / (norm + 1e-6)).min(1.0),
            };
            state = super::adamw(state, gradient, step);
        }
        let [theta, ..] = state;
        near(&case, &format!("{name}.output"), theta);
    }
}
