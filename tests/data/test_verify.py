"""Verification: every kind of problem, all of them at once, each with what mends it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.data import verify
from jaxfer.data.nifti import Header, read_volume
from jaxfer.data.verify import AFFINE_TOLERANCE, corner_distance, verify_cases
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, Image

Make = Callable[..., Case]
Of = Callable[..., Dataset]


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Writes a file again with other voxels and the affine that it has."""
    image = nib.Nifti1Image(change(read_volume(path)), nib.load(path).affine)
    nib.save(image, path)


def spoilt(array: np.ndarray, value: float) -> np.ndarray:
    """The array as float32 with one voxel changed."""
    new = array.astype(np.float32)
    new[3, 4, 5] = value
    return new


def seen(problems: list[Problem]) -> dict[str, tuple[str, str]]:
    """Severity and text by file name; every file must have one problem at most."""
    by_file = {Path(p.where).name: (p.severity, p.what) for p in problems}
    assert len(by_file) == len(problems)
    return by_file


def assert_mendable(problems: list[Problem]) -> None:
    for problem in problems:
        assert Path(problem.where).is_absolute()
        assert problem.mend
        if "no such file" not in problem.what:
            assert problem.found not in (None, "")
            assert problem.allowed not in (None, "")


@pytest.mark.parametrize("affine", [None, np.diag([-1.0, 1.0, 3.0, 1.0])])
def test_sound_cases_have_no_problem(make_case: Make, dataset_of: Of, affine: np.ndarray) -> None:
    cases = [
        make_case(name, modalities=("t1", "flair"), affine=affine, seed=seed)
        for seed, name in enumerate("ab")
    ]
    assert verify_cases(dataset_of(*cases), cases, ("t1", "flair")) == []


def test_every_kind_of_problem_appears_at_once(make_case: Make, dataset_of: Of) -> None:
    names = "sound gone noimage shape affine nan inf constant half unknown negative empty cut 4d"
    cases = {name: make_case(name, seed=i) for i, name in enumerate(names.split())}
    image = {name: case.images["t1"].path for name, case in cases.items()}
    label = {name: case.label for name, case in cases.items() if case.label}

    label["gone"].unlink()
    image["noimage"].unlink()
    edit(label["shape"], lambda a: a[:-1])
    shifted = np.eye(4)
    shifted[0, 3] = 1.0
    nib.save(nib.Nifti1Image(read_volume(label["affine"]), shifted), label["affine"])
    edit(image["nan"], lambda a: spoilt(a, np.nan))
    edit(image["inf"], lambda a: spoilt(a, -np.inf))
    edit(image["constant"], np.ones_like)
    edit(label["half"], lambda a: spoilt(a, 0.5))
    edit(label["unknown"], lambda a: spoilt(a, 7).astype(np.uint8))
    edit(label["negative"], lambda a: spoilt(a, -1).astype(np.int16))
    edit(label["empty"], np.zeros_like)
    image["cut"].write_bytes(image["cut"].read_bytes()[:-400])
    nib.save(nib.Nifti1Image(np.zeros((14, 16, 12, 2), np.uint8), np.eye(4)), label["4d"])

    problems = verify_cases(dataset_of(*cases.values()), cases.values(), ("t1",))
    assert_mendable(problems)
    found = seen(problems)
    expected = {
        "gone_seg": "no such file",
        "noimage_t1": "no such file",
        "shape_seg": "shape differs",
        "affine_seg": "affine differs",
        "nan_t1": "NaN or infinite",
        "inf_t1": "NaN or infinite",
        "constant_t1": "same value",
        "half_seg": "not whole numbers",
        "unknown_seg": "nobody declared",
        "negative_seg": "nobody declared",
        "empty_seg": "empty",
        "cut_t1": "not a readable NIfTI",
        "4d_seg": "not a 3-D image",
    }
    assert found.keys() == {f"{name}.nii.gz" for name in expected}
    for name, text in expected.items():
        severity, what = found[f"{name}.nii.gz"]
        assert text in what
        assert severity == ("warning" if name == "empty_seg" else "error")

    by_file = {Path(p.where).name: p for p in problems}
    assert by_file["shape_seg.nii.gz"].found == "13 × 16 × 12"
    assert by_file["shape_seg.nii.gz"].allowed == "14 × 16 × 12"
    assert str(image["shape"]) in by_file["shape_seg.nii.gz"].what
    assert "1 voxels away" in by_file["affine_seg.nii.gz"].found
    assert by_file["nan_t1.nii.gz"].found == "1 voxels"
    assert by_file["half_seg.nii.gz"].found == "0.5"
    assert by_file["unknown_seg.nii.gz"].found == "7"
    assert by_file["unknown_seg.nii.gz"].allowed == "0 background, 1 core, 2 rim"
    assert by_file["negative_seg.nii.gz"].found == "-1"


def test_one_problem_of_a_case_hides_no_other(make_case: Make, dataset_of: Of) -> None:
    case = make_case("a", modalities=("t1", "t2", "flair"))
    assert case.label
    case.images["t1"].path.unlink()
    edit(case.images["t2"].path, lambda a: spoilt(a, np.nan))
    edit(case.images["flair"].path, lambda a: a[:, :-2])
    edit(case.label, lambda a: spoilt(a, 9).astype(np.uint8))
    problems = verify_cases(dataset_of(case), [case], ("t1", "t2", "flair"))
    found = seen(problems)
    assert "no such file" in found["a_t1.nii.gz"][1]
    assert "NaN" in found["a_t2.nii.gz"][1]
    assert "shape differs" in found["a_flair.nii.gz"][1]
    assert "nobody declared" in found["a_seg.nii.gz"][1]

    nib.save(nib.Nifti1Image(np.full((14, 16, 11), 0.25, np.float32), np.eye(4)), case.label)
    both = verify_cases(dataset_of(case), [case], ("t2",))
    assert sorted(p.what.split()[0] for p in both if Path(p.where) == case.label) == [
        "shape",
        "the",
    ]


@pytest.mark.parametrize("distance", [1e-6, 0.9 * AFFINE_TOLERANCE, 1.1 * AFFINE_TOLERANCE])
def test_affines_may_differ_by_rounding(make_case: Make, dataset_of: Of, distance: float) -> None:
    case = make_case("a")
    assert case.label
    near = np.eye(4)
    near[1, 3] = distance
    nib.save(nib.Nifti1Image(read_volume(case.label), near), case.label)
    problems = verify_cases(dataset_of(case), [case], ("t1",))
    assert bool(problems) == (distance > AFFINE_TOLERANCE)


def test_corner_distance_is_in_voxels_and_at_the_farthest_corner() -> None:
    shape, fine = (11, 21, 31), np.diag([2.0, 2.0, 4.0, 1.0])
    shifted, stretched, turned = fine.copy(), fine.copy(), fine.copy()
    shifted[2, 3] = 1.0
    stretched[2, 2] = 4.1
    turned[:2, :2] = 2.0 * np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])

    def distance(affine: np.ndarray) -> float:
        return corner_distance(Header(shape, fine), Header(shape, affine))

    assert distance(fine) == 0.0
    assert distance(shifted) == pytest.approx(1.0 / 2.0)
    assert distance(stretched) == pytest.approx(30 * 0.1 / 2.0)
    assert distance(turned) == pytest.approx(2 * np.sin(0.05) * np.hypot(20.0, 40.0) / 2.0)


def test_trailing_axes_of_length_1_make_no_other_shape(make_case: Make, dataset_of: Of) -> None:
    case = make_case("a")
    assert case.label
    nib.save(nib.Nifti1Image(read_volume(case.label)[..., None], np.eye(4)), case.label)
    assert verify_cases(dataset_of(case), [case], ("t1",)) == []


def test_whole_numbers_stored_as_floats_are_labels(make_case: Make, dataset_of: Of) -> None:
    case = make_case("a")
    assert case.label
    edit(case.label, lambda a: a.astype(np.float32))
    assert verify_cases(dataset_of(case), [case], ("t1",)) == []
    for value, found in ((np.nan, "nan"), (-np.inf, "-inf"), (1.25, "1.25")):
        edit(case.label, lambda a, value=value: spoilt(a, value))
        (problem,) = verify_cases(dataset_of(case), [case], ("t1",))
        assert problem.found == found
        edit(case.label, lambda a: spoilt(a, 1))


def test_only_what_is_asked_for_is_looked_at(make_case: Make, dataset_of: Of) -> None:
    case = make_case("a", modalities=("t1", "t2"))
    case.images["t2"].path.unlink()
    assert verify_cases(dataset_of(case), [case], ("t1", "flair")) == []
    unlabelled = replace(case, label=None)
    assert verify_cases(dataset_of(unlabelled), [unlabelled], ("t1",)) == []
    assert verify_cases(dataset_of(unlabelled), [unlabelled], ("flair",)) == []


def test_progress_is_told_case_by_case(make_case: Make, dataset_of: Of) -> None:
    cases = [make_case(name) for name in ("b", "a", "c")]
    cases[1].images["t1"].path.unlink()
    cases[1].label.unlink()
    told: list[str] = []
    verify_cases(dataset_of(*cases), cases, ("t1",), on_case=told.append)
    assert told == ["b", "a", "c"]


def test_long_lists_of_values_are_cut_short(make_case: Make, dataset_of: Of) -> None:
    case = make_case("a")
    assert case.label
    edit(case.label, lambda a: np.arange(a.size, dtype=np.int16).reshape(a.shape))
    (problem,) = verify_cases(dataset_of(case), [case], ("t1",))
    assert problem.found == f"3, 4, 5, 6, 7, 8, 9, 10, … ({14 * 16 * 12 - 3} values)"


def test_errors_come_first_then_files_in_order(make_case: Make, dataset_of: Of) -> None:
    cases = [make_case(name, seed=seed) for seed, name in enumerate("dcba")]
    for case in (cases[3], cases[0]):
        edit(case.label, np.zeros_like)
    for case in (cases[1], cases[2]):
        edit(case.images["t1"].path, np.ones_like)
    problems = verify_cases(dataset_of(*cases), cases, ("t1",))
    assert [(p.severity, Path(p.where).name[0]) for p in problems] == [
        ("error", "b"),
        ("error", "c"),
        ("warning", "a"),
        ("warning", "d"),
    ]


def test_several_at_once_find_the_same(make_case: Make, dataset_of: Of) -> None:
    cases = [make_case(name, seed=seed) for seed, name in enumerate("abcdef")]
    edit(cases[1].label, np.zeros_like)
    edit(cases[2].images["t1"].path, lambda a: spoilt(a, np.nan))
    cases[3].images["t1"].path.unlink()
    edit(cases[4].label, lambda a: a[:-1])
    told: list[str] = []
    dataset = dataset_of(*cases)
    problems = verify_cases(dataset, cases, ("t1",), workers=4, on_case=told.append)
    assert problems == verify_cases(dataset, cases, ("t1",))
    assert len(problems) == 4
    assert told == list("abcdef")


def test_headers_of_all_cases_are_read_before_any_content(
    make_case: Make, dataset_of: Of, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [make_case(name, seed=seed) for seed, name in enumerate("abc")]
    order: list[str] = []
    for name in ("read_header", "read_images"):
        real = getattr(verify, name)

        def noted(*how: object, name: str = name, real: Callable = real) -> object:
            order.append(name)
            return real(*how)

        monkeypatch.setattr(verify, name, noted)
    verify_cases(dataset_of(*cases), cases, ("t1",))
    assert order == ["read_header"] * 6 + ["read_images"] * 6


def test_links_and_names_that_leave_the_folder(make_case: Make, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    outside = make_case("outside").images["t1"].path
    dataset = Dataset("set", (), {0: "b", 1: "c", 2: "r"}, {}, True, "made here")
    inside = folder / "inside.nii.gz"
    shutil.copy(outside, inside)
    (folder / "leaves.nii.gz").symlink_to(outside)
    (folder / "stays.nii.gz").symlink_to(inside)
    up = folder / ".." / outside.name

    def told(file: Path) -> list[Problem]:
        case = Case("a", "a", "1", {"t1": Image(file)}, None)
        return verify_cases(dataset, [case], ("t1",), folder=folder)

    assert told(inside) == told(folder / "stays.nii.gz") == []
    (link,) = told(folder / "leaves.nii.gz")
    assert (link.severity, link.found) == ("error", str(outside.resolve()))
    assert "symbolic link that leaves" in link.what
    (name,) = told(up)
    assert name.severity == "error"
    assert "leads out" in name.what
    # A table may name files anywhere, and the folder itself may be reached by a link.
    assert told(outside) == []
    (tmp_path / "linked").symlink_to(folder)
    case = Case("a", "a", "1", {"t1": Image(tmp_path / "linked" / "inside.nii.gz")}, None)
    assert verify_cases(dataset, [case], ("t1",), folder=tmp_path / "linked") == []
    assert_mendable([link, name])


def test_names_twice_and_names_of_no_file(make_case: Make, dataset_of: Of) -> None:
    case = make_case("a")
    cases = [case, replace(case, subject="b"), *(replace(case, id=i) for i in ("../b", "/c", "\n"))]
    problems = verify_cases(dataset_of(*cases), cases, ("t1",))
    errors = [p for p in problems if p.severity == "error"]
    assert sorted(str(p.found) for p in errors) == ["'../b'", "'/c'", "'\\n'", "2 times"]
    assert {p.where for p in errors} == {"dataset 'tiny'"}


def test_one_scan_under_two_names(make_case: Make, dataset_of: Of) -> None:
    cases = [make_case("a"), make_case("b", seed=1), make_case("c")]
    (problem,) = verify_cases(dataset_of(*cases), cases, ("t1",))
    assert problem.severity == "warning"
    assert problem.where == str(cases[2].images["t1"].path)
    assert str(cases[0].images["t1"].path) in problem.what
    assert problem.found == "cases a and c"


def test_a_header_without_orientation_beside_one_with_is_told(
    make_case: Make, dataset_of: Of
) -> None:
    case = make_case("a", affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    assert case.label
    bare = nib.Nifti1Image(read_volume(case.label), None)
    bare.header.set_zooms((1.0, 1.0, 2.0))
    nib.save(bare, case.label)
    (problem,) = verify_cases(dataset_of(case), [case], ("t1",))
    assert (problem.severity, problem.where) == ("warning", str(case.label))
    assert "no orientation" in problem.what
    bare.header.set_zooms((1.0, 1.0, 1.0))
    nib.save(bare, case.label)
    (problem,) = verify_cases(dataset_of(case), [case], ("t1",))
    assert (problem.severity, problem.what[:14]) == ("error", "affine differs")


def test_direction_cosines_may_differ_by_rounding(make_case: Make, dataset_of: Of) -> None:
    turned = np.eye(4)
    turned[0, 1], turned[1, 0] = 1e-6, -1e-6
    case = make_case("a")
    assert case.label
    nib.save(nib.Nifti1Image(read_volume(case.label), turned), case.label)
    assert not np.array_equal(nib.load(case.label).affine, np.eye(4))
    assert verify_cases(dataset_of(case), [case], ("t1",)) == []


@pytest.mark.parametrize(("code", "fine"), [(1, False), (2, True), (3, False)])
def test_voxels_of_metres_are_an_error(
    make_case: Make, dataset_of: Of, code: int, fine: bool
) -> None:
    case = make_case("a")
    for file in (case.images["t1"].path, case.label):
        image = nib.load(file)
        image.header["xyzt_units"] = code
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), file)
    problems = verify_cases(dataset_of(case), [case], ("t1",))
    assert len(problems) == (0 if fine else 2)
    assert all("no scan has" in p.what and "xyzt_units" in p.mend for p in problems)


def test_a_skull_where_none_should_be_is_told(make_case: Make, dataset_of: Of) -> None:
    case = make_case("a")
    edit(case.images["t1"].path, lambda a: a + 7)
    dataset = dataset_of(case)
    (problem,) = verify_cases(dataset, [case], ("t1",))
    assert problem.severity == "warning"
    assert "skull-stripped" in problem.what
    assert verify_cases(replace(dataset, skull_stripped=False), [case], ("t1",)) == []


def test_damage_of_a_4d_file_is_told_once(dataset_of: Of, tmp_path: Path) -> None:
    file = tmp_path / "four.nii.gz"
    four = np.random.default_rng(0).integers(0, 50, (9, 8, 7, 3)).astype(np.int16)
    four[:5] = 0
    nib.save(nib.Nifti1Image(four, np.eye(4)), file)
    case = Case("a", "a", "1", {m: Image(file, i) for i, m in enumerate("xyz")}, None)
    assert verify_cases(dataset_of(case), [case], "xyz") == []
    file.write_bytes(file.read_bytes()[:-5])
    (problem,) = verify_cases(dataset_of(case), [case], "xyz")
    assert problem.where == str(file)
