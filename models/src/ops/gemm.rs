//! Products of matrices with strides, on the calling thread.

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

/// dst = s·A·B, or with the old dst added.
///
/// # Panics
///
/// If a slice is shorter than its shape, or the shapes do not fit: both are mistakes of ours.
#[expect(unsafe_code, reason = "the gemm crate takes raw pointers")]
pub(crate) fn gemm<T: Element>(
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
