"""Part of a gzip file's content, the whole of it checked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

LARGEST_RATIO = 1032
"""Content over file: deflate cannot compress further."""

_READ = 2**18
_INFLATE = 2**22


def _pieces(path: Path) -> Iterator[bytes]:
    """The content, at most ``_INFLATE`` bytes at a time."""
    stream = None
    waiting = b""
    with path.open("rb") as file:
        while waiting := waiting or file.read(_READ):
            if stream is None:
                waiting = waiting.lstrip(b"\0")  # padding between or behind the members
                stream = zlib.decompressobj(wbits=31) if waiting else None
            if stream is not None:
                yield stream.decompress(waiting, _INFLATE)
                waiting = stream.unused_data if stream.eof else stream.unconsumed_tail
                stream = None if stream.eof else stream
    if stream is not None:
        raise EOFError("the compressed file ends early")


def inflate(path: Path, start: int, size: int) -> UInt8[np.ndarray, " size"]:
    """Bytes ``start`` to ``start + size`` of the content.

    The file is read to its end all the same: each member's checksum stands behind its content, and
    most damage shows nowhere else. Memory beyond the result is bounded, whatever the file inflates
    to. zlib is called without the buffers of the gzip module, which take a quarter of the time.

    Raises:
        OSError: the file cannot be read.
        EOFError: it, or its content, is too short.
        zlib.error: it is not gzip, or damaged.
    """
    content = np.empty(size, np.uint8)
    place = -start
    for piece in _pieces(path):
        low, high = max(place, 0), min(place + len(piece), size)
        if low < high:
            content[low:high] = np.frombuffer(piece, np.uint8)[low - place : high - place]
        place += len(piece)
    if place < size:
        raise EOFError(f"the content ends after {place + start} of {start + size} bytes")
    return content
