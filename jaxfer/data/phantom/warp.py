"""Smooth maps without folds: where in the template each voxel of a subject comes from."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from jaxfer.data.phantom.fields import (
    Shape,
    control_positions,
    control_shape,
    random_field,
    sample,
    spline_field,
)

# On the way to the template no voxel may shrink to less than this share of its volume.
SMALLEST_JACOBIAN = 0.15
# Around a mass, whose own place the mass fills, it may be less.
SMALLEST_BESIDE_MASS = 0.02
_FLOW_SPACING = 2.0
_SQUARINGS = 6
# How far apart the bumps of the random velocity are and how large, in mm: lobes, and gyri.
_BUMPS = ((48, 3.0), (22, 2.0))


def identity(shape: Shape) -> Float32[np.ndarray, "3 x y z"]:
    """Every voxel's own coordinates."""
    return np.indices(shape, dtype=np.float32)


def jacobian(coordinates: Float32[np.ndarray, "3 x y z"]) -> Float32[np.ndarray, "x y z"]:
    """The determinant of the map's derivative by central differences; a fold is where it is ≤ 0."""
    (a, b, c), (d, e, f), (g, h, i) = (np.gradient(axis) for axis in coordinates)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def compose(
    outer: Float32[np.ndarray, "3 x y z"], inner: Float32[np.ndarray, "3 x y z"]
) -> Float32[np.ndarray, "3 x y z"]:
    """The map that goes through `inner` first and then through `outer`."""
    return np.stack([sample(axis, inner) for axis in outer])


def flow(velocity: Float32[np.ndarray, "3 a b c"], shape: Shape) -> Float32[np.ndarray, "3 x y z"]:
    """Where each voxel is after following a velocity for unit time.

    Scaling and squaring (Arsigny et al., MICCAI 2006): the flow for a tiny time, composed with
    itself again and again, so that every step is too small to fold.

    Args:
        velocity: voxels per unit time at `control_positions(shape, 2)`; the flow is followed on
            that grid and interpolated once.
    """
    positions = control_positions(shape, _FLOW_SPACING) / _FLOW_SPACING
    grid = positions - positions[:, :1, :1, :1]
    moved = velocity / (_FLOW_SPACING * 2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        moved = moved + np.stack([sample(axis, grid + moved) for axis in moved])
    return identity(shape) + spline_field(moved * _FLOW_SPACING, shape, _FLOW_SPACING)


def _random_matrix(rng: np.random.Generator) -> Float32[np.ndarray, "3 3"]:
    """Another size and proportion of the head, turned by a few degrees.

    The map leads to the template, whose brain is large: on average the subjects' are smaller.
    """
    tilt = np.deg2rad(rng.normal(0, 2.5, 3)).clip(-0.1, 0.1)
    shear = rng.normal(0, 0.015, 3).clip(-0.04, 0.04)
    scale = rng.uniform(0.99, 1.13) * rng.uniform(0.97, 1.03, 3)
    turn = np.array(
        [
            [0, -tilt[2] + shear[0], tilt[1] + shear[1]],
            [tilt[2], 0, -tilt[0] + shear[2]],
            [-tilt[1], tilt[0], 0],
        ]
    )
    return (np.diag(scale) + turn).astype(np.float32)


def _leaves_grid(
    mask: Float32[np.ndarray, "x y z"], coordinates: Float32[np.ndarray, "3 x y z"]
) -> bool:
    """Whether the warped brain reaches a face of the grid."""
    faces = (np.take(coordinates, [0, -1], axis=axis) for axis in (1, 2, 3))
    return any(sample(mask, face).max() > 0 for face in faces)


def _inwards(region: Float32[np.ndarray, "x y z"], width: float) -> Float32[np.ndarray, "3 a b c"]:
    """A velocity on the flow's grid, into the region from `width` voxels around, at most 1 fast.

    In coordinates that lead to the template, moving inwards makes the region wider.
    """
    slope = np.stack(np.gradient(ndimage.gaussian_filter(region, width)))
    slope /= np.linalg.norm(slope, axis=0).max()
    positions = control_positions(region.shape, _FLOW_SPACING)
    return np.stack([sample(axis, positions) for axis in slope])


def random_warp(
    rng: np.random.Generator,
    ventricles: Float32[np.ndarray, "x y z"],
    mask: Float32[np.ndarray, "x y z"],
    voxel_mm: float,
    widening_mm: float,
) -> Float32[np.ndarray, "3 x y z"]:
    """A subject's anatomy: the template coordinates of every voxel.

    An affine map after the flow along a velocity: a random one, which moves lobes and gyri by some
    millimetres, plus one that widens the ventricles.

    Args:
        ventricles: 1 in the template's ventricles.
        mask: 1 in the template's brain.
        voxel_mm: size of a voxel.
        widening_mm: how far the walls of the ventricles are pushed out, about.
    """
    shape = mask.shape
    coarse = control_shape(shape, _FLOW_SPACING)
    velocity = _inwards(ventricles, 6 / voxel_mm) * np.float32(widening_mm / voxel_mm)
    for bumps_mm, amplitude_mm in _BUMPS:
        spacing = bumps_mm / voxel_mm / _FLOW_SPACING
        bumps = np.stack([random_field(rng, coarse, spacing) for _ in range(3)])
        velocity += bumps * np.float32(amplitude_mm / voxel_mm)

    warp = flow(velocity, shape)
    while jacobian(warp).min() < SMALLEST_JACOBIAN:
        velocity *= np.float32(0.8)
        warp = flow(velocity, shape)
    centre = np.array(ndimage.center_of_mass(mask), np.float32)[:, None, None, None]
    from_centre = np.einsum("ij,jxyz->ixyz", _random_matrix(rng), warp - centre)
    while _leaves_grid(mask, from_centre + centre):
        from_centre *= np.float32(1.03)
    return from_centre + centre


def push_apart(
    coordinates: Float32[np.ndarray, "3 x y z"],
    depth: Float32[np.ndarray, "x y z"],
    centre: tuple[int, int, int],
    radius: float,
    strength: float,
) -> Float32[np.ndarray, "3 x y z"]:
    """The anatomy after a mass has grown at `centre` and pushed the tissue away from it.

    The brain's outline stays, as in a skull: the push fades out towards it.

    Args:
        coordinates: the anatomy before.
        depth: distance to the brain's outline in voxels, 0 outside.
        centre: voxel in which the mass grows.
        radius: of the mass, in voxels.
        strength: 0 for none, below 1; the share by which distances shrink at the centre.
    """
    here = identity(depth.shape)
    from_centre = here - np.array(centre, np.float32)[:, None, None, None]
    fading = np.exp(-np.square(from_centre).sum(axis=0) / (2 * (1.3 * radius) ** 2))
    fading *= 1 - np.exp(-depth / np.float32(4))
    while True:
        push = here - np.float32(strength) * fading * from_centre
        pushed = compose(coordinates, push)
        if jacobian(pushed).min() >= SMALLEST_BESIDE_MASS:
            return pushed
        strength *= 0.8
