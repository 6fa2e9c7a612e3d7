"""Parameters on disk: orbax, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jaxfer.errors import UserError
from jaxfer.models.unet import UNet


def save_params(folder: Path, params: Any) -> None:
    """Writes a pytree of arrays to a folder, under a temporary name first."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{os.getpid()}-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(temporary, params)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def load_params(folder: Path, model: UNet, patch: tuple[int, int]) -> Any:
    """The parameters of a network; their names and shapes must be the network's.

    Raises:
        UserError: nothing lies there, or it is damaged or another network's.
    """
    image = jax.ShapeDtypeStruct((1, *patch, 1), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder.resolve(), wanted)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: the network's parameters cannot be read",
            found=f"{type(error).__name__}: {str(error)[:300]}",
            allowed=f"a checkpoint of a U-Net of widths {tuple(model.widths)} "
            f"and {model.num_classes} classes",
            mend="delete the folder; the stage that wrote it makes it again",
        ) from error
