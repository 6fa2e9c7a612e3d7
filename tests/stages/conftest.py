"""Launches as a user makes them: real processes, real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Launch = Callable[..., subprocess.CompletedProcess[str]]


def _launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    return subprocess.run(
        [sys.executable, "-m", "jaxfer.launch", *arguments],
        cwd=ROOT,
        env=environment | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Runs ``python -m jaxfer.launch`` in the project's folder."""
    return _launch


@pytest.fixture(scope="session")
def demo(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished toy run of the demo."""
    workdir = tmp_path_factory.mktemp("runs") / "demo"
    done = launch("--config=configs/demo.py:tiny", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "report:" in done.stdout
    return workdir
