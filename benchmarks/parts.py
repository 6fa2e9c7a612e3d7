"""What is measured: every part's pairs of jobs, this project's and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

METRICS = (
    "nce",
    "leep",
    "h_score",
    "regularized_h_score",
    "logme",
    "transrate",
    "gbc",
    "lda",
)


class Job(NamedTuple):
    """A job of a module of this folder."""

    module: str
    kind: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """A line of a part.

    Attributes:
        name: of the line.
        ours: this project's job.
        peer: what it is compared with; None: nothing, the line is one of a scaling curve.
        bar: the largest ratio of ours to the peer's that is good enough, if there is one.
        threads: the numbers of threads that it is measured on; 0: all cores.
        devices: virtual devices of this project's process; 0: as many as a run takes its threads
            for, so that patches and tiles are computed side by side.
    """

    name: str
    ours: Job
    peer: Job | None = None
    bar: float | None = None
    threads: tuple[int, ...] = (1, 0)
    devices: int = 1


class Part(NamedTuple):
    """Lines that stand in one table."""

    title: str
    text: str
    against: str
    pairs: list[Pair]


def _jaxfer(kind: str, **arguments: Any) -> Job:
    return Job("jobs_jaxfer", kind, arguments)


def _size(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _with_torch(name: str, kind: str, bar: float, **arguments: Any) -> Pair:
    ours, theirs = _jaxfer(kind, **arguments), Job("jobs_torch", kind, arguments)
    return Pair(name, ours, theirs, bar, devices=0)


def _networks() -> Part:
    small, finest = [16, 32, 64, 128], [24, 48, 96]
    return Part(
        "Beside PyTorch and MONAI",
        "The same network, batch, patch, overlap and number of threads; our transposed "
        "convolutions alone have more biases, one for each place that they fill. PyTorch in eager "
        "mode and its default memory format. On all cores ours has a virtual device for each, as "
        "in a run: they share the tiles, and the patches of a training step, or slabs of them "
        "where its batch does not divide by the devices.",
        "PyTorch + MONAI",
        [
            _with_torch(
                "train step 2-D, 8 × 128², widths 16-128",
                "train",
                1.2,
                widths=small,
                shape=[8, 128, 128],
            ),
            _with_torch(
                "train step 2-D, 8 × 96², widths 24-96",
                "train",
                1.2,
                widths=finest,
                shape=[8, 96, 96],
            ),
            _with_torch(
                "train step 3-D, 1 × 64³, widths 16-64",
                "train",
                1.2,
                widths=small[:3],
                shape=[1, 64, 64, 64],
            ),
            _with_torch(
                "train step 3-D, 1 × 48³, widths 24-96",
                "train",
                1.2,
                widths=finest,
                shape=[1, 48, 48, 48],
            ),
            _with_torch(
                "train step 3-D, 2 × 48³, widths 16-64",
                "train",
                1.2,
                widths=small[:3],
                shape=[2, 48, 48, 48],
            ),
            _with_torch(
                "sliding window 2-D, 160×160×32, tiles 96²",
                "infer",
                1.0,
                widths=small[:3],
                volume=[160, 160, 32],
                patch=[96, 96],
                batch=16,
            ),
            _with_torch(
                "sliding window 3-D, 96³, tiles 64³",
                "infer",
                1.0,
                widths=small[:3],
                volume=[96, 96, 96],
                patch=[64, 64, 64],
                batch=1,
            ),
        ],
    )


def _references(voxels: int) -> Part:
    def pair(name: str, metrics: tuple[str, ...]) -> Pair:
        asked = {"metrics": list(metrics), "size": voxels}
        return Pair(name, _jaxfer("score", **asked), Job("jobs_numpy", "score", asked))

    return Part(
        "Metrics beside their published form",
        f"{_size(voxels)} voxels, 64 features, 4 classes: a stream of batches, against float64 "
        "numpy with all voxels at once. Of *all eight* ours share their passes: one over the "
        "predictions, one over the features, a second over each for LEEP and for LDA. In numpy "
        "each metric starts anew. What ours reaches of the product rate counts FᵀF alone.",
        "numpy",
        [pair("all eight", METRICS), *(pair(name, (name,)) for name in METRICS)],
    )


def _peers(voxels: int, pixels: int) -> Part:
    def of(metric: str) -> Job:
        return _jaxfer("score", metrics=[metric], size=voxels)

    near, moved = {"size": pixels, "k": 5}, {"size": pixels // 2}
    return Part(
        "Metrics beside installed packages",
        f"{_size(voxels)} voxels; nearest neighbours of {_size(pixels)}, plans between twice "
        f"{_size(pixels // 2)}. F-OTCE's plan is regularised (ε 0.002), POT's exact: their scores "
        "differ by that. transformer-ranker's forms of H-score and LogME are float32.",
        "packages",
        [
            Pair("nce, scikit-learn", of("nce"), Job("jobs_peers", "nce", {"size": voxels})),
            *(
                Pair(
                    f"{name}, transformer-ranker",
                    of(name),
                    Job("jobs_peers", "ranker", {"metric": name, "size": voxels}),
                )
                for name in ("h_score", "logme")
            ),
            Pair(
                "knn_accuracy, scikit-learn",
                _jaxfer("neighbours", **near),
                Job("jobs_peers", "neighbours", near),
            ),
            Pair(
                "f_otce, POT",
                _jaxfer("transport", **moved),
                Job("jobs_peers", "transport", moved),
            ),
        ],
    )


def _selection(cases: int) -> Part:
    what: dict[str, Any] = {
        "widths": [16, 32, 64],
        "shape": [128, 128, 64],
        "cases": cases,
        "patch": [128, 128],
        "batch": 16,
    }
    forward = _jaxfer("bare forward", **what)
    return Part(
        "Selection of a source",
        f"{cases} cases of 128 × 128 × 64, widths 16-64, the metrics that a run uses unless told "
        "otherwise, bootstrap over the subjects included. *The statistics alone* are what adding "
        "the voxels takes, on a batch that stays, without LEEP's second look at the predictions, "
        "the scores and the bootstrap.",
        "its bare forward pass",
        [
            Pair("a source", _jaxfer("select", **what), forward, 1.15),
            Pair("the statistics alone", _jaxfer("statistics", **what), forward, 0.1),
        ],
    )


def _store(cases: int) -> Part:
    asked = {"shape": [240, 240, 155], "cases": cases}
    return Part(
        "Building the store",
        f"{cases} cases of four images of 240 × 240 × 155 and a label map.",
        "gzip -d",
        [Pair("store", Job("jobs_files", "store", asked), Job("jobs_files", "gunzip", asked))],
    )


def _start() -> Part:
    asked: dict[str, Any] = {"widths": [8, 16, 32], "shape": [8, 64, 64]}
    return Part(
        "Starting",
        "Imports in fresh processes; the compilation of a training step by the second process "
        "that needs it against that by the first.",
        "see the line",
        [
            Pair(
                "import jaxfer.metrics / import jax",
                _jaxfer("import", module="jaxfer.metrics"),
                _jaxfer("import", module="jax"),
                1.2,
                (0,),
            ),
            Pair(
                "second start's compilation / first's",
                _jaxfer("compile", **asked, again=True),
                _jaxfer("compile", **asked, again=False),
                0.33,
                (0,),
            ),
        ],
    )


def _scaling(voxels: tuple[int, ...], cases: tuple[int, ...]) -> Part:
    step: dict[str, Any] = {"widths": [16, 32, 64], "shape": [8, 96, 96]}
    return Part(
        "Scaling",
        "Each line in a process of its own, with its peak of memory. Devices are virtual: they "
        "share the machine's cores, so that more of them are nothing more to compute with.",
        "",
        [
            *(
                Pair(
                    f"eight metrics, {_size(size)} voxels",
                    _jaxfer("score", metrics=list(METRICS), size=size),
                    threads=(0,),
                )
                for size in voxels
            ),
            *(
                Pair(
                    f"train step 2-D, 8 × 96², {n} device{'s' if n > 1 else ''}",
                    _jaxfer("train", **step),
                    threads=(0,),
                    devices=n,
                )
                for n in (1, 2, 4)
            ),
            *(
                Pair(
                    f"store, {number} cases of 48³",
                    Job("jobs_files", "store", {"shape": [48, 48, 48], "cases": number}),
                    threads=(0,),
                )
                for number in cases
            ),
        ],
    )


def _profile() -> Part:
    def pair(name: str, widths: list[int], shape: list[int]) -> Pair:
        asked: dict[str, Any] = {"widths": widths, "shape": shape}
        return Pair(
            name,
            _jaxfer("profile", **asked, conv_impl="shifted"),
            _jaxfer("profile", **asked, conv_impl="native"),
            threads=(1,),
        )

    return Part(
        "Where a training step's time goes",
        "By layer, from JAX's profiler, this project's formulations against XLA's own "
        "convolutions (`model.conv_impl='native'`). Wall time of each operation; what XLA leaves "
        "without a name, mostly kernels' gradients and their copies, counts as a convolution's "
        "backward pass.",
        "XLA's convolutions",
        [
            pair("2-D, 8 × 128², widths 16-128", [16, 32, 64, 128], [8, 128, 128]),
            pair("3-D, 1 × 64³, widths 16-64", [16, 32, 64], [1, 64, 64, 64]),
        ],
    )


def parts(quick: bool) -> dict[str, Part]:
    """Every part by its name; small ones for trying."""
    return {
        "networks": _networks(),
        "profile": _profile(),
        "selection": _selection(2 if quick else 8),
        "metrics": _references(100_000 if quick else 1_000_000),
        "peers": _peers(100_000 if quick else 1_000_000, 4_000 if quick else 20_000),
        "store": _store(1 if quick else 4),
        "start": _start(),
        "scaling": _scaling(
            (1_000_000,) if quick else (1_000_000, 3_000_000, 10_000_000, 30_000_000),
            (10, 30) if quick else (10, 30, 100, 300),
        ),
    }
