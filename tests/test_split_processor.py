"""A processor of several cores is several devices, unless somebody says otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxfer.hosts import devices_for
from jaxfer.models.slabs import divides_into
from tests.launching import ROOT, environment

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
FIND = """
import jax
from jaxfer.hosts import split_processor
split_processor({devices}, (8, 4))
print(jax.local_device_count())
"""


@pytest.mark.parametrize(
    ("cores", "shares", "devices"),
    [
        (1, (8,), 1),
        (2, (8, 8), 2),
        (2, (8, 3), 1),
        (6, (8, 4), 4),
        (64, (8, 12), 4),
        (3, (9, 6), 3),
        (8, (1,), 1),
        (0, (4,), 1),
    ],
)
def test_the_largest_number_of_devices_that_divides_all(
    cores: int, shares: tuple[int, ...], devices: int
) -> None:
    assert devices_for(cores, shares) == devices


@pytest.mark.parametrize(
    ("cores", "shares", "side", "devices"),
    [(2, (1, 4), 64, 2), (8, (1,), 48, 6), (8, (4, 6), 64, 2), (4, (3, 5), 6, 1), (1, (1,), 64, 1)],
    ids=["a slab each", "not as many as cores", "patches come first", "too thin", "one core"],
)
def test_slabs_where_no_two_devices_can_share_a_batch(
    cores: int, shares: tuple[int, ...], side: int, devices: int
) -> None:
    halved = ((2, 2, 2), (2, 2, 1))
    assert devices_for(cores, shares, lambda n: divides_into(side, n, halved)) == devices


@pytest.mark.parametrize(
    ("devices", "named", "found"),
    [
        (0, {}, devices_for(CORES, (8, 4))),
        (3, {}, 3),
        (0, {"JAX_NUM_CPU_DEVICES": "5"}, 5),
        (2, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
    ],
    ids=["by cores", "by configuration", "by jax's variable", "by XLA's flag"],
)
def test_what_jax_makes_of_it(devices: int, named: dict[str, str], found: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIND.format(devices=devices)],
        cwd=ROOT,
        env=environment() | named,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == found


def test_a_run_tells_of_its_devices(demo: Path) -> None:
    config = json.loads((demo / "config.json").read_text())
    shares = (config["pretrain"]["batch_size"], config["finetune"]["batch_size"])
    devices = json.loads((demo / "run.json").read_text())["devices"]
    assert devices == f"cpu × {devices_for(CORES, shares)}"
