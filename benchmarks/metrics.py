"""What metrics of statistics cost: against plain numpy, a matrix product, and with more voxels.

    python benchmarks/metrics.py [--rounds=3] [--voxels=1000000] [--largest=10000000] [--json=FILE]

First: time and peak memory of a stream of more and more voxels, each in a process of its own, the
sizes taking turns. Then: eight metrics from one stream of batches, against the sum of their
references, each written as it is usually published (float64, all voxels at once), and against one
float32 product FᵀF. All take turns, so that ratios hold when the machine's speed drifts.

Last, with `pip install -r benchmarks/requirements.txt`: F-OTCE against the exact plan of POT's
`emd`, cost matrix included, at several ε. Wall time and processor time, since `emd` uses one core.

Medians and ranges; not a test.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from absl import app, flags
from rich.console import Console
from rich.table import Table
from scipy.special import log_softmax, softmax

from jaxfer.metrics import (
    LabelStatistics,
    PredictionStatistics,
    Score,
    conditional_log_probs,
    f_otce,
    h_score_from_statistics,
    leep_from_statistics,
    logme_from_statistics,
    nce_from_statistics,
)
from jaxfer.metrics.class_statistics import ClassFeatureStatistics
from jaxfer.metrics.gbc import MIN_VARIANCE, gbc_from_statistics
from jaxfer.metrics.lda import lda_from_statistics
from jaxfer.metrics.posterior import PosteriorStatistics, linear_classifier
from jaxfer.metrics.regularized_h_score import regularized_h_score_from_statistics
from jaxfer.metrics.transrate import EPSILON, transrate_from_statistics

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed rounds of each row.", lower_bound=1)
_VOXELS = flags.DEFINE_integer("voxels", 1_000_000, "Voxels of the comparison.", lower_bound=1)
_LARGEST = flags.DEFINE_integer("largest", 10_000_000, "Voxels of the longest stream.")
_PIXELS = flags.DEFINE_integer("pixels", 10_000, "Pixels of each side of F-OTCE; 0: none.")
_JSON = flags.DEFINE_string("json", None, "Also write what was measured to this file.")
_STREAM = flags.DEFINE_integer("stream", None, "Only stream so many voxels; print JSON.")

FEATURES, CLASSES, SOURCES = 64, 4, 4
BATCH = 50_000
EPSILONS = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
STREAMS = (1_000_000, 3_000_000, 10_000_000, 30_000_000)


class Voxels(NamedTuple):
    features: np.ndarray
    log_probs: np.ndarray
    labels: np.ndarray


def draw(size: int) -> Voxels:
    """Voxels of unequal classes, of which features and source know something; background leads."""
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, size, p=[0.7, 0.15, 0.1, 0.05]).astype(np.int32)
    centres = rng.standard_normal((CLASSES, FEATURES), np.float32)
    mixing = (rng.standard_normal((FEATURES, FEATURES)) / 8).astype(np.float32)
    features = rng.standard_normal((size, FEATURES), np.float32)
    features += 0.3 * centres[labels]
    logits = rng.standard_normal((size, SOURCES)) + 2 * np.eye(SOURCES)[labels % SOURCES]
    return Voxels(features @ mixing + 1, log_softmax(logits, 1).astype(np.float32), labels)


def batches(voxels: Voxels, size: int) -> Iterator[Voxels]:
    """`size` voxels batch by batch, from the first again after the last."""
    for start in range(0, size, BATCH):
        at = start % len(voxels.labels)
        yield Voxels(*(x[at : at + BATCH] for x in voxels))


update_labels = jax.jit(LabelStatistics.update)
update_features = jax.jit(ClassFeatureStatistics.update)
update_predictions = jax.jit(PredictionStatistics.update)
update_posteriors = jax.jit(PosteriorStatistics.update)


def streamed(voxels: Voxels, size: int) -> tuple[dict[str, Score], dict[str, float]]:
    """All metrics of `size` voxels, and the seconds of each part.

    Every batch is awaited, or those that queue for the device would count as memory.
    """
    seconds: dict[str, float] = {}

    def timed(part: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(call())
        seconds[part] = time.perf_counter() - start
        return result

    def label_pass() -> LabelStatistics:
        stats = LabelStatistics.zeros(CLASSES, SOURCES)
        for batch in batches(voxels, size):
            stats = jax.block_until_ready(update_labels(stats, batch.log_probs, batch.labels))
        return stats

    def feature_pass() -> ClassFeatureStatistics:
        stats = ClassFeatureStatistics.zeros(CLASSES, FEATURES)
        for batch in batches(voxels, size):
            stats = jax.block_until_ready(update_features(stats, batch.features, batch.labels))
        return stats

    def prediction_pass() -> PredictionStatistics:
        table, stats = conditional_log_probs(of_labels), PredictionStatistics.zeros(CLASSES)
        for batch in batches(voxels, size):
            stats = jax.block_until_ready(
                update_predictions(stats, batch.log_probs, batch.labels, table)
            )
        return stats

    def posterior_pass() -> PosteriorStatistics:
        classifier, stats = linear_classifier(by_class), PosteriorStatistics.zeros(CLASSES)
        for batch in batches(voxels, size):
            stats = jax.block_until_ready(
                update_posteriors(stats, batch.features, batch.labels, classifier)
            )
        return stats

    def finalise() -> dict[str, Score]:
        of_features = by_class.features()
        return {
            "NCE": nce_from_statistics(of_labels),
            "LEEP": leep_from_statistics(predictions),
            "H-score": h_score_from_statistics(of_features),
            "regularised H-score": regularized_h_score_from_statistics(of_features),
            "LogME": logme_from_statistics(of_features),
            "TransRate": transrate_from_statistics(by_class),
            "GBC": gbc_from_statistics(by_class),
            "LDA": lda_from_statistics(posteriors),
        }

    of_labels = timed("labels", label_pass)
    by_class = timed("features", feature_pass)
    predictions = timed("LEEP, 2nd pass", prediction_pass)
    posteriors = timed("LDA, 2nd pass", posterior_pass)
    return timed("scores", finalise), seconds


def nce_reference(voxels: Voxels) -> float:
    pairs = voxels.labels * SOURCES + voxels.log_probs.argmax(1)
    joint = np.bincount(pairs, minlength=CLASSES * SOURCES).reshape(CLASSES, SOURCES)
    joint = joint / joint.sum()
    conditional = joint / joint.sum(0)
    return float((joint * np.log(np.where(joint > 0, conditional, 1))).sum())


def leep_reference(voxels: Voxels) -> float:
    probs = np.exp(voxels.log_probs.astype(np.float64))
    joint = np.stack([probs[voxels.labels == c].sum(0) for c in range(CLASSES)])
    expected = probs @ (joint / joint.sum(0)).T
    return float(np.log(expected[np.arange(len(probs)), voxels.labels]).mean())


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == c].mean(0) for c in range(CLASSES)])


def h_score_reference(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    between = class_means(features, voxels.labels)[voxels.labels]
    inverse = np.linalg.pinv(np.cov(features, rowvar=False), rcond=1e-15)
    return float(np.trace(inverse @ np.cov(between, rowvar=False)))


def regularised_h_score_reference(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    features -= features.mean(0)
    n, d = features.shape
    covariance = features.T @ features / n
    scale = np.trace(covariance) / d
    squares = features**2
    error = ((squares.T @ squares).sum() / n - (covariance**2).sum()) / n
    distance = ((covariance - scale * np.eye(d)) ** 2).sum()
    a = min(error / distance, 1)
    between = class_means(features, voxels.labels)[voxels.labels]
    shrunken = (1 - a) * covariance + a * scale * np.eye(d)
    spread = np.cov(between, rowvar=False, bias=True)
    return float(np.trace(np.linalg.pinv(shrunken) @ ((1 - a) * spread)))


def logme_reference(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    n, d = features.shape
    left, power, _ = np.linalg.svd(features, full_matrices=False)
    power = power**2
    evidence = []
    for c in range(CLASSES):
        target = (voxels.labels == c).astype(np.float64)
        along = (left.T @ target) ** 2
        rest = max((target**2).sum() - along.sum(), 0)
        alpha = beta = 1.0
        for _round in range(11):
            ratio = alpha / beta
            gamma = (power / (power + ratio)).sum()
            weights = (power * along / (power + ratio) ** 2).sum()
            residual = (along / (1 + power / ratio) ** 2).sum() + rest
            alpha, beta = gamma / (weights + 1e-5), (n - gamma) / (residual + 1e-5)
            if abs(alpha / beta - ratio) / ratio <= 1e-3:
                break
        whole = d * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * power).sum()
        evidence.append((whole - beta * residual - alpha * weights - n * np.log(2 * np.pi)) / 2)
    return float(np.mean(evidence) / n)


def transrate_reference(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    features -= features.mean(0)

    def rate(rows: np.ndarray) -> float:
        n, d = rows.shape
        return np.linalg.slogdet(np.eye(d) + rows.T @ rows / (n * EPSILON))[1] / 2

    own = [features[voxels.labels == c] for c in range(CLASSES)]
    return float(rate(features) - sum(len(rows) / len(features) * rate(rows) for rows in own))


def gbc_reference(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    own = [features[voxels.labels == c] for c in range(CLASSES)]
    means = [rows.mean(0) for rows in own]
    variances = [max(rows.var(0).mean(), MIN_VARIANCE) for rows in own]
    total = 0.0
    for i in range(CLASSES):
        for j in set(range(CLASSES)) - {i}:
            common = (variances[i] + variances[j]) / 2
            apart = ((means[i] - means[j]) ** 2).sum() / common / 8
            unlike = np.log(common / np.sqrt(variances[i] * variances[j]))
            total -= np.exp(-apart - FEATURES * unlike / 2)
    return float(total)


def lda_reference(voxels: Voxels) -> float:
    features = voxels.features.astype(np.float64)
    features -= features.mean(0)
    n, d = features.shape
    means = class_means(features, voxels.labels)
    shares = np.bincount(voxels.labels, minlength=CLASSES) / n
    residual = features - means[voxels.labels]
    within = residual.T @ residual / n
    between = (shares[:, None] * means).T @ means
    a = max(np.exp(-5 * np.linalg.eigvalsh(within)[-1]), 1e-10)
    within, between = ((1 - a) * m + a * np.trace(m) / d * np.eye(d) for m in (within, between))
    _, directions = scipy.linalg.eigh(between, within)
    centres = means @ directions
    evidence = features @ directions @ centres.T + np.log(shares) - (centres**2).sum(1) / 2
    return float(softmax(evidence, 1)[np.arange(n), voxels.labels].mean())


REFERENCES = {
    "NCE": nce_reference,
    "LEEP": leep_reference,
    "H-score": h_score_reference,
    "regularised H-score": regularised_h_score_reference,
    "LogME": logme_reference,
    "TransRate": transrate_reference,
    "GBC": gbc_reference,
    "LDA": lda_reference,
}


def range_of(values: np.ndarray, digits: int) -> tuple[str, str]:
    """Median, and the smallest and the largest."""
    low, middle, high = np.quantile(values, (0, 0.5, 1))
    return f"{middle:,.{digits}f}", f"{low:,.{digits}f} to {high:,.{digits}f}"


def compare(size: int, rounds: int, console: Console) -> dict[str, list[float]]:
    """The metrics against their references and against one matrix product; seconds, by round."""
    voxels = draw(size)
    times: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(call())
        times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    resident = jnp.asarray(voxels.features)
    square = jax.jit(lambda f: jnp.matmul(f.T, f, precision="highest"))
    scores, _ = streamed(voxels, size)
    references: dict[str, float] = {}
    jax.block_until_ready(square(resident))
    for _round in range(rounds):
        scores, parts = streamed(voxels, size)
        for part, taken in parts.items():
            times.setdefault(part, []).append(taken)
        timed("product", lambda: square(resident))
        timed("numpy product", lambda: voxels.features.T @ voxels.features)
        for name, reference in REFERENCES.items():
            references[name] = timed(name, lambda reference=reference: reference(voxels))
    taken = {name: np.array(values) for name, values in times.items()}
    ours = sum(taken[part] for part in parts)
    theirs = sum(taken[name] for name in REFERENCES)

    table = Table(title=f"{size:,} voxels, {FEATURES} features, {CLASSES} classes")
    for name in ("what", "ms (median)", "range", "of FᵀF", "range of ratio", "score", "off by"):
        table.add_column(name, justify="left" if name == "what" else "right", no_wrap=True)

    def row(name: str, values: np.ndarray, *more: str) -> None:
        of_product = range_of(values / taken["product"], 2)
        table.add_row(name, *range_of(1e3 * values, 1), *of_product, *more)

    for name, expected in references.items():
        found = float(scores[name])
        row(f"numpy: {name}", taken[name], f"{found:.5g}", f"{abs(found - expected):.0e}")
    row("numpy: all", theirs)
    table.add_section()
    for part in parts:
        row(f"jaxfer: {part}", taken[part])
    row("jaxfer: all", ours)
    table.add_section()
    row("FᵀF, float32, jax", taken["product"])
    row("FᵀF, float32, numpy", taken["numpy product"])
    console.print(table)
    for name, ratio in (
        ("numpy: all / jaxfer: all", theirs / ours),
        ("jaxfer: all / FᵀF of jax", ours / taken["product"]),
        ("jaxfer: features / FᵀF of jax", taken["features"] / taken["product"]),
    ):
        console.print(f"{name}: {' ('.join(range_of(ratio, 2))}), round by round")
    return {name: values.tolist() for name, values in taken.items()}


def stream(size: int) -> None:
    """Print time and peak memory of a stream as JSON; the voxels repeat, so that they fit."""
    voxels = draw(4 * BATCH)
    streamed(voxels, 4 * BATCH)
    _, parts = streamed(voxels, size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"seconds": sum(parts.values()), "peak": peak}, sys.stdout)


def grow(largest: int, rounds: int, console: Console) -> list[dict[str, Any]]:
    """Streams of more and more voxels, each in a process of its own; seconds and MiB, by round."""
    found: dict[int, list[dict[str, float]]] = {}
    for _round in range(rounds):
        for size in [s for s in STREAMS if s <= largest]:
            command = [sys.executable, __file__, f"--stream={size}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.setdefault(size, []).append(json.loads(done.stdout))
    table = Table(title="Streams")
    for name in ("voxels", "ns per voxel", "range", "of the first", "range", "MiB", "of the first"):
        table.add_column(name, justify="right", no_wrap=True)
    pace = {k: np.array([1e9 * each["seconds"] / k for each in v]) for k, v in found.items()}
    peak = {k: np.array([each["peak"] for each in v]) for k, v in found.items()}
    first = min(found, default=0)
    for size in found:
        table.add_row(
            f"{size:,}",
            *range_of(pace[size], 0),
            *range_of(pace[size] / pace[first], 2),
            range_of(peak[size], 0)[0],
            range_of(peak[size] / peak[first], 2)[0],
        )
    console.print(table)
    return [{"voxels": size, "rounds": each} for size, each in found.items()]


def transport(size: int, console: Console) -> list[dict[str, float]]:
    """F-OTCE against POT's exact plan of the same pixels."""
    try:
        import ot
    except ImportError:
        console.print("POT is not installed: nothing to compare F-OTCE with")
        return []
    voxels = draw(2 * size)
    source, target = (Voxels(*(x[half] for x in voxels)) for half in (np.s_[:size], np.s_[size:]))

    def both(call: Callable[[], Any]) -> tuple[Any, float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(call())
        return result, time.perf_counter() - wall, time.process_time() - cpu

    def exact() -> float:
        cost = ot.dist(source.features.astype(np.float64), target.features.astype(np.float64))
        mass = np.full(size, 1 / size)
        plan = ot.emd(mass, mass, cost, numItermax=10**8)
        rows, columns = np.nonzero(plan)
        joint = np.zeros((CLASSES, CLASSES))
        np.add.at(joint, (source.labels[rows], target.labels[columns]), plan[rows, columns])
        conditional = joint / joint.sum(1, keepdims=True)
        return -float((joint * np.log(np.where(joint > 0, conditional, 1))).sum())

    def score(epsilon: float) -> Any:
        return f_otce(
            source.features,
            source.labels,
            target.features,
            target.labels,
            num_source_classes=CLASSES,
            num_classes=CLASSES,
            epsilon=epsilon,
        )

    jax.block_until_ready(score(0.5))
    table = Table(title=f"F-OTCE, {size:,} pixels of each side, {FEATURES} features")
    for name in ("plan", "s", "s of processor", "sweeps", "H(Yt|Ys)", "off by", "times faster"):
        table.add_column(name, justify="left" if name == "plan" else "right", no_wrap=True)
    expected, wall, cpu = both(exact)
    table.add_row("POT emd", f"{wall:.1f}", f"{cpu:.1f}", "", f"{expected:.5f}", "", "")
    rows = [{"epsilon": 0.0, "wall": wall, "cpu": cpu, "entropy": expected}]
    for epsilon in EPSILONS:
        found, own_wall, own_cpu = both(lambda epsilon=epsilon: score(epsilon))
        entropy = float(found.w_t)
        table.add_row(
            f"ε = {epsilon}" + ("" if found.converged else ", not converged"),
            f"{own_wall:.1f}",
            f"{own_cpu:.1f}",
            str(int(found.iterations)),
            f"{entropy:.5f}",
            f"{entropy / expected - 1:+.2%}",
            f"{wall / own_wall:.1f}",
        )
        rows.append({"epsilon": epsilon, "wall": own_wall, "cpu": own_cpu, "entropy": entropy})
    console.print(table)
    return rows


def main(_: list[str]) -> None:
    if _STREAM.value is not None:
        stream(_STREAM.value)
        return
    console = Console()
    console.print(f"{jax.default_backend()}, {jax.local_device_count()} device(s)")
    # A process starts with the peak memory of the one that started it: streams come first.
    results: dict[str, Any] = {"streams": grow(_LARGEST.value, _ROUNDS.value, console)}
    results["comparison"] = compare(-(-_VOXELS.value // BATCH) * BATCH, _ROUNDS.value, console)
    if _PIXELS.value:
        results["transport"] = transport(_PIXELS.value, console)
    if _JSON.value is not None:
        Path(_JSON.value).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
