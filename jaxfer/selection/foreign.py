"""Sources from anywhere: a card, and outputs for the target's cases that another program wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from jaxfer.data.nifti import Header
from jaxfer.data.outputs import (
    LOG_PROBABILITIES,
    LOGITS,
    OUTPUT,
    UNREADABLE,
    Expected,
    arrays_of,
    output_problems,
)
from jaxfer.data.outputs import read_outputs as read_files
from jaxfer.data.planes import slices_last
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import Problem
from jaxfer.files import read_json
from jaxfer.metrics import Metric
from jaxfer.models.layers import Layer
from jaxfer.models.zoo import Source
from jaxfer.selection.roi import on_common_grid
from jaxfer.tasks import Task, wrong_name

LAYERS = ("encoder_0", "decoder_0")
"""Layers at the image's resolution, the only ones whose features are read."""

UNKNOWN = "unknown"
"""In the place of the masks' file."""

_MEND = "mend the card as docs/foreign-sources.md shows"


@dataclass(frozen=True)
class Foreign:
    """A source that is known by its outputs alone.

    Attributes:
        card: what was told of it.
        task: what it was trained for.
        files: where its outputs lie, and of what kind they are.
        axes: of the tiles that it is scored in, 2 or 3.
        masks: foregrounds of its training on the grid for RoI analysis, in 255ths of a cell; None:
            unknown.
    """

    card: dict[str, Any]
    task: Task
    files: Expected
    axes: int
    masks: UInt8[np.ndarray, "n v"] | None
    _held: dict[str, Mapping[str, np.ndarray]] = field(default_factory=dict, repr=False)

    @property
    def num_classes(self) -> int:
        """Its classes, background included."""
        return len(self.card["class_names"]) + 1

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers whose features it has."""
        scale = (1,) * self.axes
        return {name: Layer(scale, channels) for name, channels in self.card["layers"].items()}

    def outputs(self, case: TaskCase) -> Mapping[str, Float32[np.ndarray, "x y z d"]]:
        """Log-probabilities and features on the working grid; those of the last case are kept."""
        key = str(case.stored.folder)
        if key not in self._held:
            self._held.clear()
            found = read_files(self.files, case.stored.id, case.stored.geometry)
            self._held[key] = {"log_probs": found.pop(OUTPUT)} | found
        return self._held[key]

    def sliced_outputs(self, case: TaskCase) -> Mapping[str, Float32[np.ndarray, "h w z d"]]:
        """The same with the slices of the case's plane last."""
        return {name: slices_last(v, case.plane) for name, v in self.outputs(case).items()}


SourceModel = Source | Foreign
"""What can be scored."""


def lacking(
    source: SourceModel, card: Metric, layer: str | None, layers: Sequence[str]
) -> str | None:
    """Why a metric finds nothing in a source to compute a score of; None if it does.

    Args:
        card: of the metric.
        layer: whose features it is to look at.
        layers: all that are asked for, which some metrics look at together.
    """
    if not isinstance(source, Foreign):
        return None
    if card.needs == "two predictions":
        return "needs a second prediction, and the source is known by its outputs alone"
    if card.needs == "source samples":
        return "needs voxels of the source's own, and the source is known by its outputs alone"
    needed = [layer] if layer else list(layers) if card.needs == "several images" else []
    absent = [name for name in needed if name not in source.layers]
    return f"the source's files hold no features of {', '.join(absent)}" if absent else None


def _is_layers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        name in LAYERS and type(channels) is int and 0 < channels <= 2**14
        for name, channels in value.items()
    )


def _is_task(value: Any) -> bool:
    if not isinstance(value, str) or len(value.encode()) > 200:
        return False
    parts = value.split("/")
    return len(parts) == 4 and not any(map(wrong_name, parts))


def _are_names(value: Any) -> bool:
    fit = isinstance(value, list) and all(isinstance(v, str) for v in value)
    return fit and 0 < len(value) < 255


def _is_dice(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value <= 1)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda v: v == "outputs", "outputs"),
    "task": (_is_task, "dataset/site/modality/RoI that the network was trained for"),
    "class_names": (
        _are_names,
        "names of the foreground classes in the channels' order, fewer than 255",
    ),
    "outputs": (lambda v: v in (LOGITS, LOG_PROBABILITIES), f"{LOGITS}, {LOG_PROBABILITIES}"),
    "layers": (_is_layers, f"channels by layer, of {' and '.join(LAYERS)} alone; {{}} = none"),
    "masks": (
        lambda v: isinstance(v, str) and v not in ("", ".", "..") and Path(v).name == v,
        f"'{UNKNOWN}', or a file in this folder",
    ),
    "validation_dice": (_is_dice, "0 … 1, or null"),
    "synthetic": (lambda v: isinstance(v, bool), "true, false"),
}
"""What a card holds."""

_DEFAULTS: dict[str, Any] = {
    "layers": {},
    "masks": UNKNOWN,
    "validation_dice": None,
    "synthetic": False,
}


def _shown(card: Mapping[str, Any], key: str) -> str:
    return repr(card[key])[:200] if key in card else "nothing"


def _read_card(folder: Path) -> tuple[dict[str, Any], list[Problem]]:
    file = folder / "card.json"
    try:
        card = read_json(file)
    except (OSError, ValueError) as error:
        found = f"{type(error).__name__}: {str(error)[:200]}"
        return {}, [Problem("error", f"{file}", "not a readable card", found, mend=_MEND)]
    if not isinstance(card, dict):
        found = type(card).__name__
        return {}, [Problem("error", f"{file}", "not a card", found, "an object", _MEND)]
    card = _DEFAULTS | card
    problems = [
        Problem("error", f"{file}", f"'{key}'", _shown(card, key), allowed, _MEND)
        for key, (holds, allowed) in _RULES.items()
        if not holds(card.get(key))
    ]
    return card, problems


def _read_masks(file: Path) -> UInt8[np.ndarray, "n v"] | Problem:
    """The masks of a file on the common grid, or what is wrong with it."""
    allowed = "an .npz file with a mask for each subject, three axes, of 0 and 1"
    try:
        with arrays_of(file) as arrays:
            found = []
            for name in arrays.files:
                mask = arrays[name]
                if mask.ndim != 3 or not mask.size or not np.isin(mask, (0, 1)).all():
                    shown = f"{name}: shape {mask.shape}, {mask.dtype}"
                    return Problem("error", str(file), "not a mask", shown, allowed)
                found.append(on_common_grid(mask.astype(bool)))
    except UNREADABLE as error:
        told = f"{type(error).__name__}: {str(error)[:200]}"
        return Problem("error", str(file), "not a readable file of masks", told, allowed)
    if not found:
        return Problem("error", str(file), "holds no mask", None, allowed)
    return np.stack(found)


def read_foreign(
    folders: Sequence[Path], headers: Mapping[str, Header], taken: Sequence[str], axes: int
) -> tuple[list[Foreign], list[Problem]]:
    """The sources in these folders, and everything that is wrong with them.

    Args:
        folders: each with a card and outputs.
        headers: of the scans of the target's training cases, by case.
        taken: names of the tasks that are of the run already.
        axes: of the tiles that the sources are scored in, 2 or 3.
    """
    sources: list[Foreign] = []
    problems: list[Problem] = []
    names = list(taken)
    for folder in folders:
        card, wrong = _read_card(folder)
        if wrong:
            problems += wrong
            continue
        if card["task"] in names:
            where, what = f"{folder / 'card.json'}", "a task that this run has already"
            mend = "give each its own name, in the first or second part"
            problems.append(Problem("error", where, what, card["task"], mend=mend))
        names.append(card["task"])
        channels = {OUTPUT: len(card["class_names"]) + 1} | card["layers"]
        files = Expected(folder, card["outputs"], channels)
        for case, header in headers.items():
            problems += output_problems(files, case, header)
        masks = None if card["masks"] == UNKNOWN else _read_masks(folder / card["masks"])
        if isinstance(masks, Problem):
            problems.append(masks)
            continue
        sources.append(Foreign(card, Task.parse(card["task"]), files, axes, masks))
    return sources, problems
