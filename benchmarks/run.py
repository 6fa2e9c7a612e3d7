"""Measures everything, side by side, and writes results.json and results.md.

    python benchmarks/run.py --peers=peers/bin/python [--only=networks,metrics] [--quick]

The two sides of a line run in processes of their own that wait for one another, so that their
ratio, pair by pair, holds when the machine's speed drifts. On one thread both are pinned to one
core and processor time is compared, which other people's load hardly changes; on all cores it is
wall time, which needs a quiet machine.

Every line is written when it is done. A run that was killed goes on: lines of the same code,
versions, settings and machine are not measured again, unless ``--again``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging
from parts import Job, Pair, parts
from render import page

from jaxfer.hosts import devices_for
from jaxfer.models.slabs import divides_into

HERE = Path(__file__).parent
_PEERS = flags.DEFINE_string("peers", None, "Python that has what requirements.txt names.")
_ONLY = flags.DEFINE_list("only", [], "Parts; or lines, by what their names contain.")
_THREADS = flags.DEFINE_list("threads", [], "Only these numbers of threads; 0: all cores.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed pairs of each line.", lower_bound=1)
_QUICK = flags.DEFINE_bool("quick", False, "Small sizes, two rounds: to try; not to be kept.")
_AGAIN = flags.DEFINE_bool("again", False, "Measure lines that are there already.")
_OUT = flags.DEFINE_string("out", str(HERE), "Folder of results.json and results.md.")

_OF_PEERS = ("jobs_torch", "jobs_peers")
_SIDE = 1536
"""Of the matrices whose product's rate is the machine's."""


class Worker:
    """A process that makes the jobs of a module; they are run when asked."""

    def __init__(self, module: str, threads: int, devices: int, scratch: str) -> None:
        cores = os.cpu_count() or 1
        settings = {"threads": threads or cores, "devices": devices, "scratch": scratch}
        environment = os.environ | {
            name: str(threads or cores)
            for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        }
        environment["PYTHONPATH"] = str(HERE.parent)
        if threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        python = _PEERS.value if module in _OF_PEERS else sys.executable
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), module, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.jobs = 0

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a worker ended at {what}")
        return json.loads(answer)

    def make(self, job: Job) -> tuple[int, dict[str, str]]:
        """The job's number, and the versions of what it runs on."""
        versions = self._ask({"make": job.kind, "arguments": job.arguments})["versions"]
        self.jobs += 1
        return self.jobs - 1, versions

    def run(self, number: int) -> dict[str, Any]:
        return self._ask({"run": number})

    def end(self) -> None:
        self.process.communicate()


@contextmanager
def working(job: Job, threads: int, devices: int, scratch: str) -> Iterator[Worker]:
    worker = Worker(job.module, threads, devices, scratch)
    try:
        yield worker
    finally:
        worker.end()


def _devices(pair: Pair, threads: int) -> int:
    """Virtual devices of this project's process."""
    if pair.devices:
        return pair.devices
    cores, given = threads or os.cpu_count() or 1, pair.ours.arguments
    batch, *patch = given.get("shape", [cores])
    halved = ((2,) * len(patch),) * (len(given.get("widths", [])) - 1)
    return devices_for(cores, [batch], lambda n: bool(patch) and divides_into(patch[0], n, halved))


def measured(pair: Pair, threads: int, rounds: int, scratch: str) -> list[dict[str, Any]]:
    """The lines of a pair: one, or one for each part of what the jobs tell."""
    clock = "cpu" if threads == 1 else "wall"
    versions = {"python": platform.python_version()}
    answers: list[list[dict[str, Any]]] = [[], []]
    rates = []
    with ExitStack() as stack:
        sides = []
        for job, devices in ((pair.ours, _devices(pair, threads)), (pair.peer, 1)):
            if job is not None:
                worker = stack.enter_context(working(job, threads, devices, scratch))
                number, known = worker.make(job)
                versions |= known
                sides.append((worker, number))
        machine = stack.enter_context(working(Job("jobs_jaxfer", "", {}), threads, 1, scratch))
        product, _ = machine.make(Job("jobs_jaxfer", "product", {"side": _SIDE}))
        for _ in range(rounds):
            for found, (worker, number) in zip(answers, sides, strict=False):
                found.append(worker.run(number))
            reached = machine.run(product)
            rates.append(reached["operations"] / reached[clock])
    ours, peer = answers
    if peer and ours[0].get("weights") != peer[0].get("weights"):
        raise RuntimeError(f"{pair.name}: the networks differ, {ours[0]} and {peer[0]}")
    line: dict[str, Any] = {
        "name": pair.name,
        "threads": threads,
        "clock": "processor time" if threads == 1 else "wall time",
        "bar": pair.bar,
        "versions": versions,
        "load": os.getloadavg()[1],
        "peak": [max(a["peak"] for a in side) for side in answers if side],
    }
    if "parts" in ours[0]:
        names = sorted({n for a in (*ours, *peer) for n in a["parts"]})
        return [
            line
            | {
                "name": f"{pair.name}: {name}",
                "clock": "wall time",
                "ours": [a["parts"].get(name, 0.0) for a in ours],
                "peer": [a["parts"].get(name, 0.0) for a in peer],
            }
            for name in names
        ]
    line |= {"ours": [a[clock] for a in ours], "peer": [a[clock] for a in peer]}
    if "operations" in ours[0]:
        line["of_product"] = [
            a["operations"] / a[clock] / rate for a, rate in zip(ours, rates, strict=True)
        ]
    if peer and "scores" in ours[0]:
        off = np.array(ours[0]["scores"]) - np.array(peer[0]["scores"])
        line["off_by"] = float(np.abs(off).max())
    if "seconds" in ours[0]:
        line["seconds"] = ours[-1]["seconds"]
    return [line]


def _code() -> str:
    """What tells one state of the code from another."""
    files = sorted([*HERE.glob("*.py"), *(HERE.parent / "jaxfer").rglob("*.py")])
    return _digest(b"".join(file.read_bytes() for file in files))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _stamp(rounds: int, quick: bool) -> dict[str, Any]:
    """What a line was measured with; under another stamp it is not known."""
    return {
        "code": _code(),
        "rounds": rounds,
        "quick": quick,
        "versions": {name: version(name) for name in ("jax", "jaxlib", "numpy")},
        "requirements": _digest((HERE / "requirements.txt").read_bytes()),
        "allocator": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
        },
        "machine": _machine(),
    }


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


def main(_: list[str]) -> None:
    folder = Path(_OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    file, rounds = folder / "results.json", 2 if _QUICK.value else _ROUNDS.value
    results = json.loads(file.read_text()) if file.is_file() else {"parts": {}}
    stamp = _stamp(rounds, _QUICK.value)
    asked = parts(_QUICK.value)
    threads_asked = {int(n) for n in _THREADS.value}
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in asked.items():
            known = results["parts"].get(name, {"lines": []})["lines"]
            for pair in part.pairs:
                for threads in pair.threads:
                    if threads_asked and threads not in threads_asked:
                        continue
                    if _ONLY.value and not any(o == name or o in pair.name for o in _ONLY.value):
                        continue
                    own = [k for k in known if (k["pair"], k["threads"]) == (pair.name, threads)]
                    if own and not _AGAIN.value and all(k["stamp"] == stamp for k in own):
                        continue
                    if _PEERS.value is None and pair.peer and pair.peer.module in _OF_PEERS:
                        logging.warning("%s is left out: --peers is not given", pair.name)
                        continue
                    lines = measured(pair, threads, rounds, scratch)
                    more = {"pair": pair.name, "stamp": stamp, "when": time.strftime("%Y-%m-%d")}
                    known = [k for k in known if k not in own] + [more | li for li in lines]
                    order = {p.name: i for i, p in enumerate(part.pairs)}
                    known.sort(key=lambda k: (k["threads"] != 1, order.get(k["pair"], len(order))))
                    results["parts"][name] = {"lines": known}
                    results["machine"] = _machine()
                    results["parts"] = {
                        k: results["parts"][k] for k in asked if k in results["parts"]
                    }
                    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
                    temporary = file.with_suffix(".tmp")
                    temporary.write_text(text)
                    temporary.replace(file)
                    (folder / "results.md").write_text(page(results))
                    for line in lines:
                        took = [np.median(side) for side in (line["ours"], line["peer"]) if side]
                        logging.info("%s: %s s", line["name"], np.round(took, 4))


if __name__ == "__main__":
    app.run(main)
