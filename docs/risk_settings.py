"""The part of docs/results/risk.md that tells by what the study's settings were chosen."""

from __future__ import annotations

import math

import numpy as np
from page_parts import number, table
from risk_studies import Line, Studies
from risk_tables import Methods, methods_of

from jaxfer.train.methods import METHODS

COMPARED = (("weighted", "plain_ce"), ("weighted", "plain"), ("plain", "plain_ce"))
"""Methods whose difference depends on the settings."""


def _tried(line: Line) -> tuple[str, str]:
    """The settings that a line tries."""
    return line["learning_rate"], line["perturb"]


def settings_section(studies: Studies, study: Studies) -> str:
    """Every method with every setting, on the subjects that the settings were chosen by.

    Args:
        studies: in which they were chosen.
        study: whose settings they are.
    """
    by_setting: dict[tuple[str, str], list[Line]] = {}
    for line in studies.lines:
        by_setting.setdefault(_tried(line), []).append(line)
    order = sorted(by_setting, key=lambda pair: (float(pair[1]), float(pair[0])))
    tried = {pair: methods_of(by_setting[pair]) for pair in order}
    rows, every = [], []
    for target in sorted({line["target"] for line in studies.lines}):
        methods = [m for m in METHODS if any((target, m) in _tested(own) for own in tried.values())]
        dice = {m: [_dice_at(own, target, m) for own in tried.values()] for m in methods}
        for method, own in dice.items():
            best = np.nanmax(own)
            shown = [f"**{d:.3f}**" if d == best else number(d, ".3f") for d in own]
            rows.append([f"`{target}`", f"`{method}`", *shown])
            every.append(own)
    means = np.mean(every, axis=0)
    best = np.nanmax(means)
    rows.append(["mean", "", *(f"**{m:.3f}**" if m == best else number(m, ".3f") for m in means)])
    for first, second in COMPARED:
        apart = [_apart_by(own, first, second) for own in tried.values()]
        rows.append([f"`{first}` − `{second}`, points", "", *(number(a, "+.1f") for a in apart)])
    head = [f"{rate}, {share}" if float(share) else rate for rate, share in order]
    return f"""
## The settings

The learning rate, and the share of random parameters that is mixed into the source's (the second
number; none, where there is one alone), were chosen before the study, the same for all methods and
targets, by the mean Dice over them in studies of their own ([table](risk_settings.csv)). Scratch
knows no such share. Other settings than the ones that were taken give other differences between the
methods: the last lines, means over the targets that were tried with a setting.
{_apart(studies, study)}

{studies.words}
{table(["target", "method", *head], rows)}"""


def _apart_by(found: Methods, first: str, second: str) -> float:
    """The mean difference in Dice points over the targets at which both were tried."""
    both = [t for t in found.sources if {(t, first), (t, second)} <= _tested(found)]
    own = [_dice_at(found, t, first) - _dice_at(found, t, second) for t in both]
    return 100 * float(np.mean(own)) if own else math.nan


def _tested(found: Methods) -> set[tuple[str, str]]:
    """The targets and the methods that were tried there."""
    return {(target, method) for target, _, method in found.dice}


def _dice_at(found: Methods, target: str, method: str) -> float:
    """A method's mean Dice at a target over the numbers of shots; NaN if it was not tried."""
    own = [t for (at, _, name), t in found.dice.items() if (at, name) == (target, method)]
    return float(np.mean([np.nanmean(t) for t in own])) if own else math.nan


def _apart(studies: Studies, study: Studies) -> str:
    """Where no subject is in both tables."""
    here, there = (
        {(line["target"], line["subject"]) for line in own.lines} for own in (studies, study)
    )
    mixed = {target for target, _ in here & there}
    apart = ", ".join(f"`{t}`" for t in sorted({target for target, _ in here} - mixed))
    told = (
        f"No subject of {apart} that is tested on here is tested on in the study.\n"
        if apart
        else ""
    )
    if not mixed:
        return told
    same = ", ".join(f"`{t}`" for t in sorted(mixed))
    return (
        f"{told}The names of subjects of {same} are in both; semi-synthetic ones are others with "
        "another\nseed of their data set, which the commands tell.\n"
    )
