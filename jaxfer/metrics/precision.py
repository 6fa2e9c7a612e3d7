"""Where float64 begins and ends: for sums over 10⁸ voxels, and for eigenvalues."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

AnyArray = jax.Array | np.ndarray

P = ParamSpec("P")
R = TypeVar("R")


def compiled_in_float64(
    *static: str, cast_back: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function, and run it where float64 exists whatever the global setting.

    The scope is entered *before* the compiled function is called, not inside it: batching re-traces
    a compiled function where it is called, so only then does `vmap` over the result work.

    Args:
        *static: names of the arguments that are compile-time constants.
        cast_back: return float32 where the caller has no float64. For results: almost any
            arithmetic on float64 arrays makes jax warn there. Not for statistics, which go on
            growing and are only ever touched inside the scope.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        compiled = jax.jit(function, static_argnames=static)

        @functools.wraps(function)
        def in_float64(*args: P.args, **kwargs: P.kwargs) -> R:
            narrow = cast_back and jnp.result_type(float) == jnp.float32
            args, kwargs = jax.tree.map(_settled, (args, kwargs))
            with jax.enable_x64(True):
                result = compiled(*args, **kwargs)
            return jax.tree.map(_to_float32, result) if narrow else result

        return in_float64

    return decorate


def _settled(leaf: object) -> object:
    """`vmap` keeps a 64-bit numpy array as it is while it calls it 32-bit; inside the scope that
    breaks. One operation outside of it, compiled to nothing, turns it into what it is called."""
    return jnp.copy(leaf) if isinstance(leaf, jax.core.Tracer) else leaf


def _to_float32(array: jax.Array) -> jax.Array:
    return array.astype(jnp.float32) if array.dtype == jnp.float64 else array
