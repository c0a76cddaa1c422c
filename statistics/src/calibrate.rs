//! Counts corrected for a classifier that errs: shares on the simplex that explain the observed ones
//! through a confusion matrix, and the two-rate correction of a detector.

use crate::number::real_u64;
use recipes::draws;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A confusion matrix in counts: `counts[i][j]` verified pictures that truly bear `i` and were
/// labelled `j`. Only pictures whose truth is known may enter (rendered, confirmed or hand-labelled).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Confusion {
    /// Entities in the order of rows and columns.
    pub entities: Vec<String>,
    /// Counts; rows are truths.
    pub counts: Vec<Vec<u64>>,
}

/// Fewest verified pictures of an entity for its correction to be believed.
pub const LEAST_VERIFIED: u64 = 20;
/// Largest condition number of a confusion matrix that is still inverted.
pub const LARGEST_CONDITION: f64 = 20.0;

impl Confusion {
    /// M\[j\]\[i\] = P(label j given truth i): columns sum to 1. `None` if an entity has fewer than
    /// [`LEAST_VERIFIED`] pictures.
    pub fn matrix(&self) -> Option<Vec<Vec<f64>>> {
        let k = self.entities.len();
        let totals: Vec<u64> = self.counts.iter().map(|row| row.iter().sum()).collect();
        if totals.iter().any(|&n| n < LEAST_VERIFIED) {
            return None;
        }
        Some(
            (0..k)
                .map(|j| {
                    (0..k).map(|i| real_u64(self.counts[i][j]) / real_u64(totals[i])).collect()
                })
                .collect(),
        )
    }

    /// Position of an entity among rows and columns.
    pub fn place(&self, entity: &str) -> Option<usize> {
        self.entities.iter().position(|other| other == entity)
    }

    /// As many verified pictures per truth, drawn from these with replacement: what another panel
    /// of verified pictures might have counted.
    #[must_use]
    pub fn resampled(&self, stream: &mut draws::Stream) -> Self {
        let redraw = |row: &Vec<u64>| {
            let (n, mut counts) = (row.iter().sum::<u64>(), vec![0; row.len()]);
            for _ in 0..n {
                let mut rest = draws::below(stream, n);
                let label = row.iter().position(|&count| {
                    let found = rest < count;
                    rest = rest.saturating_sub(count);
                    found
                });
                counts[label.unwrap_or(0)] += 1;
            }
            counts
        };
        let counts = self.counts.iter().map(redraw).collect();
        Self { entities: self.entities.clone(), counts }
    }
}

/// argmin over the simplex of ‖M·p − q‖², for `m[j][i]` = P(label j given truth i).
///
/// Projected gradient with Nesterov's momentum, step 1/L with L bounded by the Frobenius norm; stops
/// when p moves by less than 1e-13 or after 20 000 rounds.
pub fn simplex_least_squares(m: &[Vec<f64>], q: &[f64]) -> Vec<f64> {
    let n = q.len();
    let norm: f64 = m.iter().flatten().map(|x| x * x).sum::<f64>().max(1e-12);
    #[expect(clippy::cast_precision_loss, reason = "a handful of entities")]
    let mut p = vec![1.0 / n as f64; n];
    let mut ahead = p.clone();
    let mut momentum = 1.0_f64;
    for _ in 0..20_000 {
        let residual: Vec<f64> = m
            .iter()
            .zip(q)
            .map(|(row, target)| row.iter().zip(&ahead).map(|(a, b)| a * b).sum::<f64>() - target)
            .collect();
        let step: Vec<f64> = (0..n)
            .map(|i| {
                let gradient: f64 = m.iter().zip(&residual).map(|(row, r)| row[i] * r).sum();
                ahead[i] - gradient / norm
            })
            .collect();
        let next = project_to_simplex(&step);
        let faster = f64::midpoint(1.0, (1.0 + 4.0 * momentum * momentum).sqrt());
        let moved = next.iter().zip(&p).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let weight = (momentum - 1.0) / faster;
        ahead = next.iter().zip(&p).map(|(new, old)| new + weight * (new - old)).collect();
        (p, momentum) = (next, faster);
        if moved < 1e-13 {
            break;
        }
    }
    p
}

/// The nearest point of the simplex.
///
/// Source: Duchi, Shalev-Shwartz, Singer & Chandra 2008, figure 1.
fn project_to_simplex(v: &[f64]) -> Vec<f64> {
    let mut sorted = v.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let (mut sum, mut shift, mut count) = (0.0, 0.0, 0.0);
    for value in sorted {
        sum += value;
        count += 1.0;
        let candidate = (sum - 1.0) / count;
        if value - candidate > 0.0 {
            shift = candidate;
        }
    }
    v.iter().map(|value| (value - shift).max(0.0)).collect()
}

/// Ratio of the largest to the smallest singular value of `m`; infinite if it is singular.
///
/// One-sided Jacobi rotations on the columns.
pub fn condition(m: &[Vec<f64>]) -> f64 {
    let n = m.len();
    let mut columns: Vec<Vec<f64>> = (0..n).map(|i| m.iter().map(|row| row[i]).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..60 {
        let mut off: f64 = 0.0;
        for i in 0..n {
            for j in i + 1..n {
                let (aa, bb, ab) = (
                    dot(&columns[i], &columns[i]),
                    dot(&columns[j], &columns[j]),
                    dot(&columns[i], &columns[j]),
                );
                off = off.max(ab.abs() / (aa * bb).sqrt().max(1e-300));
                if ab.abs() < 1e-300 {
                    continue;
                }
                let zeta = (bb - aa) / (2.0 * ab);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let (head, tail) = columns.split_at_mut(j);
                for (x, y) in head[i].iter_mut().zip(&mut tail[0]) {
                    (*x, *y) = (c * *x - c * t * *y, c * t * *x + c * *y);
                }
            }
        }
        if off < 1e-14 {
            break;
        }
    }
    let norms = columns.iter().map(|column| dot(column, column).sqrt());
    let (least, most) =
        norms.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
    if least > most * 1e-15 { most / least } else { f64::INFINITY }
}

/// Rogan–Gladen: (q − fpr)/(tpr − fpr), clipped to \[0, 1\]. `None` if tpr − fpr < .3, where the
/// correction would be mostly noise.
///
/// Source: Rogan & Gladen 1978.
pub fn rogan_gladen(q: f64, tpr: f64, fpr: f64) -> Option<f64> {
    (tpr - fpr >= 0.3).then(|| ((q - fpr) / (tpr - fpr)).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawn::categorical;
    use recipes::draws::Purpose;

    fn diagonal(k: usize) -> Vec<Vec<f64>> {
        (0..k).map(|j| (0..k).map(|i| if i == j { 0.8 } else { 0.05 }).collect()).collect()
    }

    fn apply(m: &[Vec<f64>], p: &[f64]) -> Vec<f64> {
        m.iter().map(|row| row.iter().zip(p).map(|(a, b)| a * b).sum()).collect()
    }

    /// Shares of `n` draws from `p`.
    fn sample(p: &[f64], n: u64, stream: &mut draws::Stream) -> Vec<f64> {
        let mut counts = vec![0_u64; p.len()];
        for _ in 0..n {
            counts[categorical(p, stream)] += 1;
        }
        counts.iter().map(|&c| real_u64(c) / real_u64(n)).collect()
    }

    /// A confusion matrix estimated from `n` pictures per truth.
    fn sample_matrix(m: &[Vec<f64>], n: u64, stream: &mut draws::Stream) -> Vec<Vec<f64>> {
        let k = m.len();
        let columns: Vec<Vec<f64>> = (0..k)
            .map(|i| sample(&m.iter().map(|row| row[i]).collect::<Vec<_>>(), n, stream))
            .collect();
        (0..k).map(|j| (0..k).map(|i| columns[i][j]).collect()).collect()
    }

    /// Of 4,000 redraws of 25 pictures labelled 4:1, the mean is 20 and the variance 25 × 0.8 × 0.2.
    #[test]
    fn a_resampled_row_is_multinomial_and_keeps_its_sum() {
        let entities = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let counts = vec![vec![20, 5, 0], vec![0, 30, 0], vec![0, 0, 7]];
        let confusion = Confusion { entities, counts };
        let mut stream = draws::stream(1, 0, 0, Purpose::Bootstrap);
        let n = 4000.0;
        let (mut sum, mut square) = (0.0, 0.0);
        for _ in 0..4000 {
            let drawn = confusion.resampled(&mut stream);
            assert_eq!(drawn.counts[0].iter().sum::<u64>(), 25);
            assert_eq!(drawn.counts[1..], confusion.counts[1..]);
            assert_eq!(drawn.counts[0][2], 0);
            let x = real_u64(drawn.counts[0][0]);
            (sum, square) = (sum + x, square + x * x);
        }
        let mean = sum / n;
        let variance = square / n - mean * mean;
        assert!((mean - 20.0).abs() < 0.15, "{mean}");
        assert!((variance - 4.0).abs() < 0.4, "{variance}");
    }

    #[test]
    fn exact_confusion_is_undone_exactly() {
        let truth = [0.4, 0.3, 0.2, 0.1, 0.0];
        let found = simplex_least_squares(&diagonal(5), &apply(&diagonal(5), &truth));
        for (a, b) in found.iter().zip(truth) {
            assert!((a - b).abs() < 1e-9, "{found:?}");
        }
        assert!((condition(&diagonal(5)) - 1.0 / 0.75).abs() < 1e-9);
        assert!(condition(&[vec![1.0, 1.0], vec![1.0, 1.0]]).is_infinite());
    }

    #[test]
    fn projection_lands_on_the_simplex() {
        assert_eq!(project_to_simplex(&[2.0, 0.0]), vec![1.0, 0.0]);
        let p = project_to_simplex(&[0.5, 0.5, 0.3]);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((p[0] - 0.4).abs() < 1e-12 && (p[2] - 0.2).abs() < 1e-12);
    }

    #[test]
    fn too_few_verified_pictures_refuse_the_matrix() {
        let mut confusion = Confusion {
            entities: vec!["a".into(), "b".into()],
            counts: vec![vec![18, 2], vec![1, 19]],
        };
        assert!((confusion.matrix().unwrap()[1][0] - 0.1).abs() < 1e-12);
        confusion.counts[1] = vec![1, 18];
        assert_eq!(confusion.matrix(), None);
    }

    /// KAT `quantify`, 300 repetitions: two matrices are unbiased; one shared matrix is not.
    #[test]
    fn each_model_needs_its_own_matrix() {
        let base_matrix = diagonal(5);
        let mut adapted_matrix = diagonal(5);
        for (row, value) in adapted_matrix.iter_mut().zip([0.25, 0.05, 0.50, 0.10, 0.10]) {
            row[2] = value;
        }
        let (p_b, p_a) = ([0.4, 0.3, 0.2, 0.1, 0.0], [0.28, 0.21, 0.14, 0.07, 0.30]);
        let (mut own, mut shared) = ([0.0; 5], [0.0; 5]);
        for repetition in 0..300 {
            let stream = &mut draws::stream(5, repetition, 0, Purpose::Bootstrap);
            let m_b = sample_matrix(&base_matrix, 200, stream);
            let m_a = sample_matrix(&adapted_matrix, 200, stream);
            let q_b = sample(&apply(&base_matrix, &p_b), 4000, stream);
            let q_a = sample(&apply(&adapted_matrix, &p_a), 4000, stream);
            let before = simplex_least_squares(&m_b, &q_b);
            let (two, one) = (simplex_least_squares(&m_a, &q_a), simplex_least_squares(&m_b, &q_a));
            for i in 0..5 {
                own[i] += (two[i] - before[i]) / 300.0;
                shared[i] += (one[i] - before[i]) / 300.0;
            }
        }
        let truth = [-0.12, -0.09, -0.06, -0.03, 0.30];
        for i in 0..5 {
            assert!((own[i] - truth[i]).abs() < 0.007, "own {own:?}");
        }
        assert!(
            (shared[2] + 0.116).abs() < 0.01,
            "a shared matrix must be seen to fail: {shared:?}"
        );
    }

    /// KAT `disobey`, 200 repetitions: asks that were not verified hide a loss of ten pictures in 100.
    #[test]
    fn unverified_asks_hide_the_loss() {
        let errors = diagonal(5);
        let mut obedience: Vec<Vec<f64>> =
            (0..5).map(|j| (0..5).map(|i| if i == j { 1.0 } else { 0.0 }).collect()).collect();
        (obedience[2][2], obedience[4][2]) = (0.5, 0.5);
        let unverified: Vec<Vec<f64>> = (0..5)
            .map(|j| (0..5).map(|i| (0..5).map(|k| errors[j][k] * obedience[k][i]).sum()).collect())
            .collect();
        let (p_b, p_a) = ([0.4, 0.3, 0.2, 0.1, 0.0], [0.32, 0.24, 0.10, 0.08, 0.26]);
        let (mut naive, mut honest) = ([0.0; 5], [0.0; 5]);
        for repetition in 0..200 {
            let stream = &mut draws::stream(6, repetition, 0, Purpose::Bootstrap);
            let verified = sample_matrix(&errors, 300, stream);
            let asked = sample_matrix(&unverified, 300, stream);
            let q_b = sample(&apply(&errors, &p_b), 4000, stream);
            let q_a = sample(&apply(&errors, &p_a), 4000, stream);
            let before = simplex_least_squares(&verified, &q_b);
            let (a, b) =
                (simplex_least_squares(&asked, &q_a), simplex_least_squares(&verified, &q_a));
            for i in 0..5 {
                naive[i] += (a[i] - before[i]) / 200.0;
                honest[i] += (b[i] - before[i]) / 200.0;
            }
        }
        assert!((naive[2] - 0.001).abs() < 0.015 && (naive[4] - 0.158).abs() < 0.015, "{naive:?}");
        assert!((honest[2] + 0.10).abs() < 0.01 && (honest[4] - 0.26).abs() < 0.01, "{honest:?}");
    }

    /// KAT `detector`.
    #[test]
    fn two_rates_correct_a_detector() {
        assert!((rogan_gladen(0.02, 0.92, 0.01).unwrap() - 0.010_989).abs() < 1e-6);
        assert!((rogan_gladen(0.10, 0.92, 0.01).unwrap() - 0.098_901).abs() < 1e-6);
        assert_eq!(rogan_gladen(0.0, 0.92, 0.01), Some(0.0));
        assert_eq!(rogan_gladen(0.1, 0.25, 0.01), None);
        // KAT `bleed`: true rates .9 and .1.
        assert!((rogan_gladen(0.829, 0.92, 0.01).unwrap() - 0.9).abs() < 1e-9);
        assert!((rogan_gladen(0.101, 0.92, 0.01).unwrap() - 0.1).abs() < 1e-9);
    }
}
