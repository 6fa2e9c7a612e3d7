"""The sites of the collection: who is scanned there, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """What a scanner makes of the brains that it sees.

    Attributes:
        gamma: exponent on the intensities, 1 for the template's contrast.
        slice_mm: thickness of an axial slice (full width at half maximum of its profile).
        bias: standard deviation of the logarithm of the scanner's uneven sensitivity.
        noise: standard deviation of the noise, as a share of white matter's intensity.
        units: what white matter of intensity 1 is stored as.
    """

    gamma: float
    slice_mm: float
    bias: float
    noise: float
    units: float


@dataclass(frozen=True, kw_only=True)
class Site(Scanner):
    """A site, its patients and its scanner.

    Attributes:
        name: as in the folder's and the cases' names.
        disease: what every subject there has: white matter hyperintensities or a tumour.
        atrophy: range of the subjects' loss of tissue, 0 to 1: wide ventricles and sulci.
    """

    name: str
    disease: Literal["wmh", "tumour"]
    atrophy: tuple[float, float]


SITES: Mapping[str, Site] = MappingProxyType(
    {
        site.name: site
        for site in (
            Site(
                name="ageing",
                disease="wmh",
                atrophy=(0.2, 1.0),
                gamma=1.0,
                slice_mm=0.0,
                bias=0.03,
                noise=0.015,
                units=1000.0,
            ),
            Site(
                name="glioma",
                disease="tumour",
                atrophy=(0.0, 0.5),
                gamma=0.8,
                slice_mm=0.0,
                bias=0.06,
                noise=0.025,
                units=400.0,
            ),
            Site(
                name="clinic",
                disease="wmh",
                atrophy=(0.2, 1.0),
                gamma=1.35,
                slice_mm=5.0,
                bias=0.12,
                noise=0.05,
                units=250.0,
            ),
            Site(
                name="hospital",
                disease="tumour",
                atrophy=(0.0, 0.6),
                gamma=1.15,
                slice_mm=3.0,
                bias=0.10,
                noise=0.06,
                units=1500.0,
            ),
        )
    }
)
