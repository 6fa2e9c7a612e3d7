"""What each method makes of its map, against the same in float64 by other means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import create_autospec

import numpy as np
import pytest
from rich.console import Console
from scipy.ndimage import gaussian_filter

from jaxfer.config import default_config
from jaxfer.data.preprocess import field_of_view
from jaxfer.data.sampler import TaskCase, task_case
from jaxfer.data.store import StoredCase
from jaxfer.metrics import ClassFeatureStatistics
from jaxfer.models.zoo import Source
from jaxfer.stages.interrupt import Interruption
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.risk import source_log_probs, weights_for
from jaxfer.stages.run import Run
from jaxfer.stages.training import network
from jaxfer.tasks import IGNORE, RoI
from jaxfer.train.feature_risk import posterior_risk
from jaxfer.train.loop import initial_params
from jaxfer.train.methods import METHODS
from jaxfer.train.predict import predict_volume

Volumes = Sequence[np.ndarray]
CLASSES, GAIN, CLIP = 3, 0.5, 20.0


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[TaskCase]:
    roi, made = RoI("roi", (("core", (1,)), ("rim", (2,)))), []
    for number in range(2):
        rng, folder = np.random.default_rng(number), tmp_path_factory.mktemp(f"case{number}")
        classes = rng.choice(np.uint8([0, 0, 0, 0, 1, 2, IGNORE]), (12, 11, 3))
        image = np.where(classes == IGNORE, 0, classes) + rng.normal(size=classes.shape)
        np.save(folder / "label.npy", classes)
        np.save(folder / "t2.npy", image.astype(np.float16))
        geometry = field_of_view(classes.shape, np.eye(4), (1.0, 1.0, 1.0))
        content = {"t2.npy": "image", "label.npy": "labels"}
        stored = StoredCase(f"case{number}", f"case{number}", "site", folder, geometry, content)
        made.append(task_case(stored, "t2", roi, (IGNORE,)))
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = default_config()
    config.model.widths, config.model.patch = (3, 4), (8, 8)
    folder = tmp_path_factory.mktemp("run")
    return Run(config, folder, Console(quiet=True), Interruption())


@pytest.fixture(scope="module")
def source(run: Run) -> Source:
    model = network(run.config, CLASSES)
    card = {"patch": [8, 8], "fingerprint": "a"}
    return Source(card, model, initial_params(model, (8, 8), 3), np.zeros((1, 1), np.uint8))


@pytest.fixture(scope="module")
def classes(cases: list[TaskCase]) -> Volumes:
    return [case.classes() for case in cases]


@pytest.fixture(scope="module")
def seen(run: Run, source: Source, cases: list[TaskCase]) -> Volumes:
    """The source's probabilities."""
    return [np.exp(source_log_probs(run, source, c.image()).astype(np.float64)) for c in cases]


def leep(classes: Volumes, seen: Volumes, *, balanced: bool = False) -> Volumes:
    """−log of what the source expects of each label."""
    joint = np.zeros((CLASSES, CLASSES))
    for own, probs in zip(classes, seen, strict=True):
        for index in range(CLASSES):
            joint[index] += probs[own == index].sum(0)
    if balanced:
        joint /= joint.sum(1, keepdims=True)
    table = joint / joint.sum(0)
    found = []
    for own, probs in zip(classes, seen, strict=True):
        rows = table[np.where(own == IGNORE, 0, own)]
        found.append(np.where(own == IGNORE, 0, -np.log((rows * probs).sum(-1))))
    return found


def of_features(source: Source, cases: list[TaskCase], classes: Volumes, metric: str) -> Volumes:
    """The risk of a metric of the features, by the library's own function on all voxels at once."""
    features = [
        predict_volume(
            *(source.model, source.params, case.image()),
            patch=(8, 8),
            overlap=0.5,
            batch_size=1,
            plane="axial",
            layer="decoder_0",
        )
        for case in cases
    ]
    rows = np.concatenate(features, 2)
    labels = np.concatenate(list(classes), 2)
    valid = labels != IGNORE
    stats = ClassFeatureStatistics.zeros(CLASSES, 3)
    stats = stats.update(rows, np.where(valid, labels, 0), mask=valid)
    return np.split(posterior_risk(rows, labels, stats, valid, metric), len(cases), 2)


def within(weights: Volumes, classes: Volumes) -> Volumes:
    """Over the mean of their class in the case."""
    found = []
    for own, values in zip(classes, weights, strict=True):
        whole = np.zeros(own.shape)
        for index in range(CLASSES):
            whole[own == index] = values[own == index] / values[own == index].mean()
        found.append(whole)
    return found


def blurred(risk: Volumes, classes: Volumes) -> Volumes:
    found = []
    for own, values in zip(classes, risk, strict=True):
        valid = (own != IGNORE).astype(np.float64)
        total, mass = (
            gaussian_filter(a, (2, 2, 0), mode="constant") for a in (values * valid, valid)
        )
        found.append(np.where(valid > 0, total / np.where(valid > 0, mass, 1), 0))
    return found


def limited(risk: Volumes, classes: Volumes) -> Volumes:
    """Near another label no higher than the class's median away from there."""
    found = []
    for own, values in zip(classes, risk, strict=True):
        near = np.zeros(own.shape, bool)
        for row, column, z in np.ndindex(own.shape):
            around = own[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, z]
            near[row, column, z] = len({*around[around != IGNORE].tolist()}) > 1
        whole = values.copy()
        for index in range(CLASSES):
            inside, away = own == index, (own == index) & ~near
            limit = np.median(values[away if away.any() else inside])
            whole[inside & near] = np.minimum(values[inside & near], limit)
        found.append(whole)
    return found


def amplified(risk: Volumes, gain: float = GAIN) -> Volumes:
    return [np.minimum(np.exp(gain * values), CLIP) for values in risk]


def test_what_each_method_makes_of_its_map(run, source, cases, classes, seen) -> None:
    risk = leep(classes, seen)
    expected = {
        "weighted": amplified(risk),
        "weighted_balanced": amplified(leep(classes, seen, balanced=True)),
        "plain_where": within(amplified(risk), classes),
        "plain_where_nats": within(risk, classes),
        "plain_where_trusted": within(amplified(risk, -1.0), classes),
        "plain_where_smooth": within(amplified(blurred(risk, classes)), classes),
        "plain_where_inner": within(amplified(limited(risk, classes)), classes),
        "plain_where_all": within(amplified(risk), classes),
        "plain_where_lda": within(amplified(of_features(source, cases, classes, "lda")), classes),
        "plain_softened": amplified(risk, -1.0),
        "risk_sampled": risk,
    }
    uses = [METHODS[name].risk for name in expected]
    prepared = create_autospec(Prepared, instance=True)
    made = weights_for(run, prepared, [source], cases, uses, run.workdir / "risk")
    for (name, weights), files in zip(expected.items(), made, strict=True):
        for own, values, file in zip(classes, weights, files, strict=True):
            found = np.load(file)
            np.testing.assert_allclose(
                found, np.where(own == IGNORE, 0, values), rtol=2e-5, atol=1e-6, err_msg=name
            )
    # The mean over all sources is, with one source, its own map; no two others are the same.
    told = {np.round(weights[0], 4).tobytes() for weights in expected.values()}
    assert len(told) == len(expected) - 1


def test_the_clip_and_the_normaliser_are_the_configured_ones(
    run, source, cases, classes, seen
) -> None:
    config = run.config.copy_and_resolve_references()
    config.risk.clip, config.risk.normalise, config.risk.gain = 1.3, "mean1", 1.0
    run = replace(run, config=config)
    prepared = create_autospec(Prepared, instance=True)
    use = METHODS["weighted"].risk
    files = weights_for(run, prepared, [source], cases, [use], run.workdir / "clipped")[0]
    for own, risk, file in zip(classes, leep(classes, seen), files, strict=True):
        valid = own != IGNORE
        expected = np.minimum(np.exp(risk / risk[valid].mean()), 1.3)
        assert (expected[valid] == 1.3).any()
        np.testing.assert_allclose(np.load(file), np.where(valid, expected, 0), rtol=2e-5)
