"""Strict mode for every test: shapes and types checked, warnings are errors, four CPU devices."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

install_import_hook("jaxfer", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests import launching  # noqa: E402

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()
# The same examples in every session, however busy the machine: what fails, fails again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def compilations(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Launches of one session share their compiled steps, and nobody's home is written to."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    os.environ["XDG_CACHE_HOME"] = str(shared / "cache")


@pytest.fixture(scope="module", autouse=True)
def room_for_compilations() -> Iterator[None]:
    """What is compiled lies in memory maps; past 65,530 of them, Linux' limit, a process dies."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans, or a skip that says how to name it."""
    folder = os.environ.get("JAXFER_REAL_DATA")
    if not folder:
        pytest.skip("JAXFER_REAL_DATA is unset: name the folder that holds the real data sets")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def launch() -> launching.Launch:
    """Runs ``python -m jaxfer.launch`` in the project's folder."""
    return launching.launch


@pytest.fixture(scope="session")
def demo(launch: launching.Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished toy run of the demo."""
    workdir = tmp_path_factory.mktemp("runs") / "demo"
    done = launch("--config=configs/demo.py:tiny", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "report:" in done.stdout
    return workdir
