"""A ranking by several scores at once, and by the images' distance beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxfer.metrics import scored_by
from jaxfer.metrics.aggregation import borda, mean_z
from jaxfer.selection.found import Found
from jaxfer.selection.rank import Candidate

AGGREGATE = "aggregate"
"""The name of the score that several others are put together to."""

DISTANCE = "modality_distance"

_MEANING = {
    "borda": "share of the other sources of the shortlist that a source beats, mean over",
    "zscore": "mean z-score within the shortlist of",
}
_HOW: Mapping[str, Callable[..., Float[np.ndarray, "*k s"]]] = {"borda": borda, "zscore": mean_z}


@dataclass(frozen=True)
class Aggregate:
    """What is put together, and how.

    Attributes:
        scores: names of scores.
        how: 'borda' or 'zscore'.
        distance: whether the images' distance from the target's counts as one of them.
    """

    scores: tuple[str, ...]
    how: str
    distance: bool = False

    @classmethod
    def of(cls, rank_by: str, how: str, modality: str) -> Aggregate:
        """As the configuration says it: ``select.rank_by`` names several scores between ``+``."""
        return cls(tuple(rank_by.split("+")), how, modality == "soft")

    @property
    def names(self) -> tuple[str, ...]:
        """All that counts, each as much as the others."""
        return (*self.scores, *((DISTANCE,) if self.distance else ()))

    @property
    def rank_by(self) -> str:
        """The name of the score that orders the shortlist."""
        return self.scores[0] if len(self.names) == 1 else AGGREGATE

    @property
    def sign(self) -> int:
        """1 where higher is better by that score, −1 where lower is."""
        return scored_by(self.rank_by)[0].sign if len(self.names) == 1 else 1

    @property
    def about(self) -> dict[str, Any]:
        """What it means, as of other scores."""
        return {
            "metric": AGGREGATE,
            "layer": None,
            "direction": "higher",
            "range": "[0, 1]" if self.how == "borda" else "(−∞, ∞)",
            "meaning": f"{_MEANING[self.how]} {', '.join(self.names)}; each counts the same",
            "reference": "",
            "over": "the shortlist",
            "pool_dependent": True,
        }

    @property
    def _neutral(self) -> Bool[np.ndarray, " m"]:
        return np.array([name == DISTANCE for name in self.names])

    def _signs(self) -> Float[np.ndarray, " m"]:
        signs = [-1.0 if n == DISTANCE else float(scored_by(n)[0].sign) for n in self.names]
        return np.array(signs)

    def _values(self, candidate: Candidate) -> list[float]:
        own = {**candidate.scores, DISTANCE: candidate.modality_distance}
        return [float(own[name]) for name in self.names]

    def over(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with the aggregate among their scores, and what it is made of.

        Those that a filter dropped are no part of the pool, and have none; nor has one without any
        of the scores.
        """
        if self.rank_by != AGGREGATE:
            return list(candidates)
        pool = [c for c in candidates if c.kept]
        scores = np.array([self._values(c) for c in pool]).reshape(-1, len(self.names)).T
        oriented = scores * self._signs()[:, None]
        values = iter(_HOW[self.how](oriented, self._neutral) if pool else ())
        found, at = [], 0
        for c in candidates:
            value, why, flags = math.nan, "", c.flags
            if c.kept:
                # Values that rounding alone tells apart are equal.
                column, value = oriented[:, at], round(float(next(values)), 9)
                if np.isnan(column[: len(self.scores)]).all():
                    value = math.nan
                else:
                    why = self._why(oriented, at)
                    flags = (*c.flags, *self._flags(column))
                at += 1
            found.append(replace(c, scores={**c.scores, AGGREGATE: value}, why=why, flags=flags))
        return found

    def _why(self, oriented: Float[np.ndarray, "m s"], at: int) -> str:
        """The source's place by each score."""
        told = []
        for name, row in zip(self.names, oriented, strict=True):
            known = int((~np.isnan(row)).sum())
            if np.isnan(row[at]):
                place = "unknown, counts neither for nor against" if name == DISTANCE else "missing"
            else:
                place = f"{1 + int((row > row[at]).sum())} of {known}"
            told.append(f"{name}: {place}")
        return "; ".join(told)

    def _flags(self, column: Float[np.ndarray, " m"]) -> list[str]:
        absent = [n for n, v in zip(self.names, column, strict=True) if np.isnan(v)]
        return [f"no {n} score: counts as the worst by it" for n in absent if n != DISTANCE]

    def draws(
        self, shortlist: Sequence[Candidate], found: Sequence[Mapping[str, Found]]
    ) -> Float[np.ndarray, "s k"] | None:
        """What ranks the shortlist, in bootstrap samples of the subjects or in repetitions.

        Where some scores have bootstrap samples, the others stay what they are: they have none.
        """
        kinds = {
            kind: [n for n in self.scores if any(getattr(f[n], kind) is not None for f in found)]
            for kind in ("draws", "repetitions")
        }
        kind = "draws" if kinds["draws"] else "repetitions"
        if not kinds[kind]:
            return None
        known = (getattr(f[kinds[kind][0]], kind) for f in found)
        number = len(next(own for own in known if own is not None))
        rows = np.empty((len(self.names), len(shortlist), number))
        for m, name in enumerate(self.names):
            for s, (candidate, own) in enumerate(zip(shortlist, found, strict=True)):
                drawn = getattr(own[name], kind) if name in kinds[kind] else None
                rows[m, s] = self._values(candidate)[m] if drawn is None else np.asarray(drawn)
        if self.rank_by != AGGREGATE:
            return rows[0]
        oriented = np.moveaxis(rows * self._signs()[:, None, None], -1, 0)
        return np.asarray(_HOW[self.how](oriented, self._neutral)).T
