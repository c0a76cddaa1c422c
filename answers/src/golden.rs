//! Figures of `statistics` beside those of scipy, statsmodels, scikit-bio and scikit-learn, which
//! `scripts/golden/census/make.py` wrote down.

use serde_json::Value;
use statistics::agreement::cohen_kappa;
use statistics::algebra::{cosine, principal_angles, singular_values};
use statistics::calibrate::{condition, simplex_least_squares};
use statistics::contingency::disagreement;
use statistics::depopulation::{displaced, effective, evenness_loss, kl, split};
use statistics::diversity::{chao_shen, good_turing, hill, miller_madow, plug_in_entropy};
use statistics::dose::isotonic;
use statistics::drawn::labels_of;
use statistics::interval::{
    benjamini_hochberg, bhapkar, chi_square_survival, mcnemar, normal_quantile, stuart_maxwell,
    wilson,
};
use statistics::kernel::{gini, vendi};
use statistics::number::real_u64;
use statistics::permanova::{permanova, silhouette};
use statistics::ranks::{auc, average_ranks, spearman};
use statistics::{algebra, mantel};

/// The cases of one file.
fn cases(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect()
}

/// Equal up to a billionth of the larger of 1 and the value.
fn check(what: &str, found: f64, expected: f64) {
    let tolerance = 1e-9 * expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance, "{what}: {found} instead of {expected}");
}

fn check_all(what: &str, found: &[f64], expected: &Value) {
    let expected = numbers(expected);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        check(&format!("{what} {i}"), *found, *expected);
    }
}

#[test]
fn tests_of_paired_tables_agree_with_statsmodels() {
    let cases = cases(include_str!("../../scripts/golden/census/tables.json"));
    assert_eq!(cases.len(), 5);
    for case in &cases {
        let table: Vec<Vec<u64>> = case["table"].as_array().unwrap().iter().map(counts).collect();
        let n: u64 = table.iter().flatten().sum();
        let test = stuart_maxwell(&table).unwrap();
        let found = [test.statistic, real_u64(test.df as u64), test.p];
        check_all("Stuart–Maxwell", &found, &case["stuart_maxwell"]);
        let wider = bhapkar(test, n).unwrap();
        check("Bhapkar", wider.statistic, number(&case["bhapkar"]));
        check("Bhapkar p", wider.p, number(&case["bhapkar_p"]));
        let shares = labels_of(&table).shares(None);
        check_all("Δ", &shares.delta(), &case["delta"]);
        check_all("error", &shares.delta_error, &case["error"]);
        let pairs = table.iter().enumerate().map(|(i, cells)| {
            let row: u64 = cells.iter().sum();
            let column: u64 = table.iter().map(|others| others[i]).sum();
            mcnemar(row - cells[i], column - cells[i])
        });
        let (exact, mid): (Vec<f64>, Vec<f64>) = pairs.map(|test| (test.exact, test.mid)).unzip();
        check_all("McNemar", &exact, &case["mcnemar"]);
        check_all("mid-p", &mid, &case["mid_p"]);
        check_all("q", &benjamini_hochberg(&exact), &case["q"]);
        let parts = disagreement(&table).unwrap();
        check("quantity", parts.quantity, number(&case["quantity"]));
        check("exchange", parts.exchange, number(&case["exchange"]));
        check("shift", parts.shift, number(&case["shift"]));
    }
}

#[test]
fn entropies_and_hill_numbers_agree_with_scikit_bio() {
    for case in cases(include_str!("../../scripts/golden/census/diversity.json")) {
        let counts = counts(&case["counts"]);
        let n = real_u64(counts.iter().sum());
        let shares: Vec<f64> = counts.iter().map(|&count| real_u64(count) / n).collect();
        check("entropy", plug_in_entropy(&counts), number(&case["entropy"]));
        check("Miller–Madow", miller_madow(&counts), number(&case["miller_madow"]));
        check("Chao–Shen", chao_shen(&counts), number(&case["chao_shen"]));
        check("coverage", good_turing(&counts), number(&case["coverage"]));
        check_all("Hill", &[0.0, 1.0, 2.0].map(|q| hill(&shares, q)), &case["hill"]);
    }
}

#[test]
fn the_parts_of_a_change_agree_with_scipy() {
    for case in cases(include_str!("../../scripts/golden/census/changes.json")) {
        let (before, after) = (numbers(&case["before"]), numbers(&case["after"]));
        let new = before.len() - 1;
        let residents: Vec<bool> = (0..before.len()).map(|i| i != new).collect();
        let parts = split(&before, &after, Some(new));
        check("KL", kl(&before, &after), number(&case["kl"]));
        check("dilution", parts.dilution, number(&case["dilution"]));
        check("selection", parts.selection, number(&case["selection"]));
        check("JS dilution", parts.js_dilution, number(&case["js_dilution"]));
        check("JS selection", parts.js_selection, number(&case["js_selection"]));
        let coefficients: Vec<f64> = parts.coefficients.into_iter().flatten().collect();
        check_all("coefficient", &coefficients, &case["coefficients"]);
        check_all("Hill before", &effective(&before, &residents), &case["hill_before"]);
        check_all("Hill after", &effective(&after, &residents), &case["hill_after"]);
        let lost = displaced(&before, &after, &residents);
        check("displaced", lost, number(&case["displaced"]));
        let loss = evenness_loss(&before, &after, &residents);
        check("evenness loss", loss, number(&case["evenness_loss"]));
    }
}

#[test]
fn mantel_and_permanova_agree_with_scikit_bio() {
    for case in cases(include_str!("../../scripts/golden/census/distances.json")) {
        let (points, tree) = (rows(&case["points"]), rows(&case["tree"]));
        let groups: Vec<usize> = counts(&case["groups"]).iter().map(|&g| g as usize).collect();
        let distance = |a: &Vec<f64>, b: &Vec<f64>| {
            algebra::norm(&a.iter().zip(b).map(|(x, y)| x - y).collect::<Vec<f64>>())
        };
        let images: Vec<Vec<f64>> =
            points.iter().map(|a| points.iter().map(|b| distance(a, b)).collect()).collect();
        check("ρ", mantel::rho(&tree, &images).unwrap(), number(&case["rho"]));
        let found = permanova(&images, &groups).unwrap();
        for (what, found) in
            [("f", found.f), ("r2", found.r2), ("sst", found.sst), ("ssw", found.ssw)]
        {
            check(what, found, number(&case[what]));
        }
        let score = silhouette(&images, &groups).unwrap();
        check("silhouette", score, number(&case["silhouette"]));
    }
}

#[test]
fn kernels_and_angles_agree_with_numpy_and_scipy() {
    for case in cases(include_str!("../../scripts/golden/census/kernels.json")) {
        let (own, others) = (rows(&case["rows"]), rows(&case["others"]));
        let similarities: Vec<Vec<f64>> =
            own.iter().map(|a| own.iter().map(|b| cosine(a, b).unwrap()).collect()).collect();
        check_all("Vendi", &vendi(&similarities).unwrap(), &case["vendi"]);
        check_all("singular value", &singular_values(&own), &case["singular_values"]);
        check_all("angle", &principal_angles(&own[..2], &others[..2]), &case["angles"]);
        check("Gini", gini(&counts(&case["counts"])).unwrap(), number(&case["gini"]));
    }
}

#[test]
fn ranks_and_agreement_agree_with_scipy_and_scikit_learn() {
    for case in cases(include_str!("../../scripts/golden/census/ranks.json")) {
        let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
        check_all("rank", &average_ranks(&x), &case["ranks"]);
        check("Spearman", spearman(&x, &y).unwrap(), number(&case["spearman"]));
        check("AUC", auc(&y, &x).unwrap(), number(&case["auc"]));
        check_all("isotonic", &isotonic(&y), &case["isotonic"]);
        let labels: Vec<Vec<u16>> = case["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|list| counts(list).iter().map(|&label| label as u16).collect())
            .collect();
        check("κ", cohen_kappa(&labels[0], &labels[1]).unwrap(), number(&case["kappa"]));
    }
}

#[test]
fn corrected_shares_agree_with_scipy() {
    for case in cases(include_str!("../../scripts/golden/census/corrections.json")) {
        let (matrix, q) = (rows(&case["matrix"]), numbers(&case["q"]));
        check_all("share", &simplex_least_squares(&matrix, &q), &case["shares"]);
        check("condition", condition(&matrix), number(&case["condition"]));
    }
}

#[test]
fn tails_quantiles_and_intervals_agree_with_scipy_and_statsmodels() {
    for case in cases(include_str!("../../scripts/golden/census/laws.json")) {
        for row in rows(&case["chi2"]) {
            check("χ²", chi_square_survival(row[0], row[1] as usize), row[2]);
        }
        for row in rows(&case["normal"]) {
            check("normal", normal_quantile(row[0]), row[1]);
        }
        for row in rows(&case["wilson"]) {
            let found = wilson(row[0] as usize, row[1] as usize);
            check("Wilson, low", found[0], row[2]);
            check("Wilson, high", found[1], row[3]);
        }
    }
}
