"""Stage finetune: from scratch, plain and weighted by the risk map, with equal budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

from jaxfer import hosts
from jaxfer.config import fingerprint, plain
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import UserError
from jaxfer.files import NUMBER_OR_NULL
from jaxfer.models.checkpoint import save_params
from jaxfer.models.zoo import Source, load_source
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.risk import make_risk_maps
from jaxfer.stages.run import Run, read_json, write_json
from jaxfer.stages.training import (
    Objective,
    Timed,
    network,
    objective,
    show_step,
    train,
    unfinished,
)
from jaxfer.tasks import Task
from jaxfer.train.finetune import Transferred, frequency_weights, transfer_params
from jaxfer.train.loop import initial_params


@dataclass(frozen=True)
class _Method:
    """One way to learn the target."""

    transferred: bool
    cases: list[TaskCase]
    minimised: Objective
    words: str


def chosen_source(run: Run) -> Task:
    """The source to start from: the configured one, or the first of the ranking with a network."""
    if run.config.finetune.source != "best":
        return Task.parse(run.config.finetune.source)
    row = {
        "source": str,
        "rank": (int, NoneType),
        "outputs_only": bool,
        "scores": {str: NUMBER_OR_NULL},
    }
    file = run.workdir / "select" / "selection.json"
    selection = read_json(file, {"rank_by": str, "sources": [row]})
    rows, by = selection["sources"], selection["rank_by"]
    ranked = [r for r in rows if r["rank"] is not None and r["scores"].get(by) is not None]
    best = [r["source"] for r in ranked if not r["outputs_only"]]
    if not best:
        known = ", ".join(r["source"] for r in ranked)
        raise UserError(
            f"no source has a network, has survived the filters and has a {by} score: there is "
            "none to fine-tune",
            found=f"known by their outputs alone: {known}" if known else None,
            mend="see select/selection.csv for the reasons, keep more sources "
            "(--config.select.roi_keep=0), or name one: --config.finetune.source=TASK",
        )
    if best[0] not in run.config.sources:
        raise UserError(
            f"{file}: its best source is none of this run's",
            found=best[0],
            allowed=", ".join(run.config.sources),
            mend="delete select/done.json in the workdir; the stage is then done again",
        )
    return Task.parse(best[0])


def _methods(run: Run, cases: list[TaskCase], weighted: list[TaskCase]) -> dict[str, _Method]:
    settings = run.config.finetune
    frequency = frequency_weights(cases)
    base = objective(settings, cases, frequency)
    risk = objective(
        settings,
        weighted,
        tuple(1.0 for _ in frequency),
        region=settings.region,
        denominator=settings.denominator,
    )
    dice = f" + {settings.dice_weight:g} × soft Dice" if settings.dice_weight else ""
    plain_words = f"square-root inverse-frequency cross-entropy{dice}"
    risk_words = (
        f"cross-entropy weighted by the {run.config.risk.mode} risk map, over {settings.region} "
        f"pixels, divided by the {settings.denominator} of the volume{dice}"
    )
    known = {
        "scratch": _Method(False, cases, base, plain_words),
        "plain": _Method(True, cases, base, plain_words),
        "weighted": _Method(True, weighted, risk, risk_words),
    }
    return {name: known[name] for name in settings.methods}


def _transferred(run: Run, source: Source, cases: list[TaskCase], seed: int) -> Transferred:
    model = network(run.config, cases[0].roi.num_classes)
    fresh = initial_params(model, tuple(run.config.model.patch), seed)
    same = tuple(source.card["class_names"]) == cases[0].roi.class_names
    return transfer_params(source.params, fresh, keep_head=same)


def _mark(run: Run, name: str, method: _Method, source: Source) -> str:
    """Of all that decides a fine-tuned network, so that another method or seed leaves it alone."""
    config = run.config
    listed = ("methods", "seeds", "source")
    return fingerprint(
        name,
        {k: v for k, v in plain(config.finetune).items() if k not in listed},
        [plain(config[k]) for k in ("augment", "model")],
        config.data.plane,
        [(case.stored.id, case.content) for case in method.cases],
        plain(method.cases[0].roi),
        method.cases[0].ignore,
        source.card["fingerprint"] if method.transferred else None,
        plain(config.risk) if name == "weighted" else None,
    )


def _train_one(
    run: Run,
    method: _Method,
    source: Source,
    seed: int,
    folder: Path,
    mark: str,
    on_step: Callable[[int, float], None],
) -> None:
    model = network(run.config, method.cases[0].roi.num_classes)
    start = (
        _transferred(run, source, method.cases, seed).params
        if method.transferred
        else initial_params(model, tuple(run.config.model.patch), seed)
    )
    params = train(
        run,
        run.config.finetune,
        start,
        method.cases,
        method.minimised,
        model=model,
        seed=seed,
        folder=folder,
        mark=mark,
        on_step=on_step,
    )
    if hosts.leads():
        save_params(folder / "checkpoint", params)
        write_json(folder / "done.json", {"fingerprint": mark})
        unfinished(run, folder).discard()


def _risk_maps(
    run: Run, prepared: Prepared, source: Source, cases: list[TaskCase]
) -> tuple[list[TaskCase], dict[str, Any]]:
    """The cases with their maps, and the record of these; the leading process makes them."""
    found = None
    if hosts.leads():
        with run.progress("risk maps", len(cases)) as advance:
            weighted, risk = make_risk_maps(
                run, prepared, source, cases, on_case=lambda case: advance(note=case)
            )
        if risk["positional_missing_because"]:
            run.say(f"  no positional risk map: {risk['positional_missing_because']}")
        found = [[str(case.risk) for case in weighted], risk]
    files, risk = hosts.of_leader(found)
    return [replace(c, risk=Path(f)) for c, f in zip(cases, files, strict=True)], risk


def _folder(run: Run, name: str, seed: int) -> Path:
    return run.workdir / "finetune" / name / f"seed{seed}"


def _is_done(run: Run, name: str, seed: int, mark: str) -> bool:
    done = _folder(run, name, seed) / "done.json"
    return done.is_file() and read_json(done, {"fingerprint": str})["fingerprint"] == mark


def run(run: Run) -> str:
    """Makes the risk maps, then trains every method with every seed."""
    config, prepared = run.config, Prepared.read(run)
    target = Task.parse(config.target)
    source_task = chosen_source(run)
    source = load_source(run.shelf / source_task.slug)
    cases = prepared.cases(target, "train")
    weighted, risk = _risk_maps(run, prepared, source, cases)
    methods = _methods(run, cases, weighted)
    marks = {name: _mark(run, name, method, source) for name, method in methods.items()}
    seeds = tuple(config.finetune.seeds)
    jobs = [(name, seed) for name in methods for seed in seeds]
    left = hosts.of_leader([j for j in jobs if not _is_done(run, *j, marks[j[0]])])
    with run.progress("fine-tuning", len(jobs) * config.finetune.steps, stops=False) as advance:
        advance((len(jobs) - len(left)) * config.finetune.steps)
        for name, seed in left:
            folder = _folder(run, name, seed)
            if hosts.leads():
                (folder / "done.json").unlink(missing_ok=True)
            timed = Timed(partial(show_step, advance, name))
            _train_one(run, methods[name], source, seed, folder, marks[name], timed)
            if hosts.leads():
                write_json(folder / "seconds.json", {"per_step": timed.seconds_per_step})
    hosts.wait_for_all("fine-tuned")
    leaves = _transferred(run, source, cases, seeds[0])
    if "weighted" in methods:
        risk["effective_scale"] = methods["weighted"].minimised.scale
    if hosts.leads():
        write_json(
            run.workdir / "finetune" / "summary.json",
            {
                "source": source_task.name,
                "methods": {
                    name: {
                        "initial": source_task.name if m.transferred else "random",
                        "loss": m.words,
                        "class_weights": list(m.minimised.class_weights),
                        "scale": m.minimised.scale,
                    }
                    for name, m in methods.items()
                },
                "steps": config.finetune.steps,
                "seeds": list(seeds),
                "risk": risk,
                "leaves": {
                    "loaded": list(leaves.loaded),
                    "remade": list(leaves.remade),
                    "unused": list(leaves.unused),
                },
            },
        )
    made = f"{len(left)} of {len(jobs)} fine-tunings done now"
    made = made if len(left) < len(jobs) else "all done"
    return (
        f"source {source_task.name}; {', '.join(methods)}; "
        f"{len(leaves.loaded)} leaves loaded, {len(leaves.remade)} re-made; {made}"
    )
