"""Work that the local devices do side by side, each on something of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import jax

Item = TypeVar("Item")
Made = TypeVar("Made")


def on_devices(work: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """What the work makes of every item, as many at a time as this process has devices.

    Args:
        work: called in a thread whose arrays lie on one device, and nobody else's.
        items: in the order of the results.

    Raises:
        Exception: the first that an item's work raises, in the order of the items; what has begun
            is awaited, what has not is left.
    """
    free: SimpleQueue[jax.Device] = SimpleQueue()
    for device in jax.local_devices():
        free.put(device)

    def on_one(item: Item) -> Made:
        device = free.get()
        try:
            with jax.default_device(device):
                return work(item)
        finally:
            free.put(device)

    with ThreadPoolExecutor(jax.local_device_count()) as pool:
        begun = [pool.submit(on_one, item) for item in items]
        try:
            return [future.result() for future in begun]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
