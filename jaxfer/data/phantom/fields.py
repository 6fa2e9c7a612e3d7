"""Smooth fields on a voxel grid, drawn from a coarse grid of control points."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

Shape = tuple[int, int, int]


def control_shape(shape: Shape, spacing: float) -> Shape:
    """How many control points, `spacing` voxels apart, `spline_field` needs for a grid."""
    a, b, c = (int(np.ceil((n - 1) / spacing)) + 3 for n in shape)
    return a, b, c


def control_positions(shape: Shape, spacing: float) -> Float32[np.ndarray, "3 a b c"]:
    """Where the control points lie, in voxels: the first one lies `spacing` before voxel 0."""
    axes = [(np.arange(n) - 1) * spacing for n in control_shape(shape, spacing)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _weights(n: int, spacing: float) -> Float32[np.ndarray, "n m"]:
    """The weight of every control point in every voxel: cubic B-splines, rows summing to 1."""
    positions = np.arange(n)[:, None] / spacing
    controls = np.arange(int(np.ceil((n - 1) / spacing)) + 3)[None, :] - 1
    t = np.abs(positions - controls)
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, near, far).astype(np.float32)


def spline_field(
    control: Float32[np.ndarray, "*channels a b c"], shape: Shape, spacing: float
) -> Float32[np.ndarray, "*channels x y z"]:
    """The cubic B-spline surface over control points that are `spacing` voxels apart."""
    wx, wy, wz = (_weights(n, spacing) for n in shape)
    field = control @ wz.T
    field = wy @ field
    return np.einsum("xa,...abc->...xbc", wx, field, optimize=True)


def random_field(
    rng: np.random.Generator, shape: Shape, spacing: float
) -> Float32[np.ndarray, "x y z"]:
    """A smooth Gaussian field whose bumps are about `spacing` voxels apart; mean 0, variance 1."""
    control = rng.standard_normal(control_shape(shape, spacing), dtype=np.float32)
    field = spline_field(control, shape, spacing)
    return (field - field.mean()) / field.std()


def sample(
    volume: Float32[np.ndarray, "a b c"], coordinates: Float32[np.ndarray, "3 ..."]
) -> Float32[np.ndarray, "*points"]:
    """The volume at coordinates in voxels, by linear interpolation; beyond it, its edge's value."""
    return ndimage.map_coordinates(volume, coordinates, order=1, mode="nearest")
