"""The table of a study of methods, results.csv, as arrays of which any two can be compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from risk_studies import Line

from jaxfer.study.gains import Table
from jaxfer.train.methods import METHODS


@dataclass(frozen=True)
class Methods:
    """Dice of every fine-tuning of a study.

    Attributes:
        sources: of each target, sorted.
        shots: sorted.
        methods: in the order of ``METHODS``.
        dice: by target, shots and method; the mean over pre-trainings and seeds. What starts from
            scratch is the same for every source.
        cells: of each target, shots and method.
        collapsed: how many of them lost a class.
        spreads: by target, source and method, of the maps: how far the weights of a class lie
            apart, relative to their mean; NaN where that was not written down.
    """

    sources: Mapping[str, tuple[str, ...]]
    shots: tuple[int, ...]
    methods: tuple[str, ...]
    dice: Mapping[tuple[str, int, str], Table]
    cells: Mapping[tuple[str, int, str], int]
    collapsed: Mapping[tuple[str, int, str], int]
    spreads: Mapping[tuple[str, str, str], list[float]]

    def of(self, target: str, shots: int, method: str) -> Table | None:
        """One method's Dice; none if it was not tried there."""
        return self.dice.get((target, shots, method))

    def differences(self, first: str, second: str, shots: Collection[int]) -> dict[str, Table]:
        """First minus second method, by target: the mean over the numbers of shots at which both
        were tried, from each source, subset and subject."""
        found = {}
        for target in self.sources:
            own = [
                a - b
                for n in shots
                if (a := self.of(target, n, first)) is not None
                and (b := self.of(target, n, second)) is not None
            ]
            if own:
                found[target] = mean_of(own)
        return found

    def number(self, counts: Mapping[tuple[str, int, str], int], method: str) -> int:
        """A method's cells or collapses over all targets and shots."""
        return sum(n for (_, _, name), n in counts.items() if name == method)

    def spread(self, method: str, pair: tuple[str, str] | None = None) -> float:
        """Of a method's maps on average; NaN if it is known of none.

        Args:
            pair: target and source; None: of all.
        """
        own = [
            spread
            for (*place, name), found in self.spreads.items()
            if name == method and pair in (None, tuple(place))
            for spread in found
        ]
        known = [s for s in own if not math.isnan(s)]
        return float(np.mean(known)) if known else math.nan


def mean_of(tables: Iterable[Table]) -> Table:
    """Of what is there in each place; NaN where nothing is."""
    stacked = np.stack(list(tables))
    there = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, stacked, 0).sum(0) / there.sum(0))


def methods_of(lines: Sequence[Line]) -> Methods:
    """The methods of a table of results."""
    by_target: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_target[line["target"]].append(line)
    sources = {
        target: tuple(sorted({line["source"] for line in own} - {""}))
        for target, own in sorted(by_target.items())
    }
    dice, cells, collapsed = {}, {}, {}
    spreads: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for target, own in by_target.items():
        subsets, subjects = (sorted({line[k] for line in own}) for k in ("subset", "subject"))
        chosen: dict[tuple[str, int, str], list[Line]] = defaultdict(list)
        for line in own:
            chosen[target, int(line["shots"]), line["method"]].append(line)
        for key, some in chosen.items():
            dice[key] = _table(some, sources[target], subsets, subjects)
            lost = {_cell(line): int(line["collapsed"]) for line in some}
            cells[key], collapsed[key] = len(lost), sum(lost.values())
            for line in {_cell(line): line for line in some}.values():
                place = (target, line["source"], line["method"])
                spreads[place].append(float(line.get("map_spread") or "nan"))
    return Methods(
        sources=sources,
        shots=tuple(sorted({int(line["shots"]) for line in lines})),
        methods=tuple(name for name in METHODS if name in {line["method"] for line in lines}),
        dice=dice,
        cells=cells,
        collapsed=collapsed,
        spreads=spreads,
    )


def _cell(line: Line) -> tuple[str, ...]:
    return tuple(line[k] for k in ("subset", "source", "pretraining", "seed"))


def _table(
    lines: Iterable[Line], sources: tuple[str, ...], subsets: list[str], subjects: list[str]
) -> Table:
    values: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for line in lines:
        starts = [sources.index(line["source"])] if line["source"] else range(len(sources))
        for source in starts:
            place = (source, subsets.index(line["subset"]), subjects.index(line["subject"]))
            values[place].append(float(line["dice"]) if line["dice"] else math.nan)
    table = np.full((len(sources), len(subsets), len(subjects)), np.nan)
    for place, own in values.items():
        table[place] = np.mean(own)
    return table
