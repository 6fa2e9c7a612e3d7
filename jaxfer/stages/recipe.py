"""What a method comes to in a run: which loss, on which cases, on which schedule; and its mark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxfer.config import fingerprint, plain
from jaxfer.data.sampler import TaskCase
from jaxfer.models.zoo import Source
from jaxfer.stages.risk import risk_settings
from jaxfer.stages.run import Run
from jaxfer.stages.training import REVISION, Objective, objective, schedule
from jaxfer.train.finetune import Transferred, frequency_weights, leaf_rates
from jaxfer.train.loop import Fade
from jaxfer.train.methods import METHODS, MapUse, Method
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss


@dataclass(frozen=True)
class Recipe:
    """A method as it comes to this run: on which cases, minimising what, on which schedule."""

    method: Method
    cases: list[TaskCase]
    minimised: Objective
    follows: Schedule
    fade: Fade | None
    words: str


_POWERS = {"none": 0.0, "root": 0.5, "inverse": 1.0}
"""Of the inverse frequency of a class, in its weight."""


def _loss(settings: ConfigDict, method: Method) -> Loss:
    region = method.region or settings.region
    tversky = method.overlap == "tversky"
    return Loss(
        region=region,
        denominator="pixels" if method.region else settings.denominator,
        dice_weight=settings.dice_weight if method.overlap != "none" else 0.0,
        rim=settings.rim if region == "foreground_rim" else 0,
        focal=float(settings.focal) if method.pixels == "focal" else 0.0,
        hardest=float(settings.hardest) if method.pixels == "hardest" else 1.0,
        missed=float(settings.missed) if tversky else 0.5,
        soften=float(settings.soften) if method.uses_map_to("soften") else 0.0,
    )


def _map_words(run: Run, use: MapUse) -> str:
    """Which map, and what of it is left."""
    settings = risk_settings(run, use)
    mode = settings.mode if settings.metric == "leep" else f"{settings.metric} {settings.mode}"
    of_whom = {"own": "", "other": " of another source", "all": " of all sources"}
    changed = [f"{k} {v}" for k, v in use.settings if k not in ("mode", "metric")]
    left = ", ".join([*changed, *use.controls])
    return f"the {mode} risk map{of_whom[use.whose]}{f' ({left})' if left else ''}"


def _words(run: Run, method: Method, loss: Loss) -> str:
    kinds = {
        "none": "mean",
        "root": "square-root inverse-frequency",
        "inverse": "inverse-frequency",
    }
    pixels = {
        "all": "",
        "focal": f" (1 − p)^{loss.focal:g} times",
        "hardest": f" over the hardest {loss.hardest:.0%} of pixels,",
    }[method.pixels]
    told = f"{kinds[method.class_weights]}{pixels} cross-entropy"
    use = method.risk
    if use is not None and use.to == "weigh":
        bare = method.class_weights == "none"
        told = "cross-entropy weighted by " if bare else f"{told} times "
        told += _map_words(run, use) + (", which fades" if use.fades else "")
    if use is not None and use.to == "soften":
        told += f", labels softened, up to {loss.soften:g} of each, by {_map_words(run, use)}"
    if method.region != "all":
        of = "volume" if loss.denominator == "foreground" else "patch"
        told += f", over {loss.region} pixels, divided by the {loss.denominator} of the {of}"
    overlap = f"Tversky loss ({loss.missed:g} for what is missed)"
    overlap = "soft Dice" if method.overlap == "dice" else overlap
    told += f" + {loss.dice_weight:g} × {overlap}" if loss.dice_weight else ""
    if use is not None and use.to == "draw":
        told += f", patches drawn by {_map_words(run, use)}"
    return told


def recipe_of(
    run: Run,
    method: Method,
    cases: list[TaskCase],
    weights: list[Path] | None,
    moved: Transferred | None,
) -> Recipe:
    """What a method comes to.

    Args:
        cases: of the target, for training.
        weights: the files that the method's use of the risk map has made, case by case.
        moved: what comes along from the source; None: nothing does.
    """
    settings, levels = run.config.finetune, len(run.config.model.widths)
    dimensions = len(run.config.model.patch)
    plain_weights = frequency_weights(cases)
    use = method.risk
    if weights is not None and method.uses_map_to("draw"):
        cases = [replace(c, drawn_by=file) for c, file in zip(cases, weights, strict=True)]
    elif weights is not None:
        cases = [replace(c, risk=file) for c, file in zip(cases, weights, strict=True)]
    loss = _loss(settings, method)
    class_weights = frequency_weights(cases, _POWERS[method.class_weights])
    fade = None
    if use is not None and use.fades:
        plain_cases = [replace(case, risk=None) for case in cases]
        left = objective(Loss(), plain_cases, plain_weights, dimensions).class_weights
        fade = Fade(left, max(1, round(settings.fade * settings.steps)))
    follows = schedule(settings)
    if moved is not None:
        follows = replace(
            follows,
            rates=leaf_rates(moved, method, levels, settings.level_rate),
            pull=float(settings.l2_sp) if method.pulled else 0.0,
            pulled=moved.loaded if method.pulled else (),
        )
    minimised = objective(loss, cases, class_weights, dimensions)
    return Recipe(method, cases, minimised, follows, fade, _words(run, method, loss))


def perturbed(run: Run, method: Method) -> float:
    """The share of random parameters in those that a method starts from."""
    return float(run.config.finetune.perturb) if method.perturbed else 0.0


_OWN_FIELDS: dict[str, Callable[[Method], bool]] = {
    "region": lambda m: not m.region,
    "rim": lambda m: not m.region,
    "denominator": lambda m: not m.region,
    "fade": lambda m: m.risk is not None and m.risk.fades,
    "perturb": lambda m: m.perturbed,
    "l2_sp": lambda m: m.pulled,
    "level_rate": lambda m: m.discriminative,
    "focal": lambda m: m.pixels == "focal",
    "missed": lambda m: m.overlap == "tversky",
    "hardest": lambda m: m.pixels == "hardest",
    "soften": lambda m: m.uses_map_to("soften"),
    "dice_weight": lambda m: m.overlap != "none",
    **dict.fromkeys(("methods", "seeds", "source", "path"), lambda _: False),
}
"""Fields of the section ``finetune`` that decide some methods only, and which."""


def _read_of_risk(run: Run, use: MapUse) -> dict[str, Any]:
    """The fields of the section ``risk`` that decide a map."""
    settings = plain(risk_settings(run, use))
    return {k: v for k, v in settings.items() if k != "samples" or settings["metric"] == "otce"}


def finetuning_mark(
    run: Run, cases: list[TaskCase], source: Source | None, name: str, others: str = ""
) -> str:
    """A fingerprint of all that decides one method's network, but for the seed.

    Settings that other methods read are not in it, so that their change leaves this one fresh.

    Args:
        source: to start from, and to make the maps with; None: from scratch.
        others: fingerprint of the other sources whose maps the method heeds.
    """
    config, method = run.config, METHODS[name]
    use = method.risk
    settings = plain(config.finetune)
    return fingerprint(
        REVISION,
        {k: v for k, v in plain(method).items() if k != "words"},
        {k: v for k, v in settings.items() if _OWN_FIELDS.get(k, lambda _: True)(method)},
        [plain(config[k]) for k in ("augment", "model")],
        config.data.plane,
        [(case.stored.id, case.content) for case in cases],
        plain(cases[0].roi),
        cases[0].ignore,
        source.card["fingerprint"] if source is not None and method.transferred else None,
        [_read_of_risk(run, use), config.seed] if use else None,
        [config.data.validation_subjects, config.evaluate.overlap]
        if config.finetune.validate_every
        else None,
        others if use is not None and use.whose != "own" else None,
    )
