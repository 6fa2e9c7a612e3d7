"""Where a training step's time goes, with XLA's convolutions and with those of this project.

    python benchmarks/step_profile.py [--rounds=3]

Every operation that XLA ran is timed by JAX's profiler and counted to the layer that its name in
the compiled program tells. Writes benchmarks/profile.json; docs/make_performance.py makes a page.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jaxfer.models.unet import UNet
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, TrainState, train_step

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Profiled steps; the fastest run counts.")

_ONLY = flags.DEFINE_string(
    "only", "", "Networks whose names contain this; others stay as they are."
)

CLASSES = 4
NETWORKS = {
    "2-D, 8 × 128², widths 16-128": ((16, 32, 64, 128), (8, 128, 128)),
    "3-D, 1 × 64³, widths 16-64": ((16, 32, 64), (1, 64, 64, 64)),
}
# The first pattern that an operation's name contains decides; '' is everything else.
LAYERS = (
    ("Conv_", "convolution"),
    ("InstanceNorm", "instance norm, leaky ReLU"),
    ("upsample", "upsampling"),
    ("concatenate", "concatenation"),
    ("UNet", "pooling, head"),
    ("", "loss, optimiser, layout copies"),
)


def layer(name: str) -> str:
    """The layer of an operation, and the direction of the pass."""
    found = next(label for pattern, label in LAYERS if pattern in name)
    if not found.startswith(("convolution", "instance")):
        return found
    return f"{found}: {'backward' if 'transpose(' in name else 'forward'}"


def spent(step: Any, again: Any, text: str, rounds: int) -> dict[str, float]:
    """Milliseconds per layer of one step."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(rounds):
                again(step)
        (file,) = Path(folder).rglob("*.xplane.pb")
        events = defaultdict(list)
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    events[event.name].append(event.duration_ns / 1e6)
    total: Counter[str] = Counter()
    for match in re.finditer(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$", text, re.MULTILINE):
        name, rest = match.groups()
        times = events.get(name)
        # A loop's own event spans those of its body, which are counted by themselves.
        if not times or name.startswith(("while", "call")):
            continue
        told = re.search(r'op_name="([^"]*)"', rest)
        per_step = np.array(sorted(times)[: max(len(times) // rounds, 1)]).sum()
        total[layer(told.group(1) if told else "")] += float(per_step)
    return dict(total)


def profiled(widths: tuple[int, ...], shape: tuple[int, ...], conv_impl: str) -> dict[str, float]:
    model, rng = UNet(CLASSES, widths, conv_impl=conv_impl), np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(*shape, 1)).astype(np.float32),
        "label": rng.integers(0, CLASSES, shape).astype(np.int32),
        "risk": np.ones(shape, np.float32),
        "foreground_fraction": np.full(shape[0], 0.1, np.float32),
        "index": np.arange(shape[0], dtype=np.int32),
        "weight": np.ones(shape[0], np.float32),
        "class_weights": np.ones((shape[0], CLASSES), np.float32),
    }
    on_device = jax.device_put(batch)
    optimizer = Schedule(1000, 1e-3, 0.05, 1e-4, 1.0).optimizer()
    params = jax.jit(model.init)(jax.random.key(0), on_device["image"][:1])["params"]
    start = jnp.zeros((), jnp.int32)
    state = TrainState(start, params, optimizer.init(params), jax.random.key(0))
    step = partial(train_step, model=model, optimizer=optimizer, loss=Loss(), augmentation=None)
    compiled = jax.jit(step).lower(state, on_device).compile()

    def again(run: Any) -> None:
        jax.block_until_ready(run(state, on_device))

    again(compiled)
    return spent(compiled, again, compiled.as_text(), _ROUNDS.value)


def main(_: list[str]) -> None:
    path = Path(__file__).with_name("profile.json")
    known = json.loads(path.read_text()) if path.is_file() else {}
    for name, network in NETWORKS.items():
        if _ONLY.value in name:
            known[name] = {impl: profiled(*network, impl) for impl in ("native", "shifted")}
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    app.run(main)
