"""The start of a fine-tuning: which leaves come along, and that pixels weigh 1 on average."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.models.unet import UNet
from jaxfer.tasks import IGNORE
from jaxfer.train.finetune import frequency_weights, mean_weight, transfer_params
from jaxfer.train.loop import initial_params
from jaxfer.train.losses import map_weighted_cross_entropy
from jaxfer.train.step import Loss

PATCH = (8, 8)


def fresh(num_classes, widths, seed=1):
    model = UNet(num_classes=num_classes, widths=widths)
    shapes = jax.eval_shape(partial(initial_params, model, PATCH, 0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def source():
    return fresh(3, (2, 3), seed=0)


def leaves(params):
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(v) for p, v in flat}


def check(moved, source, ours):
    """Every leaf is whole, from where the record says, and none is in two lists."""
    theirs, mine, found = leaves(source), leaves(ours), leaves(moved.params)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in mine.items()}
    for path in moved.loaded:
        np.testing.assert_array_equal(found[path], theirs[path])
    for path in moved.remade:
        np.testing.assert_array_equal(found[path], mine[path])
    assert sorted(moved.loaded + moved.remade) == sorted(mine)
    assert sorted(moved.loaded + moved.unused) == sorted(theirs)


HEAD = ("head/bias", "head/kernel")


@pytest.mark.parametrize(
    ("num_classes", "keep_head", "remade"),
    [(3, True, ()), (3, False, HEAD), (2, True, HEAD), (5, False, HEAD)],
)
def test_the_head_comes_along_only_for_the_same_classes(source, num_classes, keep_head, remade):
    ours = fresh(num_classes, (2, 3))
    moved = transfer_params(source, ours, keep_head=keep_head)
    check(moved, source, ours)
    assert moved.remade == remade
    assert moved.unused == remade
    assert "encoder_0/Conv_0/kernel" in moved.loaded


def test_leaves_of_another_shape_are_made_anew(source):
    ours = fresh(3, (2, 4))
    moved = transfer_params(source, ours, keep_head=True)
    check(moved, source, ours)
    assert "encoder_0/Conv_0/kernel" in moved.loaded
    assert "encoder_1/Conv_0/kernel" in moved.remade
    assert moved.remade == moved.unused


def test_levels_that_only_one_network_has(source):
    ours = fresh(3, (2, 3, 4))
    moved = transfer_params(source, ours, keep_head=True)
    check(moved, source, ours)
    assert "encoder_2/Conv_0/kernel" in moved.remade
    assert moved.unused == ()
    back = transfer_params(ours, source, keep_head=True)
    check(back, ours, source)
    assert back.remade == ()
    assert "encoder_2/Conv_0/kernel" in back.unused


@pytest.mark.parametrize("perturb", [0.25, 0.5, 1.0])
def test_perturbed_leaves_lie_between_the_source_and_random_ones(source, perturb):
    ours = fresh(2, (2, 3))
    moved = transfer_params(source, ours, keep_head=True, perturb=perturb)
    theirs, mine, found = leaves(source), leaves(ours), leaves(moved.params)
    assert moved.remade == HEAD
    for path in moved.loaded:
        mixed = (1 - perturb) * np.float64(theirs[path]) + perturb * np.float64(mine[path])
        np.testing.assert_allclose(found[path], mixed, rtol=1e-6, atol=1e-7)
        assert found[path].dtype == theirs[path].dtype
    for path in moved.remade:
        np.testing.assert_array_equal(found[path], mine[path])


@pytest.fixture
def cases(make_case, tmp_path):
    """Two cases of unequal size and foreground, with risk maps, and ignored voxels."""
    made = []
    for number, (shape, share) in enumerate([((4, 5, 3), 0.4), ((6, 7, 2), 0.1)]):
        rng = np.random.default_rng(number)
        classes = np.where(rng.random(shape) < share, rng.integers(1, 3, shape), 0)
        classes[rng.random(shape) < 0.2] = IGNORE
        file = tmp_path / f"risk{number}.npy"
        np.save(file, rng.uniform(0.5, 4.0, shape).astype(np.float32))
        made.append(replace(make_case(classes, 3), risk=file))
    return made


def test_frequency_weights_are_the_square_roots_of_the_inverse_shares(cases, make_case):
    labels = np.concatenate([case.classes().reshape(-1) for case in cases])
    shares = np.bincount(labels[labels != IGNORE], minlength=3) / (labels != IGNORE).sum()
    np.testing.assert_allclose(frequency_weights(cases), shares**-0.5, rtol=1e-12)
    absent = make_case(np.array([[[0, 0, 0, 2]]]), 3)
    np.testing.assert_allclose(frequency_weights([absent]), [0.75**-0.5, 1, 2], rtol=1e-12)
    nothing = make_case(np.full((1, 1, 2), IGNORE), 3)
    assert frequency_weights([nothing]) == (1, 1, 1)


@pytest.mark.parametrize("region", ["all", "foreground"])
@pytest.mark.parametrize("denominator", ["pixels", "foreground"])
def test_scaled_by_its_inverse_the_mean_weight_in_the_loss_is_one(cases, region, denominator):
    class_weights = (0.5, 2.0, 3.0)
    scale = 1 / mean_weight(cases, class_weights, Loss(region, denominator))
    total, count = 0.0, 0
    for case in cases:
        # The volume as one image, and a network that knows nothing: log 3 at every pixel.
        classes = jnp.asarray(case.classes().reshape(1, len(case.classes()), -1), jnp.int32)
        valid = classes != IGNORE
        by_class = np.array([*class_weights, *np.zeros(253)])[np.asarray(classes)]
        weights = np.load(case.risk).reshape(classes.shape) * by_class * scale
        loss, _ = map_weighted_cross_entropy(
            jnp.zeros((*classes.shape, 3)),
            classes,
            jnp.asarray(weights, jnp.float32),
            valid,
            region=region,
            denominator=denominator,
            foreground_fraction=jnp.array([case.foreground_fraction], jnp.float32),
        )
        inside = (
            valid & (classes > 0) if (region, denominator) == ("foreground", "pixels") else valid
        )
        total += float(loss[0]) * int(inside.sum())
        count += int(inside.sum())
    assert total / count == pytest.approx(np.log(3), rel=1e-5)


def test_mean_weight_by_hand(make_case, tmp_path):
    case = make_case(np.array([[[0, 1, 2, IGNORE]]]), 3)
    np.save(tmp_path / "risk.npy", np.float32([[[1, 2, 4, 100]]]))
    case = replace(case, risk=tmp_path / "risk.npy")
    weights = (1.0, 10.0, 100.0)
    assert mean_weight([case], weights, Loss()) == pytest.approx((1 + 20 + 400) / 3)
    assert mean_weight([case], weights, Loss("foreground")) == pytest.approx(420 / 2)
    assert mean_weight([case], weights, Loss(denominator="foreground")) == pytest.approx(
        421 / 3 / (2 / 3)
    )
    assert mean_weight([case], weights, Loss("foreground", "foreground")) == pytest.approx(420 / 2)
    assert mean_weight([replace(case, risk=None)], weights, Loss()) == pytest.approx(111 / 3)
    assert mean_weight([case], weights, Loss(soften=0.3)) == pytest.approx(111 / 3)


def test_mean_weight_of_a_map_of_zeros_scales_nothing(make_case, tmp_path):
    np.save(tmp_path / "risk.npy", np.zeros((1, 1, 2), np.float32))
    case = replace(make_case(np.array([[[0, 1]]]), 2), risk=tmp_path / "risk.npy")
    assert mean_weight([case], (1.0, 1.0), Loss()) == 1
