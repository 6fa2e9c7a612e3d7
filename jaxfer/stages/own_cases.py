"""The scans that a source was trained on, as far as a run has them."""

from __future__ import annotations

from jaxfer.data.sampler import TaskCase
from jaxfer.selection.foreign import Foreign, SourceModel
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.run import Run
from jaxfer.tasks import Task


def own_cases(
    run: Run, prepared: Prepared, task: Task, source: SourceModel
) -> list[TaskCase] | str:
    """The training cases of a source, or why its network cannot be shown them."""
    if isinstance(source, Foreign):
        return "the source is known by its outputs alone"
    if task.name in prepared.unavailable:
        return f"the source's own voxels are not at hand: {prepared.unavailable[task.name]}"
    here, there = list(run.config.data.spacing), list(source.card["spacing"])
    if here != there:
        return f"the source's own voxels are stored at {here} mm, it was trained at {there} mm"
    names = list(prepared.roi(task).class_names)
    if names != list(source.card["class_names"]):
        return f"the source's own labels are {names} now, those of its training were others"
    return prepared.cases(task, "train")
