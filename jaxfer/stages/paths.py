"""The search for paths of sources to the target, as a part of the stage select."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from jaxfer.models.zoo import Source
from jaxfer.selection.leg import Leg, Place, leg
from jaxfer.selection.modality import Intensities
from jaxfer.selection.path import cheapest_path, path_cost
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run, write_json
from jaxfer.tasks import Task


def _places(shelf: Mapping[Task, Source]) -> dict[Task, Place]:
    """The sources as what lies on the shelf shows them."""
    return {
        task: Place(
            source.masks,
            None
            if source.intensities is None
            else Intensities(
                source.intensities, bool(source.card["preprocessing"]["skull_stripped"])
            ),
        )
        for task, source in shelf.items()
    }


def _legs(run: Run, places: Mapping[Task, Place]) -> dict[frozenset[Task], Leg]:
    select = run.config.select
    how = {"alpha": select.path_alpha, "beta": select.path_beta}
    found = {}
    with run.progress("distances", math.comb(len(places), 2)) as advance:
        for (a, one), (b, other) in combinations(places.items(), 2):
            found[frozenset((a, b))] = leg(one, other, **how, k1=select.ssim_k1, k2=select.ssim_k2)
            advance(note=a.name)
    return found


def write_paths(run: Run, prepared: Prepared, shelf: Mapping[Task, Source], target: Place) -> None:
    """Writes ``select/paths.json``: from every source the cheapest path to the target.

    Args:
        shelf: the sources that have a network.
        target: its training subjects.
    """
    kind, goal, tasks = run.config.select.path_cost, Task.parse(run.config.target), list(shelf)
    legs = _legs(run, _places(shelf) | {goal: target})
    # A source without data may start a path; nothing can be trained on it any more.
    between = np.array(
        [
            [
                math.nan
                if a == b or b.name in prepared.unavailable
                else legs[frozenset((a, b))].distance
                for b in tasks
            ]
            for a in tasks
        ]
    ).reshape(len(tasks), len(tasks))
    to_target = np.array([legs[frozenset((task, goal))].distance for task in tasks])
    rows = []
    for number, task in enumerate(tasks):
        best, direct = cheapest_path(number, between, to_target, kind), float(to_target[number])
        rows.append(
            {
                "source": task.name,
                "path": [tasks[i].name for i in best.sources] if best else [],
                "legs": list(best.legs) if best else [],
                "cost": best.cost if best else None,
                "direct": direct,
                "direct_cost": math.nan if math.isnan(direct) else path_cost([direct], kind),
            }
        )
    write_json(
        run.workdir / "select" / "paths.json",
        {
            "target": goal.name,
            "alpha": run.config.select.path_alpha,
            "beta": run.config.select.path_beta,
            "cost": kind,
            "distances": [_about(pair, tasks, own) for pair, own in legs.items()],
            "without_data": {
                t.name: prepared.unavailable[t.name]
                for t in tasks
                if t.name in prepared.unavailable
            },
            "paths": rows,
        },
    )


def _about(pair: frozenset[Task], tasks: Sequence[Task], own: Leg) -> dict[str, object]:
    """One distance, in the order of the sources, the target last."""
    first, second = sorted(pair, key=lambda t: tasks.index(t) if t in tasks else len(tasks))
    return {
        "between": [first.name, second.name],
        "distance": own.distance,
        "image_distance": own.image_distance,
        "label_similarity": own.label_similarity,
        "reason": own.reason,
    }
