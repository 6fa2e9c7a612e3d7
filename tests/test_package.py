"""The package as others install it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jaxfer.metrics.catalogue import catalogue
from jaxfer.stages.run import commit

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    # Everything is built outside of the checkout: a build folder there could hold deleted modules.
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder)]
    command += ["build", "--build-base", str(folder / "build")]
    command += ["bdist_wheel", "--dist-dir", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    (wheel,) = folder.glob("jaxfer-*.whl")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_the_wheel_holds_what_a_run_needs(installed: Path) -> None:
    for file in ("data/phantom/mni152_2mm.nii.gz", "data/phantom/MNI-COPYING.txt"):
        assert (installed / "jaxfer" / file).is_file()
    assert list((installed / "jaxfer" / "report").glob("*.html"))
    assert not (installed / "tests").exists()
    assert not (installed / "configs").exists()


def test_the_metrics_import_from_a_wheel_without_configs(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import jaxfer.metrics as m;"
        "assert m.__file__.startswith(sys.argv[1]);"
        "heavy = {'flax', 'optax', 'orbax', 'grain', 'matplotlib', 'ml_collections', 'nibabel'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "import jax.numpy as jnp;"
        "s = m.leep(jnp.log(jnp.eye(2) * 0.8 + 0.1), jnp.array([0, 1]), num_classes=2);"
        "assert -0.7 < float(s) < 0"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", code, str(installed)], check=True, cwd=tmp_path, timeout=120
    )


def test_the_metric_catalogue_is_current() -> None:
    written = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == catalogue(), "run `make docs`"


def test_a_run_records_the_commit_of_a_checkout_and_its_changes(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    (tmp_path / "code.py").write_text("a = 1\n")
    who = ("-c", "user.name=x", "-c", "user.email=x@y.z")
    for command in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "-m", "all")):
        subprocess.run(("git", *command), cwd=tmp_path, check=True)
    told = ("git", "rev-parse", "--short", "HEAD")
    short = subprocess.run(told, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert commit(tmp_path) == short.stdout.strip()
    (tmp_path / "code.py").write_text("a = 2\n")
    assert commit(tmp_path) == f"{short.stdout.strip()}-dirty"
