//! Where a network's tensors come from: a file, with a full account, drawn initial values, or nowhere.

use std::cell::RefCell;
use std::collections::BTreeSet;

use burn::tensor::{Device, Shape, Tensor, TensorData};
use checkpoints::{CheckpointError, HostTensor, Values};
use recipes::draws;

use crate::base::Precision;
use crate::error::{Misshaped, ModelError};

/// Named tensors on the host.
pub trait TensorSource {
    /// Where they come from, for messages.
    fn label(&self) -> String;
    /// All names.
    fn names(&self) -> Vec<String>;
    /// Shape of one tensor; `None` if there is none of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    /// One tensor.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be read or the dtype is unknown.
    fn read(&self, name: &str) -> Result<HostTensor, CheckpointError>;
}

/// How a parameter starts when a network is trained from scratch; PyTorch's defaults.
#[derive(Clone, Copy, Debug)]
pub enum Initial {
    /// Uniform in ± the bound.
    Uniform(f64),
    /// Normal with mean 0 and the given deviation.
    Normal(f64),
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All the same value.
    Constant(f64),
}

enum Origin<'a> {
    File(&'a dyn TensorSource),
    Drawn { seed: u64 },
    Nowhere,
}

#[derive(Default)]
struct Account {
    used: BTreeSet<String>,
    missing: Vec<String>,
    misshaped: Vec<Misshaped>,
    unreadable: Option<CheckpointError>,
}

struct Shared<'a> {
    origin: Origin<'a>,
    device: Device,
    account: RefCell<Account>,
}

/// Hands a network its tensors by name, and keeps account of what was missing, left over or of
/// another shape, so that one error lists everything.
pub struct Builder<'a> {
    shared: std::rc::Rc<Shared<'a>>,
    path: String,
    precision: Precision,
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Builder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> Builder<'a> {
    /// Takes tensors from `source`.
    pub fn from_source(source: &'a dyn TensorSource, device: &Device) -> Self {
        Self::with_origin(Origin::File(source), device)
    }

    /// Draws initial values, each from a stream keyed by `seed` and the parameter's path.
    pub fn initial(seed: u64, device: &Device) -> Self {
        Self::with_origin(Origin::Drawn { seed }, device)
    }

    /// Gives every tensor its shape and the value 0, in the memory of one value each: for questions
    /// that need no weights, such as which layers a network has.
    pub fn skeleton(device: &Device) -> Self {
        Self::with_origin(Origin::Nowhere, device)
    }

    fn with_origin(origin: Origin<'a>, device: &Device) -> Self {
        let shared = Shared { origin, device: device.clone(), account: RefCell::default() };
        let precision = Precision::F32;
        Self { shared: std::rc::Rc::new(shared), path: String::new(), precision }
    }

    /// The same builder, which from here on makes tensors of this precision; f32 without.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The builder of the member `name`, which may hold dots.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        let path = crate::visit::join(&self.path, &name.to_string());
        Self { shared: std::rc::Rc::clone(&self.shared), path, precision: self.precision }
    }

    /// Where the tensors are made.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// The tensor `name` of this shape in the builder's precision, rounded once if its file holds
    /// more. A missing or mis-shaped one is noted and zeros are returned, so that
    /// [`Builder::finish`] can list all of them.
    pub fn tensor<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        initial: Initial,
    ) -> Tensor<D> {
        let path = crate::visit::join(&self.path, name);
        let values = match &self.shared.origin {
            Origin::File(source) => self.read(*source, &path, &shape),
            Origin::Drawn { seed } => Some(Values::F32(drawn(*seed, &path, &shape, initial))),
            Origin::Nowhere => return self.one_value(shape),
        };
        let values = values.unwrap_or_else(|| Values::F32(vec![0.0; shape.iter().product()]));
        self.made(data(values, shape, self.precision))
    }

    /// Zeros of any shape as a view of a single one.
    fn one_value<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let zero: Tensor<1> = self.made(TensorData::new(vec![0.0f32], [1]));
        zero.expand(Shape::from(shape))
    }

    /// A tensor on the device. Values of another type are converted before they go there, one
    /// tensor at a time, so that no second copy of a network is ever held.
    fn made<const D: usize>(&self, data: TensorData) -> Tensor<D> {
        Tensor::from_data(data, (&self.shared.device, self.precision.dtype()))
    }

    fn read(&self, source: &dyn TensorSource, path: &str, shape: &[usize]) -> Option<Values> {
        let mut account = self.shared.account.borrow_mut();
        let Some(found) = source.shape(path) else {
            account.missing.push(path.to_owned());
            return None;
        };
        account.used.insert(path.to_owned());
        // burn has no tensors of rank 0: a scalar is held as one value.
        let scalar = found.is_empty() && shape == [1];
        if found != shape && !scalar {
            account.misshaped.push(Misshaped {
                name: path.to_owned(),
                expected: shape.to_vec(),
                found,
            });
            return None;
        }
        match source.read(path) {
            Ok(tensor) => Some(tensor.values),
            Err(error) => {
                account.unreadable.get_or_insert(error);
                None
            }
        }
    }

    /// Ends the account.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tensors`] lists every missing, unexpected and mis-shaped tensor; names for
    /// which `ignored` holds are not counted as unexpected.
    pub fn finish(&self, ignored: fn(&str) -> bool) -> Result<(), ModelError> {
        let mut account = self.shared.account.borrow_mut();
        if let Some(error) = account.unreadable.take() {
            return Err(ModelError::Checkpoint(error));
        }
        let Origin::File(source) = &self.shared.origin else { return Ok(()) };
        let unexpected: Vec<String> = source
            .names()
            .into_iter()
            .filter(|name| !account.used.contains(name) && !ignored(name))
            .collect();
        if account.missing.is_empty() && account.misshaped.is_empty() && unexpected.is_empty() {
            return Ok(());
        }
        Err(ModelError::Tensors {
            file: source.label(),
            missing: std::mem::take(&mut account.missing),
            unexpected,
            misshaped: std::mem::take(&mut account.misshaped),
        })
    }
}

/// Values on their way to a device: those that are stored in the wanted type as they are, all others
/// in f32, from which they are rounded.
fn data<const D: usize>(values: Values, shape: [usize; D], precision: Precision) -> TensorData {
    match (values, precision) {
        (Values::F32(values), _) => TensorData::new(values, shape),
        (Values::Bf16(values), Precision::Bf16) => TensorData::new(values, shape),
        (values @ (Values::F16(_) | Values::Bf16(_) | Values::I64(_)), _) => {
            let stored = HostTensor { shape: shape.to_vec(), values };
            TensorData::new(stored.f32().into_owned(), shape)
        }
    }
}

fn drawn(seed: u64, path: &str, shape: &[usize], initial: Initial) -> Vec<f32> {
    let n_values = shape.iter().product();
    let mut stream = draws::keyed(seed, path);
    match initial {
        Initial::Uniform(bound) => (0..n_values)
            .map(|_| ((draws::uniform(&mut stream) * 2.0 - 1.0) * bound) as f32)
            .collect(),
        Initial::Normal(deviation) => draws::normals(&mut stream, n_values)
            .into_iter()
            .map(|value| value * deviation as f32)
            .collect(),
        Initial::Zeros => vec![0.0; n_values],
        Initial::Ones => vec![1.0; n_values],
        Initial::Constant(value) => vec![value as f32; n_values],
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;
    use crate::base::host_values;

    /// The same tensor under every name.
    struct Same(HostTensor);

    impl TensorSource for Same {
        fn label(&self) -> String {
            "same".to_owned()
        }

        fn names(&self) -> Vec<String> {
            Vec::new()
        }

        fn shape(&self, _: &str) -> Option<Vec<usize>> {
            Some(self.0.shape.clone())
        }

        fn read(&self, _: &str) -> Result<HostTensor, CheckpointError> {
            Ok(self.0.clone())
        }
    }

    #[test]
    fn a_tensor_has_the_precision_of_its_builder_whatever_its_file_holds() {
        // 1 + 2⁻⁹ lies between two numbers of bf16, 0.1 between two of each short format.
        let values = vec![1.0 + 2.0_f32.powi(-9), -0.1, 3.0e-5, 65_000.0];
        let single = HostTensor::from_f32([2, 2], values);
        for stored in [single.to_f16(), single.to_bf16(), single] {
            let source = Same(stored.clone());
            let wide = Builder::from_source(&source, &Device::flex());
            let narrow = Builder::from_source(&source, &Device::flex());
            let narrow = narrow.in_precision(Precision::Bf16).at("member");
            for (builder, dtype, expected) in
                [(&wide, DType::F32, stored.to_f32()), (&narrow, DType::BF16, stored.to_bf16())]
            {
                let tensor: Tensor<2> = builder.tensor("weight", [2, 2], Initial::Zeros);
                assert_eq!(tensor.dtype(), dtype);
                assert_eq!(host_values(tensor).unwrap(), *expected.f32());
            }
        }
    }

    #[test]
    fn drawn_and_absent_values_have_the_precision_of_their_builder_too() {
        let device = Device::flex();
        for builder in [Builder::initial(1, &device), Builder::skeleton(&device)] {
            let wide: Tensor<1> = builder.tensor("a", [3], Initial::Normal(1.0));
            let builder = builder.in_precision(Precision::Bf16);
            let narrow: Tensor<1> = builder.tensor("a", [3], Initial::Normal(1.0));
            assert_eq!((wide.dtype(), narrow.dtype()), (DType::F32, DType::BF16));
            let rounded = HostTensor::from_f32([3], host_values(wide).unwrap()).to_bf16();
            assert_eq!(host_values(narrow).unwrap(), *rounded.f32());
        }
    }

    /// Shapes by name; every value is 0.
    struct Shapes(Vec<(&'static str, Vec<usize>)>);

    impl TensorSource for Shapes {
        fn label(&self) -> String {
            "shapes".to_owned()
        }

        fn names(&self) -> Vec<String> {
            self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
        }

        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.0.iter().find(|(other, _)| *other == name).map(|(_, shape)| shape.clone())
        }

        fn read(&self, name: &str) -> Result<HostTensor, CheckpointError> {
            let shape = self.shape(name).unwrap();
            let n_values = shape.iter().product();
            Ok(HostTensor::from_f32(shape, vec![0.0; n_values]))
        }
    }

    #[test]
    fn an_account_lists_every_tensor_that_is_missing_left_over_or_of_another_shape() {
        let source = Shapes(vec![
            ("a.good", vec![2, 3]),
            ("a.turned", vec![3, 2]),
            ("a.convolution", vec![2, 3, 1, 1]),
            ("a.left", vec![1]),
            ("over", vec![1]),
            ("ignored", vec![1]),
        ]);
        let root = Builder::from_source(&source, &Device::flex());
        let builder = root.at("a");
        for name in ["good", "turned", "convolution", "absent", "gone"] {
            let _: Tensor<2> = builder.tensor(name, [2, 3], Initial::Zeros);
        }
        let error = root.finish(|name| name == "ignored").unwrap_err();
        let text = error.to_string();
        let ModelError::Tensors { file, missing, unexpected, misshaped } = error else {
            panic!("{text}");
        };
        assert_eq!(file, "shapes");
        assert_eq!(missing, ["a.absent", "a.gone"]);
        assert_eq!(unexpected, ["a.left", "over"]);
        let shaped = |name: &str, found: &[usize]| Misshaped {
            name: name.to_owned(),
            expected: vec![2, 3],
            found: found.to_vec(),
        };
        assert_eq!(
            misshaped,
            [shaped("a.turned", &[3, 2]), shaped("a.convolution", &[2, 3, 1, 1])]
        );
        for line in [
            "2 missing: a.absent, a.gone",
            "2 unexpected: a.left, over",
            "shape of a.turned: expected [2, 3], found [3, 2]",
            "shape of a.convolution: expected [2, 3], found [2, 3, 1, 1]",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
