"""The words of the project: tasks by name, RoIs of label values, cases of a site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxfer.errors import UserError
from jaxfer.tasks import IGNORE, Case, Dataset, Image, RoI, Task, classes_of, wrong_name

FILE = Path("image.nii.gz")
IMAGE = Image(FILE)
PARTS = st.text("abcXYZ019_-. ", min_size=1, max_size=40).filter(lambda n: not wrong_name(n))


def case(name: str, site: str, *modalities: str, labelled: bool = True) -> Case:
    return Case(name, name, site, dict.fromkeys(modalities, IMAGE), FILE if labelled else None)


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(
        name="some",
        cases=(
            case("a", "north", "t1", "flair"),
            case("b", "north", "t1"),
            case("c", "south", "t1", "t2"),
            case("d", "south", "flair", labelled=False),
        ),
        label_names={0: "background", 1: "core", 2: "rim", 7: "cyst"},
        rois={
            "lesion": RoI("lesion", (("whole", (1, 2)), ("cyst", (7,)))),
            "core": RoI("core", (("core", (1,)), ("rim", (2,)))),
        },
        skull_stripped=True,
        about="",
    )


@given(st.tuples(PARTS, PARTS, PARTS, PARTS))
def test_a_task_is_its_name(parts: tuple[str, str, str, str]) -> None:
    task = Task.parse("/".join(parts))
    assert (task.dataset, task.site, task.modality, task.roi) == parts
    assert task.name == "/".join(parts)
    assert Task.parse(task.name) == task
    assert "/" not in task.slug


def test_a_slug_is_a_folder_name() -> None:
    assert Task.parse("phantom/clinic/flair/WMH").slug == "phantom-clinic-flair-WMH"


@pytest.mark.parametrize("name", ["", "a", "a/b/c", "a/b/c/d/e", "a//c/d", "/b/c/d", "a/b/c/"])
def test_what_is_no_name_says_how_names_look(name: str) -> None:
    with pytest.raises(UserError, match=r"config\.target") as caught:
        Task.parse(name, "target")
    assert caught.value.found == name
    assert "dataset/site/modality/RoI" in caught.value.allowed


def test_tasks_are_ordered_and_hashable() -> None:
    names = ["b/x/t1/r", "a/y/t1/r", "a/x/t2/r", "a/x/t1/s", "a/x/t1/r"]
    assert [t.name for t in sorted({Task.parse(n) for n in names})] == sorted(names)


def test_rois_are_groups_or_single_labels(dataset: Dataset) -> None:
    lesion = dataset.roi("lesion")
    assert lesion.num_classes == 3
    assert lesion.class_names == ("whole", "cyst")
    assert dataset.roi("rim") == RoI("rim", (("rim", (2,)),))
    # A group goes before the label of the same name.
    assert dataset.roi("core").num_classes == 3


@pytest.mark.parametrize("name", ["background", "tumour", ""])
def test_an_unknown_roi_lists_the_known_ones(dataset: Dataset, name: str) -> None:
    with pytest.raises(UserError, match="'some'") as caught:
        dataset.roi(name)
    assert caught.value.found == name
    assert caught.value.allowed == "lesion, core, rim, cyst"
    assert caught.value.mend


def test_cases_of_a_site_with_a_modality_and_labels(dataset: Dataset) -> None:
    def chosen(site: str, modality: str) -> list[str]:
        return [c.id for c in dataset.select(site, modality)]

    assert chosen("all", "t1") == ["a", "b", "c"]
    assert chosen("north", "t1") == ["a", "b"]
    assert chosen("all", "flair") == ["a"]
    assert chosen("south", "t2") == ["c"]


@pytest.mark.parametrize(
    ("site", "modality", "found", "allowed", "part"),
    [
        ("east", "t1", "east", "all, north, south", "second"),
        ("north", "t2", "t2", "flair, t1", "third"),
        ("south", "flair", "flair", "flair, t1, t2", "third"),
    ],
)
def test_an_unknown_site_or_modality_lists_the_known_ones(
    dataset: Dataset, site: str, modality: str, found: str, allowed: str, part: str
) -> None:
    with pytest.raises(UserError, match="'some'") as caught:
        dataset.select(site, modality)
    assert caught.value.found == found
    assert caught.value.allowed == allowed
    assert part in caught.value.mend


@given(
    arrays.arrays(np.int32, (3, 4), elements=st.integers(-1, 300)),
    st.sets(st.integers(-1, 300), max_size=30),
    st.integers(0, 2),
)
def test_classes_are_those_of_the_groups(labels: np.ndarray, known: set[int], ignored: int) -> None:
    values = sorted(known - {0})
    ignore, values = tuple(values[:ignored]), values[ignored:]
    groups = tuple((str(i), tuple(values[i::3])) for i in range(3))
    classes = classes_of(labels, RoI("r", groups), ignore)
    assert classes.dtype == np.uint8
    for label, found in zip(labels.ravel(), classes.ravel(), strict=True):
        expected = IGNORE if label in ignore else 0
        for index, (_, group) in enumerate(groups, start=1):
            if label in group:
                expected = index
        assert found == expected


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("largest", [6, 250])
def test_the_classes_of_many_voxels_are_those_of_each_alone(kind: type, largest: int) -> None:
    """A table of the values makes the former, a search for each voxel's value the latter."""
    drawn = np.random.default_rng(0).integers(0, min(largest, np.iinfo(kind).max), (8, 9, 10))
    labels, groups = drawn.astype(kind), (("a", (1, 5)), ("b", (2, 249)), ("c", (300,)))
    found = classes_of(labels, RoI("r", groups), (4, 1000))
    alone = [classes_of(v.reshape(1), RoI("r", groups), (4, 1000))[0] for v in labels.ravel()]
    np.testing.assert_array_equal(found.ravel(), alone)
    assert found.shape == labels.shape
    assert found.dtype == np.uint8


def test_ignored_values_win_over_groups() -> None:
    labels = np.array([0, 1, 2, IGNORE], np.uint8)
    np.testing.assert_array_equal(
        classes_of(labels, RoI("r", (("one", (1, 2)),)), ignore=(2,)), [0, 1, IGNORE, 0]
    )
