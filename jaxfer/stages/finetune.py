"""Stage finetune: from scratch, plain and weighted by the risk map, with equal budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxfer.config import fingerprint, plain
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import UserError
from jaxfer.models.checkpoint import save_params
from jaxfer.models.zoo import Source, load_source
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.risk import make_risk_maps
from jaxfer.stages.run import Run, read_json, write_json
from jaxfer.stages.training import Objective, network, objective, show_step, train, unfinished
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
    """The source to start from: the configured one, or the first of the ranking."""
    if run.config.finetune.source != "best":
        return Task.parse(run.config.finetune.source)
    selection = read_json(run.workdir / "select" / "selection.json")
    rows, by = selection["sources"], selection["rank_by"]
    best = [r["source"] for r in rows if r["rank"] == 1 and r["scores"][by] is not None]
    if not best:
        raise UserError(
            f"no source has both survived the filters and a {by} score: there is none to fine-tune",
            mend="see select/selection.csv for the reasons, or name one: "
            "--config.finetune.source=TASK",
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
    save_params(folder / "checkpoint", params)
    write_json(folder / "done.json", {"fingerprint": mark})
    unfinished(run, folder).discard()


def run(run: Run) -> str:
    """Makes the risk maps, then trains every method with every seed."""
    config, prepared = run.config, Prepared.read(run)
    target = Task.parse(config.target)
    source_task = chosen_source(run)
    source = load_source(run.shelf / source_task.slug)
    cases = prepared.cases(target, "train")
    with run.progress("risk maps", len(cases)) as advance:
        weighted, risk = make_risk_maps(
            run, prepared, source, cases, on_case=lambda case: advance(note=case)
        )
    if risk["positional_missing_because"]:
        run.say(f"  no positional risk map: {risk['positional_missing_because']}")
    methods = _methods(run, cases, weighted)
    marks = {name: _mark(run, name, method, source) for name, method in methods.items()}
    seeds = tuple(config.finetune.seeds)
    jobs = [(name, seed) for name in methods for seed in seeds]
    trained = 0
    with run.progress("fine-tuning", len(jobs) * config.finetune.steps, stops=False) as advance:
        for name, seed in jobs:
            folder = run.workdir / "finetune" / name / f"seed{seed}"
            done = folder / "done.json"
            if done.is_file() and read_json(done)["fingerprint"] == marks[name]:
                advance(config.finetune.steps)
                continue
            done.unlink(missing_ok=True)
            on_step = partial(show_step, advance, name)
            _train_one(run, methods[name], source, seed, folder, marks[name], on_step)
            trained += 1
    leaves = _transferred(run, source, cases, seeds[0])
    if "weighted" in methods:
        risk["effective_scale"] = methods["weighted"].minimised.scale
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
    made = f"{trained} of {len(jobs)} fine-tunings done now" if trained < len(jobs) else "all done"
    return (
        f"source {source_task.name}; {', '.join(methods)}; "
        f"{len(leaves.loaded)} leaves loaded, {len(leaves.remade)} re-made; {made}"
    )
