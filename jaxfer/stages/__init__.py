"""The stages of the main job, their order, and what of them is fresh, half done or stale."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from jaxfer import __version__, hosts
from jaxfer.config import fingerprint, plain
from jaxfer.errors import UserError
from jaxfer.stages import evaluate, finetune, prepare, pretrain, report, select, study
from jaxfer.stages.run import Run, changes, read_json, write_json
from jaxfer.stages.training import REVISION


@dataclass(frozen=True)
class Stage:
    """One resumable step.

    Attributes:
        name: as in ``config.stages``; also its folder in the workdir.
        run: does the work and returns one line that says what came of it.
        settings: the fields of the configuration that decide its outcome, beside the identity of
            the run.
        needs: the stages whose outputs it reads.
        inputs: what else decides its outcome, such as files of the data sets.
        together: of several processes all take part; else the leading one works for all.
        shared: several launches may do it at once; it has records of its own, and none as a whole.
    """

    name: str
    run: Callable[[Run], str]
    settings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    inputs: Callable[[Run], Any] = lambda _: None
    together: bool = False
    shared: bool = False


def _study(run: Run) -> str:
    return study.run(run, run_stages)


STAGES = (
    Stage("verify", prepare.verify, inputs=prepare.inputs),
    Stage("prepare", prepare.run, inputs=prepare.inputs),
    Stage("pretrain", pretrain.run, ("pretrain", "augment", "shelf"), ("prepare",), together=True),
    Stage("select", select.run, ("select", "foreign"), ("prepare", "pretrain"), select.inputs),
    Stage(
        "finetune",
        finetune.run,
        ("finetune", "augment", "risk", "evaluate"),
        ("prepare", "pretrain", "select"),
        together=True,
    ),
    Stage("evaluate", evaluate.run, ("evaluate",), ("prepare", "pretrain", "finetune")),
    Stage("report", report.run, inputs=report.inputs),
    Stage("study", _study, shared=True),
)


_DONE = {"fingerprint": str, "settings": dict, "outcome": str}


def _settings(run: Run, stage: Stage) -> dict[str, Any]:
    return {key: plain(run.config[key]) for key in stage.settings}


def _record(run: Run, stage: Stage) -> dict[str, Any] | None:
    path = run.workdir / stage.name / "done.json"
    return read_json(path, _DONE) if path.is_file() else None


def _upstream(run: Run, stage: Stage) -> dict[str, str]:
    """Fingerprints of the stages that this one reads; they must be done, with today's settings."""
    found = {}
    for needed in (s for s in STAGES if s.name in stage.needs):
        record = _record(run, needed)
        if record is None:
            raise UserError(
                f"stage '{stage.name}' reads what stage '{needed.name}' writes, "
                "and that is not done",
                found=f"config.stages = {tuple(run.config.stages)}",
                mend=f"--config.stages=\"('{needed.name}','{stage.name}')\", or leave stages out",
            )
        if record["settings"] != _settings(run, needed):
            raise UserError(
                f"stage '{needed.name}' was done with other settings than today's",
                found=record["settings"],
                allowed=_settings(run, needed),
                mend=f"run stage '{needed.name}' again, or go back to its settings",
            )
        found[needed.name] = record["fingerprint"]
    return found


def _why_stale(run: Run, stage: Stage, record: dict[str, Any]) -> str:
    """What has changed since the stage was done."""
    old, new = record["settings"], _settings(run, stage)
    told = changes(old, new, [key for key in new if old.get(key) != new[key]])
    return "; ".join(told) or "its inputs have changed"


def _is_fresh(run: Run, stage: Stage) -> bool:
    """Whether there is nothing to do; what is stale loses its record, and the run says why."""
    record = _record(run, stage)
    upstream = _upstream(run, stage)
    if record is None:
        return False
    if record["fingerprint"] == _fingerprint(run, stage, upstream):
        run.say(f"{stage.name:9} fresh: {record['outcome']}")
        return True
    run.say(f"{stage.name:9} stale: {_why_stale(run, stage, record)}; done again")
    (run.workdir / stage.name / "done.json").unlink()
    return False


def _fingerprint(run: Run, stage: Stage, upstream: dict[str, str]) -> str:
    made_by = [__version__, REVISION]
    return fingerprint(stage.name, made_by, _settings(run, stage), upstream, stage.inputs(run))


def shared(config: ConfigDict) -> bool:
    """Whether other launches may work in the same workdir at the same time."""
    return all(stage.shared for stage in STAGES if stage.name in config.stages)


def run_stages(run: Run, names: Sequence[str]) -> None:
    """Runs the stages of these names in their order; says which are fresh, why others are not."""
    for stage in STAGES:
        if stage.name not in names:
            continue
        if stage.shared:
            run.say(f"{stage.name:9} {stage.run(run)}")
            continue
        if hosts.of_leader(hosts.leads() and _is_fresh(run, stage)):
            continue
        run.interruption.check()
        start = time.monotonic()
        outcome = stage.run(run) if stage.together or hosts.leads() else ""
        seconds = time.monotonic() - start
        if hosts.leads():
            # The inputs are looked at now, not before: the stage may have made some of them.
            record = {
                "fingerprint": _fingerprint(run, stage, _upstream(run, stage)),
                "settings": _settings(run, stage),
                "outcome": outcome,
                "seconds": round(seconds, 1),
            }
            write_json(run.workdir / stage.name / "done.json", record)
            run.say(f"{stage.name:9} {outcome} ({seconds:.0f} s)")
        hosts.wait_for_all(stage.name)
