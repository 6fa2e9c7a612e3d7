"""PACTran: PAC-Bayes bounds of the labels' code length given the source's output.

Ding et al., PACTran: PAC-Bayesian Metrics for Estimating the Transferability of Pretrained Models
to Classification Tasks, ECCV 2022 (arXiv 2203.05126). Lower is better. The third
of its metrics is in `pactran_gaussian`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from jaxfer.metrics.card import Metric
from jaxfer.metrics.precision import AnyArray, compiled_in_float64
from jaxfer.metrics.score import Flag, Score, flag_where, make_score
from jaxfer.metrics.sums import is_distribution, product, usable
from jaxfer.metrics.validation import check_labels, check_log_probs, check_samples

BOUND_TOLERANCE = 1e-3
"""A bound has converged when the last round moved it by less than this share."""


def pactran_dirichlet(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    alpha: float = 1.0,
    rounds: int = 10,
) -> Score:
    """Variational bound of −log P(labels) / (nC) with Dirichlet priors of the table P(y|z).

    Each source class z has its own column P(·|z) with prior Dirichlet(α P(y)); a voxel's z follows
    the source's output. Lower is better, ≥ 0. For a source without a head take the posteriors of
    `mixture_posteriors`.

    We depart from published code in that the bound is that of the last responsibilities (there the
    columns are one round older, which is no bound), that probabilities of 0 stay 0 (there 1e-10 is
    added), and that C counts the present classes.

    Args:
        log_probs: log-probabilities of the source's classes, natural logarithm, −inf is allowed.
        labels: target classes in [0, num_classes).
        num_classes: C, static; absent classes are left out and counted.
        mask: True where a voxel counts; others contribute nothing, even when they hold NaN.
        alpha: mass of each column's prior, in voxels, static.
        rounds: of the variational updates, static; as published 10.

    Returns:
        The score in nats per voxel and class; flagged `NOT_CONVERGED` when the last round still
        moved it by a thousandth.

    Raises:
        ValueError: shapes disagree, alpha ≤ 0 or rounds < 1; outside `jit`, also for labels out of
            range and for rows that are no log-probabilities.
    """
    _check_table(log_probs, labels, num_classes, mask, alpha, rounds)
    return _dirichlet(log_probs, labels, mask, num_classes=num_classes, alpha=alpha, rounds=rounds)


def pactran_gamma(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    *,
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None = None,
    alpha: float = 1.0,
    rounds: int = 10,
    update_rates: bool = True,
) -> Score:
    """Variational bound of −log P(labels) / (nC) with Gamma priors of an unnormalised table V.

    P(y|x) = Σ_z θ(z) V_yz / Σ_y' Σ_z θ(z) V_y'z, V_yz ~ Gamma(α P(y), 1); the logarithm of the
    denominator is bounded by a tangent per voxel. Lower is better, ≥ 0.

    We depart from published code in that the rates of the posterior are optimised too. With
    `update_rates=False` they stay those of the prior, as there; its value is then ours plus
    1 − 1/C, a constant of the target. The other departures are those of `pactran_dirichlet`,
    whose arguments and errors these are.

    Args:
        log_probs: as `pactran_dirichlet`.
        labels: as `pactran_dirichlet`.
        num_classes: as `pactran_dirichlet`.
        mask: as `pactran_dirichlet`.
        alpha: sum over the classes of the shapes of a column's priors, static.
        rounds: of the variational updates, static; as published 10.
        update_rates: optimise the rates of the posterior, static.

    Returns:
        As `pactran_dirichlet`.
    """
    _check_table(log_probs, labels, num_classes, mask, alpha, rounds)
    return _gamma(
        log_probs,
        labels,
        mask,
        num_classes=num_classes,
        alpha=alpha,
        rounds=rounds,
        update_rates=update_rates,
    )


def _check_table(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    num_classes: int,
    mask: Bool[AnyArray, "*n"] | None,
    alpha: float,
    rounds: int,
) -> None:
    check_samples(log_probs, labels, mask, name="log_probs")
    check_labels(labels, num_classes, mask)
    check_log_probs(log_probs, mask)
    if alpha <= 0 or rounds < 1:
        raise ValueError(f"alpha must be positive and rounds at least 1: found {alpha}, {rounds}")


class _Table(NamedTuple):
    """The evidence of the table's metrics; unused rows are 0.

    Attributes:
        log_theta: the source's distribution by voxel, −inf where 0.
        classes: one-hot.
        prior: α P(y) by class, 1 for absent classes: their terms then cancel.
        present: classes with a voxel.
        n_invalid: unmasked rows that cannot be used.
    """

    log_theta: Float[Array, "v s"]
    classes: Float[Array, "v c"]
    prior: Float[Array, " c"]
    present: Bool[Array, " c"]
    n_invalid: Float[Array, ""]

    @property
    def size(self) -> Float[Array, ""]:
        """n·C."""
        return jnp.maximum(self.classes.sum() * self.present.sum(), 1)

    def shapes(self, responsibilities: Float[Array, "v s"]) -> Float[Array, "c s"]:
        """Prior plus counts."""
        return self.prior[:, None] + product(self.classes.T, responsibilities)

    def total(self, by_class: Float[Array, "c s"]) -> Float[Array, " s"]:
        """The sum over the present classes."""
        return jnp.where(self.present[:, None], by_class, 0).sum(0)

    def log_responsibilities(self, log_table: Float[Array, "c s"]) -> Float[Array, "v s"]:
        """log P(z|x, y) under a table of log-weights; used rows only."""
        logits = self.log_theta + product(self.classes, log_table)
        return jax.nn.log_softmax(logits, axis=1)

    def divergence(self, log_q: Float[Array, "v s"]) -> Float[Array, ""]:
        """Σ_i KL(q_i ‖ θ_i) over the used rows."""
        used = self.classes.sum(1, keepdims=True) > 0
        there = used & (log_q > -jnp.inf)
        ratio = jnp.where(there, log_q, 0) - jnp.where(there, self.log_theta, 0)
        return jnp.where(there, jnp.exp(jnp.where(there, log_q, 0)) * ratio, 0).sum()


def _table(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    num_classes: int,
    alpha: float,
) -> _Table:
    log_theta = jnp.reshape(log_probs, (-1, log_probs.shape[-1])).astype(jnp.float64)
    readable = is_distribution(jnp.exp(log_theta))
    classes, used, n_invalid = usable(labels, mask, readable, num_classes)
    log_theta = jax.nn.log_softmax(jnp.where(used[:, None], log_theta, 0), axis=1)
    counts = classes.sum(0)
    present = counts > 0
    prior = jnp.where(present, alpha * counts / jnp.maximum(counts.sum(), 1), 1)
    return _Table(log_theta, classes, prior, present, n_invalid)


def _table_score(table: _Table, cost: Float[Array, ""], before: Float[Array, ""]) -> Score:
    moved = jnp.abs(cost - before) > BOUND_TOLERANCE * jnp.abs(cost)
    return make_score(
        cost / table.size,
        class_counts=table.classes.sum(0),
        n_invalid=table.n_invalid,
        flags=flag_where(moved, Flag.NOT_CONVERGED),
    )


@compiled_in_float64("num_classes", "alpha", "rounds", cast_back=True)
def _dirichlet(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    alpha: float,
    rounds: int,
) -> Score:
    table = _table(log_probs, labels, mask, num_classes, alpha)
    log_gamma, digamma = jax.scipy.special.gammaln, jax.scipy.special.digamma

    def cost(log_q: Float[Array, "v s"]) -> Float[Array, ""]:
        shapes = table.shapes(jnp.exp(log_q))
        columns = table.total(log_gamma(shapes) - log_gamma(table.prior)[:, None])
        masses = log_gamma(table.total(shapes)) - log_gamma(jnp.asarray(alpha, jnp.float64))
        return table.divergence(log_q) - (columns - masses).sum()

    def improve(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        log_q, _ = state
        shapes = table.shapes(jnp.exp(log_q))
        log_table = digamma(shapes) - digamma(table.total(shapes))[None, :]
        return table.log_responsibilities(log_table), log_q

    start = (table.log_theta, table.log_theta)
    log_q, before = jax.lax.fori_loop(0, rounds, improve, start)
    return _table_score(table, cost(log_q), cost(before))


@compiled_in_float64("num_classes", "alpha", "rounds", "update_rates", cast_back=True)
def _gamma(
    log_probs: Float[AnyArray, "*n s"],
    labels: Real[AnyArray, "*n"],
    mask: Bool[AnyArray, "*n"] | None,
    *,
    num_classes: int,
    alpha: float,
    rounds: int,
    update_rates: bool,
) -> Score:
    table = _table(log_probs, labels, mask, num_classes, alpha)
    log_gamma, digamma = jax.scipy.special.gammaln, jax.scipy.special.digamma
    used = table.classes.sum(1) > 0
    theta = jnp.where(used[:, None], jnp.exp(table.log_theta), 0)

    def denominators(masses: Float[Array, " s"], rates: Float[Array, " s"]) -> Float[Array, " v"]:
        found = product(theta, (masses / rates)[:, None])[:, 0]
        return jnp.where(used, found, 1)

    def cost(log_q: Float[Array, "v s"], rates: Float[Array, " s"]) -> Float[Array, ""]:
        shapes = table.shapes(jnp.exp(log_q))
        masses = table.total(shapes)
        columns = table.total(log_gamma(table.prior)[:, None] - log_gamma(shapes))
        columns = columns + masses * (jnp.log(rates) + 1 / rates - 1)
        tangents = jnp.log(denominators(masses, rates))
        return columns.sum() + table.divergence(log_q) + tangents.sum()

    def improve(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        log_q, rates, _, _ = state
        shapes = table.shapes(jnp.exp(log_q))
        better = rates
        if update_rates:
            slopes = 1 / denominators(table.total(shapes), rates)
            better = 1 + product(theta.T, slopes[:, None])[:, 0]
        log_table = digamma(shapes) - jnp.log(better)[None, :]
        return table.log_responsibilities(log_table), better, log_q, rates

    ones = jnp.ones(theta.shape[1], jnp.float64)
    start = (table.log_theta, ones, table.log_theta, ones)
    log_q, rates, log_q_before, rates_before = jax.lax.fori_loop(0, rounds, improve, start)
    return _table_score(table, cost(log_q, rates), cost(log_q_before, rates_before))


_card = functools.partial(
    Metric,
    direction="lower",
    reference="Ding et al., PACTran, ECCV 2022, arXiv 2203.05126",
)


DIRICHLET_CARD = _card(
    name="pactran_dirichlet",
    meaning="bound of the labels' code length given the source's output, Dirichlet priors",
    needs="probabilities",
    range="at least 0 nats per voxel and class",
    comparable="within one target, the same n for every source",
    cost="O(n S C) a round",
    departure="the bound of the last responsibilities (published: columns one round older); no "
    "constant added to probabilities",
    compute=pactran_dirichlet,
)


GAMMA_CARD = _card(
    name="pactran_gamma",
    meaning="bound of the labels' code length given the source's output, Gamma priors",
    needs="probabilities",
    range="at least 0 nats per voxel and class",
    comparable="within one target, the same n for every source",
    cost="O(n S C) a round",
    departure="the posterior's rates are optimised (published: kept at the prior's); constants of "
    "the target left out",
    compute=pactran_gamma,
)
