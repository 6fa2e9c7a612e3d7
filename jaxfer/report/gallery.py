"""The rows of pictures: which slices are shown, with which words and on which scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxfer.report import figures, numbers, tables
from jaxfer.report.records import Evaluation, TestCase
from jaxfer.report.volumes import CaseSlice, case_slice, fullest_slice, read_volume, shown

SHOWN_TRAINING_CASES = 3


@dataclass(frozen=True)
class Picture:
    """One picture of a row, with the words under it."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class PictureRow:
    """The pictures of one case."""

    title: str
    remark: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Scale:
    """The values of the darkest and the brightest colour; clipped: some are above.

    `measures` is what they are, and in which unit.
    """

    low: float
    high: float
    clipped: bool
    measures: tuple[str, str] = ("risk", "nats")


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures that share one scale of colours, and the classes outlined in them."""

    rows: tuple[PictureRow, ...]
    classes: tuple[tuple[str, str], ...] = ()
    scale: Scale | None = None


def test_gallery(evaluation: Evaluation) -> Gallery | None:
    """Image, truth, prediction and risk of the best, the median and the worst patient."""
    if not (evaluation.cases and evaluation.labels):
        return None
    method = tables.shown_method(evaluation)
    places = tables.pictured(evaluation, method)
    cases = {case.subject: case for case in reversed(evaluation.cases)}
    dice = tables.subject_dice(evaluation)
    titles, slices = [], []
    for place, subject in places:
        case = cases.get(subject)
        written = numbers.dice_text(dice[subject][method])
        titles.append(f"{place.capitalize()}: {subject}, Dice {written}")
        slices.append(_slice_or_reason(case, evaluation, method))
    risks = [cut.risk for cut, _ in slices if cut and cut.risk is not None]
    scale = map_scale(risks)
    return Gallery(
        rows=tuple(
            PictureRow(title, remark, _case_pictures(cut, method, scale) if cut else ())
            for title, (cut, remark) in zip(titles, slices, strict=True)
        ),
        classes=tuple(
            (label.name, figures.class_colour(place))
            for place, label in enumerate(evaluation.labels)
        ),
        scale=scale if risks else None,
    )


def _slice_or_reason(
    case: TestCase | None, evaluation: Evaluation, method: str
) -> tuple[CaseSlice | None, str]:
    """The slice to show with the words about it; without its files, the reason alone."""
    if case is None:
        return None, "No picture: the evaluation lists no files for this patient."
    seeds = case.predictions.get(method, {})
    if not seeds:
        return None, f"No picture: no prediction of {tables.method_name(method)} is stored."
    seed = min(seeds)
    absent = [path for path in (case.image, case.label, seeds[seed]) if not path.is_file()]
    if absent:
        return None, f"No picture: {absent[0]} is not there."
    cut = case_slice(case, evaluation.labels, seeds[seed])
    remark = f"Case {case.case}, slice {cut.index + 1} of {cut.n_slices}, seed {seed}."
    if cut.truth_empty:
        remark += " The reference is empty: the slice is the one with the most prediction."
    return cut, remark


def _case_pictures(cut: CaseSlice, method: str, scale: Scale) -> tuple[Picture, ...]:
    truth, prediction = tuple(cut.truth.values()), tuple(cut.prediction.values())
    pictures = [
        Picture(figures.image_picture(cut.image, (), aspect=cut.aspect), "image"),
        Picture(figures.image_picture(cut.image, truth, aspect=cut.aspect), "truth"),
        Picture(
            figures.image_picture(cut.image, prediction, aspect=cut.aspect),
            f"prediction, {tables.method_name(method)}",
        ),
    ]
    if cut.risk is not None:
        png = figures.risk_picture(
            cut.risk, truth, limits=(scale.low, scale.high), aspect=cut.aspect
        )
        pictures.append(Picture(png, "risk map, truth outlined"))
    return tuple(pictures)


def training_galleries(
    maps: Mapping[str, Mapping[str, Path]], weights: Mapping[str, Mapping[str, Path]]
) -> tuple[Gallery, ...]:
    """The stored maps of the first training cases, and what the methods made of maps.

    Args:
        maps: files by case and reading.
        weights: files by methods and case.
    """
    galleries = []
    for kind in ("instance", "positional"):
        files = {case: kinds[kind] for case, kinds in maps.items() if kind in kinds}
        galleries.append(_of_training(f"{kind.capitalize()} map", files))
    for methods, made in weights.items():
        galleries.append(_of_training(f"Weights of {methods}", made, weights=True))
    return tuple(found for found in galleries if found.rows)


def _of_training(title: str, files: Mapping[str, Path], *, weights: bool = False) -> Gallery:
    """One map of the first training cases; without a row if there is none."""
    cases = list(files)[:SHOWN_TRAINING_CASES]
    if not cases:
        return Gallery(())
    cuts = [_telling_slice(files[case], weights=weights) for case in cases]
    scale = map_scale([cut.known for cut in cuts], ("weight", "") if weights else ("risk", "nats"))
    pictures = tuple(
        Picture(
            figures.risk_picture(cut.values, (), limits=(scale.low, scale.high), aspect=cut.aspect),
            f"{case}, slice {cut.place + 1}",
        )
        for case, cut in zip(cases, cuts, strict=True)
    )
    remark = f"{len(cases)} of {len(files)} training cases"
    return Gallery((PictureRow(title, remark, pictures),), scale=scale)


class _Slice(NamedTuple):
    """A slice of a map as it is shown; `known` is NaN where it says nothing."""

    values: Float[np.ndarray, "row column"]
    known: Float[np.ndarray, "row column"]
    aspect: float
    place: int


def _telling_slice(path: Path, *, weights: bool) -> _Slice:
    """The slice where the map departs most from its median.

    Args:
        weights: they are 0 where nothing is trained, which says nothing.
    """
    volume = read_volume(path)
    values = volume.values.astype(np.float64)
    known = values
    if weights and (values > 0).any():
        known = np.where(values > 0, values, np.nan)
    place = fullest_slice(np.nan_to_num(np.abs(known - np.nanmedian(known))))
    return _Slice(shown(values, place), shown(known, place), volume.aspect, place)


def map_scale(
    maps: Sequence[Float[np.ndarray, "_row _column"]],
    measures: tuple[str, str] = ("risk", "nats"),
) -> Scale:
    """One scale for maps that are shown together.

    The brightest colour is the 99.5th percentile of what lies above the minimum, so that one
    extreme pixel does not darken all others.
    """
    values = np.concatenate([risk[np.isfinite(risk)].ravel() for risk in maps] or [np.zeros(0)])
    if not values.size:
        return Scale(0.0, 1.0, False, measures)
    low = float(values.min())
    above = values[values > low]
    high = float(np.percentile(above, 99.5)) if above.size else low + 1.0
    return Scale(low, high, bool(values.max() > high), measures)
