"""A run: its configuration, its workdir, and what it tells the terminal."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxfer import files, hosts
from jaxfer.config import plain
from jaxfer.errors import UserError, legible
from jaxfer.stages.interrupt import Interruption
from jaxfer.stages.lock import locked

_IDENTITY = ("name", "seed", "target", "sources", "datasets", "data", "model")
"""What makes a run another run; everything else may change, and stale stages are done again."""


@dataclass(frozen=True)
class Run:
    """One launch and the folder that holds all it writes."""

    config: ConfigDict
    workdir: Path
    console: Console
    interruption: Interruption = field(default_factory=Interruption)

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
        self.console.print(legible(text), highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def progress(
        self, what: str, total: int, *, stops: bool = True
    ) -> Iterator[Callable[..., None]]:
        """A bar for a long step; call what it gives with ``advance=`` and ``note=``.

        Every call is a good moment to end, if the launch has been told to: ``Interrupted`` is
        raised. With ``stops=False`` the step looks after that itself.
        """
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        quiet = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=quiet) as bar:
            task = bar.add_task(what, total=total, note="")

            def advance(advance: int = 1, note: str = "") -> None:
                bar.update(task, advance=advance, note=legible(note))
                if stops:
                    self.interruption.check()

            yield advance


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    temporary.write_text(text)
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes a record whole or not at all; NaN and infinity become null."""
    write_text(path, json.dumps(plain(_finite(value)), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def read_json(path: Path, like: Any = dict) -> Any:
    """A record of this run.

    Args:
        path: of the record.
        like: the structure that it must have, as ``jaxfer.files.fits`` knows it.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return files.read_json(path, like)
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


def devices() -> str:
    """What a run computes on, of all its processes."""
    return f"{jax.default_backend()} × {jax.device_count()}"


def commit(root: Path = Path(__file__).parents[2]) -> str:
    """Of the code, "-dirty" if files differ from it; '' unless it runs from a checkout."""
    if not (root / ".git").exists():
        return ""
    command = ("git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*")
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""


def _refuse_another(config: ConfigDict, workdir: Path) -> None:
    """Raises unless the workdir holds this run, or nothing."""
    record = workdir / "config.json"
    if record.is_file():
        old, new = read_json(record), json.loads(json.dumps(plain(config)))
        lines = changes(old, new, [key for key in _IDENTITY if old.get(key) != new.get(key)])
        if lines:
            raise UserError(
                f"{workdir}: this workdir holds another run",
                found="; ".join(lines),
                allowed="the same run; only the stages' own settings may change",
                mend="--workdir=ANOTHER_FOLDER, or delete this one",
            )
    elif workdir.exists() and (
        not workdir.is_dir() or any(p.name != ".lock" for p in workdir.iterdir())
    ):
        raise UserError(
            f"{workdir}: not the workdir of a run, and not empty",
            found="files without config.json" if workdir.is_dir() else "a file",
            allowed="a new, an empty or a run's own folder",
            mend="--workdir=ANOTHER_FOLDER",
        )


@contextmanager
def open_run(
    config: ConfigDict,
    workdir: Path,
    console: Console,
    command: str,
    interruption: Interruption,
    *,
    shared: bool = False,
) -> Iterator[Run]:
    """Makes the workdir, or takes up the run that lies there; holds it for this process alone.

    Args:
        shared: other launches of the same run may work there at the same time.

    Raises:
        UserError: the workdir holds another run, or files that are no run's; or another launch
            works there.
    """
    if not hosts.leads():
        run = Run(config, workdir, Console(quiet=True), interruption)
    else:
        _refuse_another(config, workdir)
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(workdir, error) from error
        run = Run(config, workdir, console, interruption)
    with ExitStack() as held:
        if hosts.leads():
            held.enter_context(locked(workdir, wait=shared, say=run.say))
            # Between the first look and the lock another launch may have made it its own.
            _refuse_another(config, workdir)
            _write_records(run, command)
        _check_processes(run)
        if shared:
            held.close()
        yield run


def _write_records(run: Run, command: str) -> None:
    try:
        write_json(run.workdir / "config.json", run.config)
        write_json(
            run.workdir / "run.json",
            {
                "name": run.config.name,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command,
                "versions": versions(),
                "commit": commit(),
                "devices": devices(),
                "processes": jax.process_count(),
            },
        )
    except OSError as error:
        raise _not_writable(run.workdir, error) from error


def _check_processes(run: Run) -> None:
    """Several processes must have the same configuration, versions and workdir."""
    hosts.check_same(
        "the processes of this run do not have the same configuration",
        json.dumps(plain(run.config), sort_keys=True),
        "the same command on every host, but for --process",
    )
    hosts.check_same(
        "the processes of this run do not have the same versions",
        json.dumps(versions(), sort_keys=True),
        "the same installation on every host",
    )
    if hosts.any_of(not (run.workdir / "config.json").is_file()):
        raise UserError(
            f"{run.workdir}: not every process of this run sees this folder",
            allowed="a folder on a file system that all hosts share",
            mend="--workdir=FOLDER_OF_A_SHARED_FILE_SYSTEM",
        )


def _not_writable(workdir: Path, error: OSError) -> UserError:
    return UserError(
        f"{workdir}: cannot be written to", found=str(error), mend="--workdir=ANOTHER_FOLDER"
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """What has changed of some fields of the configuration, one line each."""
    return [f"config.{k}: {a} there, {b} now" for k, a, b in _changes(old, new, keys)]


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[tuple[str, Any, Any]]:
    for key in keys:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
            yield from ((f"{key}.{k}", x, y) for k, x, y in _changes(a, b, inner))
        else:
            yield key, a, b
