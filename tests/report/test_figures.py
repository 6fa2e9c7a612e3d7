"""The figures: that they show what they should, read off their pixels."""

from __future__ import annotations

import io
import math
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from jaxfer.report import figures
from jaxfer.report.records import Curve, Gain

METHODS = ("scratch", "plain", "weighted")
BETTER = {"scratch": 0.5, "plain": 0.6, "weighted": 0.7}
WORSE = {"scratch": 0.7, "plain": 0.6, "weighted": 0.5}


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def holds(png: bytes, colour: str, tolerance: int = 30) -> bool:
    """Whether some pixels have about this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(pixels(png) - wanted).max(axis=-1) < tolerance).sum() > 20)


@pytest.mark.parametrize(("patient", "hurt"), [(BETTER, False), (WORSE, True)])
def test_only_negative_transfer_is_vermilion(patient: dict, hurt: bool) -> None:
    png = figures.patients_figure({"a": patient, "b": BETTER}, METHODS)
    assert holds(png, figures.VERMILION) == hurt
    assert pixels(png).shape == (780, 1040, 3)


def test_the_judged_method_decides_the_colour() -> None:
    patient = {"scratch": 0.6, "plain": 0.7, "weighted": 0.5}
    for judged, hurt in ((None, True), ("weighted", True), ("plain", False)):
        png = figures.patients_figure({"a": patient, "b": BETTER}, METHODS, judged)
        assert holds(png, figures.VERMILION) == hurt


def test_patients_are_named_unless_they_are_many() -> None:
    few, many = ({f"{i:03}": BETTER for i in range(n)} for n in (12, 13))
    named, unnamed = (pixels(figures.patients_figure(dice, METHODS)) for dice in (few, many))
    right = (slice(None), slice(985, None))
    assert (named[right] < 200).sum() > 3 * (unnamed[right] < 200).sum()


@pytest.mark.parametrize(
    "dice",
    [
        {"a": dict.fromkeys(METHODS, math.nan)},
        {"a": BETTER, "b": dict.fromkeys(METHODS, math.nan)},
        {"$\\frac{$": BETTER, "a very long name of a patient": WORSE},
        {"a": {"scratch": 0.0, "plain": 1.0}},
    ],
)
def test_any_patient_can_be_drawn(dice: dict) -> None:
    assert pixels(figures.patients_figure(dice, METHODS)).size


def test_one_method_alone_can_be_drawn() -> None:
    assert pixels(figures.patients_figure({"a": {"plain": 0.5}}, ("plain",))).size


def gain(*values: float, interval: tuple[float, float] = (0.0, 0.1)) -> Gain:
    return Gain("weighted", "plain", 0.05, interval, {f"p{i}": v for i, v in enumerate(values)})


def test_gains_below_zero_are_vermilion() -> None:
    assert holds(figures.gains_figure([gain(0.1, 0.05, -0.04)]), figures.VERMILION)
    assert not holds(figures.gains_figure([gain(0.1, 0.05, 0.04)]), figures.VERMILION)


def test_a_gain_without_interval_or_patients_can_be_drawn() -> None:
    assert pixels(figures.gains_figure([gain(interval=(math.nan, math.nan))])).size


@pytest.mark.parametrize(
    "losses",
    [(1.0, 0.5, 0.2), (100.0, 1.0, 0.01), (1.0, math.nan, -0.2), (math.inf, 1.0, 0.1), (), (0.5,)],
)
def test_any_curve_can_be_drawn(losses: tuple[float, ...]) -> None:
    steps = tuple(float(step) for step in range(len(losses)))
    png = figures.curves_figure([Curve("seed 0", steps, losses)])
    joined = any(math.isfinite(a) and math.isfinite(b) for a, b in pairwise(losses))
    assert holds(png, figures.BLUE, 60) == joined


def test_a_logarithmic_axis_is_labelled_with_plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []

    def read(figure: Figure) -> bytes:
        figure.canvas.draw()
        labels.extend(tick.get_text() for tick in figure.axes[0].get_yticklabels())
        return b""

    monkeypatch.setattr(figures, "_png", read)
    figures.curves_figure([Curve("seed 0", (0.0, 1.0, 2.0), (10.0, 1.0, 0.1))])
    assert {"0.1", "1", "10"} <= set(labels)


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=30), st.integers(1, 9))
def test_running_mean_is_the_mean_of_the_neighbours(values: list[float], width: int) -> None:
    half = width // 2
    expected = []
    for i in range(len(values)):
        near = [v for v in values[max(0, i - half) : i + half + 1] if not math.isnan(v)]
        expected.append(sum(near) / len(near) if near else math.nan)
    got = figures.running_mean(np.array(values), width)
    np.testing.assert_allclose(got, expected, atol=1e-9)


def square(rows: slice, columns: slice, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def test_a_mask_is_tinted_where_it_lies_and_nowhere_else() -> None:
    image = np.full((40, 40), 0.5)
    image[0, 0], image[0, 1] = 0.0, 1.0
    mask = square(slice(20, 30), slice(4, 12))
    shown = pixels(figures.image_picture(image, [mask], aspect=1.0))
    assert shown.shape == (560, 560, 3)
    coloured = (shown.max(axis=-1) - shown.min(axis=-1)) > 12
    rows, columns = np.nonzero(coloured)
    assert (rows.min() // 14, (rows.max() - 1) // 14) == pytest.approx((20, 30), abs=1)
    assert (columns.min() // 14, (columns.max() - 1) // 14) == pytest.approx((4, 12), abs=1)
    assert coloured[20 * 14 + 7 : 29 * 14, 4 * 14 + 7 : 11 * 14].all()


def test_classes_have_colours_of_their_own() -> None:
    masks = [square(slice(0, 15), slice(0, 40)), square(slice(20, 40), slice(0, 40))]
    png = figures.image_picture(np.zeros((40, 40)), masks, aspect=1.0)
    assert holds(png, figures.class_colour(0))
    assert holds(png, figures.class_colour(1))
    assert figures.class_colour(len(figures.CLASS_COLOURS)) == figures.class_colour(0)


def test_tall_voxels_make_a_tall_picture() -> None:
    png = figures.image_picture(np.zeros((40, 40)), (), aspect=2.0)
    assert pixels(png).shape == (560, 280, 3)


@pytest.mark.parametrize("image", [np.full((8, 8), np.nan), np.zeros((8, 8))])
def test_an_image_without_contrast_can_be_drawn(image: np.ndarray) -> None:
    assert pixels(figures.image_picture(image, (), aspect=1.0)).size


def test_risk_grows_bright() -> None:
    risk = np.tile(np.linspace(1, 5, 40), (40, 1))
    row = pixels(figures.risk_picture(risk, (), limits=(1.0, 5.0), aspect=1.0))[300].sum(axis=-1)
    assert (np.diff(row[7::14]) > 0).all()


def test_the_colour_bar_runs_from_dark_to_bright() -> None:
    row = pixels(figures.colour_bar())[5].sum(axis=-1)
    assert row[0] < 50
    assert row[-1] > 500


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.2))
def test_names_are_moved_apart_in_their_order(heights: list[float], gap: float) -> None:
    moved = figures._spread(sorted(heights), gap)
    assert len(moved) == len(heights)
    assert all(b - a > gap * (1 - 1e-6) for a, b in pairwise(moved))


def test_names_that_do_not_touch_stay() -> None:
    assert figures._spread([0.1, 0.5, 0.9], 0.2) == [0.1, 0.5, 0.9]


def test_the_users_settings_change_nothing() -> None:
    before = figures.patients_figure({"a": BETTER}, METHODS)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.marker": "x"}):
        assert figures.patients_figure({"a": BETTER}, METHODS) == before
