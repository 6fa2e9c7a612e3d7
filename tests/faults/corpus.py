"""Damaged files, built by code, each with the reader that meets it; run as a process of its own.

python -m tests.faults.corpus FOLDER

reads them all and prints one line of JSON each: name, outcome, seconds, words.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import signal
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import nibabel as nib
import numpy as np
from ml_collections import ConfigDict

from jaxfer.data.layouts import read_dataset
from jaxfer.data.nifti import read_header, read_volume
from jaxfer.errors import UserError
from jaxfer.files import read_array, read_json
from jaxfer.models.zoo import read_card

SECONDS = 10
MEGABYTES = 1024
Build = Callable[[Path], object]


@dataclass(frozen=True)
class Damaged:
    """A damaged file.

    Attributes:
        name: its own name, or that of the folder it is put into.
        build: writes it to a path.
        read: reads it; ``UserError``, or a load that is correct.
        loads: it is a sound file after all, and must load.
    """

    name: str
    build: Build
    read: Callable[[Path], object]
    loads: bool = False


def image(path: Path) -> object:
    """As verification and the store read an image."""
    return read_header(path), read_volume(path)


def whole(kind: type = np.int16, shape: tuple[int, ...] = (6, 5, 4), order: str = "<") -> bytes:
    """The bytes of a sound NIfTI-1 file."""
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(kind).newbyteorder(order))
    array = (np.arange(np.prod(shape)) % 100).reshape(shape).astype(kind)
    picture = nib.Nifti1Image(array, np.eye(4), header)
    return picture.to_bytes()


def with_field(offset: int, form: str, *values: float, packed: bool = False) -> Build:
    """A sound file but for one field of its header."""

    def build(path: Path) -> None:
        raw = bytearray(whole())
        struct.pack_into(f"<{form}", raw, offset, *values)
        path.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))

    return build


def raw(content: bytes) -> Build:
    return lambda path: path.write_bytes(content)


def zipped(change: Callable[[bytes], bytes]) -> Build:
    return lambda path: path.write_bytes(change(gzip.compress(whole())))


def bomb(size: int, begin: bytes = b"") -> Build:
    """A small gzip file that goes on for ``size`` bytes of zeros."""

    def build(path: Path) -> None:
        packer = zlib.compressobj(9, wbits=31)
        block = bytes(2**24)
        with path.open("wb") as file:
            file.write(packer.compress(begin))
            packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
            file.write(packed)
            # After a full flush the same block compresses to the same bytes, wherever it stands.
            again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
            for _ in range(size // len(block)):
                file.write(again)

    return build


def huge_header(dims: tuple[int, ...], code: int = 4, bits: int = 16) -> bytes:
    """A header that announces a grid."""
    head = bytearray(whole()[:352])
    struct.pack_into("<8h", head, 40, len(dims), *dims, *[1] * (7 - len(dims)))
    struct.pack_into("<2h", head, 70, code, bits)
    return bytes(head)


def linked(path: Path) -> None:
    other = path.with_name(f"other-{path.name}")
    path.symlink_to(other)
    other.symlink_to(path)


def images() -> Iterator[Damaged]:
    for order, kind in ((o, k) for o in "<>" for k in (np.uint8, np.int16, np.float32, np.float64)):
        name = f"sound-{ord(order)}-{np.dtype(kind).name}.nii"
        yield Damaged(name, raw(whole(kind, order=order)), image, loads=True)
    dims = {
        "negative": (3, -6, 5, 4, 1, 1, 1, 1),
        "zero": (3, 0, 5, 4, 1, 1, 1, 1),
        "huge": (7, *[32767] * 7),
        "none": (0, 6, 5, 4, 1, 1, 1, 1),
        "many": (32767, 6, 5, 4, 1, 1, 1, 1),
        "negative-rank": (-3, 6, 5, 4, 1, 1, 1, 1),
        "two-negative": (3, -6, -5, 4, 1, 1, 1, 1),
    }
    for name, values in dims.items():
        yield Damaged(f"dim-{name}.nii", with_field(40, "8h", *values), image)
        packed = with_field(40, "8h", *values, packed=True)
        yield Damaged(f"dim-{name}.nii.gz", packed, image)
    types = {"unknown": 3, "complex": 32, "rgb": 128, "float128": 1536, "rgba": 2304, "bit": 1}
    for name, code in types.items():
        yield Damaged(f"type-{name}.nii", with_field(70, "h", code), image)
    yield Damaged("bitpix.nii", with_field(72, "h", 8), image, loads=True)
    offsets = {"inside": 100, "beyond": 1e9, "nan": np.nan, "inf": np.inf, "negative": -352}
    for name, value in offsets.items():
        yield Damaged(f"offset-{name}.nii", with_field(108, "f", value), image)
    yield Damaged("offset-packed.nii.gz", with_field(108, "f", 1e18, packed=True), image)
    for name, value in {"nan": np.nan, "inf": np.inf, "zero": 0.0, "huge": 3e38}.items():
        yield Damaged(f"affine-{name}.nii", with_field(280, "12f", *[value] * 12), image)
    for name, size in {"negative": -16, "huge": 2**31 - 16, "odd": 17, "zero": 0}.items():

        def extended(path: Path, size: int = size) -> None:
            start = bytearray(whole()[:352])
            struct.pack_into("<f", start, 108, 368)
            start[348] = 1
            path.write_bytes(bytes(start) + struct.pack("<4i", size, 0, 0, 0) + whole()[352:])

        yield Damaged(f"extension-{name}.nii", extended, image, loads=True)
    yield Damaged("slope-nan.nii", with_field(112, "f", np.nan), image, loads=True)
    yield Damaged("empty.nii", raw(b""), image)
    yield Damaged("empty.nii.gz", raw(b""), image)
    yield Damaged("short.nii", raw(whole()[:200]), image)
    yield Damaged("cut.nii", raw(whole()[:-1]), image)
    yield Damaged("noise.nii", raw(np.random.default_rng(0).bytes(9999)), image)
    yield Damaged("magic.nii", with_field(344, "4s", b"ni1\0"), image)
    yield Damaged("lone.hdr", raw(whole()[:348]), image)
    yield Damaged("lone.img", raw(bytes(99)), image)


def compressed() -> Iterator[Damaged]:
    changes: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda z: z[: len(z) // 2],
        "header-alone": lambda z: z[:10],
        "checksum": lambda z: z[:-8] + b"\1\2\3\4" + z[-4:],
        "length": lambda z: z[:-4] + b"\1\2\3\4",
        "garbage": lambda z: z + b"what is this",
        "flipped": lambda z: z[:40] + bytes([z[40] ^ 255]) + z[41:],
        "plain": lambda z: gzip.decompress(z),
        "twice": gzip.compress,
        "much-behind": lambda z: z + gzip.compress(bytes(2**25)),
        "many-members": lambda z: z + gzip.compress(b"") * 70_000,
    }
    for name, change in changes.items():
        yield Damaged(f"gzip-{name}.nii.gz", zipped(change), image)
    halves = gzip.compress(whole()[:400]) + gzip.compress(whole()[400:])
    yield Damaged("gzip-members.nii.gz", raw(halves), image, loads=True)
    yield Damaged("gzip-padded.nii.gz", zipped(lambda z: z + bytes(99)), image, loads=True)
    yield Damaged("bomb.nii.gz", bomb(30 * 2**30, whole()), image)
    yield Damaged("bomb-grid.nii.gz", bomb(2**31, huge_header((1024, 1024, 1023))), image)
    wide = bomb(2**31, huge_header((512, 512, 512), 64, 64))
    yield Damaged("bomb-wide.nii.gz", wide, image)
    yield Damaged("bomb-announced.nii.gz", bomb(2**30, huge_header((32767, 32767, 32767))), image)


def places() -> Iterator[Damaged]:
    for end in (".nii", ".nii.gz", ".hdr"):
        yield Damaged(f"folder{end}", lambda path: path.mkdir(), image)
        yield Damaged(f"loop{end}", linked, image)
        yield Damaged(f"pipe{end}", lambda path: os.mkfifo(path), image)
        yield Damaged(f"device{end}", lambda path: path.symlink_to("/dev/zero"), image)


def npy(header: str, version: tuple[int, int] = (1, 0), content: bytes = bytes(16)) -> Build:
    padded = header.encode("latin1") + b"\n"
    return raw(b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(padded)) + padded + content)


def array(path: Path) -> object:
    try:
        return np.array(read_array(path))
    except (OSError, ValueError) as error:
        raise UserError(str(path), found=error) from error


def arrays() -> Iterator[Damaged]:
    sound = "{'descr': '<i4', 'fortran_order': %s, 'shape': %s}"
    headers = {
        "huge": sound % ("False", "(1000000000000,)"),
        "overflow": sound % ("False", "(9223372036854775807, 9223372036854775807)"),
        "negative": sound % ("False", "(-4,)"),
        "float": sound % ("False", "(4.0,)"),
        "object": "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
        "complex": "{'descr': '<c16', 'fortran_order': False, 'shape': (1,)}",
        "record": "{'descr': [('a', '<i4'), ('b', '|O')], 'fortran_order': False, 'shape': (1,)}",
        "code": "__import__('os').system('true')",
        "nested": "(" * 4000,
        "long": "{'descr': '<i4', 'x': '" + "x" * 20_000 + "'}",
        "fortran": sound % ("3", "(4,)"),
        "none": "{}",
    }
    for name, header in headers.items():
        yield Damaged(f"npy-{name}.npy", npy(header), array)
    order = npy(sound % ("True", "(2, 2)"))
    yield Damaged("npy-order.npy", order, array, loads=True)
    yield Damaged("npy-version.npy", npy(sound % ("False", "(4,)"), (9, 9)), array)
    yield Damaged("npy-cut.npy", npy(sound % ("False", "(4,)"), content=b"1"), array)
    yield Damaged("npy-empty.npy", raw(b""), array)
    yield Damaged("npy-pickle.npy", raw(b"\x80\x04N."), array)
    yield Damaged("npy-pipe.npy", lambda path: os.mkfifo(path), array)
    yield Damaged("npy-zip.npy", _npz, array)


def _npz(path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    path.write_bytes(buffer.getvalue())


TEXTS = {
    "empty": b"",
    "nul": bytes(99),
    "cut": b'{"labels": {"0": "back',
    "list": b"[]",
    "number": b"1e999",
    "nan": b"NaN",
    "huge-number": b"9" * 5000,
    "deep-list": b"[" * 100_000,
    "deep-object": b'{"a":' * 900 + b"1" + b"}" * 900,
    "twice": b'{"labels": {}, "labels": {}}',
    "surrogate": b'{"labels": {"0": "background", "1": "\\ud800"}}',
    "not-utf8": b'{"labels": "\xff\xfe"}',
    "large": b" " * (2**24 + 1),
    "long-text": b'{"labels": "' + b"x" * 10_000_000 + b'"}',
    "many": b"[" + b"{}," * 4_000_000 + b"{}]",
}


def record(path: Path) -> object:
    try:
        return read_json(path, {"labels": {str: str}})
    except (OSError, ValueError) as error:
        raise UserError(str(path), found=error) from error


def described(layout: str) -> Callable[[Path], object]:
    entry = {"layout": layout, "modality": "t1", "skull_stripped": True}

    def read(path: Path) -> object:
        return read_dataset("d", ConfigDict(entry | {"folder": path.name}), path.parent)

    return read


def inside(name: str, build: Build) -> Build:
    def put(folder: Path) -> None:
        folder.mkdir()
        build(folder / name)

    return put


def texts() -> Iterator[Damaged]:
    for name, content in TEXTS.items():
        yield Damaged(f"json-{name}.json", raw(content), record)
        for layout in ("msd", "nnunet"):
            build = inside("dataset.json", raw(content))
            yield Damaged(f"{layout}-{name}", build, described(layout))
        yield Damaged(f"card-{name}", inside("card.json", raw(content)), read_card)
    pipe = inside("dataset.json", lambda path: os.mkfifo(path))
    yield Damaged("msd-pipe", pipe, described("msd"))


TABLE = b"case,subject,site,label,t1\n"
TABLES = {
    "empty": b"",
    "nul": TABLE + b"a\0b,s,1,l.nii,i.nii\n",
    "quote": TABLE + b'"a,s,1,l.nii,i.nii\n' * 3,
    "ragged": TABLE + b"a,s,1,l.nii,i.nii,x,y,z\n",
    "line": TABLE + b"a" * 10_000_000 + b",s,1,l.nii,i.nii\n",
    "cells": TABLE + b"," * 10_000_000 + b"\n",
    "not-utf8": TABLE + b"\xff,s,1,l.nii,i.nii\n",
    "utf16": (TABLE + b"a,s,1,l.nii,i.nii\n").decode().encode("utf-16"),
    "twice": b"case,case,subject,site,label,t1\n",
    "escape": TABLE + b"\x1b[2J,s,1,l.nii,i.nii\n",
    "climbs": TABLE + b"..,s,1,../../l.nii,/etc/i.nii\n",
    "formula": TABLE + b"=1+1,s,1,l.nii,i.nii\n",
    "large": TABLE + b"a,s,1,l.nii,i.nii\n" * 10**6,
}


def table(path: Path) -> object:
    settings = {"layout": "table", "folder": path.name, "file": "cases.csv", "modality": "t1"}
    settings |= {"labels": {"lesion": 1}, "skull_stripped": True}
    dataset, problems = read_dataset("d", ConfigDict(settings), path.parent)
    if any(problem.severity == "error" for problem in problems):
        raise UserError(str(problems[0]))
    return dataset


def tables() -> Iterator[Damaged]:
    for name, content in TABLES.items():
        yield Damaged(f"table-{name}", inside("cases.csv", raw(content)), table)
    bom = b"\xef\xbb\xbf" + TABLE + b"a,s,1,l.nii,i.nii\n"
    yield Damaged("table-bom", inside("cases.csv", raw(bom)), table, loads=True)


def corpus() -> list[Damaged]:
    """All of them."""
    parts = (images(), compressed(), places(), arrays(), texts(), tables())
    return [one for part in parts for one in part]


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError


def _outcome(one: Damaged, path: Path) -> tuple[str, str]:
    try:
        one.read(path)
    except UserError as error:
        return "UserError", str(error)
    except Exception as error:
        return type(error).__name__, repr(error)[:500]
    return "loaded", ""


def main(folder: Path) -> None:
    signal.signal(signal.SIGALRM, _out_of_time)
    for one in corpus():
        path = folder / one.name
        one.build(path)
        began = time.monotonic()
        signal.alarm(SECONDS)
        outcome, words = _outcome(one, path)
        signal.alarm(0)
        line = {"name": one.name, "outcome": outcome, "loads": one.loads, "words": words}
        line["seconds"] = round(time.monotonic() - began, 3)
        line["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
