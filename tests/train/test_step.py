"""One step: the parameters after it are those of the whole batch, however it is spread."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer.data.augment import Augmentation
from jaxfer.errors import UserError
from jaxfer.models.unet import UNet
from jaxfer.tasks import IGNORE
from jaxfer.train.loop import initial_params
from jaxfer.train.losses import map_weighted_cross_entropy
from jaxfer.train.schedule import Schedule
from jaxfer.train.step import Loss, TrainState, example_losses, pmap_step, replicate, shard

SIDE, CLASSES, RATE = 6, 3, 0.05
MODEL = UNet(num_classes=CLASSES, widths=(2,))
AUGMENTATION = Augmentation(flip=(0,), rotation=20.0, scale=0.2, intensity=0.3, noise=0.2)
LOSS = Loss(denominator="foreground", dice_weight=0.5)


class Momentum(Schedule):
    """Plain descent: AdamW would blow rounding up to whole steps where gradients vanish."""

    def optimizer(self):
        return optax.sgd(RATE, momentum=0.9)


SCHEDULE = Momentum(9, RATE, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def params():
    return initial_params(MODEL, (SIDE, SIDE), 0)


@pytest.fixture
def batch():
    """Eight images. By pairs: nearly all foreground and huge weights; all ignored; not used at
    all, and full of odd numbers; hardly any foreground."""
    rng = np.random.default_rng(1)
    shape = (8, SIDE, SIDE)
    label = rng.integers(0, CLASSES, shape).astype(np.int32)
    label[6:] = 0
    label[6:, 2, 3] = 1
    label[:, 0] = IGNORE
    label[2:4] = IGNORE
    risk = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    risk[0] *= 30
    risk[4:6] = 1e6
    return {
        "image": rng.standard_normal((*shape, 1)).astype(np.float32),
        "label": label,
        "risk": risk,
        "foreground_fraction": np.float32([0.6, 0.5, 0.4, 0.3, 1e-6, 0.2, 0.03, 0.05]),
        "class_weights": np.tile(np.float32([0.5, 1.0, 2.0]), (8, 1)),
        "index": np.arange(40, 48, dtype=np.int32),
        "weight": np.float32([1, 1, 1, 1, 0, 0, 1, 1]),
    }


def run(
    params,
    batch,
    *,
    devices,
    steps,
    loss=LOSS,
    augmentation=None,
    seed=3,
    model=MODEL,
    accumulate=1,
    slabs=False,
):
    """The parameters and the metrics after each step."""
    step = pmap_step(
        model=model,
        schedule=SCHEDULE,
        loss=loss,
        augmentation=augmentation,
        devices=devices,
        accumulate=accumulate,
        slabs=slabs,
    )
    opt_state = SCHEDULE.optimizer().init(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(seed))
    state = replicate(state, devices)
    found = []
    for number in range(1, steps + 1):
        state, metrics = step(state, shard(batch, devices, accumulate, slabs=slabs))
        assert int(state.step) == number
        found.append(jax.tree.map(np.array, (state.params, {k: v[0] for k, v in metrics.items()})))
        for values in metrics.values():
            assert len(set(np.asarray(values).tolist())) == 1
    return found


def agree(found, expected, tolerance=2e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 10),
        found,
        expected,
    )


def apart(a, b):
    """Largest difference of two sets of parameters."""
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)))


@pytest.mark.parametrize("devices", [1, 4])
def test_a_step_takes_the_memory_of_the_state_before(params, batch, devices):
    step = pmap_step(model=MODEL, schedule=SCHEDULE, loss=LOSS, augmentation=None, devices=devices)
    opt_state = SCHEDULE.optimizer().init(params)
    own = TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(3))
    before = replicate(own, devices)
    after, _ = step(before, shard(batch, devices))
    for given in (before.params, before.opt_state):
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((own, after)))


@pytest.mark.parametrize(
    ("augmentation", "shared"), [(None, (2, 4)), (AUGMENTATION, (4,))], ids=["plain", "augmented"]
)
def test_the_number_of_devices_changes_nothing(params, batch, augmentation, shared):
    expected = run(params, batch, devices=1, steps=3, augmentation=augmentation)
    assert apart(expected[0][0], params) > 1e-3
    for devices in shared:
        found = run(params, batch, devices=devices, steps=3, augmentation=augmentation)
        agree(found, expected)


@pytest.mark.parametrize(
    "loss",
    [
        Loss(denominator="weight_sum", region="foreground_rim", rim=1),
        Loss(hardest=0.4, focal=2.0, missed=0.7),
    ],
    ids=["weight_sum", "hardest"],
)
def test_the_number_of_devices_changes_nothing_in_the_other_losses(params, batch, loss):
    faded = batch | {"plain_weights": np.tile(np.float32([1.0, 3.0, 0.5]), (8, 1))}
    expected = run(params, faded, devices=1, steps=2, loss=loss)
    agree(run(params, faded, devices=4, steps=2, loss=loss), expected)
    assert apart(expected[0][0], run(params, batch, devices=1, steps=1, loss=loss)[0][0]) > 1e-5


@pytest.mark.parametrize(("devices", "parts"), [(2, 1), (3, 2)])
def test_devices_that_share_every_image_change_nothing(params, batch, devices, parts):
    some = {name: values[:6] for name, values in batch.items()}
    odd = some | {"weight": np.float32([1, 1, 1, 0, 0, 0])}
    expected = run(params, odd, devices=1, steps=3, augmentation=AUGMENTATION)
    found = run(
        *(params, odd),
        devices=devices,
        steps=3,
        augmentation=AUGMENTATION,
        accumulate=parts,
        slabs=True,
    )
    agree(found, expected)


@pytest.mark.parametrize(("devices", "parts"), [(1, 4), (2, 2), (1, 8)])
def test_a_batch_in_parts_gives_the_same_parameters_and_metrics(params, batch, devices, parts):
    expected = run(params, batch, devices=1, steps=3, augmentation=AUGMENTATION)
    found = run(
        params, batch, devices=devices, steps=3, augmentation=AUGMENTATION, accumulate=parts
    )
    assert apart(found[-1][0], params) > 1e-3
    for (ours, _), (whole, _) in zip(found, expected, strict=True):
        assert apart(ours, whole) < 1e-6
    agree(found, expected)


def test_only_a_part_of_the_batch_is_in_the_network_at_once(params, batch):
    seen = []

    class Seen(UNet):
        def __call__(self, image):
            seen.append(len(image))
            return super().__call__(image)

    model = Seen(num_classes=CLASSES, widths=(2,))
    step = pmap_step(
        model=model, schedule=SCHEDULE, loss=LOSS, augmentation=None, devices=1, accumulate=4
    )
    state = TrainState(jnp.zeros((), jnp.int32), params, SCHEDULE.optimizer().init(params), None)
    step.lower(state, shard(batch, 1, 4))
    assert set(seen) == {2}


def test_a_batch_that_does_not_divide_into_its_parts(batch):
    with pytest.raises(UserError) as caught:
        shard(batch, 2, 3)
    assert caught.value.found == "batch of 8, 2 local devices, 3 parts each (accumulate)"
    assert "such as 12" in caught.value.mend


def test_is_the_gradient_of_the_mean_over_the_used_images(params, batch):
    used = [0, 1, 6, 7]
    image, label, risk = (jnp.asarray(batch[k])[np.array(used)] for k in ("image", "label", "risk"))
    valid = label != IGNORE
    fraction = batch["foreground_fraction"][used]
    weights = risk * jnp.array([0.5, 1.0, 2.0])[jnp.where(valid, label, 0)]

    def mean_loss(params):
        logits, _ = MODEL.apply({"params": params}, image)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(valid, label, 0))
        sizes = fraction * valid.sum((1, 2))
        entropy = jnp.where(valid, weights * losses, 0).sum((1, 2)) / sizes
        probs = jax.nn.softmax(logits)[..., 1:] * valid[..., None]
        truth = jax.nn.one_hot(label - 1, CLASSES - 1)
        overlap, sums = (probs * truth).sum((1, 2)), (probs + truth).sum((1, 2))
        dice = 1 - ((2 * overlap + 1) / (sums + 1)).mean(-1)
        return entropy.mean() + 0.5 * dice.mean(), (entropy.mean(), dice.mean())

    (total, parts), slope = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(params)
    ((found, metrics),) = run(params, batch, devices=4, steps=1)
    agree(found, jax.tree.map(lambda p, g: p - RATE * g, params, slope))
    assert metrics["loss"] == pytest.approx(float(total), rel=1e-5)
    assert metrics["cross_entropy"] == pytest.approx(float(parts[0]), rel=1e-5)
    assert metrics["dice_loss"] == pytest.approx(float(parts[1]), rel=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(float(optax.tree.norm(slope)), rel=1e-5)


def test_a_map_that_softens_labels_does_not_weigh(batch):
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    label, draw = batch["label"], np.random.default_rng(2)
    given = jnp.asarray(draw.uniform(size=label.shape), jnp.float32)
    logits = jnp.asarray(draw.standard_normal((*label.shape, CLASSES)), jnp.float32)
    valid = label != IGNORE
    by_class = jnp.array([0.5, 1.0, 2.0])[jnp.where(valid, label, 0)]
    loss = Loss(soften=0.4)
    found = example_losses(loss, logits, batch | {"risk": given})["cross_entropy"]
    expected = map_weighted_cross_entropy(
        logits, label, by_class, valid, denominator="pixels", doubt=0.4 * (1 - given)
    )
    agree(found, expected)
    sure = batch | {"risk": jnp.ones_like(given)}
    hard = example_losses(Loss(), logits, sure)
    jax.tree.map(np.testing.assert_array_equal, example_losses(loss, logits, sure), hard)
    seen = np.asarray(found[1]) > 0
    assert (np.asarray(found[0]) != np.asarray(hard["cross_entropy"][0]))[seen].all()


def test_images_of_weight_zero_and_ignored_ones_change_no_bit(params, batch):
    expected = run(params, batch, devices=4, steps=2)
    rng = np.random.default_rng(5)
    for key, rows in (("image", slice(2, 6)), ("risk", slice(2, 6)), ("label", slice(4, 6))):
        batch[key] = batch[key].copy()
        batch[key][rows] = rng.permutation(batch[key][rows].reshape(-1)).reshape(
            batch[key][rows].shape
        )
    batch["foreground_fraction"][2:6] = 1.0
    found = run(params, batch, devices=4, steps=2)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_batch_of_nothing_changes_nothing(params, batch):
    batch["weight"] = np.zeros(8, np.float32)
    ((found, metrics),) = run(params, batch, devices=4, steps=1)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    assert metrics["loss"] == 0
    assert metrics["gradient_norm"] == 0


def test_an_image_is_augmented_by_its_index_not_by_its_place(params, batch):
    (expected,) = run(params, batch, devices=4, steps=1, augmentation=AUGMENTATION)
    order = np.array([7, 2, 4, 0, 6, 1, 5, 3])
    moved = {key: values[order] for key, values in batch.items()}
    (found,) = run(params, moved, devices=4, steps=1, augmentation=AUGMENTATION)
    agree(found, expected)
    other = batch | {"index": batch["index"] + 8}
    (found,) = run(params, other, devices=4, steps=1, augmentation=AUGMENTATION)
    assert apart(found[0], expected[0]) > 1e-4
    (found,) = run(params, batch, devices=4, steps=1, augmentation=AUGMENTATION, seed=4)
    assert apart(found[0], expected[0]) > 1e-4


def test_a_step_over_volumes_of_one_slice_is_that_over_the_slices(params, batch):
    model = UNet(num_classes=CLASSES, widths=(2,), kernels=((3, 3, 1),))
    deeper = jax.tree.map(lambda leaf: leaf[:, :, None] if leaf.ndim == 4 else leaf, params)
    volumes = batch | {
        "image": batch["image"][:, :, :, None],
        "label": batch["label"][..., None],
        "risk": batch["risk"][..., None],
    }
    found = run(deeper, volumes, devices=4, steps=2, model=model)
    for (own, metrics), (plain, expected) in zip(
        found, run(params, batch, devices=4, steps=2), strict=True
    ):
        flat = jax.tree.map(lambda leaf: leaf[:, :, 0] if leaf.ndim == 5 else leaf, own)
        agree((flat, metrics), (plain, expected))


def test_a_batch_that_does_not_divide(batch):
    short = {key: values[:6] for key, values in batch.items()}
    with pytest.raises(UserError) as caught:
        shard(short, 4)
    assert caught.value.found == "batch of 6, 4 local devices"
    assert "such as 8" in caught.value.mend


def test_shards_keep_the_order(batch):
    found = shard(batch, 4)
    assert found["image"].shape == (4, 2, SIDE, SIDE, 1)
    for key, values in batch.items():
        np.testing.assert_array_equal(found[key].reshape(values.shape), values)


def test_is_traced_and_compiled_once_and_shared(params, batch):
    traces = []

    class Counted(UNet):
        def __call__(self, image):
            traces.append(image.shape)
            return super().__call__(image)

    model = Counted(num_classes=CLASSES, widths=(1,))
    params = initial_params(model, (SIDE, SIDE), 0)
    traces.clear()
    for seed in (0, 1):
        step = pmap_step(model=model, schedule=SCHEDULE, loss=LOSS, augmentation=None, devices=2)
        opt_state = SCHEDULE.optimizer().init(params)
        state = TrainState(jnp.zeros((), jnp.int32), params, opt_state, jax.random.key(seed))
        state = replicate(state, 2)
        for _ in range(3):
            state, _ = step(state, shard(batch, 2))
        batch = batch | {"class_weights": batch["class_weights"] * 2}
    assert traces == [(4, SIDE, SIDE, 1)]


def test_the_caller_keeps_its_parameters(params, batch):
    kept = jax.tree.map(np.array, params)
    run(params, batch, devices=1, steps=2)
    jax.tree.map(np.testing.assert_array_equal, params, kept)
