"""The label index against counting in the whole label map."""

from __future__ import annotations

import numpy as np
import pytest

from jaxfer.data.label_index import MOST_PLACES, index_labels
from jaxfer.tasks import IGNORE, RoI, classes_of

ROI = RoI("some", (("one", (1, 4)), ("two", (300,)), ("absent", (9,))))


@pytest.fixture
def labels() -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.choice([0, 0, 0, 1, 2, 4, 300, -7], (9, 11, 13)).astype(np.int32)
    values[:, :, 5] = 0
    values[:, 3] = 2
    return values


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ignore", [(), (2,), (2, -7), (0,)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_counts_are_those_of_the_label_map(
    labels: np.ndarray, axis: int, ignore: tuple[int, ...], order: str
) -> None:
    found = index_labels(np.asarray(labels, order=order)).class_counts(ROI, ignore, axis)
    classes = np.moveaxis(classes_of(labels, ROI, ignore), axis, 0)
    expected = [[(slab == c).sum() for c in range(ROI.num_classes)] for slab in classes]
    np.testing.assert_array_equal(found, expected)


def test_values_and_places_are_those_of_the_label_map(labels: np.ndarray) -> None:
    index = index_labels(labels)
    assert index.values == (-7, 0, 1, 2, 4, 300)
    for own, places in zip(ROI.classes, index.class_places(ROI), strict=True):
        expected = np.argwhere(np.isin(labels, own[1]))
        assert sorted(map(tuple, places)) == sorted(map(tuple, expected))
    classes = classes_of(labels, ROI, (4,))
    one, *_ = index.class_places(ROI, (4,))
    assert len(one) == (classes == 1).sum() < np.isin(labels, (1, 4)).sum()
    assert IGNORE in classes


def test_large_classes_are_remembered_by_an_even_sample() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[4:36, 4:36, 4:36] = 1
    index = index_labels(labels)
    (places,) = index.class_places(RoI("r", (("a", (1,)),)))
    assert len(places) == MOST_PLACES < labels.sum()
    assert len(np.unique(places, axis=0)) == MOST_PLACES
    assert (labels[tuple(places.T)] == 1).all()
    np.testing.assert_allclose(places.mean(0), 19.5, atol=0.5)
    np.testing.assert_array_equal(places.min(0), 4)
    np.testing.assert_array_equal(places.max(0), 35)


@pytest.mark.parametrize("value", [0, 3])
def test_one_value_alone(value: int) -> None:
    index = index_labels(np.full((3, 4, 5), value, np.uint8))
    assert index.values == (value,)
    for axis, size in enumerate((3, 4, 5)):
        np.testing.assert_array_equal(index.counts[axis], np.full((size, 1), 60 // size))
    assert len(index.places) == (60 if value else 0)
