"""The metric catalogue as a page, from the registry."""

from __future__ import annotations

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


def catalogue() -> str:
    """The page in Markdown: for every metric what its registry card says."""
    parts = [_HEAD]
    for card in METRICS.values():
        rows = {
            "measures": card.meaning,
            "needs": card.needs,
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
