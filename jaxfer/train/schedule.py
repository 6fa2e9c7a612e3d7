"""The optimizer and its learning rate over the steps."""

from __future__ import annotations

from dataclasses import dataclass

import optax


@dataclass(frozen=True)
class Schedule:
    """AdamW: linear warm-up, then cosine decay to 0; gradients clipped to a global norm.

    Attributes:
        steps, learning_rate, warmup: the peak, and the share of the steps that rises to it.
        weight_decay, clip_gradient: of AdamW; the largest global norm.
        skip_nonfinite: steps in a row that are left out because the gradient holds a NaN or an
            infinity; 0: none is, such a gradient ends the training.
    """

    steps: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip_gradient: float
    skip_nonfinite: int = 0

    def rate(self) -> optax.Schedule:
        """The learning rate at each step."""
        warm = min(max(1, round(self.warmup * self.steps)), max(self.steps - 1, 1))
        if self.steps <= 1:
            return optax.constant_schedule(self.learning_rate)
        return optax.warmup_cosine_decay_schedule(0.0, self.learning_rate, warm, self.steps)

    def optimizer(self) -> optax.GradientTransformation:
        update = optax.chain(
            optax.clip_by_global_norm(self.clip_gradient),
            optax.adamw(self.rate(), weight_decay=self.weight_decay),
        )
        if not self.skip_nonfinite:
            return update
        return optax.apply_if_finite(update, self.skip_nonfinite)
