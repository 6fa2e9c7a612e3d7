"""The words of the project as values: case, dataset, RoI, task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from jaxfer.errors import UserError

IGNORE = 255
"""Class index of voxels that no loss, metric or statistic may see."""

NAMES = (
    "1 to 120 bytes of printable characters, without '/' and '\\', no '.', '=', '+', '-', '@' "
    "or space at the beginning, no space at the end"
)
"""What names from data must be: they become names of files, and cells of tables."""

LARGEST_LABEL = 2**15 - 1
"""Predictions are written as numbers of 8 or 16 bits."""

ALL_SITES = "all"
"""In the site's place of a task name: the cases of every site."""


def wrong_name(name: str) -> bool:
    """Whether a name from data would not do as the name of a file, or as a cell of a table.

    ``.`` begins hidden files, among them those that a build is to remove; ``=``, ``+``, ``-`` and
    ``@`` begin what spreadsheets take for formulas.
    """
    fit = name.isprintable() and name == name.strip() and not {"/", "\\"} & {*name}
    return not fit or name[:1] in ("", *".=+-@") or len(name.encode()) > 120


@dataclass(frozen=True)
class RoI:
    """What a task segments: an ordered set of classes, each a group of label values.

    Attributes:
        name: as in a task's name.
        classes: (class name, label values) pairs; class 0, the background, is implied.
    """

    name: str
    classes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes) + 1

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes after the background."""
        return tuple(name for name, _ in self.classes)


@dataclass(frozen=True)
class Image:
    """Where an image lies: a file, and which of its channels if it holds several.

    Attributes:
        path: of the file.
        channel: index along the file's fourth axis; None: the file is the image.
    """

    path: Path
    channel: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.channel is None else f"{self.path}, channel {self.channel}"


@dataclass(frozen=True)
class Case:
    """One scan session of one subject: images by modality, one label map, a site."""

    id: str
    subject: str
    site: str
    images: Mapping[str, Image]
    label: Path | None


@dataclass(frozen=True)
class Dataset:
    """Cases that share a label scheme.

    Attributes:
        name: as in a task's name.
        cases: sorted by id; ids are unique.
        label_names: every label value that may occur, background (0) included.
        rois: the named groups of labels; every single label is an RoI of its own name too.
        ignore: label values that are neither background nor anything to learn.
        skull_stripped: background voxels are exactly 0, so the brain is where the image is not.
        synthetic: the images were computed: no scanner has seen them, or nobody like that exists.
        family: data sets of one family may hold the same people under other names; '' = none.
        about: public name, licence and origin, for messages and the report.
    """

    name: str
    cases: tuple[Case, ...]
    label_names: Mapping[int, str]
    rois: Mapping[str, RoI]
    skull_stripped: bool
    about: str
    ignore: tuple[int, ...] = ()
    synthetic: bool = False
    family: str = ""

    def roi(self, name: str) -> RoI:
        """The RoI of that name: a declared group, or a single label that is not ignored."""
        if name in self.rois:
            return self.rois[name]
        singles = {
            label: value
            for value, label in self.label_names.items()
            if value != 0 and value not in self.ignore
        }
        if name in singles:
            return RoI(name, ((name, (singles[name],)),))
        raise UserError(
            f"dataset '{self.name}' has no RoI of this name",
            found=name,
            allowed=", ".join(dict.fromkeys([*self.rois, *singles])),
            mend="correct the last part of the task's name in config.target or config.sources",
        )

    def select(self, site: str, modality: str) -> tuple[Case, ...]:
        """The labelled cases of a site that have this modality."""
        at_site = [c for c in self.cases if site in (ALL_SITES, c.site)]
        if not at_site:
            raise UserError(
                f"dataset '{self.name}' has no site of this name",
                found=site,
                allowed=", ".join([ALL_SITES, *sorted({c.site for c in self.cases})]),
                mend="correct the second part of the task's name",
            )
        chosen = tuple(c for c in at_site if modality in c.images and c.label is not None)
        if not chosen:
            raise UserError(
                f"dataset '{self.name}', site '{site}': no labelled case has this modality",
                found=modality,
                allowed=", ".join(sorted({m for c in at_site for m in c.images})),
                mend="correct the third part of the task's name",
            )
        return chosen


@dataclass(frozen=True, order=True)
class Task:
    """What a network is trained for: (dataset, site, modality, RoI)."""

    dataset: str
    site: str
    modality: str
    roi: str

    @classmethod
    def parse(cls, name: str, field: str = "task") -> Task:
        """Reads ``dataset/site/modality/roi``."""
        parts = name.split("/")
        if len(parts) != 4 or any(map(wrong_name, parts)) or len(name.encode()) > 200:
            raise UserError(
                f"config.{field}: not a task's name",
                found=name,
                allowed="dataset/site/modality/RoI, such as phantom/clinic/flair/WMH",
            )
        return cls(*parts)

    @property
    def name(self) -> str:
        return "/".join((self.dataset, self.site, self.modality, self.roi))

    @property
    def slug(self) -> str:
        """The name as one folder name."""
        return self.name.replace("/", "-")


def classes_of(
    labels: Integer[np.ndarray, ...], roi: RoI, ignore: tuple[int, ...] = ()
) -> UInt8[np.ndarray, ...]:
    """Class indices of an RoI from label values.

    Args:
        labels: label values as the dataset declares them.
        roi: the groups; values in no group become background (0).
        ignore: values that become ``IGNORE``.

    Returns:
        0 for background, 1 … for the RoI's classes in order, 255 where ignored.
    """
    if labels.size > 1 and labels.min() >= 0 and labels.max() < labels.size:
        # As a rule few values stand in many voxels: each is looked for once.
        return _searched(np.arange(int(labels.max()) + 1), roi, ignore)[labels]
    return _searched(labels, roi, ignore)


def _searched(
    labels: Integer[np.ndarray, ...], roi: RoI, ignore: tuple[int, ...]
) -> UInt8[np.ndarray, ...]:
    """Class indices, every label looked for among the values of each group."""
    classes = np.zeros(labels.shape, np.uint8)
    for index, (_, values) in enumerate(roi.classes, start=1):
        classes[np.isin(labels, values)] = index
    classes[np.isin(labels, ignore)] = IGNORE
    return classes
