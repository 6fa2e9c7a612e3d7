"""What each metric needs, which way it points, and what its number means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from jaxfer.metrics.h_score import h_score, h_score_from_statistics
from jaxfer.metrics.leep import leep, leep_from_statistics
from jaxfer.metrics.logme import logme, logme_from_statistics
from jaxfer.metrics.nce import nce, nce_from_statistics
from jaxfer.metrics.prediction import PredictionStatistics
from jaxfer.metrics.score import Score
from jaxfer.metrics.statistics import FeatureStatistics, LabelStatistics


@dataclass(frozen=True)
class Metric:
    """A metric's card.

    Attributes:
        name: the name in configs and tables.
        meaning: what it measures, in a few words.
        needs: what of the source's output: class probabilities (a head) or features (none).
        direction: which values mean a better source.
        range: where values lie, in words; C target classes, D features, H(Y) the label entropy.
        comparable: between what scores may be compared.
        cost: of n voxels, in words.
        reference: the paper.
        departure: where ours differs from published code, and why.
        compute: the score of samples in memory.
        statistics: the additive statistics of the pass over the voxels; None: needs samples.
        second_pass: those of a second pass, where one is needed.
        finalise: the score of the statistics of the last pass; None: needs samples.
    """

    name: str
    meaning: str
    needs: Literal["probabilities", "features"]
    direction: Literal["higher", "lower"]
    range: str
    comparable: str
    cost: str
    reference: str
    departure: str
    compute: Callable[..., Score]
    statistics: type[LabelStatistics] | type[FeatureStatistics] | None = None
    second_pass: type[PredictionStatistics] | None = None
    finalise: Callable[..., Score] | None = None

    @property
    def sign(self) -> int:
        """Multiply scores by this, and higher is better."""
        return 1 if self.direction == "higher" else -1


_CARDS = (
    Metric(
        name="leep",
        meaning="mean log-likelihood of the target's labels under the source's own output",
        needs="probabilities",
        direction="higher",
        range="[-H(Y), 0] nats",
        comparable="within one target, any source",
        cost="O(n S), two passes",
        reference="Nguyen et al., LEEP, ICML 2020, arXiv 2002.12462",
        departure="log space instead of added constants; source classes without mass are dropped "
        "(elsewhere NaN); one target class alone is NaN (elsewhere 0, the maximum)",
        compute=leep,
        statistics=LabelStatistics,
        second_pass=PredictionStatistics,
        finalise=leep_from_statistics,
    ),
    Metric(
        name="nce",
        meaning="what the source's predicted label leaves unknown of the target's, negated",
        needs="probabilities",
        direction="higher",
        range="[-H(Y), 0] nats",
        comparable="within one target, any source",
        cost="O(n S), one pass",
        reference="Tran et al., Transferability and Hardness of Supervised Classification Tasks, "
        "ICCV 2019",
        departure="nothing is added to the joint table; one target class alone is NaN",
        compute=nce,
        statistics=LabelStatistics,
        finalise=nce_from_statistics,
    ),
    Metric(
        name="h_score",
        meaning="spread of the classes' mean features, in units of the features' covariance",
        needs="features",
        direction="higher",
        range="[0, min(C-1, D)]",
        comparable="within one target, any source with D well below n",
        cost="O(n D² + D³), one pass",
        reference="Bao et al., An Information-Theoretic Approach to Transferability, ICIP 2019",
        departure="the pseudo-inverse drops what float32 rounding alone would have made, instead "
        "of a fixed cut-off; D >= n-1, where the score is C-1 whatever the features, is flagged",
        compute=h_score,
        statistics=FeatureStatistics,
        finalise=h_score_from_statistics,
    ),
    Metric(
        name="logme",
        meaning="evidence for a linear model from the features to the labels",
        needs="features",
        direction="higher",
        range="unbounded, nats per voxel",
        comparable="within one target, the same n for every source",
        cost="O(n D² + D³), one pass",
        reference="You et al., LogME, ICML 2021, arXiv 2102.11005; fixed point of arXiv 2110.10545",
        departure="the log-determinant in which D cancels (published fixed point: far too high "
        "when D > n); absent classes are left out (elsewhere they pull the mean up)",
        compute=logme,
        statistics=FeatureStatistics,
        finalise=logme_from_statistics,
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({card.name: card for card in _CARDS})


def metric(name: str) -> Metric:
    """The card of a metric.

    Raises:
        ValueError: no metric has this name; the text lists those that exist.
    """
    if name not in METRICS:
        raise ValueError(f"no metric is called {name!r}: known are {', '.join(sorted(METRICS))}")
    return METRICS[name]
