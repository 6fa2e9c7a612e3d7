"""Freed memory is kept for the next call: no page is cleared anew."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from jaxfer.memory import keep_freed_memory
from tests.launching import ROOT, environment

GLIBC = hasattr(ctypes.CDLL(None), "mallopt")
FAULTS = """
import resource
import jax, jax.numpy as jnp
from jaxfer.memory import keep_freed_memory

{kept} keep_freed_memory()
# Two arrays of 64 MiB that a call needs beside its input and its output.
several = jax.jit(lambda x: jnp.sort(jnp.outer(x, x), axis=0)[::-1].cumsum(0).sum())
x = jnp.ones(4096)
for _ in range(3):
    several(x).block_until_ready()
cleared = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    several(x).block_until_ready()
    cleared.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
# A busy machine may give one call its memory before it has taken back that of the last one.
print(min(cleared) * resource.getpagesize() / 2**20)
"""


def mib_cleared_per_call(kept: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(kept=kept)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_a_call_finds_the_memory_of_the_last_one() -> None:
    assert mib_cleared_per_call("assert") < 1
    assert mib_cleared_per_call("# ") > 60


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_TOP_PAD_"])
def test_the_users_own_settings_are_left_alone(name: str) -> None:
    assert not keep_freed_memory({name: "1"})


def test_a_library_that_knows_nothing_of_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not keep_freed_memory({})
