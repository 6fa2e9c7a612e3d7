"""Metrics that cannot see every voxel, on samples drawn again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Real, Shaped

from jaxfer.metrics.precision import AnyArray


class Pixels(NamedTuple):
    """What samples are drawn from, or a sample.

    Attributes:
        values: features or log-probabilities.
        labels: classes.
        subjects: number of the person that each pixel is of.
        mask: True where a pixel counts; None: everywhere.
    """

    values: Shaped[AnyArray, "n d"]
    labels: Real[AnyArray, " n"]
    subjects: Int[AnyArray, " n"]
    mask: Bool[AnyArray, " n"] | None = None


class RepeatedScore(NamedTuple):
    """A metric over repeated samples.

    Attributes:
        mean: over the repetitions that are defined; NaN without one.
        standard_error: of that mean, from the spread over repetitions: of sampling pixels, not of
            drawing other subjects. NaN with fewer than two.
        scores: of each repetition; NaN where undefined.
        n_undefined: repetitions without a score.
        n_pixels: pixels in a repetition's last sample group.
    """

    mean: float
    standard_error: float
    scores: Float[np.ndarray, " k"]
    n_undefined: int
    n_pixels: int

    def __float__(self) -> float:
        return self.mean


def repeated(
    metric: Callable[..., SupportsFloat],
    groups: Sequence[Pixels],
    *,
    key: Key[Array, ""],
    repeats: int = 10,
    num_pixels: int = 10_000,
) -> RepeatedScore:
    """A metric's mean over repeated samples, and its standard error; on the host, outside `jit`.

    For example, F-OTCE with N = 10,000 pixels of source and target, 10 times:

        repeated(
            lambda s, t: f_otce(s.values, s.labels, t.values, t.labels, …,
                                source_mask=s.mask, target_mask=t.mask),
            (source, target), key=jax.random.key(0))

    The samples are stratified by class and by subject (`stratified_sample`), so the score is that
    of balanced classes: H(Y) is near log C, whatever the prevalence. Tan et al., arXiv 2109.15242,
    whose samples are not stratified.

    Args:
        metric: of one sample of each group; its result converts with `float`.
        groups: what to sample, each independently.
        key: of all draws.
        repeats: K.
        num_pixels: N, of each group.

    Returns:
        Mean, standard error and the single scores.

    Raises:
        ValueError: no group, fewer than one repetition or pixel, shapes disagree.
    """
    if not groups or repeats < 1:
        raise ValueError(
            f"repeated needs a group and a repetition: found {len(groups)} and {repeats}"
        )
    scores = np.full(repeats, np.nan)
    n_pixels = 0
    for repetition, own in enumerate(jax.random.split(key, repeats)):
        keys = jax.random.split(own, len(groups))
        samples = [_drawn(group, k, num_pixels) for group, k in zip(groups, keys, strict=True)]
        scores[repetition] = float(metric(*samples))
        n_pixels = int(np.asarray(samples[-1].mask).sum())
    defined = scores[np.isfinite(scores)]
    return RepeatedScore(
        mean=float(defined.mean()) if len(defined) else float("nan"),
        standard_error=float(defined.std(ddof=1) / len(defined) ** 0.5)
        if len(defined) > 1
        else float("nan"),
        scores=scores,
        n_undefined=repeats - len(defined),
        n_pixels=n_pixels,
    )


def stratified_sample(
    key: Key[Array, ""],
    labels: Real[AnyArray, " n"],
    subjects: Int[AnyArray, " n"],
    *,
    num_pixels: int,
    mask: Bool[AnyArray, " n"] | None = None,
) -> tuple[Int[Array, " p"], Bool[Array, " p"]]:
    """Pixels drawn without replacement, as many of each class of each subject as there are.

    The strata take turns, each giving a random pixel, until the sample is full: one that runs out
    leaves its turns to the others, so that a large lesion does not dominate. Works under `jit`.

    Args:
        key: of the draw.
        labels: any classes.
        subjects: number of the person that each pixel is of.
        num_pixels: static; with fewer pixels all are taken.
        mask: True where a pixel may be drawn.

    Returns:
        Places, and which of them are of the sample: all, unless the pixels were too few.

    Raises:
        ValueError: shapes disagree, or num_pixels is below 1.
    """
    shapes = {labels.shape, subjects.shape, labels.shape if mask is None else mask.shape}
    if len(shapes) > 1 or num_pixels < 1:
        raise ValueError(
            "labels, subjects and mask must have one shape, and num_pixels be at least 1: found "
            f"{sorted(shapes)} and {num_pixels}"
        )
    return _stratified_sample(key, labels, subjects, mask, num_pixels)


def _drawn(group: Pixels, key: Key[Array, ""], num_pixels: int) -> Pixels:
    places, inside = stratified_sample(
        key, group.labels, group.subjects, num_pixels=num_pixels, mask=group.mask
    )
    index = np.asarray(places)
    return Pixels(group.values[index], group.labels[index], group.subjects[index], inside)


@jax.jit(static_argnames="num_pixels")
def _stratified_sample(
    key: Key[Array, ""],
    labels: Real[AnyArray, " n"],
    subjects: Int[AnyArray, " n"],
    mask: Bool[AnyArray, " n"] | None,
    num_pixels: int,
) -> tuple[Int[Array, " p"], Bool[Array, " p"]]:
    labels, subjects = jnp.asarray(labels), jnp.asarray(subjects)
    usable = jnp.full(labels.shape, True) if mask is None else jnp.asarray(mask)
    luck = jax.random.permutation(key, len(labels))
    order = jnp.lexsort((luck, labels, subjects, ~usable))
    changes = [x[order][1:] != x[order][:-1] for x in (labels, subjects, usable)]
    first = jnp.concatenate([jnp.array([True]), changes[0] | changes[1] | changes[2]])
    place = jnp.arange(len(labels))
    # A pixel's turn is its place in its stratum.
    start = jax.lax.cummax(jnp.where(first, place, 0))
    turn = jnp.zeros_like(place).at[order].set(place - start)
    drawn = jnp.lexsort((luck, turn, ~usable))[:num_pixels]
    missing = max(num_pixels - len(labels), 0)
    drawn = jnp.pad(drawn, (0, missing))
    return drawn, usable[drawn] & (jnp.arange(num_pixels) < len(labels))
