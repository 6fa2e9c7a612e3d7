"""The page of the study on made-up tables: what is known of them stands on the page."""

from __future__ import annotations

import csv
import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.launching import ROOT
from tests.study_records import RESULTS, check_provenance, study_folder

TARGETS = ("p/one/t1/a", "p/two/t2/b", "p/three/flair/c", "p/four/t1/d")
SOURCES = tuple(f"s/all/{m}/{r}" for m in ("t1", "t2", "flair") for r in "abcdef")
SCORES = ("target", "shots", "subset", "pretraining", "source", "score", "value", "low", "high")


@pytest.fixture(scope="module")
def maker() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("make_selection")


def write(path: Path, head: tuple, rows: list[tuple]) -> None:
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([head, *rows])


def world(folder: Path, *, effect: float, seed: int = 0) -> Path:
    """Tables in which the claims hold by an effect: 1 for all that is claimed, 0 for nothing."""
    rng = np.random.default_rng(seed)
    results, scores = [], []
    similarity = {(t, s): rng.random() for t, s in itertools.product(TARGETS, SOURCES)}
    for t, target in enumerate(TARGETS):
        modality = target.split("/")[2]
        people = [(f"p{t}-{n}", 0.03 * rng.normal()) for n in range(6)]
        truth = {}
        for source in SOURCES:
            same = source.split("/")[2] == modality
            # Sources of another modality differ by what no score can see.
            truth[source] = 0.5 + effect * (
                (0.15 + 0.1 * similarity[target, source]) * same
                + (0 if same else 0.1 * rng.random())
            )
        if effect == 0:
            truth = {s: 0.5 + 0.05 * rng.normal() for s in SOURCES}
        for subset, pre, run in itertools.product("01", "01", "01"):
            for source in SOURCES:
                for name, own in people:
                    dice = truth[source] + own + 0.004 * rng.normal()
                    line = (run, name, dice, 1, dice, 0, "")
                    results.append(("x", target, 5, subset, source, pre, "plain", *line))
            if pre == "0":
                for name, own in people:
                    dice = 0.45 + own
                    line = (run, name, dice, 1, dice, 0, "")
                    results.append(("x", target, 5, subset, "", "", "scratch", *line))
        for subset, pre, source in itertools.product("01", "01", SOURCES):
            same = source.split("/")[2] == modality
            seen = truth[source] if effect and same else rng.random()
            found = {
                "leep": seen + 0.002 * rng.normal(),
                "hamming_distance": -seen,
                "roi_ssim": similarity[target, source],
                "same_modality": float(same),
                "validation_dice": 0.7,
                "leep_balanced": 0.0,
                "selection_seconds": 0.5,
                "finetune_seconds": 20.0,
            }
            scores += [(target, 5, subset, pre, source, n, v, "", "") for n, v in found.items()]
    study_folder(folder)
    write(folder / "results.csv", RESULTS, results)
    write(folder / "scores.csv", SCORES, scores)
    return folder


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("worlds") / "right", effect=1.0)


def test_claims_that_hold_by_construction_hold(maker: ModuleType, right: Path) -> None:
    found = maker.claims(maker.read_study(right), draws=200)
    verdicts = {name.split(" − ")[0]: claim.verdict for name, claim in found.items()}
    assert verdicts["(a) same modality, other RoI"] == "holds"
    assert verdicts["(c) filter by modality"] == "holds"
    assert next(c for n, c in found.items() if n.startswith("(b)")).verdict == "holds"
    # Three of each modality are left: too few sources for a draw to say anything.
    assert verdicts["(c) filter by modality, then RoI"] == "cannot be told"
    assert next(c for n, c in found.items() if n.startswith("(a)")).value > 0.1


def test_the_roi_filter_keeps_the_more_similar_half(maker: ModuleType, right: Path) -> None:
    study = maker.read_study(right)
    similarity, same = study.scores["roi_ssim"], study.same_modality
    for among, number in ((np.ones_like(same), 9), (same, 3)):
        kept = maker.kept_by_roi(study, among)
        assert (kept.sum(1) == number).all()
        assert (kept <= among).all()
        least = np.where(kept, similarity, np.inf).min(1)
        assert (np.where(among & ~kept, similarity, -np.inf).max(1) < least).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_claims_about_nothing_cannot_be_told(maker: ModuleType, tmp_path: Path, seed: int) -> None:
    folder = world(tmp_path / "null", effect=0.0, seed=seed)
    found = maker.claims(maker.read_study(folder), draws=200)
    assert {claim.verdict for claim in found.values()} == {"cannot be told"}


def test_what_is_the_other_way_round_does_not_hold(maker: ModuleType, tmp_path: Path) -> None:
    folder = world(tmp_path / "wrong", effect=-1.0)
    found = maker.claims(maker.read_study(folder), draws=200)
    by_claim = {name[:3]: claim.verdict for name, claim in found.items()}
    assert by_claim["(a)"] == by_claim["(b)"] == "does not hold"


def test_the_numbers_are_those_of_the_tables(maker: ModuleType, right: Path) -> None:
    study = maker.read_study(right)
    with (right / "results.csv").open() as lines:
        results = [r for r in csv.DictReader(lines) if r["method"] == "plain"]
    with (right / "scores.csv").open() as lines:
        scores = list(csv.DictReader(lines))
    found = maker.agreement(
        maker.with_baselines(study),
        study.performance,
        seed=0,
        measures={"spearman": maker.spearman},
        draws=20,
        permutations=50,
    )
    for name, sign in (("leep", 1), ("hamming_distance", -1)):
        for t, target in enumerate(study.targets):
            dice, own = (
                [
                    np.mean([float(r[column]) for r in rows if r["source"] == s])
                    for s in study.sources
                ]
                for column, rows in (
                    ("dice", [r for r in results if r["target"] == target]),
                    (
                        "value",
                        [r for r in scores if r["target"] == target and r["score"] == name],
                    ),
                )
            )
            expected = spearmanr(dice, sign * np.array(own)).statistic
            assert found[name, "spearman"].per_target[t] == pytest.approx(expected)
    with (right / "results.csv").open() as lines:
        started = [r for r in csv.DictReader(lines) if r["method"] == "scratch"]
    for t, target in enumerate(study.targets):
        own = [float(r["dice"]) for r in started if r["target"] == target]
        assert study.scratch[t] == pytest.approx(np.mean(own))
    assert not any(name.endswith("_balanced") for name in study.scores)
    assert found["validation_dice", "spearman"].constant == len(TARGETS)


def test_blocks_that_some_sources_lack_are_left_out_and_told(
    maker: ModuleType, right: Path, tmp_path: Path
) -> None:
    with (right / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    lacking = [
        r
        for r in rows
        if (r["target"], r["source"], r["subset"], r["pretraining"], r["seed"])
        != (TARGETS[0], SOURCES[3], "1", "0", "1")
        and r["target"] != TARGETS[2]
    ]
    folder = tmp_path / "part"
    folder.mkdir()
    write(folder / "results.csv", RESULTS, [tuple(r.values()) for r in lacking])
    (folder / "scores.csv").write_text((right / "scores.csv").read_text())
    study = maker.read_study(folder)
    assert study.targets == tuple(sorted(set(TARGETS) - {TARGETS[2]}))
    first = study.targets.index(TARGETS[0])
    assert study.replicates[first].shape == (18, 7)
    assert study.left_out == (f"{TARGETS[0]}: 1 of 8 blocks, which some sources lack",)


def test_the_page_is_written_beside_its_tables(
    maker: ModuleType, right: Path, tmp_path: Path
) -> None:
    maker.main(right, tmp_path / "results", draws=60)
    text = (tmp_path / "results" / "selection.md").read_text()
    assert (tmp_path / "results" / "selection.png").stat().st_size < 400_000
    assert "576 fine-tunings of 18 sources on 4 targets" in text
    assert "**holds**" in text
    assert "*same_modality*" in text
    assert "*random*" in text
    assert "1/40 of the time" in text
    check_provenance(text)
    for name in ("results", "scores"):
        copied = tmp_path / "results" / f"selection_{name}.csv"
        assert copied.read_text() == (right / f"{name}.csv").read_text()
