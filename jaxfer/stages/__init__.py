"""The stages of the main job, their order, and what of them is fresh, half done or stale."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxfer import __version__
from jaxfer.config import fingerprint, plain
from jaxfer.errors import UserError
from jaxfer.stages import evaluate, finetune, prepare, pretrain, report, select
from jaxfer.stages.run import Run, read_json, write_json


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
    """

    name: str
    run: Callable[[Run], str]
    settings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    inputs: Callable[[Run], Any] = lambda _: None


STAGES = (
    Stage("verify", prepare.verify, inputs=prepare.inputs),
    Stage("prepare", prepare.run, inputs=prepare.inputs),
    Stage("pretrain", pretrain.run, ("pretrain", "augment", "shelf"), ("prepare",)),
    Stage("select", select.run, ("select",), ("prepare", "pretrain")),
    Stage(
        "finetune",
        finetune.run,
        ("finetune", "augment", "risk", "evaluate"),
        ("prepare", "pretrain", "select"),
    ),
    Stage("evaluate", evaluate.run, ("evaluate",), ("prepare", "pretrain", "finetune")),
    Stage("report", report.run, inputs=report.inputs),
)


def _settings(run: Run, stage: Stage) -> dict[str, Any]:
    return {key: plain(run.config[key]) for key in stage.settings}


def _record(run: Run, stage: Stage) -> dict[str, Any] | None:
    path = run.workdir / stage.name / "done.json"
    return read_json(path) if path.is_file() else None


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


def run_stages(run: Run) -> None:
    """Runs the configured stages in their order; says which are fresh, and why others are not."""
    for stage in STAGES:
        if stage.name not in run.config.stages:
            continue
        upstream = _upstream(run, stage)
        mark = fingerprint(
            stage.name, __version__, _settings(run, stage), upstream, stage.inputs(run)
        )
        record = _record(run, stage)
        if record is not None and record["fingerprint"] == mark:
            run.say(f"{stage.name:9} fresh: {record['outcome']}")
            continue
        if record is not None:
            run.say(f"{stage.name:9} stale: its settings or inputs have changed; done again")
            (run.workdir / stage.name / "done.json").unlink()
        start = time.monotonic()
        outcome = stage.run(run)
        # The inputs are looked at again: the stage may have made some of them.
        mark = fingerprint(
            stage.name, __version__, _settings(run, stage), upstream, stage.inputs(run)
        )
        seconds = time.monotonic() - start
        write_json(
            run.workdir / stage.name / "done.json",
            {
                "fingerprint": mark,
                "settings": _settings(run, stage),
                "outcome": outcome,
                "seconds": round(seconds, 1),
            },
        )
        run.say(f"{stage.name:9} {outcome} ({seconds:.0f} s)")
