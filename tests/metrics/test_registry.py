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
    OVER_VOXELS,
    LabelStatistics,
    conditional_log_probs,
    linear_classifier,
    metric,
    score_names,
    scored_by,
)

OF_ONE_TARGET = [n for n, card in METRICS.items() if card.needs in ("probabilities", "features")]
"""Metrics of a source's output on the target's voxels and their labels, nothing else."""


def test_the_names():
    assert len(METRICS) >= 25
    assert all(metric(name).name == name for name in METRICS)
    with pytest.raises(ValueError, match=r"'lep': known are .*h_score, .*leep, .*nce"):
        metric("lep")


def test_the_ones_over_every_voxel():
    assert (
        *("leep", "nce", "h_score", "regularized_h_score", "logme"),
        *("transrate", "gbc", "log_gbc", "lda"),
    ) == OVER_VOXELS


@pytest.mark.parametrize("name", METRICS)
def test_a_card_is_complete(name):
    card = metric(name)
    words = (card.meaning, card.range, card.comparable, card.cost, card.reference, card.departure)
    assert all(words)
    assert card.sign == {"higher": 1, "lower": -1}[card.direction]


def test_scores_are_named_by_layer_where_there_are_several():
    layers = ("decoder_0", "encoder_1")
    names = score_names(("leep", "logme", "cc_fv", "ncti", "hamming_distance"), layers)
    assert names == (
        *("leep", "logme@decoder_0", "logme@encoder_1", "cc_fv"),
        *("ncti@decoder_0", "ncti@encoder_1", "hamming_distance"),
    )
    assert scored_by("logme@encoder_1") == (metric("logme"), "encoder_1")
    assert scored_by("leep") == (metric("leep"), None)
    pooled = {name for name, card in METRICS.items() if card.pool_dependent}
    assert pooled == {"etran", "ncti"} == {n for n, card in METRICS.items() if card.terms}


def test_cards_cannot_be_changed():
    with pytest.raises(TypeError):
        METRICS["leep"] = metric("nce")
    with pytest.raises(FrozenInstanceError):
        metric("leep").direction = "lower"


def _statistics(card, voxels):
    if card.needs == "probabilities":
        batch, zeros = (voxels.log_probs, voxels.labels), card.statistics.zeros(3, 4)
    else:
        batch, zeros = (voxels.features, voxels.labels), card.statistics.zeros(3, 6)
    stats = zeros.update(*batch)
    if card.second_pass:
        first = conditional_log_probs if card.statistics is LabelStatistics else linear_classifier
        stats = card.second_pass.zeros(3).update(*batch, first(stats))
    return stats


def _score(card, voxels, order):
    labels = voxels.labels
    if card.name == "nce":
        guess = voxels.log_probs.argmax(1)[order]
        return card.compute(guess, labels, num_source_classes=4, num_classes=3)
    batch = voxels.log_probs if card.needs == "probabilities" else voxels.features
    return card.compute(batch[order], labels, num_classes=3)


@pytest.mark.parametrize("name", [n for n, card in METRICS.items() if card.finalise])
def test_both_ways_of_a_card_agree(name, draw):
    card, voxels = metric(name), draw(0)
    direct = float(_score(card, voxels, np.arange(len(voxels.labels))))
    assert float(card.finalise(_statistics(card, voxels))) == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize(
    "name",
    # The energy asks for no labels, and the rank term of NCTI is one part of a total.
    [n for n in OF_ONE_TARGET if n not in ("etran_energy", "ncti_vc")],
)
def test_a_source_that_knows_more_scores_better(name, draw):
    card, voxels = metric(name), draw(1)
    ignorant = np.random.default_rng(0).permutation(120)
    knows = card.sign * float(_score(card, voxels, np.arange(120)))
    assert knows > card.sign * float(_score(card, voxels, ignorant))


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
