"""Every metric of the registry out of one call: the library's own value on the same samples."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxfer.metrics as library
from jaxfer.metrics import METRICS, OVER_VOXELS, score_names
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.selection.draw import Sampling
from jaxfer.selection.found import missing, over_repetitions
from jaxfer.selection.pool import with_pool_scores
from jaxfer.selection.record import common_reasons, reasons_of, told
from jaxfer.selection.score import score_source
from jaxfer.tasks import IGNORE

CLASSES, SOURCES, K = 3, 2, 2
LAYERS = ("decoder_0", "encoder_1")
SAMPLED = tuple(name for name in METRICS if name not in OVER_VOXELS)
NAMES = score_names(SAMPLED, LAYERS)


class Bends(UNet):
    """Features of the pixel, of two resolutions."""

    def __call__(self, image):
        features = jnp.concatenate([image, jnp.sin(2 * image) + 4, image**2], -1)
        mixing = jnp.array([[1.0, -0.3], [0.5, 0.2], [-0.2, 0.4]])
        blocks = image[:, 1::2, 1::2], image[:, ::2, 1::2], image[:, ::2, ::2] ** 2
        logits = 0.7 * (features @ mixing)
        return logits, {"decoder_0": features, "encoder_1": jnp.concatenate(blocks, -1)}


class Doubts(Bends):
    """The same, knowing less."""

    def __call__(self, image):
        logits, features = super().__call__(jnp.cos(image) + 0.1 * image)
        return logits, features


def source(kind):
    network = kind(num_classes=SOURCES, widths=(3, 3))
    return Source({"patch": (8, 8)}, network, {}, np.zeros((1, 8), np.uint8))


def case(make_case, seed, classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (12, 9, 3))
    image = rng.standard_normal(labels.shape) + 0.8 * labels
    labels[rng.random(labels.shape) < 0.1] = IGNORE
    return make_case(labels, classes, image)


def score(kind, cases, own, metrics=SAMPLED, **changes):
    settings = {
        "metrics": metrics,
        "layers": LAYERS,
        "patch": (8, 8),
        "batch_size": 4,
        "sampling": Sampling(samples=60, repetitions=K, noise=0.3),
        "key": jax.random.key(3),
        "own": own,
    }
    return score_source(source(kind), cases, **settings | changes)


@pytest.fixture
def target(make_case):
    return [case(make_case, seed, CLASSES) for seed in (0, 1)]


@pytest.fixture
def own(make_case):
    return [case(make_case, seed, SOURCES) for seed in (2, 3)]


def by_hand(name, found, k):
    """The score of repetition k by the library's function, called as its docstring says."""
    of, _, layer = name.partition("@")
    if of in ("effective_invariance", "hamming_distance"):
        first, second = (found.samples[x].values[k] for x in ("undisturbed", "disturbed"))
        if of == "effective_invariance":
            return library.effective_invariance(first, second)
        return library.hamming_distance(first.argmax(-1), second.argmax(-1), num_classes=SOURCES)
    if of == "cc_fv":
        parts = []
        for x in LAYERS:
            samples = found.samples[x]
            inside = [samples.draw.cases[k] == i for i in (0, 1)]
            # Both cases have the same share, so nothing has to be filled up.
            assert inside[0].sum() == inside[1].sum() == 30
            parts.append([[a[k][i] for i in inside] for a in (samples.values, samples.draw.labels)])
        features, labels = ([np.stack(part[i]) for part in parts] for i in (0, 1))
        return library.cc_fv(features, labels, num_classes=CLASSES)
    samples = found.samples[layer or "log_probs"]
    voxels = samples.values[k], samples.draw.labels[k]
    if of in ("f_otce", "jc_otce"):
        mine = found.own[layer].values[k], found.own[layer].draw.labels[k]
        function = getattr(library, of)
        return function(*mine, *voxels, num_source_classes=SOURCES, num_classes=CLASSES)
    if of.startswith("knn"):
        balanced, subjects = of == "knn_balanced_accuracy", samples.draw.subjects[k]
        told = {"subjects": subjects, "balanced": balanced}
        return library.knn_accuracy(*voxels, num_classes=CLASSES, **told)
    terms = {"etran_energy": "energy", "ncti_ncc": "ncc", "ncti_seli": "seli", "ncti_vc": "vc"}
    if of in terms:
        parts = getattr(library, of.split("_")[0] + "_terms")(*voxels, num_classes=CLASSES)
        return getattr(parts, terms[of])
    return getattr(library, of)(*voxels, num_classes=CLASSES)


def test_every_metric_comes_out_as_the_library_computes_it(target, own):
    sources = {kind: score(kind, target, own) for kind in (Bends, Doubts)}
    sources = with_pool_scores(sources, NAMES)
    for kind, found in sources.items():
        assert tuple(found.scores) == NAMES
        for name, result in found.scores.items():
            of, _, layer = name.partition("@")
            if of == "otce":
                assert math.isnan(float(result))
                assert "coefficients" in result.reasons[0]
                continue
            assert np.isfinite(float(result)), (kind, name, result.reasons)
            if METRICS[of].pool_dependent:
                continue
            expected = [float(by_hand(name, found, k)) for k in range(K)]
            np.testing.assert_allclose(result.repetitions, expected, rtol=1e-6, err_msg=name)
            assert float(result) == pytest.approx(np.mean(expected), rel=1e-6)
            spread = np.std(expected, ddof=1) / math.sqrt(K)
            assert result.standard_error == pytest.approx(spread, rel=1e-4, abs=1e-9)
            assert result.draws is None
    # Every source was asked for the same voxels.
    first, second = sources.values()
    for output in first.samples:
        np.testing.assert_array_equal(
            first.samples[output].draw.voxels, second.samples[output].draw.voxels
        )
    # The totals put the terms of all sources on one scale, repetition by repetition.
    for name in (n for n in NAMES if METRICS[n.partition("@")[0]].pool_dependent):
        of, _, layer = name.partition("@")
        for k in range(K):
            terms = []
            for found in (first, second):
                samples = found.samples[layer]
                function = getattr(library, f"{of}_terms")
                voxels = samples.values[k], samples.draw.labels[k]
                terms.append(function(*voxels, num_classes=CLASSES))
            total = np.asarray(getattr(library, f"{of}_total")(terms).score)
            mine = [found.scores[name].repetitions[k] for found in (first, second)]
            np.testing.assert_allclose(mine, total, rtol=1e-6)
    # Once more, and nothing has moved.
    again = score(Bends, target, own, metrics=("sfda", "hamming_distance", "f_otce"))
    for name, result in again.scores.items():
        np.testing.assert_array_equal(result.repetitions, first.scores[name].repetitions)


def test_a_lone_source_has_no_total(target, own):
    names = score_names(("sfda", "ncti"), LAYERS)
    found = {"alone": score(Bends, target, own, metrics=("sfda", "ncti"))}
    (pooled,) = with_pool_scores(found, names).values()
    assert tuple(pooled.scores) == names
    for layer in LAYERS:
        assert math.isnan(float(pooled.scores[f"ncti@{layer}"]))
        assert "there is one" in pooled.scores[f"ncti@{layer}"].reasons[0]
        assert np.isfinite(float(pooled.scores[f"sfda@{layer}"]))


def test_what_is_not_at_hand_is_a_reason(target):
    metrics = ("f_otce", "knn_accuracy", "cc_fv")
    found = score(Bends, target[:1], "its data are not there", metrics=metrics).scores
    assert all(math.isnan(float(result)) for result in found.values())
    assert found["f_otce@decoder_0"].reasons == ("its data are not there",)
    assert "there is one" in found["knn_accuracy@encoder_1"].reasons[0]
    assert found["cc_fv"].reasons == ("few images",)


def test_a_layer_without_a_voxel_is_a_reason(make_case, target, own):
    # One pixel wide: no cell of the coarse layer has its centre inside.
    slim = [make_case(np.arange(12).reshape(12, 1, 1) % CLASSES, CLASSES) for _ in range(2)]
    metrics = ("sfda", "ncti", "f_otce", "cc_fv", "knn_accuracy", "effective_invariance")
    names = score_names(metrics, LAYERS)
    found = {kind: score(kind, slim, own, metrics=metrics) for kind in (Bends, Doubts)}
    scores = with_pool_scores(found, names)[Bends].scores
    for name in names:
        coarse = name.endswith("@encoder_1") or name == "cc_fv"
        if coarse:
            assert scores[name].reasons == ("none of the target's voxels can be drawn",), name
            assert np.isnan(float(scores[name]))
    slim = [make_case(np.arange(12).reshape(12, 1, 1) % SOURCES, SOURCES)]
    theirs = score(Bends, target, slim, metrics=("f_otce",)).scores
    assert theirs["f_otce@encoder_1"].reasons == ("none of the source's own voxels can be drawn",)
    assert np.isfinite(float(theirs["f_otce@decoder_0"]))


def test_the_disturbance_is_noise_where_there_is_an_image(target, make_case):
    image = np.asarray(target[0].image()).copy()
    image[:5] = 0
    half = make_case(target[0].classes(), CLASSES, image)
    found = score(Bends, [half], "", metrics=("hamming_distance",))
    places = found.samples["undisturbed"].draw.voxels
    first, second = (found.samples[x].values for x in ("undisturbed", "disturbed"))
    outside = places[..., 0] < 5
    np.testing.assert_array_equal(first[outside], second[outside])
    assert (first[~outside] != second[~outside]).any(-1).mean() > 0.9
    # Strata are the subjects alone: no label of the target decides.
    other = make_case(np.where(half.classes() == IGNORE, IGNORE, 0), CLASSES, image)
    moved = score(Bends, [other], "", metrics=("hamming_distance",))
    np.testing.assert_array_equal(moved.samples["undisturbed"].draw.voxels, places)
    assert float(moved.scores["hamming_distance"]) == float(found.scores["hamming_distance"])


def test_a_repetition_without_a_score_is_told():
    features = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    labels = np.arange(30) % 2
    whole = library.sfda(features, labels, num_classes=2)
    broken = library.sfda(features, 0 * labels, num_classes=2)
    found = over_repetitions([whole, broken, whole])
    assert float(found) == pytest.approx(float(whole))
    assert found.reasons == ("few classes", "1 of 3 repetitions without a score")
    assert found.standard_error == 0
    assert math.isnan(over_repetitions([whole]).standard_error)
    assert math.isnan(float(over_repetitions([broken])))
    assert math.isnan(missing("why").standard_error)


def test_a_reason_is_told_once_with_the_scores_it_concerns():
    names = score_names(("nce", "sfda", "parc"), ("a", "b"))
    every = {"sfda@a": missing("x"), "sfda@b": missing("x"), "nce": missing("y")}
    some = {"sfda@a": missing("x"), "parc@b": missing("x"), "nce": missing("y")}
    both = [reasons_of(every), reasons_of(some)]
    assert told(both[0], names) == ["sfda: x", "nce: y"]
    assert told(both[1], names) == ["sfda@a, parc@b: x", "nce: y"]
    assert common_reasons(both) == {("sfda@a", "x"), ("nce", "y")}
    assert common_reasons(both[:1]) == frozenset()
