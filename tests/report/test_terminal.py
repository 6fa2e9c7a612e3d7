"""The tables that a run leaves on the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from jaxfer.errors import UserError
from jaxfer.report.terminal import dice_table, paths_table, ranking_table


def printed(table: Table, width: int = 140) -> list[list[str]]:
    """The lines of a table as words."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_the_ranking_is_listed_with_reasons(finished: Path) -> None:
    lines = printed(ranking_table(finished))
    assert lines[0] == ["Sources", "for", "phantom/clinic/flair/wmh"]
    first = [
        "1",
        "phantom/ageing/flair/tissue",
        "−0.02030",
        "−0.02430",
        "0.4100",
        "1.2345",
        "0.310",
    ]
    assert first in lines
    assert ["3", "phantom/young/flair/csf", "–", "–", "0.4100", "1.2345", "–"] in lines
    assert ["left", "out:", "t1", "is", "not", "the", "target's", "modality,", "flair"] in lines
    ranks = [line[0] for line in lines if len(line) > 1 and line[1].startswith("phantom/")]
    assert ranks == ["1", "2", "3", "–", "–"]


def test_dice_is_listed_per_patient_then_in_the_mean(finished: Path) -> None:
    lines = printed(dice_table(finished))
    assert ["p3", "0.700", "0.690", "0.730", "+4.0", "−1.0", "+3.0"] in lines
    assert ["p5", "–", "–", "–", "–", "–", "–"] in lines
    assert ["mean", "0.454", "0.596", "0.644", "+4.8", "+14.2", "+19.0"] in lines
    assert ["missed", "2", "0", "0"] in lines
    assert ["above", "0?", "yes", "yes", "yes"] in lines


def test_many_patients_are_left_to_the_page(fake_run) -> None:
    fake_run.subjects = tuple(f"p{i}" for i in range(13))
    fake_run.dice = dict.fromkeys(("scratch", "plain", "weighted"), (0.5,) * 13)
    lines = printed(dice_table(fake_run.all().workdir))
    assert not any(line and line[0].startswith("p1") for line in lines)
    assert any(line and line[0] == "mean" for line in lines)


def test_data_cannot_become_markup(fake_run, entry) -> None:
    run = fake_run.started().selected([entry(1, "d/s/flair/[red]x", -0.1)])
    run.evaluated()
    table = run.workdir / "evaluate/metrics.csv"
    table.write_text(table.read_text().replace(",p1,", ",[/b],"))
    assert any("d/s/flair/[red]x" in line for line in printed(ranking_table(run.workdir)))
    assert any(line and line[0] == "[/b]" for line in printed(dice_table(run.workdir)))


@pytest.mark.parametrize("width", [72, 80])
def test_a_narrow_terminal_still_shows_every_score(finished: Path, width: int) -> None:
    words = [word for line in printed(ranking_table(finished), width) for word in line]
    assert {"−0.02030", "−0.03110"} <= set(words)


@pytest.mark.parametrize(("table", "stage"), [(ranking_table, "select"), (dice_table, "evaluate")])
def test_what_has_not_run_has_no_table(fake_run, table, stage: str) -> None:
    with pytest.raises(UserError, match=f"no result of the {stage} stage"):
        table(fake_run.started().workdir)


def test_of_many_scores_the_first_are_shown_at_a_hundred_columns(fake_run, wide) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(ranking_table(wide(fake_run)))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "22 more scores in select/selection.csv" in text
    words = text.split()
    # The score that ranks stands first, and layers under their metric.
    assert words.index("kNN") < words.index("LogME")
    assert {"LEEP", "NCE", "encoder_2", "decoder_0"} <= set(words)
    assert "OTCE" not in words


def test_few_scores_need_no_remark(finished: Path) -> None:
    assert not any("more" in line for line in printed(ranking_table(finished)))


def test_a_narrow_terminal_cuts_no_method_short(fake_run) -> None:
    workdir = fake_run.all().workdir
    for file in (workdir / "evaluate/metrics.csv", workdir / "evaluate/summary.json"):
        file.write_text(file.read_text().replace("weighted", "plain_where"))
    assert not any("…" in word for line in printed(dice_table(workdir), 80) for word in line)


def test_many_methods_have_a_row_each(fake_run) -> None:
    workdir = fake_run.all().workdir
    for file in (workdir / "evaluate/metrics.csv", workdir / "evaluate/summary.json"):
        file.write_text(file.read_text().replace("weighted", "weighted_faded"))
    summary = json.loads((workdir / "evaluate/summary.json").read_text())
    summary["methods"]["ohem"] = summary["methods"]["plain"] | {"dice_mean": 0.987}
    (workdir / "evaluate/summary.json").write_text(json.dumps(summary))
    table = workdir / "evaluate/metrics.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text(
        "".join(lines + [x.replace("plain,", "ohem,") for x in lines if "plain," in x])
    )
    shown = dice_table(workdir)
    assert shown.row_count == 4
    words = [word for line in printed(shown) for word in line]
    for word in ("weighted_faded", "ohem", "0.987", "scratch"):
        assert word in words
    assert "p3" not in words


def test_paths_stand_beside_the_direct_ways(fake_run, with_paths) -> None:
    workdir = fake_run.all().workdir
    assert paths_table(workdir) is None
    with_paths(workdir)
    lines = [" ".join(line) for line in printed(paths_table(workdir))]
    assert "Paths to d/t/flair/wmh" in lines
    assert "d/a/t1/x → d/b/t1/x → d/t/flair/wmh 0.300 + 0.400 0.250 0.360" in lines
    assert "d/b/t1/x → d/t/flair/wmh 0.400 0.160 0.160" in lines
    assert "d/c/t1/x: no path, since distances are missing – – –" in lines
    # The words below the table are wrapped.
    told = " ".join(lines)
    assert "2 × the images' distance + 0.5 × (1 − SSIM" in told
    assert "a path costs the sum of the squared legs" in told
