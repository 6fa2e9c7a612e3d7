"""The semi-synthetic collection as its generator writes it."""

from __future__ import annotations

from pathlib import Path

from jaxfer.data.phantom import SITES, write_collection
from tests.data.layouts.build import read

PHANTOM = {
    "layout": "phantom",
    "folder": "made",
    "seed": 3,
    "sites": ("clinic", "ageing"),
    "subjects": (1, 2),
}


def test_reads_what_the_generator_writes(tmp_path: Path) -> None:
    write_collection(tmp_path / "made", seed=3, sites=["clinic"], subjects_per_site=1)
    dataset, problems = read(tmp_path, PHANTOM, sites=("clinic",), subjects=(1,))
    assert problems == []
    (case,) = dataset.cases
    assert (case.id, case.subject, case.site) == ("clinic-001", "clinic-001", "clinic")
    files = set((tmp_path / "made" / "clinic" / "clinic-001").iterdir())
    assert {*(i.path for i in case.images.values()), case.label} == files
    assert set(case.images) == {"t1", "t2", "flair"}
    assert dataset.synthetic
    assert dataset.roi("WMH").classes == (("WMH", (4,)),)
    assert dataset.roi("tissue").classes == (("CSF", (1,)), ("GM", (2,)), ("WM", (3, 4)))
    assert dataset.roi("whole_tumour").classes == (("whole_tumour", (5, 6, 7)),)
    assert set(PHANTOM["sites"]) < set(SITES)


def test_takes_the_configured_subjects_of_a_shared_folder(tmp_path: Path) -> None:
    for site, count in (("clinic", 3), ("ageing", 5), ("glioma", 2)):
        for number in range(1, count + 1):
            (tmp_path / "made" / site / f"{site}-{number:03d}").mkdir(parents=True)
    dataset, _ = read(tmp_path, PHANTOM)
    assert [c.id for c in dataset.cases] == ["ageing-001", "ageing-002", "clinic-001"]
