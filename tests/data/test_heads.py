"""Scans rendered from label maps: contrasts, borders, boxes, repetition, and real heads."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.data.heads.anatomy import BRIGHTNESS, FIRST_OUTSIDE, KINDS, LABEL_NAMES
from jaxfer.data.heads.generate import files_of, write_head
from jaxfer.data.heads.render import render
from jaxfer.errors import UserError
from tests.data.layouts import build


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = build.heads(tmp_path_factory.mktemp("one"), 2)
    return np.asarray(nib.load(folder / "training_seg_02.nii.gz").dataobj)


def rendered(volume: np.ndarray, seed: int = 0, subject: str = "a", *, brain: bool = False):
    return render(volume, seed=seed, subject=subject, brain=brain, voxel_mm=1.0)


def test_every_label_has_a_brightness() -> None:
    assert set(KINDS) == set(LABEL_NAMES)
    assert set(KINDS.values()) == set(BRIGHTNESS)


def test_contrasts_are_those_of_the_modalities(volume: np.ndarray) -> None:
    for subject in ("a", "b", "c"):
        head = rendered(volume, subject=subject)
        mean = {
            modality: [image[head.labels == value].mean() for value in (24, 3, 2)]
            for modality, image in head.images.items()
        }
        fluid, grey, white = mean["t1"]
        assert fluid < grey < white
        fluid, grey, white = mean["t2"]
        assert white < grey < fluid
        fluid, grey, white = mean["flair"]
        assert fluid < white < grey


def test_the_same_seed_and_subject_give_the_same_voxels(volume: np.ndarray) -> None:
    first, again = rendered(volume), rendered(volume)
    for modality, image in first.images.items():
        np.testing.assert_array_equal(image, again.images[modality])
        for other in (rendered(volume, seed=1), rendered(volume, subject="b")):
            assert (other.images[modality] != image).mean() > 0.9


def test_the_box_holds_the_brain_and_its_labels_as_they_were(volume: np.ndarray) -> None:
    head = rendered(volume)
    x, y, z = head.corner
    a, b, c = head.labels.shape
    np.testing.assert_array_equal(head.labels, volume[x : x + a, y : y + b, z : z + c])
    brain = (volume > 0) & (volume < FIRST_OUTSIDE)
    assert ((head.labels > 0) & (head.labels < FIRST_OUTSIDE)).sum() == brain.sum()
    places = np.argwhere(brain)
    np.testing.assert_array_equal(head.corner, np.maximum(places.min(0) - 4, 0))
    assert head.labels.shape < volume.shape
    assert all(image.shape == head.labels.shape for image in head.images.values())


def test_outside_the_brain_there_is_nothing_if_asked_for(volume: np.ndarray) -> None:
    whole, brain = rendered(volume), rendered(volume, brain=True)
    inside = (brain.labels > 0) & (brain.labels < FIRST_OUTSIDE)
    assert (brain.images["t1"][~inside] == 0).all()
    assert (brain.images["t1"][inside] > 0).all()
    assert (whole.images["t1"] > 0).all()
    assert whole.images["t1"][whole.labels == 511].mean() > 100


def test_borders_mix_two_tissues(volume: np.ndarray) -> None:
    head = rendered(volume)
    white, fluid = (head.images["t1"][head.labels == value].mean() for value in (2, 4))
    place = np.argwhere(head.labels == 4)
    middle = place[len(place) // 2]
    border = head.images["t1"][:, middle[1], middle[2]][head.labels[:, middle[1], middle[2]] == 2]
    assert fluid < border.min() < 0.93 * white


@pytest.mark.parametrize("wrong", ["unknown", "no brain", "halves", "nan", "damaged"])
def test_what_is_no_label_map_of_a_head_is_refused(tmp_path: Path, wrong: str) -> None:
    file = build.heads(tmp_path, 1) / "training_seg_01.nii.gz"
    image = nib.load(file)
    values = np.asarray(image.dataobj).copy()
    values[20, 22, 18] = {"unknown": 999, "halves": 2.5, "nan": np.nan}.get(wrong, 2)
    if wrong == "no brain":
        values[:] = 511
    nib.save(nib.Nifti1Image(values, image.affine), file)
    if wrong == "damaged":
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError) as caught:
        write_head(file, tmp_path / "scans", seed=0, brain=False)
    assert str(file) in str(caught.value)
    assert caught.value.mend
    assert not list((tmp_path / "scans").rglob("*.nii.gz"))


def test_files_lie_where_the_head_lies_and_are_made_once(tmp_path: Path) -> None:
    file = build.heads(tmp_path, 1) / "training_seg_01.nii.gz"
    write_head(file, tmp_path / "scans", seed=0, brain=False)
    files = files_of(file, tmp_path / "scans", seed=0, brain=False)
    before = {name: path.read_bytes() for name, path in files.items()}
    whole, cut = nib.load(file), nib.load(files["seg"])
    for value in (17, 53):
        there = [
            nib.affines.apply_affine(i.affine, np.argwhere(np.asarray(i.dataobj) == value))
            for i in (whole, cut)
        ]
        np.testing.assert_allclose(*there)
    for name in ("t1", "t2", "flair"):
        np.testing.assert_allclose(nib.load(files[name]).affine, cut.affine)
    files["t2"].unlink()
    write_head(file, tmp_path / "scans", seed=0, brain=False)
    assert {name: path.read_bytes() for name, path in files.items()} == before


def test_a_real_head_takes_seconds(real_data: Path, tmp_path: Path) -> None:
    file = real_data / "head_label_maps" / "training_seg_01.nii.gz"
    start = time.process_time()
    write_head(file, tmp_path, seed=0, brain=False)
    assert time.process_time() - start < 10
    files = files_of(file, tmp_path, seed=0, brain=False)
    labels = np.asarray(nib.load(files["seg"]).dataobj)
    whole = np.asarray(nib.load(file).dataobj)
    for value in (17, 53, 4, 24, 3):
        assert (labels == value).sum() == (whole == value).sum() > 0
    t1 = np.asarray(nib.load(files["t1"]).dataobj)
    assert t1.size < whole.size / 2
    assert t1[labels == 2].mean() > 1.15 * t1[labels == 3].mean() > 1.5 * t1[labels == 4].mean()
