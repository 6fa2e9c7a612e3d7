"""This project's jobs: training steps, whole volumes, metrics, selection of a source."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from voxels import CLASSES, FEATURES, SOURCES, Voxels, draw, halves

from jaxfer.data.preprocess import field_of_view
from jaxfer.data.sampler import TaskCase, task_case
from jaxfer.data.store import StoredCase
from jaxfer.memory import keep_freed_memory
from jaxfer.metrics import (
    ClassFeatureStatistics,
    FeatureStatistics,
    LabelStatistics,
    PosteriorStatistics,
    PredictionStatistics,
    conditional_log_probs,
    linear_classifier,
    metric,
)
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.selection.draw import Sampling
from jaxfer.selection.network import batches
from jaxfer.selection.score import score_source
from jaxfer.selection.statistics import add_voxels
from jaxfer.tasks import RoI
from jaxfer.train.loop import initial_params
from jaxfer.train.predict import forward, predict_volume, tile_batches, tiles
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, TrainState, pmap_step, replicate, shard, train_step

BATCH = 50_000
"""Voxels that are scored in one call."""
SCHEDULE = Schedule(1000, 1e-3, 0.05, 1e-4, 1.0)

Told = dict[str, Any]
_scratch = Path()


def prepare(devices: int, scratch: str, **_: object) -> None:
    """The number of virtual devices and what a run does with freed memory, before JAX starts;
    where files go."""
    global _scratch
    keep_freed_memory()
    jax.config.update("jax_num_cpu_devices", devices)
    _scratch = Path(scratch)


def versions() -> dict[str, str]:
    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}


def product(side: int) -> Callable[[], Told]:
    """A product of square matrices: what the machine can reach."""
    matrix = jnp.ones((side, side), jnp.float32)
    multiply = jax.jit(lambda a, b: a @ b)

    def job() -> Told:
        multiply(matrix, matrix).block_until_ready()
        return {"operations": 2 * side**3}

    return job


def patches(shape: Sequence[int]) -> dict[str, np.ndarray]:
    """A random batch as the sampler makes them."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(*shape, 1)).astype(np.float32),
        "label": rng.integers(0, CLASSES, shape).astype(np.int32),
        "risk": np.ones(shape, np.float32),
        "foreground_fraction": np.full(shape[0], 0.1, np.float32),
        "index": np.arange(shape[0], dtype=np.int32),
        "weight": np.ones(shape[0], np.float32),
        "class_weights": np.ones((shape[0], CLASSES), np.float32),
    }


def started(model: UNet, patch: Sequence[int]) -> TrainState:
    """The state of a training before its first step."""
    params = initial_params(model, tuple(patch), 0)
    opt_state = SCHEDULE.optimizer().init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(0))


def one_step(model: UNet) -> Callable[[TrainState, Any], tuple[TrainState, Any]]:
    """The training step on one device, not yet compiled."""
    optimizer = SCHEDULE.optimizer()
    return partial(train_step, model=model, optimizer=optimizer, loss=Loss(), augmentation=None)


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of a function, as XLA counts them before it optimises."""
    counted: Any = jax.jit(function).lower(*arguments).cost_analysis()
    return float(counted["flops"])


def weights_of(params: Any) -> int:
    """How many weights the kernels have."""
    return sum(own.size for own in jax.tree.leaves(params) if own.ndim > 1)


def training(widths: list[int], shape: list[int]) -> Callable[[], Told]:
    """One training step over all devices of this process: cross-entropy and soft Dice, clipped
    gradients, AdamW."""
    devices, model = jax.local_device_count(), UNet(CLASSES, tuple(widths))
    slabs = shape[0] % devices > 0
    state, batch = started(model, shape[1:]), patches(shape)
    weights = weights_of(state.params)
    native = one_step(UNet(CLASSES, tuple(widths), conv_impl="native"))
    needed = operations(native, state, batch)
    step = pmap_step(
        model=model,
        schedule=SCHEDULE,
        loss=Loss(),
        augmentation=None,
        devices=devices,
        slabs=slabs,
    )
    state, batch = replicate(state, devices), shard(batch, devices, slabs=slabs)

    def job() -> Told:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        return {"operations": needed, "weights": weights}

    return job


def inference(
    widths: list[int], volume: list[int], patch: list[int], batch: int
) -> Callable[[], Told]:
    """A whole volume by overlapping tiles."""
    model = UNet(CLASSES, tuple(widths))
    image = np.random.default_rng(0).normal(size=volume).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *patch, 1)))["params"]
    how: Any = {"patch": tuple(patch), "overlap": 0.5, "batch_size": batch}

    def job() -> Told:
        predict_volume(model, params, image, **how)
        return {"weights": weights_of(params)}

    return job


update_labels = jax.jit(LabelStatistics.update)
update_features = jax.jit(ClassFeatureStatistics.update)
update_predictions = jax.jit(PredictionStatistics.update)
update_posteriors = jax.jit(PosteriorStatistics.update)


def score(metrics: list[str], size: int) -> Callable[[], Told]:
    """Metrics of a stream of `size` voxels, batch by batch; the voxels repeat, so that they fit."""
    cards = [metric(name) for name in metrics]
    kinds = {kind for card in cards for kind in (card.statistics, card.second_pass)}
    voxels = draw(min(size, 20 * BATCH))

    def stream() -> Iterator[Voxels]:
        for start in range(0, size, BATCH):
            at = start % len(voxels.labels)
            yield Voxels(*(x[at : at + min(BATCH, size - start)] for x in voxels))

    def passed(update: Any, stats: Any, column: str, *more: Any) -> Any:
        # Every batch is awaited, or those that queue for the device would count as memory.
        for batch in stream():
            stats = update(stats, getattr(batch, column), batch.labels, *more)
            jax.block_until_ready(stats)
        return stats

    def job() -> Told:
        known: dict[Any, Any] = {}
        if kinds & {LabelStatistics, PredictionStatistics}:
            known[LabelStatistics] = passed(
                update_labels, LabelStatistics.zeros(CLASSES, SOURCES), "log_probs"
            )
        if kinds & {FeatureStatistics, ClassFeatureStatistics, PosteriorStatistics}:
            by_class = passed(
                update_features, ClassFeatureStatistics.zeros(CLASSES, FEATURES), "features"
            )
            known |= {ClassFeatureStatistics: by_class, FeatureStatistics: by_class.features()}
        if PredictionStatistics in kinds:
            table = conditional_log_probs(known[LabelStatistics])
            zeros = PredictionStatistics.zeros(CLASSES)
            known[PredictionStatistics] = passed(update_predictions, zeros, "log_probs", table)
        if PosteriorStatistics in kinds:
            classifier = linear_classifier(known[ClassFeatureStatistics])
            zeros = PosteriorStatistics.zeros(CLASSES)
            known[PosteriorStatistics] = passed(update_posteriors, zeros, "features", classifier)
        told: Told = {
            "scores": [
                float(card.finalise(known[card.second_pass or card.statistics]))
                for card in cards
                if card.finalise is not None
            ]
        }
        if ClassFeatureStatistics in known:
            told["operations"] = 2 * size * FEATURES**2
        return told

    return job


def neighbours(size: int, k: int) -> Callable[[], Told]:
    """Leave-one-out accuracy of the k nearest neighbours."""
    voxels = draw(size)
    compute = metric("knn_accuracy").compute
    return lambda: {
        "scores": [float(compute(voxels.features, voxels.labels, num_classes=CLASSES, k=k))]
    }


def transport(size: int) -> Callable[[], Told]:
    """The entropy of F-OTCE's plan between voxels of source and target."""
    source, target = halves(size)
    compute = metric("f_otce").compute

    def job() -> Told:
        found: Any = compute(
            source.features,
            source.labels,
            target.features,
            target.labels,
            num_source_classes=CLASSES,
            num_classes=CLASSES,
        )
        return {"scores": [float(found.w_t)]}

    return job


def _target(shape: Sequence[int], number: int) -> list[TaskCase]:
    """Cases in the store, of random voxels."""
    rng, cases = np.random.default_rng(0), []
    roi = RoI("roi", tuple((f"class{k}", (k,)) for k in range(1, CLASSES)))
    for case in range(number):
        folder = Path(tempfile.mkdtemp(dir=_scratch))
        np.save(folder / "t1.npy", rng.normal(size=shape).astype(np.float16))
        np.save(folder / "label.npy", rng.integers(0, CLASSES, shape).astype(np.uint8))
        geometry = field_of_view(tuple(shape), np.eye(4), (1.0, 1.0, 1.0))
        stored = StoredCase(f"case{case}", f"case{case}", "site", folder, geometry, {})
        cases.append(task_case(stored, "t1", roi, ()))
    return cases


def _source(widths: list[int], patch: list[int]) -> Source:
    model = UNet(CLASSES, tuple(widths))
    card = {"patch": patch}
    return Source(card, model, initial_params(model, tuple(patch), 0), np.zeros((1, 8), np.uint8))


def selection(
    widths: list[int], shape: list[int], cases: int, patch: list[int], batch: int
) -> Callable[[], Told]:
    """A source scored by the metrics that a run uses unless told otherwise."""
    source, target = _source(widths, patch), _target(shape, cases)

    def job() -> Told:
        found = score_source(
            source,
            target,
            metrics=("leep", "nce", "h_score", "logme"),
            layers=("decoder_0",),
            patch=tuple(patch),
            batch_size=batch,
            sampling=Sampling(1000, 3, 0.1),
            key=jax.random.key(0),
        )
        return {"seconds": vars(found.seconds)}

    return job


def bare_forward(
    widths: list[int], shape: list[int], cases: int, patch: list[int], batch: int
) -> Callable[[], None]:
    """The network alone over the images' tiles, without labels, every batch awaited."""
    source, target, side = _source(widths, patch), _target(shape, cases), tuple(patch)

    def job() -> None:
        for case in target:
            image = case.sliced_image()
            for _, own in tile_batches(image, tiles(image.shape, side, 0.0), side, batch):
                outputs = forward(source.model, source.params, jnp.asarray(own))
                jax.block_until_ready((outputs[0], outputs[1]["decoder_0"]))

    return job


def statistics(
    widths: list[int], shape: list[int], cases: int, patch: list[int], batch: int
) -> Callable[[], None]:
    """Adding voxels to the statistics alone, as many batches of them, of outputs that are there
    already."""
    source, target = _source(widths, patch), _target(shape, cases)
    own = next(batches(target[0], tuple(patch), batch))
    log_probs, features = forward(source.model, source.params, jnp.asarray(own.image))
    outputs = {"log_probs": log_probs, "decoder_0": features["decoder_0"]}
    number = sum(1 for case in target for _ in batches(case, tuple(patch), batch))

    def job() -> None:
        stats: Any = (
            LabelStatistics.zeros(CLASSES, CLASSES),
            {"decoder_0": ClassFeatureStatistics.zeros(CLASSES, widths[0])},
        )
        for _ in range(number):
            stats = add_voxels(*stats, outputs, own.labels)
        jax.block_until_ready(stats)

    return job


def importing(module: str) -> Callable[[], None]:
    """A process that imports a module."""

    def job() -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    return job


_START = """
import sys, time
sys.path[:0] = {path!r}
import jax
import jobs_jaxfer as jobs
jax.config.update("jax_compilation_cache_dir", {folder!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
model = jobs.UNet(jobs.CLASSES, {widths!r})
batch = jobs.patches({shape!r})
state = jax.eval_shape(lambda: jobs.started(model, {shape!r}[1:]))
wall, cpu = time.perf_counter(), time.process_time()
jax.jit(jobs.one_step(model)).lower(state, batch).compile()
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def compiling(widths: list[int], shape: list[int], again: bool) -> Callable[[], Told]:
    """A process that traces and compiles a training step, with what an earlier one kept or not."""

    def job() -> Told:
        folder = _scratch / "compiled"
        if not again:
            shutil.rmtree(folder, ignore_errors=True)
        here = Path(__file__).parent
        code = _START.format(
            path=[str(here), str(here.parent)], folder=str(folder), widths=widths, shape=shape
        )
        told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        wall, cpu = map(float, told.stdout.split())
        return {"wall": wall, "cpu": cpu}

    return job


# The first pattern that an operation's name contains decides; '' is everything else. XLA leaves the
# convolutions that form a 2-D kernel's gradient, and the copies that they need, without a name.
LAYERS = (
    ("Conv_", "convolution"),
    ("InstanceNorm", "instance norm, leaky ReLU"),
    ("upsample", "upsampling"),
    ("concatenate", "concatenation"),
    ("UNet", "pooling, head"),
    ("jit(", "loss, optimiser"),
    ("", "convolution: backward"),
)


def _layer(name: str) -> str:
    """The layer of an operation, and the direction of the pass."""
    found = next(label for pattern, label in LAYERS if pattern in name)
    if found not in ("convolution", "instance norm, leaky ReLU"):
        return found
    return f"{found}: {'backward' if 'transpose(' in name else 'forward'}"


def profiled(widths: list[int], shape: list[int], conv_impl: str) -> Callable[[], Told]:
    """One training step; every operation that XLA ran is timed by JAX's profiler and counted to
    the layer that its name in the compiled program tells."""
    model, batch = UNet(CLASSES, tuple(widths), conv_impl=conv_impl), jax.device_put(patches(shape))
    state = started(model, shape[1:])
    compiled = jax.jit(one_step(model)).lower(state, batch).compile()
    names = {}
    for match in re.finditer(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$", compiled.as_text(), re.M):
        name, rest = match.groups()
        told = re.search(r'op_name="([^"]*)"', rest)
        # A loop's own event spans those of its body, which are counted by themselves.
        if not name.startswith(("while", "call")):
            names[name] = _layer(told.group(1) if told else "")

    def job() -> Told:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                jax.block_until_ready(compiled(state, batch))
            (file,) = Path(folder).rglob("*.xplane.pb")
            events: dict[str, float] = defaultdict(float)
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                for line in plane.lines:
                    for event in line.events:
                        events[event.name] += event.duration_ns / 1e9
        total: Counter[str] = Counter()
        for name, seconds in events.items():
            if name in names:
                total[names[name]] += seconds
        return {"parts": dict(total)}

    return job


JOBS = {
    "product": product,
    "train": training,
    "infer": inference,
    "score": score,
    "neighbours": neighbours,
    "transport": transport,
    "select": selection,
    "bare forward": bare_forward,
    "statistics": statistics,
    "import": importing,
    "compile": compiling,
    "profile": profiled,
}
