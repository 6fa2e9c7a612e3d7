"""Training along a path: every source on from the network of the one before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from jaxfer import hosts
from jaxfer.config import fingerprint
from jaxfer.errors import UserError
from jaxfer.models.zoo import Source, read_card
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.pretrain import only_here, source_mark, train_source
from jaxfer.stages.run import Run, read_json
from jaxfer.stages.training import show_step, source_at
from jaxfer.tasks import Task


def best_path(run: Run, start: Task) -> tuple[Task, ...]:
    """The cheapest path from a source, as the stage select has found it.

    Raises:
        UserError: none leads to the target.
    """
    file = run.workdir / "select" / "paths.json"
    record = read_json(file, {"paths": [{"source": str, "path": [str]}]})
    found = [r["path"] for r in record["paths"] if r["source"] == start.name]
    if not found or not found[0]:
        raise UserError(
            f"config.finetune.path: no path leads from {start.name} to the target",
            found="see the reasons of its distances in select/paths.json",
            mend="--config.finetune.source=ANOTHER, or name the path: "
            "--config.finetune.path=\"('SOURCE','SOURCE')\"",
        )
    path = found[0]
    if path[0] != start.name or not set(path) <= set(run.config.sources):
        raise UserError(
            f"{file}: its path is none of this run's sources",
            found=" → ".join(path),
            allowed=", ".join(run.config.sources),
            mend="delete select/done.json in the workdir; the stage is then done again",
        )
    return tuple(map(Task.parse, path))


def _steps(run: Run, prepared: Prepared, path: tuple[Task, ...]) -> list[tuple[Path, str]]:
    """Folder and mark of the network at each source of a path; the first is the shelf's own."""
    start, *others = path
    card = read_card(run.shelf / start.slug)
    mark = str(card["fingerprint"]) if card else ""
    found, folder = [(run.shelf / start.slug, mark)], run.shelf / "along" / start.slug
    for task in others:
        mark = fingerprint(source_mark(run, prepared, task), mark)
        found.append((folder / f"{task.slug}-{mark}", mark))
        folder /= task.slug
    return found


def end_of_path(run: Run, prepared: Prepared, path: tuple[Task, ...]) -> Path:
    """The folder of the network at the last source of a path."""
    return _steps(run, prepared, path)[-1][0]


def train_along(run: Run, prepared: Prepared, path: tuple[Task, ...]) -> Source:
    """The network at the end of a path; what of the way is not on the shelf yet is trained.

    Each is trained as the stage pretrain would, from the leaves of the one before that fit. It
    lies under ``along/`` on the shelf, in a folder that names the sources before it and, by its
    mark, all that decides it: the ordinary network of the same source stays what it is.

    Raises:
        UserError: a source on the way has no data here, or the first no network.
    """
    for task in path[1:]:
        if task.name in prepared.unavailable:
            raise UserError(
                f"config.finetune.path: nothing can be trained on {task.name}",
                found=prepared.unavailable[task.name],
                allowed="sources with data; the first may do without",
                mend="another path, or the data",
            )
    (folder, _), *others = _steps(run, prepared, path)
    source = source_at(run, folder)
    for stops, (folder, mark) in enumerate(others, start=2):
        task = path[stops - 1]
        with only_here(run, folder, wait=True):
            card = read_card(folder) if hosts.leads() else None
            if hosts.of_leader(card is None or card["fingerprint"] != mark):
                with run.progress(
                    "along the path", run.config.pretrain.steps, stops=False
                ) as advance:
                    train_source(
                        run,
                        prepared,
                        task,
                        mark,
                        partial(show_step, advance, task.name),
                        folder=folder,
                        before=source,
                        path=path[:stops],
                    )
        hosts.wait_for_all(f"trained on {task.name}")
        source = source_at(run, folder)
    return source
