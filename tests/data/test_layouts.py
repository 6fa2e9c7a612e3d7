"""How data sets lie on disk: what is found, what is refused, what a user is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxfer.data.layouts import LAYOUTS, folder_of, read_dataset
from jaxfer.data.phantom import SITES, write_collection
from jaxfer.data.verify import verify_cases
from jaxfer.errors import Problem, UserError
from jaxfer.tasks import Dataset, Image

MSD = {"layout": "msd", "folder": "Task", "modality": "t1", "skull_stripped": True}
OPEN_MS = {"layout": "open_ms", "folder": "patients"}
PHANTOM = {
    "layout": "phantom",
    "folder": "made",
    "seed": 3,
    "sites": ("clinic", "ageing"),
    "subjects": (1, 2),
}
LABELS = {"0": "background", "1": "Anterior", "2": "Posterior"}


def read(root: Path, settings: dict, **changes: object) -> tuple[Dataset, list[Problem]]:
    return read_dataset("some", ConfigDict(settings | changes), root)


def entry(name: str) -> dict[str, str]:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


@pytest.fixture
def describe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset.json."""

    def write(training: object, labels: object = None, **other: object) -> Path:
        path = tmp_path / "Task" / "dataset.json"
        path.parent.mkdir(exist_ok=True)
        value = {"training": training, "labels": LABELS if labels is None else labels, **other}
        path.write_text(json.dumps(value))
        return path

    return write


@pytest.mark.parametrize("settings", [MSD, OPEN_MS, PHANTOM], ids=lambda s: s["layout"])
def test_a_missing_folder_says_what_to_download_and_the_flag(
    tmp_path: Path, settings: dict
) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, settings)
    error = caught.value
    assert "'some'" in error.what
    assert str(tmp_path / settings["folder"]) in str(error.found)
    assert error.allowed == LAYOUTS[settings["layout"]].ABOUT
    assert str(tmp_path / settings["folder"]) in error.mend
    assert "--config.data.root=" in error.mend


def test_downloads_are_named_with_their_licence() -> None:
    assert "medicaldecathlon.com" in LAYOUTS["msd"].ABOUT
    assert "CC BY-SA" in LAYOUTS["msd"].ABOUT
    assert "Ljubljana" in LAYOUTS["open_ms"].ABOUT
    assert "CC BY" in LAYOUTS["open_ms"].ABOUT


@pytest.mark.parametrize("settings", [MSD, OPEN_MS], ids=lambda s: s["layout"])
def test_a_folder_that_cannot_be_read(
    tmp_path: Path, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / settings["folder"]).mkdir()

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(UserError, match="cannot be read") as caught:
        read(tmp_path, settings)
    assert "Permission denied" in caught.value.found
    assert caught.value.mend


@pytest.mark.parametrize("layout", ["nnunet", "", None, 3])
def test_an_unknown_layout_lists_the_known_ones(tmp_path: Path, layout: object) -> None:
    with pytest.raises(UserError, match=r"config\.datasets\.some\.layout") as caught:
        read(tmp_path, MSD, layout=layout)
    assert caught.value.allowed == "msd, open_ms, phantom"


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (MSD, "folder", None),
        (MSD, "folder", ""),
        (MSD, "modality", None),
        (MSD, "modality", 1),
        (MSD, "skull_stripped", None),
        (MSD, "skull_stripped", "yes"),
        (OPEN_MS, "folder", 3),
        (PHANTOM, "sites", None),
        (PHANTOM, "sites", ()),
        (PHANTOM, "sites", ("clinic", "clinic")),
        (PHANTOM, "sites", (1, 2)),
        (PHANTOM, "subjects", None),
        (PHANTOM, "subjects", (1,)),
        (PHANTOM, "subjects", (1, 0)),
        (PHANTOM, "subjects", (1, 1.5)),
        (PHANTOM, "subjects", 2),
        (PHANTOM, "seed", None),
        (PHANTOM, "seed", -1),
    ],
)
def test_settings_of_a_layout_are_checked(
    tmp_path: Path, settings: dict, field: str, value: object
) -> None:
    changed = {k: v for k, v in settings.items() if k != field}
    for given in [changed | {field: value}] + ([changed] if value is None else []):
        with pytest.raises(UserError) as caught:
            folder_of("some", ConfigDict(given), tmp_path)
        assert f"config.datasets.some.{field}: not allowed; found {value!r}" in str(caught.value)
        assert "allowed" in str(caught.value)


def test_all_wrong_settings_are_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        folder_of("some", ConfigDict({"layout": "phantom"}), tmp_path)
    for field in ("folder", "sites", "subjects", "seed"):
        assert f"config.datasets.some.{field}" in str(caught.value)


def test_msd_cases_labels_and_roi(tmp_path: Path, describe: Callable) -> None:
    describe([entry("b_2"), entry("a.1")], labels={"2": "Posterior", "0": "bg", "1": "Anterior"})
    dataset, problems = read(tmp_path, MSD)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["a.1", "b_2"]
    case = dataset.cases[1]
    assert case.subject == "b_2"
    assert case.images == {"t1": Image(tmp_path / "Task/imagesTr/b_2.nii.gz")}
    assert case.label == tmp_path / "Task/labelsTr/b_2.nii.gz"
    assert dataset.label_names == {0: "bg", 1: "Anterior", 2: "Posterior"}
    assert dataset.roi("some").classes == (("Anterior", (1,)), ("Posterior", (2,)))
    assert dataset.roi("Posterior").classes == (("Posterior", (2,)),)
    assert dataset.skull_stripped
    assert not dataset.synthetic
    assert read(tmp_path, MSD, roi="whole", skull_stripped=False)[0].roi("whole").num_classes == 3
    assert not read(tmp_path, MSD, skull_stripped=False)[0].skull_stripped


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"training": []}',
        '{"labels": {"0": "background"}, "training": {}}',
        '{"labels": ["background"], "training": []}',
        "[" * 100_000,
        "\xff\xfe",
    ],
)
def test_msd_bad_descriptions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "Task" / "dataset.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError) as caught:
        read(tmp_path, MSD)
    assert str(path) in caught.value.what
    assert caught.value.found


def test_msd_without_description(tmp_path: Path) -> None:
    (tmp_path / "Task").mkdir()
    with pytest.raises(UserError, match=r"dataset\.json: no such file") as caught:
        read(tmp_path, MSD)
    assert "medicaldecathlon" in caught.value.allowed


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "tumour": 1},
        {"0": "background", "1.5": "half"},
        {"0": "background", "one": "tumour"},
        {"1": "tumour", "2": "oedema"},
        {"0": "background"},
        {},
    ],
)
def test_msd_labels_must_be_coded_as_the_decathlon_does(
    tmp_path: Path, describe: Callable, labels: dict
) -> None:
    path = describe([entry("a")], labels)
    with pytest.raises(UserError, match="labels") as caught:
        read(tmp_path, MSD)
    assert str(path) in caught.value.what
    assert caught.value.found == labels
    assert '"0": "background"' in caught.value.allowed


@pytest.mark.parametrize(
    "name",
    [
        "../other/a.nii.gz",
        "imagesTr/../../a.nii.gz",
        "/etc/a.nii.gz",
        "",
        ".",
        "imagesTr/..nii.gz",
        "imagesTr/...nii.gz",
        "imagesTr/.nii.gz",
        "imagesTr/._a.nii.gz",
        "imagesTr/a.txt",
        "imagesTr/a\0.nii.gz",
        3,
        None,
        ["imagesTr/a.nii.gz"],
    ],
)
@pytest.mark.parametrize("key", ["image", "label"])
def test_msd_entries_name_images_inside_the_folder(
    tmp_path: Path, describe: Callable, name: object, key: str
) -> None:
    path = describe([entry("good"), entry("bad") | {key: name}])
    dataset, (problem,) = read(tmp_path, MSD)
    assert [c.id for c in dataset.cases] == ["good"]
    assert problem.severity == "error"
    assert problem.where == str(path)
    assert problem.found == entry("bad") | {key: name}
    assert "./imagesTr/" in problem.allowed


def test_msd_every_bad_entry_is_listed(tmp_path: Path, describe: Callable) -> None:
    describe([entry("a"), "imagesTr/b.nii.gz", {"image": "./imagesTr/c.nii.gz"}, None, entry("a")])
    dataset, problems = read(tmp_path, MSD)
    assert len(dataset.cases) == 1
    assert [p.severity for p in problems] == ["error"] * 4
    assert [p.what for p in problems].count("a case is listed twice") == 1
    (twice,) = [p for p in problems if p.what == "a case is listed twice"]
    assert twice.found == "a"
    assert twice.mend


@pytest.mark.parametrize("training", [[], [{"image": "/a", "label": "/b"}]])
def test_msd_without_usable_case(tmp_path: Path, describe: Callable, training: list) -> None:
    path = describe(training)
    with pytest.raises(UserError, match="no usable case") as caught:
        read(tmp_path, MSD)
    assert str(path) in str(caught.value)
    assert "'training'" in str(caught.value)


def test_msd_every_missing_file_is_listed_once(tmp_path: Path, describe: Callable) -> None:
    describe([entry("a"), entry("b")])
    dataset, problems = read(tmp_path, MSD)
    problems += verify_cases(dataset, dataset.cases, ("t1",))
    assert sorted(p.where for p in problems) == sorted(
        str(tmp_path / "Task" / folder / f"{name}.nii.gz")
        for folder in ("imagesTr", "labelsTr")
        for name in ("a", "b")
    )
    assert all("no such file" in p.what and p.mend for p in problems)


@pytest.fixture
def patient(tmp_path: Path) -> Callable[..., Path]:
    """Makes a patient's folder with empty files of these names."""

    def make(number: int, *names: str) -> Path:
        folder = tmp_path / "patients" / f"patient{number:02d}"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
        return folder

    return make


def test_open_ms_modalities_and_debris(tmp_path: Path, patient: Callable) -> None:
    images = ("FLAIR_N4.nii.gz", "T1_x.nii.gz", "T1POST_x.nii.gz", "t2_x.nii")
    debris = ("._FLAIR_N4.nii.gz", ".DS_Store", "notes.txt", "FLAIR_N4.json", "brainmask.nii.gz")
    folder = patient(7, *images, *debris, "GOLD_STANDARD_N4.nii.gz")
    patient(3, "T1.nii.gz", "GOLD_STANDARD.nii.gz")
    (tmp_path / "patients" / ".git").mkdir()
    (tmp_path / "patients" / "__MACOSX").mkdir()
    (tmp_path / "patients" / "README").touch()
    dataset, problems = read(tmp_path, OPEN_MS)
    assert problems == []
    assert [c.id for c in dataset.cases] == ["patient03", "patient07"]
    assert dict(dataset.cases[1].images) == {
        "flair": Image(folder / "FLAIR_N4.nii.gz"),
        "t1": Image(folder / "T1_x.nii.gz"),
        "t1ce": Image(folder / "T1POST_x.nii.gz"),
        "t2": Image(folder / "t2_x.nii"),
    }
    assert dataset.cases[1].label == folder / "GOLD_STANDARD_N4.nii.gz"
    assert dataset.cases[1].site == "ljubljana"
    assert set(dataset.cases[0].images) == {"t1"}
    assert dataset.label_names == {0: "background", 1: "lesion"}
    assert dataset.skull_stripped


def test_open_ms_unused_patients_are_one_warning_per_kind(
    tmp_path: Path, patient: Callable
) -> None:
    patient(1, "FLAIR_a.nii.gz", "GOLD_a.nii.gz")
    for number in (2, 3, 4):
        patient(number, "GOLD_a.nii.gz")
    patient(5, "FLAIR_a.nii.gz")
    patient(6)
    dataset, problems = read(tmp_path, OPEN_MS)
    assert [c.id for c in dataset.cases] == ["patient01"]
    assert [p.severity for p in problems] == ["warning", "warning"]
    found = {p.what: p.found for p in problems}
    assert found == {
        "3 patient(s) without images are not used": "patient02, patient03, patient04",
        "2 patient(s) without consensus mask (GOLD_STANDARD_*) are not used": (
            "patient05, patient06"
        ),
    }
    assert all(p.where == str(tmp_path / "patients") and p.mend for p in problems)


@pytest.mark.parametrize("kind", ["FLAIR", "GOLD"])
def test_open_ms_several_files_of_a_kind_are_an_error(
    tmp_path: Path, patient: Callable, kind: str
) -> None:
    folder = patient(1, "FLAIR_a.nii", "GOLD_a.nii", f"{kind}_b.nii.gz")
    _, (problem,) = read(tmp_path, OPEN_MS)
    assert problem.severity == "error"
    assert problem.where == str(folder)
    assert problem.found == f"{kind}_a.nii, {kind}_b.nii.gz"


def test_open_ms_without_usable_patient(tmp_path: Path, patient: Callable) -> None:
    patient(1, "GOLD_a.nii.gz")
    with pytest.raises(UserError, match="no usable patient") as caught:
        read(tmp_path, OPEN_MS)
    assert "1 without images" in str(caught.value)
    assert "Ljubljana" in str(caught.value)


def test_phantom_reads_what_the_generator_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_collection(tmp_path / "made", seed=3, sites=["clinic"], subjects_per_site=1)
    dataset, problems = read(tmp_path, PHANTOM, sites=("clinic",), subjects=(1,))
    assert problems == []
    (case,) = dataset.cases
    assert (case.id, case.subject, case.site) == ("clinic-001", "clinic-001", "clinic")
    files = set((tmp_path / "made" / "clinic" / "clinic-001").iterdir())
    assert {*(i.path for i in case.images.values()), case.label} == files
    assert set(case.images) == {"t1", "t2", "flair"}
    assert dataset.synthetic
    assert dataset.roi("WMH").classes == (("WMH", (4,)),)
    assert dataset.roi("tissue").classes == (("CSF", (1,)), ("GM", (2,)), ("WM", (3, 4)))
    assert dataset.roi("whole_tumour").classes == (("whole_tumour", (5, 6, 7)),)
    assert set(PHANTOM["sites"]) < set(SITES)


def test_phantom_takes_the_configured_subjects_of_a_shared_folder(tmp_path: Path) -> None:
    for site, count in (("clinic", 3), ("ageing", 5), ("glioma", 2)):
        for number in range(1, count + 1):
            (tmp_path / "made" / site / f"{site}-{number:03d}").mkdir(parents=True)
    dataset, _ = read(tmp_path, PHANTOM)
    assert [c.id for c in dataset.cases] == ["ageing-001", "ageing-002", "clinic-001"]
