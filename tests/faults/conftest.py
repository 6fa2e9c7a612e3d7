"""Real processes, real signals: a toy run that has all but its fine-tuning, to be disturbed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.running import STARTED, outcome, start
from tests.launching import Launch


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


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
