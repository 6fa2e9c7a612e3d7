"""The optimizer, leaf by leaf, and its learning rate over the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

POLY_POWER = 0.9
"""Of the poly schedule, as nnU-Net has it."""


@dataclass(frozen=True)
class Schedule:
    """AdamW: linear warm-up, then decay to 0; gradients clipped to a global norm.

    Attributes:
        steps, learning_rate, warmup: the peak, and the share of the steps that rises to it.
        weight_decay, clip_gradient: of AdamW; the largest global norm.
        skip_nonfinite: steps in a row that are left out because the gradient holds a NaN or an
            infinity; 0: none is, such a gradient ends the training.
        decay: after the warm-up, "cosine" or "poly" ((1 − t)^0.9, as in nnU-Net).
        ema: decay per step of the average of the parameters that is used in place of the last
            ones; 0: there is none.
        rates: factor on the learning rate of leaves, by path; others have 1. A leaf of factor 0
            stays as it is, and its gradient is not clipped for.
        pull, pulled: strength with which leaves are pulled back to where they started, in place
            of the weight decay, and the paths of these leaves.
    """

    steps: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip_gradient: float
    skip_nonfinite: int = 0
    decay: str = "cosine"
    ema: float = 0.0
    rates: tuple[tuple[str, float], ...] = ()
    pull: float = 0.0
    pulled: tuple[str, ...] = ()

    def rate(self) -> optax.Schedule:
        """The learning rate at each step."""
        warm = min(max(1, round(self.warmup * self.steps)), max(self.steps - 1, 1))
        if self.steps <= 1:
            return optax.constant_schedule(self.learning_rate)
        if self.decay == "cosine":
            return optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warm, self.steps)
        rise = optax.linear_schedule(0.0, self.learning_rate, warm)
        fall = optax.polynomial_schedule(self.learning_rate, 0.0, POLY_POWER, self.steps - warm)
        return optax.join_schedules([rise, fall], [warm])

    def optimizer(self) -> optax.GradientTransformation:
        update = optax.chain(
            optax.clip_by_global_norm(self.clip_gradient),
            optax.adamw(self.rate(), weight_decay=self.weight_decay),
        )
        if self.rates or self.pulled:
            update = optax.chain(
                _scaled({path: 0.0 for path, factor in self.rates if factor == 0.0}),
                optax.clip_by_global_norm(self.clip_gradient),
                optax.scale_by_adam(),
                _decayed(self.weight_decay, self.pull, frozenset(self.pulled)),
                optax.scale_by_learning_rate(self.rate()),
                _scaled(dict(self.rates)),
            )
        if not self.skip_nonfinite:
            return update
        return optax.apply_if_finite(update, self.skip_nonfinite)


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _scaled(factors: dict[str, float]) -> optax.GradientTransformation:
    """Each leaf's update times its factor."""

    def update(updates: Any, _params: Any = None) -> Any:
        def scale(keys: Any, leaf: Any) -> Any:
            factor = factors.get(_path(keys), 1.0)
            # Not 0 × leaf: a frozen leaf's infinite gradient must not become NaN.
            return factor * leaf if factor else jnp.zeros_like(leaf)

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.stateless(update)


class _Start(NamedTuple):
    """The pulled leaves as they were; a 0 in place of each other one."""

    params: Any


def _decayed(
    weight_decay: float, pull: float, pulled: frozenset[str]
) -> optax.GradientTransformation:
    """Weight decay; in the pulled leaves a decay towards where they started (L2-SP).

    Li, Grandvalet, Davoine, ICML 2018 (arXiv 1802.01483), add α/2 ‖w − w⁰‖² to the loss. We pull
    beside Adam's scaled gradient, as AdamW decays: within it, leaves of large gradients would
    hardly be pulled at all.
    """

    def init(params: Any) -> _Start:
        def own(keys: Any, leaf: Any) -> Any:
            return leaf if _path(keys) in pulled else jnp.zeros((), leaf.dtype)

        return _Start(jax.tree_util.tree_map_with_path(own, params))

    def update(updates: Any, state: _Start, params: Any = None) -> Any:
        def one(keys: Any, step: Any, leaf: Any, start: Any) -> Any:
            if _path(keys) in pulled:
                return step + pull * (leaf - start)
            return step + weight_decay * leaf

        found = jax.tree_util.tree_map_with_path(one, updates, params, state.params)
        return found, state

    return optax.GradientTransformation(init, update)
