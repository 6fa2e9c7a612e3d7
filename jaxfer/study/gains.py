"""By how much one method of a study beats another, paired, and how sure that is.

What is compared has the same target, source, shots, few-shot subset, seeds and test subjects. The
interval draws few-shot subsets, sources and test subjects again, each with replacement:
fine-tunings on one subset are no independent ones, nor are those from one source or the measures of
one patient. Sources are drawn once for all targets, since a source that is good on one may be good
on the next; subsets and subjects are each target's own. Targets are not drawn, few as they are:
what holds here is a mean over these targets. Of a handful of units such intervals are too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxfer.metrics.claims import verdict
from jaxfer.metrics.uncertainty import interval

Table = Float[np.ndarray, "sources subsets subjects"]
"""A measure of one method on one target; NaN where there is none."""


class PairedGain(NamedTuple):
    """A mean difference.

    Attributes:
        value: mean over each target's sources, subsets and subjects, then over the targets; NaN
            where nothing is compared.
        low, high: 95 % percentile interval over the draws that compare something on every target.
        undefined_draws: share of the others.
        pairs: mean difference by target and source; NaN where nothing is compared.
        compared: combinations of target, source and subset that both methods have.
        drawn: fewest subsets or subjects that a target has; of one alone nothing is told.
    """

    value: float
    low: float
    high: float
    undefined_draws: float
    pairs: Mapping[tuple[str, str], float]
    compared: int
    drawn: int

    @property
    def verdict(self) -> str:
        """Of the claim that the first method is better: by the rule of `jaxfer.metrics.claims`."""
        return verdict(self.low, self.high, self.undefined_draws if self.drawn > 1 else 1.0)

    @property
    def positive(self) -> tuple[int, int]:
        """Pairs of source and target that gain, and pairs."""
        known = [v for v in self.pairs.values() if not np.isnan(v)]
        return sum(v > 0 for v in known), len(known)


def paired_gain(
    differences: Mapping[str, Table],
    sources: Mapping[str, Sequence[str]],
    *,
    seed: int = 0,
    draws: int = 2000,
) -> PairedGain:
    """The mean of differences and its interval.

    Args:
        differences: first method minus second, by target.
        sources: names of the tables' sources, by target.
        seed: of the draws.
        draws: how many.
    """
    known = {name: _compared(t) for name, t in differences.items() if not np.isnan(t).all()}
    pairs = {
        (name, source): _mean(own)
        for name, table in known.items()
        for source, own in zip(sources[name], table, strict=True)
    }
    if not known:
        return PairedGain(np.nan, np.nan, np.nan, 1.0, pairs, 0, 0)
    rng = np.random.default_rng(seed)
    everyone = sorted({source for name in known for source in sources[name]})
    of_sources = _counts(rng, len(everyone), draws)
    means = [
        _draws(table, of_sources[:, [everyone.index(s) for s in sources[name]]], rng)
        for name, table in known.items()
    ]
    ends = interval(np.mean(means, axis=0))
    return PairedGain(
        value=float(np.mean([_mean(table) for table in known.values()])),
        low=float(ends.low),
        high=float(ends.high),
        undefined_draws=float(ends.undefined),
        pairs=pairs,
        compared=sum(int((~np.isnan(t)).any(-1).sum()) for t in known.values()),
        drawn=min(min(table.shape[1:]) for table in known.values()),
    )


def _compared(table: Table) -> Float[np.ndarray, "_ _ _"]:
    """Without subsets and subjects that hold nothing: drawn, they would make other draws empty."""
    there = ~np.isnan(table)
    return table[:, there.any((0, 2))][:, :, there.any((0, 1))]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def _counts(rng: np.random.Generator, size: int, draws: int) -> Float[np.ndarray, "draws size"]:
    """How often each draw with replacement holds each of so many units."""
    return rng.multinomial(size, np.full(size, 1 / size), size=draws).astype(float)


def _draws(
    table: Table, of_sources: Float[np.ndarray, "draws sources"], rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """The mean in every draw of sources, subsets and subjects; what is missing counts nowhere."""
    of_subsets, of_subjects = (_counts(rng, size, len(of_sources)) for size in table.shape[1:])
    there = ~np.isnan(table)

    def total(values: np.ndarray) -> Float[np.ndarray, " draws"]:
        by_subject = np.einsum("sbn,dn->dsb", values, of_subjects)
        return np.einsum("dsb,ds,db->d", by_subject, of_sources, of_subsets)

    with np.errstate(invalid="ignore"):
        return np.asarray(total(np.where(there, table, 0.0)) / total(there.astype(float)))
