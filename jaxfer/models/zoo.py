"""The shelf of source models: a network's parameters (orbax) beside a card that tells all of it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxfer.errors import UserError
from jaxfer.models.checkpoint import load_params, save_params
from jaxfer.models.unet import UNet

_NEEDED = (
    *("task", "class_names", "modality", "spacing", "patch", "widths", "validation_dice"),
    *("synthetic", "masks_size", "fingerprint"),
)


@dataclass(frozen=True)
class Source:
    """A source model: all that is needed to run it, score it and fine-tune it.

    Attributes:
        card: the record beside the checkpoint.
        model, params: the network.
        masks: foreground of the labelled training subjects on the grid for RoI analysis.
    """

    card: dict[str, Any]
    model: UNet
    params: Any
    masks: Bool[np.ndarray, "n v"]


def save_source(
    folder: Path, params: Any, card: dict[str, Any], masks: Bool[np.ndarray, "n v"]
) -> None:
    """Puts a source model on the shelf; the card comes last, so that a card means a whole model.

    Args:
        folder: of this model.
        params: pytree of arrays.
        card: of json's types; what a card needs is checked when it is read.
        masks: foreground of each training subject, flattened.
    """
    (folder / "card.json").unlink(missing_ok=True)
    save_params(folder / "checkpoint", params)
    np.save(folder / "masks.npy", np.packbits(masks, axis=1))
    temporary = folder / f".{os.getpid()}-card.json"
    temporary.write_text(json.dumps(card | {"masks_size": int(masks.shape[1])}, indent=1))
    temporary.replace(folder / "card.json")


def discard_source(folder: Path) -> None:
    """Takes a source model off the shelf."""
    shutil.rmtree(folder, ignore_errors=True)


def read_card(folder: Path) -> dict[str, Any] | None:
    """The card of a source model, or nothing if none lies there."""
    path = folder / "card.json"
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text())
        missing = [key for key in _NEEDED if key not in card]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a readable card", found=str(error)[:200]) from error
    if missing:
        raise UserError(
            f"{path}: not the card of a source model",
            found=f"without {', '.join(missing)}",
            allowed=", ".join(_NEEDED),
        )
    return card


def load_source(folder: Path) -> Source:
    """A source model from its folder alone."""
    card = read_card(folder)
    if card is None:
        raise UserError(
            f"{folder}: no source model lies here",
            allowed="a folder with card.json and checkpoint/",
            mend="run the stage 'pretrain', or name another folder with --config.shelf=DIR",
        )
    model = UNet(num_classes=len(card["class_names"]) + 1, widths=tuple(card["widths"]))
    params = load_params(folder / "checkpoint", model, tuple(card["patch"]))
    try:
        packed = np.load(folder / "masks.npy", allow_pickle=False)
        masks = np.unpackbits(packed, axis=1, count=card["masks_size"]).astype(bool)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / 'masks.npy'}: not readable",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            mend="delete the folder; the stage 'pretrain' makes it again",
        ) from error
    return Source(card, model, params, masks)
