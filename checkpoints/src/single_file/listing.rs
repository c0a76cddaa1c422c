//! The tensors that a network of a given plan has, by their diffusers names and with their shapes.

/// Looks up the shape of a tensor by name; `None` if there is none of that name.
pub(super) type Shapes<'a> = dyn Fn(&str) -> Option<Vec<usize>> + 'a;

/// Names and shapes in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Listing(Vec<(String, Vec<usize>)>);

impl Listing {
    /// One tensor.
    pub(super) fn tensor(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push((name.into(), shape.to_vec()));
    }

    /// Weight and bias of a norm.
    pub(super) fn norm(&mut self, path: &str, width: usize) {
        self.tensor(format!("{path}.weight"), &[width]);
        self.tensor(format!("{path}.bias"), &[width]);
    }

    /// Weight and bias of a linear layer, outputs first.
    pub(super) fn linear(&mut self, path: &str, n_out: usize, n_in: usize) {
        self.tensor(format!("{path}.weight"), &[n_out, n_in]);
        self.tensor(format!("{path}.bias"), &[n_out]);
    }

    /// Weight and bias of a convolution with a square kernel of `side`, outputs first.
    pub(super) fn conv(&mut self, path: &str, [n_out, n_in]: [usize; 2], side: usize) {
        self.tensor(format!("{path}.weight"), &[n_out, n_in, side, side]);
        self.tensor(format!("{path}.bias"), &[n_out]);
    }

    /// Names and shapes.
    pub(super) fn into_vec(self) -> Vec<(String, Vec<usize>)> {
        self.0
    }
}

/// One length of a tensor's shape, or what is missing in words.
pub(super) fn length(shapes: &Shapes<'_>, name: &str, axis: usize) -> Result<usize, String> {
    /// Longer than any axis of these networks, and far from what products of two could not hold.
    const LONGEST: usize = 1 << 24;
    let found = shapes(name).and_then(|shape| shape.get(axis).copied());
    let usable = found.filter(|length| (1..=LONGEST).contains(length));
    usable.ok_or_else(|| format!("no usable `{name}`"))
}

/// How many of the names exist that `name` gives for 0, 1, 2 and so on.
pub(super) fn count(shapes: &Shapes<'_>, name: impl Fn(usize) -> String) -> usize {
    (0..usize::MAX).take_while(|&n| shapes(&name(n)).is_some()).count()
}
