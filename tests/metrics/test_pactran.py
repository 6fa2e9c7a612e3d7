"""PACTran with tables: the bounds against evidence and published updates, degenerate input."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from scipy.special import digamma, gammaln, logsumexp

from jaxfer.metrics.pactran import pactran_dirichlet, pactran_gamma
from tests.metrics import contract

CLASSES = 3
TABLES = (pactran_dirichlet, pactran_gamma)


def published_table(log_probs, labels, kind, alpha=1.0, rounds=1000, floor=0.0):
    """The published updates, whose columns lag by a round, with fixed rates."""
    theta = np.exp(log_probs.astype(np.float64))
    theta /= theta.sum(1, keepdims=True)
    log_theta, one_hot = np.log(theta + floor), np.eye(CLASSES)[labels]
    prior = alpha * one_hot.mean(0)[:, None]
    q = theta
    for _ in range(rounds):
        a = prior + one_hot.T @ q
        logits = log_theta + digamma(a)[labels]
        if kind == "dirichlet":
            logits = logits - digamma(a.sum(0))
        log_q = logits - logsumexp(logits, axis=1, keepdims=True)
        q = np.exp(log_q)
    divergence = (q * (log_q - log_theta)).sum()
    if kind == "dirichlet":
        normaliser = gammaln(a).sum(0) - gammaln(a.sum(0))
        before = gammaln(prior).sum() - gammaln(alpha)
        return (divergence - (normaliser - before).sum()) / one_hot.size
    value = (gammaln(prior) - gammaln(a)).sum() + divergence
    value += (np.log(theta @ a.sum(0)) - 1).sum()
    return value / one_hot.size + 1


def evidence(log_probs, labels, kind, draws=50_000):
    """−log P(labels) / (nC), by drawing tables from the prior."""
    rng = np.random.default_rng(0)
    prior = np.bincount(labels, minlength=CLASSES) / len(labels)
    tables = rng.standard_gamma(prior, (draws, log_probs.shape[1], CLASSES))
    theta = np.exp(log_probs.astype(np.float64))
    if kind == "dirichlet":
        tables = tables / np.maximum(tables.sum(2, keepdims=True), 1e-300)
    mixed = np.einsum("ns,tsc->tnc", theta, tables)
    own = mixed[:, np.arange(len(labels)), labels] / mixed.sum(2)
    with np.errstate(divide="ignore"):
        return -(logsumexp(np.log(own).sum(1)) - np.log(draws)) / (len(labels) * CLASSES)


def test_the_dirichlet_bound_is_the_published_one_converged(draw):
    voxels = draw(0, n=60)
    with jax.enable_x64(True):
        found = pactran_dirichlet(
            voxels.log_probs, voxels.labels, num_classes=CLASSES, rounds=1000, alpha=2.0
        )
    expected = published_table(voxels.log_probs, voxels.labels, "dirichlet", 2.0)
    assert float(found) == pytest.approx(expected, rel=1e-7)
    assert found.reasons == ()


def test_the_gamma_bound_with_the_priors_rates_is_the_published_one_but_for_a_constant(draw):
    voxels = draw(0, n=60)
    with jax.enable_x64(True):
        found = pactran_gamma(
            voxels.log_probs, voxels.labels, num_classes=CLASSES, rounds=1000, update_rates=False
        )
    expected = published_table(voxels.log_probs, voxels.labels, "gamma")
    assert float(found) + 1 - 1 / CLASSES == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("metric", TABLES)
def test_certain_sources_score_what_the_published_ten_rounds_and_constant_do(metric, draw):
    # What a round changes nothing of cannot lag.
    voxels = draw(3, n=60)
    named = np.eye(4)[voxels.log_probs.argmax(1)]
    certain = np.where(named > 0, 0, -np.inf).astype(np.float32)
    kind = "dirichlet" if metric is pactran_dirichlet else "gamma"
    options = {"update_rates": False} if kind == "gamma" else {}
    found = metric(certain, voxels.labels, num_classes=CLASSES, **options)
    expected = published_table(certain, voxels.labels, kind, rounds=10, floor=1e-10)
    constant = 1 - 1 / CLASSES if kind == "gamma" else 0
    assert float(found) + constant == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", TABLES)
def test_the_bounds_lie_above_the_evidence_and_fall_with_every_round(metric, draw):
    voxels = draw(1, n=6)
    kind = metric.__name__.removeprefix("pactran_")
    exact = evidence(voxels.log_probs, voxels.labels, kind)
    found = [
        float(metric(voxels.log_probs, voxels.labels, num_classes=CLASSES, rounds=rounds))
        for rounds in (1, 100)
    ]
    assert found[0] > found[1] > exact
    assert found[1] < exact + 0.35


def test_optimised_rates_are_never_worse(draw):
    voxels = draw(2, n=60)
    free, fixed = (
        float(
            pactran_gamma(
                voxels.log_probs,
                voxels.labels,
                num_classes=CLASSES,
                rounds=500,
                update_rates=update_rates,
            )
        )
        for update_rates in (True, False)
    )
    assert 0 < free <= fixed + 1e-6


@pytest.mark.parametrize("metric", TABLES)
def test_certain_sources_and_sources_that_know_more(metric, draw):
    labels = draw(3, n=60).labels
    with np.errstate(divide="ignore"):
        perfect = np.log(np.eye(3, 4, dtype=np.float32)[labels])  # a fourth class without mass
    useless = np.broadcast_to(perfect[:1], perfect.shape)
    mixed = perfect[np.random.default_rng(0).permutation(60)]
    best, none, wrong = (
        float(metric(log_probs, labels, num_classes=CLASSES))
        for log_probs in (perfect, useless, mixed)
    )
    assert 0 < best < min(none, wrong)
    if metric is pactran_dirichlet:
        # One column sees 20 voxels of each class: the Dirichlet-multinomial in closed form.
        a = np.full(3, 20 + 1 / 3)
        exact = gammaln(a).sum() - gammaln(61) - 3 * gammaln(1 / 3) + gammaln(1)
        assert none == pytest.approx(-exact / 180, rel=1e-5)


def test_rounds_that_run_out_are_flagged(draw):
    voxels = draw(4, n=60)
    for metric in TABLES:
        found = metric(voxels.log_probs, voxels.labels, num_classes=CLASSES, rounds=1)
        assert found.reasons == ("not converged",)
        with pytest.raises(ValueError, match="alpha must be positive and rounds at least 1"):
            metric(voxels.log_probs, voxels.labels, num_classes=CLASSES, alpha=0.0)
        with pytest.raises(ValueError, match="log_probs must be log-probabilities"):
            metric(voxels.features, voxels.labels, num_classes=CLASSES)


@pytest.mark.parametrize("metric", TABLES)
def test_the_contract_of_the_tables(metric, draw):
    voxels = draw(8, n=60)
    contract.check(functools.partial(metric), voxels.log_probs, voxels.labels, 1e-5)
