"""The log-probabilities of every batch, between LEEP's first and second look at them."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from jaxfer.errors import UserError

IN_MEMORY = 2**28
"""Bytes of log-probabilities that are kept in memory; what comes after goes to the disk."""


class Kept:
    """Log-probabilities and the labels of their batches: the first ones in memory, the others in a
    temporary file; a context manager.

    Args:
        folder: of the file; None: the system's.
        needed: False keeps nothing.
    """

    def __init__(self, folder: Path | None, *, needed: bool):
        self.folder, self.needed = folder, needed
        self.held: list[Float32[np.ndarray, "b *s c"]] = []
        self.labels: list[tuple[int, UInt8[np.ndarray, " b *s"]]] = []
        self.shape: tuple[int, ...] = ()
        self.file: IO[bytes] | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self.held.clear()
        # What could not be written has been told, and the file is going anyway.
        with contextlib.suppress(OSError):
            self._open.close()

    def write(
        self, number: int, log_probs: Float[Array, "b *s c"], labels: UInt8[np.ndarray, " b *s"]
    ) -> None:
        """Keeps a batch of a case."""
        if not self.needed:
            return
        rows = np.ascontiguousarray(log_probs, np.float32)
        self.shape = rows.shape
        self.labels.append((number, labels))
        if rows.nbytes * (len(self.held) + 1) <= IN_MEMORY:
            self.held.append(rows)
            return
        try:
            if self.file is None:
                made = tempfile.NamedTemporaryFile  # closed by the stack
                self.file = self._open.enter_context(made(dir=self.folder, suffix=".log_probs"))
            self.file.write(rows.data)
            self.file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def rows(self) -> Iterator[Float32[np.ndarray, "b *s c"]]:
        """All that was kept, batch by batch."""
        if self.file is None:
            return iter(self.held)
        shape = (len(self.labels) - len(self.held), *self.shape)
        return itertools.chain(self.held, np.memmap(self.file.name, np.float32, "r", shape=shape))

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
