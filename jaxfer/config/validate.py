"""The validation of a configuration: all of its problems at once."""

from __future__ import annotations

import difflib
import math
from typing import Any

from ml_collections import ConfigDict

from jaxfer.config.defaults import ALONE, METHODS, STAGES, STUDY, default_config
from jaxfer.config.overrides import ALLOWED, Override
from jaxfer.config.plain import plain
from jaxfer.config.rules import RULES
from jaxfer.config.scores import chosen_metrics
from jaxfer.errors import Problem, UserError, raise_problems
from jaxfer.metrics.registry import METRICS, score_names
from jaxfer.models.layers import layers_of
from jaxfer.models.levels import STRIDES_ALLOWED, network_strides, patch_multiples
from jaxfer.tasks import Task

MOST_ON_PATH = 3
"""Sources on a path: where it starts, and two between that and the target."""


def fields_of(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every field by its path; ``datasets`` is one field, its entries have no defaults."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict) and key != "datasets":
            found |= fields_of(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _element(default: tuple[Any, ...]) -> Any:
    """What the elements of a tuple are like; of one that is empty as it stands, texts."""
    return default[0] if default else ""


def _like(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_like(v, _element(default)) for v in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def _kind(default: Any) -> str:
    if isinstance(default, tuple):
        return f"a tuple, each {_kind(_element(default))}"
    names = {str: "text", int: "a whole number", float: "a finite number", bool: "True or False"}
    return names.get(type(default), "a dictionary")


def _structure(found: dict[str, Any], known: dict[str, Any]) -> list[Problem]:
    """Fields that are missing, of another kind than the default, or unknown."""
    problems = []
    for path, default in known.items():
        if path not in found:
            problems.append(Problem("error", f"config.{path}", "missing", None, _kind(default)))
        elif not _like(found[path], default):
            value = repr(found[path])
            problems.append(Problem("error", f"config.{path}", "wrong kind", value, _kind(default)))
    for path in sorted(found.keys() - known.keys()):
        near = (
            *difflib.get_close_matches(path, known, 1),
            "the fields in jaxfer/config/defaults.py",
        )[0]
        problems.append(Problem("error", f"config.{path}", "unknown field", found[path], near))
    return problems


def _of_networks(fields: dict[str, Any]) -> str:
    """What to know of the sources that can be named for fine-tuning."""
    told = "those of config.foreign are known by their outputs alone and cannot be fine-tuned here"
    return f"; {told}" if fields["foreign"] else ""


def _known(
    field: str, values: tuple[str, ...], allowed: tuple[str, ...], note: str = ""
) -> list[Problem]:
    where, listed = f"config.{field}", ", ".join(allowed) + note
    if not values:
        return [Problem("error", where, "empty", "()", listed)]
    return [Problem("error", where, "unknown value", v, listed) for v in values if v not in allowed]


def _ruled(fields: dict[str, Any]) -> list[Problem]:
    """What is wrong with the values, each of the right kind."""
    problems = [
        Problem("error", f"config.{path}", "not allowed", repr(fields[path]), allowed)
        for path, (holds, allowed) in RULES.items()
        if not holds(fields[path])
    ]
    metrics, sources = chosen_metrics(fields["select.metrics"]), fields["sources"]
    problems += _known("stages", fields["stages"], (*ALONE, *STAGES))
    problems += _known("finetune.methods", fields["finetune.methods"], METHODS)
    layers = fields["select.layers"]
    scores = score_names([m for m in metrics if m in METRICS], layers)
    problems += _known("select.metrics", metrics, tuple(METRICS))
    if RULES["model.widths"][0](fields["model.widths"]):
        known = layers_of(fields["model.widths"], len(fields["model.patch"]))
        problems += _known("select.layers", layers, tuple(known))
    named = tuple(fields["select.rank_by"].split("+"))
    problems += _known("select.rank_by", named, scores)
    if len(set(named)) < len(named):
        what = "a score counts twice"
        where, found = "config.select.rank_by", fields["select.rank_by"]
        problems.append(Problem("error", where, what, found, "each score once, such as leep+nce"))
    named = (fields["finetune.source"],)
    problems += _known("finetune.source", named, ("best", *sources), _of_networks(fields))
    problems += _path(fields)
    if not sources and not any(fields["foreign"]):
        problems.append(Problem("error", "config.sources", "empty", "()", "one task or more"))
    problems += _patch(fields)
    for stage in ("pretrain", "finetune"):
        size, parts = fields[f"{stage}.batch_size"], fields[f"{stage}.accumulate"]
        if parts > 0 and size % parts:
            where, what = f"config.{stage}.accumulate", "does not divide the batch"
            problems.append(Problem("error", where, what, parts, f"a divisor of {size}"))
    if len(fields["model.patch"]) == 3 and fields["data.plane"] != "axial":
        what = "a plane, but the patches are in 3-D"
        found, allowed = fields["data.plane"], "axial, or a model.patch of two numbers"
        problems.append(Problem("error", "config.data.plane", what, found, allowed))
    if fields["finetune.validate_every"] and not fields["data.validation_subjects"]:
        what = "there is no validation subject of the target to look at"
        found, allowed = (
            fields["finetune.validate_every"],
            "0, or --config.data.validation_subjects",
        )
        problems.append(Problem("error", "config.finetune.validate_every", what, found, allowed))
    if fields["risk.mode"] == "positional":
        for field, only in (("balanced", False), ("metric", "leep")):
            if fields[f"risk.{field}"] != only:
                where, what = f"config.risk.{field}", "there is no such positional map"
                allowed = f"{only}, or risk.mode = instance"
                problems.append(Problem("error", where, what, fields[where[7:]], allowed))
    if fields["data.fold"] >= max(fields["data.folds"], 1):
        allowed = "0 … folds − 1, and 0 without folds"
        problems.append(
            Problem("error", "config.data.fold", "no such fold", fields["data.fold"], allowed)
        )
    if STUDY in fields["stages"]:
        problems += _study(fields)
    return problems + _tasks(fields)


def _path(fields: dict[str, Any]) -> list[Problem]:
    """What is wrong with the path that networks are trained along, or with the search for one."""
    path, where = fields["finetune.path"], "config.finetune.path"
    problems = []
    if fields["select.path_alpha"] == fields["select.path_beta"] == 0:
        what, allowed = "both coefficients are 0: all tasks are in one place", "one above 0"
        problems.append(Problem("error", "config.select.path_alpha", what, "0 and 0", allowed))
    if path == ("best",):
        if not fields["select.paths"]:
            what, allowed = "'best' without a search for paths", "--config.select.paths=True"
            problems.append(Problem("error", where, what, "select.paths = False", allowed))
        return problems
    if fields["target"] in path:
        what = "the target ends every path and is not named in it"
        problems.append(Problem("error", where, what, fields["target"], "sources alone"))
    sources = ("best", *fields["sources"]) if len(path) == 1 else fields["sources"]
    named = tuple(name for name in path if name != fields["target"])
    problems += _known("finetune.path", named, sources, _of_networks(fields)) if named else []
    if len(path) > MOST_ON_PATH:
        what, allowed = "too many sources on the way", f"{MOST_ON_PATH} sources at most"
        problems.append(Problem("error", where, what, len(path), allowed))
    if len(set(path)) < len(path):
        problems.append(Problem("error", where, "a source twice", path, "each source once"))
    if path and fields["finetune.source"] not in ("best", path[0]):
        what, allowed = "starts from another source than finetune.source", f"{path[0]}, or best"
        found = fields["finetune.source"]
        problems.append(Problem("error", "config.finetune.source", what, found, allowed))
    return problems


def _patch(fields: dict[str, Any]) -> list[Problem]:
    """What is wrong with the strides, or else with the patch that they divide."""
    patch, spacing, levels = (fields[k] for k in ("model.patch", "data.spacing", "model.widths"))
    if len(patch) not in (2, 3):
        allowed = "two numbers (2-D) or three (3-D)"
        return [Problem("error", "config.model.patch", "neither 2-D nor 3-D", patch, allowed)]
    named = fields["model.strides"]
    if len(spacing) != 3 or len(levels) < 2 or not named:
        return []
    if len(patch) == 3 and 0 in spacing:
        what = "unknown lengths, but in 3-D the network's kernels and strides follow them"
        allowed = "three lengths in mm, above 0"
        return [Problem("error", "config.data.spacing", what, spacing, allowed)]
    try:
        strides = network_strides(named, len(patch), len(levels), spacing)
    except ValueError as error:
        return [Problem("error", "config.model.strides", str(error), named, STRIDES_ALLOWED)]
    multiples = patch_multiples(strides)
    if all(p > 0 and p % m == 0 for p, m in zip(patch, multiples, strict=True)):
        return []
    allowed = f"multiples of {' × '.join(map(str, multiples))} (the product of the strides)"
    return [Problem("error", "config.model.patch", "does not fit the network", patch, allowed)]


def _study(fields: dict[str, Any]) -> list[Problem]:
    """What would not make a grid of runs."""
    problems = _known("study.methods", fields["study.methods"], METHODS)
    if len(fields["stages"]) > 1:
        what, allowed = "the study makes runs of its own: it stands alone", "('study',)"
        problems.append(Problem("error", "config.stages", what, fields["stages"], allowed))
    if not fields["data.test_subjects"] and not fields["data.folds"]:
        what = "0: each few-shot subset would be tested on other subjects"
        allowed = "at least 1, or data.folds"
        problems.append(Problem("error", "config.data.test_subjects", what, None, allowed))
    if fields["foreign"]:
        what = "sources that are known by their outputs cannot be fine-tuned"
        problems.append(Problem("error", "config.foreign", what, fields["foreign"], "()"))
    if fields["shelf"]:
        what = "a study trains its own sources, several times each"
        problems.append(Problem("error", "config.shelf", what, fields["shelf"], "''"))
    if fields["finetune.path"]:
        what = "a study fine-tunes from each source directly"
        problems.append(
            Problem("error", "config.finetune.path", what, fields["finetune.path"], "()")
        )
    targets = fields["study.targets"] or (fields["target"],)
    for target in targets:
        if not {*fields["sources"]} - {target}:
            what = f"no source is left for the target {target}"
            problems.append(Problem("error", "config.sources", what, fields["sources"]))
    for text in fields["study.overrides"]:
        try:
            own = Override.parse(text)
        except ValueError as error:
            problems.append(Problem("error", "config.study.overrides", str(error), text, ALLOWED))
            continue
        if own.target not in targets:
            what, allowed = "of no target of the study", ", ".join(targets)
            problems.append(Problem("error", "config.study.overrides", what, text, allowed))
    return problems


def _tasks(fields: dict[str, Any]) -> list[Problem]:
    target, sources, datasets = (fields[k] for k in ("target", "sources", "datasets"))
    problems, slugs = [], []
    declared = ", ".join(sorted(datasets)) or "none is declared in config.datasets"
    named = [("config.target", target), *(("config.sources", s) for s in sources)]
    for where, name in [*named, *(("config.study.targets", t) for t in fields["study.targets"])]:
        try:
            task = Task.parse(name)
        except UserError as error:
            what = "not a task's name"
            problems.append(Problem("error", where, what, repr(name), error.allowed))
            continue
        if task.dataset not in datasets:
            what = f"'{name}' is of an unknown dataset"
            problems.append(Problem("error", where, what, task.dataset, declared))
        if where == "config.sources":
            slugs.append(task.slug)
    if len(set(slugs)) < len(slugs):
        what = "two of them are the same, or differ in '/' and '-' alone"
        problems.append(Problem("error", "config.sources", what, sources))
    if target in sources and STUDY not in fields["stages"]:
        what = "the target is among its sources"
        problems.append(Problem("error", "config.sources", what, target))
    for name, entry in datasets.items():
        if not (isinstance(entry, ConfigDict) and isinstance(entry.get("layout"), str)):
            where, allowed = f"config.datasets.{name}", "layout, folder and what its layout needs"
            problems.append(Problem("error", where, "not a dataset", repr(plain(entry)), allowed))
    return problems


def validate(config: ConfigDict) -> None:
    """Raises one ``UserError`` that lists everything that is wrong with the configuration."""
    known, found = fields_of(default_config()), fields_of(config)
    problems = _structure(found, known)
    broken = {p.where for p in problems}
    # The rules look at a default where a field is broken, and what they say of it is left out.
    sound = {path: found[path] for path in known if f"config.{path}" not in broken}
    problems += [p for p in _ruled(known | sound) if p.where not in broken]
    raise_problems(problems, "the configuration has problems")
