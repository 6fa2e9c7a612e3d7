"""The claims about the methods of a risk study: each a difference of two, with what it is of."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from risk_tables import Methods

from jaxfer.study.gains import PairedGain, Table, paired_gain

FEW = 5
"""Few shots are as many subjects, or fewer."""
SEED = 0
TELLING = 0.1
"""Spread of a map's weights within a class from which on the map says where the risk lies."""
BASE, PUBLISHED = "plain", "plain_ce"
CONTROLS = {
    "weighted": "weighted_shuffled",
    "weighted_positional": "weighted_positional_shuffled",
    "plain_where": "plain_where_shuffled",
    "plain_where_all": "plain_where_all_shuffled",
    "plain_where_lda": "plain_where_lda_shuffled",
    "plain_where_nats": "plain_where_nats_shuffled",
    "plain_where_trusted": "plain_where_trusted_shuffled",
    "plain_where_logme": "plain_where_logme_shuffled",
    "plain_softened": "plain_softened_shuffled",
    "risk_sampled": "risk_sampled_shuffled",
    "risk_sampled_lda": "risk_sampled_lda_shuffled",
}
"""Uses of a map, each with the same map shuffled within class: what is left is *where*."""
USES = ("weighted", "plain_where")
"""The uses of a map that the claims are about: the paper's, and that of a run by default."""
LATER = "plain_where"
"""The one of them that the claims were told of once they were known of the other."""


def uses(found: Methods) -> tuple[str, ...]:
    """Those of ``USES`` that were tried."""
    return tuple(m for m in USES if m in found.methods)


def few(found: Methods) -> tuple[int, ...]:
    """The numbers of shots that are few."""
    return tuple(n for n in found.shots if n <= FEW)


def gain_of(
    found: Methods, first: str, second: str, shots: Collection[int], draws: int
) -> PairedGain:
    """By how much the first method beats the second at some numbers of shots."""
    differences = found.differences(first, second, shots)
    return paired_gain(differences, found.sources, seed=SEED, draws=draws)


def telling(found: Methods, method: str) -> dict[str, Table]:
    """A method minus its control, of the pairs whose maps say where the risk lies."""
    told = found.differences(method, CONTROLS[method], found.shots)
    for target, own in told.items():
        says = [found.spread(method, (target, s)) >= TELLING for s in found.sources[target]]
        told[target] = np.where(np.array(says)[:, None, None], own, np.nan)
    return told


def claims(found: Methods, *, draws: int) -> dict[str, PairedGain]:
    """The claims about a method against another, each above 0 if it is right."""

    def gain(first: str, second: str, shots: Collection[int]) -> PairedGain:
        return gain_of(found, first, second, shots, draws)

    told = {}
    for use in uses(found):
        told[f"(a) `{use}` − mean CE, few shots"] = gain(use, PUBLISHED, few(found))
        told[f"(a) `{use}` − mean CE, all shots"] = gain(use, PUBLISHED, found.shots)
    for use in uses(found):
        told[f"(b) `{use}` − strong base, all shots"] = gain(use, BASE, found.shots)
    for method, control in CONTROLS.items():
        if method in found.methods and control in found.methods:
            name = f"(c) `{method}` − itself shuffled within class"
            told[name] = gain(method, control, found.shots)
    many = tuple(n for n in found.shots if n not in few(found))
    told["(d) gain of (a) `weighted` at few shots − at more"] = paired_gain(
        _more_with_few(found, few(found), many), found.sources, seed=SEED, draws=draws
    )
    return told


def _more_with_few(
    found: Methods, some: Collection[int], many: Collection[int]
) -> dict[str, Table]:
    first, second = (found.differences("weighted", PUBLISHED, n) for n in (some, many))
    # In their own order, by which the draws are made.
    return {target: first[target] - second[target] for target in first if target in second}


def transfers(found: Methods, method: str, *, draws: int) -> dict[tuple[str, str], PairedGain]:
    """A method − from scratch, of every pair of source and target: NTG, below 0 where it hurts."""
    gains = {}
    for target, own in found.differences(method, "scratch", found.shots).items():
        for source, values in zip(found.sources[target], own, strict=True):
            alone = paired_gain({target: values[None]}, {target: (source,)}, seed=SEED, draws=draws)
            if not math.isnan(alone.value):
                gains[target, source] = alone
    return gains


def controlled(found: Methods) -> list[str]:
    """The uses of a map that were tried beside themselves shuffled, and beside the base."""
    return [m for m, control in CONTROLS.items() if {m, control, BASE} <= {*found.methods}]


def winners(found: Methods, *, draws: int) -> list[str]:
    """The uses of a map that lie above the strong base and above themselves shuffled."""
    return [
        method
        for method in controlled(found)
        if all(
            gain_of(found, method, other, found.shots, draws).verdict == "holds"
            for other in (BASE, CONTROLS[method])
        )
    ]
