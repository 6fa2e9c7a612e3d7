"""Writes docs/results/runs.md and its tables from finished runs.

    python docs/make_results.py runs/demo runs/hippocampus runs/open_ms

Copies each run's selection.csv and metrics.csv beside the page, so that every number of the page
can be recomputed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

_HEAD = """\
# Runs

Made by `docs/make_results.py` from finished runs, on {cores} cores. One target each, few subjects:
read these as examples of what a run tells, not as evidence for a method. Dice is the mean over test
subjects, gains are in Dice points, paired by subject, with 95 % bootstrap intervals over subjects.
"""


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _span(values: list[float | None], factor: float = 1.0, form: str = ".3f") -> str:
    if any(v is None for v in values):
        return "one subject"
    return " to ".join(format(factor * v, form) for v in values if v is not None)


def _anywhere(command: str) -> str:
    """The command without the folders of the machine that it ran on."""
    return re.sub(r"(--(?:workdir|config\.data\.root|config\.data\.cache)=)\S+", r"\1DIR", command)


def _seconds(workdir: Path) -> str:
    stages = ("prepare", "pretrain", "select", "finetune", "evaluate")
    return ", ".join(f"{s} {_json(workdir / s / 'done.json')['seconds']:.0f} s" for s in stages)


def _section(workdir: Path) -> str:
    config, about = _json(workdir / "config.json"), _json(workdir / "run.json")
    selection = _json(workdir / "select" / "selection.json")
    tuned = _json(workdir / "finetune" / "summary.json")
    found = _json(workdir / "evaluate" / "summary.json")
    name = config["name"]
    shutil.copy(workdir / "select" / "selection.csv", FOLDER / f"{name}_selection.csv")
    shutil.copy(workdir / "evaluate" / "metrics.csv", FOLDER / f"{name}_metrics.csv")
    kept = [row for row in selection["sources"] if row["rank"] is not None]
    lines = [
        f"## {name}",
        "",
        f"Target `{config['target']}`, seed {config['seed']}, fine-tuning seeds "
        f"{', '.join(map(str, tuned['seeds']))}, {tuned['steps']} steps; source "
        f"`{tuned['source']}`, first of {len(kept)} on the shortlist, {len(selection['sources'])} "
        f"on the shelf. Commit {about['commit']}, jax {about['versions']['jax']}, "
        f"{about['devices']}: {_seconds(workdir)}.",
        "",
        f"    {_anywhere(about['command'])}",
        "",
        "| method | Dice | 95 % interval | HD95, mm (finite) | subjects | missed |",
        "|---|---|---|---|---|---|",
    ]
    for method, row in found["methods"].items():
        hd95 = "–" if row["hd95_mean_finite"] is None else f"{row['hd95_mean_finite']:.1f}"
        lines.append(
            f"| {method} | {row['dice_mean']:.3f} | {_span(row['dice_interval'])} | {hd95} "
            f"| {row['n_subjects']} | {row['outcomes']['missed']} |"
        )
    lines += ["", "| gain | points | 95 % interval |", "|---|---|---|"]
    for pair, row in found["gain"].items():
        span = _span(row["interval"], 100, "+.1f")
        lines.append(f"| {pair} | {100 * row['mean']:+.1f} | {span} |")
    lines.append(
        f"\nTables: [{name}_selection.csv]({name}_selection.csv), "
        f"[{name}_metrics.csv]({name}_metrics.csv).\n"
    )
    return "\n".join(lines)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    sections = [_section(Path(argument)) for argument in sys.argv[1:]]
    head = _HEAD.format(cores=os.cpu_count())
    (FOLDER / "runs.md").write_text("\n".join([head, *sections]), encoding="utf-8")


if __name__ == "__main__":
    main()
