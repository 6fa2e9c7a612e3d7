"""A run: its configuration, its workdir, and what it tells the terminal."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxfer.config import plain
from jaxfer.errors import UserError

_IDENTITY = ("name", "seed", "target", "sources", "datasets", "data", "model")
"""What makes a run another run; everything else may change, and stale stages are done again."""


@dataclass(frozen=True)
class Run:
    """One launch and the folder that holds all it writes."""

    config: ConfigDict
    workdir: Path
    console: Console

    @property
    def cache(self) -> Path:
        """Folder of the preprocessed store, and of the collection if there is one."""
        return Path(self.config.data.cache) if self.config.data.cache else self.workdir / "store"

    @property
    def shelf(self) -> Path:
        """Folder of the source models."""
        return Path(self.config.shelf) if self.config.shelf else self.workdir / "sources"

    def say(self, text: str) -> None:
        """One line on the terminal."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """A bar for a long step; call what it gives with ``advance=`` and ``note=``."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        quiet = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=quiet) as bar:
            task = bar.add_task(what, total=total, note="")

            def advance(advance: int = 1, note: str = "") -> None:
                bar.update(task, advance=advance, note=note)

            yield advance


def write_json(path: Path, value: Any) -> None:
    """Writes a record whole or not at all; NaN and infinity become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.write_text(json.dumps(plain(_finite(value)), indent=1, allow_nan=False))
    temporary.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def read_json(path: Path) -> Any:
    """A record of this run.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable record of this run",
            found=f"{type(error).__name__}: {str(error)[:200]}",
            mend="delete the folder that holds it; the stage that wrote it makes it again",
        ) from error


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("jaxfer", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            found[name] = "not installed"
    return found


def open_run(config: ConfigDict, workdir: Path, console: Console, command: str) -> Run:
    """Makes the workdir, or takes up the run that lies there.

    Raises:
        UserError: the workdir holds another run, or files that are no run's.
    """
    record = workdir / "config.json"
    if record.is_file():
        old, new = read_json(record), json.loads(json.dumps(plain(config)))
        changed = [key for key in _IDENTITY if old.get(key) != new.get(key)]
        if changed:
            lines = [f"config.{k}: {a} there, {b} now" for k, a, b in _changes(old, new, changed)]
            raise UserError(
                f"{workdir}: this workdir holds another run",
                found="; ".join(lines),
                allowed="the same run; only the stages' own settings may change",
                mend="--workdir=ANOTHER_FOLDER, or delete this one",
            )
    elif workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"{workdir}: not the workdir of a run, and not empty",
            found="files without config.json" if workdir.is_dir() else "a file",
            allowed="a new, an empty or a run's own folder",
            mend="--workdir=ANOTHER_FOLDER",
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(record, config)
        write_json(
            workdir / "run.json",
            {
                "name": config.name,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command,
                "versions": versions(),
                "devices": f"{jax.default_backend()} × {jax.local_device_count()}",
            },
        )
    except OSError as error:
        raise UserError(
            f"{workdir}: cannot be written to",
            found=str(error),
            mend="--workdir=ANOTHER_FOLDER",
        ) from error
    return Run(config, workdir, console)


def _changes(
    old: dict[str, Any], new: dict[str, Any], keys: list[str]
) -> Iterator[tuple[str, Any, Any]]:
    for key in keys:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
            yield from ((f"{key}.{k}", x, y) for k, x, y in _changes(a, b, inner))
        else:
            yield key, a, b
