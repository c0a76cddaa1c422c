"""What scipy, statsmodels, scikit-bio and scikit-learn compute from small inputs: tests of marginals,
entropies, distances, kernels and corrections. Read by the tests of `answers`.

    .venv/bin/pip install -r scripts/golden/census/requirements.txt
    .venv/bin/python scripts/golden/census/make.py

Inputs are short decimals and whole numbers from fixed seeds, so that a file says all that went in.
"""

import importlib.metadata
import json
import platform
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import linalg, optimize, stats
from scipy.spatial.distance import cdist, jensenshannon
from skbio.diversity.alpha import goods_coverage, hill, shannon
from skbio.stats.distance import DistanceMatrix, mantel, permanova
from sklearn.metrics import cohen_kappa_score, silhouette_score
from statsmodels.stats.contingency_tables import SquareTable, mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

HERE = Path(__file__).resolve().parent
PACKAGES = ("numpy", "scipy", "statsmodels", "scikit-bio", "scikit-learn")
LIMIT_BYTES = 100_000


def plain(value):
    """Numbers as JSON has them, with the digits that double precision holds."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(entry) for entry in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        if not np.isfinite(value):
            raise SystemExit(f"{value} is not finite")
        return float(f"{value:.15g}")
    return value


def save(name, cases):
    text = "[\n" + ",\n".join(json.dumps(plain(case)) for case in cases) + "\n]\n"
    if len(text) > LIMIT_BYTES:
        raise SystemExit(f"{name}: {len(text)} bytes, the limit is {LIMIT_BYTES}")
    (HERE / name).write_text(text)
    print(f"  {name}: {len(cases)} cases, {len(text)} bytes")


def mid_p(b, c):
    """Two-sided exact p less the probability of the observed outcome."""
    n, least = b + c, min(b, c)
    if n == 0:
        return 1.0
    return min(1.0, 2 * stats.binom.cdf(least, n, 0.5) - stats.binom.pmf(least, n, 0.5))


def table_case(table):
    """Marginal tests of one table, rows base, columns adapted; empty categories left out of them."""
    table = np.asarray(table)
    rows, columns, kept = table.sum(1), table.sum(0), np.diag(table)
    moved = rows + columns > 2 * kept
    square = SquareTable(table[np.ix_(moved, moved)].astype(float), shift_zeros=False)
    stuart, bhapkar = (square.homogeneity(method=m) for m in ("stuart_maxwell", "bhapkar"))
    # What rests in a category that nobody left or entered counts among the pairs of Bhapkar's test.
    n, lost, gained = table.sum(), rows - kept, columns - kept
    whole = stuart.statistic / (1 - stuart.statistic / n)
    if moved.all() and abs(whole - bhapkar.statistic) > 1e-9 * whole:
        raise SystemExit("Bhapkar's test is not Stuart and Maxwell's, rescaled")
    delta = (columns - rows) / n
    variance = np.maximum((lost + gained) / n - delta**2, 1 / n**2) / n
    pairs = list(zip(lost.tolist(), gained.tolist()))
    exact = [mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1.0 for b, c in pairs]
    quantity = np.abs(delta).sum() / 2
    exchange = sum(2 * min(table[i, j], table[j, i]) for i, j in combinations(range(len(table)), 2)) / n
    return {
        "table": table,
        "stuart_maxwell": [stuart.statistic, stuart.df, stuart.pvalue],
        "bhapkar": whole,
        "bhapkar_p": stats.chi2.sf(whole, stuart.df),
        "delta": delta,
        "error": np.sqrt(variance),
        "mcnemar": exact,
        "mid_p": [mid_p(b, c) for b, c in pairs],
        "q": multipletests(exact, method="fdr_bh")[1],
        "quantity": quantity,
        "exchange": exchange,
        "shift": 1 - kept.sum() / n - quantity - exchange,
    }


def tables():
    cases = [table_case([[40, 5, 0, 2], [3, 30, 1, 4], [0, 0, 25, 6], [0, 0, 0, 10]])]
    for seed, size, strength in ((1, 3, 0.3), (2, 6, 0.4), (3, 9, 0.2)):
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.ones(size))
        law = (1 - strength) * np.diag(shares) + strength * np.outer(shares, rng.dirichlet(np.ones(size)))
        cases.append(table_case(rng.multinomial(400, law.ravel()).reshape(size, size)))
    still = np.zeros((5, 5), dtype=int)
    still[:4, :4] = [[20, 3, 0, 1], [1, 30, 0, 4], [0, 0, 12, 0], [2, 0, 0, 25]]
    cases.append(table_case(still))
    return cases


def chao_shen(counts):
    counts = np.asarray(counts, float)
    counts = counts[counts > 0]
    n = counts.sum()
    share = goods_coverage(counts.astype(int)) * counts / n
    return -(share * np.log(share) / (1 - (1 - share) ** n)).sum()


def diversity():
    cases = []
    for seed, size, n in ((4, 6, 60), (5, 40, 500), (6, 200, 500)):
        rng = np.random.default_rng(seed)
        law = 1 / np.arange(1, size + 1)
        counts = rng.multinomial(n, law / law.sum())
        seen = np.count_nonzero(counts)
        cases.append(
            {
                "counts": counts,
                "entropy": shannon(counts),
                "miller_madow": shannon(counts) + (seen - 1) / (2 * n),
                "chao_shen": chao_shen(counts),
                "coverage": goods_coverage(counts),
                "hill": [hill(counts, order=q) for q in (0, 1, 2)],
            }
        )
    return cases


def changes():
    """Shares before and after; the last category is the newcomer."""
    before_after = [
        ([0.35, 0.25, 0.20, 0.15, 0.05, 0.0], [0.28, 0.20, 0.08, 0.20, 0.04, 0.20]),
        ([0.30, 0.25, 0.20, 0.15, 0.05, 0.05], [0.25, 0.20, 0.08, 0.18, 0.04, 0.25]),
        ([0.05, 0.4, 0.3, 0.05, 0.1, 0.1], [0.2, 0.1, 0.25, 0.05, 0.05, 0.35]),
    ]
    cases = []
    for before, after in before_after:
        p, q = np.array(before), np.array(after)
        a, new = p[-1], q[-1]
        rest, left = p[:-1] / (1 - a), q[:-1] / (1 - new)
        dilution = stats.entropy([a, 1 - a], [new, 1 - new])
        selection = (1 - a) * stats.entropy(rest, left)
        whole = jensenshannon(p, q) ** 2
        js_dilution = jensenshannon([a, 1 - a], [new, 1 - new]) ** 2
        if abs(dilution + selection - stats.entropy(p, q)) > 1e-12:
            raise SystemExit("the parts of KL do not add up")
        # Hill numbers of skbio count whole numbers: shares in hundredths are exact.
        hundredths = [np.round(100 * x[:-1]).astype(int) for x in (p, q)]
        effective = [[hill(x, order=k) for k in (0, 1, 2)] for x in hundredths]
        cases.append(
            {
                "before": before,
                "after": after,
                "kl": stats.entropy(p, q),
                "dilution": dilution,
                "selection": selection,
                "js_dilution": js_dilution,
                "js_selection": whole - js_dilution,
                "coefficients": np.log(left / rest),
                "hill_before": effective[0],
                "hill_after": effective[1],
                "displaced": np.maximum(0, p[:-1] - q[:-1]).sum(),
                "evenness_loss": 1 - effective[1][1] / effective[0][1],
            }
        )
    return cases


def euclid(points):
    return cdist(points, points)


def distances():
    cases = []
    known = np.array([[0, 0], [1, 0], [0, 1], [4, 4], [5, 4], [4, 5.5]])
    for seed, n in ((None, 6), (7, 9), (8, 12)):
        rng = np.random.default_rng(seed)
        points = known if seed is None else rng.normal(size=(n, 3)).round(2)
        groups = np.arange(n) // 3
        tree = np.where(groups[:, None] == groups, 2.0, 4.0)
        np.fill_diagonal(tree, 0)
        images, split = DistanceMatrix(euclid(points)), groups % 2 if seed else groups
        rho, _, _ = mantel(DistanceMatrix(tree), images, method="spearman", permutations=0)
        found = permanova(images, list(split), permutations=99, seed=1)
        square = images.data**2
        sst = square[np.triu_indices(n, 1)].sum() / n
        within = [square[np.ix_(split == g, split == g)].sum() / 2 / (split == g).sum() for g in set(split)]
        f, n_groups, ssw = found["test statistic"], len(within), sum(within)
        if abs((sst - ssw) / (n_groups - 1) / (ssw / (n - n_groups)) / f - 1) > 1e-9:
            raise SystemExit("pseudo-F is not the one of the sums of squares")
        cases.append(
            {
                "points": points,
                "tree": tree,
                "groups": split,
                "rho": rho,
                "f": f,
                "r2": 1 - ssw / sst,
                "sst": sst,
                "ssw": ssw,
                "silhouette": silhouette_score(images.data, split, metric="precomputed"),
            }
        )
    return cases


def kernels():
    """Unit rows: Vendi scores, singular values, principal angles; counts: Gini."""
    cases = []
    for seed, n, width in ((9, 6, 5), (10, 8, 6)):
        rng = np.random.default_rng(seed)
        rows, others = (rng.normal(size=(n, width)).round(2) for _ in range(2))
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        shares = np.linalg.eigvalsh(unit @ unit.T / n).clip(0)
        positive = shares[shares > 0]
        counts = rng.integers(0, 9, size=n)
        cases.append(
            {
                "rows": rows,
                "others": others,
                "vendi": [np.exp(-(positive * np.log(positive)).sum()), 1 / (shares**2).sum(), 1 / shares.max()],
                "singular_values": linalg.svdvals(rows),
                "angles": np.sort(linalg.subspace_angles(rows[:2].T, others[:2].T)),
                "counts": counts,
                "gini": np.abs(counts[:, None] - counts).sum() / (2 * n * counts.sum()),
            }
        )
    return cases


def ranks():
    cases = []
    for seed, n in ((11, 12), (12, 30)):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 8, size=n)
        y = x + rng.integers(0, 5, size=n)
        u = stats.mannwhitneyu(y, x).statistic
        labels = [rng.integers(0, 3, size=n) for _ in range(2)]
        labels[1] = np.where(rng.random(n) < 0.5, labels[0], labels[1])
        cases.append(
            {
                "x": x,
                "y": y,
                "ranks": stats.rankdata(x),
                "spearman": stats.spearmanr(x, y).statistic,
                "auc": u / n**2,
                "labels": labels,
                "kappa": cohen_kappa_score(*labels),
                "isotonic": optimize.isotonic_regression(y.astype(float)).x,
            }
        )
    return cases


def on_simplex(matrix, q):
    """argmin of ||M p - q||^2 on the simplex: scipy finds the support, linear equations the digits."""
    size = len(q)
    found = optimize.minimize(
        lambda p: ((matrix @ p - q) ** 2).sum(),
        np.full(size, 1 / size),
        jac=lambda p: 2 * matrix.T @ (matrix @ p - q),
        method="SLSQP",
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(size)},
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    if not found.success:
        raise SystemExit(found.message)
    support = found.x > 1e-6
    inner = matrix[:, support]
    ones = np.ones((support.sum(), 1))
    left = np.block([[inner.T @ inner, ones], [ones.T, np.zeros((1, 1))]])
    shares = np.zeros(size)
    shares[support] = np.linalg.solve(left, np.append(inner.T @ q, 1))[:-1]
    if abs(shares - found.x).max() > 1e-6 or shares.min() < 0:
        raise SystemExit("the equations on the support disagree with scipy")
    return shares


def corrections():
    """Shares on the simplex behind a confusion matrix; condition numbers."""
    cases = []
    for seed, size in ((13, 3), (14, 5), (15, 5)):
        rng = np.random.default_rng(seed)
        errors = rng.dirichlet(np.ones(size), size=size).T
        matrix = (0.7 * np.eye(size) + 0.3 * errors).round(3)
        # Uneven shares: most have no solution with positive parts, and the nearest lies on an edge.
        q = rng.dirichlet(np.full(size, 0.4)).round(3)
        cases.append(
            {"matrix": matrix, "q": q, "shares": on_simplex(matrix, q), "condition": np.linalg.cond(matrix)}
        )
    return cases


def laws():
    """Tails, quantiles and intervals."""
    return [
        {
            "chi2": [[x, df, stats.chi2.sf(x, df)] for x, df in ((0.5, 1), (12.575, 3), (30.0, 11), (1240.0, 1151))],
            "normal": [[p, stats.norm.ppf(p)] for p in (0.001, 0.05, 0.4, 0.975, 0.9999)],
            "wilson": [[k, n, *proportion_confint(k, n, method="wilson")] for k, n in ((0, 50), (7, 100), (33, 33))],
        }
    ]


def main():
    warnings.filterwarnings("ignore", category=UserWarning)
    save("tables.json", tables())
    save("diversity.json", diversity())
    save("changes.json", changes())
    save("distances.json", distances())
    save("kernels.json", kernels())
    save("ranks.json", ranks())
    save("corrections.json", corrections())
    save("laws.json", laws())
    versions = [f"python=={platform.python_version()}"]
    versions += [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    (HERE / "versions.txt").write_text("\n".join(versions) + "\n")


if __name__ == "__main__":
    main()
