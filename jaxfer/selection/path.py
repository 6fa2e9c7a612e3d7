"""Sequential transfer: by which sources, one trained on after the other, to come to the target.

After SeqTran (arXiv 2410.06892): tasks are places, their affinities distances, and a network goes
from source to source before it comes to the target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
from jaxtyping import Float

INTERMEDIATES = 2
"""Sources, at most, between the one that a path starts from and the target."""

COSTS = ("squares", "largest")
"""The kinds of ``path_cost``."""


@dataclass(frozen=True)
class TaskPath:
    """A way from a source to the target.

    Attributes:
        sources: by number, in the order of training; the first is where the path starts.
        legs: distances from each to the next, the last one to the target.
        cost: of the legs.
    """

    sources: tuple[int, ...]
    legs: tuple[float, ...]
    cost: float


def path_cost(legs: Sequence[float], kind: str) -> float:
    """What a path costs, so that two short legs may be cheaper than a long one.

    Published code adds up the legs, and the direct way too. Distances between tasks nearly obey
    the triangle inequality, so that a sum hardly ever takes a detour. Ours are 'squares', the sum
    of squared legs: an intermediate pays if it lies inside the sphere around the direct leg's
    middle that has this leg as diameter; and 'largest', the longest leg alone: it pays if it is
    nearer to both ends than they are to each other. More legs never make either cheaper.

    Args:
        legs: distances, 0 or more.
        kind: 'squares' or 'largest'.
    """
    return max(legs) if kind == "largest" else math.fsum(leg * leg for leg in legs)


def _walks(
    start: int, between: Float[np.ndarray, "n n"], to_target: Float[np.ndarray, " n"]
) -> Iterator[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Every walk to the target that has all its legs, those of few sources first."""
    others = [i for i in range(len(to_target)) if i != start]
    for number in range(INTERMEDIATES + 1):
        for through in permutations(others, number):
            sources = (start, *through)
            legs = [float(between[a, b]) for a, b in pairwise(sources)]
            legs.append(float(to_target[sources[-1]]))
            if not any(map(math.isnan, legs)):
                yield sources, tuple(legs)


def cheapest_path(
    start: int,
    between: Float[np.ndarray, "n n"],
    to_target: Float[np.ndarray, " n"],
    kind: str,
) -> TaskPath | None:
    """The cheapest of all paths from a source to the target, through at most two other sources.

    The start is given: were it free, the direct way from the source nearest to the target would be
    the cheapest of all by any cost that grows with every leg, as its last leg alone costs more. Of
    paths that cost the same the one through fewer sources wins, then the order of the sources. All
    are looked at: n² for n sources.

    Args:
        start: number of the source.
        between: entry (i, j) is the distance from source i to source j, 0 or more; NaN is not
            walked. The diagonal is not read.
        to_target: distance of each source from the target, likewise.
        kind: of cost, 'squares' or 'largest'.

    Returns:
        None if no path arrives.
    """
    walks = (
        TaskPath(sources, legs, path_cost(legs, kind))
        for sources, legs in _walks(start, between, to_target)
    )
    return min(walks, key=lambda path: path.cost, default=None)
