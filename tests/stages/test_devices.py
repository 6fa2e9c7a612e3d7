"""Devices side by side: every item on one of its own, in order, and the first error ends it."""

from __future__ import annotations

import threading
import time

import jax
import jax.numpy as jnp
import pytest

from jaxfer.stages.devices import on_devices


def test_every_device_works_at_the_same_time_on_an_item_of_its_own():
    devices = jax.local_devices()
    all_at_work = threading.Barrier(len(devices), timeout=60)

    def work(number: int) -> tuple[int, jax.Device]:
        (device,) = jnp.full(3, number).devices()
        all_at_work.wait()
        return number**2, device

    found = on_devices(work, range(2 * len(devices)))
    assert [square for square, _ in found] == [n**2 for n in range(2 * len(devices))]
    for first in (0, len(devices)):
        assert {device for _, device in found[first : first + len(devices)]} == set(devices)


def test_nothing_is_nothing():
    assert on_devices(lambda item: item, []) == []


def test_the_first_error_leaves_what_has_not_begun():
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError("the second item")
        time.sleep(0.2)

    with pytest.raises(ValueError, match="the second item"):
        on_devices(work, range(100))
    assert len(begun) < 3 * jax.local_device_count()
