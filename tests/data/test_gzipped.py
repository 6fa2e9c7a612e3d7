"""Parts of gzip files: any part, whole files only, bounded memory."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from jaxfer.data.gzipped import inflate

CONTENT = np.random.default_rng(0).integers(0, 40, 6_000_000).astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gz") / "a.gz"
    file.write_bytes(gzip.compress(CONTENT, 1))
    return file


@pytest.mark.parametrize(
    ("start", "size"), [(0, 6_000_000), (0, 1), (352, 5_000_000), (5_999_999, 1), (4_194_300, 9)]
)
def test_any_part(path: Path, start: int, size: int) -> None:
    assert inflate(path, start, size).tobytes() == CONTENT[start : start + size]


def test_members_in_a_row_and_padding(tmp_path: Path) -> None:
    parts = [gzip.compress(CONTENT[a : a + 1000]) for a in (0, 1000, 2000)]
    (tmp_path / "a.gz").write_bytes(parts[0] + parts[1] + b"\0" * 300_000 + parts[2] + b"\0" * 7)
    assert inflate(tmp_path / "a.gz", 500, 2400).tobytes() == CONTENT[500:2900]


def test_too_short_a_content_and_too_short_a_file(path: Path, tmp_path: Path) -> None:
    with pytest.raises(EOFError, match="6000000 of 6000001"):
        inflate(path, 1, 6_000_000)
    whole = path.read_bytes()
    for cut in (1, 4, 8, 9, len(whole) // 2):
        (tmp_path / "a.gz").write_bytes(whole[:-cut])
        with pytest.raises(EOFError):
            inflate(tmp_path / "a.gz", 0, 10)


@pytest.mark.parametrize("place", [12, 3_000_000, -6, -2])
def test_damage_behind_the_part_is_found(path: Path, tmp_path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises((zlib.error, EOFError)):
        inflate(tmp_path / "a.gz", 0, 10)


def test_what_is_not_gzip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"<html>" * 100)
    with pytest.raises(zlib.error):
        inflate(tmp_path / "a.gz", 0, 10)


def test_a_small_file_that_inflates_to_much_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(200_000_000), 1))
    tracemalloc.start()
    assert inflate(tmp_path / "a.gz", 0, 1000).sum() == 0
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
