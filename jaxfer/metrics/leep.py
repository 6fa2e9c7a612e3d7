"""LEEP: how well the source's own output predicts the target's labels, as log-likelihood.

Two passes over the voxels, since the mean of logarithms is no function of the joint table:

    stats = stats.update(log_probs, labels)                                    over all batches
    log_conditional = conditional_log_probs(stats)
    predictions = predictions.update(log_probs, labels, log_conditional)       over all batches
    leep_from_statistics(predictions)
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.entropy import negative_conditional_entropy
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.prediction import PredictionStatistics, conditional_log_probs
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.statistics import LabelStatistics
from jaxfer.metrics.validation import num_channels


def leep(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
) -> Score:
    """Log expected empirical prediction, (1/n) Σ_i log Σ_z P(y_i|z) θ_i(z).

    Higher is better, within [−H(Y), 0]; a source that ignores the image scores −H(Y). Scores of
    different targets do not compare: H(Y) differs. Nguyen et al., ICML 2020 (arXiv 2002.12462).

    We depart from published code in that everything past the table stays in log space (no
    underflow, no added constant), a source class without mass is dropped (elsewhere NaN), and one
    target class alone gives NaN (elsewhere 0, the maximum).

    Args:
        log_probs: log-probabilities of the source's classes, natural logarithm, −inf is allowed.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.

    Returns:
        The score in nats.

    Raises:
        ValueError: shapes disagree; outside `jit`, also for labels out of range and for rows that
            are no log-probabilities.
    """
    stats = LabelStatistics.zeros(num_classes, num_channels(log_probs, "log_probs"))
    stats = stats.update(log_probs, labels, mask=mask)
    predictions = PredictionStatistics.zeros(num_classes).update(
        log_probs, labels, conditional_log_probs(stats), mask=mask
    )
    return leep_from_statistics(predictions)


@compiled_in_float64(cast_back=True)
def leep_from_statistics(stats: PredictionStatistics) -> Score:
    """LEEP from the statistics of the second pass."""
    counts = stats.counts
    return make_score(
        stats.log_sums.sum() / jnp.maximum(counts.sum(), 1),
        class_counts=counts,
        n_invalid=stats.n_invalid,
        flags=flag_where(stats.n_unseen > 0, Flag.UNSEEN_LABELS),
    )


@compiled_in_float64(cast_back=True)
def leep_lower_bound(stats: LabelStatistics) -> Score:
    """−H(Y|Z) of the soft joint table: −H(Y) ≤ it ≤ LEEP, in one pass.

    The bound is Jensen's inequality for the logarithm of the EEP.
    """
    value = negative_conditional_entropy(stats.joint)
    return make_score(value, class_counts=stats.hard_joint.sum(1), n_invalid=stats.n_invalid)


CARD = Metric(
    name="leep",
    meaning="mean log-likelihood of the target's labels under the source's own output",
    needs="probabilities",
    direction="higher",
    range="[-H(Y), 0] nats",
    comparable="within one target, any source",
    cost="O(n S), two passes",
    reference="Nguyen et al., LEEP, ICML 2020, arXiv 2002.12462",
    departure="log space instead of added constants; source classes without mass are dropped "
    "(elsewhere NaN); one target class alone is NaN (elsewhere 0, the maximum)",
    compute=leep,
    statistics=LabelStatistics,
    second_pass=PredictionStatistics,
    finalise=leep_from_statistics,
)
