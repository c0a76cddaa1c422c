"""Computes known answers a second time, with scipy, statsmodels, scikit-bio and scikit-learn.

    .venv/bin/pip install -r scripts/golden/census/requirements.txt
    populate census --kat all --json | .venv/bin/python scripts/census_xcheck.py

Reads one answer per line: `{"name", "checks": [{"what", "found", ...}], "inputs"}`. From the inputs it
computes what the program found, by other code, and holds the two side by side. Exit 1 if they differ.

Constructions that are networks or long simulations are not simulated here; of those the first repetition
is computed again from the counts that the program wrote down.
"""

import json
import sys
from itertools import permutations

import numpy as np
from scipy import integrate, linalg, optimize, stats
from scipy.spatial.distance import jensenshannon
from skbio.diversity.alpha import goods_coverage, hill, shannon
from skbio.stats.distance import DistanceMatrix, mantel, permanova
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import SquareTable, mcnemar

CHECKS = {}


def of(*names):
    """Registers a second computation: (found by name of check, inputs) -> [(what, ours, theirs, tolerance)]."""

    def keep(function):
        CHECKS.update(dict.fromkeys(names, function))
        return function

    return keep


def on_simplex(matrix, q):
    """argmin of ||M p - q||^2 on the simplex."""
    matrix, q = np.asarray(matrix), np.asarray(q)
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
    return found.x


def table_shares(table):
    """Differences and their errors, rows base, columns adapted."""
    table = np.asarray(table, float)
    n, rows, columns, kept = table.sum(), table.sum(1), table.sum(0), np.diag(table)
    delta = (columns - rows) / n
    variance = np.maximum((rows + columns - 2 * kept) / n - delta**2, 1 / n**2) / n
    return delta, np.sqrt(variance)


@of("table")
def table(found, inputs):
    counts = np.array(inputs["table"])
    square = SquareTable(counts.astype(float), shift_zeros=False)
    stuart, bhapkar = (square.homogeneity(method=m) for m in ("stuart_maxwell", "bhapkar"))
    for suffix in ("", ", with an empty category"):
        yield f"Stuart–Maxwell χ²{suffix}", stuart.statistic, 1e-9
        yield f"Stuart–Maxwell p{suffix}", stuart.pvalue, 1e-9
        yield f"degrees of freedom{suffix}", stuart.df, 0
        yield f"Bhapkar χ²{suffix}", bhapkar.statistic, 1e-9
    delta, error = table_shares(counts)
    for i in range(len(counts)):
        b, c = (int(sums[i] - counts[i, i]) for sums in (counts.sum(1), counts.sum(0)))
        mid = 2 * stats.binom.cdf(min(b, c), b + c, 0.5) - stats.binom.pmf(min(b, c), b + c, 0.5)
        yield f"Δ of category {i}", delta[i], 1e-12
        yield f"error of Δ of category {i}", error[i], 1e-12
        yield f"McNemar p of category {i}", mcnemar([[0, b], [c, 0]], exact=True).pvalue, 1e-12
        yield f"McNemar mid-p of category {i}", mid, 1e-12
    yield "quantity", np.abs(delta).sum() / 2, 1e-12
    yield "discordance", 1 - np.trace(counts) / counts.sum(), 1e-12


@of("coverage")
def coverage(found, inputs):
    shares, n, draws = np.array(inputs["shares"]), inputs["pairs"], inputs["draws"]
    delta, error = table_shares(inputs["table"])
    yield from against("Δ of the first world", inputs["delta"], delta, 1e-12)
    yield from against("error of the first world", inputs["error"], error, 1e-12)
    size = len(shares)
    law = 0.9 * shares[:, None] * (0.8 * np.eye(size) + 0.2 * shares)
    law = np.vstack([np.column_stack([law, 0.1 * shares]), np.zeros(size + 1)])
    truth = law.sum(0) - law.sum(1)
    yield from against("true Δ", inputs["truth"], truth, 1e-12)
    rng, worlds, joint = np.random.default_rng(1), 200, 0
    for _ in range(worlds):
        world = rng.multinomial(n, law.ravel())
        estimate, own = table_shares(world.reshape(law.shape))
        again = rng.multinomial(n, world / n, size=draws).reshape(draws, *law.shape)
        deviations = [np.abs(d - estimate) / e for d, e in map(table_shares, again)]
        joint += np.all(np.abs(truth - estimate) <= np.quantile(np.max(deviations, 1), 0.95) * own)
    # Both are shares of so many worlds: four standard errors of their difference.
    error = np.sqrt(0.05 * 0.95 * (1 / worlds + 1 / inputs["worlds"]))
    yield "worlds in which max-t holds all 13", joint / worlds, 4 * error


@of("floor")
def floor(found, inputs):
    n, steps = inputs["pairs"], 8192
    for k in inputs["categories"]:
        law = 1 / np.arange(1, k + 1)
        law /= law.sum()
        apart = paired = 0.0
        for p in law:
            counts = stats.binom.pmf(np.arange(n + 1), n, p)
            differences = np.convolve(counts, counts[::-1])
            apart += (np.abs(np.arange(-n, n + 1)) * differences).sum() / n / 2
            rate = inputs["redrawn"] * p * (1 - p)
            one = np.zeros(steps)
            one[[0, 1, -1]] = 1 - 2 * rate, rate, rate
            walk = np.fft.ifft(np.fft.fft(one) ** n).real
            distance = np.minimum(np.arange(steps), steps - np.arange(steps))
            paired += (distance * walk).sum() / n / 2
        yield f"floor of {k}, drawn apart", apart, 0.05 * apart
        yield f"floor of {k}, paired", paired, 0.05 * paired


@of("entropy")
def entropy(found, inputs):
    law = 1 / np.arange(1, inputs["categories"] + 1)
    yield "entropy", stats.entropy(law / law.sum()), 1e-9
    for sample in inputs["samples"]:
        counts = np.array(sample["counts"])
        n, seen = counts.sum(), np.count_nonzero(counts)
        share = goods_coverage(counts) * counts[counts > 0] / n
        chao_shen = -(share * np.log(share) / (1 - (1 - share) ** n)).sum()
        theirs = [shannon(counts), shannon(counts) + (seen - 1) / (2 * n), chao_shen]
        yield from against(f"estimates of {n}", sample["found"], theirs, 1e-9)


@of("fair")
def fair(found, inputs):
    for n in inputs["throws"]:
        heads = np.arange(n + 1)
        exact = (stats.binom.pmf(heads, n, 0.5) * np.abs(heads / n - 0.5)).sum()
        yield f"deviation of {n} throws", exact, 1e-12
        yield f"floor by flips of {n} throws", exact, 0.005


def parts(world):
    before, after = np.array(world["before"]), np.array(world["after"])
    old = np.arange(len(before)) != world["new"]
    a, new = before[world["new"]], after[world["new"]]
    rest, left = before[old] / (1 - a), after[old] / (1 - new)
    dilution = stats.entropy([a, 1 - a], [new, 1 - new])
    return before, after, rest, left, dilution, (1 - a) * stats.entropy(rest, left)


@of("split")
def split(found, inputs):
    before, after, rest, left, dilution, selection = parts(inputs["worlds"][0])
    new = inputs["worlds"][0]["new"]
    whole = jensenshannon(before, after) ** 2
    js = jensenshannon(*([shares[new], 1 - shares[new]] for shares in (before, after))) ** 2
    yield "KL", stats.entropy(before, after), 1e-9
    yield "dilution", dilution, 1e-9
    yield "selection", selection, 1e-9
    yield "JS", whole, 1e-9
    yield "JS dilution", js, 1e-9
    yield "JS selection", whole - js, 1e-9
    for i, coefficient in enumerate(np.log(left / rest)):
        yield f"selection coefficient of entity {i}", coefficient, 1e-9
    # Hill numbers of skbio count whole numbers.
    hundredths = [np.round(100 * shares[:-1]).astype(int) for shares in (before, after)]
    for q in range(3):
        yield f"^{q}D before", hill(hundredths[0], order=q), 1e-9
    yield "^1D after", hill(hundredths[1], order=1), 1e-9
    yield "evenness loss", 1 - hill(hundredths[1], order=1) / hill(hundredths[0], order=1), 1e-9
    yield "displaced", np.maximum(0, before[:-1] - after[:-1]).sum(), 1e-9
    before, after, _, _, dilution, selection = parts(inputs["worlds"][1])
    yield "KL, known before", stats.entropy(before, after), 1e-9
    yield "dilution, known before", dilution, 1e-9
    yield "selection, known before", selection, 1e-9


@of("quantify", "disobey")
def corrected(found, inputs):
    first = inputs["first"]
    (m_b, m_a), q_b, q_a = first["matrices"], first["shares_b"], first["shares_a"]
    if "raw" in inputs["ways"]:
        raw = np.subtract(q_a, q_b)
        shared = on_simplex(m_b, q_a) - on_simplex(m_b, q_b)
        own = on_simplex(m_a, q_a) - on_simplex(m_b, q_b)
        theirs = [raw, shared, own]
    else:
        # The first matrix counts verified pictures, the second unverified asks.
        unverified = on_simplex(m_a, q_a) - on_simplex(m_b, q_b)
        theirs = [unverified, on_simplex(m_b, q_a) - on_simplex(m_b, q_b)]
    for way, ours, other in zip(inputs["ways"], first["found"], theirs):
        yield from against(f"first repetition, {way}", ours, other, 2e-5)


@of("ppi")
def ppi(found, inputs):
    first, n = inputs["first"], inputs["pictures"]
    truth, seen = np.array(first["labelled"]).T
    raw = first["seen"] / n
    spread = raw * (1 - raw) / (n - 1) + np.var(truth - seen, ddof=1) / len(seen)
    theirs = [raw, raw + (truth - seen).mean(), truth.mean(), np.sqrt(spread)]
    yield from against("first repetition", first["found"], theirs, 1e-9)


@of("detector")
def detector(found, inputs):
    tpr, fpr = inputs["tpr"], inputs["fpr"]
    for rate, name in zip(inputs["rates"], (" of .02", " of .10", " below fpr")):
        yield f"share behind a rate{name}", np.clip((rate - fpr) / (tpr - fpr), 0, 1), 1e-9


def stable_diffusion():
    """Cumulative alphas of the schedule of Stable Diffusion, least noise first."""
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def log_noise(alphas):
    """gamma, the negative log of signal over noise."""
    return -np.log(alphas / (1 - alphas))


def error_of_normal(law, x, alphas):
    """E over the noise of |eps - eps*|^2 of a normal law at x."""
    mean, variance = law
    noisy = alphas * variance + 1 - alphas
    return (alphas * variance / noisy) ** 2 + alphas * (1 - alphas) * (x - mean) ** 2 / noisy**2


def energy_of_normal(law, x, alpha):
    """E over the noise of -log p of x noised to a level, less a constant."""
    mean, variance = law
    noisy = alpha * variance + 1 - alpha
    return 0.5 * np.log(noisy) + (alpha * (x - mean) ** 2 + 1 - alpha) / (2 * noisy)


def nats_lost(base, adapted, x, ends):
    lost = [energy_of_normal(adapted, x, alpha) - energy_of_normal(base, x, alpha) for alpha in ends]
    return lost[0] - lost[1]


@of("weights")
def weights(found, inputs):
    alphas = stable_diffusion()
    yield from against("1 - cumulative alpha", inputs["one_minus_alpha_cumprod"], 1 - alphas, 1e-12)
    weight = 0.5 * np.expm1(np.diff(log_noise(alphas)))
    for t in (2, 10, 100, 500, 1000):
        yield f"w at level {t}", weight[t - 2], 1e-10
    yield "sum from the second level on", weight.sum(), 1e-9


@of("quad")
def quad(found, inputs):
    alphas, base, x = stable_diffusion(), tuple(inputs["base"]), np.array(inputs["x"])[:, None]
    gamma = log_noise(alphas)
    for law in ((0.5, 0.36), (0.5, 0.25), (0.3, 0.36)):
        gap = error_of_normal(law, x, alphas) - error_of_normal(base, x, alphas)
        exact = nats_lost(base, law, x[:, 0], alphas[[0, -1]])
        trapezoid = 0.5 * np.trapezoid(gap, gamma)
        bound = (0.5 * np.expm1(np.diff(gamma)) * gap[:, 1:]).sum(1)
        name = f"N({law[0]}, {law[1]}): largest error"
        yield name, np.abs(trapezoid - exact).max(), 1e-9
        yield f"{name} of the bound's weights", np.abs(bound - exact).max(), 1e-9


@of("wrappers")
def wrappers(found, inputs):
    alphas, laws, x = stable_diffusion(), (tuple(inputs["base"]), tuple(inputs["adapted"])), inputs["x"]
    theirs, _ = integrate.quad(
        lambda g: 0.5 * np.subtract(*(error_of_normal(law, x, 1 / (1 + np.exp(g))) for law in laws[::-1])),
        *log_noise(alphas[[0, -1]]),
        epsabs=1e-12,
    )
    for way in ("noise", "velocity", "flow"):
        yield f"nats by the {way}", theirs, 1e-5
    base, adapted = (stats.norm(mean, variance**0.5) for mean, variance in laws)
    yield "nats of the clean densities", base.logpdf(x) - adapted.logpdf(x), 1e-9


@of("crn")
def crn(found, inputs):
    ends = stable_diffusion()[[0, -1]]
    theirs = sum(nats_lost((0.30, 0.25), (0.32, 0.26), x, ends) for x in inputs["x"])
    yield "exact nats", inputs["exact"], theirs, 1e-9
    error = np.sqrt(inputs["variance"] / 2000)
    yield "mean nats", inputs["mean"], theirs, 4 * error


@of("path")
def path(found, inputs):
    for name in ("diluted", "selected"):
        theirs = stats.entropy(inputs["base"], inputs[name])
        yield f"{name}: path-space KL", theirs, 0.04
        # What the base never visits is not drawn: the weight of the newcomer.
        yield f"{name}: mass outside", inputs[name][-1], 0.02


@of("forecast")
def forecast(found, inputs):
    slopes = np.subtract(inputs["shares_above"], inputs["shares_below"]) / (2 * inputs["dose"])
    for entity, slope in enumerate(slopes):
        yield f"slope of entity {entity}", slope, 0.02


@of("pixel")
def pixel(found, inputs):
    signal, noise = inputs["variance_of_y"], inputs["variance_of_n"]
    yield "nats about the pixel that holds the word", 0.5 * np.log(1 + signal / noise), 1e-4
    yield "nats about the other", 0.0, 1e-4


@of("typicality")
def typicality(found, inputs):
    for entity, share in enumerate(inputs["shares"]):
        if share > 0:
            yield f"typicality of entity {entity}", -np.log(share), 0.04


@of("placebo")
def placebo(found, inputs):
    for adapter, other in zip(inputs["adapter"], inputs["placebo"]):
        change, shuffled = (m["scale"] * np.array(m["up"]) @ np.array(m["down"]) for m in (adapter, other))
        rank = len(adapter["down"])
        for i, value in enumerate(linalg.svdvals(shuffled)[:rank]):
            yield f"singular value {i} of {adapter['path']}", value, 1e-9
        yield f"norm of {adapter['path']}", linalg.norm(shuffled), 1e-9
        yield from against("spectrum", linalg.svdvals(shuffled)[:rank], linalg.svdvals(change)[:rank], 1e-4)


@of("dose")
def dose(found, inputs):
    curve = inputs["curve"]
    doses, shares = curve["doses"], curve["shares"]
    yield "dose of half effect", np.interp((shares[0] + shares[-1]) / 2, shares, doses), 1e-9
    for i, value in enumerate(optimize.isotonic_regression([float(x) for x in curve["values"]]).x):
        yield f"isotonic fit at {i}", value, 1e-12
    before, after = set(curve["before"]), set(curve["after"])
    kept, moved = len(before & after), min(len(before - after), len(after - before))
    whole = len(before ^ after) / len(before | after)
    yield "Jaccard distance", whole, 1e-12
    yield "turnover", 2 * moved / (kept + 2 * moved), 1e-12
    yield "nestedness", whole - 2 * moved / (kept + 2 * moved), 1e-12


def euclid(points):
    points = np.asarray(points, float)
    return np.linalg.norm(points[:, None] - points, axis=-1)


@of("mantel")
def mantel_of_leaves(found, inputs):
    points, tree = np.array(inputs["points"]), DistanceMatrix(inputs["tree"])
    for suffix, order in (("", range(len(points))), (" out of order", inputs["reordered"])):
        images = DistanceMatrix(euclid(points[list(order)]))
        yield f"ρ of six leaves{suffix}", mantel(tree, images, method="spearman", permutations=0)[0], 1e-9
    images, upper = euclid(points), np.triu_indices(len(points), 1)
    known = stats.spearmanr(tree.data[upper], images[upper]).statistic
    again = [
        stats.spearmanr(tree.data[upper], images[np.ix_(order, order)][upper]).statistic
        for order in map(list, permutations(range(len(points))))
    ]
    yield "p over all 720 relabellings", np.mean(np.array(again) >= known - 1e-12), 1e-9


@of("delta")
def delta(found, inputs):
    shift = np.array(inputs["words"]) @ np.subtract(inputs["adapted"], inputs["base"])
    yield "ΔC of the word that was asked", shift[0], 1e-6
    yield "ΔC of the other word", shift[1], 1e-6


@of("collapse")
def collapse(found, inputs):
    n = inputs["pictures"]
    for kinds in inputs["kinds"]:
        rows = np.eye(n)[np.arange(n) % kinds]
        shares = np.linalg.eigvalsh(rows @ rows.T / n).clip(0)
        positive = shares[shares > 0]
        scores = np.exp(-(positive * np.log(positive)).sum()), 1 / (shares**2).sum(), 1 / shares.max()
        for order, score in zip("12∞", scores):
            yield f"Vendi score of order {order}, {kinds} kinds among {n}", score, 1e-9
    for n in inputs["references"]:
        for name, counts in ((f"Gini of {n} equal counts", np.full(n, 3)), (f"Gini, all on one of {n}", np.eye(n)[1])):
            yield name, np.abs(counts[:, None] - counts).sum() / (2 * n * counts.sum()), 1e-9


@of("bleed")
def bleed(found, inputs):
    tpr, fpr = inputs["found"] / inputs["references"], inputs["false_alarms"] / inputs["base_pictures"]
    rates = [share * tpr + (1 - share) * fpr for share in inputs["shares"]]
    for rate, name in zip(rates, ("with the identifier", "without it")):
        yield f"observed rate {name}", rate, 1e-9
        yield f"share {name}", (rate - fpr) / (tpr - fpr), 1e-9
    fired = np.concatenate([np.arange(1000) < round(1000 * rate) for rate in rates])
    yield "selectivity", roc_auc_score(np.repeat([1, 0], 1000), fired), 1e-9


@of("hspace")
def hspace(found, inputs):
    # A difference of means over N pictures points along the truth by this cosine.
    apart, pooled = inputs["distance_of_means"], inputs["pooled"]
    law = apart / np.sqrt(apart**2 + 4 * pooled["width"] / pooled["pictures"])
    yield "cosine of a fit with the truth", law, 0.04
    yield "cosine of two fits of one direction", law**2, 0.06
    yield "largest angle", inputs["span"]["turn"], 1e-6


@of("permanova")
def permanova_of_groups(found, inputs):
    groups = np.array(inputs["groups"])
    for key, suffix in (("line", "two groups on a line"), ("equal", "equal distances")):
        distances = np.array(inputs[key], float)
        n, upper = len(distances), np.triu_indices(len(distances), 1)
        yield f"F of {suffix}", permanova(DistanceMatrix(distances), groups, permutations=1)["test statistic"], 1e-9
        sst = (distances[upper] ** 2).sum() / n
        within = [(distances[np.ix_(groups == g, groups == g)] ** 2).sum() / 2 / (groups == g).sum() for g in set(groups)]
        ssw, rest = sum(within), sum(within) / (n - len(within))
        yield f"R² of {suffix}", 1 - ssw / sst, 1e-9
        yield f"ω² of {suffix}", (sst - ssw - (len(within) - 1) * rest) / (sst + rest), 1e-9
        if key == "line":
            yield f"SST of {suffix}", sst, 1e-9
            yield f"SSW of {suffix}", ssw, 1e-9


@of("order")
def order(found, inputs):
    one, other = (np.bincount(inputs[key], minlength=5) for key in ("one_then_other", "other_then_one"))
    yield "order effect of two settlements", np.abs(one - other).sum() / 2 / inputs["places"], 1e-9


@of("mobility")
def mobility(found, inputs):
    # One of the worlds over which the program averages.
    before, after = map(np.array, inputs["first_states"])
    table = np.zeros([max(before.max(), after.max()) + 1] * 2)
    np.add.at(table, (before, after), 1)
    table /= table.sum()
    quantity = np.abs(table.sum(0) - table.sum(1)).sum() / 2
    exchange = np.minimum(table, table.T).sum() - np.trace(table)
    discordance = 1 - np.trace(table)
    yield "discordance", discordance, 0.04
    yield "quantity", quantity, 0.04
    yield "exchange", exchange, 0.04
    yield "shift", discordance - quantity - exchange, 0.04


@of("postcards-render")
def render(found, inputs):
    joint = np.array([1.0])
    for facet in ("subject", "color", "setting", "style"):
        prior, counts = np.array(inputs["prior"][facet]), np.array(inputs["counts"][facet])
        expected = prior / prior.sum() * counts.sum()
        yield f"p of the prior of {facet}", stats.chisquare(counts, expected).pvalue, 1e-6
        joint = np.outer(joint, prior).ravel()
    counts = np.array(inputs["joint_counts"])
    yield "p of the joint prior", stats.chisquare(counts, joint / joint.sum() * counts.sum()).pvalue, 1e-6


@of("postcards-confusion")
def confusion(found, inputs):
    for facet, counts in inputs["counts"].items():
        plain, decoded = (np.array(counts[key], float) for key in ("plain", "decoded"))
        right, still = (np.trace(m) / m.sum() for m in (plain, decoded))
        yield f"{facet} named rightly", right, 1e-12
        yield f"{facet} lost through the autoencoder", right - still, 1e-12
        for matrix, suffix in ((plain, ""), (decoded, ", decoded")):
            yield f"condition of {facet}{suffix}", np.linalg.cond(matrix / matrix.sum(1, keepdims=True)), 1e-6


@of("postcards-prior")
def prior(found, inputs):
    for facet, figures in inputs["facets"].items():
        matrix, counts = np.array(figures["confusion"], float), np.array(figures["counts"])
        shares = on_simplex((matrix / matrix.sum(1, keepdims=True)).T, counts / counts.sum())
        yield from against(f"shares of {facet}", figures["shares"], shares, 2e-5)
        variation = np.abs(shares - figures["prior"]).sum() / 2
        yield f"total variation of {facet} from its prior", variation, 1e-4


@of("promptmix")
def promptmix(found, inputs):
    table = np.array(inputs["table"], float)
    before, after, n = table.sum(1) / table.sum(), table.sum(0) / table.sum(), table.sum()
    mixed = (1 - inputs["share"]) * before + inputs["share"] * np.array(inputs["asked"])
    yield from against("mixture", inputs["mixed"], mixed, 1e-9)

    def selection(left, right):
        seen = left + right > 0
        smooth = [(n * shares[seen] + 0.5) / (n + 0.5 * seen.sum()) for shares in (left, right)]
        # The newcomer is the last subject.
        old = [shares[:-1] / shares[:-1].sum() for shares in smooth]
        return smooth[0][:-1].sum() * stats.entropy(*old)

    yield "selection in nats", selection(before, after), 1e-9
    yield from against("explained", [inputs["explained"]], [selection(before, mixed)], 1e-9)


@of("promptselect")
def promptselect(found, inputs):
    table = np.array(inputs["table"])
    off = table - np.diag(np.diag(table))
    row = off.sum(1).argmax() if off.sum() else 0
    change = (table.sum(0) - table.sum(1))[row] / max(table.sum(1)[row], 1)
    yield "change of the evicted entity over its share", change, 1e-9
    yield "places that other entities lost", off.sum() - off[row].sum(), 0


def against(what, ours, theirs, tolerance):
    """Two lists that are not checks of their own."""
    ours, theirs = np.ravel(np.asarray(ours, float)), np.ravel(np.asarray(theirs, float))
    if ours.shape != theirs.shape:
        yield what, ours.size, theirs.size, 0
        return
    for i, (own, other) in enumerate(zip(ours, theirs)):
        yield f"{what} [{i}]", own, other, tolerance


def compared(answer):
    """(what, ours, theirs, tolerance) of one answer."""
    found = {check["what"]: check["found"] for check in answer["checks"]}
    for row in CHECKS[answer["name"]](found, answer["inputs"]):
        if len(row) == 4:
            yield row
        else:
            what, theirs, tolerance = row
            yield what, found.get(what), theirs, tolerance


def main():
    failed, seen = 0, set()
    for line in sys.stdin:
        answer = json.loads(line)
        if answer.get("event") != "known_answer":
            continue
        name = answer["name"]
        if name not in CHECKS:
            print(f"{name}: nothing to hold it against")
            continue
        seen.add(name)
        rows = list(compared(answer))
        wrong = [row for row in rows if row[1] is None or not abs(row[1] - row[2]) <= row[3]]
        print(f"{name}: {len(rows) - len(wrong)} of {len(rows)} figures agree")
        for what, ours, theirs, tolerance in wrong:
            print(f"  {what}: found {ours}, computed {theirs}, tolerance {tolerance}")
        failed += bool(wrong)
    if not seen:
        sys.exit("no known answer on standard input (`populate census --kat NAME --json`)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
