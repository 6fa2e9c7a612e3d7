"""The one way in which what was measured becomes text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from parts import parts


def spread(values: Sequence[float], digits: int) -> str:
    """Median, and the smallest and the largest."""
    low, middle, high = np.quantile(values, (0, 0.5, 1))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _seconds(values: Sequence[float]) -> str:
    middle = float(np.median(values)) if values else 0
    return spread(values, 1 if middle >= 10 else 2 if middle >= 0.1 else 4) if values else ""


def _cells(line: dict[str, Any], compared: bool) -> list[str]:
    cells = [line["name"], _seconds(line["ours"])]
    if compared:
        ratio, bar = "", str(line["bar"] or "")
        if min(line["peer"], default=0) > 0:
            ratios = np.array(line["ours"]) / np.array(line["peer"])
            middle = float(np.median(ratios))
            ratio = spread(ratios, 3 if (line["bar"] or 1) < 0.2 else 2)
            bar += ", missed" * bool(line["bar"] and middle > line["bar"])
        cells += [_seconds(line["peer"]), ratio, bar]
    cells.append(" / ".join(f"{peak:,.0f}" for peak in line["peak"]))
    reached = line.get("of_product")
    cells.append(spread([100 * r for r in reached], 0) if reached else "")
    cells.append(f"{line['off_by']:.0e}" if "off_by" in line else "")
    return cells


def table(against: str, lines: list[dict[str, Any]]) -> str:
    """One table; columns that say nothing are left out."""
    compared = any(line["peer"] for line in lines)
    heads = ["", "this project, s"]
    if compared:
        heads += [f"{against}, s", "ratio", "bar"]
    heads += ["peak MiB", "% of product rate", "scores differ by"]
    rows = [_cells(line, compared) for line in lines]
    used = [i for i in range(len(heads)) if i == 0 or any(row[i] for row in rows)]
    text = [[heads[i] for i in used], ["---", *["---:"] * (len(used) - 1)]]
    text += [[row[i] for i in used] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in text) + "\n"


def sections(results: dict[str, Any]) -> str:
    """Every part that was measured with its tables, one for each number of threads."""
    text, missing = "", []
    for name, whole in parts(quick=False).items():
        if name not in results["parts"]:
            missing.append(whole.title)
            continue
        measured = results["parts"][name]["lines"]
        part = parts(measured[0]["stamp"]["quick"])[name]
        text += f"\n## {part.title}\n\n{part.text}\n"
        known = {line["pair"] for line in measured}
        if absent := [pair.name for pair in part.pairs if pair.name not in known]:
            text += f"\nNot measured: {'; '.join(absent)}.\n"
        for clock in dict.fromkeys((li["threads"], li["clock"]) for li in measured):
            lines = [li for li in measured if (li["threads"], li["clock"]) == clock]
            threads = "1 thread" if clock[0] == 1 else "all cores"
            loads = [line["load"] for line in lines]
            rounds = sorted({line["stamp"]["rounds"] for line in lines})
            found = {f"{k} {v}" for line in lines for k, v in line["versions"].items()}
            text += (
                f"\n**{threads}, {clock[1]}**; {' or '.join(map(str, rounds))} rounds, "
                f"load average {min(loads):.1f} to {max(loads):.1f}; {', '.join(sorted(found))}; "
                f"{' and '.join(sorted({line['when'] for line in lines}))}"
                f"\n\n{table(part.against, lines)}"
            )
            for line in lines:
                if "seconds" in line:
                    spent = ", ".join(f"{k} {v:.2f} s" for k, v in line["seconds"].items())
                    text += f"\nWall time inside *{line['name']}*, in the last round: {spent}.\n"
    return f"\nParts that were not measured: {'; '.join(missing)}.\n{text}" if missing else text


HEAD = """Medians and ranges over interleaved rounds; ratios are formed pair by pair, below 1 this
project is faster. On one thread both sides are pinned to one core and processor time is compared,
which other people's load hardly changes; on all cores it is wall time, which needs a quiet machine.
*% of product rate*: the operations that the task needs, per second, of those of a float32 matrix
product of this machine in the same round. *Bar*: the largest ratio that we call good enough; it is
missed where the median, not rounded, lies above.
"""


def page(results: dict[str, Any]) -> str:
    """results.md."""
    return f"# Results\n\n{results['machine']}. {HEAD}{sections(results)}"
