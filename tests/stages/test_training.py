"""What the training stages share."""

from __future__ import annotations

import time

from jaxfer.stages.training import Timed


def test_a_step_is_timed_without_the_first_which_compiles() -> None:
    seen = []
    timed = Timed(lambda step, loss: seen.append((step, loss)))
    assert timed.seconds_per_step is None
    time.sleep(0.2)
    timed(7, 0.5)
    assert timed.seconds_per_step is None
    for step in (8, 9, 10):
        time.sleep(0.01)
        timed(step, 0.25)
    assert seen == [(7, 0.5), (8, 0.25), (9, 0.25), (10, 0.25)]
    assert 0.01 <= timed.seconds_per_step < 0.15
