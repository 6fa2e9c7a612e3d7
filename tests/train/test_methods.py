"""The registry of methods: each is its own, and the guide tells of each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxfer.train.controls import controlled
from jaxfer.train.methods import METHODS, MapUse

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")


def test_no_two_methods_are_the_same() -> None:
    kinds = [replace(method, words="") for method in METHODS.values()]
    assert len(set(kinds)) == len(kinds)
    assert len({method.words for method in METHODS.values()}) == len(METHODS)


def test_the_guides_table_has_every_method_once() -> None:
    table = GUIDE.split("## Methods of fine-tuning")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(METHODS)


def test_a_control_of_a_map_differs_from_its_method_by_the_control_alone() -> None:
    for name, of, controls in (
        ("weighted_shuffled", "weighted", ("shuffled",)),
        ("weighted_positional_shuffled", "weighted_positional", ("shuffled",)),
        ("weighted_foreground", "weighted", ("foreground",)),
        ("weighted_inverted", "weighted", ("inverted",)),
        ("plain_where_shuffled", "plain_where", ("where", "shuffled")),
        ("plain_where_inverted", "plain_where", ("inverted", "where")),
        ("plain_where_all_shuffled", "plain_where_all", ("where", "shuffled")),
        ("plain_softened_shuffled", "plain_softened", ("shuffled",)),
        ("risk_sampled_shuffled", "risk_sampled", ("shuffled",)),
    ):
        method, control = METHODS[of], METHODS[name]
        assert method.risk is not None
        expected = replace(method, risk=replace(method.risk, controls=controls), words="")
        assert replace(control, words="") == expected
    assert METHODS["weighted_other"].risk == MapUse(whose="other")


def test_plain_where_is_plain_but_for_the_map() -> None:
    assert replace(METHODS["plain_where"], risk=None, words="") == replace(
        METHODS["plain"], words=""
    )


def test_methods_from_scratch_use_nothing_of_the_source() -> None:
    for method in METHODS.values():
        if not method.transferred:
            assert method.risk is None
            assert not method.pulled
            assert not method.discriminative
            assert method.trains == "all"


@pytest.mark.parametrize("name", METHODS)
def test_every_control_exists(name: str) -> None:
    use = METHODS[name].risk
    if use is not None:
        weights, classes = np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8)
        assert controlled(weights, classes, use.controls, 0).shape == (2, 2)
