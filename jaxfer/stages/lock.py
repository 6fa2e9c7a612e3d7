"""One process at a time in a folder; a dead process's lock is recognised."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from jaxfer.errors import UserError
from jaxfer.files import opened_lock, read_json

_FILE = ".lock"
_BEAT = 5.0
_PATIENCE = 4 * _BEAT
"""Seconds without a beat after which a process on another host counts as dead."""


class Busy(UserError):
    """Another process holds the lock of a folder."""


def _read(path: Path) -> dict[str, Any]:
    """Who holds the lock; empty if nobody does or the record is cut."""
    try:
        return read_json(path, dict)
    except (OSError, ValueError):
        return {}


def _words(held: dict[str, Any]) -> str:
    return f"process {held.get('process', '?')} on {held.get('host', '?')}, since " + str(
        held.get("since", "?")
    )


def _beats(path: Path) -> bool:
    """Whether a process on another host, whose locks this one may not see, is alive."""
    first, end = path.stat().st_mtime_ns, time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        time.sleep(_BEAT / 5)
        if path.stat().st_mtime_ns != first:
            return True
    return False


def _try(file: TextIO) -> bool | None:
    """Whether the lock is ours now; None where the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _refusal(folder: Path, held: dict[str, Any]) -> Busy:
    return Busy(
        f"{folder}: another launch works in this folder",
        found=_words(held),
        mend="wait for it or stop it, or choose another folder (--workdir=…)",
    )


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_BEAT):
        try:
            os.utime(path)
        except OSError:
            return


@contextmanager
def locked(
    folder: Path, *, wait: bool = False, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Holds a folder's lock while the block runs; the system lets go of it when a process dies.

    Args:
        folder: exists.
        wait: until another process has let go, rather than refuse.
        say: told of a wait, and of a lock that was left behind.

    Raises:
        Busy: another process works there; names it and its host.
    """
    path, here = folder / _FILE, socket.gethostname()
    with _opened(path) as file:
        told = False
        while (ours := _try(file)) is False:
            held = _read(path)
            if not wait:
                raise _refusal(folder, held)
            if not told:
                say(f"  waits for {_words(held)}, which works in {folder}")
                told = True
            time.sleep(1.0)
        held = _read(path)
        # Not every file system tells one host of another's locks.
        if held and (ours is None or held.get("host") != here):
            say(f"  {path} is of {_words(held)}: waits to see whether that is alive …")
            if _beats(path):
                raise _refusal(folder, held)
        if held:
            say(f"  the lock of {_words(held)} was left behind by its end; taken over")
        _write(file, {"process": os.getpid(), "host": here, "since": _now()})
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            _write(file, None)


def _opened(path: Path) -> TextIO:
    try:
        return opened_lock(path)
    except OSError as error:
        raise UserError(
            f"{path}: the folder's lock cannot be held",
            found=str(error),
            allowed="a file of this name, or none",
            mend="delete it, mend the folder's permissions, or choose another folder (--workdir=…)",
        ) from error


def _write(file: TextIO, record: dict[str, Any] | None) -> None:
    file.seek(0)
    file.truncate()
    if record is not None:
        file.write(json.dumps(record))
    file.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
