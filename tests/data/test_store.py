"""The store: made once, made again when anything changes, never half there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxfer.data import store
from jaxfer.data.layouts import read_dataset
from jaxfer.data.nifti import read_header, read_volume
from jaxfer.data.preprocess import normalise, restore
from jaxfer.data.store import Preprocessing, StoredCase, store_case
from jaxfer.data.verify import verify_cases
from jaxfer.errors import UserError
from jaxfer.tasks import Case, Dataset, Image

Make = Callable[..., Case]
AS_IT_IS = Preprocessing((1.0, 1.0, 1.0), (0.5, 99.5), skull_stripped=True)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What every file holds and when it was written."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_arrays_are_mapped_cropped_and_normalised(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a", (20, 22, 18), modalities=("t1", "t2"))
    stored, made = store_case(case, ("t1", "t2"), AS_IT_IS, tmp_path / "store" / "a")
    assert made
    assert (stored.id, stored.subject, stored.site) == ("a", "a", "here")
    for array in (stored.image("t1"), stored.image("t2"), stored.labels()):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        assert array[:, :, 3].flags.f_contiguous
        assert array.shape == stored.geometry.crop_shape
    assert stored.image("t1").dtype == np.float16
    assert stored.labels().dtype == np.uint8

    image, window = read_volume(case.images["t1"].path), stored.geometry.window
    brain = (image != 0) | (read_volume(case.images["t2"].path) != 0)
    places = np.argwhere(brain)
    np.testing.assert_array_equal(stored.geometry.start, places.min(0) - 2)
    np.testing.assert_array_equal(stored.geometry.crop_shape, np.ptp(places, axis=0) + 5)
    expected = normalise(image[window], brain[window], (0.5, 99.5), "float16")
    np.testing.assert_array_equal(stored.image("t1"), expected)
    labels = read_volume(case.label)
    np.testing.assert_array_equal(stored.labels(), labels[window])
    restored = restore(stored.labels().astype(np.float32), stored.geometry, 0.0)
    np.testing.assert_array_equal(restored, labels)


def test_without_skull_stripping_everything_is_brain(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a")
    how = replace(AS_IT_IS, skull_stripped=False)
    stored, _ = store_case(case, ("t1",), how, tmp_path / "a")
    # Cropped all the same, to the ball of values that are not 0, which has corners of zeros.
    places = np.argwhere(read_volume(case.images["t1"].path) != 0)
    np.testing.assert_array_equal(stored.geometry.start, places.min(0))
    np.testing.assert_array_equal(stored.geometry.crop_shape, np.ptp(places, axis=0) + 1)
    image = np.asarray(stored.image("t1"), np.float64)
    assert image.mean() == pytest.approx(0.0, abs=1e-3)
    assert (image != 0).all()


def test_the_working_grid_is_that_of_the_settings(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a", (20, 22, 18))
    how = replace(AS_IT_IS, spacing=(2.0, 2.0, 3.0))
    stored, _ = store_case(case, ("t1",), how, tmp_path / "a")
    assert stored.geometry.full_shape == (10, 11, 6)
    assert restore(np.asarray(stored.image("t1"), np.float32), stored.geometry, 0.0).shape == (
        20,
        22,
        18,
    )


def test_a_stored_case_reads_back_the_same(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a", affine=np.diag([-1.0, 1.0, 1.5, 1.0]))
    stored, _ = store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")
    assert StoredCase.read("a", "a", "here", tmp_path / "a") == stored


@pytest.mark.parametrize(
    ("values", "dtype"), [((0, 255), np.uint8), ((0, 256), np.int32), ((-1, 1), np.int32)]
)
def test_label_values_keep_their_value(
    make_case: Make, tmp_path: Path, values: tuple[int, int], dtype: type
) -> None:
    case = make_case("a")
    labels = np.full((14, 16, 12), values[0], np.int16)
    labels[5:9, 6:9, 4:8] = values[1]
    nib.save(nib.Nifti1Image(labels, np.eye(4)), case.label)
    stored, _ = store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")
    assert stored.labels().dtype == dtype
    assert tuple(np.unique(stored.labels())) == values


def test_unchanged_cases_are_not_made_again(make_case: Make, tmp_path: Path) -> None:
    case, folder = make_case("a"), tmp_path / "store" / "a"
    first, _ = store_case(case, ("t1",), AS_IT_IS, folder)
    before = contents(folder)
    second, made = store_case(case, ("t1",), AS_IT_IS, folder)
    assert not made
    assert second == first
    assert contents(folder) == before


def rewrite(path: Path) -> None:
    nib.save(nib.Nifti1Image(read_volume(path) * 2, np.eye(4)), path)


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda case, how: rewrite(case.images["t1"].path) or (case, how),
        lambda case, how: touch(case.images["t1"].path) or (case, how),
        lambda case, how: touch(case.label) or (case, how),
        lambda case, how: (replace(case, label=None), how),
        lambda case, how: (case, replace(how, spacing=(1.0, 1.0, 2.0))),
        lambda case, how: (case, replace(how, percentiles=(1.0, 99.0))),
        lambda case, how: (case, replace(how, skull_stripped=False)),
    ],
    ids=["image", "time", "label", "no label", "spacing", "percentiles", "brain"],
)
def test_any_change_makes_a_case_again(make_case: Make, tmp_path: Path, change: Callable) -> None:
    case, folder = make_case("a"), tmp_path / "store" / "a"
    store_case(case, ("t1",), AS_IT_IS, folder)
    case, how = change(case, AS_IT_IS)
    again, made = store_case(case, ("t1",), how, folder)
    assert made
    fresh, _ = store_case(case, ("t1",), how, tmp_path / "elsewhere" / "a")
    np.testing.assert_array_equal(again.image("t1"), fresh.image("t1"))
    assert again.geometry == fresh.geometry
    assert (folder / "label.npy").exists() == (case.label is not None)


def test_another_set_of_modalities_is_another_case(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a", modalities=("t1", "t2"))
    store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")
    stored, made = store_case(case, ("t1", "t2"), AS_IT_IS, tmp_path / "a")
    assert made
    assert stored.image("t2").shape == stored.image("t1").shape


def test_the_same_file_as_another_modality_is_another_case(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a")
    store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")
    renamed = replace(case, images={"flair": case.images["t1"]})
    stored, made = store_case(renamed, ("flair",), AS_IT_IS, tmp_path / "a")
    assert made
    assert stored.image("flair").shape == stored.geometry.crop_shape


def test_a_case_is_stored_with_the_modalities_that_it_has(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a", modalities=("t1",))
    stored, made = store_case(case, ("flair", "t1"), AS_IT_IS, tmp_path / "a")
    assert made
    assert stored.image("t1").shape == stored.geometry.crop_shape
    assert store_case(case, ("flair", "t1"), AS_IT_IS, tmp_path / "a")[1] is False


def test_the_content_is_that_of_each_array_wherever_it_lies(
    make_case: Make, tmp_path: Path
) -> None:
    case = make_case("a", modalities=("t1", "t2"))
    here, _ = store_case(case, ("t1", "t2"), AS_IT_IS, tmp_path / "a")
    there, _ = store_case(case, ("t1", "t2"), AS_IT_IS, tmp_path / "b")
    assert here.content == there.content
    assert sorted(here.content) == [
        "label.npy",
        "label_index.npz",
        "t1.npy",
        "t2.npy",
    ]
    assert len(set(here.content.values())) == 4
    scan = nib.load(case.images["t1"].path)
    moved = nib.Nifti1Image(scan.get_fdata() ** 2, scan.affine, scan.header)
    nib.save(moved, case.images["t1"].path)
    changed, _ = store_case(case, ("t1", "t2"), AS_IT_IS, tmp_path / "a")
    assert changed.content["t1.npy"] != here.content["t1.npy"]
    assert changed.content["t2.npy"] == here.content["t2.npy"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "t1.npy").unlink(),
        lambda folder: (folder / "case.json").unlink(),
        lambda folder: (folder / "case.json").write_text('{"made_of": {'),
        lambda folder: (folder / "case.json").write_text("[]"),
        lambda folder: (folder / "case.json").write_bytes(b"\xff\xfe"),
        lambda folder: shutil.rmtree(folder),
    ],
    ids=["array", "record", "cut record", "other record", "bytes", "all"],
)
def test_damaged_cases_are_made_again(make_case: Make, tmp_path: Path, damage: Callable) -> None:
    case, folder = make_case("a"), tmp_path / "store" / "a"
    first, _ = store_case(case, ("t1",), AS_IT_IS, folder)
    image = np.array(first.image("t1"))
    damage(folder)
    again, made = store_case(case, ("t1",), AS_IT_IS, folder)
    assert made
    np.testing.assert_array_equal(again.image("t1"), image)


def test_a_new_version_of_the_preprocessing_makes_cases_again(
    make_case: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case("a")
    store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")
    monkeypatch.setattr(store, "_VERSION", store._VERSION + 1)
    assert store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")[1]
    assert not store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")[1]


@pytest.mark.parametrize(
    ("error", "told"), [(OSError("disk full"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_an_interrupted_write_leaves_no_half_case(
    make_case: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    told: type[BaseException],
) -> None:
    case, cache = make_case("a"), tmp_path / "store"
    store_case(case, ("t1",), AS_IT_IS, cache / "old")
    before = contents(cache)
    save = np.save

    def fail_at_the_label(file: Path, array: np.ndarray) -> None:
        if file.name == "label.npy":
            raise error
        save(file, array)

    monkeypatch.setattr(np, "save", fail_at_the_label)
    how = replace(AS_IT_IS, percentiles=(2.0, 98.0))
    for name in ("new", "old"):
        with pytest.raises(told) as caught:
            store_case(case, ("t1",), how, cache / name)
        if told is UserError:
            assert "disk full" in caught.value.found
            assert "--config.data.cache" in caught.value.mend
    assert contents(cache) == before
    assert [p.name for p in cache.iterdir()] == ["old"]
    assert not store_case(case, ("t1",), AS_IT_IS, cache / "old")[1]


def test_the_record_says_what_the_case_was_made_of(make_case: Make, tmp_path: Path) -> None:
    case = make_case("a")
    store_case(case, ("t1",), AS_IT_IS, tmp_path / "a")
    record = json.loads((tmp_path / "a" / "case.json").read_text())
    files = [Path(name) for name, _, _ in record["made_of"]["files"]]
    assert files == [case.images["t1"].path.resolve(), case.label.resolve()]
    assert sorted(record["arrays"]) == ["label.npy", "label_index.npz", "t1.npy"]


def hippocampus(root: Path) -> Dataset:
    settings = {"layout": "msd", "folder": "Task04_Hippocampus", "modality": "t1"}
    dataset, problems = read_dataset(
        "hippocampus", ConfigDict(settings | {"skull_stripped": False}), root
    )
    assert problems == []
    return dataset


def test_real_hippocampi(real_data: Path, tmp_path: Path) -> None:
    dataset = hippocampus(real_data)
    assert dataset.label_names == {0: "background", 1: "Anterior", 2: "Posterior"}
    assert dataset.roi("hippocampus").class_names == ("Anterior", "Posterior")
    # A whole-number image, a floating-point label map, an outlier of 358 215.
    wanted = [f"hippocampus_{n}" for n in ("001", "003", "044")]
    cases = [c for c in dataset.cases if c.id in wanted]
    assert len(cases) == 3
    assert verify_cases(dataset, cases, ("t1",)) == []
    how = Preprocessing((1.0, 1.0, 1.0), (0.5, 99.5), dataset.skull_stripped)
    for case in cases:
        header = read_header(case.images["t1"].path)
        assert (np.array([32, 40, 28]) <= header.shape).all()
        assert (np.array([42, 55, 45]) >= header.shape).all()
        assert header.spacing == pytest.approx((1.0, 1.0, 1.0))
        stored, _ = store_case(case, ("t1",), how, tmp_path / case.id)
        assert stored.image("t1").shape == header.shape
        image = np.asarray(stored.image("t1"), np.float64)
        assert image.mean() == pytest.approx(0.0, abs=1e-2)
        assert image.std() == pytest.approx(1.0, abs=1e-2)
        assert np.abs(image).max() < 10
        assert set(np.unique(stored.labels())) == {0, 1, 2}
        np.testing.assert_array_equal(stored.labels(), read_volume(case.label))
        share = np.count_nonzero(stored.labels()) / stored.labels().size
        assert 0.04 < share < 0.07
        anterior, posterior = (np.argwhere(stored.labels() == v)[:, 1].mean() for v in (1, 2))
        assert anterior > posterior


def test_real_brains_with_lesions(real_data: Path, tmp_path: Path) -> None:
    settings = ConfigDict({"layout": "open_ms", "folder": "open_ms"})
    dataset, (warning,) = read_dataset("open_ms", settings, real_data)
    assert [c.id for c in dataset.cases] == ["patient07", "patient19"]
    assert warning.severity == "warning"
    assert warning.what.startswith("27 patient(s) without images")
    assert "patient01, patient02" in warning.found
    case = dataset.cases[0]
    assert set(case.images) == {"flair", "t1", "t1ce", "t2"}
    assert verify_cases(dataset, [case], ("flair", "t1ce")) == []

    header = read_header(case.images["flair"].path)
    assert header.shape == (182, 218, 182)
    np.testing.assert_array_equal(header.affine[:3, 3], (90, -126, -72))
    how = Preprocessing((1.0, 1.0, 1.0), (0.5, 99.5), dataset.skull_stripped)
    stored, _ = store_case(case, ("flair",), how, tmp_path / "a")
    image, labels = stored.image("flair"), stored.labels()
    assert stored.geometry.full_shape == (182, 218, 182)
    assert image.size < 182 * 218 * 182 / 2
    assert np.count_nonzero(image) == pytest.approx(1_135_151, abs=100)
    assert np.count_nonzero(labels) == 1300
    assert set(np.unique(labels)) == {0, 1}
    # The file's first axis runs to the left: back on its grid, every lesion is where it was.
    restored = restore(labels.astype(np.float32), stored.geometry, 0.0)
    np.testing.assert_array_equal(restored, read_volume(case.label))


def test_a_real_image_with_the_label_map_of_another_is_rejected(real_data: Path) -> None:
    folder = real_data / "broken" / "shape_mismatch"
    image = folder / "imagesTr" / "hippocampus_118.nii.gz"
    label = folder / "labelsTr" / "hippocampus_281.nii.gz"
    dataset = hippocampus(real_data)
    case = Case("118", "118", "1", {"t1": Image(image)}, label)
    (problem,) = verify_cases(dataset, [case], ("t1",))
    assert problem.severity == "error"
    assert problem.where == str(label)
    assert str(image) in problem.what
    assert problem.found == "512 × 512 × 94"
    assert problem.allowed == "37 × 52 × 33"
    assert problem.mend

    subtle = replace(case, label=real_data / "Task04_Hippocampus/labelsTr/hippocampus_011.nii.gz")
    (problem,) = verify_cases(dataset, [subtle], ("t1",))
    assert (problem.found, problem.allowed) == ("36 × 50 × 31", "37 × 52 × 33")
