//! The few decompositions that adapters need, on small dense matrices in f64.

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
        for row in 0..self.rows {
            for inner in 0..self.columns {
                let factor = self.at(row, inner);
                for column in 0..other.columns {
                    values[row * other.columns + column] += factor * other.at(inner, column);
                }
            }
        }
        Self::new(self.rows, other.columns, values)
    }

    fn column(&self, column: usize) -> Vec<f64> {
        (0..self.rows).map(|row| self.at(row, column)).collect()
    }

    fn set_column(&mut self, column: usize, values: &[f64]) {
        for (row, value) in values.iter().enumerate() {
            self.values[row * self.columns + column] = *value;
        }
    }
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// Q and R of a tall matrix, R with a non-negative diagonal, by Gram–Schmidt done twice (which is
/// orthogonal to rounding). Columns that depend on earlier ones give a zero column of Q.
pub(super) fn qr(matrix: &Matrix) -> (Matrix, Matrix) {
    let n_columns = matrix.columns;
    let mut q = matrix.clone();
    let mut r = Matrix::new(n_columns, n_columns, vec![0.0; n_columns * n_columns]);
    for column in 0..n_columns {
        let original = matrix.column(column);
        let mut values = original.clone();
        for _ in 0..2 {
            for earlier in 0..column {
                let basis = q.column(earlier);
                let share = dot(&basis, &values);
                r.values[earlier * n_columns + column] += share;
                for (value, basis) in values.iter_mut().zip(&basis) {
                    *value -= share * basis;
                }
            }
        }
        let norm = dot(&values, &values).sqrt();
        let negligible = norm <= 1e-13 * dot(&original, &original).sqrt();
        r.values[column * n_columns + column] = if negligible { 0.0 } else { norm };
        for value in &mut values {
            *value = if negligible { 0.0 } else { *value / norm };
        }
        q.set_column(column, &values);
    }
    (q, r)
}

/// Singular values of a square matrix, largest first, by one-sided Jacobi rotations.
pub(super) fn singular_values(matrix: &Matrix) -> Vec<f64> {
    let mut work = matrix.clone();
    for _ in 0..60 {
        let mut rotated = false;
        for left in 0..work.columns {
            for right in left + 1..work.columns {
                rotated |= rotate(&mut work, left, right);
            }
        }
        if !rotated {
            break;
        }
    }
    let norm = |column| {
        let values = work.column(column);
        dot(&values, &values).sqrt()
    };
    let mut values: Vec<f64> = (0..work.columns).map(norm).collect();
    values.sort_by(|left, right| right.total_cmp(left));
    values
}

/// Makes two columns orthogonal; whether they were not.
fn rotate(work: &mut Matrix, left: usize, right: usize) -> bool {
    let (a, b) = (work.column(left), work.column(right));
    let (alpha, beta, gamma) = (dot(&a, &a), dot(&b, &b), dot(&a, &b));
    if gamma.abs() <= 1e-15 * (alpha * beta).sqrt() || gamma == 0.0 {
        return false;
    }
    let zeta = (beta - alpha) / (2.0 * gamma);
    let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
    let tangent = if zeta == 0.0 { 1.0 } else { tangent };
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    let sine = cosine * tangent;
    let new_left: Vec<f64> = a.iter().zip(&b).map(|(a, b)| cosine * a - sine * b).collect();
    let new_right: Vec<f64> = a.iter().zip(&b).map(|(a, b)| sine * a + cosine * b).collect();
    work.set_column(left, &new_left);
    work.set_column(right, &new_right);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (found, expected) in q.times(&r).values.iter().zip(&matrix.values) {
            assert!((found - expected).abs() < 1e-12);
        }
        let gram = q.transposed().times(&q);
        assert!((gram.at(0, 0) - 1.0).abs() < 1e-12 && gram.at(0, 1).abs() < 1e-12);
        assert!(r.at(0, 0) > 0.0 && r.at(1, 1) > 0.0);
    }
}
