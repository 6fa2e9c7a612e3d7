"""The page of the risk study on made-up tables: what is known of them stands on the page."""

from __future__ import annotations

import csv
import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.launching import ROOT
from tests.study_records import RESULTS, check_provenance, study_folder

TARGETS, SOURCES = ("p/one/t1/a", "p/two/t2/b"), tuple(f"s/all/t1/{r}" for r in "abcd")
METHODS = (
    *("scratch", "plain", "plain_ce", "weighted", "weighted_shuffled"),
    *("plain_where", "plain_where_shuffled"),
)


@pytest.fixture(scope="module")
def maker() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("make_risk")


def world(
    folder: Path,
    effects: dict[str, float],
    *,
    few: float = 0.0,
    seed: int = 0,
    rate: float = 0.01,
    overrides: tuple[str, ...] = (),
    perturb: float = 0.0,
) -> Path:
    """Dice of 0.6 and a method's effect; ``few`` more for weighted at three shots; one collapse."""
    rng, rows = np.random.default_rng(seed), []
    for target, shots, subset in itertools.product(TARGETS, (3, 10), range(6)):
        base = 0.6 + 0.05 * rng.normal()
        for method in METHODS:
            more = effects.get(method, 0.0) + few * (method == "weighted" and shots == 3)
            for source in [""] if method == "scratch" else SOURCES:
                own = base + more + 0.01 * rng.normal()
                lost = int((method, source, subset, shots) == ("plain_ce", SOURCES[0], 0, 3))
                for subject in range(5):
                    dice = own + 0.01 * rng.normal()
                    head = ("x", target, shots, subset, source, "0" if source else "", method)
                    spread = 0.07 if "where" in method else ""
                    line = (subset * 1000, f"s{subject}", dice, 1, dice, lost, spread)
                    rows.append((*head, *line))
    study_folder(folder, rate, overrides, perturb)
    with (folder / "results.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([RESULTS, *rows])
    return folder


def methods_in(maker: ModuleType, folder: Path) -> Any:
    return maker.methods_of(maker.read_studies(folder, "results").lines)


EFFECTS = {"scratch": -0.05, "plain_ce": -0.04, "plain_where": 0.03, "weighted_shuffled": 0.05}


def test_what_holds_by_construction_holds(maker: ModuleType, tmp_path: Path) -> None:
    found = methods_in(maker, world(tmp_path / "w", EFFECTS, few=0.06))
    told = maker.claims(found, draws=300)
    verdicts = {name: gain.verdict for name, gain in told.items()}
    assert verdicts["(a) `weighted` − mean CE, few shots"] == "holds"
    assert told["(a) `weighted` − mean CE, few shots"].value == pytest.approx(0.10, abs=0.01)
    assert told["(a) `weighted` − mean CE, few shots"].positive == (8, 8)
    assert told["(a) `weighted` − mean CE, all shots"].compared == 2 * 4 * 6
    assert verdicts["(c) `weighted` − itself shuffled within class"] == "does not hold"
    assert verdicts["(c) `plain_where` − itself shuffled within class"] == "holds"
    assert verdicts["(d) gain of (a) `weighted` at few shots − at more"] == "holds"
    gains = maker.transfers(found, "plain", draws=200)
    assert len(gains) == 8
    assert all(gain.low > 0 for gain in gains.values())


def test_what_follows(maker: ModuleType, tmp_path: Path) -> None:
    above = EFFECTS | {"weighted": 0.03}
    found = methods_in(maker, world(tmp_path / "w", above))
    # weighted lies above the base, and below itself shuffled.
    assert maker.winners(found, draws=200) == ["plain_where"]
    maker.main(tmp_path / "page", draws=100, results=[tmp_path / "w"])
    assert "take `plain_where`." in (tmp_path / "page" / "risk.md").read_text()
    maker.main(tmp_path / "page", draws=100, results=[world(tmp_path / "nothing", {})])
    assert "take `plain`." in (tmp_path / "page" / "risk.md").read_text()


@pytest.mark.parametrize("seed", [0, 1])
def test_of_nothing_nothing_is_told(maker: ModuleType, tmp_path: Path, seed: int) -> None:
    found = methods_in(maker, world(tmp_path / "w", {}, seed=seed))
    verdicts = [gain.verdict for gain in maker.claims(found, draws=300).values()]
    assert verdicts.count("cannot be told") >= len(verdicts) - 1


def test_a_table_is_the_mean_of_its_lines(maker: ModuleType, tmp_path: Path) -> None:
    folder = world(tmp_path / "w", EFFECTS)
    found = methods_in(maker, folder)
    with (folder / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    own = [
        float(a["dice"]) - float(b["dice"])
        for a, b in itertools.product(
            [r for r in rows if r["method"] == "plain" and r["target"] == TARGETS[1]],
            [r for r in rows if r["method"] == "scratch" and r["target"] == TARGETS[1]],
        )
        if all(a[k] == b[k] for k in ("shots", "subset", "subject")) and a["source"] == SOURCES[2]
    ]
    gain = maker.transfers(found, "plain", draws=50)[TARGETS[1], SOURCES[2]]
    assert len(own) == 2 * 6 * 5
    assert gain.value == pytest.approx(np.mean(own))


def test_what_is_not_done_yet_is_compared_nowhere(maker: ModuleType, tmp_path: Path) -> None:
    folder = world(tmp_path / "w", EFFECTS)
    with (folder / "results.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    kept = [r for r in rows if not (r["method"] == "weighted" and int(r["subset"]) > 3)]
    kept = [r for r in kept if r["shots"] == "3"]
    with (folder / "results.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([RESULTS, *(tuple(r.values()) for r in kept)])
    found = methods_in(maker, folder)
    told = maker.claims(found, draws=100)
    assert told["(b) `weighted` − strong base, all shots"].compared == 2 * 4 * 4
    assert told["(d) gain of (a) `weighted` at few shots − at more"].verdict == "cannot be told"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_page_is_written_beside_its_table(maker: ModuleType, tmp_path: Path) -> None:
    folder = world(tmp_path / "w", EFFECTS | {"plain": -0.2})
    own = {name: [folder] for name in ("results", "variants", "three_d")}
    maker.main(tmp_path / "results", draws=60, **own)
    text = (tmp_path / "results" / "risk.md").read_text()
    assert (tmp_path / "results" / "risk.png").stat().st_size < 400_000
    assert f"{2 * 2 * 6 * (6 * 4 + 1)} fine-tunings: 8 pairs" in text
    assert f"shots 3 ({2 * 6 * (6 * 4 + 1)} of them), 10 ({2 * 6 * (6 * 4 + 1)} of them)" in text
    assert "`plain`: 8 of 8 pairs lie below scratch with their whole interval, 0 lie" in text
    assert "(e) **does not hold**" in text
    assert "(e) **holds**" in text
    assert "2 of 96" in text
    assert "where alone | 0.07 | 0." in text
    assert "mean cross-entropy | – | 0." in text
    check_provenance(text)
    assert "## Other uses of the map" in text
    assert "## In 3-D" in text
    assert text.count("commit abc1234") == 3
    for name in own:
        copied = rows_of(tmp_path / "results" / f"risk_{name}.csv")
        settings = {"steps": "800", "learning_rate": "0.01", "perturb": "0"}
        assert copied == [row | settings for row in rows_of(folder / "results.csv")]


def only(folder: Path, **wanted: tuple[str, ...]) -> Path:
    """Drops the other lines of a folder's table."""
    rows = rows_of(folder / "results.csv")
    kept = [r for r in rows if all(r[k] in values for k, values in wanted.items())]
    with (folder / "results.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([RESULTS, *(tuple(r.values()) for r in kept)])
    return folder


def test_a_study_may_be_run_in_parts(maker: ModuleType, tmp_path: Path) -> None:
    whole = world(tmp_path / "whole", EFFECTS)
    maker.main(tmp_path / "at_once", draws=20, results=[whole])
    parts = [
        only(world(tmp_path / f"part{shots}", EFFECTS), shots=(shots,)) for shots in ("3", "10")
    ]
    page = tmp_path / "page"
    maker.main(page, draws=20, results=parts[:1], settings=[whole])
    maker.main(page, draws=20, results=[page, parts[1]], settings=[page])
    found, wanted = (rows_of(p / "risk_results.csv") for p in (page, tmp_path / "at_once"))
    assert sorted(found, key=str) == sorted(wanted, key=str)
    text = (page / "risk.md").read_text()
    claimed = text[text.index("## The claims") : text.index("## The settings")]
    assert claimed.strip() in (tmp_path / "at_once" / "risk.md").read_text()


def test_what_was_trained_otherwise_is_not_compared(maker: ModuleType, tmp_path: Path) -> None:
    first = world(tmp_path / "first", EFFECTS, rate=0.01)
    new = (f"{TARGETS[1]} finetune.learning_rate=0.03",)
    again = only(
        world(tmp_path / "again", {"plain": 0.1}, rate=0.01, overrides=new),
        target=TARGETS[1:],
        method=("scratch", "plain"),
    )
    maker.main(tmp_path / "page", draws=20, results=[first, again])
    found = rows_of(tmp_path / "page" / "risk_results.csv")
    rates = {(r["target"], r["learning_rate"]) for r in found}
    assert rates == {(TARGETS[0], "0.01"), (TARGETS[1], "0.03")}
    assert {r["method"] for r in found if r["target"] == TARGETS[1]} == {"scratch", "plain"}
    assert {r["method"] for r in found if r["target"] == TARGETS[0]} == {*METHODS}


def test_of_one_fine_tuning_the_last_is_taken(maker: ModuleType, tmp_path: Path) -> None:
    first, again = (world(tmp_path / n, {}, seed=k) for k, n in enumerate(("first", "again")))
    maker.main(tmp_path / "page", draws=20, results=[first, only(again, shots=("10",))])
    found = rows_of(tmp_path / "page" / "risk_results.csv")
    assert len(found) == len(rows_of(first / "results.csv"))
    for shots, folder in (("3", first), ("10", again)):
        own, wanted = (
            [r["dice"] for r in rows if r["shots"] == shots]
            for rows in (found, rows_of(folder / "results.csv"))
        )
        assert own == wanted


def test_the_settings_stand_beside_one_another(maker: ModuleType, tmp_path: Path) -> None:
    low = world(tmp_path / "low", {"plain": 0.1}, rate=0.001)
    folders = [
        world(tmp_path / "perturbed", {"weighted": 0.1}, rate=0.001, perturb=0.5),
        only(world(tmp_path / "high", {}, rate=0.03), target=TARGETS[:1], method=("plain",)),
        low,
    ]
    maker.main(tmp_path / "results", draws=20, results=[low], settings=folders)
    text = (tmp_path / "results" / "risk.md").read_text()
    section = text[text.index("## The settings") :]
    assert "| target | method | 0.001 | 0.03 | 0.001, 0.5 |" in section
    lines = {
        tuple(cell.strip(" `") for cell in line.split("|")[1:3]): line.split("|")[3:6]
        for line in section.splitlines()
        if line.startswith("| `p/")
    }
    assert len(lines) == len(TARGETS) * len(METHODS)
    assert ["**" in cell for cell in lines[TARGETS[0], "plain"]] == [True, False, False]
    assert ["**" in cell for cell in lines[TARGETS[0], "weighted"]] == [False, False, True]
    assert lines[TARGETS[1], "plain"][1].strip() == "–"
    own = [
        float(row["dice"])
        for row in rows_of(low / "results.csv")
        if (row["target"], row["method"]) == (TARGETS[1], "plain_ce")
    ]
    told = float(lines[TARGETS[1], "plain_ce"][0].strip(" *"))
    assert told == pytest.approx(np.mean(own), abs=6e-4)
    assert "is tested on in the study" not in section
    rows = rows_of(tmp_path / "results" / "risk_settings.csv")
    assert {(r["learning_rate"], r["perturb"]) for r in rows} == {
        ("0.001", "0"),
        ("0.03", "0"),
        ("0.001", "0.5"),
    }


def test_the_settings_tell_where_no_subject_is_shared(maker: ModuleType, tmp_path: Path) -> None:
    study, other = world(tmp_path / "study", {}), world(tmp_path / "other", {}, rate=0.001)
    lines = (other / "results.csv").read_text().splitlines()
    renamed = (line.replace(",s", ",u") if TARGETS[1] in line else line for line in lines[1:])
    (other / "results.csv").write_text("\n".join((lines[0], *renamed)) + "\n")
    maker.main(tmp_path / "page", draws=20, results=[study], settings=[other])
    text = (tmp_path / "page" / "risk.md").read_text()
    assert f"No subject of `{TARGETS[1]}` that is tested on here is tested on in the study." in text


def test_the_claims_are_told_of_the_default_too(maker: ModuleType, tmp_path: Path) -> None:
    found = methods_in(maker, world(tmp_path / "w", EFFECTS))
    told = maker.claims(found, draws=100)
    assert told["(a) `plain_where` − mean CE, few shots"].value == pytest.approx(0.07, abs=0.01)
    assert told["(b) `plain_where` − strong base, all shots"].value == pytest.approx(0.03, abs=0.01)
    assert maker.uses(found) == ("weighted", "plain_where")


def test_uses_that_were_tried_one_after_another_are_counted(
    maker: ModuleType, tmp_path: Path
) -> None:
    whole = world(tmp_path / "whole", {})
    fewer = ("scratch", "plain", "plain_ce", "weighted", "weighted_shuffled")
    less = only(world(tmp_path / "less", {}), method=fewer)
    for folder, told in ((whole, True), (less, False)):
        maker.main(tmp_path / "page", draws=20, results=[folder])
        text = (tmp_path / "page" / "risk.md").read_text()
        number = text.count("| (c) ")
        assert (f"The {number} uses of (c) were tried one after another" in text) == told
        assert (number > 1) == told


def test_shots_of_some_targets_alone_are_told(maker: ModuleType, tmp_path: Path) -> None:
    whole = world(tmp_path / "whole", {})
    more = only(world(tmp_path / "more", {}, seed=1), target=TARGETS[:1], shots=("10",))
    table = more / "results.csv"
    table.write_text(table.read_text().replace(f"{TARGETS[0]},10,", f"{TARGETS[0]},48,"))
    maker.main(tmp_path / "page", draws=20, results=[whole, more])
    text = (tmp_path / "page" / "risk.md").read_text()
    assert f"48 shots are of `{TARGETS[0]}` alone." in text
    assert "10 shots are of" not in text


def test_of_one_subset_alone_no_interval_is_told(maker: ModuleType, tmp_path: Path) -> None:
    whole = world(tmp_path / "whole", EFFECTS)
    more = only(world(tmp_path / "more", EFFECTS, seed=1), subset=("2",), shots=("10",))
    table = more / "results.csv"
    table.write_text(table.read_text().replace(",10,", ",48,"))
    maker.main(tmp_path / "page", draws=20, results=[whole, more])
    text = (tmp_path / "page" / "risk.md").read_text()
    row = next(r for r in text.splitlines() if r.startswith("| `plain_where` − `plain_ce` |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert [cell.endswith("(one subset)") for cell in cells] == [False, False, True]
    assert all(" to " in cell for cell in cells[:2])


def test_a_map_that_does_not_say_where_is_told_apart(maker: ModuleType, tmp_path: Path) -> None:
    folder = world(tmp_path / "w", {})
    rows = rows_of(folder / "results.csv")
    loud = SOURCES[1]
    for row in rows:
        if "where" in row["method"]:
            row["map_spread"] = "0.4" if row["source"] == loud else "0.02"
        if (row["method"], row["source"]) == ("plain_where", loud):
            row["dice"] = str(float(row["dice"]) + 0.08)
    with (folder / "results.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([RESULTS, *(tuple(r.values()) for r in rows)])
    found = methods_in(maker, folder)
    assert found.spread("plain_where", (TARGETS[0], loud)) == pytest.approx(0.4)
    assert found.spread("plain_where") == pytest.approx((0.4 + 3 * 0.02) / 4)
    for own in maker.telling(found, "plain_where").values():
        assert [not np.isnan(v).all() for v in own] == [source == loud for source in SOURCES]
    maker.main(tmp_path / "page", draws=20, results=[folder])
    told = (tmp_path / "page" / "risk.md").read_text().split("## Which maps say where?")[1]
    assert "| `plain_where` | 2 | +8." in told
    assert "| `weighted` | 0 | – |" in told
    assert f"| `{TARGETS[1]}` | `{loud}` | – | 0.40 | +8." in told


def test_each_target_is_told_of(maker: ModuleType, tmp_path: Path) -> None:
    folder = world(tmp_path / "w", {})
    rows = rows_of(folder / "results.csv")
    for row in rows:
        if (row["method"], row["target"]) == ("weighted", TARGETS[1]):
            row["dice"] = str(float(row["dice"]) - 0.1)
    with (folder / "results.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([RESULTS, *(tuple(r.values()) for r in rows)])
    maker.main(tmp_path / "page", draws=20, results=[folder])
    told = (tmp_path / "page" / "risk.md").read_text().split("## By target")[1].split("## ")[0]
    row = next(r for r in told.splitlines() if r.startswith("| `weighted` − `plain` |"))
    first, second = (float(c.split("(")[0].replace("−", "-")) for c in row.split("|")[2:-1])
    assert abs(first) < 1
    assert second == pytest.approx(-10, abs=1)


def test_the_page_is_what_its_tables_make(maker: ModuleType, tmp_path: Path) -> None:
    kept = ROOT / "docs" / "results"
    maker.main(tmp_path, **{name: [kept] for name in ("results", "settings", "three_d")})
    for name in ("risk.md", "risk_results.csv", "risk_three_d.csv", "risk_studies.json"):
        assert (tmp_path / name).read_bytes() == (kept / name).read_bytes()


def test_targets_are_drawn_in_their_own_order(maker: ModuleType, tmp_path: Path) -> None:
    found = methods_in(maker, world(tmp_path / "w", EFFECTS))
    assert [*importlib.import_module("risk_claims")._more_with_few(found, (3,), (10,))] == [
        *found.sources
    ]
