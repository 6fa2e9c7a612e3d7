"""The label scheme of the head label maps, and how bright each structure is.

FreeSurfer's numbers for the brain and the numbers of its head atlas around it, as in the label
maps that SynthSeg was trained on (Billot et al., Medical Image Analysis 86:102789, 2023). These
give 136, 137, 163 and 164 another meaning than FreeSurfer's table: parts of the ventricles, which
users report to be choroid plexus.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MODALITIES = ("t1", "t2", "flair")

BRIGHTNESS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "air": (0, 0, 0),
        "fluid": (27, 99, 20),
        "cortex": (67, 57, 80),
        "hippocampus": (65, 60, 84),
        "accumbens": (69, 55, 79),
        "caudate": (70, 54, 77),
        "putamen": (73, 50, 75),
        "thalamus": (75, 51, 72),
        "pallidum": (81, 41, 62),
        "white matter": (87, 42, 64),
        "brain stem": (83, 46, 66),
        "plexus": (45, 84, 58),
        "vessel": (42, 30, 28),
        "lesion": (68, 74, 108),
        "nerve": (76, 48, 62),
        "muscle": (52, 32, 40),
        "soft tissue": (58, 42, 46),
        "skin": (92, 68, 74),
        "mucosa": (60, 86, 88),
        "eye": (25, 104, 26),
        "cortical bone": (9, 8, 8),
        "cancellous bone": (74, 58, 60),
    }
)
"""Typical intensity by kind of tissue in T1, T2 and FLAIR, on the scale of the MNI templates that
the semi-synthetic collection has too: white matter 87 in T1, fluid 99 in T2. Our choice."""

_BOTH = {
    "white_matter": (2, 41, "white matter"),
    "cortex": (3, 42, "cortex"),
    "lateral_ventricle": (4, 43, "fluid"),
    "inferior_lateral_ventricle": (5, 44, "fluid"),
    "cerebellum_white_matter": (7, 46, "white matter"),
    "cerebellum_cortex": (8, 47, "cortex"),
    "thalamus": (10, 49, "thalamus"),
    "caudate": (11, 50, "caudate"),
    "putamen": (12, 51, "putamen"),
    "pallidum": (13, 52, "pallidum"),
    "hippocampus": (17, 53, "hippocampus"),
    "amygdala": (18, 54, "hippocampus"),
    "lesion": (25, 57, "lesion"),
    "accumbens": (26, 58, "accumbens"),
    "ventral_DC": (28, 60, "brain stem"),
    "vessel": (30, 62, "vessel"),
    "choroid_plexus": (136, 163, "plexus"),
    "inferior_choroid_plexus": (137, 164, "plexus"),
}
_SINGLE = {
    "third_ventricle": (14, "fluid"),
    "fourth_ventricle": (15, "fluid"),
    "brain_stem": (16, "brain stem"),
    "outer_CSF": (24, "fluid"),
    "fifth_ventricle": (72, "fluid"),
    "optic_chiasm": (85, "nerve"),
    "artery": (502, "vessel"),
    "eyes": (506, "eye"),
    "soft_tissue": (507, "soft tissue"),
    "eye_muscles": (508, "muscle"),
    "mucosa": (509, "mucosa"),
    "skin": (511, "skin"),
    "spinal_cord": (512, "brain stem"),
    "vein": (514, "vessel"),
    "cortical_bone": (515, "cortical bone"),
    "cancellous_bone": (516, "cancellous bone"),
    "optic_nerve": (530, "nerve"),
}
_STRUCTURES = {
    0: ("background", "air"),
    **{left: (f"left_{name}", kind) for name, (left, _, kind) in _BOTH.items()},
    **{right: (f"right_{name}", kind) for name, (_, right, kind) in _BOTH.items()},
    **{value: (name, kind) for name, (value, kind) in _SINGLE.items()},
}

LABEL_NAMES: Mapping[int, str] = MappingProxyType(
    {value: name for value, (name, _) in sorted(_STRUCTURES.items())}
)
KINDS: Mapping[int, str] = MappingProxyType(
    {value: kind for value, (_, kind) in _STRUCTURES.items()}
)
"""What kind of tissue each label is, as `BRIGHTNESS` names them."""

FIRST_OUTSIDE = 500
"""Labels from here on are outside the brain and its fluid, as the background is."""


def both(*names: str) -> tuple[int, ...]:
    """The label values of structures that there are left and right."""
    return tuple(sorted(value for name in names for value in _BOTH[name][:2]))


def one(*names: str) -> tuple[int, ...]:
    """The label values of structures that there are once."""
    return tuple(sorted(_SINGLE[name][0] for name in names))
