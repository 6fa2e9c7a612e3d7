"""The shell scripts of launch/."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest

from tests.launching import ROOT, run

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_the_syntax_is_right(script: Path) -> None:
    assert run("bash", "-n", str(script)).returncode == 0


def test_a_dry_run_prints_the_command() -> None:
    told = run("launch/local.sh", "--dry-run", "--devices=2", "--config=configs/demo.py")
    assert told.returncode == 0
    expected = f"env JAX_NUM_CPU_DEVICES=2 {sys.executable} -m jaxfer.launch"
    assert told.stdout == f"{expected} --config=configs/demo.py\n"


def test_a_wrong_number_of_devices_is_refused() -> None:
    refused = run("launch/local.sh", "--devices=two", "--config=configs/demo.py")
    assert refused.returncode == 2
    assert "--devices=two" in refused.stderr


def test_a_study_has_a_core_for_every_launch() -> None:
    told = run(
        "launch/study.sh", "--dry-run", "--launches=3", "--logs=L", "--config=C", "--workdir=W"
    )
    assert told.returncode == 0
    cores = sorted(os.sched_getaffinity(0))
    assert told.stdout.splitlines() == [
        f"taskset --cpu-list {cores[number % len(cores)]} env "
        "XLA_FLAGS=--xla_cpu_multi_thread_eigen=false OMP_NUM_THREADS=1 "
        f"{sys.executable} -m jaxfer.launch --config=C --workdir=W"
        for number in range(3)
    ]


def test_a_wrong_number_of_launches_is_refused() -> None:
    refused = run("launch/study.sh", "--launches=0", "--config=C")
    assert refused.returncode == 2
    assert "--launches=0" in refused.stderr


def test_two_devices_give_the_run_of_one(demo: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "two"
    done = run(
        "launch/local.sh",
        "--devices=2",
        "--config=configs/demo.py:tiny",
        f"--config.data.cache={demo / 'store'}",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("select/selection.csv", "evaluate/metrics.csv"):
        with (demo / name).open() as one, (workdir / name).open() as two:
            for a, b in zip(csv.DictReader(one), csv.DictReader(two), strict=True):
                for key, value in a.items():
                    try:
                        assert float(b[key]) == pytest.approx(float(value), rel=1e-2, abs=1e-2)
                    except ValueError:
                        assert b[key] == value
