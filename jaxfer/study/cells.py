"""The grid of a study: what is fine-tuned from what, how, on whom; the same for every launch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict

from jaxfer.tasks import Task
from jaxfer.train.methods import METHODS

SEEDS_PER_SUBSET = 1000


@dataclass(frozen=True, order=True)
class Group:
    """The cells that share their data and their source models: one selection.

    Attributes:
        target: to learn.
        shots: subjects to train on.
        subset: which subjects these are.
        pretraining: which network of every source.
    """

    target: Task
    shots: int
    subset: int
    pretraining: int

    @property
    def slug(self) -> str:
        """As one folder name."""
        parts = (f"shots{self.shots}", f"subset{self.subset}", f"pretraining{self.pretraining}")
        return "-".join((self.target.slug, *parts))


@dataclass(frozen=True, order=True)
class Cell:
    """One fine-tuning.

    Attributes:
        group: its data and source models.
        method: how it learns.
        seed: of the order, the augmentation and the new leaves.
        source: that it starts from; None: from random parameters, whatever the pre-training.
    """

    group: Group
    method: str
    seed: int
    source: Task | None

    @property
    def slug(self) -> str:
        """As one folder name."""
        start = self.source.slug if self.source else "none"
        return f"{self.group.slug}-{start}-{self.method}-seed{self.seed}"


def targets(config: ConfigDict) -> list[Task]:
    """The targets of the study, in order."""
    return [Task.parse(name) for name in config.study.targets or (config.target,)]


def pool(config: ConfigDict, target: Task) -> list[Task]:
    """The sources of a target: all of the configuration but the target itself."""
    return [task for task in map(Task.parse, config.sources) if task != target]


def groups(config: ConfigDict) -> list[Group]:
    """The groups in the order in which they are done.

    One subset of every target and the first pre-training come first, so that a study that is
    stopped early has seen all targets.
    """
    study = config.study
    order = itertools.product(study.shots, study.subsets, study.pretrainings, targets(config))
    return [Group(target, shots, subset, again) for shots, subset, again, target in order]


def seeds(config: ConfigDict, subset: int) -> Sequence[int]:
    """Of the fine-tunings on one few-shot subset: the same for all methods and sources, and others
    than on another subset, so that no order of batches can favour a source on all of them."""
    return range(SEEDS_PER_SUBSET * subset, SEEDS_PER_SUBSET * subset + config.study.repeats)


def cells_of(config: ConfigDict, group: Group) -> list[Cell]:
    """The cells of a group: for each seed, every source with every method.

    What starts from random parameters is in the group of the first pre-training, once.
    """
    found = []
    for seed, method in itertools.product(seeds(config, group.subset), config.study.methods):
        starts: Sequence[Task | None] = pool(config, group.target)
        if not METHODS[method].transferred:
            starts = [None] if group.pretraining == config.study.pretrainings[0] else []
        found += [Cell(group, method, seed, source) for source in starts]
    return found


def grid(config: ConfigDict) -> list[Cell]:
    """All cells of a study, in the order in which they are done."""
    return [cell for group in groups(config) for cell in cells_of(config, group)]
