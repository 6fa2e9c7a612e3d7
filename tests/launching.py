"""Launches as a user makes them: real processes in the project's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

Launch = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """The settings of jax that a user's shell has: none."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    return kept | {"COLUMNS": "160", "PYTHON": sys.executable}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user does."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m jaxfer.launch``."""
    return run(sys.executable, "-m", "jaxfer.launch", *arguments)
