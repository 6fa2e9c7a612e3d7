"""Paired gains: their means by hand, and intervals that know what belongs together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from jaxfer.study.gains import PairedGain, Table
from jaxfer.study.gains import paired_gain as gain_of


def paired_gain(differences: Mapping[str, Table], **settings: int) -> PairedGain:
    """Of sources that have the same names on all targets."""
    names = {t: [f"s{k}" for k in range(len(own))] for t, own in differences.items()}
    return gain_of(differences, names, **settings)


def test_the_mean_is_over_what_is_there_and_targets_weigh_alike():
    a = np.array([[[0.1, 0.3], [np.nan, np.nan]], [[0.2, np.nan], [0.0, -0.2]]])
    b = np.full((1, 3, 2), -0.5)
    found = paired_gain({"a": a, "b": b, "none": np.full((1, 1, 1), np.nan)})
    assert found.value == pytest.approx((0.4 / 5 - 0.5) / 2)
    assert found.pairs[("a", "s0")] == pytest.approx(0.2)
    assert found.pairs[("a", "s1")] == pytest.approx(0.0)
    assert found.positive == (1, 3)
    assert found.compared == 3 + 3


def test_a_draw_is_the_mean_of_what_was_drawn():
    """Against one draw after the other, by indices."""
    table = np.random.default_rng(0).normal(size=(3, 4, 5))
    table[0, 1] = np.nan
    found = paired_gain({"a": table}, seed=7, draws=400)
    rng = np.random.default_rng(7)
    counts = [rng.multinomial(n, np.full(n, 1 / n), size=400) for n in table.shape]
    means = []
    for s, b, n in zip(*counts, strict=True):
        drawn = np.repeat(np.repeat(np.repeat(table, s, 0), b, 1), n, 2)
        means.append(np.nanmean(drawn))
    assert (found.low, found.high) == pytest.approx(np.quantile(means, (0.025, 0.975)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_the_same_within_a_unit_is_one_measurement(axis):
    """Sixty numbers that are three different ones are as sure as three numbers."""
    shape = [4, 4, 5]
    shape[axis] = 3
    values = np.array([-1.0, 0.5, 2.0]).reshape([3 if k == axis else 1 for k in range(3)])
    found = paired_gain({"a": np.broadcast_to(values, shape)}, draws=4000)
    alone = paired_gain({"a": np.broadcast_to(values.reshape(1, 3, 1), (1, 3, 2))}, draws=4000)
    assert found.low == pytest.approx(alone.low, abs=1e-9)
    assert found.high == pytest.approx(alone.high, abs=1e-9)
    assert found.verdict == "cannot be told"


def _misses(world) -> float:
    """Share of 200 worlds without a gain whose interval leaves 0 out."""
    missed = 0
    for number in range(200):
        found = paired_gain(world(np.random.default_rng(number)), seed=number, draws=400)
        missed += not found.low <= 0 <= found.high
    return missed / 200


def test_an_interval_covers_what_it_should():
    """Effects of subsets, sources and subjects together; eight units of each are few."""

    def world(rng):
        parts = [rng.normal(size=[8 if k == j else 1 for j in range(3)]) for k in range(3)]
        return {"a": sum(parts) + 0.5 * rng.normal(size=(8, 8, 8))}

    assert _misses(world) <= 0.10


def test_a_source_that_is_good_on_all_targets_is_one_measurement():
    """What three targets share of their ten sources does not make thirty of them."""

    def world(rng):
        shared = rng.normal(size=(10, 1, 1))
        return {t: shared + 0.1 * rng.normal(size=(10, 6, 12)) for t in "abc"}

    assert _misses(world) <= 0.12


def test_one_subset_alone_tells_nothing():
    assert paired_gain({"a": np.full((4, 1, 8), 0.1)}).verdict == "cannot be told"
    assert paired_gain({"a": np.full((4, 2, 8), 0.1)}).verdict == "holds"


def test_places_that_hold_nothing_are_drawn_nowhere():
    own = np.random.default_rng(1).normal(size=(2, 3, 5))
    table = np.full((2, 6, 9), np.nan)
    table[:, 1::2, 2:7] = own
    found, expected = (paired_gain({"t": t}, draws=300) for t in (table, own))
    assert found == expected
    assert found.undefined_draws == 0
    table[:, 3:] = np.nan
    alone = paired_gain({"t": table}, draws=300)
    assert alone.drawn == 1
    assert alone.verdict == "cannot be told"


def test_a_gain_everywhere_holds_and_a_loss_does_not():
    gains = 0.02 + 0.01 * np.random.default_rng(0).normal(size=(4, 6, 8))
    assert paired_gain({"a": gains}).verdict == "holds"
    assert paired_gain({"a": -gains}).verdict == "does not hold"


def test_nothing_to_compare_is_no_number():
    found = paired_gain({"a": np.full((2, 2, 2), np.nan)})
    assert np.isnan(found.value)
    assert found.verdict == "cannot be told"
    assert found.positive == (0, 0)
