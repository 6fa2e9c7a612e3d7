"""A metric's card: what it measures, needs and means; each metric's file holds its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat

from jaxfer.metrics.score import Score


@dataclass(frozen=True)
class Metric:
    """A metric's card.

    Attributes:
        name: the name in configs and tables.
        meaning: what it measures, in a few words.
        needs: what of the source's output: class probabilities (a head) or features (none), of the
            target's voxels; or more: features of the source's own voxels too, features kept apart
            by image, the predictions of two passes, or the features of several sources.
        direction: which values mean a better source.
        range: where values lie, in words; C target classes, D features, H(Y) the label entropy.
        comparable: between what scores may be compared.
        cost: of n voxels, in words.
        reference: the paper.
        departure: where ours differs from published code, and why.
        compute: the score of samples in memory; its arguments depend on the needs. Of several
            sources: the scores of all, from the terms of each.
        statistics: the additive statistics of the pass over the voxels; None: needs samples.
        second_pass: those of a second pass, where one is needed.
        finalise: the score of the statistics of the last pass; None: needs samples.
        terms: of several sources: what `compute` needs of each, from its samples.
        by_subject: whether `compute` can be told the subject of each voxel, as ``subjects``.
    """

    name: str
    meaning: str
    needs: Literal[
        "probabilities",
        "features",
        "source samples",
        "several images",
        "two predictions",
        "several sources",
    ]
    direction: Literal["higher", "lower"]
    range: str
    comparable: str
    cost: str
    reference: str
    departure: str
    compute: Callable[..., SupportsFloat]
    statistics: type[Any] | None = None
    second_pass: type[Any] | None = None
    finalise: Callable[..., Score] | None = None
    terms: Callable[..., Any] | None = None
    by_subject: bool = False

    @property
    def sign(self) -> int:
        """Multiply scores by this, and higher is better."""
        return 1 if self.direction == "higher" else -1

    @property
    def pool_dependent(self) -> bool:
        """Whether a source's score changes with the sources that it is compared with."""
        return self.needs == "several sources"

    @property
    def of_one_layer(self) -> bool:
        """Whether there is a score for every layer: the others look at the prediction, or at all
        layers together."""
        return self.needs in ("features", "source samples", "several sources")
