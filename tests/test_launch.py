"""What a launch sees to before its stages: the devices, and where compiled steps are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import ROOT, environment

START = """
import logging
import jax
from jaxfer import launch

def run_stages(*_):
    logging.getLogger("jax._src.xla_bridge").warning("a device that jax cannot use")
    logging.getLogger("jax._src.compiler").warning("of no interest")
    print("compiled steps:", jax.config.jax_compilation_cache_dir)

launch.run_stages = run_stages
launch.show_tables = lambda _: None
launch.main()
"""


def start(folder: Path, *arguments: str, **named: str) -> subprocess.CompletedProcess[str]:
    """A launch without stages, in which jax warns of a device."""
    command = [sys.executable, "-c", START, "--config=configs/demo.py:tiny", *arguments]
    return subprocess.run(
        [*command, f"--workdir={folder / 'run'}"],
        cwd=ROOT,
        env=environment() | {"JAX_NUM_CPU_DEVICES": "3"} | named,
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_devices_are_told_and_those_that_jax_cannot_use(tmp_path: Path) -> None:
    done = start(tmp_path)
    assert done.stdout.splitlines()[0].split() == ["devices", "cpu", "×", "3"]
    assert "a device that jax cannot use" in done.stderr
    assert "of no interest" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named", "kept"),
    [
        ((), {}, "{0}/jaxfer"),
        (("--config.run.compilation_cache={0}/own",), {}, "{0}/own"),
        (("--config.run.compilation_cache=off",), {}, "None"),
        ((), {"JAX_COMPILATION_CACHE_DIR": "{0}/jax"}, "{0}/jax"),
    ],
    ids=["unless told otherwise", "in a folder", "off", "by jax's variable"],
)
def test_where_compiled_steps_are_kept(
    tmp_path: Path, arguments: tuple[str, ...], named: dict[str, str], kept: str
) -> None:
    filled = {name: value.format(tmp_path) for name, value in named.items()}
    asked = [argument.format(tmp_path) for argument in arguments]
    done = start(tmp_path, *asked, XDG_CACHE_HOME=str(tmp_path), **filled)
    assert done.stdout.splitlines()[-1] == f"compiled steps: {kept.format(tmp_path)}"
