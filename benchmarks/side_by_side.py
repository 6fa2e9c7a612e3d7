"""This project beside PyTorch and MONAI: the same networks, batches and threads, in turn.

    python -m venv peers && peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/side_by_side.py --peers=peers/bin/python [--threads=1] [--rounds=9]

Both run in processes of their own that wait for one another, so that their ratio, pair by pair,
holds when the machine's speed drifts. With one thread the processes are pinned to one core and CPU
time is compared, which other people's load hardly changes; otherwise wall time. Writes
benchmarks/results.json, one entry per number of threads; docs/make_performance.py makes a page.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging

HERE = Path(__file__).parent
_PEERS = flags.DEFINE_string("peers", None, "Python that has the peers.", required=True)
_THREADS = flags.DEFINE_integer("threads", os.cpu_count(), "Of each process.", lower_bound=1)
_ONLY = flags.DEFINE_string("only", "", "Jobs whose names contain this; others keep their results.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed pairs of each job.", lower_bound=1)

JOBS: dict[str, list[Any]] = {
    "train step 2-D, 8 × 128², widths 16-128": ["train", [16, 32, 64, 128], [8, 128, 128]],
    "train step 2-D, 8 × 96², widths 24-96": ["train", [24, 48, 96], [8, 96, 96]],
    "train step 3-D, 1 × 64³, widths 16-64": ["train", [16, 32, 64], [1, 64, 64, 64]],
    "train step 3-D, 1 × 48³, widths 24-96": ["train", [24, 48, 96], [1, 48, 48, 48]],
    "sliding window 2-D, 160×160×32, tiles 96²": [
        "infer", [16, 32, 64], [160, 160, 32], [96, 96], 16,
    ],
    "sliding window 3-D, 96³, tiles 64³": ["infer", [16, 32, 64], [96, 96, 96], [64, 64, 64], 1],
}  # fmt: skip


def chosen() -> dict[str, list[Any]]:
    return {name: job for name, job in JOBS.items() if _ONLY.value in name}


class Worker:
    """A process that runs a job when it is asked."""

    def __init__(self, python: str, file: str) -> None:
        settings = json.dumps({"threads": _THREADS.value, "jobs": chosen()})
        self.process = subprocess.Popen(
            [python, str(HERE / file), settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def seconds(self, job: str) -> float:
        """CPU time of one run on one thread, wall time on several."""
        assert self.process.stdin is not None
        self.process.stdin.write(job + "\n")
        self.process.stdin.flush()
        wall, cpu = self._answer()
        return cpu if _THREADS.value == 1 else wall

    def end(self) -> None:
        self.process.communicate()


def main(_: list[str]) -> None:
    workers = [Worker(sys.executable, "worker_jaxfer.py"), Worker(_PEERS.value, "worker_torch.py")]
    rows = {}
    for job in chosen():
        pairs = np.array([[w.seconds(job) for w in workers] for _ in range(_ROUNDS.value)])
        ratios = pairs[:, 0] / pairs[:, 1]
        rows[job] = {
            name: [float(np.median(v)), float(v.min()), float(v.max())]
            for name, v in (("ours", pairs[:, 0]), ("peer", pairs[:, 1]), ("ratio", ratios))
        }
        logging.info("%s: %s", job, rows[job])
    for worker in workers:
        worker.end()
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    known = results.get(str(_THREADS.value), {}).get("jobs", {})
    results[str(_THREADS.value)] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()} | workers[0].versions
        | workers[1].versions,
        "rounds": _ROUNDS.value,
        "clock": "CPU time" if _THREADS.value == 1 else "wall time",
        "load": os.getloadavg()[1],
        "jobs": {name: (known | rows)[name] for name in JOBS if name in known | rows},
    }  # fmt: skip
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    app.run(main)
