"""What a study leaves beside its tables, made up, for the pages that are written from them."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = (
    *("study", "target", "shots", "subset", "source", "pretraining", "method", "seed", "subject"),
    *("dice", "hd95", "min_class_dice", "collapsed", "map_spread"),
)


def study_folder(
    folder: Path, rate: float = 0.01, overrides: tuple[str, ...] = (), perturb: float = 0.0
) -> Path:
    """A workdir that tells how the study was run; its tables are still to come."""
    about = {
        "command": "python -m jaxfer.launch --config=configs/x.py --config.data.root=/mine "
        "--workdir=w",
        "commit": "abc1234",
        "versions": {"jax": "0.10.2"},
        "devices": "cpu × 1",
    }
    grid = {"subsets": [0, 1], "pretrainings": [0], "repeats": 1, "overrides": overrides}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(about))
    finetune = {"steps": 800, "learning_rate": rate, "perturb": perturb}
    config = {"name": "x", "seed": 0, "study": grid, "finetune": finetune}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def check_provenance(page: str) -> None:
    """The page tells the command, the commit and the versions, and no path of the machine."""
    assert "`python -m jaxfer.launch --config=configs/x.py --config.data.root=DIR`" in page
    assert "commit abc1234, jax 0.10.2" in page
    assert "/mine" not in page
