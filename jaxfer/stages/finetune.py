"""Stage finetune: every method from one source, with equal budgets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

from jaxfer import hosts
from jaxfer.data.sampler import TaskCase
from jaxfer.errors import UserError
from jaxfer.files import NUMBER_OR_NULL
from jaxfer.models.checkpoint import save_params
from jaxfer.models.zoo import Source, read_card
from jaxfer.stages.along import best_path, end_of_path, train_along
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.recipe import Recipe, finetuning_mark, perturbed, recipe_of
from jaxfer.stages.risk import export_weights, make_risk_maps, weights_for
from jaxfer.stages.run import Run, read_json, write_json
from jaxfer.stages.training import (
    Timed,
    mean_dice,
    network,
    show_step,
    source_at,
    train,
    transferred,
    unfinished,
    validation_dice,
)
from jaxfer.tasks import Task
from jaxfer.train.loop import Validation, initial_params
from jaxfer.train.methods import METHODS, MapUse, Method
from jaxfer.train.step import Params


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


def chosen_path(run: Run) -> tuple[Task, ...]:
    """The sources whose networks are trained one after the other; the last one is fine-tuned."""
    named = tuple(run.config.finetune.path)
    if named == ("best",):
        return best_path(run, chosen_source(run))
    return tuple(map(Task.parse, named)) or (chosen_source(run),)


def starting_source(run: Run, prepared: Prepared) -> Source:
    """The network that fine-tuning has started from."""
    return source_at(run, end_of_path(run, prepared, chosen_path(run)))


def sources_of_map(run: Run, source: Task, use: MapUse) -> tuple[Task, ...]:
    """The sources whose maps a method heeds; its own alone, unless it says otherwise.

    Args:
        source: that is fine-tuned.
        use: "other" is the next one in the table of sources, cyclically.

    Raises:
        UserError: there is no other source with a network.
    """
    if use.whose == "own":
        return (source,)
    file = run.workdir / "select" / "selection.json"
    rows = read_json(file, {"sources": [{"source": str, "outputs_only": bool}]})["sources"]
    own = [r["source"] for r in rows if r["source"] in run.config.sources and not r["outputs_only"]]
    if use.whose == "all":
        return tuple(Task.parse(name) for name in sorted({source.name, *own}))
    place = own.index(source.name) if source.name in own else -1
    others = [name for name in own[place + 1 :] + own[: max(place, 0)] if name != source.name]
    if not others:
        raise UserError(
            "config.finetune.methods: a control asks for the map of another source",
            found=f"sources with a network: {source.name}",
            allowed="two sources or more",
            mend="more of --config.sources, or --config.finetune.methods without weighted_other",
        )
    return (Task.parse(others[0]),)


def _train_one(
    run: Run,
    prepared: Prepared,
    recipe: Recipe,
    source: Source | None,
    seed: int,
    folder: Path,
    mark: str,
    on_step: Callable[[int, float], None],
) -> Params:
    model, every = (
        network(run.config, recipe.cases[0].roi.num_classes),
        run.config.finetune.validate_every,
    )
    chosen_by = prepared.cases(Task.parse(run.config.target), "validation") if every else []
    start = (
        transferred(run, source, recipe.cases, seed, perturbed(run, recipe.method)).params
        if recipe.method.transferred and source is not None
        else initial_params(model, tuple(run.config.model.patch), seed)
    )
    return train(
        run,
        run.config.finetune,
        start,
        recipe.cases,
        recipe.minimised,
        model=model,
        seed=seed,
        folder=folder,
        mark=mark,
        on_step=on_step,
        validation=Validation(every, lambda p: mean_dice(validation_dice(run, model, p, chosen_by)))
        if every
        else None,
        follows=recipe.follows,
        fade=recipe.fade,
    )


def _weights(
    run: Run,
    prepared: Prepared,
    source: Source,
    cases: list[TaskCase],
    uses: list[MapUse],
    folder: Path,
) -> dict[str, list[Path]]:
    """The files of the weights that every use makes of its map, by the use's name."""
    found: dict[str, list[Path]] = {}
    own = Task.parse(source.card["task"]["name"])
    for whose in ("own", "other", "all"):
        wanted = {use.name: use for use in uses if use.whose == whose}
        if not wanted:
            continue
        sources = [
            source if task == own else source_at(run, run.shelf / task.slug)
            for task in sources_of_map(run, own, next(iter(wanted.values())))
        ]
        files = weights_for(run, prepared, sources, cases, list(wanted.values()), folder)
        found |= dict(zip(wanted, files, strict=True))
    return found


def finetune_one(
    run: Run,
    prepared: Prepared,
    source: Source | None,
    name: str,
    seed: int,
    folder: Path,
    on_step: Callable[[int, float], None],
) -> Params:
    """One method from one source with one seed; what is kept of it is for the caller to decide.

    Args:
        run: with the section ``finetune`` to train by.
        prepared: with the target's training cases.
        source: to start from, and to make the maps with; None: from scratch.
        name: of the method.
        seed: of the order, the augmentation and the new leaves.
        folder: for the records, the weights of the risk map if the method uses one and, as long
            as the training is not finished, the checkpoints.
        on_step: called with the step and the last known loss.
    """
    cases = prepared.cases(Task.parse(run.config.target), "train")
    method, weights, moved, others = METHODS[name], None, None, ""
    if source is not None and method.transferred:
        moved = transferred(run, source, cases, seed)
    if source is not None and method.risk is not None:
        made = _weights(run, prepared, source, cases, [method.risk], folder / "risk")
        weights = made[method.risk.name]
        others = mark_of_others(run, source, method)
    recipe = recipe_of(run, method, cases, weights, moved)
    mark = finetuning_mark(run, cases, source, name, others)
    return _train_one(run, prepared, recipe, source, seed, folder, mark, on_step)


def mark_of_others(run: Run, source: Source, method: Method) -> str:
    """The fingerprints of the other sources whose maps a method heeds; '' if it heeds none."""
    if method.risk is None or method.risk.whose == "own":
        return ""
    tasks = sources_of_map(run, Task.parse(source.card["task"]["name"]), method.risk)
    cards = [read_card(run.shelf / task.slug) or {} for task in tasks]
    return " ".join(str(card.get("fingerprint", "")) for card in cards)


def _risk_maps(
    run: Run, prepared: Prepared, source: Source, cases: list[TaskCase], methods: list[Method]
) -> tuple[dict[str, list[Path]], dict[str, Any]]:
    """The weights of every use of a map, and the maps' record; the leading process makes them."""
    found = None
    if hosts.leads():
        with run.progress("risk maps", len(cases)) as advance:
            risk = make_risk_maps(
                run, prepared, source, cases, on_case=lambda case: advance(note=case)
            )
        if risk["positional_missing_because"]:
            run.say(f"  no positional risk map: {risk['positional_missing_because']}")
        uses = [m.risk for m in methods if m.risk is not None]
        made = _weights(run, prepared, source, cases, uses, run.workdir / "risk")
        target = Task.parse(run.config.target)
        for name in made:
            export_weights(prepared, target, cases, run.workdir / "risk" / name)
        found = [{name: [str(f) for f in files] for name, files in made.items()}, risk]
    files, risk = hosts.of_leader(found)
    return {name: [Path(f) for f in own] for name, own in files.items()}, risk


def _folder(run: Run, name: str, seed: int) -> Path:
    return run.workdir / "finetune" / name / f"seed{seed}"


def _initial(run: Run, method: Method, source: str) -> str:
    """What a method starts from, in words."""
    if not method.transferred:
        return "random"
    share = perturbed(run, method)
    return f"{source}, {share:g} of it random" if share else source


def _where_weights_are(method: Method) -> dict[str, str]:
    """The folder, in the workdir, of what a method makes of its map; nothing if it heeds none."""
    return {"weights": f"risk/{method.risk.name}"} if method.risk else {}


def _is_done(run: Run, name: str, seed: int, mark: str) -> bool:
    done = _folder(run, name, seed) / "done.json"
    return done.is_file() and read_json(done, {"fingerprint": str})["fingerprint"] == mark


def run(run: Run) -> str:
    """Makes the risk maps, then trains every method with every seed."""
    config, prepared = run.config, Prepared.read(run)
    target = Task.parse(config.target)
    path = chosen_path(run)
    source = train_along(run, prepared, path)
    came_by = " → ".join(task.name for task in path)
    cases = prepared.cases(target, "train")
    methods = {name: METHODS[name] for name in config.finetune.methods}
    weights, risk = _risk_maps(run, prepared, source, cases, list(methods.values()))
    seeds = tuple(config.finetune.seeds)
    moved = transferred(run, source, cases, seeds[0])
    recipes = {
        name: recipe_of(
            run,
            method,
            cases,
            weights[method.risk.name] if method.risk else None,
            moved if method.transferred else None,
        )
        for name, method in methods.items()
    }
    marks = {
        name: finetuning_mark(run, cases, source, name, mark_of_others(run, source, method))
        for name, method in methods.items()
    }
    jobs = [(name, seed) for name in methods for seed in seeds]
    left = hosts.of_leader([j for j in jobs if not _is_done(run, *j, marks[j[0]])])
    with run.progress("fine-tuning", len(jobs) * config.finetune.steps, stops=False) as advance:
        advance((len(jobs) - len(left)) * config.finetune.steps)
        for name, seed in left:
            folder = _folder(run, name, seed)
            if hosts.leads():
                (folder / "done.json").unlink(missing_ok=True)
            timed, mark = Timed(partial(show_step, advance, name)), marks[name]
            params = _train_one(run, prepared, recipes[name], source, seed, folder, mark, timed)
            if hosts.leads():
                save_params(folder / "checkpoint", params)
                write_json(folder / "done.json", {"fingerprint": mark})
                write_json(folder / "seconds.json", {"per_step": timed.seconds_per_step})
                unfinished(run, folder).discard()
    hosts.wait_for_all("fine-tuned")
    if hosts.leads():
        write_json(
            run.workdir / "finetune" / "summary.json",
            {
                "source": path[-1].name,
                "path": [task.name for task in path],
                "methods": {
                    name: {
                        "is": recipe.method.words,
                        "initial": _initial(run, recipe.method, came_by),
                        "loss": recipe.words,
                        **_where_weights_are(recipe.method),
                        "class_weights": list(recipe.minimised.class_weights),
                        "scale": recipe.minimised.scale,
                    }
                    for name, recipe in recipes.items()
                },
                "steps": config.finetune.steps,
                "seeds": list(seeds),
                "risk": risk,
                "leaves": {
                    "loaded": list(moved.loaded),
                    "remade": list(moved.remade),
                    "unused": list(moved.unused),
                },
            },
        )
    made = f"{len(left)} of {len(jobs)} fine-tunings done now"
    made = made if len(left) < len(jobs) else "all done"
    return (
        f"source {came_by}; {', '.join(methods)}; "
        f"{len(moved.loaded)} leaves loaded, {len(moved.remade)} re-made; {made}"
    )
