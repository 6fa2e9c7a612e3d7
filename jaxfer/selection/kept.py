"""The log-probabilities of every batch on disk, between LEEP's first and second look at them."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from jaxfer.errors import UserError


class Kept:
    """A temporary file of log-probabilities, and the labels of its batches; a context manager.

    Args:
        folder: of the file; None: the system's.
        needed: False keeps nothing.
    """

    def __init__(self, folder: Path | None, *, needed: bool):
        self.folder, self.needed = folder, needed
        self.labels: list[tuple[int, UInt8[np.ndarray, " b *s"]]] = []
        self.shape: tuple[int, ...] = ()
        self.file: IO[bytes] | None = None

    def __enter__(self) -> Kept:
        if self.needed:
            try:
                self.file = tempfile.NamedTemporaryFile(dir=self.folder, suffix=".log_probs")
            except OSError as error:
                raise self._unwritable(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            # What could not be written has been told, and the file is going anyway.
            with contextlib.suppress(OSError):
                self.file.close()

    def write(
        self, number: int, log_probs: Float[Array, "b *s c"], labels: UInt8[np.ndarray, " b *s"]
    ) -> None:
        """Keeps a batch of a case."""
        if self.file is None:
            return
        rows = np.ascontiguousarray(log_probs, np.float32)
        self.shape = rows.shape
        self.labels.append((number, labels))
        try:
            self.file.write(rows.data)
            self.file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def rows(self) -> Float32[np.ndarray, "n b *s c"]:
        """All that was kept, batch by batch, mapped into memory."""
        assert self.file is not None
        return np.memmap(self.file.name, np.float32, "r", shape=(len(self.labels), *self.shape))

    def _unwritable(self, error: OSError) -> UserError:
        where = self.folder or Path(tempfile.gettempdir())
        size = 4 * len(self.labels) * int(np.prod(self.shape))
        return UserError(
            f"{where}: the source's predictions cannot be kept here between the two looks of LEEP",
            found=f"{error.strerror or error}, after {size / 1e6:,.0f} MB",
            allowed="room for 4 bytes per voxel of the target's training scans and source class",
            mend="make room there, put the workdir on another disk (--workdir=DIR), or leave leep "
            "out of --config.select.metrics and --config.select.rank_by",
        )
