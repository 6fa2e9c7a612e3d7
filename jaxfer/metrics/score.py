"""What every metric returns: a number, what it was made of, and what to know before trusting it."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


class Flag(IntFlag):
    """What to know of a score. Bits up to `ZERO_FEATURES` make it NaN; the others qualify it."""

    NO_VOXELS = 1
    FEW_CLASSES = 2
    INVALID_INPUT = 4
    ZERO_FEATURES = 8
    SATURATED = 16
    NOT_CONVERGED = 32
    PERFECT_FIT = 64
    UNSEEN_LABELS = 128
    REDUCED = 256
    TIED = 512
    FEW_IMAGES = 1024
    IDENTICAL = 2048

    def __str__(self) -> str:
        return (self.name or "").lower().replace("_", " ")


class Score(NamedTuple):
    """The value of a metric, a pytree of arrays; `float(score)` outside `jit`.

    Calculated in float64 and rounded to float32 at the end, unless the caller runs with x64.

    Attributes:
        score: the value, in the direction and range that the registry names; NaN when undefined.
        n_used: voxels that the value is made of; in float32 rounded beyond 2²⁴.
        n_invalid: unmasked voxels that could not be used: a non-finite feature, a row that is no
            probability distribution, a label outside the classes. One makes the score NaN.
        classes_present: target classes with at least one used voxel.
        flags: bits of `Flag`; read them as `reasons`.
    """

    score: Float[Array, "*k"]
    n_used: Float[Array, "*k"]
    n_invalid: Float[Array, "*k"]
    classes_present: Int[Array, "*k"]
    flags: Int[Array, "*k"]

    def __float__(self) -> float:
        return float(self.score)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The flags of a single score in words, outside `jit`; empty when all is well."""
        return tuple(str(flag) for flag in Flag if flag & int(self.flags))


def flag_where(condition: Array, flag: Flag) -> Int[Array, ""]:
    """The flag's bit where the condition holds, else 0."""
    return jnp.where(condition, flag.value, 0).astype(jnp.int32)


def make_score(
    value: Float[Array, ""],
    *,
    class_counts: Float[Array, " c"],
    n_invalid: Float[Array, ""],
    flags: Int[Array, ""] | int = 0,
) -> Score:
    """A score that is NaN where no metric is defined.

    With fewer than two classes the limits flatter: LEEP and NCE would reach 0, their maximum.

    Args:
        value: the metric's value.
        class_counts: used voxels by target class.
        n_invalid: unmasked voxels that could not be used.
        flags: the metric's own flags.
    """
    n_used = class_counts.sum()
    classes_present = (class_counts > 0).sum().astype(jnp.int32)
    flags = (
        flag_where(n_used == 0, Flag.NO_VOXELS)
        | flag_where(classes_present < 2, Flag.FEW_CLASSES)
        | flag_where(n_invalid > 0, Flag.INVALID_INPUT)
        | flags
    )
    undefined = Flag.NO_VOXELS | Flag.FEW_CLASSES | Flag.INVALID_INPUT | Flag.ZERO_FEATURES
    return Score(
        score=jnp.where(flags & undefined.value, jnp.nan, value),
        n_used=n_used,
        n_invalid=n_invalid,
        classes_present=classes_present,
        flags=flags,
    )
