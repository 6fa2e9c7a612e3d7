"""How the pages of results write numbers and tables, and how they read a study's lines."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxfer.study.cells import SEEDS_PER_SUBSET


def number(value: float, form: str = "+.2f") -> str:
    """With a minus sign; a dash for NaN."""
    return "–" if math.isnan(value) else format(value, form).replace("-", "−")


def span(low: float, high: float, form: str = "+.2f") -> str:
    """An interval."""
    return "–" if math.isnan(low) else f"{number(low, form)} to {number(high, form)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def provenance(folder: Path) -> str:
    """How a study's tables were made: command, commit, versions, seeds."""
    run, config = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("run", "config")
    )
    study = config["study"]
    subsets, again = (", ".join(map(str, study[k])) for k in ("subsets", "pretrainings"))
    seeds = f"{study['repeats']} seed{'s' * (study['repeats'] > 1)}"
    # Where files lay is nobody's business, and decides nothing.
    elsewhere = ("--config.data.cache=", "--workdir=")
    command = " ".join(t for t in run["command"].split() if not t.startswith(elsewhere))
    command = re.sub(r"(--config\.data\.root=)\S+", r"\1DIR", command)
    return (
        f"The study: `{command}`, several launches at once, the last one of commit "
        f"{run.get('commit') or 'not recorded'}, jax {run['versions']['jax']}, {run['devices']} "
        f"each. Few-shot subsets {subsets}, {seeds} of the fine-tuning in each, from "
        f"{SEEDS_PER_SUBSET} times the subset's number; pre-training seeds {again}; all else by "
        f"seed {config['seed']}.\n"
    )


def lines_of(path: Path) -> list[dict[str, str]]:
    """The lines of comma-separated values, by column."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
