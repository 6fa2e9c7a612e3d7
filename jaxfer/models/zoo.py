"""The shelf of source models: a network's parameters (orbax) beside a card that tells all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from jaxfer.errors import UserError
from jaxfer.files import read_array, read_json
from jaxfer.models.checkpoint import load_params, save_params
from jaxfer.models.layers import Layer, layers_of
from jaxfer.models.levels import Levels, patch_multiples
from jaxfer.models.unet import UNet

_MEND = "delete the folder; the stage 'pretrain' makes it again"

_Card = dict[str, Any]

_MOST_MASKS = 2**26
"""Bytes of the masks of a source: of two thousand subjects."""

_INTENSITIES = "intensities.npy"
_MOST = 2**24
"""Quantiles of a source: 256 of 65,536 scans."""


def _all(values: Any, kind: type | tuple[type, ...]) -> bool:
    """A list that is not empty, of values of one kind."""
    fit = isinstance(values, list) and all(isinstance(v, kind) for v in values)
    return fit and bool(values) and not any(isinstance(v, bool) for v in values)


def _levels(card: _Card, key: str, number: int, otherwise: int) -> Levels:
    """Strides or kernels; cards from before there were any tell of none."""
    axes = len(card["patch"])
    found = card.get(key, [[otherwise] * axes] * number)
    fit = isinstance(found, list) and all(_all(f, int) and len(f) == axes for f in found)
    if not fit or len(found) != number or any(not 1 <= n <= 64 for f in found for n in f):
        raise TypeError(f"{key}: not {axes} whole numbers for each of {number} levels")
    return tuple(map(tuple, found))


def _strides(card: _Card) -> Levels:
    return _levels(card, "strides", len(card["widths"]) - 1, 2)


def _kernels(card: _Card) -> Levels:
    return _levels(card, "kernels", len(card["widths"]), 3)


def _is_patch(card: _Card) -> bool:
    patch = card["patch"]
    if not _all(patch, int) or len(patch) not in (2, 3):
        return False
    multiples = patch_multiples(_strides(card) or ((1,) * len(patch),))
    return all(0 < p <= 4096 and p % m == 0 for p, m in zip(patch, multiples, strict=True))


_RULES: dict[str, tuple[Callable[[_Card], bool], str]] = {
    "task": (lambda c: isinstance(c["task"], dict), "the task's parts and its name"),
    "class_names": (
        lambda c: _all(c["class_names"], str) and len(c["class_names"]) < 255,
        "names of the foreground classes, fewer than 255",
    ),
    "modality": (lambda c: isinstance(c["modality"], str), "a name"),
    "spacing": (
        lambda c: (
            _all(c["spacing"], (int, float))
            and len(c["spacing"]) == 3
            # 0 keeps the files' own
            and all(0 <= s <= 1000 for s in c["spacing"])
        ),
        "three lengths in mm",
    ),
    "widths": (
        lambda c: (
            _all(c["widths"], int)
            and 0 < min(c["widths"]) <= max(c["widths"]) <= 2**14
            and len(c["widths"]) <= 12
        ),
        "channels per level",
    ),
    "patch": (_is_patch, "two or three multiples of the product of the strides"),
    "strides": (lambda c: bool(_strides(c)), "whole numbers for each level but the last"),
    "kernels": (
        lambda c: bool(_kernels(c)) and all(n % 2 for k in _kernels(c) for n in k),
        "odd whole numbers for each level",
    ),
    "deep_supervision": (
        lambda c: isinstance(c.get("deep_supervision", False), bool),
        "true, false (cards from before there was any tell of none)",
    ),
    "validation_dice": (
        lambda c: (
            c["validation_dice"] is None
            or (type(c["validation_dice"]) in (int, float) and 0 <= c["validation_dice"] <= 1)
        ),
        "0 … 1, or null",
    ),
    "synthetic": (lambda c: isinstance(c["synthetic"], bool), "true, false"),
    "masks_size": (
        lambda c: type(c["masks_size"]) is int and 0 < c["masks_size"] <= 2**27,
        "voxels of a mask",
    ),
    "intensities_size": (
        lambda c: type(c.get("intensities_size", 2)) is int and c.get("intensities_size", 2) > 1,
        "quantiles of each scan's intensities (cards from before they were kept have none)",
    ),
    "masks_kind": (
        lambda c: c.get("masks_kind", "bits") in ("bits", "fractions"),
        "bits (cards from before there were fractions), fractions",
    ),
    "path": (
        lambda c: "path" not in c or _all(c["path"], str),
        "names of the tasks that it was trained for, one after the other",
    ),
    "fingerprint": (lambda c: isinstance(c["fingerprint"], str), "a text"),
}
"""What a card must hold."""


def _fails(card: _Card, holds: Callable[[_Card], bool]) -> bool:
    try:
        return not holds(card)
    except (TypeError, KeyError):
        return True


@dataclass(frozen=True)
class Source:
    """A source model: all that is needed to run it, score it and fine-tune it.

    Attributes:
        card: the record beside the checkpoint.
        model, params: the network.
        masks: foreground of the labelled training subjects on the grid for RoI analysis, in 255ths
            of a cell.
        intensities: quantiles of each training scan's standardised intensities; None: it was put
            on the shelf before they were kept.
    """

    card: dict[str, Any]
    model: UNet
    params: Any
    masks: UInt8[np.ndarray, "n v"]
    intensities: Float32[np.ndarray, "m q"] | None = None

    @property
    def num_classes(self) -> int:
        """Its classes, background included."""
        return self.model.num_classes

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers whose features it has."""
        return layers_of(self.model.widths, len(self.card["patch"]), self.model.strides)


def save_source(
    folder: Path,
    params: Any,
    card: dict[str, Any],
    masks: UInt8[np.ndarray, "n v"],
    intensities: Float32[np.ndarray, "m q"] | None = None,
) -> None:
    """Puts a source model on the shelf; the card comes last, so that a card means a whole model.

    Args:
        folder: of this model.
        params: pytree of arrays.
        card: of json's types; what a card needs is checked when it is read.
        masks: foreground of each training subject in 255ths of a cell, flattened.
        intensities: quantiles of each training scan's standardised intensities; None keeps none.
    """
    (folder / "card.json").unlink(missing_ok=True)
    save_params(folder / "checkpoint", params)
    np.save(folder / "masks.npy", masks)
    about = {"masks_size": int(masks.shape[1]), "masks_kind": "fractions"}
    (folder / _INTENSITIES).unlink(missing_ok=True)
    if intensities is not None:
        np.save(folder / _INTENSITIES, intensities)
        about["intensities_size"] = int(intensities.shape[1])
    temporary = folder / f".{os.getpid()}-card.json"
    temporary.write_text(json.dumps(card | about, indent=1))
    temporary.replace(folder / "card.json")


def read_card(folder: Path) -> dict[str, Any] | None:
    """The card of a source model, or nothing if none lies there."""
    path = folder / "card.json"
    if not path.is_file():
        return None
    try:
        card = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable card", found=str(error)[:200], mend=_MEND
        ) from error
    if not isinstance(card, dict):
        raise UserError(f"{path}: not a card", found=type(card).__name__, mend=_MEND)
    wrong = [key for key, (holds, _) in _RULES.items() if _fails(card, holds)]
    if wrong:
        raise UserError(
            f"{path}: not the card of a source model",
            found="; ".join(f"{k}: {card[k]!r}" if k in card else f"no {k}" for k in wrong)[:300],
            allowed="; ".join(f"{k}: {_RULES[k][1]}" for k in wrong),
            mend=_MEND,
        )
    return card


def load_source(folder: Path, *, conv_impl: str = "auto", precision: str = "auto") -> Source:
    """A source model from its folder alone.

    Args:
        folder: of this model.
        conv_impl, precision: of ``UNet``; how a network is computed is not in its card.
    """
    card = read_card(folder)
    if card is None:
        raise UserError(
            f"{folder}: no source model lies here",
            allowed="a folder with card.json and checkpoint/",
            mend="run the stage 'pretrain', or name another folder with --config.shelf=DIR",
        )
    model = UNet(
        num_classes=len(card["class_names"]) + 1,
        widths=tuple(card["widths"]),
        strides=_strides(card),
        kernels=_kernels(card),
        conv_impl=conv_impl,
        precision=precision,
        deep_supervision=card.get("deep_supervision", False),
    )
    params = load_params(folder / "checkpoint", model, tuple(card["patch"]))
    try:
        masks = read_array(folder / "masks.npy")
        size, kind = card["masks_size"], card.get("masks_kind", "bits")
        # Asked for more bits than there are, unpackbits makes up zeros.
        columns = -(-size // 8) if kind == "bits" else size
        if masks.shape[1:] != (columns,) or masks.dtype != np.uint8:
            found = f"shape {masks.shape} of {masks.dtype}"
            raise ValueError(f"{found} does not hold masks of {size} voxels in {kind}")
        if masks.nbytes > _MOST_MASKS:
            raise ValueError(f"{masks.nbytes} bytes of masks")
        if kind == "bits":
            masks = 255 * np.unpackbits(masks, axis=1, count=size)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / 'masks.npy'}: not readable",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            mend=_MEND,
        ) from error
    return Source(card, model, params, masks, _intensities(folder, card))


def _intensities(folder: Path, card: _Card) -> Float32[np.ndarray, "m q"] | None:
    """What is kept of the training scans; nothing beside a card from before they were kept."""
    if "intensities_size" not in card:
        return None
    path = folder / _INTENSITIES
    try:
        found = np.array(read_array(path))
        if found.ndim != 2 or found.shape[1] != card["intensities_size"] or found.size > _MOST:
            raise ValueError(f"shape {found.shape}, not of {card['intensities_size']} quantiles")
        if found.dtype != np.float32 or np.isinf(found).any():
            raise ValueError(f"{found.dtype}, not finite numbers of float32 or NaN")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not readable",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            mend=_MEND,
        ) from error
    return found
