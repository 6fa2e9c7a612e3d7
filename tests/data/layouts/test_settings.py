"""What an entry of config.datasets may hold, and what a user is told of a missing folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxfer.data.layouts import LAYOUTS, check_entries, folder_of
from jaxfer.errors import UserError
from tests.data.layouts.build import read

MSD = {"layout": "msd", "folder": "Task", "modality": "t1", "skull_stripped": True}
OPEN_MS = {"layout": "open_ms", "folder": "patients"}
PHANTOM = {
    "layout": "phantom",
    "folder": "made",
    "seed": 3,
    "sites": ("clinic", "ageing"),
    "subjects": (1, 2),
}


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


@pytest.mark.parametrize("layout", ["nnunett", "", None, 3])
def test_an_unknown_layout_lists_the_known_ones(tmp_path: Path, layout: object) -> None:
    with pytest.raises(UserError, match=r"config\.datasets\.some\.layout") as caught:
        read(tmp_path, MSD, layout=layout)
    assert caught.value.allowed == ", ".join(sorted(LAYOUTS))


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


def test_unknown_settings_are_errors_with_the_nearest_known(tmp_path: Path) -> None:
    for given, near in ((MSD | {"modalty": "t1"}, "modality"), (OPEN_MS | {"year": 3}, "layout")):
        with pytest.raises(UserError, match="unknown field") as caught:
            folder_of("some", ConfigDict(given), tmp_path)
        assert near in str(caught.value)
    assert folder_of("some", ConfigDict(MSD | {"optional": True}), tmp_path) == tmp_path / "Task"
    with pytest.raises(UserError, match=r"some\.optional"):
        folder_of("some", ConfigDict(MSD | {"optional": "yes"}), tmp_path)


def test_every_layout_says_what_to_download_and_where_from() -> None:
    for name, layout in LAYOUTS.items():
        assert layout.ABOUT, name
        assert all(setting.allowed for setting in layout.SETTINGS.values())


def test_the_entries_of_all_data_sets_are_checked_at_once() -> None:
    entries = {"one": MSD | {"modality": 3}, "two": PHANTOM | {"sead": 1}, "three": OPEN_MS}
    with pytest.raises(UserError) as caught:
        check_entries(ConfigDict(entries))
    assert "config.datasets.one.modality: not allowed" in str(caught.value)
    assert "config.datasets.two.sead: unknown field" in str(caught.value)
    assert "three" not in str(caught.value)
    check_entries(ConfigDict({"one": MSD, "two": PHANTOM, "three": OPEN_MS}))
