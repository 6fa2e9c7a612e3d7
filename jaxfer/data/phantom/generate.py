"""Write the semi-synthetic collection: subjects by site, as NIfTI files, and a record of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxfer.data.phantom.contrast import MODALITIES
from jaxfer.data.phantom.files import nifti_bytes, write_whole
from jaxfer.data.phantom.labels import LABEL_NAMES
from jaxfer.data.phantom.sites import SITES
from jaxfer.data.phantom.subject import make_subject
from jaxfer.data.phantom.template import NOTICE_FILE, load_template
from jaxfer.errors import UserError
from jaxfer.files import read_json

# Raised whenever the same seed gives other images.
GENERATOR_VERSION = 1
RECORD = "collection.json"
_FILES = (*MODALITIES, "seg")
_DESCRIPTION = "synthetic, from the MNI ICBM152 2009 templates"

_NOTICE = """\
SYNTHETIC. No image in this folder is of a person. Every subject was computed: the MNI ICBM152 2009
templates, deformed at random, with synthetic lesions, FLAIR contrast, noise and scanner effects.

The templates are those of Fonov V. et al., "Unbiased average age-appropriate atlases for pediatric
studies", NeuroImage 54:313-327 (2011), doi:10.1016/j.neuroimage.2010.07.033, and Fonov V. et al.,
"Unbiased nonlinear average age-appropriate brain templates from birth to adulthood", NeuroImage
47:S102 (2009), doi:10.1016/S1053-8119(09)70884-5. The notice of their authors:

"""


def write_collection(
    folder: Path,
    *,
    seed: int,
    sites: Sequence[str],
    subjects_per_site: Mapping[str, int] | int,
    on_case: Callable[[str], None] | None = None,
) -> None:
    """Write the collection, or what is missing of it.

    `<folder>/<site>/<site>-001/<site>-001_{t1,t2,flair,seg}.nii.gz` and `<folder>/collection.json`.
    A subject depends on the seed, its site and its number alone, so a collection can grow, and an
    interrupted call goes on where it stopped. On one machine, the same seed gives the same bytes.

    Args:
        folder: where to write; made if it is absent.
        seed: of the whole collection, at least 0.
        sites: names in `SITES`.
        subjects_per_site: how many, for every site or for each by name; at least 1.
        on_case: told the name of every case once it has been written.

    Raises:
        UserError: a site or a number that cannot be, or a folder that holds another collection.
    """
    counts = _counts(sites, subjects_per_site)
    if seed < 0:
        raise UserError("the seed of the synthetic collection", found=seed, allowed="0 or more")
    _check_folder(folder, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _write_record(folder, seed)
    affine = load_template().affine
    for site, count in counts.items():
        for number in range(1, count + 1):
            case = f"{site}-{number:03d}"
            files = {name: folder / site / case / f"{case}_{name}.nii.gz" for name in _FILES}
            if all(file.is_file() for file in files.values()):
                continue
            subject = make_subject(SITES[site], seed=seed, index=number)
            files["seg"].parent.mkdir(parents=True, exist_ok=True)
            for name, file in files.items():
                volume = subject.labels if name == "seg" else subject.images[name]
                write_whole(file, nifti_bytes(volume, affine, _DESCRIPTION))
            if on_case is not None:
                on_case(case)
    _write_record(folder, seed)


def _counts(sites: Sequence[str], subjects_per_site: Mapping[str, int] | int) -> dict[str, int]:
    """How many subjects each site has."""
    counts = {}
    for site in sites:
        if site not in SITES:
            raise UserError("a site of the synthetic collection", found=site, allowed=sorted(SITES))
        if isinstance(subjects_per_site, int):
            count = subjects_per_site
        else:
            count = subjects_per_site.get(site, 0)
        if count < 1:
            raise UserError(
                f"the number of subjects at the site '{site}' of the synthetic collection",
                found=count,
                allowed="1 or more",
            )
        counts[site] = count
    return counts


def _check_folder(folder: Path, seed: int) -> None:
    """Refuse a folder that another seed or another version of the generator has written to."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file", allowed="a folder", mend="name another folder")
    record = folder / RECORD
    if not record.is_file():
        return
    try:
        found = read_json(record)
        there = {"seed": found["seed"], "generator_version": found["generator_version"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{record} is no record of a synthetic collection",
            mend="name another folder, or delete this one",
        ) from error
    wanted = {"seed": seed, "generator_version": GENERATOR_VERSION}
    if there != wanted:
        raise UserError(
            f"{folder} holds another synthetic collection",
            found=there,
            allowed=wanted,
            mend="name another folder, or delete this one",
        )


def _write_record(folder: Path, seed: int) -> None:
    """Record what the folder is and which cases lie complete in it."""
    subjects = {
        site: sum(
            all((case / f"{case.name}_{name}.nii.gz").is_file() for name in _FILES)
            for case in (folder / site).glob(f"{site}-*")
        )
        for site in SITES
    }
    present = {site: count for site, count in subjects.items() if count}
    record = {
        "synthetic": True,
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "sites": list(present),
        "subjects": present,
        "label_names": {str(label): name for label, name in LABEL_NAMES.items()},
        "notice": _NOTICE + NOTICE_FILE.read_text(encoding="utf-8"),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / RECORD, text.encode())
