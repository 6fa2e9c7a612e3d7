"""The grid of a study."""

from __future__ import annotations

import pytest
from ml_collections import ConfigDict

from jaxfer.config import default_config
from jaxfer.study.cells import cells_of, grid, groups, pool
from jaxfer.study.settings import group_config, settings_mark
from jaxfer.tasks import Task

TARGETS = ("mine/a/t1/core", "mine/b/t2/core")


@pytest.fixture
def config() -> ConfigDict:
    found = default_config()
    found.name = "some"
    found.stages = ("study",)
    found.target = TARGETS[0]
    found.sources = ("mine/c/t1/core", "mine/c/t2/core", TARGETS[1])
    found.datasets.mine = {"layout": "msd", "folder": "Mine"}
    found.data.test_subjects = 3
    found.study.targets = TARGETS
    found.study.shots = (3, 5)
    found.study.subsets = (0, 4)
    found.study.pretrainings = (0, 7)
    found.study.methods = ("scratch", "scratch_ce", "plain", "weighted")
    found.study.repeats = 2
    return found


def test_every_combination_stands_once(config: ConfigDict) -> None:
    cells = grid(config)
    # Of three sources the second target is one itself.
    started = (3 + 2) * 2 * 2 * 2 * 2 * 2
    scratch = 2 * 2 * 2 * 2 * 2
    assert len(cells) == len(set(cells)) == started + scratch
    assert len({cell.slug for cell in cells}) == len(cells)
    assert grid(config) == cells


def test_a_target_is_none_of_its_own_sources(config: ConfigDict) -> None:
    assert [t.name for t in pool(config, Task.parse(TARGETS[0]))] == list(config.sources)
    assert TARGETS[1] not in [t.name for t in pool(config, Task.parse(TARGETS[1]))]
    assert all(cell.source != cell.group.target for cell in grid(config))


def test_scratch_is_done_once_whatever_the_sources_and_pretrainings(config: ConfigDict) -> None:
    fresh = ("scratch", "scratch_ce")
    scratch = [cell for cell in grid(config) if cell.method in fresh]
    keys = [(c.method, c.group.target, c.group.shots, c.group.subset, c.seed) for c in scratch]
    assert len(keys) == len(set(keys)) == 2 * 2 * 2 * 2 * 2
    assert all(c.source is None and c.group.pretraining == 0 for c in scratch)
    assert all(c.source is not None for c in grid(config) if c.method not in fresh)


def test_methods_and_sources_are_paired_by_seed_within_a_subset_alone(config: ConfigDict) -> None:
    of_subset: dict[int, set[int]] = {}
    for group in groups(config):
        cells = cells_of(config, group)
        by_start: dict[tuple[str, object], list[int]] = {}
        for cell in cells:
            by_start.setdefault((cell.method, cell.source), []).append(cell.seed)
        assert len({tuple(seeds) for seeds in by_start.values()}) == 1
        of_subset.setdefault(group.subset, set()).update(cell.seed for cell in cells)
    assert of_subset == {0: {0, 1}, 4: {4000, 4001}}


def test_all_targets_are_seen_before_the_second_subset(config: ConfigDict) -> None:
    order = groups(config)
    assert [(g.subset, g.pretraining) for g in order[:5]] == [
        (0, 0),
        (0, 0),
        (0, 7),
        (0, 7),
        (4, 0),
    ]
    assert {g.target.name for g in order[:2]} == set(TARGETS)


def test_a_group_is_an_ordinary_configuration(config: ConfigDict) -> None:
    config.study.overrides = (
        f"{TARGETS[1]} data.spacing=(2.0, 2.0, 2.0)",
        f"{TARGETS[1]} finetune.steps=7",
    )
    group = next(g for g in groups(config) if g.target.name == TARGETS[1] and g.shots == 5)
    own = group_config(config.lock(), group, "/store")
    assert own.target == TARGETS[1]
    assert own.sources == ("mine/c/t1/core", "mine/c/t2/core")
    assert (own.data.train_subjects, own.data.subset, own.pretrain.seed) == (5, 0, 0)
    assert (own.select.modality, own.select.roi_keep) == ("none", 0)
    assert own.data.spacing == (2.0, 2.0, 2.0)
    assert own.finetune.steps == 7
    assert own.data.cache == "/store"
    assert own.is_locked
    # The study's own is as it was, and so is another target's.
    assert config.data.spacing == (1.0, 1.0, 1.0)
    assert group_config(config, groups(config)[0], "/store").data.spacing == (1.0, 1.0, 1.0)


def test_the_mark_of_the_settings_heeds_what_decides_numbers_alone(config: ConfigDict) -> None:
    group = groups(config)[0]
    mark = settings_mark(group_config(config, group, "here"))
    assert settings_mark(group_config(config, group, "there")) == mark
    config.run.log_every = 3
    config.data.root = "elsewhere"
    config.study.methods = ("plain",)
    config.study.repeats = 1
    config.sources = config.sources[:2]
    assert settings_mark(group_config(config, group, "here")) == mark
    for section, field, value in (
        ("finetune", "steps", 3),
        ("evaluate", "mirror", True),
        ("model", "patch", (32, 32)),
        ("data", "spacing", (2.0, 2.0, 2.0)),
        ("pretrain", "learning_rate", 1e-4),
    ):
        before = config[section][field]
        config[section][field] = value
        assert settings_mark(group_config(config, group, "here")) != mark, field
        config[section][field] = before
    other = [g for g in groups(config) if g != group]
    assert mark not in {settings_mark(group_config(config, g, "here")) for g in other}
