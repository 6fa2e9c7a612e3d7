"""The ordinary configuration of one group of a study."""

from __future__ import annotations

from ml_collections import ConfigDict

from jaxfer.config import fingerprint, overridden, plain
from jaxfer.study.cells import Group, pool, seeds


def group_config(config: ConfigDict, group: Group, cache: str) -> ConfigDict:
    """What a launch of its own would be given to do the same.

    The selection drops no source: its filters are looked at afterwards.

    Args:
        config: of the study.
        group: one of its groups.
        cache: folder of the store that all groups share.
    """
    own = config.copy_and_resolve_references()
    with own.unlocked():
        own.stages = ("prepare", "pretrain", "select")
        own.target = group.target.name
        own.sources = tuple(task.name for task in pool(config, group.target))
        own.data.cache = cache
        own.data.train_subjects = group.shots
        own.data.subset = group.subset
        own.pretrain.seed = group.pretraining
        own.select.modality = "none"
        own.select.roi_keep = 0
        own.finetune.source = "best"
        own.finetune.path = ()
        own.select.paths = False
        own.finetune.methods = tuple(config.study.methods)
        own.finetune.seeds = tuple(seeds(config, group.subset))
        overridden(own, group.target.name, config.study.overrides)
    return own.lock()


def settings_mark(config: ConfigDict) -> str:
    """Of what, in a group's configuration, decides the measures of its cells.

    What lies where, how a launch goes about it, and which other cells there are decide nothing.
    """
    told = plain(config)
    decisive = ("seed", "target", "datasets", "model", "augment", "pretrain", "risk", "evaluate")
    data = {k: v for k, v in told["data"].items() if k not in ("root", "cache")}
    listed = ("methods", "seeds", "source", "path")
    tuned = {k: v for k, v in told["finetune"].items() if k not in listed}
    return fingerprint([told[key] for key in decisive], data, tuned)
