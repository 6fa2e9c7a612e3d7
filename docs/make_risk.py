"""Writes docs/results/risk.md and its figure from the tables of studies.

    python docs/make_risk.py FOLDERS [variants=FOLDERS] [three_d=FOLDERS] [settings=FOLDERS]

FOLDERS are workdirs of configs/study_risk.py with commas between them, or docs/results, for what
stands on the page already: so a study may grow, a part at a time. Of one fine-tuning the last one
named is taken; fine-tunings of a target with other settings than its last ones are left out.
``variants`` are of the same study with more methods on fewer subsets or shots, ``three_d`` of a
part of it with networks in 3-D, ``settings`` of other subjects with other learning rates and
perturbations. The tables are written beside the page, so that every number can be recomputed.
What counts as a finding is fixed in docs/risk_claims.py, in jaxfer/study/gains.py and in
jaxfer/metrics/claims.py: the claims of "Transfer Risk Map" (arXiv 2502.02340), and the controls
that tell what of a map does the work.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from page_parts import number, span, table
from risk_claims import (
    BASE,
    CONTROLS,
    LATER,
    PUBLISHED,
    SEED,
    TELLING,
    USES,
    claims,
    controlled,
    gain_of,
    telling,
    transfers,
    uses,
    winners,
)
from risk_settings import settings_section
from risk_studies import Studies, joined, of_last_settings, read_studies, write_table
from risk_tables import Methods, methods_of

from jaxfer.study.gains import PairedGain, paired_gain
from jaxfer.train.methods import METHODS

RESULTS = Path(__file__).parent / "results"
MARGIN = 0.01
"""Dice that a transfer may lose, by its interval, and still be called harmless."""

OTHERS = {"variants": "Other uses of the map", "three_d": "In 3-D"}
"""The studies beside the first, by name, with their section's title."""


def _added(found: Methods) -> str:
    """That some claims are not of before the study."""
    told = ""
    if LATER in found.methods:
        told += (
            f"The claims of `{LATER}` were added, by the same rule, when those of `weighted` were "
            "known: both\nare of the same test subjects.\n"
        )
    uses_tried = controlled(found)
    if len(uses_tried) > 1:
        told += (
            f"The {len(uses_tried)} uses of (c) were tried one after another on these subjects; "
            "their intervals are not\ncorrected for that.\n"
        )
    return told


def _follows(studies: Iterable[Methods], *, draws: int) -> str:
    """Which method to take."""
    won = dict.fromkeys(m for found in studies for m in winners(found, draws=draws))
    if won:
        return f"**What follows**: take {' or '.join(f'`{m}`' for m in won)}.\n"
    return (
        f"**What follows**: take `{BASE}`. A use of the map is preferred to it if it lies above it "
        "and above\nitself shuffled within class, each with its whole interval; none does.\n"
    )


_HEAD = """\
# Does a loss that heeds the transfer risk map help?

Made by `python docs/make_risk.py FOLDERS` from {tables}. {cells} fine-tunings: {pairs} pairs of
source and target on {targets} targets, shots {shots}, up to {subsets} few-shot subsets, {methods}
methods with the same subjects, seeds, steps and learning rate. Differences are in Dice points,
paired by target, source, shots, subset and test subject: means over the sources, subsets and
subjects of a target, then over the targets. Intervals are 95 % percentile intervals of {draws:,}
draws of subsets, sources and subjects, for these targets; of so few sources they are too narrow.

{provenance}
**The rule**, written before the study was run: a claim holds if its interval lies above 0, does not
hold if it lies below, and cannot be told otherwise. That transfer does no harm (e) holds if every
pair's interval lies above −{margin:.0f} Dice point, and does not if one lies below 0; the intervals
are of single pairs, not corrected for their number.

"""


def _points(value: float) -> str:
    return number(100 * value, "+.1f")


def _interval(gain: PairedGain) -> str:
    return span(100 * gain.low, 100 * gain.high, "+.1f")


def _told(gain: PairedGain) -> str:
    """The points with their interval, which one subset alone does not give."""
    if math.isnan(gain.value):
        return "–"
    return f"{_points(gain.value)} ({_interval(gain) if gain.drawn > 1 else 'one subset'})"


def _claims_table(told: Mapping[str, PairedGain]) -> str:
    rows = []
    for name, gain in told.items():
        positive, pairs = gain.positive
        rows.append(
            [
                *(name, _points(gain.value), _interval(gain), f"{positive} of {pairs}"),
                *(str(gain.compared), f"**{gain.verdict}**"),
            ]
        )
    head = [
        "claim",
        "Dice points",
        "95 % interval",
        "pairs that gain",
        "source × subset",
        "verdict",
    ]
    return table(head, rows)


def _harmless(method: str, gains: Mapping[tuple[str, str], PairedGain]) -> str:
    """Claim (e) of one method: no pair may hurt, and each must be known well enough to say so."""
    hurt = sum(gain.verdict == "does not hold" for gain in gains.values())
    safe = sum(gain.drawn > 1 and gain.low > -MARGIN for gain in gains.values())
    verdict = (
        "does not hold" if hurt else "holds" if gains and safe == len(gains) else "cannot be told"
    )
    return (
        f"* `{method}`: {hurt} of {len(gains)} pairs lie below scratch with their whole interval, "
        f"{safe} lie above −{100 * MARGIN:.0f} point with it → (e) **{verdict}**\n"
    )


def _harm(found: Methods, *, draws: int) -> str:
    told = {m: transfers(found, m, draws=draws) for m in (BASE, *USES) if m in found.methods}
    rows = []
    for pair in next(iter(told.values()), {}):
        row = [f"`{pair[0]}`", f"`{pair[1]}`"]
        for gains in told.values():
            gain = gains.get(pair)
            row += [_told(gain) if gain else "–"]
        rows.append(row)
    lines = "".join(_harmless(m, gains) for m, gains in told.items())
    return lines + "\n" + table(["target", "source", *(f"`{m}`" for m in told)], rows)


def _mean_dice(found: Methods, method: str, shots: int) -> float:
    """The mean over targets of a method's mean Dice; NaN if it was tried on none."""
    own = [t for (_, n, m), t in found.dice.items() if (n, m) == (shots, method)]
    return float(np.mean([np.nanmean(t) for t in own])) if own else math.nan


def _methods_table(found: Methods, *, draws: int) -> str:
    """Every method: Dice by shots, against the strong base, against itself shuffled."""
    rows = []
    for method in found.methods:
        dice = [number(_mean_dice(found, method, n), ".3f") for n in found.shots]
        base = gain_of(found, method, BASE, found.shots, draws)
        control = CONTROLS.get(method)
        alone = (
            gain_of(found, method, control, found.shots, draws)
            if control in found.methods
            else None
        )
        rows.append(
            [
                *(f"`{method}`", METHODS[method].words, number(found.spread(method), ".2f"), *dice),
                "–" if method == BASE else _told(base),
                _told(alone) if alone else "–",
                f"{found.number(found.collapsed, method)} of {found.number(found.cells, method)}",
            ]
        )
    shots = [f"Dice, {n} shots" for n in found.shots]
    head = ["method", "", "spread", *shots, "− `plain`", "− its shuffled self", "collapsed"]
    return table(head, rows)


def _by_shots(found: Methods, *, draws: int) -> str:
    """The comparisons that matter, for each number of shots."""
    compared = [(use, other) for use in uses(found) for other in (PUBLISHED, BASE)]
    compared += CONTROLS.items()
    rows = []
    for first, second in compared:
        if not {first, second} <= {*found.methods}:
            continue
        row = [f"`{first}` − `{second}`"]
        for n in found.shots:
            gain = gain_of(found, first, second, (n,), draws)
            row.append(_told(gain))
        rows.append(row)
    return table(["", *(f"{n} shots" for n in found.shots)], rows) + _of_some_targets(found)


def _by_target(found: Methods, *, draws: int) -> str:
    """What the claims (a) and (b) come to on each target."""
    rows = []
    for first, second in [(use, other) for use in uses(found) for other in (PUBLISHED, BASE)]:
        differences = found.differences(first, second, found.shots)
        row = [f"`{first}` − `{second}`"]
        for target in found.sources:
            own = {t: table for t, table in differences.items() if t == target}
            row.append(_told(paired_gain(own, found.sources, seed=SEED, draws=draws)))
        rows.append(row)
    return table(["", *(f"`{target}`" for target in found.sources)], rows)


def _where(found: Methods, *, draws: int) -> str:
    """Which maps say where the risk lies, and what their uses do where they say it."""
    tried = controlled(found)
    if not tried:
        return ""
    rows, pairs_of = [], gain_of(found, LATER, CONTROLS[LATER], found.shots, draws).pairs
    for pair in [(t, s) for t, own in found.sources.items() for s in own]:
        spreads = [number(found.spread(m, pair), ".2f") for m in tried]
        beside = _points(pairs_of.get(pair, math.nan))
        rows.append([*(f"`{name}`" for name in pair), *spreads, beside])
    head = ["target", "source", *(f"`{m}`" for m in tried)]
    shown = table([*head, f"`{LATER}` − itself shuffled"], rows)
    restricted = []
    for method in tried:
        gain = paired_gain(telling(found, method), found.sources, seed=SEED, draws=draws)
        pairs = sum(not math.isnan(v) for v in gain.pairs.values())
        restricted.append([f"`{method}`", str(pairs), _told(gain)])
    return f"""
## Which maps say where?

The spread of every pair's maps. Where it is next to nothing, a use and its control train with all
but the same weights, and what they differ by is chance. This was looked at when the claims were
known.

{shown}
(c) again, of the pairs alone whose maps have a spread of {TELLING:g} or more:

{table(["", "pairs", "− itself shuffled within class"], restricted)}"""


def _of_some_targets(found: Methods) -> str:
    """Which targets a number of shots is of, where it is not of all."""
    told = ""
    for n in found.shots:
        own = {target for target, shots, _ in found.dice if shots == n}
        if own != {*found.sources}:
            told += f"\n{n} shots are of {', '.join(f'`{t}`' for t in sorted(own))} alone.\n"
    return told


def _at(found: Methods, shots: int) -> int:
    """The fine-tunings with one number of shots."""
    return sum(number for (_, own, _), number in found.cells.items() if own == shots)


def _figure(found: Methods, told: Mapping[str, PairedGain], *, draws: int) -> Figure:
    harm = transfers(found, BASE, draws=draws)
    figure = Figure(figsize=(9.0, 1.4 + 0.24 * max(len(told), len(harm))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    shown = {n.replace("`", ""): g for n, g in told.items()}
    by_source = {f"{s} → {t}": g for (t, s), g in harm.items()}
    words = ("Dice points", "plain − scratch, Dice points")
    for axes, gains, label in ((left, shown, words[0]), (right, by_source, words[1])):
        for place, gain in enumerate(reversed(gains.values())):
            axes.plot([100 * gain.low, 100 * gain.high], [place, place], color="#0072b2", lw=1.2)
            axes.plot([100 * gain.value], [place], "o", color="#0072b2", ms=4)
        axes.axvline(0, color="#c9ced6", lw=0.8, zorder=0)
        axes.set_yticks(range(len(gains)), list(reversed(gains)), fontsize=6)
        axes.set_xlabel(label, fontsize=8)
    return figure


def page(studies: Mapping[str, Studies], *, draws: int = 2000) -> tuple[str, Figure]:
    """The page and its figure.

    Args:
        studies: "results", which the claims are about; those beside it by their names in
            ``OTHERS``; "settings".
    """
    found = methods_of(studies["results"].lines)
    told = claims(found, draws=draws)
    beside = {name: methods_of(studies[name].lines) for name in OTHERS if name in studies}
    tried = [found, *beside.values()]
    names = [(f"{name}.csv", f"risk_{name}.csv") for name in studies if name != "settings"]
    text = _HEAD.format(
        provenance=studies["results"].words,
        margin=100 * MARGIN,
        tables=" and ".join(f"[{name}]({file})" for name, file in names),
        cells=sum(found.cells.values()),
        pairs=sum(map(len, found.sources.values())),
        targets=len(found.sources),
        shots=", ".join(f"{n} ({_at(found, n)} of them)" for n in found.shots),
        subsets=max(t.shape[1] for t in found.dice.values()),
        methods=len(found.methods),
        draws=draws,
    )
    text += f"""## The claims

{_claims_table(told)}
![The claims, and every source against scratch](risk.png)

(d) compares the sources and subsets that both numbers of shots have.
{_added(found)}
{_follows(tried, draws=draws)}
## By shots

{_by_shots(found, draws=draws)}
## By target

{_by_target(found, draws=draws)}
## Does a transfer hurt?

{_harm(found, draws=draws)}
## The methods

*Spread*: how far the weights of one class lie apart in a training case's map, as their standard
deviation over their mean; where it is near 0, the map says which class, and hardly where.

{_methods_table(found, draws=draws)}{_where(found, draws=draws)}"""
    for name, own in beside.items():
        pairs = sum(map(len, own.sources.values()))
        subsets = max(t.shape[1] for t in own.dice.values())
        text += f"""
## {OTHERS[name]}

A grid of its own: {sum(own.cells.values())} fine-tunings, {pairs} pairs, shots
{", ".join(map(str, own.shots))}, {subsets} few-shot subsets.
{studies[name].words}
{_methods_table(own, draws=draws)}"""
    if "settings" in studies:
        text += settings_section(studies["settings"], studies["results"])
    return text, _figure(found, told, draws=draws)


def main(to: Path = RESULTS, /, *, draws: int = 2000, **folders: Sequence[Path]) -> None:
    """Writes the page, its figure and the tables beside it.

    Args:
        to: folder of the page.
        folders: of the studies, by the names that ``page`` knows.
    """
    studies = {
        name: joined([read_studies(folder, name) for folder in own])
        for name, own in folders.items()
    }
    studies |= {name: of_last_settings(own) for name, own in studies.items() if name != "settings"}
    text, figure = page(studies, draws=draws)
    to.mkdir(parents=True, exist_ok=True)
    for name, own in studies.items():
        write_table(own.lines, to / f"risk_{name}.csv")
    told = {name: own.told for name, own in studies.items()}
    (to / "risk_studies.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    figure.savefig(to / "risk.png", dpi=130)
    (to / "risk.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    named = dict(argument.partition("=")[::2] for argument in sys.argv[2:])
    if len(sys.argv) < 2 or not named.keys() <= {*OTHERS, "settings"}:
        sys.exit(__doc__)
    given = {"results": sys.argv[1]} | named
    main(**{name: [Path(folder) for folder in own.split(",")] for name, own in given.items()})
