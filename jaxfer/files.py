"""Reading files that others wrote: regular files alone, of a bounded size, as plain values.

Whatever is wrong is an ``OSError`` or a ``ValueError``; the callers say what it means to the user.
"""

from __future__ import annotations

import json
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from types import NoneType
from typing import Any, TextIO

import numpy as np

MOST_BYTES = 2**24
"""Of a record or a table: a thousand times what the largest of them have in practice."""

MOST_BYTES_OF_LOG = 2**28
"""Of the records of a training, which are read line by line."""

_DEEPEST = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_MAGIC = b"\x93NUMPY"


def check_regular(path: Path) -> None:
    """Raises ``OSError`` for what is no regular file: to open a pipe would wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"not a regular file: {path}")


def opened(path: Path) -> BufferedReader:
    """A regular file, open to be read.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"not a regular file: {path}")
    return os.fdopen(descriptor, "rb")


def opened_lock(path: Path) -> TextIO:
    """A file to hold a lock on, made if need be; never one that a symbolic link leads to.

    Raises:
        OSError: something else than a regular file lies there, or it cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"not a regular file: {path}")
    return os.fdopen(descriptor, "r+", encoding="utf-8")


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """A file's text, which is UTF-8.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is longer than ``most`` bytes, or not UTF-8.
    """
    with opened(path) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"more than {most} bytes")
    return raw.decode("utf-8-sig")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key of an object stands there twice")
    return found


def _check_depth(value: Any) -> None:
    level: list[Any] = [[value]]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"nested more than {_DEEPEST} deep")


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, is nested too deeply, has a key twice, or text that is none.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError(f"nested more than {_DEEPEST} deep") from None
    _check_depth(value)
    if _SURROGATE.search(text):
        # Half a character can be read, but neither printed nor written.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def fits(value: Any, like: Any) -> bool:
    """Whether a value of JSON has a structure.

    Args:
        value: to look at.
        like: a type, or several; ``[like]``, a list of such; ``{str: like}``, an object of such;
            ``{"key": like, …}``, an object that has these keys at least.
    """
    if isinstance(like, list):
        return isinstance(value, list) and all(fits(v, like[0]) for v in value)
    if not isinstance(like, dict):
        kinds = like if isinstance(like, tuple) else (like,)
        wrong = isinstance(value, bool) and not {bool, object} & {*kinds}
        return isinstance(value, kinds) and not wrong
    if not isinstance(value, dict):
        return False
    if str in like:
        return all(fits(v, like[str]) for v in value.values())
    return all(key in value and fits(value[key], inner) for key, inner in like.items())


TEXT_OR_NULL = (str, NoneType)
NUMBER_OR_NULL = (int, float, NoneType)


def read_json(path: Path, like: Any = object) -> Any:
    """The value in a JSON file.

    Args:
        path: of the file.
        like: the structure that it must have, as ``fits`` knows it.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is not JSON, or of another structure.
    """
    value = parse_json(read_text(path))
    if not fits(value, like):
        raise ValueError("not the fields that belong there")
    return value


def read_array(path: Path) -> np.ndarray:
    """The real numbers in a .npy file, memory-mapped: nothing is allocated for what it announces.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is no such file, is cut, or holds something else.
    """
    with opened(path) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("not a .npy file")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        raise
    except Exception as error:  # the header is a Python literal, which can be anything
        raise ValueError(f"its header is damaged: {type(error).__name__}: {error}") from error
    if found.dtype.kind not in "biuf" or found.dtype.itemsize > 8:
        raise ValueError(f"it holds {found.dtype}, not real numbers")
    return found
