"""The tables of a study, results.csv and scores.csv, as arrays that can be compared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from page_parts import lines_of

from jaxfer.metrics import scored_by
from jaxfer.metrics.registry import METRICS

METHOD = "plain"
COSTS = ("selection_seconds", "finetune_seconds")

Block = tuple[str, str, str]
"""Few-shot subset, pre-training and seed, which all sources share."""


@dataclass(frozen=True)
class Study:
    """The tables of a study as arrays.

    Attributes:
        targets, sources: names, sorted; a target with several numbers of shots is several.
        performance: Dice by target, source and subject, mean over the blocks; NaN where there is
            none.
        replicates: for each target, Dice by source and block, mean over the subjects.
        scores: oriented so that higher is better, by name, of targets by sources, mean over subsets
            and pre-trainings.
        of_groups: the same for each target, subset and pre-training, with that group's truth.
        scratch: mean Dice from a random start, by target.
        collapsed: share of the fine-tunings that lost a class, by target.
        costs: mean seconds by name.
        left_out: targets without a block that all of their sources have, and blocks left out.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    performance: np.ndarray
    replicates: tuple[np.ndarray, ...]
    scores: Mapping[str, np.ndarray]
    of_groups: tuple[tuple[Mapping[str, np.ndarray], np.ndarray], ...]
    scratch: tuple[float, ...]
    collapsed: tuple[float, ...]
    costs: Mapping[str, float]
    left_out: tuple[str, ...]

    def parts(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Whether target and source have the same part of their names: of targets by sources."""
        mine, theirs = (
            np.array([name.split(" ")[0].split("/")[place] for name in names])
            for names in (self.targets, self.sources)
        )
        return mine[:, None], theirs[None, :]

    @property
    def same_modality(self) -> np.ndarray:
        """Of targets by sources."""
        mine, theirs = self.parts(2)
        return np.asarray(mine == theirs)

    @property
    def same_roi(self) -> np.ndarray:
        """Of targets by sources, by the RoI's name."""
        mine, theirs = self.parts(3)
        return np.asarray(mine == theirs)


def _value(text: str) -> float:
    return float(text) if text else math.nan


def mean_of(values: Iterable[float]) -> float:
    """Of those that are defined; NaN without any."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _sign(score: str) -> int:
    """1 where higher is better, −1 where lower is."""
    if score.partition("@")[0] in METRICS:
        return scored_by(score)[0].sign
    return -1 if score == "modality_distance" else 1


def read_study(folder: Path) -> Study:
    """The study whose tables lie in a folder."""
    results = [r for r in lines_of(folder / "results.csv") if r["method"] in (METHOD, "scratch")]
    several = len({r["shots"] for r in results}) > 1

    def target_of(row: Mapping[str, str]) -> str:
        return f"{row['target']} ({row['shots']} shots)" if several else row["target"]

    dice: dict[str, dict[str, dict[Block, dict[str, float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    scratch: dict[str, list[float]] = defaultdict(list)
    lost: dict[str, list[float]] = defaultdict(list)
    for row in results:
        if row["source"]:
            block = (row["subset"], row["pretraining"], row["seed"])
            dice[target_of(row)][row["source"]][block][row["subject"]] = _value(row["dice"])
            lost[target_of(row)].append(float(row["collapsed"]))
        else:
            scratch[target_of(row)].append(_value(row["dice"]))
    left_out, blocks, subjects = [], {}, {}
    for target, of_sources in sorted(dice.items()):
        every = set().union(*of_sources.values())
        shared = sorted(set.intersection(*(set(b) for b in of_sources.values())))
        cells = [cell for own in of_sources.values() for b, cell in own.items() if b in shared]
        whole = [
            s
            for s in sorted(set().union(*cells))
            if all(not math.isnan(cell.get(s, math.nan)) for cell in cells)
        ]
        if not shared or not whole:
            left_out.append(f"{target}: no block and subject that all of its sources have")
            continue
        if missing := len(every) - len(shared):
            left_out.append(f"{target}: {missing} of {len(every)} blocks, which some sources lack")
        blocks[target], subjects[target] = shared, whole
    targets = tuple(blocks)
    sources = tuple(sorted({s for t in targets for s in dice[t]}))
    most = max(map(len, subjects.values()))
    performance = np.full((len(targets), len(sources), most), np.nan)
    replicates = []
    for t, target in enumerate(targets):
        table = np.full((len(sources), len(blocks[target])), np.nan)
        for s, source in enumerate(sources):
            if source not in dice[target]:
                continue
            own = np.array(
                [[dice[target][source][b][n] for n in subjects[target]] for b in blocks[target]]
            )
            performance[t, s, : own.shape[1]] = own.mean(0)
            table[s] = own.mean(1)
        replicates.append(table)
    found = _scores(folder, target_of, targets, sources, blocks)
    return Study(
        targets=targets,
        sources=sources,
        performance=performance,
        replicates=tuple(replicates),
        scores=found[0],
        of_groups=_of_groups(found[1], targets, sources, blocks, replicates),
        scratch=tuple(mean_of(scratch[t]) for t in targets),
        collapsed=tuple(mean_of(lost[t]) for t in targets),
        costs=found[2],
        left_out=tuple(left_out),
    )


_OfGroups = dict[tuple[str, str, str], dict[str, dict[str, float]]]


def _scores(
    folder: Path,
    target_of: Callable[[Mapping[str, str]], str],
    targets: Sequence[str],
    sources: Sequence[str],
    blocks: Mapping[str, Sequence[Block]],
) -> tuple[dict[str, np.ndarray], _OfGroups, dict[str, float]]:
    """Oriented scores, by name; the same by (target, subset, pre-training); and mean costs."""
    of_groups: _OfGroups = defaultdict(lambda: defaultdict(dict))
    costs: dict[str, list[float]] = defaultdict(list)
    for row in lines_of(folder / "scores.csv"):
        target, group = target_of(row), (row["subset"], row["pretraining"])
        name, value = row["score"], _value(row["value"])
        if name in COSTS:
            costs[name].append(value)
        # Scores of a balanced target are the same metrics once more.
        elif not name.endswith("_balanced") and group in {b[:2] for b in blocks.get(target, ())}:
            of_groups[(target, *group)][name][row["source"]] = _sign(name) * value
    names = sorted({name for group in of_groups.values() for name in group})
    scores = {}
    for name in names:
        table = np.full((len(targets), len(sources)), np.nan)
        for t, target in enumerate(targets):
            own = [g[name] for key, g in of_groups.items() if key[0] == target and name in g]
            for s, source in enumerate(sources):
                table[t, s] = mean_of(group.get(source, math.nan) for group in own)
        scores[name] = table
    return scores, of_groups, {name: mean_of(values) for name, values in costs.items()}


def _of_groups(
    groups: _OfGroups,
    targets: Sequence[str],
    sources: Sequence[str],
    blocks: Mapping[str, Sequence[Block]],
    replicates: Sequence[np.ndarray],
) -> tuple[tuple[dict[str, np.ndarray], np.ndarray], ...]:
    """Scores and truth of each few-shot subset and pre-training, as a user would meet them."""
    found = []
    for (target, *group), scores in sorted(groups.items()):
        columns = [i for i, b in enumerate(blocks[target]) if list(b[:2]) == group]
        truth = replicates[targets.index(target)][:, columns].mean(1)
        values = {
            name: np.array([own.get(source, math.nan) for source in sources])
            for name, own in scores.items()
        }
        found.append((values, truth))
    return tuple(found)
