//! All trainable values as one vector.

use burn::tensor::{Device, Tensor};
use models::Slot;
use models::unet::GradientParts;

/// A closure that shows every trainable parameter, always in the same order.
pub type Visit<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&str, &mut dyn Slot));

/// One parameter's part of the vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The parameter's path.
    pub name: String,
    /// First value.
    pub start: usize,
    /// Number of values.
    pub len: usize,
}

/// Where each parameter lies in the vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// Parameters in the order of the visit, without gaps.
    pub segments: Vec<Segment>,
    /// Values in all.
    pub n_values: usize,
}

impl Flat {
    /// The layout of what `visit` shows, and the values, `[n_values]`.
    pub fn of(visit: Visit<'_>, device: &Device) -> (Self, Tensor<1>) {
        let mut segments = Vec::new();
        let mut values = Vec::new();
        let mut start = 0;
        visit(&mut |name, slot| {
            let len = slot.shape().iter().product();
            segments.push(Segment { name: name.to_owned(), start, len });
            start += len;
            values.push(slot.flat());
        });
        let theta =
            if values.is_empty() { Tensor::zeros([0], device) } else { Tensor::cat(values, 0) };
        (Self { segments, n_values: start }, theta)
    }

    /// Puts parts of `theta` into the parameters, as leaves whose gradients are wanted.
    pub fn install_leaves(&self, visit: Visit<'_>, theta: &Tensor<1>) {
        self.each(visit, theta, &|slot, values| slot.set_leaf(values));
    }

    /// Puts parts of `theta` into the parameters, as constants.
    pub fn install(&self, visit: Visit<'_>, theta: &Tensor<1>) {
        self.each(visit, theta, &|slot, values| slot.set(values));
    }

    fn each(&self, visit: Visit<'_>, theta: &Tensor<1>, put: &dyn Fn(&mut dyn Slot, Tensor<1>)) {
        let mut segments = self.segments.iter();
        visit(&mut |_, slot| {
            if let Some(segment) = segments.next() {
                put(slot, theta.clone().slice(segment.start..segment.start + segment.len));
            }
        });
    }

    /// The gradients of the leaves in the vector's order, `[n_values]`; 0 where a leaf was not used.
    pub fn gradients(
        &self,
        visit: Visit<'_>,
        mut gradients: GradientParts,
        device: &Device,
    ) -> Tensor<1> {
        let mut parts = Vec::with_capacity(self.segments.len());
        visit(&mut |_, slot| {
            let len: usize = slot.shape().iter().product();
            parts.push(gradients.take(slot).unwrap_or_else(|| Tensor::zeros([len], device)));
        });
        Tensor::cat(parts, 0)
    }
}
