"""How a U-Net halves a patch from level to level: kernels and strides that heed the spacing."""

from __future__ import annotations

from collections.abc import Sequence

Levels = tuple[tuple[int, ...], ...]

# Axes whose voxels are this much longer than the shortest are neither halved nor convolved along.
_ANISOTROPY = 2.0


STRIDES_ALLOWED = "('auto',), or for each level but the last a text such as '2x2x1'"


def network_strides(
    named: Sequence[str], axes: int, levels: int, spacing: Sequence[float | int]
) -> Levels:
    """The strides that a configuration names: its texts, or by the spacing for ``('auto',)``.

    Args:
        named: ``('auto',)``, or a text such as ``2x2x1`` for each level but the last.
        axes: 2 or 3.
        levels: of the network.
        spacing: mm, of the three axes.

    Raises:
        ValueError: texts that are none, or too many or few.
    """
    if tuple(named) == ("auto",):
        return automatic_strides(axes, levels, spacing)
    if len(named) != levels - 1:
        raise ValueError(f"{len(named)} for {levels} levels")
    try:
        strides = tuple(tuple(int(part) for part in text.split("x")) for text in named)
    except ValueError:
        raise ValueError("not whole numbers with x between them") from None
    if any(len(step) != axes or min(step) < 1 for step in strides):
        raise ValueError(f"not {axes} numbers of at least 1 each")
    return strides


def automatic_strides(axes: int, levels: int, spacing: Sequence[float | int]) -> Levels:
    """What each axis is divided by between the levels.

    In 2-D always by 2. In 3-D, after nnU-Net (Isensee et al., 2021): an axis waits while its
    voxels are twice as long as the shortest, or longer.

    Args:
        axes: 2 or 3.
        levels: of the network.
        spacing: mm, of the three axes.
    """
    lengths = list(spacing[:axes])
    found = []
    for _ in range(levels - 1):
        shortest = min(lengths)
        step = tuple(2 if axes == 2 or n < _ANISOTROPY * shortest else 1 for n in lengths)
        lengths = [n * s for n, s in zip(lengths, step, strict=True)]
        found.append(step)
    return tuple(found)


def kernel_sides(strides: Levels, spacing: Sequence[float | int]) -> Levels:
    """Sides of each level's kernels: 1 along an axis until its voxels are not twice the shortest.

    In 2-D always 3.

    Args:
        strides: between the levels.
        spacing: mm, of the three axes.
    """
    axes = len(strides[0])
    lengths = list(spacing[:axes])
    found, reached = [], [axes == 2] * axes
    for step in (*strides, (1,) * axes):
        shortest = min(lengths)
        reached = [r or n < _ANISOTROPY * shortest for r, n in zip(reached, lengths, strict=True)]
        found.append(tuple(3 if r else 1 for r in reached))
        lengths = [n * s for n, s in zip(lengths, step, strict=True)]
    return tuple(found)


def patch_multiples(strides: Levels) -> tuple[int, ...]:
    """What each side of a patch must be a multiple of."""
    multiples = [1] * len(strides[0])
    for step in strides:
        multiples = [m * s for m, s in zip(multiples, step, strict=True)]
    return tuple(multiples)
