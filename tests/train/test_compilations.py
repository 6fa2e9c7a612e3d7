"""How often the network is compiled: once per shape, and hardly at all by a second process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jaxfer.models.unet import UNet
from jaxfer.train.loop import Upkeep, fit, initial_params
from jaxfer.train.predict import predict_volume
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss

SIDE, CLASSES, BATCH = 8, 3, 4


class Counted(UNet):
    """Notes the shape of every image that it is traced with."""

    def __call__(self, image):
        TRACED.append(image.shape)
        return super().__call__(image)


TRACED: list[tuple[int, ...]] = []
MODEL = Counted(num_classes=CLASSES, widths=(2,))


@pytest.fixture
def traced() -> list[tuple[int, ...]]:
    TRACED.clear()
    return TRACED


def batches(done: int) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(done)
    shape = (BATCH, SIDE, SIDE)
    for _ in range(done, 3):
        yield {
            "image": rng.standard_normal((*shape, 1)).astype(np.float32),
            "label": rng.integers(0, CLASSES, shape).astype(np.int32),
            "risk": np.ones(shape, np.float32),
            "foreground_fraction": np.full(BATCH, 0.3, np.float32),
            "index": np.arange(BATCH, dtype=np.int32),
        }


def test_trainings_with_other_weights_and_seeds_share_one_compilation(traced, tmp_path):
    starts = [initial_params(MODEL, (SIDE, SIDE), seed) for seed in (0, 1)]
    traced.clear()
    for seed, params in enumerate(starts):
        fit(
            params,
            batches,
            model=MODEL,
            schedule=Schedule(3, 1e-2, 0.0, 0.0, 1.0),
            loss=Loss(),
            class_weights=(1.0, 2.0, 1.0 + seed),
            augmentation=None,
            seed=seed,
            upkeep=Upkeep(tmp_path / f"{seed}.jsonl"),
        )
    assert traced == [(BATCH // jax.local_device_count(), SIDE, SIDE, 1)]


def test_the_last_tiles_of_a_volume_are_filled_up_to_a_batch(traced):
    params = initial_params(MODEL, (SIDE, SIDE), 0)
    traced.clear()
    devices = jax.local_device_count()
    how = {"patch": (SIDE, SIDE), "overlap": 0.5, "batch_size": devices}
    for slices in (devices, devices + 1, 2 * devices - 1):
        volume = np.random.default_rng(slices).standard_normal((SIDE, SIDE, slices))
        predict_volume(MODEL, params, volume.astype(np.float32), **how)
    assert traced == [(1, SIDE, SIDE, 1)]


START = """
import sys, time
import jax
from jaxfer.launch import _remember_compilations
from jaxfer.train.loop import initial_params
from jaxfer.models.unet import UNet
_remember_compilations(sys.argv[1])
model = UNet(3, (8, 16, 32, 32))
image = jax.ShapeDtypeStruct((2, 32, 32, 1), "float32")
params = jax.eval_shape(model.init, jax.random.key(0), image)
loss = jax.grad(lambda p, x: model.apply(p, x)[0].var())
lowered = jax.jit(loss).lower(params, image)
start = time.process_time()
lowered.compile()
print(time.process_time() - start)
"""


def test_a_second_process_compiles_in_a_third_of_the_time(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)

    def start() -> float:
        command = [sys.executable, "-c", START, str(tmp_path / "compiled")]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    first, second = start(), start()
    assert second < first / 3
