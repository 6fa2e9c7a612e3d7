"""Label maps of whole heads, as SynthSeg was trained on: the scans are rendered from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ml_collections import ConfigDict

from jaxfer.data.heads.anatomy import LABEL_NAMES, MODALITIES, both, one
from jaxfer.data.heads.generate import files_of
from jaxfer.data.layouts.cases import by_name, merged
from jaxfer.data.layouts.files import entries, stem
from jaxfer.data.layouts.settings import SKULL_STRIPPED, Setting
from jaxfer.errors import Problem
from jaxfer.tasks import Case, Dataset, Image, RoI

ABOUT = (
    "label maps of whole heads with FreeSurfer's numbers, one file per subject: "
    "data/training_label_maps of SynthSeg (github.com/BBillot/SynthSeg, Apache-2.0); contrasts are "
    "rendered from them"
)
SETTINGS = {
    "seed": Setting(
        lambda s: isinstance(s.seed, int) and 0 <= s.seed < 2**31, "a whole number, 0 or more"
    ),
    "skull_stripped": SKULL_STRIPPED,
}
_VENTRICLES = (
    *both("lateral_ventricle", "inferior_lateral_ventricle"),
    *both("choroid_plexus", "inferior_choroid_plexus"),
)
_CSF = (*_VENTRICLES, *one("third_ventricle", "fourth_ventricle", "fifth_ventricle", "outer_CSF"))
_GM = both(
    *("cortex", "cerebellum_cortex", "thalamus", "caudate", "putamen", "pallidum"),
    *("hippocampus", "amygdala", "accumbens"),
)
_WM = (
    *both("white_matter", "cerebellum_white_matter", "ventral_DC", "lesion"),
    *one("brain_stem", "optic_chiasm"),
)
_ROIS = by_name(
    RoI("tissue", (("CSF", _CSF), ("GM", _GM), ("WM", _WM))),
    RoI("thalamus_caudate", (("thalamus", both("thalamus")), ("caudate", both("caudate")))),
    merged("ventricles", *_VENTRICLES),
    *(merged(name, *both(name)) for name in ("hippocampus", "amygdala", "putamen")),
)


def label_maps(folder: Path) -> list[Path]:
    """The label maps of a folder, one per subject, in order."""
    return [file for file in entries(folder) if stem(file.name)]


def read(
    name: str, folder: Path, settings: ConfigDict, scans: Path
) -> tuple[Dataset, list[Problem]]:
    """Reads the folder of label maps; images and cropped labels lie, or will, under ``scans``."""
    cases = []
    for label_map in label_maps(folder):
        subject = stem(label_map.name) or ""
        files = files_of(label_map, scans, seed=settings.seed, brain=settings.skull_stripped)
        images = {modality: Image(files[modality]) for modality in MODALITIES}
        cases.append(Case(subject, subject, "1", images, files["seg"]))
    found = Counter(case.id for case in cases)
    twice = sorted(name for name, number in found.items() if number > 1)
    problems = [
        Problem(
            "error",
            str(folder),
            "several files for one subject",
            ", ".join(twice),
            "one label map each",
            "move the others elsewhere",
        )
    ] * bool(twice)
    if not cases:
        problems = [Problem("error", str(folder), "no label map", "no NIfTI file", ABOUT)]
    dataset = Dataset(
        name=name,
        cases=tuple(cases),
        label_names=LABEL_NAMES,
        rois=_ROIS,
        skull_stripped=settings.skull_stripped,
        about=ABOUT,
        synthetic=True,
    )
    return dataset, problems
