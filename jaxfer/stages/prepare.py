"""Stage prepare: find the cases, verify them, split the subjects, build the store."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

from jaxfer.config import fingerprint
from jaxfer.data.layouts import check_entries, read_dataset
from jaxfer.data.planes import NORMALS
from jaxfer.data.preprocess import Preprocessing
from jaxfer.data.sampler import TaskCase, task_case
from jaxfer.data.splits import PARTS, Split, kept_split, source_split, target_split, written_split
from jaxfer.data.store import StoredCase, case_fingerprint, damaged, store_cases
from jaxfer.errors import Problem, UserError, raise_problems
from jaxfer.files import fits
from jaxfer.stages.made import holds_files, made, make, root, scans_of
from jaxfer.stages.run import Run, read_json, write_json
from jaxfer.stages.verify import Wanted, find_problems, tell, workers
from jaxfer.tasks import LARGEST_LABEL, Case, Dataset, Image, RoI, Task, wrong_name

Splits = dict[str, Split]


@dataclass(frozen=True)
class _Plan:
    """What the run needs of the data, before any voxel is read."""

    datasets: Mapping[str, Dataset]
    problems: Sequence[Problem]
    unavailable: Mapping[str, str]
    splits: Splits
    written: Mapping[str, Any]
    modalities: Mapping[str, tuple[str, ...]]

    def cases(self, dataset: str) -> list[Case]:
        """The cases of a dataset that some task uses, in order."""
        used = {
            case
            for name, split in self.splits.items()
            if Task.parse(name).dataset == dataset
            for cases in split.values()
            for case in cases
        }
        return [c for c in self.datasets[dataset].cases if c.id in used]

    def preprocessing(self, run: Run, dataset: str) -> Preprocessing:
        data = run.config.data
        return Preprocessing(
            spacing=tuple(data.spacing),
            percentiles=tuple(data.percentiles),
            skull_stripped=self.datasets[dataset].skull_stripped,
            interpolation=data.interpolation,
            precision=data.precision,
        )


def _note(advance: Callable[..., None], case: str) -> None:
    advance(note=case)


def _tasks(run: Run) -> list[Task]:
    return [Task.parse(name) for name in (run.config.target, *run.config.sources)]


def _new_split(run: Run, task: Task, cases: Sequence[Case], tested: set[str]) -> Split | None:
    """Nothing for a source whose every subject the target is tested on."""
    data = run.config.data
    if task.name == run.config.target:
        return target_split(
            cases,
            seed=run.config.seed,
            train_subjects=data.train_subjects,
            test_subjects=data.test_subjects,
            subset=data.subset,
            folds=data.folds,
            fold=data.fold,
            validation_subjects=data.validation_subjects,
        )
    usable = [c for c in cases if c.subject not in tested]
    fraction = data.validation_fraction
    if not usable:
        return None
    return source_split(usable, seed=run.config.seed, validation_fraction=fraction)


def _relatives(target: Dataset, datasets: Iterable[Dataset]) -> list[Problem]:
    """Data sets whose sources may have seen the people that the target is tested on."""
    return [
        Problem(
            "warning",
            "config.sources",
            f"'{other.name}' and the target's '{target.name}' may hold the same people: a source "
            "of it may have learnt from scans that the target is tested on",
            f"both are of the family {target.family}",
            "sources of the target's own data set, where such subjects are left out, or of others",
        )
        for other in datasets
        if other.name != target.name and target.family and other.family == target.family
    ]


def _plan(run: Run) -> _Plan:
    config = run.config
    file = run.workdir / "prepare" / "splits.json"
    before = read_json(file, object) if file.is_file() else {}
    if not isinstance(before, dict):
        raise UserError(f"{file}: not the splits of a run", mend=f"delete {file}")
    check_entries(config.datasets)
    target, *sources = _tasks(run)
    datasets: dict[str, Dataset] = {}
    problems: list[Problem] = []
    unavailable: dict[str, str] = {}
    missing: dict[str, UserError] = {}
    for name in dict.fromkeys(t.dataset for t in (target, *sources)):
        settings = config.datasets[name]
        try:
            datasets[name], found = read_dataset(
                name, settings, root(run, name), scans_of(run, name)
            )
        except UserError as error:
            if name == target.dataset or not settings.get("optional", False):
                raise
            missing[name] = error
            continue
        problems += found
    for absent in missing.values():
        why = absent.found or "; ".join(absent.details) or None
        problems.append(
            Problem("warning", absent.what, "left out", why, absent.allowed, absent.mend)
        )
    problems += _relatives(datasets[target.dataset], datasets.values())
    splits: Splits = {}
    # What stands there of data that are not there now waits for their return.
    written: dict[str, Any] = dict(before)
    tested: set[str] = set()
    for task in (target, *sources):
        if task.dataset in missing:
            unavailable[task.name] = f"its data are not there: {missing[task.dataset].found}"
            continue
        dataset = datasets[task.dataset]
        dataset.roi(task.roi)
        try:
            cases = dataset.select(task.site, task.modality)
        except UserError:
            # A site or modality may be unknown just because of what is wrong with the files.
            raise_problems(problems, "the data have problems")
            raise
        key = "target" if task == target else task.name
        # No source may have seen a subject that the target is tested on, or chosen by.
        of_target = tested if task.dataset == target.dataset else set()
        if key in before:
            split, notes = kept_split(before[key], cases, task=task.name, where=str(file))
            problems += notes
        elif made := _new_split(run, task, cases, of_target):
            split = made
            written[key] = written_split(split, cases)
        else:
            unavailable[task.name] = "every subject of it is tested on in the target"
            continue
        splits[task.name] = split
        subjects = {c.id: c.subject for c in cases}
        if task == target:
            tested = {subjects[case] for part in ("validation", "test") for case in split[part]}
        elif seen := {subjects[case] for ids in split.values() for case in ids} & of_target:
            raise UserError(
                f"{file}: source {task.name} has subjects that the target is tested on",
                found=", ".join(sorted(seen)),
                allowed="subjects of the target's test in no part of a source",
                mend=f"delete {file} to have the subjects split anew",
            )
    modalities = {
        name: tuple(sorted({t.modality for t in (target, *sources) if t.dataset == name}))
        for name in datasets
    }
    return _Plan(datasets, problems, unavailable, splits, written, modalities)


def inputs(run: Run) -> Any:
    """The files that the run reads, as they are on disk; nothing yet if some cannot be found."""
    try:
        plan = _plan(run)
        return {
            name: [
                case_fingerprint(case, plan.modalities[name], plan.preprocessing(run, name))
                for case in plan.cases(name)
            ]
            for name in plan.datasets
        } | {
            "unavailable": dict(plan.unavailable),
            "splits": plan.splits,
            "news": [str(p) for p in plan.problems if p.where.endswith("splits.json")],
        }
    except (UserError, OSError):
        return None


def _wanted(run: Run, plan: _Plan, names: Iterable[str]) -> dict[str, Wanted]:
    """What verification looks at, of the data sets of these names."""
    found = {}
    for name in names:
        cases = plan.cases(name)
        try:
            files = [
                case_fingerprint(case, plan.modalities[name], plan.preprocessing(run, name))
                for case in cases
            ]
        except OSError:
            files = None
        folder = holds_files(run, name)
        found[name] = Wanted(plan.datasets[name], folder, cases, plan.modalities[name], files)
    return found


def _names(run: Run) -> list[str]:
    """The data sets of the run's tasks."""
    return list(dict.fromkeys(task.dataset for task in _tasks(run)))


def verify(run: Run) -> str:
    """Verifies what was downloaded; the collections that the run makes are verified once made."""
    own = made(run, _names(run))
    plan = _plan(run)
    wanted = _wanted(run, plan, (name for name in plan.datasets if name not in own))
    problems = find_problems(run, wanted, plan.problems)
    tell(run, problems)
    cases = sum(len(one.cases) for one in wanted.values())
    return f"{cases} cases of {len(wanted)} dataset(s), {len(problems)} warning(s)"


def _build(run: Run, plan: _Plan) -> dict[str, dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    total = sum(len(plan.cases(name)) for name in plan.datasets)
    with run.progress("storing", total) as advance:
        for name in plan.datasets:
            how, modalities = plan.preprocessing(run, name), plan.modalities[name]
            cases = plan.cases(name)
            stored, _ = store_cases(
                cases,
                modalities,
                how,
                run.cache / name / fingerprint(dataclasses.asdict(how), modalities),
                workers=workers(run),
                on_case=partial(_note, advance),
                on_wait=partial(run.say, f"  another run is storing {name}; waiting for it"),
            )
            records[name] = {
                "cases": {
                    case.id: {
                        "subject": case.subject,
                        "site": case.site,
                        "folder": os.path.realpath(one.folder),
                        "images": {
                            m: {"path": os.path.realpath(image.path), "channel": image.channel}
                            for m, image in case.images.items()
                            if m in modalities
                        },
                        "label": os.path.realpath(case.label) if case.label else None,
                    }
                    for case, one in zip(cases, stored, strict=True)
                },
                "preprocessing": dataclasses.asdict(how),
            }
    return records


def run(run: Run) -> str:
    """Makes the collection if the run needs it, verifies, splits, stores."""
    own = made(run, _names(run))
    # Whatever is wrong with the tasks or the downloads shows before the collections are made.
    plan = _plan(run)
    downloaded = _wanted(run, plan, (name for name in plan.datasets if name not in own))
    problems = find_problems(run, downloaded, plan.problems)
    if own and not any(p.severity == "error" for p in problems):
        make(run, [name for name in plan.datasets if name in own], workers(run))
        problems = find_problems(run, _wanted(run, plan, plan.datasets), plan.problems)
    tell(run, problems)
    records = _build(run, plan)
    for name, dataset in plan.datasets.items():
        records[name] |= {
            "label_names": {str(v): n for v, n in dataset.label_names.items()},
            "rois": {
                t.roi: [[c, list(v)] for c, v in dataset.roi(t.roi).classes]
                for t in _tasks(run)
                if t.dataset == name
            },
            "ignore": list(dataset.ignore),
            "synthetic": dataset.synthetic,
            "about": dataset.about,
        }
    write_json(run.workdir / "prepare" / "splits.json", plan.written)
    write_json(
        run.workdir / "prepare" / "prepared.json",
        {
            "datasets": records,
            "splits": plan.splits,
            "plane": run.config.data.plane,
            "unavailable": dict(plan.unavailable),
            "synthetic": any(d.synthetic for d in plan.datasets.values()),
            "synthetic_target": plan.datasets[_tasks(run)[0].dataset].synthetic,
        },
    )
    split = plan.splits[run.config.target]
    cases = sum(len(r["cases"]) for r in records.values())
    return (
        f"{cases} cases of {len(records)} dataset(s); target: {len(split['train'])} for training, "
        f"{len(split['test'])} for testing; {len(problems)} warning(s)"
    )


_PREPARED = {
    "datasets": {
        str: {
            "cases": {
                str: {
                    "subject": str,
                    "site": str,
                    "folder": str,
                    "images": {str: {"path": str, "channel": (int, NoneType)}},
                    "label": str,
                }
            },
            "preprocessing": dict,
            "rois": {str: [list]},
            "ignore": [int],
            "synthetic": bool,
        }
    },
    "splits": {str: {part: [str] for part in PARTS}},
    "plane": str,
    "unavailable": {str: str},
}


def _check(record: Mapping[str, Any], task: Task) -> None:
    """Raises ``KeyError`` or ``ValueError`` unless a task's split, cases and RoI are there."""
    if task.name in record["unavailable"]:
        return
    dataset = record["datasets"][task.dataset]
    for group in dataset["rois"][task.roi]:
        if len(group) != 2 or not fits(group[0], str) or not fits(group[1], [int]):
            raise ValueError(f"RoI {task.roi}: {group} is no class")
        if wrong_name(group[0]) or not all(0 < v <= LARGEST_LABEL for v in group[1]):
            raise ValueError(f"RoI {task.roi}: {group} is no class")
    for case in (case for part in PARTS for case in record["splits"][task.name][part]):
        if wrong_name(case):
            raise ValueError(f"{case!r} is no case's name")
        _ = dataset["cases"][case]["images"][task.modality]
    if record["plane"] not in NORMALS:
        raise ValueError(f"plane {record['plane']!r}")


@dataclass(frozen=True)
class Prepared:
    """What the prepare stage left behind, as the later stages read it."""

    record: Mapping[str, Any]

    @classmethod
    def read(cls, run: Run) -> Prepared:
        path = run.workdir / "prepare" / "prepared.json"
        record = read_json(path, _PREPARED)
        try:
            for task in _tasks(run):
                _check(record, task)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path}: not what the stage 'prepare' wrote for this run",
                found=f"{type(error).__name__}: {error}",
                mend="delete prepare/done.json in the workdir; the stage is then done again",
            ) from error
        return cls(record)

    @property
    def unavailable(self) -> Mapping[str, str]:
        """Sources without data, and why."""
        return self.record["unavailable"]

    def synthetic(self, task: Task) -> bool:
        return bool(self.record["datasets"][task.dataset]["synthetic"])

    def roi(self, task: Task) -> RoI:
        classes = self.record["datasets"][task.dataset]["rois"][task.roi]
        return RoI(task.roi, tuple((name, tuple(values)) for name, values in classes))

    def ignore(self, task: Task) -> tuple[int, ...]:
        return tuple(self.record["datasets"][task.dataset]["ignore"])

    def preprocessing(self, task: Task) -> Mapping[str, Any]:
        return self.record["datasets"][task.dataset]["preprocessing"]

    def files(self, task: Task, case: str) -> tuple[Image, Path]:
        """The image and the label map of a case, as they were downloaded."""
        known = self.record["datasets"][task.dataset]["cases"][case]
        image = known["images"][task.modality]
        return Image(Path(image["path"]), image["channel"]), Path(known["label"])

    def cases(self, task: Task, part: str) -> list[TaskCase]:
        """The cases of a task's split ('train', 'validation', 'test')."""
        roi, ignore, plane = self.roi(task), self.ignore(task), self.record["plane"]
        return [
            task_case(self._stored(task, case), task.modality, roi, ignore, plane)
            for case in self.record["splits"][task.name][part]
        ]

    def _stored(self, task: Task, case: str) -> StoredCase:
        known = self.record["datasets"][task.dataset]["cases"][case]
        folder = Path(known["folder"])
        try:
            return StoredCase.read(case, known["subject"], known["site"], folder)
        except (OSError, ValueError) as error:
            raise damaged(folder, error) from error
