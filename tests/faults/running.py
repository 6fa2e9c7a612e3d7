"""Launches that are to be disturbed, and what must not depend on it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests.launching import ROOT, environment

ARGUMENTS = (
    "--config=configs/demo.py:tiny",
    "--config.stages=('prepare','pretrain','select','finetune','evaluate')",
    "--config.finetune.methods=('scratch','weighted')",
    "--config.finetune.steps=30",
    "--config.run.checkpoint_every=4",
    "--config.augment.scale=0.1",
)
FIRST = Path("finetune/scratch/seed0")
"""The fine-tuning that comes first."""


@dataclass(frozen=True)
class Running:
    """A launch under way."""

    process: subprocess.Popen[str]
    workdir: Path

    def until(self, happened: Callable[[], bool], seconds: float = 300.0) -> None:
        """Waits for something the launch is to do."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.process.communicate()[1][-3000:]
            assert time.monotonic() < end
            time.sleep(0.01)

    def until_step(self, step: int) -> None:
        """Waits until the first fine-tuning has recorded a step."""
        self.until(lambda: last_step(self.workdir / FIRST) >= step)

    def end(self, seconds: float = 180.0) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


def last_step(folder: Path) -> int:
    """The last whole record of a training; 0 before the first."""
    try:
        text = (folder / "metrics.jsonl").read_text()
    except OSError:
        return 0
    lines = text[: text.rfind("\n") + 1].splitlines()
    return json.loads(lines[-1])["step"] if lines else 0


def start(workdir: Path, *arguments: str, before: str = "") -> Running:
    """A launch in the background, after a command of the shell."""
    launch = [sys.executable, "-m", "jaxfer.launch", *ARGUMENTS, *arguments]
    process = subprocess.Popen(
        ["bash", "-c", f'{before or ":"}; exec "$@"', "bash", *launch, f"--workdir={workdir}"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return Running(process, workdir)


STARTED: list[subprocess.Popen[str]] = []
"""All that was started; what still runs at the end of a test is killed."""


def outcome(workdir: Path) -> dict[str, bytes]:
    """All that must not depend on how often a run was stopped, by file."""
    patterns = ("finetune/*/*/metrics.jsonl", "evaluate/metrics.csv", "evaluate/summary.json")
    files = [p for pattern in patterns for p in workdir.glob(pattern)]
    files += (workdir / "evaluate" / "predictions").rglob("*.nii.gz")
    found = {str(p.relative_to(workdir)): p.read_bytes() for p in files}
    for checkpoint in workdir.glob("finetune/*/*/checkpoint"):
        found[str(checkpoint.relative_to(workdir))] = parameters(checkpoint)
    assert len(found) == 2 + 1 + 1 + 2 * 2 + 2
    return found


def parameters(checkpoint: Path) -> bytes:
    """The bytes of a checkpoint's arrays, in the order of their names."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(checkpoint.resolve())
    return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))
