"""The metric catalogue as a page, from the registry."""

from __future__ import annotations

from jaxfer.metrics.card import Metric
from jaxfer.metrics.registry import METRICS

_HEAD = """\
# Metrics

Made from `jaxfer.metrics.registry` by `make docs`; a test keeps it current. n voxels, D features,
C target classes, S source classes, H(Y) the entropy of the target's labels in nats. Scores compare
sources for one target; they are no probabilities and no predicted Dice.

Every metric: absent classes are left out and counted; fewer than two classes, no voxel, or input
that is not finite gives NaN with a reason (`score.reasons`); masked voxels contribute nothing, even
when they hold NaN; logits in the place of log-probabilities, float labels and labels out of range
are errors outside of `jit`.
"""


def _in_a_run(card: Metric) -> str:
    """What the stage select makes the score of, and how sure it says it is."""
    if card.finalise is not None:
        passes = "two passes of the network" if card.name == "lda" else "one pass of the network"
        return f"over every voxel, {passes}; interval by a bootstrap over subjects; also balanced"
    if card.name == "otce":
        return "no score: a run has no auxiliary tasks to fit its coefficients to"
    pool = ", all sources together" if card.pool_dependent else ""
    return f"of sampled voxels{pool}; standard error over the repetitions"


def catalogue() -> str:
    """The page in Markdown: for every metric what its registry card says."""
    parts = [_HEAD]
    for card in METRICS.values():
        rows = {
            "measures": card.meaning,
            "needs": card.needs,
            "in a run": _in_a_run(card),
            "direction": f"{card.direction} is better",
            "range": card.range,
            "comparable": card.comparable,
            "cost": card.cost,
            "reference": card.reference,
            "departure": card.departure,
        }
        table = "\n".join(
            f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows.items()
        )
        parts.append(f"## `{card.name}`\n\n| | |\n|---|---|\n{table}\n")
    return "\n".join(parts)
