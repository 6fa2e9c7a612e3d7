"""Real processes, real signals: a toy run that has all but its fine-tuning, to be disturbed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launching import ROOT, Launch, environment

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

    def until(self, happened: Callable[[], bool], seconds: float = 120.0) -> None:
        """Waits for something the launch is to do."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.process.communicate()[1][-3000:]
            assert time.monotonic() < end
            time.sleep(0.01)

    def until_step(self, step: int) -> None:
        """Waits until the first fine-tuning has recorded a step."""
        self.until(lambda: last_step(self.workdir / FIRST) >= step)

    def end(self, seconds: float = 60.0) -> tuple[int, str, str]:
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


def start(workdir: Path, *arguments: str, **settings: object) -> Running:
    """A launch in the background."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxfer.launch", *ARGUMENTS, *arguments, f"--workdir={workdir}"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )
    return Running(process, workdir)


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
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(checkpoint.resolve())
    return b"".join(bytes(memoryview(jax.device_get(leaf))) for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="session")
def pretrained(launch: Launch, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run with its sources and its ranking, not fine-tuned."""
    workdir = tmp_path_factory.mktemp("faults") / "pretrained"
    left_out = shutil.ignore_patterns("store", "finetune", "evaluate", "report*", "risk")
    shutil.copytree(demo, workdir, ignore=left_out)
    (workdir / "store").symlink_to(demo / "store")
    return workdir


@pytest.fixture
def workdir(pretrained: Path, tmp_path: Path) -> Path:
    """A copy of the run to be disturbed."""
    copy = tmp_path / "run"
    shutil.copytree(pretrained, copy, symlinks=True)
    return copy


@pytest.fixture(scope="session")
def undisturbed(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outcome of the run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("faults") / "undisturbed"
    shutil.copytree(pretrained, workdir, symlinks=True)
    status, _, told = start(workdir).end(300)
    assert status == 0, told[-3000:]
    return outcome(workdir)
