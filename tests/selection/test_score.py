"""Scores over every voxel: the same as the metrics of all voxels at once, however they are cut."""

from __future__ import annotations

import dataclasses
import tempfile
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer.errors import UserError
from jaxfer.metrics import (
    METRICS,
    class_balanced,
    h_score,
    interval,
    label_entropy,
    lda,
    leep,
    logme,
    nce,
    nce_from_statistics,
)
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.selection.draw import Sampling
from jaxfer.selection.score import passes, score_source
from jaxfer.tasks import IGNORE
from jaxfer.train.predict import forward, tiles

CLASSES, SOURCES, FEATURES = 3, 4, 3
ALL = ("leep", "nce", "h_score", "logme")
SAMPLING = Sampling(samples=20, repetitions=2, noise=0.1)
ROOM = 300  # voxels of a comparison, so that one compilation serves all
AWKWARD = [((5, 7, 3), (4, 4)), ((4, 4, 2), (4, 4)), ((3, 2, 4), (4, 4)), ((13, 9, 1), (4, 8))]
AWKWARD += [((6, 7, 4), (4, 4, 3)), ((3, 2, 5), (4, 2, 4))]


class EachPixel(UNet):
    """Features and class probabilities that depend on the pixel alone."""

    def __call__(self, image):
        features = jnp.concatenate([image, jnp.sin(2 * image) + 4, image**2], -1)
        mixing = jnp.array([[1.0, 0.3, -0.8, 0.0], [0.5, -1, 0, 0.4], [-0.2, 0.4, 0.6, 0.1]])
        return features @ mixing, {"decoder_0": features, "encoder_0": 3 - features}


class Knows(UNet):
    """Source class (y + 1) mod S, with certainty, where the image is y."""

    def __call__(self, image):
        classes = (jnp.arange(SOURCES) - 1) % SOURCES
        logits = -1e3 * jnp.abs(image - classes.reshape(1, 1, 1, -1).astype(image.dtype))
        return logits, {"decoder_0": jnp.tile(image, FEATURES)}


class KnowsNothing(UNet):
    def __call__(self, image):
        logits = jnp.array([0.3, -1.0, 2.0, 0.5]).reshape(1, 1, 1, -1)
        return logits + 0 * image, {"decoder_0": jnp.tile(image, FEATURES)}


def source(kind=EachPixel, patch=(4, 4)):
    network = kind(num_classes=SOURCES, widths=(FEATURES, 5))
    return Source({"patch": patch}, network, {}, np.zeros((1, 8), np.uint8))


def score(cases, kind=EachPixel, *, patch=(4, 4), batch_size=3, layer="decoder_0", **changes):
    found = score_source(
        source(kind, patch),
        cases,
        **{"metrics": ALL}
        | {"layers": (layer,), "patch": patch, "batch_size": batch_size}
        | {"sampling": SAMPLING, "key": jax.random.key(0)}
        | changes,
    )
    # One layer alone: its name adds nothing to what these tests compare.
    short = {name.removesuffix(f"@{layer}"): own for name, own in found.scores.items()}
    return dataclasses.replace(found, scores=short)


def draw(make_case, shape, seed=0, ignored=0.15):
    """A case whose image knows something of its labels, and is NaN where they are ignored."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, shape)
    image = rng.standard_normal(shape) + 0.8 * classes
    classes[rng.random(shape) < ignored] = IGNORE
    return make_case(classes, CLASSES, np.where(classes == IGNORE, np.nan, image))


def at_once(cases, layer="decoder_0"):
    """All scores by the metrics themselves, of all voxels in one array."""
    labels, pixels = np.full(ROOM, IGNORE, np.int32), np.zeros(ROOM, np.float32)
    number = sum(case.classes().size for case in cases)
    labels[:number] = np.concatenate([case.classes().reshape(-1) for case in cases])
    pixels[:number] = np.concatenate([np.asarray(case.image()).reshape(-1) for case in cases])
    mask = labels != IGNORE
    labels = np.where(mask, labels, 0)
    log_probs, features = forward(source().model, {}, jnp.asarray(pixels).reshape(1, 1, -1, 1))
    log_probs, values = np.asarray(log_probs)[0, 0], np.asarray(features[layer])[0, 0]
    hard = np.where(mask, log_probs.argmax(-1), 0)
    return {
        "leep": leep(log_probs, labels, num_classes=CLASSES, mask=mask),
        "nce": nce(hard, labels, num_source_classes=SOURCES, num_classes=CLASSES, mask=mask),
        "h_score": h_score(values, labels, num_classes=CLASSES, mask=mask),
        "logme": logme(values, labels, num_classes=CLASSES, mask=mask),
    }


def check(found, expected):
    for name in ALL:
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-5), name
        assert found[name].n_used == expected[name].n_used, name
        assert found[name].n_invalid == 0, name
        assert found[name].reasons == (), name


@pytest.mark.parametrize(("shape", "patch"), AWKWARD)
def test_every_voxel_counts_exactly_once(make_case, shape, patch):
    cases = [draw(make_case, shape, 0), draw(make_case, (6, 5, 2), 1)]
    found = score(cases, patch=patch)
    check(found.scores, at_once(cases))
    number = sum(int((case.classes() != IGNORE).sum()) for case in cases)
    assert int(found.scores["leep"].n_used) == number


def test_the_batch_size_changes_nothing(make_case):
    cases = [draw(make_case, (9, 7, 2), 2), draw(make_case, (5, 4, 3), 3)]
    reference = score(cases, batch_size=1)
    for batch_size in (3, 64):
        found = score(cases, batch_size=batch_size)
        for name in ALL:
            expected = float(reference.scores[name])
            assert float(found.scores[name]) == pytest.approx(expected, rel=1e-6), name
            assert found.scores[name].n_used == reference.scores[name].n_used


def test_the_layer_is_the_one_asked_for(make_case):
    cases = [draw(make_case, (6, 5, 2), 4)]
    check(score(cases, layer="encoder_0").scores, at_once(cases, "encoder_0"))


def test_statistics_are_kept_by_case(make_case):
    cases = [draw(make_case, (6, 5, 2), seed) for seed in (5, 6, 7)]
    found = score(cases)
    assert [own.case for own in found.cases] == [case.stored.id for case in cases]
    for own, case in zip(found.cases, cases, strict=True):
        alone = at_once([case])
        usable = case.classes()[case.classes() != IGNORE]
        counts = np.bincount(usable, minlength=CLASSES)
        np.testing.assert_array_equal(np.asarray(own.labels.hard_joint).sum(1), counts)
        np.testing.assert_array_equal(own.features["decoder_0"].counts, counts)
        for predictions in own.predictions:
            np.testing.assert_array_equal(predictions.counts, counts)
        assert float(nce_from_statistics(own.labels)) == pytest.approx(float(alone["nce"]))
    # The table of the second pass is of all cases, not of each.
    total = sum(np.asarray(own.predictions[0].log_sums).sum() for own in found.cases)
    number = float(found.scores["leep"].n_used)
    assert total / number == pytest.approx(float(at_once(cases)["leep"]), rel=1e-5)


def test_a_source_that_knows_the_labels(make_case):
    classes = np.random.default_rng(8).integers(0, CLASSES, (7, 5, 3))
    found = score([make_case(classes, CLASSES)], Knows).scores
    assert float(found["leep"]) == pytest.approx(0, abs=1e-6)
    assert float(found["nce"]) == 0


def test_a_source_that_knows_nothing_scores_minus_the_label_entropy(make_case):
    cases = [draw(make_case, (7, 5, 3), seed) for seed in (9, 10)]
    cases = [make_case(case.classes(), CLASSES, np.zeros((7, 5, 3))) for case in cases]
    counts = sum(case.counts.sum(0) for case in cases)
    found = score(cases, KnowsNothing).scores
    assert float(found["leep"]) == pytest.approx(-float(label_entropy(counts)), rel=1e-5)
    assert float(found["nce"]) == pytest.approx(-float(label_entropy(counts)), rel=1e-5)


def test_one_class_alone_has_no_score(make_case):
    found = score([make_case(np.zeros((5, 4, 2)), CLASSES)]).scores
    for name in ALL:
        assert np.isnan(float(found[name])), name
        assert "few classes" in found[name].reasons, name


def test_a_source_that_breaks_down_has_no_score(make_case):
    case = draw(make_case, (5, 4, 2), 11, ignored=0.0)
    image = np.array(case.image())
    image[2, 3, 1] = np.nan
    found = score([make_case(case.classes(), CLASSES, image)]).scores
    for name in ALL:
        assert np.isnan(float(found[name])), name
        assert found[name].n_invalid == 1, name


def test_every_tile_is_told_and_only_what_was_asked_for_is_scored(make_case):
    told: list[int] = []
    case = draw(make_case, (9, 7, 2), 12)
    found = score([case], metrics=("nce",), batch_size=5, on_tiles=told.append)
    assert found.cases[0].features == {}
    assert found.cases[0].predictions is None
    assert found.samples == {}
    assert sum(told) == len(tiles((9, 7, 2), (4, 4), 0.0))
    assert list(found.scores) == ["nce"]
    assert set(ALL) <= set(METRICS)


def test_the_balanced_scores_are_of_the_balanced_statistics(make_case):
    case = draw(make_case, (6, 5, 2), 14)
    found = score([case])
    balanced = class_balanced(found.cases[0].labels)
    masses = np.asarray(balanced.joint).sum(1)
    assert masses == pytest.approx([masses.mean()] * CLASSES)
    nce_balanced = found.scores["nce"].balanced
    assert nce_balanced == pytest.approx(float(nce_from_statistics(balanced)))
    assert nce_balanced != pytest.approx(float(found.scores["nce"]), rel=1e-4)
    # An ignorant source scores minus the entropy of equal shares, whatever the prevalence.
    flat = make_case(case.classes(), CLASSES, np.zeros((6, 5, 2)))
    for name in ("leep", "nce"):
        assert score([flat]).scores[name].balanced == pytest.approx(-np.log(CLASSES), rel=1e-5)


def test_the_draws_are_of_subjects_and_the_same_for_every_source(make_case):
    cases = [draw(make_case, (6, 5, 2), seed) for seed in (11, 12, 13)]
    first, second = score(cases), score(cases)
    for name, own in first.scores.items():
        np.testing.assert_array_equal(own.draws, second.scores[name].draws)
        low, high, undefined = interval(own.draws)
        assert undefined == 0
        assert low < high
    # One subject says nothing of others.
    assert np.isnan(score(cases[:1]).scores["nce"].draws).all()


@pytest.mark.parametrize("patch", [(4, 4), (4, 8, 2)])
def test_lda_is_that_of_all_voxels_in_two_passes(make_case, patch):
    told: list[int] = []
    cases = [draw(make_case, (9, 7, 2), seed) for seed in (15, 16)]
    found = score(cases, metrics=("lda",), patch=patch, on_tiles=told.append)
    assert sum(told) == passes(["lda"]) * 2 * len(tiles((9, 7, 2), patch, 0.0))
    labels = np.concatenate([case.classes().reshape(-1) for case in cases])
    pixels = np.concatenate([np.asarray(case.image()).reshape(-1) for case in cases])
    used = labels != IGNORE
    image = jnp.asarray(pixels[used], jnp.float32).reshape(1, 1, -1, 1)
    values = np.asarray(forward(source().model, {}, image)[1]["decoder_0"])[0, 0]
    expected = float(lda(values, labels[used], num_classes=CLASSES))
    assert float(found.scores["lda"]) == pytest.approx(expected, rel=1e-5)
    assert found.scores["lda"].n_used == used.sum()
    # The sums of the cases are those of the whole, and are drawn by subject.
    low, high, _ = interval(found.scores["lda"].draws)
    assert low < expected < high


def test_balanced_lda_is_that_of_the_rare_classes_repeated(make_case):
    classes = np.array([0] * 6 + [1] * 3 + [2] * 2 + [IGNORE]).reshape(4, 3, 1)
    image = np.random.default_rng(20).standard_normal(classes.shape) + 0.5 * classes
    found = score([make_case(classes, CLASSES, image)], metrics=("lda",)).scores["lda"]
    labels = classes.reshape(-1)[:-1]
    pixels = image.astype(np.float16).reshape(-1)[:-1]
    values = forward(source().model, {}, jnp.asarray(pixels, jnp.float32).reshape(1, 1, -1, 1))
    repeats = np.array([1, 2, 3])[labels]
    rows = np.asarray(values[1]["decoder_0"])[0, 0].repeat(repeats, 0)
    expected = lda(rows, labels.repeat(repeats), num_classes=CLASSES)
    assert found.balanced == pytest.approx(float(expected), rel=1e-5)
    assert found.balanced != pytest.approx(float(found), rel=1e-3)


def test_a_full_disk_is_one_message(make_case, monkeypatch):
    def full(**_):
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr("jaxfer.selection.kept.IN_MEMORY", 0)
    monkeypatch.setattr("jaxfer.selection.kept.tempfile.NamedTemporaryFile", full)
    with pytest.raises(UserError, match="cannot be kept here") as told:
        score([draw(make_case, (5, 4, 2), 17)])
    assert "No space left on device" in str(told.value)
    assert "--workdir" in told.value.mend
    # Without LEEP nothing is kept, and nothing can fail.
    found = score([draw(make_case, (5, 4, 2), 17)], metrics=("nce",))
    assert np.isfinite(float(found.scores["nce"]))


def test_a_folder_that_cannot_be_written_to_is_one_message(make_case, monkeypatch, tmp_path):
    monkeypatch.setattr("jaxfer.selection.kept.IN_MEMORY", 0)
    with pytest.raises(UserError, match="cannot be kept here"):
        score([draw(make_case, (5, 4, 2), 18)], scratch=tmp_path / "nowhere")


def test_leep_is_the_same_wherever_the_predictions_are_kept(make_case, monkeypatch, tmp_path):
    cases = [draw(make_case, (5, 4, 2), 21), draw(make_case, (6, 5, 3), 22)]
    found = []
    for most in (0, 2000, 2**28):
        monkeypatch.setattr("jaxfer.selection.kept.IN_MEMORY", most)
        made = Mock(wraps=tempfile.NamedTemporaryFile)
        monkeypatch.setattr("jaxfer.selection.kept.tempfile.NamedTemporaryFile", made)
        found.append((float(score(cases, scratch=tmp_path).scores["leep"]), made.call_count))
        monkeypatch.undo()
    assert [files for _, files in found] == [1, 1, 0]
    assert len({value for value, _ in found}) == 1


def test_seconds_are_told(make_case):
    found = score([draw(make_case, (5, 4, 2), 19)], metrics=("nce", "sfda"))
    assert all(second > 0 for second in dataclasses.asdict(found.seconds).values())


class SeesItsTile(EachPixel):
    """Another answer where the tile's other pixels are other ones."""

    def __call__(self, image):
        return super().__call__(image + image.mean((1, 2), keepdims=True))


def test_slices_of_the_cases_plane_are_scored(make_case):
    case = draw(make_case, (5, 6, 4), ignored=0.0)
    image, classes = np.asarray(case.image()), case.classes()
    turned = make_case(np.moveaxis(classes, 1, 2), CLASSES, np.moveaxis(image, 1, 2))
    found = score([dataclasses.replace(case, plane="coronal")], SeesItsTile).scores
    expected = score([turned], SeesItsTile).scores
    axial = score([case], SeesItsTile).scores
    for name in found:
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-6)
    name = next(n for n in found if n.startswith("leep"))
    assert float(found[name]) != pytest.approx(float(axial[name]), rel=1e-3)
