"""Kills a toy run at random moments, again and again, and counts the identical endings.

python -m tests.faults.soak [--kills=100] [--seed=0]
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags, logging

from tests.faults.running import outcome, start

_KILLS = flags.DEFINE_integer("kills", 100, "How often to kill.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")


def _fresh(base: Path, workdir: Path) -> None:
    """The prepared run, nothing trained yet."""
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(base, workdir, symlinks=True)


def _whole(workdir: Path) -> float:
    """Runs to the end; seconds."""
    began = time.monotonic()
    status, _, told = start(workdir).end(3600)
    if status:
        raise RuntimeError(told[-3000:])
    return time.monotonic() - began


def _soak(folder: Path, kills: int, moments: random.Random) -> tuple[int, int]:
    """How many runs ended, and how many of them as the undisturbed one."""
    base, workdir = folder / "base", folder / "run"
    prepared = start(base, "--config.stages=('prepare',)")
    if prepared.end(3600)[0]:
        raise RuntimeError("the toy run cannot be prepared")
    _fresh(base, workdir)
    _whole(workdir)  # compiles
    _fresh(base, workdir)
    seconds = _whole(workdir)
    wanted = outcome(workdir)
    ended = same = killed = stopped = 0
    _fresh(base, workdir)
    while True:
        running, began = start(workdir), time.monotonic()
        try:
            if killed == kills:
                status, _, told = running.end(3600)
            else:
                _, told = running.process.communicate(timeout=moments.uniform(0, seconds))
                status = running.process.returncode
        except subprocess.TimeoutExpired:
            number = moments.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            running.process.send_signal(number)
            status, _, told = running.end(120)
            killed += 1
            stopped += 1
            # A signal before the program listens ends it as it ends any.
            if status in (-signal.SIGKILL, -signal.SIGTERM, 75):
                continue
        if status:
            raise RuntimeError(f"status {status}: {told[-3000:]}")
        # A machine that has become faster would else finish before the moment comes.
        if not stopped:
            seconds = min(seconds, time.monotonic() - began)
        ended += 1
        same += outcome(workdir) == wanted
        sys.stdout.write(f"{killed} kills, {ended} runs ended, {same} of them identical\n")
        sys.stdout.flush()
        if killed == kills:
            return ended, same
        _fresh(base, workdir)
        stopped = 0


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        ended, same = _soak(Path(folder), _KILLS.value, random.Random(_SEED.value))
    if same != ended:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
