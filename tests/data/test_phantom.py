"""The semi-synthetic collection: the template, the warps, the lesions, the scanners, the files."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from jaxfer.data.phantom import LABEL_NAMES, SITES, generate, write_collection
from jaxfer.data.phantom.contrast import individual
from jaxfer.data.phantom.fields import control_positions, random_field, sample, spline_field
from jaxfer.data.phantom.make_template import CERTAIN, crop, halve
from jaxfer.data.phantom.scanner import scan
from jaxfer.data.phantom.subject import Subject, make_subject
from jaxfer.data.phantom.template import (
    CHANNELS,
    NOTICE_FILE,
    TEMPLATE_FILE,
    VOXEL_MM,
    load_template,
)
from jaxfer.data.phantom.warp import (
    SMALLEST_BESIDE_MASS,
    SMALLEST_JACOBIAN,
    compose,
    flow,
    identity,
    jacobian,
    push_apart,
    random_warp,
)
from jaxfer.errors import UserError

SEED = 5
WMH_SITES = [name for name, site in SITES.items() if site.disease == "wmh"]
TUMOUR_SITES = [name for name, site in SITES.items() if site.disease == "tumour"]


@pytest.fixture(scope="module")
def subjects() -> dict[str, list[Subject]]:
    """Two subjects of the first site of each disease, one of the second."""
    counts = {"ageing": 2, "glioma": 2, "clinic": 1, "hospital": 1}
    return {
        name: [make_subject(site, seed=SEED, index=index + 1) for index in range(counts[name])]
        for name, site in SITES.items()
    }


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    write_collection(
        folder, seed=SEED, sites=["glioma", "clinic"], subjects_per_site={"glioma": 1, "clinic": 2}
    )
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# --- the template -------------------------------------------------------------------------------


def test_the_shipped_template_lies_in_mni_space_and_its_tissues_fill_the_brain():
    image = nib.Nifti1Image.from_filename(TEMPLATE_FILE)
    volumes = dict(zip(CHANNELS, np.moveaxis(np.asarray(image.dataobj), -1, 0), strict=True))
    mask = volumes["mask"] > 0

    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(np.diag(image.affine), [2, 2, 2, 1])
    assert image.get_data_dtype() == np.uint8
    # The symmetric template is its own mirror image only if x = 0 mm is where the affine says.
    middle = -image.affine[0, 3] / VOXEL_MM
    x, y, z = np.nonzero(mask)
    assert mask[(2 * middle - x).astype(int), y, z].all()
    # ICBM 2009c's brain is 1886.5 mL, from −72 to 72, −107 to 73 and −72 to 82 mm.
    assert mask.sum() * VOXEL_MM**3 / 1000 == pytest.approx(1886.5, rel=0.005)
    corners = np.array([(axis.min(), axis.max()) for axis in (x, y, z)]) * VOXEL_MM
    np.testing.assert_allclose(
        corners + image.affine[:3, 3:], [(-72, 72), (-107, 73), (-72, 82)], atol=2
    )
    total = sum(volumes[name].astype(int) for name in ("csf", "gm", "wm"))
    assert (total[mask] == CERTAIN).all()
    assert all((volume[~mask] == 0).all() for volume in volumes.values())


def test_the_template_has_the_contrast_of_t1_and_t2_and_its_ventricles():
    template = load_template()
    csf, gm, wm = template.t1_means
    assert csf < gm < wm
    csf, gm, wm = template.t2_means
    assert csf > gm > wm
    np.testing.assert_allclose(template.tissues.sum(axis=0), 1, atol=1e-5)

    ventricles = template.ventricles > 0
    assert 10 < ventricles.sum() * VOXEL_MM**3 / 1000 < 30
    assert template.tissues[0][ventricles].mean() > 0.7
    assert template.t2[ventricles].mean() > 1.4 * template.t2_means[1]
    centre_mm = template.affine[:3, :3] @ np.argwhere(ventricles).mean(axis=0)
    assert abs(centre_mm[0] + template.affine[0, 3]) < 1


def test_the_authors_notice_is_shipped():
    notice = " ".join(NOTICE_FILE.read_text().split())
    assert notice.startswith(
        "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre"
    )
    assert "provided that the above copyright notice appear in all copies" in notice
    assert 'provided "as is" without express or implied warranty' in notice


def test_crop_pads_with_zeros_where_it_leaves_the_volume():
    volume = np.arange(1.0, 61).reshape(3, 4, 5)
    out = crop(volume, (-1, 1, 3), (3, 5, 4))
    for index in np.ndindex(out.shape):
        there = tuple(i + start for i, start in zip(index, (-1, 1, 3), strict=True))
        inside = all(0 <= i < n for i, n in zip(there, volume.shape, strict=True))
        assert out[index] == (volume[there] if inside else 0)


def test_halving_keeps_a_constant_up_to_the_brains_border_and_removes_what_would_alias():
    mask = np.zeros((24, 24, 24), bool)
    mask[5:20, 4:19, 6:21] = True
    inside = mask[::2, ::2, ::2]
    constant = halve(np.where(mask, 7.0, 0.0), mask)
    np.testing.assert_allclose(constant[inside], 7)
    stripes = np.where(np.arange(24) % 2 == 0, 1.0, -1.0)[:, None, None] * np.ones((24, 24, 24))
    assert np.abs(halve(stripes, np.ones_like(mask)))[2:-2, 2:-2, 2:-2].max() < 0.1


# --- fields and warps ---------------------------------------------------------------------------


@given(spacing=st.floats(1.5, 9), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_splines_reproduce_a_plane(spacing: float, seed: int):
    shape = (9, 14, 11)
    slope = np.random.default_rng(seed).normal(size=3).astype(np.float32)
    control = np.tensordot(slope, control_positions(shape, spacing), axes=1)
    plane = np.tensordot(slope, identity(shape), axes=1)
    np.testing.assert_allclose(spline_field(control, shape, spacing), plane, atol=2e-4)


def test_a_random_field_is_standardised_and_as_smooth_as_asked():
    fields = {d: random_field(np.random.default_rng(0), (30, 34, 32), d) for d in (3.0, 10.0)}
    for field in fields.values():
        assert field.mean() == pytest.approx(0, abs=1e-4)
        assert field.std() == pytest.approx(1, abs=1e-4)
    rough, smooth = (np.diff(field, axis=0).std() for field in fields.values())
    assert smooth < 0.5 * rough


def test_the_jacobian_of_an_affine_map_is_its_determinant():
    matrix = np.array([[1.1, 0.2, 0], [-0.1, 0.9, 0.3], [0, 0.1, 1.2]], np.float32)
    warp = np.einsum("ij,jxyz->ixyz", matrix, identity((6, 7, 8)))
    np.testing.assert_allclose(jacobian(warp), np.linalg.det(matrix), rtol=1e-4)


def test_the_flow_along_a_constant_velocity_is_a_translation():
    shape = (10, 12, 8)
    velocity = np.ones_like(control_positions(shape, 2.0)) * np.float32(
        [[[[1.5]]], [[[-2]]], [[[0]]]]
    )
    moved = flow(velocity, shape) - identity(shape)
    np.testing.assert_allclose(moved, np.broadcast_to([[[[1.5]]], [[[-2]]], [[[0]]]], moved.shape))


def test_the_flow_back_undoes_the_flow():
    shape = (32, 32, 32)
    rng = np.random.default_rng(1)
    coarse = control_positions(shape, 2.0).shape[1:]
    velocity = 2 * np.stack([random_field(rng, coarse, 6.0) for _ in range(3)])
    there = flow(velocity, shape)
    back = compose(there, flow(-velocity, shape))
    far = np.abs(there - identity(shape)).max()
    inner = (slice(None), *(slice(8, -8),) * 3)
    assert far > 3
    assert np.abs(back - identity(shape))[inner].max() < 0.2


@pytest.mark.parametrize("widening_mm", [0.0, 4.0, 40.0])
def test_a_random_warp_never_folds_and_keeps_the_brain_in_the_grid(widening_mm: float):
    template = load_template()
    rng = np.random.default_rng(0)
    warp = random_warp(rng, template.ventricles, template.mask, VOXEL_MM, widening_mm)
    assert jacobian(warp).min() > 0.8 * SMALLEST_JACOBIAN
    brain = sample(template.mask, warp) > 0.5
    assert brain[1:-1, 1:-1, 1:-1].sum() == brain.sum()
    assert 900 < brain.sum() * VOXEL_MM**3 / 1000 < 2300


def test_a_brain_that_would_leave_the_grid_is_made_smaller():
    mask = np.zeros((40, 44, 40), np.float32)
    mask[1:-1, 1:-1, 1:-1] = 1
    ventricles = np.zeros_like(mask)
    ventricles[18:22, 18:26, 18:22] = 1
    warp = random_warp(np.random.default_rng(0), ventricles, mask, VOXEL_MM, 1.0)
    brain = sample(mask, warp) > 0
    assert brain[1:-1, 1:-1, 1:-1].sum() == brain.sum() > 0.3 * mask.sum()


def test_widening_enlarges_the_ventricles():
    template = load_template()

    def share(widening_mm: float) -> float:
        rng = np.random.default_rng(3)
        warp = random_warp(rng, template.ventricles, template.mask, VOXEL_MM, widening_mm)
        return sample(template.ventricles, warp).sum() / sample(template.mask, warp).sum()

    assert share(4.0) > 1.3 * share(0.0)


@pytest.mark.parametrize("strength", [0.3, 0.65, 0.99])
def test_a_growing_mass_pushes_tissue_outwards_without_folds_and_spares_the_outline(strength):
    shape = (40, 40, 40)
    here = identity(shape)
    radius = np.sqrt(np.square(here - 19.5).sum(axis=0))
    depth = np.clip(17 - radius, 0, None)
    centre = (14, 22, 19)
    pushed = push_apart(here, depth, centre, 6.0, strength)
    middle = np.array(centre, np.float32)[:, None, None, None]
    before = np.linalg.norm(here - middle, axis=0)
    came_from = np.linalg.norm(pushed - middle, axis=0)

    assert jacobian(pushed).min() >= SMALLEST_BESIDE_MASS
    np.testing.assert_allclose(pushed[:, depth == 0], here[:, depth == 0], atol=1e-4)
    np.testing.assert_allclose(pushed[:, 14, 22, 19], centre, atol=1e-4)
    assert (came_from <= before + 1e-4).all()
    assert (before - came_from).max() > 0.5


# --- subjects -----------------------------------------------------------------------------------


def test_the_individual_tissues_are_probabilities_and_atrophy_adds_fluid():
    template = load_template()
    average = template.tissues * template.mask
    young, old = (individual(np.random.default_rng(0), average, atrophy) for atrophy in (0.0, 1.0))
    inside = template.mask > 0
    np.testing.assert_allclose(young.sum(axis=0)[inside], 1, atol=1e-5)
    assert (young[:, ~inside] == 0).all()
    assert old[0].sum() > 1.2 * young[0].sum()
    assert np.max(young, axis=0)[inside].mean() > np.max(average, axis=0)[inside].mean()


@pytest.mark.parametrize("site", SITES)
def test_every_subject_is_skull_stripped_and_has_its_sites_labels(subjects, site):
    expected = {"wmh": {0, 1, 2, 3, 4}, "tumour": {0, 1, 2, 3, 5, 6, 7}}[SITES[site].disease]
    for subject in subjects[site]:
        assert set(np.unique(subject.labels)) == expected <= set(LABEL_NAMES)
        brain = subject.labels > 0
        assert set(subject.images) == {"t1", "t2", "flair"}
        for image in subject.images.values():
            assert (image[~brain] == 0).all()
            assert (image[brain] > 0).all()
        assert jacobian(subject.coordinates).min() > 0
        shares = np.bincount(subject.labels[brain], minlength=8) / brain.sum()
        assert 0.05 < shares[1] < 0.2
        assert 0.4 < shares[2] < 0.65
        assert 0.2 < shares[3] < 0.4


def test_subjects_differ_in_anatomy_lesions_and_noise(subjects):
    for one, two in (subjects["ageing"], subjects["glioma"]):
        assert (one.healthy_labels != two.healthy_labels).mean() > 0.02
        lesions = one.labels > 3, two.labels > 3
        assert lesions[0].sum() != lesions[1].sum()
        assert not np.array_equal(one.images["t1"], two.images["t1"])


def test_a_subject_depends_on_seed_site_and_number_alone(subjects):
    first = subjects["ageing"][0]
    again = make_subject(SITES["ageing"], seed=SEED, index=1)
    for name, image in first.images.items():
        np.testing.assert_array_equal(image, again.images[name])
    np.testing.assert_array_equal(first.labels, again.labels)
    other_seed = make_subject(SITES["ageing"], seed=SEED + 1, index=1)
    for other in (other_seed, subjects["ageing"][1], subjects["clinic"][0]):
        assert np.abs(first.coordinates - other.coordinates).max() > 1


def test_contrast_follows_the_tissue_at_the_clean_site(subjects):
    for subject in subjects["ageing"]:
        means = {
            name: [image[subject.labels == label].mean() for label in (1, 2, 3, 4)]
            for name, image in subject.images.items()
        }
        csf, gm, wm, wmh = means["flair"]
        assert csf < wm < gm < wmh
        assert wmh > 1.2 * gm
        csf, gm, wm, wmh = means["t1"]
        assert csf < gm < wm
        assert csf < wmh < 0.95 * wm
        csf, gm, wm, wmh = means["t2"]
        assert wm < gm < csf
        assert gm < wmh < csf


def test_contrast_follows_the_tumour(subjects):
    for subject in subjects["glioma"]:
        means = {
            name: [np.median(image[subject.labels == label]) for label in (1, 2, 3, 5, 6, 7)]
            for name, image in subject.images.items()
        }
        csf, gm, wm, necrosis, oedema, enhancing = means["flair"]
        assert csf < necrosis < gm < enhancing < oedema
        csf, gm, wm, necrosis, oedema, enhancing = means["t1"]
        assert csf < necrosis < oedema < wm
        assert necrosis < enhancing < wm
        csf, gm, wm, necrosis, oedema, enhancing = means["t2"]
        assert wm < gm < oedema < necrosis
        assert gm < enhancing < necrosis


@pytest.mark.parametrize("site", WMH_SITES)
def test_hyperintensities_lie_in_white_matter_near_the_ventricles_and_deeper(subjects, site):
    template = load_template()
    for subject in subjects[site]:
        lesions = subject.labels == 4
        assert (subject.healthy_labels[lesions] == 3).all()
        assert (subject.labels == subject.healthy_labels)[~lesions].all()
        assert 0.0019 < lesions.sum() / (subject.labels > 0).sum() < 0.0301
        ventricles = sample(template.ventricles, subject.coordinates) > 0.5
        away_mm = ndimage.distance_transform_edt(~ventricles) * VOXEL_MM
        assert 0.3 < (away_mm[lesions] < 8).mean() < 0.95
        white = away_mm[subject.healthy_labels == 3]
        assert np.median(away_mm[lesions]) < 0.5 * np.median(white)


def test_the_load_of_hyperintensities_varies_strongly(subjects):
    loads = [(subject.labels == 4).sum() for site in WMH_SITES for subject in subjects[site]]
    assert max(loads) > 2 * min(loads)


@pytest.mark.parametrize("site", TUMOUR_SITES)
def test_a_tumour_is_one_mass_of_nested_parts(subjects, site):
    for subject in subjects[site]:
        necrosis, oedema, enhancing = (subject.labels == label for label in (5, 6, 7))
        core = necrosis | enhancing
        for part in (necrosis, core, core | oedema):
            assert ndimage.label(part)[1] == 1
        assert core[ndimage.binary_dilation(necrosis)].all()
        assert (ndimage.binary_dilation(enhancing) & oedema).any()
        assert (subject.healthy_labels > 0)[core | oedema].all()
        assert 1 < core.sum() * VOXEL_MM**3 / 1000 < 90
        assert (subject.labels == subject.healthy_labels)[~(core | oedema)].all()


@pytest.mark.parametrize("site", TUMOUR_SITES)
def test_oedema_prefers_white_matter(subjects, site):
    for subject in subjects[site]:
        core = np.isin(subject.labels, (5, 7))
        near = ndimage.distance_transform_edt(~core) * VOXEL_MM < 12
        grey, white = (
            (subject.labels == 6)[near & ~core & (subject.healthy_labels == tissue)].mean()
            for tissue in (2, 3)
        )
        assert white > 1.3 * grey


# --- scanners -----------------------------------------------------------------------------------


@pytest.fixture
def plain():
    """A scanner that does nothing to the image but noise."""
    return dataclasses.replace(
        SITES["ageing"], gamma=1.0, slice_mm=0.0, bias=0.0, noise=0.04, units=10000.0
    )


def test_noise_is_rician_and_as_strong_as_the_site_says(plain):
    mask = np.ones((24, 24, 24), bool)
    bright = scan(np.random.default_rng(0), np.full(mask.shape, 87, np.float32), mask, plain)
    dark = scan(np.random.default_rng(0), np.zeros(mask.shape, np.float32), mask, plain)
    share = bright.std() / bright.mean()
    assert 0.8 * 0.04 * 0.97 < share < 1.2 * 0.04 * 1.03
    # Without signal, the magnitude of complex noise has a Rayleigh distribution.
    assert dark.mean() == pytest.approx(np.sqrt(np.pi / 2) * bright.std(), rel=0.03)


def test_thick_slices_blur_along_z_alone_and_not_into_the_background(plain):
    quiet = dataclasses.replace(plain, noise=0.0)
    thick = dataclasses.replace(quiet, slice_mm=6.0)
    mask = np.zeros((20, 20, 20), bool)
    mask[4:16, 4:16, 4:16] = True
    image = np.full(mask.shape, 50, np.float32)
    flat = scan(np.random.default_rng(0), image, mask, thick)
    assert np.ptp(flat[mask]) <= 2
    for axis, blurred in ((0, False), (1, False), (2, True)):
        stripes = np.moveaxis(image + 20 * (-1) ** np.indices(mask.shape)[0], 0, axis)
        stripes = stripes.astype(np.float32)
        sharp, soft = (
            scan(np.random.default_rng(0), stripes, mask, s)[mask].std() for s in (quiet, thick)
        )
        assert soft < 0.2 * sharp if blurred else soft == pytest.approx(sharp, rel=0.01)


def test_gamma_and_bias_change_the_image_as_the_site_says(plain):
    quiet = dataclasses.replace(plain, noise=0.0)
    mask = np.ones((30, 30, 30), bool)
    image = np.full(mask.shape, 87, np.float32)
    image[:15] /= 2
    ratios = {}
    for gamma in (0.8, 1.35):
        site = dataclasses.replace(quiet, gamma=gamma)
        scanned = scan(np.random.default_rng(2), image, mask, site)
        ratios[gamma] = np.log2(scanned[20].mean() / scanned[5].mean())
    assert ratios[1.35] / ratios[0.8] == pytest.approx(1.35 / 0.8, rel=1e-3)

    uneven = dataclasses.replace(quiet, bias=0.12)
    field = np.log(scan(np.random.default_rng(2), np.full_like(image, 87), mask, uneven))
    assert field.std() == pytest.approx(0.12, rel=0.01)
    assert np.abs(np.diff(field, axis=0)).max() < 0.1


def test_the_older_scanners_are_noisier(subjects):
    def roughness(subject: Subject) -> float:
        deep = ndimage.binary_erosion(subject.labels == 3, iterations=2)
        image = subject.images["t1"].astype(float)
        steps = np.diff(image, axis=0)[deep[:-1] & deep[1:]]
        return steps.std() / image[deep].mean()

    rough = {name: np.mean([roughness(s) for s in of_site]) for name, of_site in subjects.items()}
    assert rough["ageing"] < rough["glioma"] < min(rough["clinic"], rough["hospital"])


# --- the collection on disk ---------------------------------------------------------------------


def test_the_files_hold_the_subject_on_the_templates_grid(collection):
    subject = make_subject(SITES["clinic"], seed=SEED, index=2)
    folder = collection / "clinic" / "clinic-002"
    volumes = {**subject.images, "seg": subject.labels}
    assert {file.name for file in folder.iterdir()} == {
        f"clinic-002_{name}.nii.gz" for name in volumes
    }
    for name, volume in volumes.items():
        image = nib.Nifti1Image.from_filename(folder / f"clinic-002_{name}.nii.gz")
        assert image.get_data_dtype() == (np.uint8 if name == "seg" else np.int16)
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        np.testing.assert_array_equal(image.affine, load_template().affine)
        np.testing.assert_array_equal(image.get_qform(), image.get_sform())
        assert image.header.get_xyzt_units()[0] == "mm"
        assert b"synthetic" in bytes(image.header["descrip"])


def test_the_record_says_that_the_collection_is_synthetic_and_where_it_comes_from(collection):
    record = json.loads((collection / "collection.json").read_text())
    notice = record.pop("notice")
    assert record == {
        "synthetic": True,
        "generator_version": generate.GENERATOR_VERSION,
        "seed": SEED,
        "sites": ["glioma", "clinic"],
        "subjects": {"glioma": 1, "clinic": 2},
        "label_names": {
            "0": "background",
            "1": "CSF",
            "2": "GM",
            "3": "WM",
            "4": "WMH",
            "5": "necrosis",
            "6": "oedema",
            "7": "enhancing",
        },
    }
    assert "MNI ICBM152 2009" in notice
    assert "Fonov" in notice
    assert NOTICE_FILE.read_text() in notice


def test_an_interrupted_collection_goes_on_and_ends_in_the_same_bytes(
    collection, tmp_path, monkeypatch
):
    """Stopped between two cases, then in the middle of one, then left to finish; then grown."""
    written: list[str] = []
    replace = os.replace

    def stop(case: str) -> None:
        written.append(case)
        raise KeyboardInterrupt

    def full_disk(source, target):
        if Path(target).name == "clinic-001_flair.nii.gz":
            raise OSError("no space left on device")
        replace(source, target)

    def write(on_case, clinic: int) -> None:
        counts = {"glioma": 1, "clinic": clinic}
        write_collection(
            tmp_path, seed=SEED, sites=tuple(counts), subjects_per_site=counts, on_case=on_case
        )

    with pytest.raises(KeyboardInterrupt):
        write(stop, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="no space"):
            write(written.append, 1)
    assert not (tmp_path / "clinic" / "clinic-001" / "clinic-001_flair.nii.gz").exists()
    assert json.loads((tmp_path / "collection.json").read_text())["subjects"] == {"glioma": 1}
    write(written.append, 1)
    write(written.append, 2)
    assert written == ["glioma-001", "clinic-001", "clinic-002"]
    assert contents(tmp_path) == contents(collection)

    write(written.append, 2)
    assert written == ["glioma-001", "clinic-001", "clinic-002"]


def test_the_files_hold_no_date(collection):
    file = collection / "clinic" / "clinic-001" / "clinic-001_seg.nii.gz"
    header = file.read_bytes()[:10]
    assert header[3] == 0, "no name"
    assert header[4:8] == b"\0\0\0\0", "no date"
    assert gzip.decompress(file.read_bytes())[344:348] == b"n+1\0"


@pytest.mark.parametrize(
    ("seed", "sites", "counts", "says"),
    [
        (0, ["nowhere"], 1, "nowhere"),
        (0, ["ageing"], 0, "ageing"),
        (0, ["ageing", "clinic"], {"ageing": 1}, "clinic"),
        (-1, ["ageing"], 1, "seed"),
    ],
)
def test_a_collection_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path, seed, sites, counts, says
):
    folder = tmp_path / "new"
    with pytest.raises(UserError, match=says):
        write_collection(folder, seed=seed, sites=sites, subjects_per_site=counts)
    assert not folder.exists()


def test_a_folder_of_another_collection_is_left_alone(collection):
    before = contents(collection)
    with pytest.raises(UserError, match="another synthetic collection") as caught:
        write_collection(collection, seed=SEED + 1, sites=["ageing"], subjects_per_site=1)
    assert str(SEED) in str(caught.value)
    assert str(SEED + 1) in str(caught.value)
    assert contents(collection) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": 1}'])
def test_a_record_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "collection.json").write_text(text)
    with pytest.raises(UserError, match="no record of a synthetic collection"):
        write_collection(tmp_path, seed=0, sites=["ageing"], subjects_per_site=1)


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match="is a file"):
        write_collection(file, seed=0, sites=["ageing"], subjects_per_site=1)
