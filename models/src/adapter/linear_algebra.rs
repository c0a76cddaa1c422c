//! The few decompositions that adapters need: dense matrices in f64, and the leading part of a
//! large one in f32.

use rayon::prelude::*;
use recipes::draws;

use crate::ops::gemm::{Into, Shape, gemm};

/// A matrix in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) values: Vec<f64>,
}

impl Matrix {
    pub(super) fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        debug_assert_eq!(values.len(), rows * columns);
        Self { rows, columns, values }
    }

    /// The same values in f64.
    pub(super) fn from_f32(rows: usize, columns: usize, values: &[f32]) -> Self {
        Self::new(rows, columns, values.iter().map(|&value| f64::from(value)).collect())
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    pub(super) fn transposed(&self) -> Self {
        let values = (0..self.columns)
            .flat_map(|column| (0..self.rows).map(move |row| self.at(row, column)));
        Self::new(self.columns, self.rows, values.collect())
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        debug_assert_eq!(self.columns, other.rows);
        let mut values = vec![0.0; self.rows * other.columns];
        let width = other.columns.max(1);
        for (row, sums) in values.chunks_exact_mut(width).enumerate() {
            for (inner, terms) in other.values.chunks_exact(width).enumerate() {
                let factor = self.at(row, inner);
                for (sum, term) in sums.iter_mut().zip(terms) {
                    *sum += factor * term;
                }
            }
        }
        Self::new(self.rows, other.columns, values)
    }

    /// The sum of the squares of all values.
    pub(super) fn energy(&self) -> f64 {
        dot(&self.values, &self.values)
    }

    /// The first `n` columns, each multiplied by its factor.
    pub(super) fn scaled_columns(&self, factors: &[f64]) -> Self {
        let rows = self.values.chunks_exact(self.columns.max(1));
        let scaled = rows.flat_map(|row| row.iter().zip(factors).map(|(value, by)| value * by));
        Self::new(self.rows, factors.len(), scaled.collect())
    }

    /// The values rounded to f32, row by row.
    pub(super) fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }
}

/// Sums that are kept apart, so that a compiler can use vector instructions.
const LANES: usize = 8;

fn dot(left: &[f64], right: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in left.iter().zip(right) {
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum += left * right;
        }
    }
    let rest: f64 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f64>() + rest
}

/// Q and R of a matrix, R with a non-negative diagonal, by Gram–Schmidt done twice (which is
/// orthogonal to rounding). Columns that depend on earlier ones give a zero column of Q.
pub(super) fn qr(matrix: &Matrix) -> (Matrix, Matrix) {
    let (length, n_columns) = (matrix.rows, matrix.columns);
    // Columns are contiguous here.
    let mut basis = matrix.transposed();
    let mut r = Matrix::new(n_columns, n_columns, vec![0.0; n_columns * n_columns]);
    for column in 0..n_columns {
        let (earlier, rest) = basis.values.split_at_mut(column * length);
        let vector = &mut rest[..length];
        let original = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for (index, direction) in earlier.chunks_exact(length.max(1)).enumerate() {
                let share = dot(direction, vector);
                r.values[index * n_columns + column] += share;
                for (value, direction) in vector.iter_mut().zip(direction) {
                    *value -= share * direction;
                }
            }
        }
        let norm = dot(vector, vector).sqrt();
        let negligible = norm <= 1e-13 * original;
        r.values[column * n_columns + column] = if negligible { 0.0 } else { norm };
        for value in vector {
            *value = if negligible { 0.0 } else { *value / norm };
        }
    }
    (basis.transposed(), r)
}

/// A = left · diag(values) · rightᵀ, largest values first.
///
/// The columns of `right` are orthonormal, those of `left` too where their value is not 0; there
/// they are 0.
#[derive(Clone, Debug)]
pub(super) struct Svd {
    /// `[rows, n]`.
    pub(super) left: Matrix,
    /// n values, none negative.
    pub(super) values: Vec<f64>,
    /// `[columns, n]`.
    pub(super) right: Matrix,
}

/// Singular values of a matrix, largest first.
pub(super) fn singular_values(matrix: &Matrix) -> Vec<f64> {
    svd(matrix).values
}

/// Sweeps over all pairs of columns, at most; ten are many.
const MAX_SWEEPS: usize = 60;

/// All singular values and vectors, by one-sided Jacobi rotations: as many as there are columns.
///
/// Source: Hestenes 1958; the rotation of Golub and Van Loan, Matrix Computations, section 8.6.
pub(super) fn svd(matrix: &Matrix) -> Svd {
    let n = matrix.columns;
    let mut work = matrix.transposed();
    let mut right = Matrix::new(n, n, vec![0.0; n * n]);
    for index in 0..n {
        right.values[index * n + index] = 1.0;
    }
    // Columns below rounding of the whole have no direction that could be told from noise.
    let floor = (f64::EPSILON * matrix.energy().sqrt()).powi(2);
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for second in 1..n {
            for first in 0..second {
                rotated |= rotate([&mut work, &mut right], first, second, floor);
            }
        }
        if !rotated {
            break;
        }
    }
    sorted(&work, &right)
}

/// Rows `first` and `second` of a matrix.
fn pair(matrix: &mut Matrix, first: usize, second: usize) -> (&mut [f64], &mut [f64]) {
    let length = matrix.columns;
    let (head, tail) = matrix.values.split_at_mut(second * length);
    (&mut head[first * length..][..length], &mut tail[..length])
}

/// Makes two vectors of the first matrix orthogonal and turns those of the second alike; whether
/// they were not. `first` is below `second`.
fn rotate([work, right]: [&mut Matrix; 2], first: usize, second: usize, floor: f64) -> bool {
    let (a, b) = pair(work, first, second);
    let (alpha, beta, gamma) = (dot(a, a), dot(b, b), dot(a, b));
    if gamma.abs() <= 1e-14 * (alpha * beta).sqrt() || alpha.min(beta) <= floor {
        return false;
    }
    let zeta = (beta - alpha) / (2.0 * gamma);
    let tangent = 1.0f64.copysign(zeta) / (zeta.abs() + zeta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = cosine * tangent;
    turn(a, b, cosine, sine);
    let (a, b) = pair(right, first, second);
    turn(a, b, cosine, sine);
    true
}

fn turn(a: &mut [f64], b: &mut [f64], cosine: f64, sine: f64) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    }
}

/// The decomposition from `work` = (A·V)ᵀ with orthogonal rows and `right` = Vᵀ.
fn sorted(work: &Matrix, right: &Matrix) -> Svd {
    let n = work.rows;
    let length = work.columns.max(1);
    let norms: Vec<f64> = if work.columns == 0 {
        vec![0.0; n]
    } else {
        work.values.chunks_exact(length).map(|vector| dot(vector, vector).sqrt()).collect()
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&one, &other| norms[other].total_cmp(&norms[one]));
    let floor = f64::EPSILON * norms.iter().fold(0.0f64, |most, norm| most.max(*norm));
    let mut left_rows = Vec::with_capacity(work.values.len());
    let mut right_rows = Vec::with_capacity(right.values.len());
    let mut values = Vec::with_capacity(n);
    for index in order {
        let norm = norms[index];
        let share = if norm > floor { 1.0 / norm } else { 0.0 };
        let vector = &work.values[index * work.columns..][..work.columns];
        left_rows.extend(vector.iter().map(|value| value * share));
        right_rows.extend_from_slice(&right.values[index * n..][..n]);
        values.push(norm);
    }
    Svd {
        left: Matrix::new(n, work.columns, left_rows).transposed(),
        values,
        right: Matrix::new(n, n, right_rows).transposed(),
    }
}

/// Directions beyond those asked for, which make the first ones exact sooner.
const OVERSAMPLE: usize = 8;
/// Below this many rows or columns everything is computed.
const SMALL: usize = 48;
/// Passes over the matrix, at most.
const MAX_PASSES: usize = 16;
/// A pass that finds less than this share of the energy was the last.
const SETTLED: f64 = 1e-5;

/// The leading singular values and vectors of a large matrix `[rows, columns]`, at least `rank` of
/// them where the matrix has so many; the rest is left out.
///
/// The products run in f32, everything else in f64. `left` is orthonormal, so the energy that the
/// first values hold is what is kept of the matrix, whether or not the search had settled.
/// `label` keys the random directions in which it starts.
///
/// Source: Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm 4.4 (randomized subspace
/// iteration).
pub(super) fn leading(
    matrix: &[f32],
    [rows, columns]: [usize; 2],
    rank: usize,
    label: &str,
) -> Svd {
    debug_assert_eq!(matrix.len(), rows * columns);
    let n_directions = rank + OVERSAMPLE + rank / 4;
    let smaller = rows.min(columns);
    if smaller <= n_directions.max(SMALL) {
        return whole(&Matrix::from_f32(rows, columns, matrix));
    }
    let mut stream = draws::keyed(0, label);
    let start = draws::normals(&mut stream, columns * n_directions);
    let start = Matrix::from_f32(columns, n_directions, &start);
    let mut basis = qr(&product(matrix, [rows, columns], &start)).0;
    let total = dot_f32(matrix);
    let (mut captured, mut n_passes) = (0.0, 0);
    loop {
        n_passes += 1;
        let (right, core) = qr(&product_of_transpose(matrix, [rows, columns], &basis));
        let now = core.energy();
        if n_passes == MAX_PASSES || now - captured <= SETTLED * total {
            // A ≈ basis · coreᵀ · rightᵀ.
            let Svd { left, values, right: turned } = svd(&core.transposed());
            return Svd { left: basis.times(&left), values, right: right.times(&turned) };
        }
        captured = now;
        basis = qr(&product(matrix, [rows, columns], &right)).0;
    }
}

/// All singular values and vectors: by QR of the longer side, then Jacobi.
fn whole(matrix: &Matrix) -> Svd {
    if matrix.rows < matrix.columns {
        let Svd { left, values, right } = whole(&matrix.transposed());
        return Svd { left: right, values, right: left };
    }
    let (q, r) = qr(matrix);
    let Svd { left, values, right } = svd(&r);
    Svd { left: q.times(&left), values, right }
}

/// The sum of squares, in f64.
pub(super) fn dot_f32(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum()
}

/// Rows of a product that one thread computes together.
const TILE: usize = 64;

/// A·B for A `[rows, columns]`.
fn product(matrix: &[f32], [rows, columns]: [usize; 2], other: &Matrix) -> Matrix {
    let width = other.columns;
    let right = other.to_f32();
    let mut values = vec![0.0f32; rows * width];
    let tiles = values.par_chunks_mut((TILE * width).max(1));
    tiles.zip(matrix.par_chunks((TILE * columns).max(1))).for_each(|(to, from)| {
        let n_rows = to.len() / width;
        gemm(
            (to, Shape::dense(n_rows, width)),
            (from, Shape::dense(n_rows, columns)),
            (&right[..], Shape::dense(columns, width)),
            1.0,
            Into::Replace,
        );
    });
    Matrix::from_f32(rows, width, &values)
}

/// Aᵀ·B for A `[rows, columns]`.
fn product_of_transpose(matrix: &[f32], [rows, columns]: [usize; 2], other: &Matrix) -> Matrix {
    let width = other.columns;
    let right = other.to_f32();
    let mut values = vec![0.0f32; columns * width];
    values.par_chunks_mut((TILE * width).max(1)).enumerate().for_each(|(tile, to)| {
        let n_rows = to.len() / width;
        let from = Shape { rows: n_rows, columns: rows, row_stride: 1, column_stride: columns };
        gemm(
            (to, Shape::dense(n_rows, width)),
            (&matrix[tile * TILE..], from),
            (&right[..], Shape::dense(rows, width)),
            1.0,
            Into::Replace,
        );
    });
    Matrix::from_f32(columns, width, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, columns: usize, seed: u64) -> Matrix {
        let mut stream = draws::keyed(seed, "test");
        Matrix::from_f32(rows, columns, &draws::normals(&mut stream, rows * columns))
    }

    /// A matrix with these singular values and random vectors.
    fn with_values(rows: usize, columns: usize, values: &[f64]) -> Matrix {
        let left = qr(&random(rows, values.len(), 1)).0;
        let right = qr(&random(columns, values.len(), 2)).0;
        left.scaled_columns(values).times(&right.transposed())
    }

    fn distance(left: &Matrix, right: &Matrix) -> f64 {
        let pairs = left.values.iter().zip(&right.values);
        pairs.map(|(left, right)| (left - right).powi(2)).sum::<f64>().sqrt()
    }

    fn again(svd: &Svd) -> Matrix {
        svd.left.scaled_columns(&svd.values).times(&svd.right.transposed())
    }

    fn check_orthonormal(matrix: &Matrix, tolerance: f64) {
        let gram = matrix.transposed().times(matrix);
        for row in 0..gram.rows {
            for column in 0..gram.columns {
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((gram.at(row, column) - expected).abs() < tolerance, "{row} {column}");
            }
        }
    }

    #[test]
    fn singular_values_of_a_known_matrix() {
        // [[3, 0], [4, 5]] has singular values √45 and √5.
        let values = singular_values(&Matrix::new(2, 2, vec![3.0, 0.0, 4.0, 5.0]));
        assert!(
            (values[0] - 45f64.sqrt()).abs() < 1e-12 && (values[1] - 5f64.sqrt()).abs() < 1e-12
        );
    }

    #[test]
    fn q_times_r_is_the_matrix_and_q_is_orthonormal() {
        let matrix = Matrix::new(3, 2, vec![1.0, 2.0, -3.0, 0.5, 2.0, 4.0]);
        let (q, r) = qr(&matrix);
        assert!(distance(&q.times(&r), &matrix) < 1e-12);
        check_orthonormal(&q, 1e-12);
        assert!(r.at(0, 0) > 0.0 && r.at(1, 1) > 0.0 && r.at(1, 0) == 0.0);
    }

    #[test]
    fn a_column_that_depends_on_others_has_no_direction_of_its_own() {
        let matrix = Matrix::new(3, 3, vec![1.0, 2.0, 3.0, 0.0, 1.0, 1.0, 2.0, 4.0, 6.0]);
        let (q, r) = qr(&matrix);
        assert!(distance(&q.times(&r), &matrix) < 1e-12);
        assert!((0..3).all(|row| q.at(row, 2) == 0.0) && r.at(2, 2) == 0.0);
    }

    #[test]
    fn a_decomposition_is_the_matrix_again() {
        for (rows, columns) in [(7, 4), (5, 5), (3, 6)] {
            let matrix = random(rows, columns, 9);
            let found = svd(&matrix);
            assert!(distance(&again(&found), &matrix) < 1e-12, "{rows}x{columns}");
            check_orthonormal(&found.right, 1e-12);
            assert!(found.values.is_sorted_by(|one, other| one >= other));
        }
    }

    #[test]
    fn a_matrix_of_lower_rank_has_zeros_and_ends() {
        let matrix = with_values(40, 30, &[4.0, 2.0, 1.0]);
        let found = svd(&matrix);
        for (found, expected) in found.values.iter().zip([4.0, 2.0, 1.0, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
        assert!(distance(&again(&found), &matrix) < 1e-12);
    }

    #[test]
    fn the_leading_part_of_a_large_matrix_is_the_best_of_its_rank() {
        // Spectra of fine-tunings fall slowly; 1/√k is slower than most.
        let values: Vec<f64> = (1..=90).map(|k| 1.0 / f64::from(k).sqrt()).collect();
        for [rows, columns] in [[200, 120], [120, 200]] {
            let matrix = with_values(rows, columns, &values);
            let found = leading(&matrix.to_f32(), [rows, columns], 6, "test");
            for (found, expected) in found.values.iter().zip(&values[..6]) {
                assert!((found / expected - 1.0).abs() < 1e-3, "{found} instead of {expected}");
            }
            check_orthonormal(&found.left, 1e-6);
            // What is left out is what the other values hold, up to 1 %.
            let kept = Svd {
                left: found.left.scaled_columns(&[1.0; 6]),
                values: found.values[..6].to_vec(),
                right: found.right.scaled_columns(&[1.0; 6]),
            };
            let rest = distance(&again(&kept), &matrix);
            let best = values[6..].iter().map(|value| value * value).sum::<f64>().sqrt();
            assert!(rest < 1.01 * best, "{rest} instead of {best}");
        }
    }

    #[test]
    fn a_large_matrix_of_low_rank_is_found_exactly() {
        let values = [5.0, 3.0, 0.5, 0.01];
        let matrix = with_values(150, 130, &values);
        let found = leading(&matrix.to_f32(), [150, 130], 4, "test");
        for (found, expected) in found.values.iter().zip(&values) {
            assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
        }
        let kept = Svd {
            left: found.left.scaled_columns(&[1.0; 4]),
            values: found.values[..4].to_vec(),
            right: found.right.scaled_columns(&[1.0; 4]),
        };
        assert!(distance(&again(&kept), &matrix) < 1e-5);
    }
}
