"""Outputs of other programs: what is wrong with them is told, what is right lands on the grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.special import log_softmax

from jaxfer.data.nifti import read_header
from jaxfer.data.outputs import LOG_PROBABILITIES, LOGITS, Expected, output_problems, read_outputs
from jaxfer.data.preprocess import field_of_view, image_to_working
from jaxfer.errors import UserError

SHAPE, CLASSES, FEATURES = (6, 5, 4), 3, 2
AFFINE = np.array([[-1.0, 0, 0, 5], [0, 0, 1.0, 0], [0, 2.0, 0, -3], [0, 0, 0, 1]])
CHANNELS = {"output": CLASSES, "decoder_0": FEATURES}


@pytest.fixture
def header(tmp_path):
    file = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE), file)
    return read_header(file)


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {k: rng.standard_normal((*SHAPE, c)).astype(np.float32) for k, c in CHANNELS.items()}


def problems(folder, header, kind=LOGITS):
    return output_problems(Expected(folder, kind, CHANNELS), "a", header)


def test_whole_files_have_no_problem(tmp_path, header):
    np.savez(tmp_path / "a.npz", **{k: v.astype(np.float16) for k, v in arrays().items()})
    assert problems(tmp_path, header) == []
    (tmp_path / "a.npz").unlink()
    for name, array in arrays().items():
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"a_{name}.nii.gz")
    assert problems(tmp_path, header) == []


def test_rounded_log_probabilities_sum_to_one(tmp_path, header):
    found = arrays()
    found["output"] = log_softmax(3 * found["output"], axis=-1)
    np.savez(tmp_path / "a.npz", **{k: v.astype(np.float16) for k, v in found.items()})
    assert problems(tmp_path, header, LOG_PROBABILITIES) == []
    found["output"][1, 2, 3] += 0.1
    np.savez(tmp_path / "a.npz", **found)
    (line,) = problems(tmp_path, header, LOG_PROBABILITIES)
    assert line.what == "the probabilities do not sum to 1"
    assert "1.11, wrong at 1 voxels" in line.found


WRONG = {
    "'output' is not on the grid": lambda a: a.update(output=a["output"][:, :, 1:]),
    "'decoder_0' is not on the grid": lambda a: a.update(decoder_0=a["decoder_0"][..., 0]),
    "'output' has not the channels": lambda a: a.update(output=a["output"][..., 1:]),
    "'decoder_0' has not the channels": lambda a: a.update(decoder_0=a["decoder_0"][..., 1:]),
    "'output' holds no floating-point": lambda a: a.update(output=a["output"].astype(int)),
    "'output' has values that are NaN": lambda a: a["output"].__setitem__((0, 0, 0, 0), np.nan),
    "'decoder_0' has values that are": lambda a: a["decoder_0"].__setitem__((0, 0, 0), np.inf),
    "has no array 'decoder_0'": lambda a: a.pop("decoder_0"),
}


@pytest.mark.parametrize("said", WRONG)
def test_every_fault_is_one_line(tmp_path, header, said):
    found = arrays()
    WRONG[said](found)
    np.savez(tmp_path / "a.npz", **found)
    (line,) = problems(tmp_path, header)
    assert line.what.startswith(said)
    assert line.where == str(tmp_path / "a.npz")


def test_channels_first_are_told(tmp_path, header):
    np.savez(tmp_path / "a.npz", **{k: np.moveaxis(v, -1, 0) for k, v in arrays().items()})
    assert len(problems(tmp_path, header)) == 2


def test_missing_and_damaged_files_are_told(tmp_path, header):
    (line,) = problems(tmp_path, header)
    assert line.what == "no such file"
    np.savez(tmp_path / "a.npz", **arrays())
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + whole[4:200]):
        (tmp_path / "a.npz").write_bytes(content)
        lines = problems(tmp_path, header)
        assert {line.what for line in lines} == {"not a readable file of outputs"}
    middle = len(whole) // 3
    (tmp_path / "a.npz").write_bytes(whole[:middle] + b"\xff\x00" * 8 + whole[middle + 16 :])
    assert "not a readable file of outputs" in {line.what for line in problems(tmp_path, header)}


def test_objects_are_not_loaded(tmp_path, header):
    np.savez(tmp_path / "a.npz", **(arrays() | {"output": np.array([{}], object)}))
    assert problems(tmp_path, header)[0].what == "not a readable file of outputs"


def test_images_elsewhere_in_space_and_damaged_ones_are_told(tmp_path, header):
    found = arrays()
    moved = AFFINE.copy()
    moved[0, 3] += 1
    nib.save(nib.Nifti1Image(found["output"], moved), tmp_path / "a_output.nii.gz")
    whole = tmp_path / "a_decoder_0.nii.gz"
    nib.save(nib.Nifti1Image(found["decoder_0"], AFFINE), whole)
    (line,) = problems(tmp_path, header)
    assert line.what == "lies elsewhere in space than its scan"
    whole.write_bytes(whole.read_bytes()[:-20])
    assert "not a readable NIfTI image" in problems(tmp_path, header)[1].what


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (1.5, 1.5, 1.5)])
def test_outputs_lie_where_the_scan_lies(tmp_path, spacing):
    found = arrays()
    np.savez(tmp_path / "a.npz", **found)
    geometry = field_of_view(SHAPE, AFFINE, spacing)
    read = read_outputs(Expected(tmp_path, LOGITS, CHANNELS), "a", geometry)
    for k in range(FEATURES):
        own = image_to_working(found["decoder_0"][..., k], geometry)
        np.testing.assert_array_equal(read["decoder_0"][..., k], own)
    assert read["output"].shape == (*geometry.crop_shape, CLASSES)
    np.testing.assert_allclose(np.exp(read["output"]).sum(-1), 1, rtol=1e-6)
    if spacing == (1.0, 1.0, 2.0):
        # By the affine: the file's first axis runs to the left, its second up, its third forward.
        own = log_softmax(found["output"], axis=-1)[::-1].transpose(0, 2, 1, 3)
        np.testing.assert_allclose(read["output"], own, atol=1e-6)


def test_files_that_change_after_verification_are_told(tmp_path):
    geometry = field_of_view(SHAPE, AFFINE, (1.0, 1.0, 1.0))
    with pytest.raises(UserError, match="changed since it was verified"):
        read_outputs(Expected(tmp_path, LOGITS, CHANNELS), "a", geometry)
