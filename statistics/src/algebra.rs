//! Linear algebra in `f64` on lists of rows: products, orthonormal bases, eigenvalues, singular
//! values. Sums run in a fixed order, so that a result has the same bits whatever the threads.

use recipes::draws;

/// Rotations over all pairs after which Jacobi's methods stop at the latest; five to ten suffice.
const SWEEPS: usize = 60;
/// Part of a vector that counts as nothing beside the whole when a basis is built.
const NOTHING: f64 = 1e-10;
/// Steps of [`leading`] beyond two per wanted eigenvalue.
const EXTRA_STEPS: usize = 60;

/// Σ aᵢbᵢ over the length of the shorter, in eight running sums.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().min(b.len());
    let (left, right) = (a[..n].chunks_exact(8), b[..n].chunks_exact(8));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0_f64; 8];
    for (x, y) in left.zip(right) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// √Σ aᵢ².
pub fn norm(a: &[f64]) -> f64 {
    libm::sqrt(dot(a, a))
}

/// `a` divided by its norm; `None` if that is 0 or not a number.
pub fn unit(a: &[f64]) -> Option<Vec<f64>> {
    let length = norm(a);
    (length > 0.0 && length.is_finite()).then(|| a.iter().map(|x| x / length).collect())
}

/// Cosine of the angle between two vectors; `None` if either is 0.
pub fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let lengths = norm(a) * norm(b);
    (lengths > 0.0 && lengths.is_finite()).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0))
}

/// Adds `factor`·`from` to `into`.
pub fn add_scaled(into: &mut [f64], from: &[f64], factor: f64) {
    for (x, y) in into.iter_mut().zip(from) {
        *x += factor * y;
    }
}

/// Orthonormal vectors that span what `vectors` span, by twice repeated Gram–Schmidt; those that
/// depend on earlier ones are left out.
pub fn orthonormal(vectors: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for vector in vectors {
        if let Some(direction) = beyond(&basis, vector) {
            basis.push(direction);
        }
    }
    basis
}

/// The direction of what `vector` holds beyond an orthonormal `basis`; `None` if that is nothing.
fn beyond(basis: &[Vec<f64>], vector: &[f64]) -> Option<Vec<f64>> {
    let whole = norm(vector);
    let mut rest = vector.to_vec();
    // A second pass removes what rounding left of the first.
    for _ in 0..2 {
        for direction in basis {
            let part = dot(direction, &rest);
            add_scaled(&mut rest, direction, -part);
        }
    }
    let length = norm(&rest);
    (length > NOTHING * whole && length.is_finite())
        .then(|| rest.iter().map(|x| x / length).collect())
}

/// Eigenvalues, largest first, with their unit vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// Eigenvalues, falling.
    pub values: Vec<f64>,
    /// `vectors[k]` belongs to `values[k]`; its sign is arbitrary.
    pub vectors: Vec<Vec<f64>>,
}

/// All eigenvalues and eigenvectors of a symmetric matrix, by cyclic Jacobi rotations: for small
/// matrices, since the cost grows with the cube of the side and a large factor.
///
/// Source: Golub & Van Loan, Matrix Computations, section 8.5; agrees with numpy `linalg.eigh`.
pub fn symmetric_eigen(matrix: &[Vec<f64>]) -> Eigen {
    let n = matrix.len();
    let mut a = matrix.to_vec();
    let mut vectors: Vec<Vec<f64>> =
        (0..n).map(|i| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect();
    let size = a.iter().map(|row| dot(row, row)).sum::<f64>();
    for _ in 0..SWEEPS {
        let off: f64 = (0..n).map(|i| dot(&a[i][i + 1..], &a[i][i + 1..])).sum();
        if off <= 1e-30 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    Eigen {
        values: order.iter().map(|&i| a[i][i]).collect(),
        vectors: order.iter().map(|&i| vectors[i].clone()).collect(),
    }
}

/// Turns the plane of `p` < `q` so that `a[p][q]` becomes 0.
fn rotate(a: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    let beside = a[p][q];
    if beside.abs() < f64::MIN_POSITIVE {
        return;
    }
    let theta = (a[q][q] - a[p][p]) / (2.0 * beside);
    let tangent = theta.signum() / (theta.abs() + libm::sqrt(theta * theta + 1.0));
    let cosine = 1.0 / libm::sqrt(tangent * tangent + 1.0);
    let sine = tangent * cosine;
    for row in a.iter_mut() {
        let (x, y) = (row[p], row[q]);
        row[p] = cosine * x - sine * y;
        row[q] = sine * x + cosine * y;
    }
    turn_rows(a, p, q, [cosine, sine]);
    turn_rows(vectors, p, q, [cosine, sine]);
}

/// Replaces rows `p` < `q` by cos·p − sin·q and sin·p + cos·q.
fn turn_rows(rows: &mut [Vec<f64>], p: usize, q: usize, [cosine, sine]: [f64; 2]) {
    let (head, tail) = rows.split_at_mut(q);
    for (x, y) in head[p].iter_mut().zip(tail[0].iter_mut()) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

/// All eigenvalues of a symmetric matrix, largest first, without vectors: Householder reflections to
/// three diagonals, then QL with implicit shifts. Much faster than [`symmetric_eigen`].
///
/// Source: Golub & Van Loan, algorithms 8.3.1 and 8.3.2; agrees with numpy `linalg.eigvalsh`.
pub fn eigenvalues(matrix: &[Vec<f64>]) -> Vec<f64> {
    let (mut diagonal, mut beside) = three_diagonals(matrix);
    implicit_ql(&mut diagonal, &mut beside);
    diagonal.sort_by(|a, b| b.total_cmp(a));
    diagonal
}

/// Diagonal and neighbors (the last is 0) of a matrix with the same eigenvalues and three diagonals.
fn three_diagonals(matrix: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let n = matrix.len();
    let mut a = matrix.to_vec();
    let mut beside = vec![0.0; n];
    for k in 0..n.saturating_sub(2) {
        let mut mirror = a[k][k + 1..].to_vec();
        let length = norm(&mirror);
        // The sign that adds rather than cancels.
        let alpha = if mirror[0] > 0.0 { -length } else { length };
        beside[k] = alpha;
        mirror[0] -= alpha;
        let Some(mirror) = unit(&mirror) else { continue };
        let image: Vec<f64> = a[k + 1..].iter().map(|row| dot(&row[k + 1..], &mirror)).collect();
        let middle = dot(&mirror, &image);
        let across: Vec<f64> = image.iter().zip(&mirror).map(|(x, u)| x - middle * u).collect();
        for (i, row) in a[k + 1..].iter_mut().enumerate() {
            for (j, x) in row[k + 1..].iter_mut().enumerate() {
                *x -= 2.0 * (mirror[i] * across[j] + across[i] * mirror[j]);
            }
        }
    }
    if n >= 2 {
        beside[n - 2] = a[n - 2][n - 1];
    }
    ((0..n).map(|i| a[i][i]).collect(), beside)
}

/// Eigenvalues of three diagonals, into `diagonal`, in no order.
fn implicit_ql(diagonal: &mut [f64], beside: &mut [f64]) {
    let n = diagonal.len();
    let size = diagonal.iter().chain(beside.iter()).fold(0.0_f64, |most, x| most.max(x.abs()));
    // Beside the largest entry a smaller neighbor is rounding, where both its own are near 0.
    let least = 1e-3 * size;
    for first in 0..n {
        for _ in 0..SWEEPS {
            let split = (first..n - 1).find(|&m| {
                let near = (diagonal[m].abs() + diagonal[m + 1].abs()).max(least);
                beside[m].abs() <= f64::EPSILON * near
            });
            let last = split.unwrap_or(n - 1);
            if last == first {
                break;
            }
            shifted_step(diagonal, beside, first, last);
        }
    }
}

/// One implicit QL step on the block from `first` to `last`.
fn shifted_step(diagonal: &mut [f64], beside: &mut [f64], first: usize, last: usize) {
    let half = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
    let root = libm::hypot(half, 1.0);
    let mut along = diagonal[last] - diagonal[first] + beside[first] / (half + root.copysign(half));
    let (mut sine, mut cosine, mut moved) = (1.0, 1.0, 0.0);
    for i in (first..last).rev() {
        let (across, below) = (sine * beside[i], cosine * beside[i]);
        let root = libm::hypot(across, along);
        beside[i + 1] = root;
        if root <= 0.0 {
            diagonal[i + 1] -= moved;
            beside[last] = 0.0;
            return;
        }
        sine = across / root;
        cosine = along / root;
        let rest = diagonal[i + 1] - moved;
        let turned = (diagonal[i] - rest) * sine + 2.0 * cosine * below;
        moved = sine * turned;
        diagonal[i + 1] = rest + moved;
        along = cosine * turned - below;
    }
    diagonal[first] -= moved;
    beside[first] = along;
    beside[last] = 0.0;
}

/// The `count` largest eigenvalues, in the algebraic sense, of a symmetric operator on `width`
/// numbers, with their vectors: the matrix is never written down.
///
/// Orthogonal iteration on a growing (Krylov) basis with full reorthogonalization and one
/// Rayleigh–Ritz projection at the end. Of an eigenvalue that stands several times it may find one
/// vector only. Leading values that stand apart from the rest are exact to rounding; those within a
/// crowd are approached from below.
///
/// Source: Saad, Numerical Methods for Large Eigenvalue Problems, chapter 6.
pub fn leading(width: usize, count: usize, apply: &dyn Fn(&[f64]) -> Vec<f64>) -> Eigen {
    let mut stream = draws::keyed(0, "statistics.algebra.leading");
    let (mut basis, mut images): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
    let mut candidate = random(&mut stream, width);
    for _ in 0..width.min(2 * count + EXTRA_STEPS) {
        // Where the basis is closed under the operator, it goes on from a random direction.
        let next =
            beyond(&basis, &candidate).or_else(|| beyond(&basis, &random(&mut stream, width)));
        let Some(direction) = next else { break };
        let image = apply(&direction);
        candidate.clone_from(&image);
        basis.push(direction);
        images.push(image);
    }
    let product =
        |i: usize, j: usize| f64::midpoint(dot(&basis[i], &images[j]), dot(&basis[j], &images[i]));
    let n = basis.len();
    let small: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| product(i, j)).collect()).collect();
    let eigen = symmetric_eigen(&small);
    let lifted = |coordinates: &Vec<f64>| {
        let mut vector = vec![0.0; width];
        for (factor, direction) in coordinates.iter().zip(&basis) {
            add_scaled(&mut vector, direction, *factor);
        }
        vector
    };
    Eigen {
        values: eigen.values.iter().take(count).copied().collect(),
        vectors: eigen.vectors.iter().take(count).map(lifted).collect(),
    }
}

fn random(stream: &mut draws::Stream, width: usize) -> Vec<f64> {
    draws::normals(stream, width).into_iter().map(f64::from).collect()
}

/// Singular values of a matrix, largest first, as many as its shorter side: one-sided Jacobi
/// rotations of its rows, exact to rounding even where small.
///
/// Source: Hestenes 1958; agrees with numpy `linalg.svd`.
pub fn singular_values(matrix: &[Vec<f64>]) -> Vec<f64> {
    let mut rows = matrix.to_vec();
    let shorter = rows.len().min(rows.first().map_or(0, Vec::len));
    for _ in 0..SWEEPS {
        let mut turned = 0.0_f64;
        for p in 0..rows.len() {
            for q in p + 1..rows.len() {
                turned = turned.max(orthogonalize(&mut rows, p, q));
            }
        }
        if turned < 1e-15 {
            break;
        }
    }
    let mut values: Vec<f64> = rows.iter().map(|row| norm(row)).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values.truncate(shorter);
    values
}

/// Turns rows `p` < `q` in their plane until they are orthogonal; the cosine they had before.
fn orthogonalize(rows: &mut [Vec<f64>], p: usize, q: usize) -> f64 {
    let (own, other) = (dot(&rows[p], &rows[p]), dot(&rows[q], &rows[q]));
    let both = dot(&rows[p], &rows[q]);
    let lengths = libm::sqrt(own) * libm::sqrt(other);
    if both.abs() <= f64::MIN_POSITIVE || lengths <= f64::MIN_POSITIVE {
        return 0.0;
    }
    let theta = (other - own) / (2.0 * both);
    let tangent = theta.signum() / (theta.abs() + libm::sqrt(theta * theta + 1.0));
    let cosine = 1.0 / libm::sqrt(tangent * tangent + 1.0);
    turn_rows(rows, p, q, [cosine, tangent * cosine]);
    both.abs() / lengths
}

/// Principal angles between the spans of `a` and of `b`, in radians within [0, π/2], rising; as many
/// as the smaller span has dimensions. Angles below 1e-7 are rounding.
///
/// Source: Björck & Golub 1973; agrees with scipy `linalg.subspace_angles`.
pub fn principal_angles(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<f64> {
    let (a, b) = (orthonormal(a), orthonormal(b));
    let products: Vec<Vec<f64>> = a.iter().map(|x| b.iter().map(|y| dot(x, y)).collect()).collect();
    singular_values(&products).iter().map(|cosine| libm::acos(cosine.clamp(0.0, 1.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Vec<f64>> {
        vec![
            vec![4.0, 1.0, -2.0, 0.5],
            vec![1.0, 2.0, 0.0, 1.0],
            vec![-2.0, 0.0, 3.0, -1.0],
            vec![0.5, 1.0, -1.0, 1.0],
        ]
    }

    fn symmetric(n: usize, seed: u64) -> Vec<Vec<f64>> {
        let numbers = random(&mut draws::stream(seed, 0, 0, draws::Purpose::Noise), n * n);
        let at = |i: usize, j: usize| f64::midpoint(numbers[i * n + j], numbers[j * n + i]);
        (0..n).map(|i| (0..n).map(|j| at(i, j)).collect()).collect()
    }

    fn product(matrix: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
        matrix.iter().map(|row| dot(row, x)).collect()
    }

    #[test]
    fn eigenvalues_of_the_known_matrix_agree_with_numpy() {
        // numpy.linalg.eigh
        let values = [6.020_922_699_440, 2.351_005_424_946, 1.649_486_212_558, -0.021_414_336_944];
        let vector = [0.746_002_154_8, 0.244_463_795_3, -0.572_332_479_355, 0.236_967_868_911];
        let eigen = symmetric_eigen(&known());
        let plain = eigenvalues(&known());
        for k in 0..4 {
            assert!((eigen.values[k] - values[k]).abs() < 1e-11, "{eigen:?}");
            assert!((plain[k] - values[k]).abs() < 1e-11, "{plain:?}");
            let sign = eigen.vectors[0][0].signum();
            assert!((sign * eigen.vectors[0][k] - vector[k]).abs() < 1e-9, "{eigen:?}");
        }
    }

    #[test]
    fn three_ways_find_the_same_eigenvalues() {
        let matrix = symmetric(90, 4);
        let jacobi = symmetric_eigen(&matrix);
        let plain = eigenvalues(&matrix);
        let few = leading(90, 3, &|x| product(&matrix, x));
        for (a, b) in jacobi.values.iter().zip(&plain) {
            assert!((a - b).abs() < 1e-10, "{a} {b}");
        }
        for k in 0..3 {
            assert!((few.values[k] - plain[k]).abs() < 1e-8, "{:?} {:?}", few.values, &plain[..3]);
            assert!(dot(&few.vectors[k], &jacobi.vectors[k]).abs() > 1.0 - 1e-6);
        }
        for (value, vector) in jacobi.values.iter().zip(&jacobi.vectors) {
            let mut image = product(&matrix, vector);
            add_scaled(&mut image, vector, -value);
            assert!(norm(&image) < 1e-9);
        }
    }

    #[test]
    fn the_leading_value_is_the_largest_not_the_strongest() {
        let diagonal = [-5.0, 0.25, 1.5, -0.5, 0.125, 0.0];
        let apply =
            |x: &[f64]| -> Vec<f64> { diagonal.iter().zip(x).map(|(d, x)| d * x).collect() };
        let few = leading(6, 2, &apply);
        assert!((few.values[0] - 1.5).abs() < 1e-12 && (few.values[1] - 0.25).abs() < 1e-12);
        assert!((few.vectors[0][2].abs() - 1.0).abs() < 1e-9);
        // Nothing is larger than nothing: a zero operator closes every basis at once.
        let nothing = leading(5, 2, &|x| vec![0.0; x.len()]);
        assert_eq!(nothing.values, vec![0.0, 0.0]);
        assert!((norm(&nothing.vectors[1]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn deficient_and_empty_matrices_have_their_eigenvalues() {
        let ones = vec![vec![1.0; 30]; 30];
        let values = eigenvalues(&ones);
        assert!((values[0] - 30.0).abs() < 1e-12);
        assert!(values[1..].iter().all(|x| x.abs() < 1e-12), "{values:?}");
        assert!(eigenvalues(&[]).is_empty() && symmetric_eigen(&[]).values.is_empty());
        assert_eq!(eigenvalues(&[vec![3.0]]), vec![3.0]);
        let two = eigenvalues(&[vec![2.0, 1.0], vec![1.0, 2.0]]);
        assert!((two[0] - 3.0).abs() < 1e-12 && (two[1] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn singular_values_and_angles_agree_with_numpy_and_scipy() {
        let values = singular_values(&[vec![1.0, 2.0, 0.0], vec![0.0, 1.0, -1.0]]);
        assert!((values[0] - 2.449_489_742_783).abs() < 1e-11 && (values[1] - 1.0).abs() < 1e-11);
        // scipy.linalg.subspace_angles
        let a = [vec![1.0, 0.0, 0.0, 0.0], vec![0.0, 1.0, 0.0, 0.0]];
        let b = [vec![1.0, 0.0, 1.0, 0.0], vec![0.0, 2.0, 0.0, 1.0]];
        let angles = principal_angles(&a, &b);
        assert!((angles[0] - 0.463_647_609_001).abs() < 1e-11, "{angles:?}");
        assert!((angles[1] - std::f64::consts::FRAC_PI_4).abs() < 1e-11, "{angles:?}");
        // A line has one angle with a plane.
        assert_eq!(principal_angles(&a[..1], &b).len(), 1);
    }

    #[test]
    fn a_dependent_vector_adds_nothing_to_a_basis() {
        let basis = orthonormal(&[
            vec![3.0, 0.0, 4.0],
            vec![-6.0, 0.0, -8.0],
            vec![0.0; 3],
            vec![1.0, 1.0, 1.0],
        ]);
        assert_eq!(basis.len(), 2);
        assert!(dot(&basis[0], &basis[1]).abs() < 1e-15);
        assert!((norm(&basis[1]) - 1.0).abs() < 1e-15);
        assert_eq!(unit(&[0.0, 0.0]), None);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 0.0]), None);
    }

    #[test]
    fn products_take_every_term_whatever_the_length() {
        for n in 0..20 {
            let a: Vec<f64> = (0..n).map(f64::from).collect();
            let exact: f64 = (0..n).map(|i| f64::from(i * i)).sum();
            assert!((dot(&a, &a) - exact).abs() < 1e-12, "{n}");
        }
        assert!((dot(&[1.0, 2.0], &[3.0]) - 3.0).abs() < 1e-15);
    }
}
