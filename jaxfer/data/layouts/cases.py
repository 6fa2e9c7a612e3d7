"""From what a layout has found to the cases of a data set, and what is to be told of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jaxfer.data.layouts.files import (
    KindOf,
    entries,
    folders,
    images,
    is_named,
    one_of_each,
    stem,
    with_images,
)
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Image, RoI

LABEL = "label map"
"""The kind of file that is no modality."""

_SHOWN = 8


def some(names: Sequence[str]) -> str:
    """The first of many names, and how many they are."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, … ({len(names)})"


def case_of(name: str, files: Mapping[str, Path], *, subject: str = "", site: str = "1") -> Case:
    """A case of the files that were found for it, by modality, and ``LABEL``."""
    chosen = {kind: Image(file) for kind, file in sorted(files.items()) if kind != LABEL}
    return Case(name, subject or name, site, chosen, files.get(LABEL))


def by_folder(
    folder: Path, kind_of: KindOf, problems: list[Problem]
) -> Iterator[tuple[str, Path, dict[str, Path]]]:
    """Every folder that holds files of a kind, at any depth: name, place, file of each kind.

    Some copies have folders named *.nii: those of cases as well as those in place of a file.

    Args:
        folder: the data set's.
        kind_of: modality, or ``LABEL``, of a file's name.
        problems: is added to.
    """
    for place, found in with_images(folder, kind_of):
        yield stem(place.name) or place.name, place, one_of_each(found, place, problems)


def by_visit(
    folder: Path, inner: str, kind_of: KindOf, label: str, problems: list[Problem]
) -> Iterator[tuple[str, Path, dict[str, Path]]]:
    """Every folder with images in a folder of it and the label map beside that, at any depth.

    Args:
        folder: the data set's.
        inner: name of the folder with the images, ``pre`` or ``orig``.
        kind_of: modality of a file's name there.
        label: name of the label map, without ending.
        problems: is added to.
    """
    for place in folders(folder):
        found = images(place, is_named({LABEL: label}))
        for entry in entries(place):
            if entry.is_dir() and entry.name.lower() == inner:
                found |= images(entry, kind_of)
        if found:
            yield place.name, place, one_of_each(found, place, problems)


def ordered(
    folder: Path, cases: Iterable[Case], modalities: Sequence[str], problems: list[Problem]
) -> tuple[Case, ...]:
    """The cases by id, once each; what they lack is told, never dropped in silence.

    Args:
        folder: the data set's, for the messages.
        cases: as found.
        modalities: those that a whole case has.
        problems: is added to: cases of one id are errors, what cases lack are warnings.
    """
    cases = sorted(cases, key=lambda c: c.id)
    for case, number in Counter(c.id for c in cases).items():
        if number > 1:
            what, mend = "several cases of one name", "move the others elsewhere"
            found = f"{number} × {case}"
            problems.append(Problem("error", str(folder), what, found, "one folder each", mend))
    for modality in modalities:
        lacking = [c.id for c in cases if modality not in c.images]
        if lacking:
            problems.append(_lack(folder, modality, lacking, f"tasks on {modality} go without"))
    unlabelled = [c.id for c in cases if c.label is None]
    if unlabelled:
        problems.append(_lack(folder, LABEL, unlabelled, "they are not used"))
    return tuple({c.id: c for c in cases}.values())


def _lack(folder: Path, what: str, cases: Sequence[str], then: str) -> Problem:
    return Problem(
        "warning",
        str(folder),
        f"{len(cases)} case(s) without {what}: {then}",
        some(cases),
        "every modality and a label map",
        "download their other files to use them",
    )


def by_name(*rois: RoI) -> dict[str, RoI]:
    return {roi.name: roi for roi in rois}


def merged(name: str, *values: int) -> RoI:
    """A group of label values that is one class."""
    return RoI(name, ((name, values),))


def all_labels(name: str, label_names: Mapping[int, str], ignore: Sequence[int] = ()) -> RoI:
    """The RoI whose classes are all labels of a data set."""
    known = sorted(v for v in label_names if v != 0 and v not in ignore)
    return RoI(name, tuple((label_names[v], (v,)) for v in known))
