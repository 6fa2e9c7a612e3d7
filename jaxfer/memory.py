"""What a step gives back of the processor's memory stays with the process, for the next step.

XLA takes the temporaries of every call from the C library. glibc maps large ones anew each time,
and the kernel clears every page of them at its first touch, which is a good part of a training step
with large patches. Kept in one heap, they are cleared once.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""The settings' numbers in glibc's malloc.h."""


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Tells the C library to keep what is freed, before the first thread of XLA asks it for memory.

    The process then holds as much as it ever needed at once, until it ends.

    Args:
        environment: settings of the allocator in it are the user's own, and are left alone.

    Returns:
        Whether it does: glibc alone knows how.
    """
    if "GLIBC_TUNABLES" in environment or any(k.startswith("MALLOC_") for k in environment):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is None:
        return False
    # Arenas of other threads than the first cannot grow to the size of a step's temporaries.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return [set_option(number, value) for number, value in settings] == [1, 1, 1]
