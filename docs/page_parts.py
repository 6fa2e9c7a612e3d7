"""How the pages of results write numbers and tables, and how they read a study's lines."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path


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


def lines_of(path: Path) -> list[dict[str, str]]:
    """The lines of comma-separated values, by column."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
