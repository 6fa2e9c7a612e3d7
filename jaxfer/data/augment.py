"""Augmentation on the device: the same warp for image, label and risk map, in 2-D and in 3-D."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxfer.tasks import IGNORE

KNOTS = 32
"""Pixels between the control points of an elastic warp: the size of a lobe, not of a gyrus."""


@dataclass(frozen=True)
class Augmentation:
    """How far a patch may be changed, and how often; as it stands, nothing is.

    Every strength is the most that is drawn, uniformly from its range; every probability is the
    share of the patches that are changed at all. What cannot happen is not compiled in.

    Attributes:
        flip: axes of the patch, each mirrored with ``flip_probability``.
        rotation: degrees, in the plane; in 3-D about each of the three axes.
        scale: relative, the same along every axis.
        elastic: pixels that a smooth random field moves a point along each axis; the strength of a
            field is drawn, then its shape. Under ``KNOTS`` / 4.5 the warp never folds.
        blur: standard deviation of a Gaussian, in pixels.
        low_resolution: how much longer the side of a voxel becomes, relative: at 1 twice as long.
        gamma: exponents from 1 / (1 + gamma) to 1 + gamma, on the range of the patch.
        intensity: contrast and brightness: relative gain, and offset in units of the image, whose
            variance is 1.
        noise: standard deviation of Gaussian noise.
        spacing: sides of a voxel in any unit, so that a rotation turns and does not shear; ()
            where they are equal.
    """

    flip: tuple[int, ...] = ()
    rotation: float = 0.0
    scale: float = 0.0
    elastic: float = 0.0
    blur: float = 0.0
    low_resolution: float = 0.0
    gamma: float = 0.0
    intensity: float = 0.0
    noise: float = 0.0
    flip_probability: float = 0.5
    rotation_probability: float = 1.0
    scale_probability: float = 1.0
    elastic_probability: float = 1.0
    blur_probability: float = 1.0
    low_resolution_probability: float = 1.0
    gamma_probability: float = 1.0
    intensity_probability: float = 1.0
    noise_probability: float = 1.0
    spacing: tuple[float, ...] = ()

    def has(self, *names: str) -> bool:
        """Whether any of these changes can happen."""
        return any(getattr(self, n) and getattr(self, f"{n}_probability") for n in names)


CHANGES = (
    *("flip", "rotation", "scale", "elastic", "blur", "low_resolution"),
    *("gamma", "intensity", "noise"),
)


@dataclass(frozen=True)
class _Drawn:
    """The few random numbers of a patch, drawn at once: compiling many small draws is slow.

    Attributes:
        table: uniform in [0, 1): for each change whether it happens, then up to three amounts.
    """

    how: Augmentation
    table: Float[Array, "changes 4"]

    @classmethod
    def of(cls, how: Augmentation, key: Key[Array, ""]) -> _Drawn:
        return cls(how, jax.random.uniform(key, (len(CHANGES), 4)))

    def happens(self, name: str, column: int = 0) -> Bool[Array, ""]:
        chance = self.table[CHANGES.index(name), column]
        return chance < getattr(self.how, f"{name}_probability")

    def amount(self, name: str, column: int = 1) -> Float[Array, ""]:
        """Uniform in [0, 1), times the most; 0 where it does not happen."""
        drawn = getattr(self.how, name) * self.table[CHANGES.index(name), column]
        return jnp.where(self.happens(name), drawn, 0.0)

    def either_way(self, name: str, column: int = 1) -> Float[Array, ""]:
        """Uniform in [−1, 1), times the most; 0 where it does not happen."""
        return 2.0 * self.amount(name, column) - jnp.where(
            self.happens(name), getattr(self.how, name), 0.0
        )


def _mirrored(drawn: _Drawn, values: Shaped[Array, "*n"]) -> Shaped[Array, "*n"]:
    for axis in drawn.how.flip:
        mirror = drawn.happens("flip", axis)
        values = jnp.where(mirror, jnp.flip(values, axis), values)
    return values


def _spline_basis(size: int) -> Float[np.ndarray, "n k"]:
    """Cubic B-splines of the control points, at every pixel of an axis; rows sum to 1."""
    cell, t = np.divmod(np.arange(size) / KNOTS, 1.0)
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    basis = np.zeros((size, int(cell[-1]) + 4), np.float32)
    for offset, weight in enumerate(weights):
        basis[np.arange(size), cell.astype(int) + offset] = weight / 6
    return basis


def _along(
    matrix: Float[Array, "m n"] | Float[np.ndarray, "m n"], values: Float[Array, "*n"], axis: int
) -> Float[Array, "*k"]:
    """A linear map of one axis. In full precision: a patch that is left as it is keeps its bits."""
    product = jnp.tensordot(matrix, values, (1, axis), precision="highest")
    return jnp.moveaxis(product, 0, axis)


def _turned(drawn: _Drawn, dimensions: int) -> Float[Array, "d d"]:
    """The matrix from the warped patch's coordinates to those of the patch, about the centre."""
    matrix = jnp.eye(dimensions)
    for column, (i, j) in enumerate(combinations(range(dimensions), 2), start=1):
        angle = jnp.deg2rad(drawn.either_way("rotation", column))
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        one = jnp.eye(dimensions).at[i, i].set(cos).at[j, j].set(cos)
        one = one.at[i, j].set(-sin).at[j, i].set(sin)
        matrix = jnp.matmul(matrix, one, precision="highest")
    sides = np.asarray(drawn.how.spacing or (1.0,) * dimensions, np.float32)
    return matrix * (sides[None, :] / sides[:, None]) / (1.0 + drawn.either_way("scale"))


def _coordinates(
    drawn: _Drawn, bend: Key[Array, ""], shape: tuple[int, ...]
) -> list[Float[Array, "*n"]]:
    """Where, along each axis, each pixel of the warped patch comes from."""
    dimensions = len(shape)
    centres = [(n - 1) / 2 for n in shape]
    # Counted on the device: as constants, grids of this size would be worked on by the compiler.
    grid = [
        jax.lax.broadcasted_iota(jnp.float32, shape, axis) - centre
        for axis, centre in enumerate(centres)
    ]
    if drawn.how.has("elastic"):
        bases = [_spline_basis(n) for n in shape]
        knots = (dimensions, *(b.shape[1] for b in bases))
        field = drawn.amount("elastic") * jax.random.uniform(bend, knots, minval=-1.0)
        for axis, basis in enumerate(bases):
            field = _along(basis, field, axis + 1)
        grid = [g + f for g, f in zip(grid, field, strict=True)]
    matrix = _turned(drawn, dimensions)
    return [
        sum((matrix[i, j] * grid[j] for j in range(1, dimensions)), matrix[i, 0] * grid[0]) + c
        for i, c in enumerate(centres)
    ]


def _warped(
    where: list[Float[Array, "*n"]],
    image: Float[Array, "*n"],
    label: Int[Array, "*n"],
    risk: Float[Array, "*n"],
) -> tuple[Float[Array, "*n"], Int[Array, "*n"], Float[Array, "*n"]]:
    """Image and risk by linear interpolation, labels by the nearest pixel.

    The three share one set of indices into arrays with a border of what lies outside, so that no
    corner has to be tested for being inside.
    """
    shape = label.shape
    strides = [int(np.prod([n + 2 for n in shape[axis + 1 :]])) for axis in range(len(shape))]
    first, nearest = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32)
    shares = []
    for position, size, stride in zip(where, shape, strides, strict=True):
        position = jnp.clip(position + 1.0, 0.0, size + 1.0)
        floor = jnp.minimum(jnp.floor(position), size)
        share = position - floor
        first = first + stride * floor.astype(jnp.int32)
        nearest = nearest + jnp.where(share > 0.5, stride, 0)
        shares.append(share)

    def bordered(values: Shaped[Array, "*n"], outside: int | float) -> Shaped[Array, " m"]:
        return jnp.pad(values, 1, constant_values=outside).reshape(-1)

    def at(values: Shaped[Array, " m"], index: Int[Array, "*n"]) -> Shaped[Array, "*n"]:
        return values.at[index].get(mode="promise_in_bounds")

    def linear(values: Shaped[Array, " m"]) -> Float[Array, "*n"]:
        corners = [first]
        for stride in strides:
            corners = [c + step for c in corners for step in (0, stride)]
        found = [at(values, corner) for corner in corners]
        for share in reversed(shares):
            pairs = zip(found[::2], found[1::2], strict=True)
            # Rounding must not lead out of the range of the values.
            found = [
                jnp.clip(a + share * (b - a), jnp.minimum(a, b), jnp.maximum(a, b))
                for a, b in pairs
            ]
        return found[0]

    labels = at(bordered(label, IGNORE), first + nearest)
    return linear(bordered(image, 0.0)), labels, linear(bordered(risk, 1.0))


def _blur_matrix(size: int, deviation: Float[Array, ""]) -> Float[Array, "n n"]:
    """Gaussian blur of an axis; at the ends, the mean over what there is."""
    apart = np.subtract.outer(np.arange(size), np.arange(size)).astype(np.float32)
    weights = jnp.exp(-0.5 * jnp.square(apart / jnp.maximum(deviation, 1e-3)))
    return weights / weights.sum(1, keepdims=True)


def _low_resolution_matrix(size: int, factor: Float[Array, ""]) -> Float[Array, "n n"]:
    """An axis averaged in ``factor`` times longer voxels, and interpolated linearly between them.

    A scanner's thick voxel is the mean over its extent; picking single values, as is common, would
    keep the noise of thin ones.
    """
    number = jnp.clip(jnp.round(size / factor), 1.0, size)
    side = size / number
    index = np.arange(size, dtype=np.float32)
    low, high = index[:, None] * side, (index[:, None] + 1.0) * side
    shared = jnp.minimum(high, index[None, :] + 1.0) - jnp.maximum(low, index[None, :])
    averaged = jnp.maximum(shared, 0.0) / side
    centres = jnp.clip((index + 0.5) / side - 0.5, 0.0, number - 1.0)
    between = jnp.maximum(1.0 - jnp.abs(centres[:, None] - index[None, :]), 0.0)
    return jnp.matmul(between, averaged, precision="highest")


def _resolved(drawn: _Drawn, image: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Blurred, then seen at a low resolution: both are one matrix per axis."""
    for axis, size in enumerate(image.shape):
        if drawn.how.has("blur"):
            image = _along(_blur_matrix(size, drawn.amount("blur")), image, axis)
        if drawn.how.has("low_resolution"):
            factor = 1.0 + drawn.amount("low_resolution")
            image = _along(_low_resolution_matrix(size, factor), image, axis)
    return image


def _gamma(
    image: Float[Array, "*n"], exponent: Float[Array, ""], inside: Bool[Array, "*n"]
) -> Float[Array, "*n"]:
    """A power of the position within the range of what is inside, which keeps its ends."""
    low = jnp.min(image, where=inside, initial=jnp.inf)
    high = jnp.max(image, where=inside, initial=-jnp.inf)
    usable = high > low
    low, span = jnp.where(usable, low, 0.0), jnp.where(usable, high - low, 1.0)
    place = jnp.clip((image - low) / span, 0.0, 1.0)
    changed = low + span * jnp.power(place, exponent)
    return jnp.where(usable & (exponent != 1.0), changed, image)


def augment_patch(
    key: Key[Array, ""],
    how: Augmentation,
    image: Float[Array, "*n 1"],
    label: Int[Array, "*n"],
    risk: Float[Array, "*n"],
) -> tuple[Float[Array, "*n 1"], Int[Array, "*n"], Float[Array, "*n"]]:
    """Warps one patch and changes the image's intensities.

    Anatomy first (flip, rotation, scale and elastic field in one warp), then the scanner
    (resolution, contrast, noise). Pixels from outside of the patch are 0 in the image, ignored in
    the label, 1 in the risk map. Background that is exactly 0 stays so.

    Args:
        key: of this patch; the same key and patch give the same result wherever it is computed.
        how: what may happen.
        image: [h, w, 1] or [x, y, z, 1], of unit variance.
        label: class indices, ``IGNORE`` where nothing is to be learnt.
        risk: weights.
    """
    few, bend, grain = jax.random.split(key, 3)
    drawn, changed = _Drawn.of(how, few), image[..., 0]
    if how.has("flip"):
        changed, label, risk = (_mirrored(drawn, a) for a in (changed, label, risk))
    if how.has("rotation", "scale", "elastic"):
        changed, label, risk = _warped(_coordinates(drawn, bend, label.shape), changed, label, risk)
    inside = changed != 0.0
    if how.has("blur", "low_resolution"):
        changed = _resolved(drawn, changed)
    if how.has("gamma"):
        exponent = (1.0 + how.gamma) ** (drawn.either_way("gamma") / how.gamma)
        changed = _gamma(changed, exponent, inside)
    if how.has("intensity"):
        gain, offset = drawn.either_way("intensity", 1), drawn.either_way("intensity", 2)
        changed = changed * (1.0 + gain) + offset
    if how.has("noise"):
        changed = changed + drawn.amount("noise") * jax.random.normal(grain, changed.shape)
    return jnp.where(inside, changed, 0.0)[..., None], label, risk
