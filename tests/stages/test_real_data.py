"""The real configurations on real scans, at toy size: from the command line to the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from jaxfer.metrics import dice
from tests.launching import Launch


@pytest.mark.parametrize("name", ["hippocampus", "open_ms"])
def test_the_main_job_on_real_scans(
    launch: Launch, real_data: Path, demo: Path, tmp_path: Path, name: str
) -> None:
    workdir = tmp_path / name
    done = launch(
        f"--config=configs/{name}.py:tiny",
        f"--config.data.root={real_data}",
        f"--config.data.cache={demo / 'store'}",  # the collection is there already
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    selection = json.loads((workdir / "select" / "selection.json").read_text())
    assert any(row["rank"] == 1 for row in selection["sources"])
    assert (workdir / "report.html").is_file()
    cases = {c["case"]: c for c in json.loads((workdir / "evaluate" / "cases.json").read_text())}
    labels = json.loads((workdir / "evaluate" / "labels.json").read_text())
    with (workdir / "evaluate" / "metrics.csv").open() as lines:
        for row in csv.DictReader(lines):
            case = cases[row["case"]]
            written = nib.load(workdir / case["predictions"][row["method"]][row["seed"]])
            image, truth = nib.load(case["image"]), nib.load(case["label"])
            np.testing.assert_allclose(written.affine, image.affine)
            assert written.header["qform_code"] == image.header["qform_code"]
            assert written.header["sform_code"] == image.header["sform_code"]
            value = labels[row["label"]]
            again = dice(
                np.asarray(written.dataobj) == value["prediction"],
                np.isin(np.asarray(truth.dataobj), value["reference"]),
            )
            assert float(row["dice"]) == pytest.approx(again, nan_ok=True)
