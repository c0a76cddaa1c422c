//! How a network shows its parameters: by name, whatever their rank.

use burn::tensor::{Gradients, Tensor};

use crate::layer::{Conv2d, Linear};

/// One parameter of a network, seen without its rank.
pub trait Slot {
    /// Sizes of the axes, in PyTorch's order.
    fn shape(&self) -> Vec<usize>;
    /// The values in row-major order, `[n_values]`.
    fn flat(&self) -> Tensor<1>;
    /// Replaces the values by constants; `values` is `[n_values]` in row-major order.
    fn set(&mut self, values: Tensor<1>);
    /// Replaces the values by a leaf of the autodiff graph, whose gradient a backward pass keeps.
    fn set_leaf(&mut self, values: Tensor<1>);
    /// Takes the gradient of a leaf, `[n_values]`; `None` for a constant or an unused leaf.
    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>>;
}

impl<const D: usize> Slot for Tensor<D> {
    fn shape(&self) -> Vec<usize> {
        self.dims().to_vec()
    }

    fn flat(&self) -> Tensor<1> {
        let n_values = self.dims().iter().product::<usize>();
        self.clone().reshape([n_values])
    }

    fn set(&mut self, values: Tensor<1>) {
        *self = values.reshape(self.dims());
    }

    fn set_leaf(&mut self, values: Tensor<1>) {
        *self = values.reshape(self.dims()).autodiff().require_grad();
    }

    fn take_gradient(&self, gradients: &mut Gradients) -> Option<Tensor<1>> {
        if !self.is_require_grad() {
            return None;
        }
        let n_values = self.dims().iter().product::<usize>();
        self.grad_remove(gradients).map(|gradient| gradient.reshape([n_values]))
    }
}

/// What is done at each parameter of a network.
pub trait Visitor {
    /// Meets one parameter under its full path, e.g. `down_blocks.0.resnets.0.conv1.weight`.
    fn parameter(&mut self, path: &str, slot: &mut dyn Slot);

    /// Meets a linear layer before its parameters; adapters are attached here.
    fn linear(&mut self, _path: &str, _layer: &mut Linear) {}

    /// Meets a convolution before its parameters.
    fn conv2d(&mut self, _path: &str, _layer: &mut Conv2d) {}
}

/// Something with named parameters.
pub trait Network {
    /// Shows every parameter once, in a fixed order, under `path` extended by its own name.
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor);
}

impl<N: Network> Network for Vec<N> {
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) {
        for (index, member) in self.iter_mut().enumerate() {
            member.visit(&join(path, &index.to_string()), visitor);
        }
    }
}

impl<N: Network> Network for Option<N> {
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) {
        if let Some(member) = self {
            member.visit(path, visitor);
        }
    }
}

impl<const D: usize> Network for Tensor<D> {
    fn visit(&mut self, path: &str, visitor: &mut dyn Visitor) {
        visitor.parameter(path, self);
    }
}

/// `path.name`, or `name` at the root.
pub(crate) fn join(path: &str, name: &str) -> String {
    match (path.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => path.to_owned(),
        (false, false) => format!("{path}.{name}"),
    }
}

/// Implements [`Network`] for a struct by its fields: `network!(Type { field: "name", … })`.
macro_rules! network {
    ($type:ty { $($field:ident : $name:expr),* $(,)? }) => {
        impl $crate::visit::Network for $type {
            fn visit(&mut self, path: &str, visitor: &mut dyn $crate::visit::Visitor) {
                $( $crate::visit::Network::visit(&mut self.$field, &$crate::visit::join(path, $name), visitor); )*
            }
        }
    };
}
pub(crate) use network;
