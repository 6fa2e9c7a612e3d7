"""The page: whole, self-contained, safe, and honest about what is missing."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from jaxfer.errors import UserError
from jaxfer.report.gallery import map_scale, training_galleries
from jaxfer.report.page import write_report

VOID = {"meta", "img", "wbr", "br"}


class Page(HTMLParser):
    """A page taken apart; fails on tags that do not match."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.headings: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(workdir: Path) -> Page:
    return Page(write_report(workdir).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def html(finished: Path) -> str:
    return write_report(finished).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(html: str) -> Page:
    return Page(html)


def test_sections_stand_in_their_order(whole: Page) -> None:
    assert whole.headings == [
        "The target",
        "Which source?",
        "Dice per patient",
        "Training curves",
        "Pictures",
        "How it was made",
    ]


def test_the_page_needs_nothing_but_itself(whole: Page) -> None:
    names = {tag for tag, _ in whole.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in whole.tags:
        assert not any(name.startswith("on") for name in attributes), tag
    sources = [image["src"] for image in whole.all("img")]
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    # Two figures, three methods and three sources, three rows of four, two maps and the weights
    # of two cases, bars.
    assert len(sources) == 2 + 6 + 12 + 6 + 4
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(str(source).split(",")[1]))).verify()
    assert all("alt" in image for image in whole.all("img"))


def test_style_fetches_nothing(html: str) -> None:
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize(
    "words",
    [
        "The subjects are synthetic.",
        "By LEEP the best source is phantom/ageing/flair/tissue.",
        "8 training, 2 validation and 6 test cases",
        "left out: t1 is not the target's modality, flair",
        "left out: RoI similarity 0.04 is below the median, 0.21",
        "no score: fewer than two classes are present",
        "mean log of the expected empirical prediction (higher is better) · ICML 2020",
        "Empty masks: both empty: left out and counted; one empty: Dice 0, HD95 ∞",
        "missed: scratch",
        "fine-tuning 615 12,003 evaluate/harm/plain/",
        "Weights of weighted",
        "Best: p1, Dice 0.740",
        "Median: p2, Dice 0.710",
        "Worst: p6, Dice 0.470",
        "no Dice is defined for them: p5",
        "the patient's right (R) is on the left",
        "They were never used for training",
        "python -m jaxfer.launch --config=configs/demo.py",
        "re-implementation from the published abstracts and related public code",
        "No number here reproduces a published one",
        "risk.mode instance",
    ],
)
def test_the_page_says(whole: Page, words: str) -> None:
    assert words in whole.text


def test_numbers_are_written_as_promised(whole: Page) -> None:
    for number in ("0.740", "+13.0", "−1.0", "∞", "–", "−0.02030"):
        assert number in whole.text.split()
    for raw in ("nan", "inf", "None", "NaN"):
        assert raw not in whole.text.split()


def test_gains_are_coloured_by_their_sign(html: str) -> None:
    assert '<td class="n worse">−1.0</td>' in html
    assert 'better">+13.0</td>' in html
    assert 'better">−' not in html
    assert 'worse">+' not in html


def test_real_subjects_are_not_called_synthetic(fake_run) -> None:
    run = fake_run.started(synthetic=False).selected()
    page = page_of(run.workdir)
    assert "The subjects are synthetic" not in page.text
    assert "synthetic" in page.text, "the sources that are, still are"


def test_data_cannot_become_markup(fake_run, entry) -> None:
    evil = "<script>alert(1)</script>&amp;\"'"
    run = fake_run.started(name=evil).prepared()
    run.selected([entry(1, f"d/s/flair/{evil.replace('/', '|')}", -0.1, flags=[evil]),
                  entry(2, "d/s/flair/x", -0.2)])  # fmt: skip
    run.finetuned().evaluated()
    table = run.workdir / "evaluate/metrics.csv"
    table.write_text(table.read_text().replace(",p1,", ",<b onclick=x>$p$</b>,"))
    summary = run.workdir / "evaluate/summary.json"
    record = json.loads(summary.read_text())
    summary.write_text(json.dumps({**record, "empty_mask_policy": evil}))
    page = page_of(run.workdir)
    assert not page.all("script")
    assert not any("onclick" in attributes for attributes in page.all("b"))
    assert f"⚑ {evil}" in page.text
    assert "<b onclick=x>$p$</b>" in page.text


@pytest.mark.parametrize(
    ("stages", "missing", "present"),
    [
        ([], ["(prepare)", "(select)", "(finetune)", "(evaluate)"], []),
        (["prepared"], ["(select)"], ["The target"]),
        (["prepared", "selected"], ["(finetune)", "(evaluate)"], ["Which source?"]),
        (
            ["prepared", "selected", "pretrained", "finetuned"],
            ["(evaluate)"],
            ["Training curves", "Pictures"],
        ),
    ],
)
def test_a_run_that_stopped_says_what_is_missing(
    fake_run, stages: list[str], missing: list[str], present: list[str]
) -> None:
    fake_run.started()
    for stage in stages:
        getattr(fake_run, stage)()
    page = page_of(fake_run.workdir)
    assert "This run is not complete." in page.text
    assert all(words in page.text for words in missing)
    assert all(heading in page.headings for heading in present)
    assert "Dice per patient" not in page.headings


def test_a_finished_run_lacks_nothing(whole: Page) -> None:
    assert "not complete" not in whole.text


def test_almost_empty_records_still_make_a_page(fake_run) -> None:
    run = fake_run.all()
    (run.workdir / "run.json").write_text("{}")
    (run.workdir / "config.json").write_text("{}")
    summary = run.workdir / "evaluate/summary.json"
    summary.write_text(json.dumps({"methods": {"weighted": {}}}))
    (run.workdir / "evaluate/cases.json").unlink()
    page = page_of(run.workdir)
    assert "Dice per patient" in page.headings
    assert "Best:" not in page.text


def test_many_scores_have_a_table_of_their_own(fake_run, wide) -> None:
    html = write_report(wide(fake_run)).read_text()
    page = Page(html)
    text = " ".join(" ".join(page.words).split())
    assert "All 26 scores" in text
    assert "1 score that no source has" in text
    assert "OTCE: needs coefficients" in text
    # Of the sampled scores one stands beside the 4 sources, and all 14 in the other table.
    assert text.count("± 0.01230 SE") == 4 * (1 + 14)
    assert "0.4100 to 0.6700" in text
    assert "balanced 0.2220" in text
    assert "10 repetitions of 1,000 voxels" in text
    assert "the networks 5.0, statistics of all voxels and their intervals 2.0," in text


def test_a_picture_whose_file_has_gone_is_left_out_with_a_reason(fake_run) -> None:
    run = fake_run.all()
    (run.workdir / "data/p2_flair.nii.gz").unlink()
    shutil.rmtree(run.workdir / "evaluate/risk")
    page = page_of(run.workdir)
    assert f"No picture: {run.workdir}/data/p2_flair.nii.gz is not there." in page.text
    pictures = [image for image in page.all("img") if str(image["alt"]).startswith(("Best", "Wor"))]
    assert len(pictures) == 2 * 3
    assert not any(str(image["alt"]).startswith("Median") for image in page.all("img"))


def test_an_empty_reference_is_said(fake_run) -> None:
    fake_run.dice = {m: (0.0, *dice[1:]) for m, dice in fake_run.dice.items()}
    run = fake_run.all()
    shutil.copy(run.workdir / "data/p5_label.nii.gz", run.workdir / "data/p1_label.nii.gz")
    assert "The reference is empty" in page_of(run.workdir).text


def test_a_broken_picture_file_is_named(fake_run) -> None:
    run = fake_run.all()
    (run.workdir / "evaluate/predictions/weighted/seed0/p1.nii.gz").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"weighted/seed0/p1\.nii\.gz"):
        write_report(run.workdir)


def test_the_same_files_make_the_same_page(finished: Path, html: str) -> None:
    assert write_report(finished).read_text(encoding="utf-8") == html


def test_a_page_is_replaced_whole_or_not_at_all(fake_run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run.started()
    page = write_report(run.workdir)
    before = page.read_bytes()
    run.selected()

    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        write_report(run.workdir)
    assert page.read_bytes() == before


def test_the_report_reads_files_and_nothing_alive() -> None:
    check = (
        "import sys, jaxfer.report.page, jaxfer.report.terminal;"
        "alive = [m for m in sys.modules if m.startswith('jaxfer.')"
        " and not m.startswith(('jaxfer.report', 'jaxfer.errors', 'jaxfer.files'))];"
        "assert not alive, alive;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", check], check=True, cwd=root)


def test_one_extreme_weight_does_not_darken_the_map() -> None:
    risk = np.ones((100, 100))
    risk[:50] = np.linspace(1, 3, 5000).reshape(50, 100)
    risk[0, 0] = 1e6
    scale = map_scale([risk])
    assert scale.low == 1
    assert 2.9 < scale.high < 3.1
    assert scale.clipped


def test_where_nothing_is_trained_says_nothing_of_the_scale(tmp_path: Path) -> None:
    weights = np.zeros((12, 12, 7), np.float32)
    weights[2:10, 2:10, 2:5] = 1.0
    weights[2:10, 2:10, 3] = np.linspace(0.9, 1.2, 64).reshape(8, 8)
    file = tmp_path / "case_weights.nii.gz"
    nib.Nifti1Image(weights, np.eye(4)).to_filename(file)
    (found,) = training_galleries({}, {"weighted": {"case": file}})
    assert found.scale is not None
    assert (found.scale.low, found.scale.high) == pytest.approx((0.9, 1.2), abs=0.01)
    assert found.rows[0].pictures[0].caption == "case, slice 4"
    assert found.scale.measures == ("weight", "")
    assert found.rows[0].title == "Weights of weighted"
    assert training_galleries({}, {}) == ()


@pytest.mark.parametrize("risk", [np.ones((4, 4)), np.full((4, 4), np.nan)])
def test_a_flat_map_has_a_scale(risk: np.ndarray) -> None:
    scale = map_scale([risk])
    assert scale.high > scale.low
    assert not scale.clipped


def test_paths_are_on_the_page_where_they_were_looked_for(fake_run, with_paths) -> None:
    workdir = fake_run.all().workdir
    assert "cheapest path" not in Page(write_report(workdir).read_text()).text
    with_paths(workdir)
    text = Page(write_report(workdir).read_text()).text
    assert "The cheapest path from each source" in text
    assert "d/a/t1/x → d/b/t1/x → d/t/flair/wmh 0.300 + 0.400 0.250 0.360" in text
    assert "d/c/t1/x: no path, since distances are missing" in text
