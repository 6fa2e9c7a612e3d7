"""One subject, from nothing but the collection's seed, the site and a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8
from scipy import ndimage

from jaxfer.data.phantom import lesions
from jaxfer.data.phantom.contrast import diseased, healthy, individual
from jaxfer.data.phantom.fields import sample
from jaxfer.data.phantom.labels import CSF, ENHANCING, NECROSIS, OEDEMA, WM, WMH
from jaxfer.data.phantom.scanner import scan
from jaxfer.data.phantom.sites import Site
from jaxfer.data.phantom.template import VOXEL_MM, Template, load_template
from jaxfer.data.phantom.warp import push_apart, random_warp

# Lesions are placed in the hemispheres: above this height and this far from the midline, in MNI mm.
_LOWEST_MM = -18
_MIDLINE_MM = 8
# Hyperintensities take up this share of the brain, every order of magnitude as likely as the next.
_WMH_LOAD = (0.002, 0.03)
_TUMOUR_RADIUS_MM = (10, 20)
_OEDEMA_REACH_MM = (8, 20)
_WIDEST_MM = 4.0


@dataclass(frozen=True)
class Subject:
    """A synthetic subject.

    Attributes:
        images: by modality, 0 outside the brain.
        labels: see `LABEL_NAMES`.
        healthy_labels: what the labels would be without the disease: 0 to 3.
        coordinates: the voxel of the template that each voxel comes from.
    """

    images: dict[str, Int16[np.ndarray, "x y z"]]
    labels: UInt8[np.ndarray, "x y z"]
    healthy_labels: UInt8[np.ndarray, "x y z"]
    coordinates: Float32[np.ndarray, "3 x y z"]


def make_subject(site: Site, *, seed: int, index: int) -> Subject:
    """The subject `index` of a site; other subjects and other sites have no say in it.

    Args:
        seed: the collection's, at least 0.
        index: which of the site's subjects, at least 0.
    """
    template = load_template()
    body, disease, camera = np.random.default_rng([seed, index, *site.name.encode()]).spawn(3)

    atrophy = body.uniform(*site.atrophy)
    coordinates = random_warp(
        body, template.ventricles, template.mask, VOXEL_MM, _WIDEST_MM * atrophy
    )
    mask = sample(template.mask, coordinates) > 0.5
    if site.disease == "tumour":
        centre, radius_mm, coordinates = _displaced(disease, template, coordinates, mask)

    average = np.stack([_inside(mask, tissue, coordinates) for tissue in template.tissues])
    tissues = individual(body, average, atrophy)
    t1, t2 = (_inside(mask, volume, coordinates, order=3) for volume in (template.t1, template.t2))
    ventricles = _inside(mask, template.ventricles, coordinates) > 0.5
    healthy_labels = np.where(mask, CSF + tissues.argmax(axis=0), 0).astype(np.uint8)

    labels = healthy_labels.copy()
    if site.disease == "tumour":
        core, necrosis = lesions.tumour_core(disease, mask, ventricles, centre, radius_mm)
        swollen = lesions.oedema(disease, tissues, core, disease.uniform(*_OEDEMA_REACH_MM))
        labels[swollen] = OEDEMA
        labels[core] = ENHANCING
        labels[necrosis] = NECROSIS
    else:
        load = np.exp(disease.uniform(*np.log(_WMH_LOAD)))
        eligible = (healthy_labels == WM) & _hemispheres(template, coordinates)
        count = int(load * mask.sum())
        labels[lesions.white_matter_lesions(disease, eligible, ventricles, count)] = WMH

    images = healthy(body, t1, t2, average, tissues, template.t1_means, template.t2_means)
    images = diseased(disease, images, labels)
    scans = {name: scan(camera, image, mask, site) for name, image in images.items()}
    return Subject(scans, labels, healthy_labels, coordinates)


def _displaced(
    rng: np.random.Generator,
    template: Template,
    coordinates: Float32[np.ndarray, "3 x y z"],
    mask: Bool[np.ndarray, "x y z"],
) -> tuple[tuple[int, int, int], float, Float32[np.ndarray, "3 x y z"]]:
    """Where a tumour grows, its radius in mm, and the anatomy that it has pushed aside."""
    radius_mm = rng.uniform(*_TUMOUR_RADIUS_MM)
    depth = ndimage.distance_transform_edt(mask).astype(np.float32)
    white = _inside(mask, template.tissues[2], coordinates) > 0.5
    ventricles = _inside(mask, template.ventricles, coordinates) > 0.5
    centre = lesions.tumour_centre(
        rng,
        white & _hemispheres(template, coordinates),
        depth * np.float32(VOXEL_MM),
        ventricles,
        radius_mm,
    )
    strength = rng.uniform(0.3, 0.6)
    pushed = push_apart(coordinates, depth, centre, radius_mm / VOXEL_MM, strength)
    return centre, radius_mm, pushed


def _hemispheres(
    template: Template, coordinates: Float32[np.ndarray, "3 x y z"]
) -> Bool[np.ndarray, "x y z"]:
    """The white matter of the cerebrum, without brain stem and corpus callosum, by place."""
    x_mm, _, z_mm = template.affine[:3, 3]
    lateral = np.abs(coordinates[0] * VOXEL_MM + x_mm) > _MIDLINE_MM
    return lateral & (coordinates[2] * VOXEL_MM + z_mm > _LOWEST_MM)


def _inside(
    mask: Bool[np.ndarray, "x y z"],
    volume: Float32[np.ndarray, "a b c"],
    coordinates: Float32[np.ndarray, "3 x y z"],
    *,
    order: int = 1,
) -> Float32[np.ndarray, "x y z"]:
    """The volume at the coordinates by splines of the order, in the brain; 0 outside."""
    out = np.zeros(mask.shape, np.float32)
    out[mask] = ndimage.map_coordinates(volume, coordinates[:, mask], order=order, mode="nearest")
    return out
