"""What methods come to: their losses, leaves, maps, and what their marks depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxfer import stages
from jaxfer.config import METHODS as NAMES
from jaxfer.config import default_config
from jaxfer.data.preprocess import field_of_view
from jaxfer.data.sampler import TaskCase, risk_of, task_case
from jaxfer.data.store import StoredCase
from jaxfer.models.unet import UNet
from jaxfer.models.zoo import Source
from jaxfer.stages import finetune, pretrain, recipe, training
from jaxfer.stages.interrupt import Interruption
from jaxfer.stages.prepare import Prepared
from jaxfer.stages.pretrain import source_mark
from jaxfer.stages.recipe import finetuning_mark, recipe_of
from jaxfer.stages.risk import source_log_probs
from jaxfer.stages.run import Run
from jaxfer.stages.training import network
from jaxfer.tasks import IGNORE, RoI, Task
from jaxfer.train.finetune import distance, leaf_rates, mean_weight, transfer_params
from jaxfer.train.loop import initial_params
from jaxfer.train.methods import METHODS
from jaxfer.train.step import Loss

ROI_OF_TWO = RoI("roi", (("core", (1,)), ("rim", (2,))))
PLAIN = ("scratch", "plain", "l2_sp", "discriminative", "linear_probe", "frozen_encoder")
MAPPED = tuple(name for name, m in METHODS.items() if m.risk and m.risk.to == "weigh")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = default_config()
    config.model.widths, config.model.patch = (2, 3, 4), (8, 8)
    return Run(config, tmp_path, Console(quiet=True), Interruption())


@pytest.fixture
def cases(tmp_path: Path) -> list[TaskCase]:
    made = []
    for number in range(2):
        rng, folder = np.random.default_rng(number), tmp_path / f"case{number}"
        folder.mkdir()
        classes = rng.choice(np.uint8([0, 0, 0, 0, 1, 2, IGNORE]), (6, 7, 3))
        np.save(folder / "label.npy", classes)
        np.save(folder / "t2.npy", classes.astype(np.float16))
        geometry = field_of_view(classes.shape, np.eye(4), (1.0, 1.0, 1.0))
        content = {"t2.npy": f"image {number}", "label.npy": f"labels {number}"}
        stored = StoredCase(folder.name, folder.name, "site", folder, geometry, content)
        made.append(task_case(stored, "t2", ROI_OF_TWO, (IGNORE,)))
    return made


@pytest.fixture
def weights(cases: list[TaskCase], tmp_path: Path) -> list[Path]:
    files = []
    for number, case in enumerate(cases):
        files.append(tmp_path / f"weights{number}.npy")
        shape = case.image().shape
        drawn = np.random.default_rng(9 + number).uniform(0.5, 5, shape)
        np.save(files[-1], drawn.astype(np.float32))
    return files


@pytest.fixture
def moved(run: Run):
    fresh = initial_params(network(run.config, 3), (8, 8), 1)
    theirs = initial_params(network(run.config, 2), (8, 8), 2)
    return transfer_params(theirs, fresh, keep_head=False)


def source(mark: str) -> Source:
    """A source of which the fingerprint alone is of interest."""
    masks = np.zeros((1, 1), np.uint8)
    return Source({"fingerprint": mark}, UNet(num_classes=2, widths=(2, 3, 4)), {}, masks)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_weight_is_one_whatever_the_method(run, cases, weights, moved, name) -> None:
    run.config.finetune.denominator = "pixels"
    recipe = recipe_of(run, METHODS[name], cases, weights, moved)
    made = recipe.minimised
    assert mean_weight(recipe.cases, made.class_weights, made.loss) == pytest.approx(1)
    assert recipe.words


def test_methods_that_differ_in_the_map_alone_share_a_step(run, cases, weights, moved) -> None:
    run.config.finetune.denominator = "pixels"
    plain = recipe_of(run, METHODS["plain"], cases, None, moved)
    for name in MAPPED:
        if METHODS[name].overlap != "none":
            recipe = recipe_of(run, METHODS[name], cases, weights, moved)
            assert (recipe.minimised.loss, recipe.follows) == (plain.minimised.loss, plain.follows)
    scratch = recipe_of(run, METHODS["scratch"], cases, None, None)
    assert (scratch.minimised, scratch.follows) == (plain.minimised, plain.follows)


def test_plain_where_differs_from_plain_by_the_map_alone(run, cases, tmp_path, moved) -> None:
    run.config.finetune.denominator = "foreground"  # of the weighted methods only
    ones = []
    for number, case in enumerate(cases):
        ones.append(tmp_path / f"ones{number}.npy")
        np.save(ones[-1], np.ones(case.image().shape, np.float32))
    plain = recipe_of(run, METHODS["plain"], cases, None, moved)
    where = recipe_of(run, METHODS["plain_where"], cases, ones, moved)
    assert where.minimised == plain.minimised
    weighted = recipe_of(run, METHODS["weighted"], cases, ones, moved).minimised
    assert weighted.loss.denominator == "foreground"
    assert len(set(weighted.class_weights)) == 1


def test_a_map_weighs_or_draws_or_softens(run, cases, weights, moved) -> None:
    drawn = recipe_of(run, METHODS["risk_sampled"], cases, weights, moved)
    assert [case.drawn_by for case in drawn.cases] == weights
    assert all((risk_of(case) == 1).all() for case in drawn.cases)
    weighed = recipe_of(run, METHODS["weighted"], cases, weights, moved)
    assert [case.risk for case in weighed.cases] == weights
    assert all(case.drawn_by is None for case in weighed.cases)
    softened = recipe_of(run, METHODS["plain_softened"], cases, weights, moved)
    assert [case.risk for case in softened.cases] == weights
    assert all(case.drawn_by is None for case in softened.cases)
    plain = recipe_of(run, METHODS["plain"], cases, None, moved).minimised
    assert softened.minimised == replace(plain, loss=Loss(soften=0.3))


def test_a_fade_goes_over_to_the_plain_weights(run, cases, weights, moved) -> None:
    run.config.finetune.steps, run.config.finetune.fade = 100, 0.5
    plain = recipe_of(run, METHODS["plain"], cases, None, moved)
    faded = recipe_of(run, METHODS["weighted_faded"], cases, weights, moved)
    assert faded.fade.over == 50
    assert faded.fade.to == plain.minimised.class_weights
    assert plain.fade is None


def test_base_losses(run, cases, moved) -> None:
    settings = run.config.finetune
    settings.focal, settings.missed, settings.hardest = 3.0, 0.9, 0.4

    def loss(name: str) -> Loss:
        return recipe_of(run, METHODS[name], cases, None, moved).minimised.loss

    assert loss("plain") == loss("plain_ce") == loss("inverse_frequency") == Loss()
    assert loss("ce_only") == Loss(dice_weight=0.0)
    assert loss("focal") == Loss(focal=3.0)
    assert loss("tversky") == Loss(missed=0.9)
    assert loss("ohem") == Loss(hardest=0.4)
    assert loss("foreground_ce") == Loss(region="foreground")
    weights = {
        name: recipe_of(run, METHODS[name], cases, None, moved).minimised.class_weights
        for name in ("plain_ce", "plain", "inverse_frequency")
    }
    np.testing.assert_allclose(weights["plain_ce"], 1.0)
    ratio = {name: own[1] / own[0] for name, own in weights.items()}
    assert ratio["inverse_frequency"] == pytest.approx(ratio["plain"] ** 2)


def test_which_leaves_learn(run, cases, moved) -> None:
    paths = {*moved.loaded}

    def rates(name: str) -> dict[str, float]:
        return dict(recipe_of(run, METHODS[name], cases, None, moved).follows.rates)

    assert rates("plain") == rates("l2_sp") == {}
    assert {p for p, rate in rates("linear_probe").items() if rate == 0} == paths
    encoder = {p for p in paths if p.startswith("encoder")}
    assert rates("frozen_encoder") == dict.fromkeys(encoder, 0.0)
    slowed = rates("discriminative")
    assert slowed["encoder_0/Conv_0/kernel"] == pytest.approx(0.7**4)
    assert slowed["encoder_2/Conv_0/kernel"] == pytest.approx(0.7**2)
    assert slowed["decoder_1/Conv_0/kernel"] == pytest.approx(0.7)
    assert "decoder_0/Conv_0/kernel" not in slowed
    follows = recipe_of(run, METHODS["l2_sp"], cases, None, moved).follows
    assert (follows.pull, follows.pulled) == (1.0, moved.loaded)
    # What is made anew is trained at full rate, wherever it lies.
    remade = replace(moved, loaded=(), remade=tuple(sorted(paths)))
    for name in PLAIN:
        assert leaf_rates(remade, METHODS[name], 3, 0.7) == ()


@pytest.mark.parametrize(("name", "share"), [("plain", 0.5), ("weighted", 0.5), ("l2_sp", 0.0)])
def test_a_training_starts_as_perturbed_as_its_method(
    run, cases, moved, monkeypatch, tmp_path, name, share
) -> None:
    own = recipe_of(run, METHODS[name], cases, None, moved)
    told = []

    def transferred(*arguments):
        told.append(arguments[-1])
        return moved

    monkeypatch.setattr(finetune, "transferred", transferred)
    monkeypatch.setattr(finetune, "train", lambda _run, _settings, start, *_, **__: start)
    prepared = create_autospec(Prepared)
    rest = (source("a"), 0, tmp_path, "", lambda *_: None)
    assert finetune._train_one(run, prepared, own, *rest) is moved.params
    assert told == [share]


@pytest.mark.parametrize(("size", "side", "slabs"), [(4, 32, False), (3, 32, True), (3, 8, False)])
def test_a_batch_that_the_devices_cannot_share_is_cut_into_slabs(
    run, cases, monkeypatch, tmp_path, size, side, slabs
) -> None:
    assert jax.local_device_count() == 4
    run.config.model.patch, run.config.finetune.batch_size = (side, 8), size
    told = {}
    monkeypatch.setattr(training, "fit", lambda *_, **given: told.update(given))
    minimised = training.objective(Loss(), cases, (1.0, 1.0, 1.0), 2)
    how = {"model": network(run.config, 3), "seed": 0, "folder": tmp_path, "mark": ""}
    training.train(
        *(run, run.config.finetune, {}, cases, minimised), on_step=lambda *_: None, **how
    )
    assert told["slabs"] is slabs


def test_the_distance_from_the_output_counts_levels() -> None:
    found = [distance(f"{part}/kernel", 4) for part in ("head", "decoder_0", "upsample_2")]
    assert found == [0, 0, 2]
    assert [distance(f"encoder_{level}/kernel", 4) for level in range(4)] == [6, 5, 4, 3]


OWN = {
    "region": ("foreground", {n for n, m in METHODS.items() if not m.region}),
    "denominator": ("weight_sum", {n for n, m in METHODS.items() if not m.region}),
    "perturb": (0.25, set(NAMES) - {*PLAIN, "scratch_ce"} | {"plain"}),
    "l2_sp": (0.5, {"l2_sp"}),
    "level_rate": (0.5, {"discriminative"}),
    "focal": (3.0, {"focal"}),
    "missed": (0.6, {"tversky"}),
    "hardest": (0.5, {"ohem"}),
    "soften": (0.5, {"plain_softened", "plain_softened_shuffled"}),
    "fade": (0.5, {"weighted_faded", "plain_where_faded"}),
    "dice_weight": (0.5, {n for n, m in METHODS.items() if m.overlap != "none"}),
    "ema": (0.9, set(NAMES)),
    "steps": (7, set(NAMES)),
    "seeds": ((3,), set()),
    "path": (("a/b/t1/c",), set()),
    "methods": (("plain",), set()),
}


@pytest.mark.parametrize("field", OWN)
def test_a_setting_changes_the_marks_of_the_methods_that_it_decides(run, cases, field) -> None:
    def marks() -> dict[str, str]:
        return {name: finetuning_mark(run, cases, source("a"), name) for name in NAMES}

    before = marks()
    value, expected = OWN[field]
    run.config.finetune[field] = value
    after = marks()
    assert {name for name in NAMES if before[name] != after[name]} == expected


def test_marks_tell_methods_sources_maps_and_scans_apart(run, cases) -> None:
    def marks(**changes) -> dict[str, str]:
        told = {"own": "a", "other": "b"} | changes
        return {
            name: finetuning_mark(run, cases, source(told["own"]), name, told["other"])
            for name in NAMES
        }

    before = marks()
    assert len(set(before.values())) == len(NAMES)

    def changed(after: dict[str, str]) -> set[str]:
        return {name for name in NAMES if before[name] != after[name]}

    assert changed(marks(own="c")) == {n for n, m in METHODS.items() if m.transferred}
    assert changed(marks(other="c")) == {
        "weighted_other",
        "plain_where_all",
        "plain_where_all_shuffled",
    }
    run.config.risk.gain = 0.4
    mapped = {n: dict(m.risk.settings) for n, m in METHODS.items() if m.risk}
    assert changed(marks()) == {name for name, own in mapped.items() if "gain" not in own}
    run.config.risk.gain = 0.5
    assert not changed(marks())
    cases[0] = replace(
        cases[0],
        stored=replace(cases[0].stored, content={"t2.npy": "another", "label.npy": "labels 0"}),
    )
    assert changed(marks()) == set(NAMES)


def test_another_revision_does_every_stage_and_network_again(run, cases, monkeypatch) -> None:
    prepared = create_autospec(Prepared, instance=True)
    prepared.cases.return_value, prepared.roi.return_value = cases, ROI_OF_TWO

    def marks() -> list[str]:
        made = [finetuning_mark(run, cases, source("a"), name) for name in NAMES]
        made += [stages._fingerprint(run, stage, {}) for stage in stages.STAGES]
        return [*made, source_mark(run, prepared, Task.parse("site/all/t2/roi"))]

    before = marks()
    assert marks() == before
    for module in (pretrain, recipe, stages):
        monkeypatch.setattr(module, "REVISION", 0)
    assert not {*before} & {*marks()}


def test_uses_of_the_map_that_differ_have_folders_that_differ() -> None:
    uses = {m.risk for m in METHODS.values() if m.risk is not None}
    whats = {(use.settings, use.whose, use.controls) for use in uses}
    assert len({use.name for use in uses}) == len(whats)
    assert not any(set(use.name) & set("/\\ ") for use in uses)


def test_the_bits_of_a_map_do_not_depend_on_how_predictions_are_tiled(run, moved) -> None:
    model = network(run.config, 3)
    card = {"patch": [8, 8]}
    seen = Source(card, model, moved.params, np.zeros((1, 1), np.uint8))
    image = np.random.default_rng(0).standard_normal((13, 9, 4)).astype(np.float32)
    expected = source_log_probs(run, seen, image)
    run.config.evaluate.batch_size, run.config.evaluate.overlap = 3, 0.1
    run.config.evaluate.mirror = True
    np.testing.assert_array_equal(source_log_probs(run, seen, image), expected)
    np.testing.assert_allclose(np.exp(expected).sum(-1), 1, rtol=1e-5)
