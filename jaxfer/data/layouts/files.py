"""Finding image files as unpackers leave them: letter case, endings, debris, nested folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jaxfer.errors import Problem

Kinds = dict[str, list[Path]]
KindOf = Callable[[str], str | None]

_ENDING = re.compile(r"\.(nii\.gz|nii|hdr)$", re.IGNORECASE)
_NONE: frozenset[str] = frozenset()
_DEPTH = 6
"""How far below a data set's folder cases are looked for: parts, sites, an archive in a folder."""


def stem(name: str) -> str | None:
    """A name without the ending of an image; None: it is no image, or debris of an archive.

    Of an Analyze pair the .hdr stands for both; macOS and unpackers leave names in . and _.
    """
    if name[:1] in ("", ".", "_") or not _ENDING.search(name):
        return None
    return _ENDING.sub("", name) or None


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order, without debris."""
    return sorted(p for p in folder.iterdir() if p.name[:1] not in "._")


def _files(entry: Path) -> list[Path]:
    """The images that an entry stands for: itself, or those in a folder that is named like one.

    Some copies hold a folder NAME_flair.nii with the image in it, under whatever name.
    """
    if entry.is_dir():
        return [p for p in entries(entry) if stem(p.name) and p.is_file()]
    return [entry]


def images(folder: Path, kind_of: KindOf) -> Kinds:
    """The images of a folder by kind.

    Args:
        folder: of a case; what lies deeper is not looked at.
        kind_of: from a file's name without ending to its kind; None: not of interest.
    """
    found: Kinds = {}
    for entry in entries(folder):
        name = stem(entry.name)
        kind = kind_of(name) if name else None
        if kind and (files := _files(entry)):
            found.setdefault(kind, []).extend(files)
    return found


def ends_in(kinds: Mapping[str, tuple[str, ...]]) -> KindOf:
    """Kinds by what a name ends in, behind _ or -, whatever its letter case."""
    ends = {end.lower(): kind for kind, names in kinds.items() for end in names}
    return lambda name: ends.get(re.split(r"[_-]", name.lower())[-1])


def is_named(kinds: Mapping[str, str]) -> KindOf:
    """Kinds by the whole name, whatever its letter case."""
    names = {name.lower(): kind for kind, name in kinds.items()}
    return lambda name: names.get(name.lower())


def _inner(folder: Path, above: frozenset[str]) -> Iterator[tuple[Path, frozenset[str]]]:
    """The folders in a folder, but for symbolic links back to those above it."""
    above |= {os.path.realpath(folder)}
    for entry in entries(folder):
        if entry.is_dir() and not (entry.is_symlink() and os.path.realpath(entry) in above):
            yield entry, above


def folders(folder: Path, depth: int = _DEPTH, above: frozenset[str] = _NONE) -> Iterator[Path]:
    """A folder and those below it, parents first."""
    yield folder
    for entry, passed in _inner(folder, above) if depth else ():
        yield from folders(entry, depth - 1, passed)


def with_images(
    folder: Path, kind_of: KindOf, depth: int = _DEPTH, above: frozenset[str] = _NONE
) -> Iterator[tuple[Path, Kinds]]:
    """The folders, at any depth, that hold images of a kind; none below such a one."""
    if found := images(folder, kind_of):
        yield folder, found
        return
    for entry, passed in _inner(folder, above) if depth else ():
        yield from with_images(entry, kind_of, depth - 1, passed)


def one_of_each(found: Kinds, where: Path, problems: list[Problem]) -> dict[str, Path]:
    """The file of each kind; several of one kind are an error, and the first stands for them."""
    for kind, files in found.items():
        if len(files) > 1:
            problems.append(
                Problem(
                    "error",
                    str(where),
                    f"several files for {kind}",
                    ", ".join(f.name for f in files),
                    "one",
                    "move the others elsewhere",
                )
            )
    return {kind: files[0] for kind, files in found.items()}
