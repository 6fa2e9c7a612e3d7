"""What is found of one score of one source, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxfer.metrics import Score
from jaxfer.metrics.precision import AnyArray


@dataclass(frozen=True)
class Found:
    """One score of one source.

    Attributes:
        score: over every voxel, or the mean over the repetitions that have one; NaN without.
        reasons: why it is NaN, or what to know before trusting it.
        n_used: voxels that it is made of; of the repetition with the fewest.
        n_invalid: voxels that could not be used; of the repetition with the most.
        balanced: as if every class of the target had the same share; NaN for samples, which are
            drawn so.
        draws: scores of bootstrap samples of the subjects, the same for every source; None for
            samples.
        repetitions: scores of samples of the voxels, the same for every source; None where every
            voxel is seen.
    """

    score: float
    reasons: tuple[str, ...] = ()
    n_used: float = 0.0
    n_invalid: float = 0.0
    balanced: float = math.nan
    draws: Float[AnyArray, " draws"] | None = None
    repetitions: Float[np.ndarray, " k"] | None = None

    def __float__(self) -> float:
        return self.score

    @property
    def standard_error(self) -> float:
        """Of the mean over the repetitions: of sampling voxels, not of drawing other subjects."""
        if self.repetitions is None:
            return math.nan
        defined = self.repetitions[np.isfinite(self.repetitions)]
        if len(defined) < 2:
            return math.nan
        return float(defined.std(ddof=1) / len(defined) ** 0.5)


def missing(reason: str) -> Found:
    """A score that could not be computed."""
    return Found(math.nan, (reason,))


def over_repetitions(scores: Sequence[Score]) -> Found:
    """The mean of the scores of the repetitions."""
    values = np.array([float(score) for score in scores])
    defined = values[np.isfinite(values)]
    reasons = list(dict.fromkeys(reason for score in scores for reason in score.reasons))
    if 0 < len(defined) < len(values):
        reasons.append(f"{len(values) - len(defined)} of {len(values)} repetitions without a score")
    return Found(
        float(defined.mean()) if len(defined) else math.nan,
        tuple(reasons),
        n_used=min(float(score.n_used) for score in scores),
        n_invalid=max(float(score.n_invalid) for score in scores),
        repetitions=values,
    )


def at(stacked: Any, place: int) -> Score:
    """One score of several in one `Score`."""
    return Score(*(np.asarray(leaf)[place] for leaf in stacked))
