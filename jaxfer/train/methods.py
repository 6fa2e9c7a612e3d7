"""The methods of fine-tuning, by name: what each one starts from, trains, minimises, and heeds.

A method is plain data. Its numbers (rates, strengths) are settings of the run, the risk maps files
beside the labels: methods that differ in the map alone share one compiled step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MapUse:
    """Which risk map a method heeds, what of it is left, and what the method does with it.

    Attributes:
        settings: fields of the section ``risk`` that the method insists on, with their values.
        whose: "own", the map of the source that is fine-tuned; that of an "other" one; the mean of
            those of "all" sources of the run that have a network, this one included.
        controls: applied to the weights in order, of ``jaxfer.train.controls``.
        to: "weigh" the pixels of the cross-entropy; "draw" patches where the weights are large;
            "soften" the labels, of which the weights are what the source gives them.
        fades: the weights go over to those of the plain method during the training.
    """

    settings: tuple[tuple[str, Any], ...] = ()
    whose: str = "own"
    controls: tuple[str, ...] = ()
    to: str = "weigh"
    fades: bool = False

    @property
    def name(self) -> str:
        """Of the map's folder: uses with one name have the same weights."""
        changed = [f"{key}={value}" for key, value in self.settings]
        source = {"own": [], "other": ["other_source"], "all": ["all_sources"]}[self.whose]
        return "-".join([*changed, *source, *self.controls]) or "configured"


@dataclass(frozen=True)
class Method:
    """One way to learn the target.

    Attributes:
        words: what it is, for the report.
        transferred: starts from the source's parameters; else from random ones.
        trains: "all" leaves, the "decoder" with the head, or the "head" alone. Leaves that the
            source does not have are always trained.
        discriminative: leaves far from the output learn more slowly.
        pulled: leaves are pulled back to the source's (L2-SP).
        class_weights: of the cross-entropy: "none", "root" (square-root inverse frequency) or
            "inverse" (inverse frequency).
        pixels: what becomes of the pixels' cross-entropies: "all" are averaged, "focal", "hardest".
        region: of the cross-entropy; "" = as configured, with the configured denominator.
        overlap: the loss of regions beside the cross-entropy: "dice", "tversky" or "none".
        risk: the risk map that it heeds.
    """

    words: str
    transferred: bool = True
    trains: str = "all"
    discriminative: bool = False
    pulled: bool = False
    class_weights: str = "root"
    pixels: str = "all"
    region: str = "all"
    overlap: str = "dice"
    risk: MapUse | None = None

    def uses_map_to(self, what: str) -> bool:
        """Whether it heeds a risk map, and to do this with it."""
        return self.risk is not None and self.risk.to == what

    @property
    def perturbed(self) -> bool:
        """Starts from the source's parameters with a share of random ones mixed in. What is held to
        the source, or learns from it alone, starts from the source itself."""
        held = self.pulled or self.discriminative or self.trains != "all"
        return self.transferred and not held


def _weighted(words: str, **use: Any) -> Method:
    """Cross-entropy weighted by a map alone, over the configured region and denominator."""
    return Method(words, class_weights="none", region="", risk=MapUse(**use))


# The risk itself: amplified, every easy pixel would have the weight 1, and together they would
# draw nearly all of the patches.
_IN_NATS = (("normalise", "none"), ("amplify", "identity"))

# exp(−risk) is the probability that the source gives the label.
_TRUST = (("normalise", "none"), ("amplify", "exp"), ("gain", -1.0))
_GIVEN = (*_TRUST, ("clip", 1.0))

_LEEP = (("mode", "instance"), ("metric", "leep"))
_POSITIONAL = (("mode", "positional"), ("metric", "leep"), ("balanced", False))
_LDA = (("mode", "instance"), ("metric", "lda"))
# Of rare classes, its models know the noise so well that every pixel's risk would be the largest.
_LOGME = (("mode", "instance"), ("metric", "logme"), ("balanced", True))

METHODS: dict[str, Method] = {
    "scratch": Method("from random parameters", transferred=False),
    "plain": Method("from the source, square-root inverse-frequency cross-entropy"),
    "weighted": _weighted("cross-entropy weighted by the risk map"),
    "plain_ce": Method("mean cross-entropy", class_weights="none"),
    "ce_only": Method("mean cross-entropy alone", class_weights="none", overlap="none"),
    "scratch_ce": Method(
        "mean cross-entropy from random parameters", transferred=False, class_weights="none"
    ),
    "inverse_frequency": Method("inverse-frequency cross-entropy", class_weights="inverse"),
    "foreground_ce": Method(
        "cross-entropy of foreground pixels", class_weights="none", region="foreground"
    ),
    "focal": Method("focal loss", class_weights="none", pixels="focal"),
    "tversky": Method("Tversky loss in place of Dice", overlap="tversky"),
    "ohem": Method("mean over the hardest pixels", class_weights="none", pixels="hardest"),
    "linear_probe": Method("the head alone is trained", trains="head"),
    "frozen_encoder": Method("decoder and head are trained", trains="decoder"),
    "l2_sp": Method("pulled back to the source's parameters", pulled=True),
    "discriminative": Method("lower rates far from the output", discriminative=True),
    "weighted_only": Method(
        "cross-entropy weighted by the risk map, without Dice",
        class_weights="none",
        region="",
        overlap="none",
        risk=MapUse(),
    ),
    "weighted_shuffled": _weighted(
        "control: the map shuffled within class", controls=("shuffled",)
    ),
    "weighted_foreground": _weighted(
        "control: the map's means over foreground and background", controls=("foreground",)
    ),
    "weighted_inverted": _weighted("control: the map upside down", controls=("inverted",)),
    "weighted_other": _weighted("control: the map of another source", whose="other"),
    "weighted_balanced": _weighted(
        "the map of a class-balanced P(y|z)", settings=(*_LEEP, ("balanced", True))
    ),
    "weighted_positional": _weighted("the positional map", settings=_POSITIONAL),
    "weighted_positional_shuffled": _weighted(
        "control of weighted_positional: shuffled within class",
        settings=_POSITIONAL,
        controls=("shuffled",),
    ),
    "weighted_faded": _weighted("the map fades, up to the plain method's weights", fades=True),
    "plain_where": Method(
        "plain, times the map over its class's mean: where alone",
        risk=MapUse(controls=("where",)),
    ),
    "plain_where_shuffled": Method(
        "control of plain_where: shuffled within class",
        risk=MapUse(controls=("where", "shuffled")),
    ),
    "plain_where_faded": Method(
        "plain_where, and the map fades", risk=MapUse(controls=("where",), fades=True)
    ),
    "plain_where_inverted": Method(
        "control of plain_where: the map upside down", risk=MapUse(controls=("inverted", "where"))
    ),
    "plain_where_nats": Method(
        "plain_where by the risk itself: mostly the hardest pixels of each class",
        risk=MapUse(settings=_IN_NATS, controls=("where",)),
    ),
    "plain_where_nats_shuffled": Method(
        "control of plain_where_nats: shuffled within class",
        risk=MapUse(settings=_IN_NATS, controls=("where", "shuffled")),
    ),
    "plain_where_trusted": Method(
        "plain, times what the source expects of the label over its class's mean: easy pixels",
        risk=MapUse(settings=_TRUST, controls=("where",)),
    ),
    "plain_where_trusted_shuffled": Method(
        "control of plain_where_trusted: shuffled within class",
        risk=MapUse(settings=_TRUST, controls=("where", "shuffled")),
    ),
    "plain_where_lda": Method(
        "plain_where by the risk of LDA on the features",
        risk=MapUse(settings=_LDA, controls=("where",)),
    ),
    "plain_where_lda_shuffled": Method(
        "control of plain_where_lda: shuffled within class",
        risk=MapUse(settings=_LDA, controls=("where", "shuffled")),
    ),
    "plain_where_logme": Method(
        "plain_where by the risk of class-balanced LogME on the features",
        risk=MapUse(settings=_LOGME, controls=("where",)),
    ),
    "plain_where_logme_shuffled": Method(
        "control of plain_where_logme: shuffled within class",
        risk=MapUse(settings=_LOGME, controls=("where", "shuffled")),
    ),
    "plain_where_otce": Method(
        "plain_where by LEEP of the classes that OTCE's plan carries over",
        risk=MapUse(settings=(("mode", "instance"), ("metric", "otce")), controls=("where",)),
    ),
    "plain_where_all": Method(
        "plain_where by the mean risk of all sources",
        risk=MapUse(whose="all", controls=("where",)),
    ),
    "plain_where_all_shuffled": Method(
        "control of plain_where_all: shuffled within class",
        risk=MapUse(whose="all", controls=("where", "shuffled")),
    ),
    "plain_where_smooth": Method(
        "plain_where, the risk smoothed over 2 pixels",
        risk=MapUse(settings=(("blur", 2.0),), controls=("where",)),
    ),
    "plain_where_inner": Method(
        "plain_where, the risk limited at borders of labels",
        risk=MapUse(settings=(("border", 1),), controls=("where",)),
    ),
    "plain_softened": Method(
        "plain, labels softened where the source doubts them",
        risk=MapUse(settings=_GIVEN, to="soften"),
    ),
    "plain_softened_shuffled": Method(
        "control of plain_softened: shuffled within class",
        risk=MapUse(settings=_GIVEN, controls=("shuffled",), to="soften"),
    ),
    "risk_sampled": Method(
        "plain, patches drawn in proportion to the risk", risk=MapUse(settings=_IN_NATS, to="draw")
    ),
    "risk_sampled_shuffled": Method(
        "control of risk_sampled: shuffled within class",
        risk=MapUse(settings=_IN_NATS, controls=("shuffled",), to="draw"),
    ),
    "risk_sampled_lda": Method(
        "risk_sampled by the risk of LDA on the features",
        risk=MapUse(settings=(*_LDA, *_IN_NATS), to="draw"),
    ),
    "risk_sampled_lda_shuffled": Method(
        "control of risk_sampled_lda: shuffled within class",
        risk=MapUse(settings=(*_LDA, *_IN_NATS), controls=("shuffled",), to="draw"),
    ),
}
