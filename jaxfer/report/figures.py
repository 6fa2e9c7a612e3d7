"""The figures of the report, each drawn for itself and returned as the bytes of a PNG.

An inch stands for 100 CSS pixels and is drawn with 200: a figure of 5.2 inches is meant to be shown
520 pixels wide. No figure depends on the user's matplotlib settings.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from jaxfer.report.records import Curve, Gain

INK, MUTED, FAINT = "#1b1f24", "#5b6470", "#c9ced6"
BLUE, VERMILION = "#0072b2", "#d55e00"
# Okabe and Ito's palette, which colour-blind readers can tell apart, ordered for grey images.
CLASS_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")
RISK_COLOURS = "magma"
OUTLINE = "#56b4e9"  # in none of the colours of a risk map
MANY_PATIENTS = 12

_STYLE: Sequence[Any] = (
    "default",
    {
        "font.size": 9.5,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": MUTED,
    },
)


def patients_figure(
    dice: Mapping[str, Mapping[str, float]], methods: Sequence[str], judged: str | None = None
) -> bytes:
    """Dice per patient: one line for each patient across the methods, and their mean in black.

    Args:
        dice: patient → method → Dice in [0, 1] or NaN.
        methods: the methods from left to right.
        judged: the one that is compared with the first; None: the last.

    Returns:
        A PNG; a patient for whom the judged method is below the first is drawn in vermilion.
    """
    judged_place = -1 if judged is None else list(methods).index(judged)
    with style.context(_STYLE):
        figure, axes = _canvas(5.2, 3.9)
        places = np.arange(len(methods), dtype=float)
        ends: list[tuple[float, str, str]] = []
        for patient, scores in dice.items():
            line = [scores.get(method, math.nan) for method in methods]
            hurt = len(line) > 1 and line[judged_place] < line[0]
            colour = VERMILION if hurt else "#8a93a0"
            axes.plot(
                places, line, "o-", color=colour, lw=1.2, ms=4, alpha=0.9, zorder=3 if hurt else 2
            )
            if not math.isnan(line[-1]):
                ends.append((line[-1], patient, VERMILION if hurt else MUTED))
        mean = [
            _mean([scores.get(method, math.nan) for scores in dice.values()]) for method in methods
        ]
        axes.plot(places, mean, "o-", color="black", lw=2.6, ms=6.5, zorder=4)
        axes.set_xticks(places, list(methods))
        axes.set_xlim(-0.2, len(methods) - 1 + 0.2)
        axes.set_ylim(*_dice_limits(dice))
        axes.grid(axis="y", color="#e6e9ed", lw=0.8)
        axes.set_axisbelow(True)
        axes.set_ylabel("Dice")
        if len(dice) > MANY_PATIENTS:
            ends = []
        if not math.isnan(mean[-1]):
            ends.append((mean[-1], "mean", "black"))
        _name_ends(axes, ends, len(methods) - 1 + 0.06)
        return _png(figure)


def gains_figure(gains: Sequence[Gain]) -> bytes:
    """Gains of one method over another: a dot for each patient, the mean and its interval below.

    Args:
        gains: the pairs from top to bottom.

    Returns:
        A PNG, in Dice points (100 × Dice), with a line at 0.
    """
    with style.context(_STYLE):
        figure, axes = _canvas(5.2, 0.9 + 0.95 * len(gains))
        for row, gain in enumerate(gains):
            points = 100 * np.array(sorted(gain.per_subject.values()))
            below = points < 0
            axes.scatter(
                points[~below], np.full((~below).sum(), row), s=26, color="#8a93a0", alpha=0.8, lw=0
            )
            axes.scatter(
                points[below], np.full(below.sum(), row), s=26, color=VERMILION, alpha=0.9, lw=0
            )
            low, high = gain.interval
            if not (math.isnan(low) or math.isnan(high)):
                axes.plot(
                    [100 * low, 100 * high],
                    [row + 0.3] * 2,
                    color="black",
                    lw=2.2,
                    solid_capstyle="butt",
                )
            axes.plot([100 * gain.mean], [row + 0.3], "D", color="black", ms=5.5)
        axes.axvline(0, color=INK, lw=0.9)
        axes.set_yticks(range(len(gains)), [f"{gain.over}\n− {gain.under}" for gain in gains])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(gains) - 0.4, -0.45)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#e6e9ed", lw=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("gain in Dice points")
        return _png(figure)


def curves_figure(curves: Sequence[Curve]) -> bytes:
    """Loss against step: each curve thin as logged, and its running mean over it.

    Args:
        curves: the seeds of one method, or one source alone.

    Returns:
        A PNG; the loss axis is logarithmic where the losses span more than a decade above 0.
    """
    with style.context(_STYLE):
        figure, axes = _canvas(3.4, 2.2)
        for curve in (curve for curve in curves if curve.losses):
            losses = np.array(curve.losses)
            axes.plot(curve.steps, losses, color=BLUE, lw=0.7, alpha=0.3)
            axes.plot(
                curve.steps, running_mean(losses, max(1, losses.size // 12)), color=BLUE, lw=1.5
            )
        finite = np.array([x for curve in curves for x in curve.losses if math.isfinite(x)])
        if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
            axes.set_yscale("log")
            # The formatters of a logarithmic axis write mathematics, which names are not read as.
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y", color="#e6e9ed", lw=0.8)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        return _png(figure)


def image_picture(
    image: Float[np.ndarray, "row column"],
    masks: Sequence[Bool[np.ndarray, "row column"]],
    *,
    aspect: float,
) -> bytes:
    """A slice in grey, with each class's mask as a tint and an outline in the class's colour.

    Args:
        image: the slice, in any unit: black and white are its 1st and 99.5th percentiles.
        masks: the classes, in the order of CLASS_COLOURS.
        aspect: height of a pixel over its width.

    Returns:
        A PNG without margins, marked R and L for the patient's sides.
    """
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0.0, 1.0)
    with style.context(_STYLE):
        figure, axes = _frame(image.shape, aspect)
        axes.imshow(
            image,
            cmap="gray",
            vmin=low,
            vmax=max(high, low + 1e-12),
            aspect=aspect,
            interpolation="nearest",
        )
        for place, mask in enumerate(masks):
            colour = class_colour(place)
            _tint(axes, mask, colour, aspect)
            _outline(axes, mask, colour)
        _sides(axes)
        return _png(figure)


def risk_picture(
    risk: Float[np.ndarray, "row column"],
    truth: Sequence[Bool[np.ndarray, "row column"]],
    *,
    limits: tuple[float, float],
    aspect: float,
) -> bytes:
    """A slice of a risk map in colours, with the reference outlined in blue.

    Args:
        risk: the map.
        truth: the masks to outline; none for a map alone.
        limits: the risks of the darkest and the brightest colour.
        aspect: height of a pixel over its width.

    Returns:
        A PNG without margins, marked R and L for the patient's sides.
    """
    with style.context(_STYLE):
        figure, axes = _frame(risk.shape, aspect)
        axes.imshow(
            risk,
            cmap=RISK_COLOURS,
            vmin=limits[0],
            vmax=limits[1],
            aspect=aspect,
            interpolation="nearest",
        )
        for mask in truth:
            _outline(axes, mask, OUTLINE, width=0.9)
        _sides(axes)
        return _png(figure)


def colour_bar() -> bytes:
    """The colours of a risk map from the lowest risk to the highest, as a strip."""
    with style.context(_STYLE):
        figure = Figure(figsize=(2.56, 0.1), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(np.linspace(0, 1, 256)[None], cmap=RISK_COLOURS, aspect="auto")
        return _png(figure)


def class_colour(place: int) -> str:
    """The colour of the class at a place, as a hexadecimal triple."""
    return CLASS_COLOURS[place % len(CLASS_COLOURS)]


def running_mean(values: Float[np.ndarray, " t"], width: int) -> Float[np.ndarray, " t"]:
    """The mean over a centred window, cut at both ends; a value that is not finite is left out."""
    kept = np.where(np.isfinite(values), values, 0.0)
    box = np.ones(2 * (width // 2) + 1)
    half = width // 2
    window = slice(half, half + values.size)
    sums = np.convolve(kept, box)[window]
    counts = np.convolve(np.isfinite(values).astype(float), box)[window]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    return figure, figure.add_subplot()


def _frame(shape: tuple[int, ...], aspect: float) -> tuple[Figure, Axes]:
    """A figure that the picture fills, its longer side 560 device pixels."""
    height, width = shape[0] * aspect, float(shape[1])
    scale = 5.6 / max(height, width)
    figure = Figure(figsize=(max(width * scale, 0.5), max(height * scale, 0.5)), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    return figure, axes


def _tint(axes: Axes, mask: Bool[np.ndarray, "row column"], colour: str, aspect: float) -> None:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    tint = np.zeros((*mask.shape, 4))
    tint[mask] = (red, green, blue, 0.28)
    axes.imshow(tint, aspect=aspect, interpolation="nearest")


def _outline(
    axes: Axes, mask: Bool[np.ndarray, "row column"], colour: str, *, width: float = 1.6
) -> None:
    """Draws the edges of a mask's pixels."""
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    axes.vlines(columns - 0.5, rows - 1.5, rows - 0.5, color=colour, lw=width)
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    axes.hlines(rows - 0.5, columns - 1.5, columns - 0.5, color=colour, lw=width)


def _sides(axes: Axes) -> None:
    for x, side in ((0.025, "R"), (0.975, "L")):
        axes.text(
            x,
            0.98,
            side,
            transform=axes.transAxes,
            color="white",
            fontsize=14,
            ha="left" if side == "R" else "right",
            va="top",
        )


def _dice_limits(dice: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:
    defined = [d for scores in dice.values() for d in scores.values() if not math.isnan(d)]
    if not defined:
        return 0.0, 1.0
    return max(0.0, min(defined) - 0.06), min(1.02, max(defined) + 0.06)


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], x: float) -> None:
    """Writes each line's name beside its end, moved apart where two would touch."""
    low, high = axes.get_ylim()
    ends = sorted(ends)
    wanted = [y for y, _, _ in ends]
    for height, (_, name, colour) in zip(_spread(wanted, 0.048 * (high - low)), ends, strict=True):
        short = name if len(name) <= 16 else f"{name[:7]}…{name[-7:]}"
        axes.text(x, height, short, color=colour, fontsize=8.5, va="center", clip_on=False)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved at least a gap apart: the mean of pushing upwards and downwards."""
    upwards, downwards = list(heights), list(heights)
    for i in range(1, len(heights)):
        upwards[i] = max(upwards[i], upwards[i - 1] + gap)
        downwards[-i - 1] = min(downwards[-i - 1], downwards[-i] - gap)
    return [(up + down) / 2 for up, down in zip(upwards, downwards, strict=True)]


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
