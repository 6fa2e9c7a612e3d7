"""Arrays on disk: orbax, whole or not at all, and never taken for whole when damaged."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxfer.errors import UserError
from jaxfer.files import opened, read_text
from jaxfer.models.unet import UNet

_DIGEST = "sha256"


def _digest(folder: Path) -> str:
    """Of the names and the bytes of all files, this one's own record excepted."""
    total = hashlib.sha256()
    files = [f for f in folder.rglob("*") if f.is_file() and f != folder / _DIGEST]
    for file in sorted(files):
        total.update(str(file.relative_to(folder)).encode() + b"\0")
        with opened(file) as content:
            total.update(hashlib.file_digest(content, _DIGEST).digest())
    return total.hexdigest()


def _checkpointer() -> ocp.StandardCheckpointer:
    """One process writes and reads for all: every process holds the same parameters."""
    process = jax.process_index()
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=process, active_processes={process}
        )
        if jax.process_count() > 1
        else ocp.options.MultiprocessingOptions()
    )


def save_tree(folder: Path, tree: Any, records: Mapping[str, str] | None = None) -> None:
    """Writes a pytree of arrays to a folder, under a temporary name first.

    Args:
        folder: is replaced, if it exists, once the new one is whole.
        tree: of arrays.
        records: file name → text, kept beside the arrays.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{os.getpid()}-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(temporary, tree)
        for name, text in (records or {}).items():
            (temporary / name).write_text(text)
        (temporary / _DIGEST).write_text(_digest(temporary))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf.shape for p, leaf in leaves}


def _check(folder: Path, checkpointer: ocp.StandardCheckpointer, wanted: Any) -> None:
    """Raises before orbax reads: its readers fail with pages of messages from their threads."""
    record = folder / _DIGEST
    if not folder.is_dir():
        raise FileNotFoundError("no checkpoint lies here")
    # Without the digest a flipped bit would be read as another number.
    if read_text(record) != _digest(folder):
        raise ValueError("its files are not those that were written: damaged, or not copied whole")
    metadata = checkpointer.metadata(folder).item_metadata
    if metadata is None:
        raise FileNotFoundError("no checkpoint lies here")
    stored, asked = _shapes(metadata.tree), _shapes(wanted)
    wrong = sorted(k for k in stored | asked if stored.get(k) != asked.get(k))
    if wrong:
        told = [f"{k} {stored.get(k, 'absent')}, not {asked.get(k, 'absent')}" for k in wrong]
        raise ValueError("; ".join(told[:3]) + f"; {len(wrong)} in all")


def load_tree(folder: Path, like: Any) -> Any:
    """A pytree of arrays as ``save_tree`` wrote it.

    Args:
        folder: that was saved to.
        like: pytree of arrays, or of their shapes and types, of the same structure.

    Raises:
        OSError, ValueError, KeyError, TypeError: nothing lies there, or it is damaged, or of
            another structure.
    """
    folder = folder.resolve()
    with _checkpointer() as checkpointer:
        _check(folder, checkpointer, like)
        return checkpointer.restore(folder, like)


def save_params(folder: Path, params: Any) -> None:
    """Writes a network's parameters to a folder, whole or not at all."""
    save_tree(folder, params)


def load_params(folder: Path, model: UNet, patch: tuple[int, ...]) -> Any:
    """The parameters of a network; their names and shapes must be the network's.

    Raises:
        UserError: nothing lies there, or it is damaged or another network's.
    """
    image = jax.ShapeDtypeStruct((1, *patch, 1), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
    try:
        return load_tree(folder, wanted)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder.resolve()}: the network's parameters cannot be read",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            allowed=f"a checkpoint of a U-Net of widths {tuple(model.widths)} "
            f"and {model.num_classes} classes",
            mend="delete the folder; the stage that wrote it makes it again",
        ) from error
