"""Several processes as one run: one of them leads, writes and reads; all of them train.

On one process, every function here does nothing and costs nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxfer.errors import UserError

_HEARTBEAT = 20
"""Seconds after which a silent process counts as dead, and ends the others."""


def devices_for(
    cores: int, shares: Sequence[int], cut: Callable[[int], bool] = lambda _: False
) -> int:
    """The largest number of devices, at most the cores, that divides every share; where that is
    one, the largest number of slabs that a patch can be cut into.

    Args:
        cores: that this process may use.
        shares: patches that a device must have the same number of.
        cut: whether patches can be cut into so many slabs.
    """
    numbers = range(max(cores, 1), 0, -1)
    whole = next(n for n in numbers if all(s % n == 0 for s in shares))
    return whole if whole > 1 else next((n for n in numbers if cut(n)), 1)


def split_processor(
    devices: int, shares: Sequence[int], cut: Callable[[int], bool] = lambda _: False
) -> None:
    """Has jax take the processor for several devices; before any other use of jax.

    A step's patches, or slabs of them, are then computed side by side: on two cores a step in 2-D
    takes 0.7 of the time that one device with two threads takes (docs/performance.md, Scaling).
    Does nothing if the user's environment names a number of devices.

    Args:
        devices: how many; 0: of ``devices_for`` the cores.
        shares, cut: of ``devices_for``.
    """
    by_flag = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if by_flag or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", devices or devices_for(cores or 1, shares, cut))


def join(
    coordinator: str,
    processes: int | None,
    process: int | None,
    patience: float,
    give_up: Callable[[UserError], None],
) -> None:
    """Makes this process one of several; before any other use of jax.

    Args:
        coordinator: host:port of the first process; 'auto' where the cluster (SLURM, TPU VM, MPI)
            tells of the processes by itself.
        processes: how many; None with 'auto'.
        process: this one's number, from 0; None with 'auto'.
        patience: seconds to wait for the others.
        give_up: called from another thread when they do not come; must end the process, since jax
            itself ends it without a word that can be understood.

    Raises:
        UserError: the cluster tells nothing, or the flags contradict each other.
    """
    late = threading.Timer(patience, lambda: give_up(_apart(f"not all after {patience:g} s")))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            None if coordinator == "auto" else coordinator,
            num_processes=processes,
            process_id=process,
            initialization_timeout=int(patience) + 60,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        raise _apart(str(error).split("\n")[0][:300]) from error
    finally:
        late.cancel()


def _apart(found: str) -> UserError:
    return UserError(
        "the processes of this run do not come together",
        found=found,
        allowed="one launch per process, all with the same --coordinator=HOST:PORT and "
        "--processes=N, and --process=0 … N − 1",
        mend="see launch/; with --coordinator=auto the cluster must tell of the processes",
    )


def leads() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def share(size: int, what: str) -> tuple[int, int]:
    """This process's number and how many there are, to share something of a size evenly.

    Raises:
        UserError: it does not divide by the number of processes.
    """
    count = jax.process_count()
    if size % count:
        raise UserError(
            f"{what} does not divide over the processes",
            found=f"{what} {size}, {count} processes",
            allowed=f"a multiple of {count}, such as {-(-size // count) * count}",
        )
    return jax.process_index(), count


def wait_for_all(moment: str) -> None:
    """Until every process has come to this moment."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(moment)


def of_leader(value: Any) -> Any:
    """The leading process's value, in terms of JSON, in every process."""
    if jax.process_count() == 1:
        return value
    return json.loads(_bytes_of_leader(json.dumps(value).encode() if leads() else b""))


def arrays_of_leader(tree: Any) -> Any:
    """The leading process's numpy arrays, to the bit, in every process.

    Args:
        tree: of the same structure, shapes and types in every process.
    """
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    raw = _bytes_of_leader(b"".join(np.asarray(leaf).tobytes() for leaf in leaves))
    found, start = [], 0
    for leaf in map(np.asarray, leaves):
        part = np.frombuffer(raw, leaf.dtype, leaf.size, start)
        found.append(part.reshape(leaf.shape).copy())
        start += leaf.nbytes
    return jax.tree.unflatten(structure, found)


def _bytes_of_leader(raw: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(raw), np.int32)))
    padded = np.zeros(-(-size // 4) * 4, np.uint8)
    if leads():
        padded[:size] = np.frombuffer(raw, np.uint8)
    words = multihost_utils.broadcast_one_to_all(padded.view(np.int32))
    return np.asarray(words).view(np.uint8)[:size].tobytes()


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array([flag], np.int32))))


def check_same(what: str, value: str, mend: str) -> None:
    """Raises ``UserError`` in every process if a text is not the same in all of them."""
    first = of_leader(value)
    if any_of(first != value):
        # The others' messages would otherwise be cut off by the end of the first.
        time.sleep(0.5)
        raise UserError(what, found=value[:300], allowed=str(first)[:300], mend=mend)
