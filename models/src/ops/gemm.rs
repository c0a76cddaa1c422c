//! Products of matrices with strides, on the calling thread.
//!
//! An element of a product is the same bits whatever the number of rows and columns around it, so
//! that a picture does not depend on the batch it is drawn in. The gemm crate does not promise that:
//! it sums products of few elements, and of one row or column, in another order, and cuts long sums
//! at places that depend on all three sizes. Such products are laid out so that it cannot.

use gemm::Parallelism;

use super::element::Element;

/// How a matrix lies in a slice: element (i, j) is at `i·row_stride + j·column_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Rows.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) columns: usize,
    /// Distance between neighbours in a column.
    pub(crate) row_stride: usize,
    /// Distance between neighbours in a row.
    pub(crate) column_stride: usize,
}

impl Shape {
    /// Rows one after the other.
    pub(crate) fn dense(rows: usize, columns: usize) -> Self {
        Self::strided(rows, columns, columns)
    }

    /// Rows that begin `row_stride` apart.
    pub(crate) fn strided(rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { rows, columns, row_stride, column_stride: 1 }
    }

    /// The same elements read as the transpose.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// The length of the slice that holds the matrix.
    fn span(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// Whether a product replaces what stands in the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Into {
    /// dst = s·A·B.
    Replace,
    /// dst = dst + s·A·B.
    Add,
}

/// Longest sum that the gemm crate never cuts.
const DEPTH: usize = 512;
/// Products of at most so many elements are those that it sums in another order.
const SMALL: usize = 256;

/// dst = s·A·B, or with the old dst added.
///
/// # Panics
///
/// If a slice is shorter than its shape, or the shapes do not fit: both are mistakes of ours.
pub(crate) fn gemm<T: Element>(
    (dst, to): (&mut [T], Shape),
    (a, left): (&[T], Shape),
    (b, right): (&[T], Shape),
    scale: T,
    into: Into,
) {
    assert!(to.rows == left.rows && to.columns == right.columns && left.columns == right.rows);
    assert!(to.span() <= dst.len() && left.span() <= a.len() && right.span() <= b.len());
    if to.rows.min(to.columns) == 1 || to.rows * to.columns <= SMALL {
        return padded((dst, to), (a, left), (b, right), scale, into);
    }
    in_blocks((dst, to), (a, left), (b, right), scale, into);
}

/// The product with a second row and column where it has but one, and A by columns.
fn padded<T: Element>(
    (dst, to): (&mut [T], Shape),
    (a, left): (&[T], Shape),
    (b, right): (&[T], Shape),
    scale: T,
    into: Into,
) {
    if to.rows == 0 || to.columns == 0 {
        return;
    }
    let (rows, columns, depth) = (to.rows.max(2), to.columns.max(2), left.columns);
    let mut by_columns = vec![T::ZERO; rows * depth];
    for i in 0..left.rows {
        for j in 0..depth {
            by_columns[j * rows + i] = a[i * left.row_stride + j * left.column_stride];
        }
    }
    let mut by_rows = vec![T::ZERO; columns * depth];
    for i in 0..depth {
        for j in 0..right.columns {
            by_rows[i * columns + j] = b[i * right.row_stride + j * right.column_stride];
        }
    }
    let mut product = vec![T::ZERO; rows * columns];
    if into == Into::Add {
        for i in 0..to.rows {
            product[i * columns..][..to.columns]
                .copy_from_slice(&dst[i * to.row_stride..][..to.columns]);
        }
    }
    in_blocks(
        (&mut product, Shape::dense(rows, columns)),
        (&by_columns, Shape::dense(depth, rows).transposed()),
        (&by_rows, Shape::dense(depth, columns)),
        scale,
        into,
    );
    for i in 0..to.rows {
        dst[i * to.row_stride..][..to.columns]
            .copy_from_slice(&product[i * columns..][..to.columns]);
    }
}

/// The product as a sum over pieces of the depth.
fn in_blocks<T: Element>(
    (dst, to): (&mut [T], Shape),
    (a, left): (&[T], Shape),
    (b, right): (&[T], Shape),
    scale: T,
    into: Into,
) {
    let mut into = into;
    let depth = left.columns;
    for first in (0..depth.max(1)).step_by(DEPTH) {
        let n = DEPTH.min(depth - first);
        let piece_of_a = a.get(first * left.column_stride..).unwrap_or_default();
        let piece_of_b = b.get(first * right.row_stride..).unwrap_or_default();
        multiply(
            (dst, to),
            (piece_of_a, Shape { columns: n, ..left }),
            (piece_of_b, Shape { rows: n, ..right }),
            scale,
            into,
        );
        into = Into::Add;
    }
}

#[expect(unsafe_code, reason = "the gemm crate takes raw pointers")]
fn multiply<T: Element>(
    (dst, to): (&mut [T], Shape),
    (a, left): (&[T], Shape),
    (b, right): (&[T], Shape),
    scale: T,
    into: Into,
) {
    assert!(to.rows == left.rows && to.columns == right.columns && left.columns == right.rows);
    assert!(to.span() <= dst.len() && left.span() <= a.len() && right.span() <= b.len());
    // No element of the destination may be reached twice.
    assert!(to.column_stride == 1 && to.row_stride >= to.columns);
    let stride = usize::cast_signed;
    // SAFETY: the three spans lie inside their slices, as asserted, and the destination, borrowed
    // mutably, overlaps neither factor. All element types of this crate are floats that the crate
    // knows, and every bit pattern of them is valid.
    unsafe {
        gemm::gemm(
            to.rows,
            to.columns,
            left.columns,
            dst.as_mut_ptr(),
            stride(to.column_stride),
            stride(to.row_stride),
            into == Into::Add,
            a.as_ptr(),
            stride(left.column_stride),
            stride(left.row_stride),
            b.as_ptr(),
            stride(right.column_stride),
            stride(right.row_stride),
            T::ONE,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
