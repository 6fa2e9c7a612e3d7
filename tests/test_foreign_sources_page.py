"""The lines of docs/foreign-sources.md, run as they stand there on a small MONAI network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import nibabel as nib
import numpy as np
import pytest

from jaxfer.data.nifti import read_header
from jaxfer.selection.foreign import read_foreign
from tests.launching import ROOT

MODEL = """
from monai.networks.nets import BasicUNet

torch.manual_seed(0)
model = BasicUNet(3, 1, 2, features=(4, 4, 8, 8, 8, 4))
workdir, target, folder = "run", "mine/all/t2/thing", "outputs"
"""
CALL = re.compile(r"and then `(write_outputs\(.*\))`")


@pytest.mark.skipif(
    not (find_spec("torch") and find_spec("monai")),
    reason="torch and monai are not installed here: pip install torch monai",
)
def test_the_lines_write_a_folder_that_is_whole(tmp_path):
    page = (ROOT / "docs" / "foreign-sources.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 3
    headers, images = {}, {}
    rng = np.random.default_rng(0)
    for name, channels in (("a", ()), ("b", (2,))):
        file = tmp_path / f"{name}.nii.gz"
        scan = rng.standard_normal((40, 36, 33, *channels)).astype(np.float32)
        nib.save(nib.Nifti1Image(scan, np.eye(4)), file)
        channel = 1 if channels else None
        images[name] = {"images": {"t2": {"path": str(file), "channel": channel}}}
        headers[name] = read_header(file, channel)
    record = {
        "datasets": {"mine": {"cases": images}},
        "splits": {"mine/all/t2/thing": {"train": ["a", "b"], "test": ["c"]}},
    }
    (tmp_path / "run" / "prepare").mkdir(parents=True)
    (tmp_path / "run" / "prepare" / "prepared.json").write_text(json.dumps(record))
    call = CALL.search(page)
    assert call
    # Its own process: torch and jax need not share one, nor torch our rules on warnings.
    program = "\n".join([*blocks, MODEL, call[1]])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (source,), problems = read_foreign([tmp_path / "outputs"], headers, (), 3)
    assert problems == []
    assert source.num_classes == 2
    assert source.layers["decoder_0"].channels == 4
