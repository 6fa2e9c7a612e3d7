"""Reading and writing: headers, scaling, damage of every kind, and files whole or absent."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxfer.data.nifti import read_header, read_images, read_volume, write_like
from jaxfer.errors import UserError
from jaxfer.tasks import Image

Write = Callable[..., Path]


def affine(
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0), turn: float = 0.0, signs: tuple = (1, 1, 1)
) -> np.ndarray:
    """Voxel sizes in mm, turned by an angle in degrees about an oblique axis, off the origin."""
    matrix = np.eye(4)
    rotation = Rotation.from_rotvec(np.deg2rad(turn) * np.array([1.0, 2.0, 2.0]) / 3)
    matrix[:3, :3] = rotation.as_matrix() * np.array(spacing) * np.array(signs)
    matrix[:3, 3] = (90.0, -126.0, -72.0)
    return matrix


AFFINES = {
    "identity": np.eye(4),
    "to the left": affine(signs=(-1, 1, 1)),
    "anisotropic": affine((0.75, 1.0, 5.0)),
    "oblique": affine((0.9, 1.1, 3.0), turn=25.0),
}


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, (9, 7, 5)).astype(np.float32)


@pytest.mark.parametrize("matrix", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize(("sform", "qform"), [(0, 1), (1, 1), (2, 1), (4, 0)])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_prediction_carries_the_header_of_its_scan(
    write_nifti: Write,
    volume: np.ndarray,
    tmp_path: Path,
    matrix: np.ndarray,
    sform: int,
    qform: int,
    suffix: str,
) -> None:
    scan = write_nifti(f"scan.{suffix}", volume, matrix, sform=sform, qform=qform)
    labels = (volume > 100).astype(np.uint8)
    out = tmp_path / "new" / "folder" / "prediction.nii.gz"
    write_like(out, labels, scan)

    written, reference = nib.load(out), nib.load(scan)
    np.testing.assert_allclose(written.affine, matrix, atol=1e-4)
    np.testing.assert_array_equal(written.affine, reference.affine)
    assert int(written.header["sform_code"]) == sform
    assert int(written.header["qform_code"]) == qform
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_volume(out), labels)

    header = read_header(out)
    assert header.shape == (9, 7, 5)
    np.testing.assert_array_equal(header.affine, reference.affine)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_voxels_survive_writing_to_the_last_bit(
    write_nifti: Write, volume: np.ndarray, tmp_path: Path, dtype: type
) -> None:
    array = volume.astype(dtype)
    write_like(tmp_path / "out.nii.gz", array, write_nifti("scan.nii.gz", volume))
    again = read_volume(tmp_path / "out.nii.gz")
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("kind", ["no codes", "nifti2", "pair"])
def test_other_headers_keep_their_affine(volume: np.ndarray, tmp_path: Path, kind: str) -> None:
    matrix = AFFINES["oblique"]
    if kind == "no codes":
        image, scan = nib.Nifti1Image(volume, None), tmp_path / "scan.nii"
        image.header.set_zooms((1.0, 2.0, 3.0))
    elif kind == "nifti2":
        image, scan = nib.Nifti2Image(volume, matrix), tmp_path / "scan.nii"
    else:
        image, scan = nib.Nifti1Pair(volume, matrix), tmp_path / "scan.img"
    nib.save(image, scan)
    write_like(tmp_path / "out.nii.gz", volume, scan)
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(written.affine, nib.load(scan).affine, atol=1e-4)
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii.gz"), volume)
    assert (written.header["sform_code"] > 0) == (kind != "no codes")


def test_spacing_is_that_of_the_affine(write_nifti: Write, volume: np.ndarray) -> None:
    assert read_header(write_nifti("a.nii", volume, AFFINES["oblique"])).spacing == pytest.approx(
        (0.9, 1.1, 3.0), abs=1e-6
    )
    contradictory = nib.Nifti1Image(volume, np.diag([2.0, 2.0, 4.0, 1.0]))
    contradictory.header["pixdim"][1:4] = 1.0
    path = write_nifti("b.nii", volume)
    path.write_bytes(contradictory.to_bytes())
    assert nib.load(path).header.get_zooms() == (1.0, 1.0, 1.0)
    assert read_header(path).spacing == (2.0, 2.0, 4.0)


def test_scaling_in_the_header_is_applied_and_not_inherited(tmp_path: Path) -> None:
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, 10.0)
    nib.save(image, tmp_path / "scaled.nii.gz")
    assert nib.load(tmp_path / "scaled.nii.gz").dataobj.slope == 0.5

    scaled = read_volume(tmp_path / "scaled.nii.gz")
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, (stored * 0.5 + 10.0).astype(np.float32))

    write_like(tmp_path / "out.nii.gz", stored, tmp_path / "scaled.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii.gz"), stored)


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<i4", "<f4", ">f4", "<f8"])
def test_types_and_byte_orders(tmp_path: Path, dtype: str) -> None:
    array = np.arange(-30 if "u" not in dtype else 0, 30).reshape(-1, 3, 2).astype(dtype)
    kind = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    kind.set_data_dtype(array.dtype)
    nib.save(nib.Nifti1Image(array, np.eye(4), kind), tmp_path / "a.nii")
    found = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(found, array)
    if np.dtype(dtype).kind == "f":
        assert found.dtype == np.float32
    else:
        assert found.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")


def test_values_beyond_float32_become_infinite(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), 1e300), np.eye(4)), tmp_path / "a.nii")
    assert np.isinf(read_volume(tmp_path / "a.nii")).all()


@pytest.mark.parametrize("shape", [(4, 3, 2, 1), (4, 3, 2, 1, 1), (4, 3, 1), (4, 3, 1, 1)])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_trailing_axes_of_length_1_are_dropped(
    write_nifti: Write, shape: tuple[int, ...], suffix: str
) -> None:
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = write_nifti(f"a.{suffix}", array)
    np.testing.assert_array_equal(read_volume(path), array.reshape(shape[:3]))
    assert read_header(path).shape == shape[:3]
    assert len(read_header(path).spacing) == 3


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2), (4, 3, 2, 1, 3)])
def test_what_is_not_3d_is_refused(write_nifti: Write, shape: tuple[int, ...]) -> None:
    path = write_nifti("a.nii.gz", np.zeros(shape, np.float32))
    for read in (read_header, read_volume):
        with pytest.raises(UserError, match="not a 3-D image") as caught:
            read(path)
        assert " × ".join(map(str, shape)) in caught.value.found
        assert caught.value.allowed


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_what_is_not_real_is_refused(tmp_path: Path, dtype: object) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), dtype), np.eye(4)), tmp_path / "a.nii")
    for read in (read_header, read_volume):
        with pytest.raises(UserError, match="real numbers"):
            read(tmp_path / "a.nii")


def put(content: bytes, offset: int, dtype: str, *values: float) -> bytes:
    """The content with numbers written over it."""
    new = np.array(values, dtype).tobytes()
    return content[:offset] + new + content[offset + len(new) :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"<html>404 Not Found</html>" * 40,
    "no header": lambda b: b[:200],
    "magic": lambda b: b[:344] + b"nope" + b[348:],
    "data type": lambda b: put(b, 70, "<i2", 9999),
    "first voxel": lambda b: put(b, 108, "<f4", np.nan),
    "no axes": lambda b: put(b, 40, "<i2", 0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_damaged_headers_are_refused(
    write_nifti: Write, volume: np.ndarray, damage: Callable, suffix: str
) -> None:
    path = write_nifti("a.nii", volume)
    content = damage(path.read_bytes())
    path = path.with_name(f"damaged.{suffix}")
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    for read in (read_header, read_volume):
        with pytest.raises(UserError) as caught:
            read(path)
        assert str(path) in caught.value.what
        assert caught.value.found
        assert caught.value.allowed
        assert caught.value.mend


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_truncated_files_are_refused(
    write_nifti: Write, volume: np.ndarray, kept: float, suffix: str
) -> None:
    path = write_nifti(f"a.{suffix}", volume)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match="not a readable NIfTI") as caught:
        read_volume(path)
    assert str(path) in caught.value.what
    assert caught.value.mend


def test_a_flipped_bit_anywhere_in_a_compressed_file_is_found(
    write_nifti: Write, volume: np.ndarray
) -> None:
    path = write_nifti("a.nii.gz", volume)
    content, rng = path.read_bytes(), np.random.default_rng(1)
    for place in rng.integers(400, len(content), 40):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(UserError, match="not a readable NIfTI"):
            read_volume(path)


@pytest.mark.parametrize(
    "shape", [(32000, 32000, 32000), (1025, 1024, 1024), (-5, 5, 5), (0, 5, 5)]
)
def test_absurd_grids_are_refused_before_anything_is_allocated(
    write_nifti: Write, volume: np.ndarray, shape: tuple[int, ...]
) -> None:
    path = write_nifti("a.nii", volume)
    path.write_bytes(put(path.read_bytes(), 40, "<i2", 3, *shape))
    tracemalloc.start()
    for read in (read_header, read_volume):
        with pytest.raises(UserError, match="absurd grid") as caught:
            read(path)
        assert caught.value.found == " × ".join(map(str, shape))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("row", [(np.nan, 0, 0, 0), (0, 0, 0, 0), (np.inf, 0, 0, 0)])
def test_an_affine_that_places_nothing_is_refused(
    write_nifti: Write, volume: np.ndarray, row: tuple[float, ...]
) -> None:
    path = write_nifti("a.nii", volume)
    path.write_bytes(put(path.read_bytes(), 280, "<f4", *row))
    with pytest.raises(UserError, match="affine") as caught:
        read_header(path)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("shape", [(1000, 1000, 1000), (30000, 300, 100), (9, 7, 800)])
def test_a_header_that_announces_more_than_its_file_can_hold_is_refused(
    write_nifti: Write, volume: np.ndarray, suffix: str, shape: tuple[int, ...]
) -> None:
    path = write_nifti("a.nii", volume)
    content = put(path.read_bytes(), 40, "<i2", 3, *shape)
    path = path.with_name(f"announcing.{suffix}")
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    tracemalloc.start()
    for read in (read_header, read_volume):
        if read is read_header and suffix == "nii.gz" and shape[2] == 800:
            continue  # deflate could hold that many
        with pytest.raises(UserError, match="not a readable NIfTI") as caught:
            read(path)
        assert caught.value.found
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_gzip_file_under_the_name_of_another_is_told_apart(
    write_nifti: Write, volume: np.ndarray
) -> None:
    path = write_nifti("a.nii.gz", volume)
    renamed = path.rename(path.with_name("a.nii"))
    with pytest.raises(UserError) as caught:
        read_header(renamed)
    assert "add .gz" in caught.value.mend


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_one_channel_of_a_4d_file(write_nifti: Write, suffix: str) -> None:
    channels = np.random.default_rng(3).normal(size=(6, 5, 4, 3)).astype(np.float32)
    path = write_nifti(f"four.{suffix}", channels, AFFINES["oblique"])
    for channel in range(3):
        np.testing.assert_array_equal(read_volume(path, channel), channels[..., channel])
        header = read_header(path, channel)
        assert header.shape == (6, 5, 4)
        np.testing.assert_allclose(header.affine, AFFINES["oblique"], atol=1e-4)
    several = {"b": Image(path, 2), "a": Image(path, 0)}
    found = read_images(several)
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["b"], channels[..., 2])
    np.testing.assert_array_equal(found["a"], channels[..., 0])
    for channel in (3, -1):
        for read in (read_header, read_volume):
            with pytest.raises(UserError, match="no such channel") as caught:
                read(path, channel)
            assert caught.value.allowed == "0 to 2"
    out = path.with_name("out.nii.gz")
    write_like(out, channels[..., 0], path)
    assert nib.load(out).shape == (6, 5, 4)
    np.testing.assert_array_equal(read_volume(out), channels[..., 0])
    np.testing.assert_allclose(nib.load(out).affine, AFFINES["oblique"], atol=1e-4)


def test_one_channel_of_an_uncompressed_file_takes_the_memory_of_one(write_nifti: Write) -> None:
    path = write_nifti("four.nii", np.ones((40, 40, 40, 20), np.float32))
    tracemalloc.start()
    read_volume(path, 7)
    assert tracemalloc.get_traced_memory()[1] < 2 * 40**3 * 4
    tracemalloc.stop()


def test_a_3d_file_has_one_channel(write_nifti: Write, volume: np.ndarray) -> None:
    path = write_nifti("a.nii.gz", volume)
    np.testing.assert_array_equal(read_volume(path, 0), volume)
    with pytest.raises(UserError, match="no such channel"):
        read_volume(path, 1)


def analyze(path: Path, array: np.ndarray, zooms: tuple[float, ...]) -> Path:
    image = nib.AnalyzeImage(array, None)
    image.header.set_zooms(zooms)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", ["hdr", "img"])
@pytest.mark.parametrize("trailing", [(), (1,)])
def test_analyze_pairs_have_a_spacing_and_no_orientation(
    tmp_path: Path, suffix: str, trailing: tuple[int, ...]
) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5, *trailing)
    analyze(tmp_path / "a.img", array, (1.0, 1.5, 2.0, *(0.0 for _ in trailing)))
    path = tmp_path / f"a.{suffix}"
    header = read_header(path)
    assert header.shape == (3, 4, 5)
    assert not header.oriented
    np.testing.assert_array_equal(header.affine, np.diag([1.0, 1.5, 2.0, 1.0]))
    np.testing.assert_array_equal(read_volume(path), array.reshape(3, 4, 5))

    # What is written for it claims no orientation either.
    write_like(tmp_path / "out.nii.gz", array.reshape(3, 4, 5), path)
    out = read_header(tmp_path / "out.nii.gz")
    assert not out.oriented
    np.testing.assert_array_equal(out.affine, header.affine)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").affine, nib.load(path).affine)


def test_half_a_pair_says_which_half(tmp_path: Path) -> None:
    array = np.ones((3, 4, 5), np.int16)
    for present, absent in (("hdr", "img"), ("img", "hdr")):
        analyze(tmp_path / "a.img", array, (1.0, 1.0, 1.0))
        (tmp_path / f"a.{absent}").unlink()
        with pytest.raises(UserError, match="other file of the pair") as caught:
            read_header(tmp_path / f"a.{present}")
        assert caught.value.allowed == "NAME.hdr beside NAME.img"
        (tmp_path / f"a.{present}").unlink()


@pytest.mark.parametrize("half", ["hdr", "img"])
def test_a_cut_pair_is_refused(tmp_path: Path, half: str) -> None:
    analyze(tmp_path / "a.img", np.ones((3, 4, 5), np.int16), (1.0, 1.0, 1.0))
    file = tmp_path / f"a.{half}"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a readable NIfTI"):
        read_volume(tmp_path / "a.img")


@pytest.mark.parametrize(("code", "size"), [(0, 1.5), (1, 1500.0), (2, 1.5), (3, 0.0015)])
@pytest.mark.parametrize("oriented", [True, False])
def test_units_of_length_are_honoured(
    tmp_path: Path, volume: np.ndarray, code: int, size: float, oriented: bool
) -> None:
    image = nib.Nifti1Image(volume, np.diag([1.5, 1.5, 1.5, 1.0]) if oriented else None)
    image.header.set_zooms((1.5, 1.5, 1.5))
    image.header["xyzt_units"] = code + 8
    nib.save(image, tmp_path / "a.nii.gz")
    header = read_header(tmp_path / "a.nii.gz")
    assert header.oriented == oriented
    assert header.spacing == pytest.approx((size, size, size))


def test_missing_files_and_folders_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    for name in ("absent.nii.gz", "folder.nii.gz", "n" * 300 + ".nii.gz"):
        for read in (read_header, read_volume):
            with pytest.raises(UserError, match=name) as caught:
                read(tmp_path / name)
            assert ("no such file" in caught.value.what) == (name != "folder.nii.gz")
            assert caught.value.mend


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(
    write_nifti: Write,
    volume: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    scan, out = write_nifti("scan.nii.gz", volume), tmp_path / "out.nii.gz"
    write_like(out, volume, scan)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def half(_: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(nib, "save", half)
    for file in (out, tmp_path / "other.nii.gz"):
        with pytest.raises(type(error)):
            write_like(file, volume, scan)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_same_voxels_give_the_same_bytes(
    write_nifti: Write, volume: np.ndarray, tmp_path: Path
) -> None:
    scan = write_nifti("scan.nii.gz", volume)
    for name in ("one.nii.gz", "two.nii.gz"):
        write_like(tmp_path / name, volume, scan)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
