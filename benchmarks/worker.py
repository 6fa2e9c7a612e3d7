"""What the two workers of ``side_by_side.py`` share: the jobs, and how they are told to run them.

A worker reads names of jobs from standard input and answers each with its wall and CPU seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

CLASSES = 4
SLOPE = 0.01

Jobs = dict[str, Callable[[], Any]]


def asked() -> dict[str, Any]:
    """The networks, shapes and threads, as the parent gave them; pins the process first."""
    settings = json.loads(sys.argv[1])
    if settings["threads"] == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return settings


def _tell(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def serve(jobs: Jobs, versions: dict[str, str]) -> None:
    """Runs each job once to warm up, then as often as it is asked."""
    for job in jobs.values():
        job()
    _tell(versions)
    for line in sys.stdin:
        job, wall, cpu = jobs[line.strip()], time.perf_counter(), time.process_time()
        job()
        _tell([time.perf_counter() - wall, time.process_time() - cpu])
