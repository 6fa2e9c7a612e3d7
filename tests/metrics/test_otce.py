"""OTCE and its relatives: exact plans by linear programmes, limits, invariances, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, xlogy

from jaxfer.metrics.jc_otce import JC_OTCE, jc_otce
from jaxfer.metrics.otce import F_OTCE, OTCE, OtceFit, f_otce, fit_otce, otce

N, SOURCES, CLASSES = 24, 3, 2
SHARP = {"epsilon": 1e-4, "max_iterations": 500_000}


def score(source, target, metric=f_otce, **kwargs):
    kwargs = {"num_source_classes": SOURCES, "num_classes": CLASSES, **kwargs}
    return metric(*source, *target, **kwargs)


def clouds(seed, n=N, m=N, spread=1.0):
    """Two clouds that share their classes' places, all classes present."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.standard_normal((SOURCES, 4))
    sides = []
    for size, classes in ((n, SOURCES), (m, CLASSES)):
        labels = rng.permutation(np.arange(size) * classes // size)
        features = centres[labels] + spread * rng.standard_normal((size, 4))
        sides.append((features.astype(np.float32), labels.astype(np.int32)))
    return sides


def exact_plan(cost):
    n, m = cost.shape
    if n == m:
        plan = np.zeros((n, m))
        plan[linear_sum_assignment(cost)] = 1 / n
        return plan
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    masses = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    found = linprog(cost.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=masses)
    return found.x.reshape(n, m)


def entropic_plan(cost, epsilon, rounds=3000):
    """Sinkhorn with the whole matrix."""
    n, m = cost.shape
    kernel = -cost / (epsilon * cost.mean())
    f, g = np.zeros(n), np.zeros(m)
    for _ in range(rounds):
        f = -logsumexp(kernel + g[None] - np.log(m), 1)
        g = -logsumexp(kernel + f[:, None] - np.log(n), 0)
    return np.exp(kernel + f[:, None] + g[None]) / (n * m)


def squared(source, target):
    return cdist(source[0].astype(np.float64), target[0].astype(np.float64), "sqeuclidean")


def at_one_mean(source, target):
    """Both sides around their own mean: the best plan is the same."""
    return [(x.astype(np.float64) - x.astype(np.float64).mean(0), y) for x, y in (source, target)]


def conditional_entropy(plan, source_labels, target_labels):
    joint = np.eye(SOURCES)[source_labels].T @ plan @ np.eye(CLASSES)[target_labels]
    return -xlogy(joint, joint / joint.sum(1, keepdims=True)).sum()


def label_entropy(labels):
    shares = np.bincount(labels) / len(labels)
    return -xlogy(shares, shares).sum()


@pytest.mark.parametrize("m", [N, 15])
@pytest.mark.parametrize("seed", range(2))
def test_small_epsilon_is_the_linear_programme(seed, m):
    source, target = clouds(seed, spread=2.0)
    kept = target[0][:m], target[1][:m]
    cost = squared(source, kept)
    plan = exact_plan(cost)
    found = score(source, target, target_mask=np.arange(N) < m, **SHARP)
    assert bool(found.converged)
    assert found.reasons == ()
    assert float(found.w_d) == pytest.approx((plan * cost).sum(), rel=0.01)
    expected = conditional_entropy(plan, source[1], kept[1])
    assert float(found.w_t) == pytest.approx(expected, rel=0.01, abs=1e-3)
    assert float(found) == -float(found.w_t)


def test_any_epsilon_is_sinkhorn_with_the_whole_matrix():
    source, target = clouds(2)
    plan = entropic_plan(squared(*at_one_mean(source, target)), 0.1)
    with jax.enable_x64(True):
        found = score(source, target, epsilon=0.1, threshold=1e-11)
    expected = conditional_entropy(plan, source[1], target[1])
    assert float(found.w_t) == pytest.approx(expected, rel=1e-8)
    assert float(found.w_d) == pytest.approx((plan * squared(source, target)).sum(), rel=1e-8)
    assert float(found.marginal_error) < 1e-11
    assert int(found.iterations) > 1


@pytest.mark.parametrize("metric", [f_otce, jc_otce])
def test_an_offset_between_the_sides_blurs_nothing(metric):
    source, target = clouds(4)
    options = {"metric": metric, "epsilon": 0.05, "threshold": 1e-9}
    if metric is jc_otce:
        options["gamma"] = 1.0
    apart = target[0] + np.float32(64), target[1]
    near, far = score(source, target, **options), score(source, apart, **options)
    assert float(far.w_t) == pytest.approx(float(near.w_t), rel=1e-3)
    assert float(near.w_t) < 0.9 * label_entropy(target[1])
    # Two places are no more than that, however the numbers of one place are rounded.
    points = [(np.full_like(x, v), y) for (x, y), v in ((source, 0.1), (target, 7.3))]
    blank = score(*points, **options)
    assert float(blank) == pytest.approx(-label_entropy(target[1]), rel=1e-5)
    if metric is f_otce:
        assert float(blank.w_d) == pytest.approx(4 * 7.2**2, rel=1e-5)


def test_a_small_epsilon_takes_few_sweeps():
    # Three blocks, the last one filled up. Sinkhorn's own steps from a cold start need hundreds.
    source, target = clouds(2, 160, 160)
    with jax.enable_x64(True):
        found = score(source, target, epsilon=0.01, block_size=64)
        sharp = score(source, target, epsilon=0.01, threshold=1e-7, block_size=64)
    assert bool(found.converged)
    assert bool(sharp.converged)
    assert int(found.iterations) < 80
    assert float(found.w_t) == pytest.approx(float(sharp.w_t), rel=1e-2)


def test_little_mass_between_far_classes_is_found_at_once():
    # Updates of single voxels alone need twice the sweeps, and leave the score 0.6 % off.
    rng = np.random.default_rng(3)
    sides = []
    for share in (0.52, 0.48):
        labels = (np.arange(200) >= 200 * share).astype(np.int32)
        features = 10 * labels[:, None] + rng.standard_normal((200, 4))
        sides.append((features.astype(np.float32), labels))
    found = score(*sides, num_source_classes=2, epsilon=0.02)
    assert bool(found.converged)
    assert int(found.iterations) < 35
    table = np.array([[0.48, 0.04], [0, 0.48]])
    expected = -xlogy(table, table / table.sum(1, keepdims=True)).sum()
    assert float(found.w_t) == pytest.approx(expected, rel=1e-4)


def test_blocks_change_nothing_and_no_pair_matrix_is_made():
    source, target = clouds(3)
    expected = float(score(source, target))
    assert float(score(source, target, block_size=7)) == pytest.approx(expected, rel=1e-5)

    def small_blocks(*batch):
        return score(batch[:2], batch[2:], block_size=8)

    large = [x for side in clouds(3, 1500, 1400) for x in side]
    compiled = jax.jit(small_blocks).lower(*large).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 1500 * 1400 * 8 / 10


def test_limits_are_the_label_entropy():
    source, target = clouds(4)
    entropy = label_entropy(target[1])
    constant = score((0 * source[0] + 3.7, source[1]), (0 * target[0] + 3.7, target[1]))
    assert float(constant) == pytest.approx(-entropy, rel=1e-6)
    assert float(constant.w_d) == 0
    assert bool(constant.converged)
    one_class = score((source[0], 0 * source[1]), target)
    assert float(one_class) == pytest.approx(-entropy, abs=1e-3)
    blurred = score(source, target, epsilon=1e4)
    assert float(blurred) == pytest.approx(-entropy, abs=1e-3)


def test_separable_classes_that_meet_score_zero():
    labels = np.arange(N, dtype=np.int32) % 2
    features = 10 * np.eye(2, dtype=np.float32)[labels]
    for metric in (f_otce, jc_otce):
        found = score((features, labels), (features, labels), metric)
        assert float(found) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("metric", [f_otce, jc_otce])
def test_units_offsets_rotations_order_and_names_change_nothing(metric):
    source, target = clouds(5)
    expected = float(score(source, target, metric))
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    order, other = rng.permutation(N), rng.permutation(N)
    moved = [
        ((1e3 * features[o] @ turn + 50).astype(np.float32), names[labels[o]])
        for (features, labels), o, names in (
            (source, order, np.array([2, 0, 1])),
            (target, other, np.array([1, 0])),
        )
    ]
    assert float(score(*moved, metric)) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("metric", [f_otce, jc_otce])
def test_absent_classes_and_masked_voxels(metric):
    source, target = clouds(6)
    expected = score(source, target, metric, source_mask=np.arange(N) < 20)
    spoilt = source[0].copy()
    spoilt[20:] = np.nan
    labels = np.array([4, 0, 3])[source[1]]
    labels[20:] = 99
    found = score(
        (spoilt, labels),
        (target[0], np.array([3, 1])[target[1]]),
        metric,
        source_mask=np.arange(N) < 20,
        num_source_classes=5,
        num_classes=4,
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    assert float(found) != pytest.approx(float(score(source, target, metric)), rel=1e-4)
    assert (int(found.score.n_used), int(found.score.classes_present)) == (N, 2)
    assert bool(found.converged)


@pytest.mark.parametrize("metric", [f_otce, jc_otce])
def test_without_convergence_there_is_no_score(metric):
    source, target = clouds(7)
    found = score(source, target, metric, max_iterations=1)
    assert np.isnan(float(found))
    assert found.reasons == ("not converged",)
    assert not bool(found.converged)
    assert int(found.iterations) == 1
    assert float(found.marginal_error) > 1e-3
    assert np.isfinite([float(found.w_d), float(found.w_t)]).all()


def test_degenerate_input_is_nan_with_a_reason():
    source, target = clouds(8)
    single = score(source, (target[0], 0 * target[1]))
    assert np.isnan(float(single))
    assert single.reasons == ("few classes",)
    for side in ("source_mask", "target_mask"):
        nothing = score(source, target, **{side: np.zeros(N, bool)})
        assert np.isnan(float(nothing))
        assert nothing.reasons[0] == "no voxels"
        assert "not converged" not in nothing.reasons
    spoilt = source[0].copy()
    spoilt[3, 2] = np.inf
    found = score((spoilt, source[1]), target)
    assert np.isnan(float(found))
    assert (int(found.score.n_invalid), found.reasons) == (1, ("invalid input",))
    lone = score(source, target, source_mask=np.arange(N) == 5)
    assert float(lone) == pytest.approx(-label_entropy(target[1]), rel=1e-5)


def test_joint_cost_is_the_sum_of_both_terms():
    source, target = clouds(9)
    cost, settings = squared(source, target), {"epsilon": 0.1, "threshold": 1e-9}
    centred = squared(*at_one_mean(source, target))
    distance = np.zeros((SOURCES, CLASSES))
    for s in range(SOURCES):
        for c in range(CLASSES):
            rows, columns = source[1] == s, target[1] == c
            block = cost[np.ix_(rows, columns)]
            pair = at_one_mean((source[0][rows], None), (target[0][columns], None))
            distance[s, c] = (entropic_plan(squared(*pair), 0.1) * block).sum()
    classes = distance[source[1]][:, target[1]]
    for gamma in (0.0, 0.3):
        joint = gamma * centred / centred.mean() + (1 - gamma) * classes / classes.mean()
        plan = entropic_plan(joint, 0.1)
        found = score(source, target, jc_otce, gamma=gamma, **settings)
        expected = conditional_entropy(plan, source[1], target[1])
        assert float(found.w_t) == pytest.approx(expected, rel=1e-4)
        assert float(found.w_d) == pytest.approx((plan * joint).sum(), rel=1e-4)
    alone = score(source, target, jc_otce, gamma=1.0, **settings)
    assert float(alone) == pytest.approx(float(score(source, target, **settings)), rel=1e-5)


def published_joint_cost(source, target):
    """Features as they are, and the plan between the classes' means times its cost."""
    means = [np.stack([x[y == c].mean(0) for c in range(y.max() + 1)]) for x, y in (source, target)]
    between = cdist(*means, "sqeuclidean")
    classes = exact_plan(between) * between
    return 0.5 * squared(source, target) + 0.5 * classes[source[1]][:, target[1]]


def test_classes_far_apart_are_coupled_as_by_the_published_joint_cost():
    # However their distance is counted, classes along a line meet in their order.
    rng = np.random.default_rng(10)
    sides = []
    for counts in ((15, 9, 6), (12, 18)):
        labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
        features = np.array([0, 20, 40])[labels, None] * np.eye(1, 4) + rng.normal(0, 1, (30, 4))
        sides.append((features.astype(np.float32), labels))
    plan = exact_plan(published_joint_cost(*sides))
    expected = conditional_entropy(plan, sides[0][1], sides[1][1])
    assert expected > 0.2
    found = score(*sides, jc_otce)
    assert float(found.w_t) == pytest.approx(expected, rel=1e-3)


def test_otce_is_the_fitted_line():
    rng = np.random.default_rng(0)
    w_d, w_t = 100 * rng.random(6), rng.random(6)
    fit = fit_otce(w_d, w_t, 0.9 - 0.002 * w_d - 0.3 * w_t)
    np.testing.assert_allclose(fit, (-0.002, -0.3, 0.9), 1e-9)
    source, target = clouds(10)
    plan = score(source, target)
    found = score(source, target, otce, fit=fit)
    expected = 0.9 - 0.002 * float(plan.w_d) - 0.3 * float(plan.w_t)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert found.w_t == plan.w_t
    unfinished = score(source, target, otce, fit=fit, max_iterations=1)
    assert np.isnan(float(unfinished))
    assert unfinished.reasons == ("not converged",)


def test_noisy_accuracies_are_fitted_by_least_squares():
    rng = np.random.default_rng(1)
    table = np.stack([rng.random(20), rng.random(20), np.ones(20)], 1)
    accuracies = rng.random(20)
    expected = np.linalg.solve(table.T @ table, table.T @ accuracies)
    np.testing.assert_allclose(fit_otce(table[:, 0], table[:, 1], accuracies), expected, 1e-8)


def test_misuse_raises():
    source, target = clouds(11)
    with pytest.raises(ValueError, match="f_otce, which needs none"):
        score(source, target, otce)
    with pytest.raises(ValueError, match=r"source_labels must be whole numbers in \[0, 1\]"):
        score(source, target, num_source_classes=2)
    with pytest.raises(ValueError, match=r"target_labels must be whole numbers in \[0, 1\]"):
        score(source, (target[0], target[1] + 1))
    with pytest.raises(ValueError, match="epsilon must be above 0: found 0"):
        score(source, target, epsilon=0.0)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\]: found 1.5"):
        score(source, target, jc_otce, gamma=1.5)
    with pytest.raises(ValueError, match="found 4 and 3 channels"):
        f_otce.__wrapped__(
            *source, target[0][:, :3], target[1], num_source_classes=SOURCES, num_classes=CLASSES
        )
    with pytest.raises(ValueError, match="at least 3 tasks"):
        fit_otce([1.0, 2.0], [1.0, 3.0], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        fit_otce([1.0, 2.0, 3.0], [1.0, np.nan, 2.0], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="cannot tell W_D from W_T"):
        fit_otce([1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [0.1, 0.2, 0.3])


def test_jit_vmap_and_pmap():
    cases = [clouds(seed) for seed in range(4)]
    stacked = [np.stack([case[side][i] for case in cases]) for side in (0, 1) for i in (0, 1)]
    expected = [float(score(*case)) for case in cases]

    def of(*batch):
        return score(batch[:2], batch[2:])

    for mapped in (jax.vmap(of), jax.pmap(of)):
        found = mapped(*map(jnp.asarray, stacked))
        np.testing.assert_allclose(found.score.score, expected, 1e-4)
        assert found.converged.all()
    first = jax.jit(of)(*(jnp.asarray(x[0]) for x in stacked))
    assert float(first) == pytest.approx(expected[0], rel=1e-5)


def test_the_cards_compute_what_they_name():
    source, target = clouds(12)
    for card, metric in ((F_OTCE, f_otce), (JC_OTCE, jc_otce)):
        assert float(score(source, target, card.compute)) == float(score(source, target, metric))
        assert card.sign == 1
    fit = OtceFit(-1.0, -1.0, 1.0)
    assert np.isfinite(float(score(source, target, OTCE.compute, fit=fit)))
