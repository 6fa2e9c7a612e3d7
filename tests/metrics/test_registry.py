"""The cards: complete, true of the functions they name, and light to import."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

import jaxfer.metrics as metrics
from jaxfer.metrics import (
    METRICS,
    FeatureStatistics,
    LabelStatistics,
    conditional_log_probs,
    metric,
)


def test_the_names():
    assert set(METRICS) == {"leep", "nce", "h_score", "logme"}
    assert all(metric(name).name == name for name in METRICS)
    with pytest.raises(ValueError, match=r"'lep': known are h_score, leep, logme, nce"):
        metric("lep")


def test_cards_cannot_be_changed():
    with pytest.raises(TypeError):
        METRICS["leep"] = metric("nce")
    with pytest.raises(FrozenInstanceError):
        metric("leep").direction = "lower"


@pytest.mark.parametrize("name", METRICS)
def test_a_card_is_complete_and_its_two_ways_agree(name, draw):
    card, voxels = metric(name), draw(0)
    words = (card.range, card.comparable, card.cost, card.reference, card.departure)
    assert all(words)
    assert card.sign == 1
    if card.needs == "probabilities":
        batch = voxels.log_probs, voxels.labels
        stats = LabelStatistics.zeros(3, 4)
    else:
        batch = voxels.features, voxels.labels
        stats = FeatureStatistics.zeros(3, 6)
    assert type(stats) is card.statistics
    stats = stats.update(*batch)
    if card.second_pass:
        stats = card.second_pass.zeros(3).update(*batch, conditional_log_probs(stats))
    if name == "nce":
        direct = card.compute(
            voxels.log_probs.argmax(1), voxels.labels, num_source_classes=4, num_classes=3
        )
    else:
        direct = card.compute(*batch, num_classes=3)
    assert float(card.finalise(stats)) == pytest.approx(float(direct), rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_a_source_that_knows_more_scores_higher(name, draw):
    card, voxels = metric(name), draw(1)
    labels = voxels.labels
    ignorant = np.random.default_rng(0).permutation(120)

    def score(order):
        if name == "nce":
            guess = voxels.log_probs.argmax(1)[order]
            return card.compute(guess, labels, num_source_classes=4, num_classes=3)
        batch = voxels.log_probs if card.needs == "probabilities" else voxels.features
        return card.compute(batch[order], labels, num_classes=3)

    assert card.sign * float(score(np.arange(120))) > card.sign * float(score(ignorant))


def test_every_public_name_exists():
    assert len(set(metrics.__all__)) == len(metrics.__all__)
    assert all(hasattr(metrics, name) for name in metrics.__all__)


def test_importing_the_metrics_imports_neither_scipy_nor_the_rest():
    code = (
        "import sys, jaxfer.metrics; "
        "print([m for m in sys.modules if m.startswith(('scipy', 'jaxfer.', 'flax', 'optax')) "
        "and not m.startswith('jaxfer.metrics')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
