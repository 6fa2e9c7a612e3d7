"""A process that makes jobs of one module and times them when it is told to.

    python worker.py jobs_jaxfer '{"threads": 1, "devices": 1, "scratch": "/dir"}'

The parent writes one JSON object per line: ``{"make": kind, "arguments": {…}}`` makes the next job
and runs it once to warm up, ``{"run": number}`` times one. Each line is answered with one.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
import time
from typing import Any

_LONG = 0.2
"""Seconds that a round takes at least."""


def _peak() -> float:
    """MiB that this process has held at most; Linux counts from its own start here, where
    ``ru_maxrss`` begins with what the parent held."""
    with contextlib.suppress(OSError), open("/proc/self/status") as told:
        for line in told:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu() -> float:
    """Processor seconds of this process and of those that it started and awaited."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(own.ru_utime + own.ru_stime for own in used)


def timed(job: Any) -> dict[str, Any]:
    """Seconds and memory of one run, and what the job tells of itself; the mean of several short
    runs."""
    wall, cpu, runs, taken = time.perf_counter(), _cpu(), 0, 0.0
    while runs == 0 or taken < _LONG:
        told = job() or {}
        runs, taken = runs + 1, time.perf_counter() - wall
    return {"wall": taken / runs, "cpu": (_cpu() - cpu) / runs, "peak": _peak()} | told


def main() -> None:
    module, settings = sys.argv[1], json.loads(sys.argv[2])
    if settings["threads"] == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    # What libraries say must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    kinds: Any = importlib.import_module(module)
    kinds.prepare(**settings)
    jobs = []
    for line in sys.stdin:
        asked = json.loads(line)
        if "make" in asked:
            jobs.append(kinds.JOBS[asked["make"]](**asked["arguments"]))
            jobs[-1]()
            answer: dict[str, Any] = {"versions": kinds.versions()}
        else:
            answer = timed(jobs[asked["run"]])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
