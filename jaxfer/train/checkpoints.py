"""Checkpoints of an unfinished training: whole or not at all, written while the steps go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from errno import ENOENT
from pathlib import Path
from typing import Any

from jaxfer.errors import UserError
from jaxfer.files import read_json
from jaxfer.models.checkpoint import load_tree, save_tree

_DIGITS = 8


def _name(step: int) -> str:
    return f"{step:0{_DIGITS}d}"


@dataclass(frozen=True)
class Checkpoints:
    """The last few states of one training, newest last, each in a folder named by its step.

    Attributes:
        folder: of this training alone.
        keep: how many; one more than is needed, so that a damaged one has a predecessor.
        mark: what decides the training; checkpoints of another mark are not taken up.
        say: told in words when a checkpoint cannot be used.
        record: kept beside each state: the configuration, the versions.
    """

    folder: Path
    keep: int
    mark: str
    say: Callable[[str], None] = lambda _: None
    record: Mapping[str, Any] | None = None

    def steps(self) -> list[int]:
        """The steps after which a state lies here, the last one last."""
        if not self.folder.is_dir():
            return []
        named = (p.name for p in self.folder.iterdir() if p.is_dir())
        # Other digits than 0 to 9 are decimal too.
        return sorted(int(n) for n in named if n.isascii() and n.isdecimal() and n == _name(int(n)))

    def save(self, step: int, state: Any) -> None:
        """Writes the state after a step; the oldest go once it is whole. ``restore`` comes first.

        Args:
            step: number of steps done.
            state: pytree of numpy arrays.
        """
        if not self.folder.is_dir():
            # Made anew without a word, it would hold all but what has vanished with it.
            raise FileNotFoundError(ENOENT, "No such file or directory", str(self.folder))
        record = {"mark": self.mark, "step": step} | dict(self.record or {})
        save_tree(self._at(step), state, {"checkpoint.json": json.dumps(record, indent=1)})
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._at(old))

    def restore(self, like: Any) -> tuple[int, Any]:
        """The last usable state and its step; 0 and ``like`` where there is none.

        A damaged checkpoint is named, set aside under another name, and the one before it is
        used. Checkpoints of another training are deleted.

        Args:
            like: a state of the same structure, shapes and types.
        """
        self._clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        for step in reversed(self.steps()):
            folder = self._at(step)
            try:
                known = read_json(folder / "checkpoint.json", {"mark": str})
                if known["mark"] != self.mark:
                    shutil.rmtree(folder)
                    continue
                return step, load_tree(folder, like)
            except (OSError, ValueError, KeyError, TypeError) as error:
                aside = folder.with_name(f"damaged-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                told = f"{type(error).__name__}: {error}".split("\n")[0][:200]
                self.say(f"  warning: checkpoint {folder} set aside as {aside.name}: {told}")
        return 0, like

    def discard(self) -> None:
        """Deletes them all: the training is finished and saved elsewhere, or another begins."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _at(self, step: int) -> Path:
        return self.folder / _name(step)

    def _clear(self) -> None:
        """Removes what a killed process had half written."""
        if self.folder.is_dir():
            for half in self.folder.glob(".*"):
                shutil.rmtree(half, ignore_errors=True)


class Writer:
    """Saves in the background, one state at a time; use as a context."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # What went wrong in the loop is what the user must hear of.
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)

    def save(self, step: int, state: Any) -> None:
        """Waits for the save before, then starts this one; raises what went wrong in that."""
        self.wait()
        self._running = self._pool.submit(self._checkpoints.save, step, state)

    def wait(self) -> None:
        """Until the last state lies whole on the disk.

        Raises:
            UserError: it could not be written.
        """
        running, self._running = self._running, None
        if running is None:
            return
        try:
            running.result()
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self._checkpoints.folder}: a checkpoint cannot be written; "
                "those before it are whole",
                found=f"{type(error).__name__}: {str(error)[:300]}",
                mend="make room, or mend the permissions; the same command then goes on",
            ) from error
