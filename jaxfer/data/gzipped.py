"""Part of a gzip file's content, the whole of it checked."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxfer.files import opened

LARGEST_RATIO = 1032
"""Content over file: deflate cannot compress further."""

_READ = 2**18
_INFLATE = 2**22
_MOST_MEMBERS = 2**16
_SLACK = 2**24
"""Bytes behind what is announced: some writers pad. More is no image, and could be without end."""


def _pieces(path: Path, most: int = _INFLATE) -> Iterator[bytes]:
    """The content, at most so many bytes at a time."""
    stream = None
    waiting, members = b"", 0
    with opened(path) as file:
        while waiting := waiting or file.read(_READ):
            if stream is None:
                waiting = waiting.lstrip(b"\0")  # padding between or behind the members
                stream = zlib.decompressobj(wbits=31) if waiting else None
                members += 1
                if members > _MOST_MEMBERS:
                    raise ValueError(f"it has more than {_MOST_MEMBERS} members")
            if stream is not None:
                yield stream.decompress(waiting, most)
                waiting = stream.unused_data if stream.eof else stream.unconsumed_tail
                stream = None if stream.eof else stream
    if stream is not None:
        raise EOFError("the compressed file ends early")


def head(path: Path, size: int) -> bytes:
    """The first bytes of the content, fewer if it is shorter; nothing beyond is read.

    Raises:
        OSError: the file cannot be read.
        EOFError: the compressed stream ends within them.
        ValueError, zlib.error: it is not gzip, or damaged.
    """
    found = b""
    for piece in _pieces(path, size):
        found += piece
        if len(found) >= size:
            break
    return found[:size]


def inflate(
    path: Path, start: int, size: int, whole: int | None = None
) -> UInt8[np.ndarray, " size"]:
    """Bytes ``start`` to ``start + size`` of the content.

    The file is read to its end all the same: each member's checksum stands behind its content, and
    most damage shows nowhere else. Memory beyond the result is bounded, whatever the file inflates
    to. zlib is called without the buffers of the gzip module, which take a quarter of the time.

    Args:
        path: of the file.
        start: first byte of the content to return.
        size: how many.
        whole: bytes that the content should have; much more is an error as soon as it shows.

    Raises:
        OSError: the file cannot be read.
        EOFError: it, or its content, is too short.
        ValueError: the content goes on far beyond ``whole``.
        zlib.error: it is not gzip, or damaged.
    """
    most = math.inf if whole is None else whole + _SLACK
    content = np.empty(size, np.uint8)
    place = -start
    for piece in _pieces(path):
        low, high = max(place, 0), min(place + len(piece), size)
        if low < high:
            content[low:high] = np.frombuffer(piece, np.uint8)[low - place : high - place]
        place += len(piece)
        if place + start > most:
            raise ValueError(f"the content goes on far beyond the {whole} bytes of the image")
    if place < size:
        raise EOFError(f"the content ends after {place + start} of {start + size} bytes")
    return content
