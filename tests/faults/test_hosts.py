"""Several processes as one run, over the loopback: its numbers are those of one process alone."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.faults.running import ARGUMENTS, FIRST, STARTED, last_step, parameters, start
from tests.launching import ROOT, environment

ALL = ("--config.finetune.steps=20",)
WEIGHTED = Path("finetune/weighted/seed0")


def _port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def _start_all(processes: int, workdir: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    address = f"--coordinator=localhost:{_port()}"
    command = [sys.executable, "-m", "jaxfer.launch", *ARGUMENTS, *arguments]
    command += [f"--workdir={workdir}", address, f"--processes={processes}"]
    started = [
        subprocess.Popen(
            [*command, f"--process={process}"],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    STARTED.extend(started)
    return started


def _end_all(started: list[subprocess.Popen[str]], seconds: float = 300) -> list[tuple[int, str]]:
    """Exit status and standard error of each."""
    ended = [process.communicate(timeout=seconds) for process in started]
    return [(p.returncode, err) for p, (_, err) in zip(started, ended, strict=True)]


def _losses(workdir: Path) -> np.ndarray:
    lines = (workdir / WEIGHTED / "metrics.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


def _weights(workdir: Path) -> np.ndarray:
    return np.frombuffer(parameters(workdir / WEIGHTED / "checkpoint"), np.float32)


@pytest.fixture(scope="module")
def alone(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a single process on one device."""
    workdir = tmp_path_factory.mktemp("hosts") / "alone"
    shutil.copytree(pretrained, workdir, symlinks=True)
    status, _, err = start(workdir, *ALL).end(300)
    assert status == 0, err[-3000:]
    return workdir


@pytest.fixture(scope="module")
def together(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The run of several processes, selection and all; begun once for each number of them."""

    @cache
    def of(processes: int) -> Path:
        workdir = tmp_path_factory.mktemp("hosts") / "together"
        shutil.copytree(pretrained, workdir, symlinks=True)
        shutil.rmtree(workdir / "select")
        for status, err in _end_all(_start_all(processes, workdir, *ALL)):
            assert status == 0, err[-3000:]
        return workdir

    return of


@pytest.mark.parametrize("processes", [2, 4])
def test_the_run_of_several_processes_is_that_of_one(
    alone: Path, together: Callable[[int], Path], processes: int
) -> None:
    workdir = together(processes)
    for name in ("selection.csv", "selection.json"):
        assert (workdir / "select" / name).read_bytes() == (alone / "select" / name).read_bytes()
    np.testing.assert_allclose(_losses(workdir), _losses(alone), rtol=1e-5)
    np.testing.assert_allclose(_weights(workdir), _weights(alone), rtol=1e-3, atol=1e-5)
    assert json.loads((workdir / "run.json").read_text())["processes"] == processes


def test_one_is_killed_and_the_others_end_and_the_run_goes_on(
    workdir: Path, together: Callable[[int], Path]
) -> None:
    whole = together(2)
    for killed in (1, 0):
        started = _start_all(2, workdir, *ALL, "--config.run.checkpoint_every=2")
        end = time.monotonic() + 300
        moment = random.Random(killed).randint(6, 10) + 4 * (1 - killed)
        while last_step(workdir / WEIGHTED) < moment:
            assert time.monotonic() < end
            time.sleep(0.01)
        started[killed].send_signal(signal.SIGKILL)
        began = time.monotonic()
        ended = _end_all(started, 60)
        assert time.monotonic() - began < 60
        status, err = ended[1 - killed]
        assert status not in (0, 2)
        assert "another process of this run has ended" in err or "another task died" in err, err
    assert [status for status, _ in _end_all(_start_all(2, workdir, *ALL))] == [0, 0]
    assert _weights(workdir).tobytes() == _weights(whole).tobytes()
    log = WEIGHTED / "metrics.jsonl"
    assert (workdir / log).read_bytes() == (whole / log).read_bytes()


def test_told_to_stop_all_of_them_save_and_end(workdir: Path) -> None:
    started = _start_all(2, workdir, "--config.finetune.steps=100000")
    end = time.monotonic() + 300
    while last_step(workdir / FIRST) < 4:
        assert time.monotonic() < end
        time.sleep(0.01)
    started[1].send_signal(signal.SIGTERM)
    (first, told), (second, _) = _end_all(started, 120)
    assert (first, second) == (75, 75)
    assert "training is saved after step" in told


def test_processes_of_other_settings_are_refused(workdir: Path) -> None:
    address = f"--coordinator=localhost:{_port()}"
    started = [
        start(
            workdir, address, "--processes=2", f"--process={p}", f"--config.finetune.steps={20 + p}"
        )
        for p in range(2)
    ]
    ended = [running.end(120) for running in started]
    assert all(status == 2 for status, _, _ in ended), ended
    assert "do not have the same configuration" in ended[1][2]


def test_a_process_alone_does_not_wait_for_ever(workdir: Path) -> None:
    address = f"--coordinator=localhost:{_port()}"
    status, _, err = start(workdir, address, "--processes=2", "--process=0", "--patience=3").end(90)
    assert status == 2, err
    assert "do not come together" in err
