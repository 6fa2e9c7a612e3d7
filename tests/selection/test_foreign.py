"""A source known by its outputs scores as the network that they are of; what it lacks is told."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxfer.data.nifti import Header
from jaxfer.data.preprocess import field_of_view, restore
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.selection.draw import Sampling
from jaxfer.selection.foreign import LAYERS, read_foreign
from jaxfer.selection.rank import Candidate, filter_roi, rank
from jaxfer.selection.roi import FULL, GRID
from jaxfer.selection.score import score_source
from jaxfer.tasks import Task
from jaxfer.train.loop import initial_params
from jaxfer.train.predict import forward, read_tile, tiles

PATCH, CLASSES = (16, 16), 3
METRICS = ("leep", "nce", "h_score", "logme", "lda", "knn_accuracy", "cc_fv", "ncti")
NEVER = ("effective_invariance", "f_otce")
AFFINE = np.array([[-1.0, 0, 0, 9], [0, 0, 1.0, 0], [0, 1.0, 0, -3], [0, 0, 0, 1]])
CARD = {
    "kind": "outputs",
    "task": "lab/all/t2/thing",
    "class_names": ["a", "b", "c"],
    "outputs": "logits",
    "layers": {"decoder_0": 4, "encoder_0": 4},
}


@pytest.fixture
def cases(make_case):
    """Crops of scans whose files have other axes, in another order."""
    rng = np.random.default_rng(0)
    made = []
    for depth in (3, 2):
        classes = rng.integers(0, CLASSES, (16, 14, depth))
        image = rng.standard_normal(classes.shape) + 0.8 * classes
        case = make_case(classes, CLASSES, image)
        whole = field_of_view((20, depth + 3, 17), AFFINE, (0.0, 0.0, 0.0))
        geometry = dataclasses.replace(whole, start=(2, 1, 2), crop_shape=classes.shape)
        made.append(
            dataclasses.replace(case, stored=dataclasses.replace(case.stored, geometry=geometry))
        )
    return made


def network(patch):
    model = UNet(num_classes=4, widths=(4, 8))
    params = initial_params(model, patch, 0)
    return Source({"patch": patch}, model, params, np.zeros((1, 8), np.uint8))


@pytest.fixture(scope="module")
def native():
    return network(PATCH)


def headers(cases):
    return {c.stored.id: Header(c.stored.geometry.shape, AFFINE) for c in cases}


def write(folder, cases, native, **changes):
    """What another program would write, of this network."""
    folder.mkdir(exist_ok=True)
    for case in cases:
        image, patch = case.sliced_image().astype(np.float32), native.card["patch"]
        places = tiles(image.shape, patch, 0.0)
        batch = np.stack([read_tile(image, tile, patch, 0.0) for tile in places])[..., None]
        log_probs, features = forward(native.model, native.params, batch)
        arrays = {"output": log_probs} | {name: features[name] for name in LAYERS}
        moved = {}
        for name, array in arrays.items():
            whole = np.asarray(array)
            whole = np.moveaxis(whole, 0, 2) if len(patch) == 2 else whole[0]
            cut = whole[tuple(map(slice, image.shape))]
            channels = [restore(cut[..., k], case.stored.geometry, 0.0) for k in range(4)]
            moved[name] = np.stack(channels, axis=-1)
        np.savez(folder / f"{case.stored.id}.npz", **moved)
    (folder / "card.json").write_text(json.dumps(CARD | changes))


def scores(source, cases, layers=LAYERS, metrics=METRICS, patch=PATCH):
    return score_source(
        source,
        cases,
        metrics=metrics,
        layers=layers,
        patch=patch,
        batch_size=2,
        sampling=Sampling(samples=60, repetitions=2, noise=0.1),
        key=jax.random.key(0),
    )


@pytest.mark.parametrize("patch", [PATCH, (16, 16, 4)])
def test_scores_are_those_of_the_network(tmp_path, cases, patch):
    native = network(patch)
    write(tmp_path / "out", cases, native)
    (source,), problems = read_foreign([tmp_path / "out"], headers(cases), (), len(patch))
    assert problems == []
    own = scores(native, cases, patch=patch)
    theirs = scores(source, cases, metrics=(*METRICS, *NEVER), patch=patch)
    for name, found in own.scores.items():
        assert np.isfinite(float(found)), name
        assert float(theirs.scores[name]) == pytest.approx(float(found), rel=1e-4, abs=1e-5), name
        assert theirs.scores[name].reasons == found.reasons
        assert theirs.scores[name].n_used == found.n_used
    assert len(own.scores) == 3 + 4 * len(LAYERS)
    assert own.terms.keys() == theirs.terms.keys() == {f"ncti@{layer}" for layer in LAYERS}
    for name in ("effective_invariance", "f_otce@decoder_0"):
        found = theirs.scores[name]
        assert np.isnan(float(found))
        assert "known by its outputs alone" in found.reasons[0]


def test_half_precision_changes_the_rounding_alone(tmp_path, cases, native):
    write(tmp_path, cases, native)
    for file in tmp_path.glob("*.npz"):
        with np.load(file) as arrays:
            np.savez(file, **{name: arrays[name].astype(np.float16) for name in arrays.files})
    (source,), _ = read_foreign([tmp_path], headers(cases), (), 2)
    own, theirs = scores(native, cases).scores, scores(source, cases).scores
    for name in ("leep", "nce", "h_score@decoder_0", "logme@encoder_0"):
        assert float(theirs[name]) == pytest.approx(float(own[name]), rel=5e-3), name


def test_without_features_the_predictions_are_scored(tmp_path, cases, native):
    write(tmp_path, cases, native, layers={})
    (source,), problems = read_foreign([tmp_path], headers(cases), (), 2)
    assert problems == []
    found = scores(source, cases, ("decoder_0", "encoder_1")).scores
    assert np.isfinite(float(found["leep"]))
    assert found["logme@encoder_1"].reasons == ("the source's files hold no features of encoder_1",)
    assert "no features of decoder_0, encoder_1" in found["cc_fv"].reasons[0]


WRONG = {
    "kind": "network",
    "task": "lab/t2/thing",
    "class_names": [],
    "outputs": "probabilities",
    "layers": {"encoder_2": 8},
    "masks": "../masks.npz",
    "validation_dice": 1.5,
    "synthetic": "no",
}


def test_everything_wrong_with_cards_is_told_at_once(tmp_path, cases, native):
    for name, changes in {
        "wrong": WRONG,
        "more": {"class_names": ["a", "b", "c", "d"]},
        "taken": {},
        "masks": {"task": "lab/all/t1/x", "masks": "masks.npz"},
    }.items():
        write(tmp_path / name, cases, native, **changes)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "card.json").write_text('{"kind": ')
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "card.json").write_text("[]")
    folders = [*sorted(tmp_path.iterdir()), tmp_path / "gone"]
    folders = [f for f in folders if f.name in {"wrong", "more", "taken", "masks", "cut", "list"}]
    _, problems = read_foreign(
        [*folders, tmp_path / "gone"], headers(cases), ("lab/all/t2/thing",), 2
    )
    told = {
        name: [p for p in problems if f"/{name}/" in p.where]
        for name in ("wrong", "more", "taken", "masks", "cut", "list", "gone")
    }
    assert [p.what for p in told["wrong"]] == [f"'{key}'" for key in WRONG]
    channels = [p for p in told["more"] if "channels that the card announces" in p.what]
    assert [(p.found, p.allowed) for p in channels] == [(4, 5)] * len(cases)
    assert [p.what for p in told["taken"]] == ["a task that this run has already"]
    assert [p.what for p in told["masks"]] == ["not a readable file of masks"]
    assert [p.what for p in told["cut"]] == ["not a readable card"]
    assert [p.what for p in told["list"]] == ["not a card"]
    assert [p.what for p in told["gone"]] == ["not a readable card"]


def test_masks_come_to_the_common_grid(tmp_path, cases, native):
    write(tmp_path, cases, native, masks="masks.npz")
    half = np.zeros((10, 8, 6), np.uint8)
    half[:5] = 1
    np.savez(tmp_path / "masks.npz", one=half, two=half[:, ::-1])
    (source,), problems = read_foreign([tmp_path], headers(cases), (), 2)
    assert problems == []
    assert source.masks.shape == (2, GRID**3)
    assert source.masks.dtype == np.uint8
    grid = source.masks.reshape(2, GRID, GRID, GRID)
    assert (grid[:, : GRID // 2] == FULL).all()
    assert (grid[:, GRID // 2 :] == 0).all()
    np.savez(tmp_path / "masks.npz", one=2 * half)
    _, (problem,) = read_foreign([tmp_path], headers(cases), (), 2)
    assert problem.what == "not a mask"


def test_an_unknown_roi_is_kept_and_takes_no_place():
    def candidate(name, similarity, score, known=True):
        task = Task("d", "all", "t2", name)
        return Candidate(task, {"leep": score}, similarity, roi_known=known)

    decided = filter_roi(
        [candidate("a", 0.1, -1.0), candidate("b", 0.9, -2.0), candidate("c", np.nan, -3.0, False)],
        1,
    )
    assert [c.kept for c in decided] == [False, True, True]
    assert "unknown" in decided[2].decisions[-1].reason
    assert [c.task.roi for c in rank(decided, "leep")] == ["b", "c", "a"]
