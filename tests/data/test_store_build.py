"""Building the store: several cases at once, killed, on a full disk, beside another build."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.data import store
from jaxfer.data.preprocess import Preprocessing
from jaxfer.data.sampler import task_case
from jaxfer.data.store import StoredCase, store_cases
from jaxfer.errors import UserError
from jaxfer.tasks import Case, Image, RoI
from tests.launching import ROOT

Make = Callable[..., Case]
HOW = Preprocessing((1.0, 1.0, 1.0), (0.5, 99.5), skull_stripped=True)

BUILD = """
import json, resource, sys
from pathlib import Path
from jaxfer.data.store import Preprocessing, store_cases
from jaxfer.errors import UserError
from jaxfer.tasks import Case, Image
folder, limit, *files = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
cases = [Case(Path(i).stem, Path(i).stem, "here", {"t1": Image(Path(i))}, Path(s))
         for i, s in zip(files[::2], files[1::2])]
how = Preprocessing((1.0, 1.0, 1.0), (0.5, 99.5), skull_stripped=True)
try:
    print("started", flush=True)
    store_cases(cases, ("t1",), how, Path(folder), workers=2,
                on_case=lambda case: print(case, flush=True))
except UserError as error:
    sys.exit(str(error))
"""


def scans(folder: Path, count: int, size: int = 48) -> list[Case]:
    """Cases of noise in a box of zeros."""
    folder.mkdir()
    cases = []
    for number in range(count):
        rng = np.random.default_rng(number)
        image = np.zeros((size, size, size), np.int16)
        image[4:-4, 4:-4, 4:-4] = rng.integers(1, 1000, (size - 8,) * 3)
        label = (image > 900).astype(np.uint8)
        files = [folder / f"{kind}{number}.nii.gz" for kind in ("image", "seg")]
        for file, array in zip(files, (image, label), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), file)
        name = files[0].stem
        cases.append(Case(name, name, "here", {"t1": Image(files[0])}, files[1]))
    return cases


def process(cases: Sequence[Case], folder: Path, limit: int = 0) -> subprocess.Popen[str]:
    """A process of its own that builds the store."""
    files = [str(f) for c in cases for f in (c.images["t1"].path, c.label)]
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(folder), str(limit), *files],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def arrays(folder: Path) -> dict[str, bytes]:
    """The arrays of a store and the index of their labels, by name."""
    files = sorted(f for f in folder.rglob("*.np?") if f.is_file())
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != ".lock")


def test_several_at_once_store_the_same_bytes_as_one_by_one(
    make_case: Make, tmp_path: Path
) -> None:
    cases = [make_case(f"c{i}", modalities=("t1", "t2"), seed=i) for i in range(7)]
    told: list[str] = []
    one, made = store_cases(cases, ("t1", "t2"), HOW, tmp_path / "one")
    several, too = store_cases(
        cases, ("t1", "t2"), HOW, tmp_path / "several", workers=4, on_case=told.append
    )
    assert made == too == 7
    assert [s.id for s in one] == [s.id for s in several] == [c.id for c in cases]
    assert sorted(told) == [c.id for c in cases]
    assert arrays(tmp_path / "one") == arrays(tmp_path / "several")
    assert len(arrays(tmp_path / "one")) == 7 * 4
    assert [s.content for s in one] == [s.content for s in several]
    again, remade = store_cases(cases, ("t1", "t2"), HOW, tmp_path / "several", workers=4)
    assert remade == 0
    assert again == several


def test_only_what_changed_is_made_again(make_case: Make, tmp_path: Path) -> None:
    cases = [make_case(f"c{i}", seed=i) for i in range(4)]
    store_cases(cases, ("t1",), HOW, tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("t1.npy")}
    changed = cases[2].images["t1"].path
    shutil.copy(cases[3].images["t1"].path, changed)
    assert store_cases(cases, ("t1",), HOW, tmp_path / "s", workers=2)[1] == 1
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("t1.npy")}
    assert [p.parent.name for p in before if after[p] != before[p]] == ["c2"]
    (tmp_path / "s" / "c1" / "t1.npy").write_bytes(b"cut")
    assert store_cases(cases, ("t1",), HOW, tmp_path / "s")[1] == 1


def test_killed_at_any_moment_it_goes_on_with_what_was_finished(tmp_path: Path) -> None:
    cases = scans(tmp_path / "raw", 60)
    folder, chance = tmp_path / "store", random.Random(5)
    finished: set[str] = set()
    in_the_middle = 0
    for wanted in (0, 2, 3):
        build = process(cases, folder)
        assert build.stdout is not None
        build.stdout.readline()
        for _ in range(len(finished) + wanted):
            finished.add(build.stdout.readline().strip())
        time.sleep(chance.random() / 50)
        build.kill()
        finished |= set(build.communicate()[0].split())
        assert build.returncode == -9
        whole = {p.parent.name for p in folder.glob("*/case.json") if p.parent.name[0] != "."}
        assert finished <= whole
        in_the_middle += 0 < len(whole) < len(cases)
    assert in_the_middle, "no kill came between the first case and the last"
    stored, made = store_cases(cases, ("t1",), HOW, folder, workers=2)
    assert made <= len(cases) - len(finished)
    assert names(folder) == sorted(c.id for c in cases), "nothing of the dead builds is left"
    store_cases(cases, ("t1",), HOW, tmp_path / "fresh")
    assert arrays(folder) == arrays(tmp_path / "fresh")
    assert all(store._content(s.folder / "t1.npy") == s.content["t1.npy"] for s in stored)


def test_a_full_disk_is_one_message_and_what_was_stored_is_intact(tmp_path: Path) -> None:
    cases = scans(tmp_path / "raw", 3)
    folder = tmp_path / "store"
    store_cases(cases[:2], ("t1",), HOW, folder)
    before = arrays(folder)
    shutil.copy(cases[2].images["t1"].path, cases[0].images["t1"].path)  # to be made again
    build = process(cases, folder, limit=20_000)  # bytes, fewer than an array has
    told = build.communicate()[1]
    assert build.returncode == 1
    assert "the store cannot be written to" in told
    assert "--config.data.cache" in told
    assert "Traceback" not in told
    assert arrays(folder) == before
    assert names(folder) == sorted(c.id for c in cases[:2])
    assert store_cases(cases, ("t1",), HOW, folder)[1] == 2


def test_a_file_that_goes_while_it_is_stored_is_one_message(
    make_case: Make, tmp_path: Path
) -> None:
    cases = [make_case(f"c{i}") for i in range(3)]
    assert cases[1].label
    cases[1].label.unlink()
    with pytest.raises(UserError, match="no such file any more") as caught:
        store_cases(cases, ("t1",), HOW, tmp_path / "s", workers=2)
    assert str(cases[1].label) in caught.value.what


def test_a_second_build_waits_for_the_first(
    make_case: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [make_case(f"c{i}", seed=i) for i in range(3)]
    inside, go, waited = threading.Event(), threading.Event(), threading.Event()
    write = store._write

    def slow(*how: object) -> object:
        inside.set()
        assert go.wait(20)
        return write(*how)

    monkeypatch.setattr(store, "_write", slow)
    results: dict[str, int] = {}

    def build(name: str, on_wait: Callable[[], None]) -> None:
        results[name] = store_cases(cases, ("t1",), HOW, tmp_path / "s", on_wait=on_wait)[1]

    first = threading.Thread(target=build, args=("first", lambda: None))
    second = threading.Thread(target=build, args=("second", waited.set))
    first.start()
    assert inside.wait(20)
    second.start()
    assert waited.wait(20)
    go.set()
    first.join()
    second.join()
    assert results == {"first": 3, "second": 0}


def test_the_folder_of_the_store_must_be_one(make_case: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        store_cases([make_case("a")], ("t1",), HOW, tmp_path / "file" / "store")


def test_precision_is_that_of_the_settings(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a")
    (coarse,), _ = store_cases([case], ("t1",), HOW, tmp_path / "16")
    (fine,), _ = store_cases([case], ("t1",), replace(HOW, precision="float32"), tmp_path / "32")
    assert (coarse.image("t1").dtype, fine.image("t1").dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(coarse.image("t1"), fine.image("t1"), rtol=1e-3, atol=1e-6)
    assert not np.array_equal(coarse.image("t1"), fine.image("t1"))


def test_the_channels_of_one_file_are_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    four = rng.integers(1, 500, (9, 8, 7, 3)).astype(np.int16)
    file = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(four, np.eye(4)), file)
    case = Case("a", "a", "here", {m: Image(file, i) for i, m in enumerate("xyz")}, None)
    alone = []
    for channel in range(3):
        nib.save(nib.Nifti1Image(four[..., channel], np.eye(4)), tmp_path / f"{channel}.nii.gz")
        image = {"one": Image(tmp_path / f"{channel}.nii.gz")}
        alone.append(Case(str(channel), "b", "here", image, None))
    (stored,), _ = store_cases([case], ("x", "y", "z"), HOW, tmp_path / "s")
    for own, modality in zip(
        store_cases(alone, ("one",), HOW, tmp_path / "t")[0], "xyz", strict=True
    ):
        np.testing.assert_array_equal(stored.image(modality), own.image("one"))


def test_seeing_a_stored_case_as_a_task_reads_no_label_map(
    make_case: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case("a")
    (stored,), _ = store_cases([case], ("t1",), HOW, tmp_path / "s")
    labels = np.asarray(stored.labels())

    def refuse(_: StoredCase) -> np.ndarray:
        raise AssertionError("the label map was read")

    monkeypatch.setattr(StoredCase, "labels", refuse)
    roi = RoI("lesion", (("core", (1,)), ("rim", (2,))))
    counts = task_case(stored, "t1", roi, ()).counts
    expected = [(labels == value).sum((0, 1)) for value in (0, 1, 2)]
    np.testing.assert_array_equal(counts, np.stack(expected, 1))
    places = stored.index().class_places(roi)
    assert sorted(map(tuple, places[1])) == sorted(map(tuple, np.argwhere(labels == 2)))


def test_all_of_brats_fits_into_60_gb(tmp_path: Path) -> None:
    """A brain as large as they come in a grid of BraTS, in the four images."""
    grid, brain = (240, 240, 155), (145, 185, 145)
    image = np.zeros(grid, np.int16, order="F")
    image[45:190, 30:215, 5:150] = 100
    image[100, 100, 70] = 101
    file = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(image, np.eye(4)), file)
    nib.save(nib.Nifti1Image((image > 100).astype(np.uint8), np.eye(4)), tmp_path / "s.nii")
    modalities = ("flair", "t1", "t1ce", "t2")
    case = Case("a", "a", "1", dict.fromkeys(modalities, Image(file)), tmp_path / "s.nii")
    (stored,), _ = store_cases([case], modalities, HOW, tmp_path / "s")
    assert stored.geometry.crop_shape == tuple(n + 4 for n in brain)
    size = sum(f.stat().st_size for f in stored.folder.iterdir())
    assert size * 1251 < 60e9
    record = json.loads((stored.folder / "case.json").read_text())
    assert sum(record["sizes"].values()) <= size
