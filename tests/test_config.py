"""The configuration: every rule, all problems at once, and what decides a fingerprint."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from jaxfer.config import (
    METHODS,
    default_config,
    fingerprint,
    finish,
    overridden,
    plain,
    validate,
)
from jaxfer.config.rules import CHANGES, RULES
from jaxfer.config.validate import fields_of
from jaxfer.errors import UserError
from jaxfer.metrics import METRICS

CONFIGS = Path(__file__).parents[1] / "configs"
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def config() -> ConfigDict:
    """A small one that is valid."""
    found = default_config()
    found.name = "some"
    found.target = "mine/all/t1/lesion"
    found.sources = ("mine/all/t2/lesion", "other/north/t1/core")
    found.datasets.mine = {"layout": "msd", "folder": "Mine"}
    found.datasets.other = {"layout": "open_ms", "folder": "Other"}
    return found


def put(config: ConfigDict, path: str, value: object) -> None:
    """Sets a field; ConfigDict's own type check is off, as in a dictionary made by hand."""
    *sections, field = path.split(".")
    for section in sections:
        config = config[section]
    with config.ignore_type():
        config[field] = value


def complaints_and_count(config: ConfigDict) -> tuple[list[str], int]:
    """The problems that are shown, one per line, and how many there are."""
    with pytest.raises(UserError) as caught:
        validate(config)
    head, *lines = str(caught.value).split("\n")
    found = re.fullmatch(r"the configuration has problems \((\d+)\):", head)
    assert found
    return [line.strip() for line in lines], int(found[1])


def complaints(config: ConfigDict) -> list[str]:
    lines, count = complaints_and_count(config)
    assert len(lines) == count
    return lines


def configs() -> list[str]:
    return sorted(p.stem for p in CONFIGS.glob("*.py"))


@pytest.mark.parametrize("preset", ["", "tiny"])
@pytest.mark.parametrize("name", configs())
def test_every_config_of_the_project_is_valid_and_locked(name: str, preset: str) -> None:
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    config = loaded.get_config(preset)
    validate(config)
    assert config.name == (f"{name}-tiny" if preset else name)
    assert f"--config=configs/{name}.py" in loaded.__doc__
    with pytest.raises(AttributeError):
        config.finetune.step = 3
    with pytest.raises(TypeError):
        config.finetune.steps = "many"


def test_the_three_configs_are_there() -> None:
    assert set(configs()) >= {"demo", "hippocampus", "open_ms"}


def test_an_unknown_preset_is_refused(config: ConfigDict) -> None:
    with pytest.raises(UserError, match="preset") as caught:
        finish(config, "small")
    assert caught.value.found == "small"
    assert "tiny" in caught.value.allowed


def test_a_valid_config_has_no_problem(config: ConfigDict) -> None:
    validate(config)
    validate(config.lock())


def test_the_defaults_name_what_has_to_be_filled_in() -> None:
    found = complaints(default_config())
    assert {line.split(":")[0] for line in found} == {
        "config.name",
        "config.target",
        "config.sources",
    }


BAD = {
    "name": ["", "a/b", ".hidden"],
    "seed": [-1, 2**31],
    "stages": [(), ("prepare", "train")],
    "target": ["", "mine/all/t1", "mine/all//lesion", "theirs/all/t1/lesion"],
    "sources": [(), ("mine",), ("theirs/all/t1/lesion",), ("mine/all/t1/lesion",)],
    "foreign": [("",), ("a", "a")],
    "workers": [-1],
    "data.spacing": [(1.0, 1.0), (1.0, 1.0, -2.0)],
    "data.interpolation": ["nearest", ""],
    "data.precision": ["float64", "bfloat16"],
    "data.percentiles": [(1.0,), (99.0, 1.0), (5.0, 5.0), (-1.0, 99.0), (1.0, 100.5)],
    "data.train_subjects": [0, -1],
    "data.test_subjects": [-1],
    "data.validation_fraction": [0.0, 1.0, -0.5],
    "model.widths": [(), (16,), (16, 0, 32), (16, -1)],
    "data.subset": [-1],
    "data.validation_subjects": [-1],
    "data.folds": [1, -2],
    "data.fold": [-1, 1],
    "data.plane": ["oblique", ""],
    "model.patch": [(96,), (96,) * 4, (96, 94), (96, 96, 94), (0, 96), (96, -4)],
    "augment.flip": [("left",), ("left-right", "left-right")],
    "run.log_every": [0],
    "run.checkpoint_every": [0],
    "run.keep_checkpoints": [0],
    "run.cpu_devices": [-1],
    "run.max_minutes": [-1.0],
    "model.strides": [(), ("2x2",), ("2x2", "2x"), ("2x2x2", "2x2x2"), ("2x2", "2x0")],
    "model.conv_impl": ["fast", ""],
    "model.precision": ["float16", ""],
    "augment.rotation": [-1.0],
    "augment.scale": [-0.1, 1.0],
    "augment.intensity": [-0.1, 1.1],
    "augment.noise": [-0.1],
    "augment.elastic": [-1.0, 7.5],
    "augment.blur": [-0.1],
    "augment.low_resolution": [-0.5],
    "augment.gamma": [-0.1],
    **{f"augment.{change}_probability": [-0.1, 1.1] for change in CHANGES},
    "select.modality": ["medium", ""],
    "select.aggregate": ["mean", ""],
    "select.roi_keep": [-1],
    "select.roi_similarity": ["luck", ""],
    "select.ssim_k1": [0.0],
    "select.ssim_k2": [-0.1],
    "select.metrics": [("leep", "luck")],
    "select.rank_by": ["", "luck", "leep+luck", "leep+", "leep+leep"],
    "select.layers": [("decoder_9",), (), ("decoder_0", "decoder_0")],
    "select.samples": [1, 0],
    "select.repetitions": [0],
    "select.noise": [0.0, -1.0],
    "select.path_alpha": [-0.1, NAN],
    "select.path_beta": [-0.1],
    "select.path_cost": ["sum"],
    "risk.mode": ["both"],
    "risk.metric": ["nce", ""],
    "risk.samples": [1, 0],
    "risk.border": [-1],
    "risk.blur": [-0.5],
    "risk.stride": [0],
    "risk.smoothing": [-1.0],
    "risk.normalise": ["max"],
    "risk.amplify": ["log"],
    "risk.gain": [-0.5],
    "risk.base": [1.0, 0.0],
    "risk.clip": [0.0],
    "finetune.methods": [(), ("scratch", "magic"), ("plain", "plain")],
    "finetune.path": [
        ("best",),
        ("mine/all/t1/lesion",),
        ("nobody/knows/this/task",),
        ("best", "other/north/t1/core"),
        ("mine/all/t2/lesion", "other/north/t1/core", "mine/all/t2/lesion"),
    ],
    "finetune.source": ["worst", "mine/all/t1/lesion"],
    "finetune.region": ["background"],
    "finetune.denominator": ["one"],
    "finetune.rim": [0],
    "finetune.fade": [0.0, 1.1],
    "finetune.perturb": [-0.1, 1.1],
    "finetune.l2_sp": [-1.0],
    "finetune.level_rate": [0.0, 1.1],
    "finetune.focal": [0.5],
    "finetune.missed": [-0.1, 1.1],
    "finetune.hardest": [0.0, 1.1],
    "finetune.soften": [0.0, 0.6],
    "finetune.seeds": [(), (1, 1), (0, -1), (2**31,)],
    "evaluate.overlap": [-0.1, 1.0],
    "evaluate.batch_size": [0],
    "pretrain.seed": [-1, 2**31],
    "study.targets": [("mine/all/t1/a",) * 2, ("mine/all/t1",), ("x/a/t1/y",)],
    "study.methods": [("plain", "plain")],
    "study.shots": [(), (3, 0), (3, 3)],
    "study.subsets": [(), (1, 1), (-1,), (2**20,)],
    "study.pretrainings": [(), (0, 0), (-1,)],
    "study.repeats": [0, 1001],
    "evaluate.collapse_dice": [-0.1, 1.1],
} | {
    f"{stage}.{field}": values
    for stage in ("pretrain", "finetune")
    for field, values in {
        "steps": [0],
        "batch_size": [0, -8],
        "learning_rate": [0.0, -1e-3],
        "warmup": [-0.1, 1.1],
        "weight_decay": [-1e-4],
        "clip_gradient": [0.0],
        "foreground_patches": [-0.1, 1.1],
        "accumulate": [0, 3],
        "dice_weight": [-1.0],
        "skip_nonfinite": [-1],
        "decay": ["linear", ""],
        "ema": [-0.1, 1.0],
        "validate_every": [-1],
    }.items()
}
GOOD = {
    "seed": [2**31 - 1],
    "stages": [("report",), ("verify",), ("verify", "prepare")],
    "data.percentiles": [(0.0, 100.0)],
    "data.test_subjects": [0],
    "workers": [0, 16],
    "data.spacing": [(1, 2, 3), (0.0, 0.0, 0.0), (1.0, 1.0, 0.0)],
    "data.interpolation": ["spline"],
    "data.precision": ["float32"],
    "augment.rotation": [0.0, 3],
    "augment.scale": [0.0],
    "augment.intensity": [0.0, 1.0],
    "augment.noise": [0.0],
    "model.widths": [(4, 8)],
    "data.folds": [5],
    "data.plane": ["coronal", "sagittal"],
    "data.subset": [7],
    "augment.flip": [(), ("up-down", "front-back", "left-right")],
    "augment.elastic": [0.0, 7.0],
    "augment.flip_probability": [0.0, 1.0],
    "model.patch": [(4, 1000), (4, 8, 1000)],
    "model.strides": [("2x2", "1x3")],
    "model.conv_impl": ["native", "shifted"],
    "model.precision": ["float32", "bfloat16"],
    "select.modality": ["none", "soft"],
    "select.aggregate": ["zscore"],
    "select.roi_similarity": ["ssim_centred", "ssim_shape", "ssim_windowed", "dice"],
    "select.layers": [("encoder_0", "decoder_0"), ("decoder_0", "encoder_2")],
    "select.rank_by": ["logme@decoder_0", "nce", "leep+logme@decoder_0"],
    "select.metrics": [("all",), ("leep", "ncti", "otce")],
    "select.roi_keep": [0],
    "risk.mode": ["positional"],
    "risk.normalise": ["minmax", "mean1", "rank"],
    "risk.amplify": ["identity", "pow"],
    "risk.gain": [0.0],
    "risk.smoothing": [0.0],
    "finetune.methods": [("scratch",), ("weighted", "plain"), tuple(METHODS)],
    "select.path_alpha": [0.0],
    "select.path_beta": [0.0],
    "select.path_cost": ["largest"],
    "finetune.path": [
        (),
        ("other/north/t1/core",),
        ("mine/all/t2/lesion", "other/north/t1/core"),
    ],
    "finetune.source": ["best", "other/north/t1/core"],
    "finetune.region": ["foreground", "foreground_rim"],
    "finetune.denominator": ["pixels", "weight_sum"],
    "finetune.fade": [1.0],
    "finetune.hardest": [1.0],
    "finetune.soften": [0.5],
    "finetune.ema": [0.0, 0.999],
    "pretrain.decay": ["poly"],
    "finetune.seeds": [(3, 1, 2)],
    "finetune.warmup": [0.0, 1.0],
    "pretrain.dice_weight": [0.0],
    "pretrain.foreground_patches": [0.0, 1.0],
    "pretrain.weight_decay": [0.0],
    "evaluate.overlap": [0.0],
    "pretrain.seed": [2**31 - 1],
    "study.targets": [("mine/all/t1/a", "other/all/t2/b")],
    "study.methods": [("weighted", "scratch")],
    "study.shots": [(1,), (10, 3)],
    "study.subsets": [(2**20 - 1, 0)],
    "study.pretrainings": [(2**31 - 1,)],
    "study.repeats": [1000],
    "evaluate.collapse_dice": [0.0, 1.0],
}


def pairs(table: dict[str, list]) -> list[tuple[str, object]]:
    return [(path, value) for path, values in table.items() for value in values]


@pytest.mark.parametrize(("path", "value"), pairs(BAD))
def test_every_rule_refuses_and_says_what_it_allows(
    config: ConfigDict, path: str, value: object
) -> None:
    put(config, path, value)
    found = complaints(config)
    assert found
    assert all(line.startswith(f"config.{path}: ") for line in found)
    assert all("; found " in line for line in found)
    target_as_source = value == ("mine/all/t1/lesion",)
    assert target_as_source or any("; allowed " in line for line in found)


@pytest.mark.parametrize(("path", "value"), pairs(GOOD))
def test_every_rule_lets_its_limits_pass(config: ConfigDict, path: str, value: object) -> None:
    put(config, path, value)
    validate(config)


def test_every_rule_has_its_test() -> None:
    assert set(RULES) <= set(BAD)


def test_the_patch_must_divide_by_the_networks_levels(config: ConfigDict) -> None:
    config.model.widths, config.model.patch = (8, 16, 32, 64), (40, 44)
    (line,) = complaints(config)
    assert "multiples of 8" in line
    assert "(40, 44)" in line


def test_a_path_is_of_sources_with_networks_three_at_most(config: ConfigDict) -> None:
    four = tuple(f"mine/all/t{n}/lesion" for n in range(2, 6))
    config.sources, config.finetune.path = four, four[:3]
    validate(config)
    config.finetune.path = four
    (line,) = complaints(config)
    assert line == (
        "config.finetune.path: too many sources on the way; found 4; allowed 3 sources at most"
    )
    config.finetune.path, config.target = (four[0], "mine/all/t1/lesion"), "mine/all/t1/lesion"
    (line,) = complaints(config)
    assert line.startswith("config.finetune.path: the target ends every path")
    config.foreign, config.finetune.path = ("outputs",), (four[0], "theirs/all/t1/lesion")
    (line,) = complaints(config)
    assert line.startswith("config.finetune.path: unknown value; found theirs/all/t1/lesion")
    assert "known by their outputs alone and cannot be fine-tuned" in line


def test_a_path_starts_where_fine_tuning_is_told_to(config: ConfigDict) -> None:
    config.finetune.path = config.sources
    validate(config)
    config.finetune.source = config.sources[0]
    validate(config)
    config.finetune.source = config.sources[1]
    (line,) = complaints(config)
    assert line.startswith("config.finetune.source: starts from another source")


def test_the_best_path_has_to_be_looked_for(config: ConfigDict) -> None:
    config.finetune.path, config.select.paths = ("best",), True
    validate(config)
    config.finetune.source = config.sources[1]
    validate(config)
    config.select.path_alpha = config.select.path_beta = 0.0
    (line,) = complaints(config)
    assert line.startswith("config.select.path_alpha: both coefficients are 0")


def test_fine_tuning_is_validated_on_subjects_that_there_are(config: ConfigDict) -> None:
    config.finetune.validate_every, config.data.validation_subjects = 10, 1
    validate(config)
    config.data.validation_subjects = 0
    (line,) = complaints(config)
    assert line.startswith("config.finetune.validate_every: there is no validation subject")


@pytest.mark.parametrize(("field", "value"), [("balanced", True), ("metric", "lda")])
def test_a_positional_map_is_of_leep_alone(config: ConfigDict, field: str, value: object) -> None:
    config.risk[field] = value
    validate(config)
    config.risk.mode = "positional"
    (line,) = complaints(config)
    assert line.startswith(f"config.risk.{field}: there is no such positional map")


def test_a_fold_is_one_of_the_folds(config: ConfigDict) -> None:
    config.data.folds, config.data.fold = 3, 2
    validate(config)
    config.data.fold = 3
    (line,) = complaints(config)
    assert line.startswith("config.data.fold: no such fold; found 3")


def test_patches_in_3_d_have_no_plane(config: ConfigDict) -> None:
    config.model.patch, config.data.plane = (16, 16, 16), "coronal"
    (line,) = complaints(config)
    assert line.startswith("config.data.plane: ")
    config.data.plane = "axial"
    validate(config)


def test_in_3_d_the_spacing_must_be_known(config: ConfigDict) -> None:
    config.data.spacing = (1.0, 1.0, 0.0)
    validate(config)
    config.model.patch = (16, 16, 16)
    (line,) = complaints(config)
    assert line.startswith("config.data.spacing: unknown lengths")
    config.data.spacing = (1.0, 1.0, 3.0)
    validate(config)


def test_all_problems_appear_at_once(config: ConfigDict) -> None:
    for path, values in BAD.items():
        put(config, path, values[0])
    lines, count = complaints_and_count(config)
    # Which layers there are cannot be said while the widths are not understood.
    assert count >= len(BAD) - 1
    assert len(lines) == 31
    assert lines[-1] == f"… and {count - 30} more"


def test_problems_of_every_kind_stand_together(config: ConfigDict) -> None:
    config.seed = -3
    config.data.spacing = (1.0, 1.0, NAN)
    config.select.metrics = ("nce", "luck")
    config.pretrain.stepz = 7
    put(config, "augment.flip", None)
    del config.evaluate["overlap"]
    config.datasets.third = {"folder": "Third"}
    config.sources = ("theirs/all/t1/x", "mine")
    assert complaints(config) == [
        "config.augment.flip: wrong kind; found None; allowed a tuple, each text",
        "config.data.spacing: wrong kind; found (1.0, 1.0, nan); "
        "allowed a tuple, each a finite number",
        "config.evaluate.overlap: missing; allowed a finite number",
        "config.pretrain.stepz: unknown field; found 7; allowed pretrain.steps",
        "config.seed: not allowed; found -3; allowed 0 … 2³¹ − 1",
        "config.select.metrics: unknown value; found luck; allowed " + ", ".join(METRICS),
        "config.select.rank_by: unknown value; found leep; allowed nce",
        "config.sources: 'theirs/all/t1/x' is of an unknown dataset; found theirs; "
        "allowed mine, other, third",
        "config.sources: not a task's name; found 'mine'; allowed dataset/site/modality/RoI, "
        "such as phantom/clinic/flair/WMH",
        "config.datasets.third: not a dataset; found {'folder': 'Third'}; "
        "allowed layout, folder and what its layout needs",
    ]


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("name", None, "text"),
        ("seed", 1.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("stages", "prepare", "a tuple, each text"),
        ("stages", None, "a tuple, each text"),
        ("sources", (3,), "a tuple, each text"),
        ("sources", (["mine"],), "a tuple, each text"),
        ("data.spacing", (1.0, "one", 1.0), "a tuple, each a finite number"),
        ("data.spacing", (1.0, INFINITY, 1.0), "a tuple, each a finite number"),
        ("model.widths", (16, 32.0), "a tuple, each a whole number"),
        ("finetune.seeds", (0.5,), "a tuple, each a whole number"),
        ("finetune.seeds", 3, "a tuple, each a whole number"),
        ("augment.flip", True, "a tuple, each text"),
        ("augment.rotation", "ten", "a finite number"),
        ("pretrain.learning_rate", NAN, "a finite number"),
        ("pretrain.learning_rate", INFINITY, "a finite number"),
        ("risk.clip", INFINITY, "a finite number"),
        ("select.rank_by", None, "text"),
        ("datasets", None, "a dictionary"),
    ],
)
def test_wrong_kinds_are_told_from_wrong_values(
    config: ConfigDict, path: str, value: object, allowed: str
) -> None:
    put(config, path, value)
    found = [line for line in complaints(config) if line.startswith(f"config.{path}: ")]
    assert found == [f"config.{path}: wrong kind; found {value!r}; allowed {allowed}"]


def test_fields_that_nobody_reads_are_refused(config: ConfigDict) -> None:
    config.finetune.step = 7
    config.verbose = True
    assert complaints(config) == [
        "config.finetune.step: unknown field; found 7; allowed finetune.steps",
        "config.verbose: unknown field; found True; "
        "allowed the fields in jaxfer/config/defaults.py",
    ]


@pytest.mark.parametrize("section", ["model", "augment", "finetune", "risk"])
def test_a_section_that_is_gone_is_a_list_of_missing_fields(
    config: ConfigDict, section: str
) -> None:
    fields = [f"config.{section}.{field}: missing" for field in config[section]]
    put(config, section, None)
    found = complaints(config)
    assert all(any(line.startswith(field) for line in found) for field in fields)
    assert len(found) == len(fields) + 1


def test_an_empty_config_lists_every_field() -> None:
    found = complaints_and_count(ConfigDict())
    assert found[0][0] == "config.augment.blur: missing; allowed a finite number"
    assert found[1] == len(fields_of(default_config()))


def test_without_metrics_there_is_nothing_to_rank_by(config: ConfigDict) -> None:
    config.select.metrics = ()
    assert complaints(config) == [
        "config.select.metrics: empty; found (); allowed " + ", ".join(METRICS),
        "config.select.rank_by: unknown value; found leep; allowed",
    ]


def test_sources_are_distinct_also_as_folders(config: ConfigDict) -> None:
    config.sources = ("mine/all/t2/lesion",) * 2
    assert [line.split(";")[0] for line in complaints(config)] == [
        "config.sources: two of them are the same, or differ in '/' and '-' alone"
    ]
    config.datasets["mine-all"] = {"layout": "msd", "folder": "Mine"}
    config.sources = ("mine/all-t2/t2/lesion", "mine-all/t2/t2/lesion")
    assert len(complaints(config)) == 1


@pytest.mark.parametrize("entry", [5, None, "folder", {}, {"folder": "F"}, {"layout": 3}])
def test_a_dataset_needs_a_layout(config: ConfigDict, entry: object) -> None:
    put(config, "datasets.third", entry)
    with pytest.raises(UserError, match=r"config\.datasets\.third: not a dataset") as caught:
        validate(config)
    assert "layout" in str(caught.value)


@dataclass(frozen=True)
class Pair:
    a: int
    b: tuple[int, ...]


def test_plain_values_are_those_of_json(config: ConfigDict) -> None:
    nested = ConfigDict({"x": {"y": (1, (2, 3))}, "z": None})
    assert plain(nested) == {"x": {"y": [1, [2, 3]]}, "z": None}
    assert plain(Pair(1, (2, 3))) == {"a": 1, "b": [2, 3]}
    assert plain({1: Pair(0, ())}) == {"1": {"a": 0, "b": []}}
    assert plain(config)["data"]["spacing"] == [1.0, 1.0, 1.0]


def test_fingerprints_tell_values_apart_and_nothing_else() -> None:
    same = fingerprint({"a": 1, "b": (1, 2)}, "x")
    assert re.fullmatch(r"[0-9a-f]{16}", same)
    assert fingerprint({"b": [1, 2], "a": 1}, "x") == same
    assert fingerprint(ConfigDict({"b": (1, 2), "a": 1}), "x") == same
    others = [
        fingerprint({"a": 1, "b": (2, 1)}, "x"),
        fingerprint({"a": 2, "b": (1, 2)}, "x"),
        fingerprint({"a": 1, "b": (1, 2)}, "y"),
        fingerprint({"a": 1, "b": (1, 2)}),
        fingerprint("x", {"a": 1, "b": (1, 2)}),
    ]
    assert len({same, *others}) == 6


def test_layers_are_those_of_the_network(config: ConfigDict) -> None:
    config.select.layers = ("encoder_3", "decoder_2")
    config.model.widths = (16, 32, 64)
    known = "encoder_0, encoder_1, encoder_2, decoder_1, decoder_0"
    assert complaints(config) == [
        f"config.select.layers: unknown value; found encoder_3; allowed {known}",
        f"config.select.layers: unknown value; found decoder_2; allowed {known}",
    ]


def test_the_ranking_score_is_named_with_its_layer(config: ConfigDict) -> None:
    config.select.metrics = ("leep", "logme", "cc_fv")
    config.select.layers = ("decoder_0", "encoder_1")
    config.select.rank_by = "logme"
    allowed = "leep, logme@decoder_0, logme@encoder_1, cc_fv"
    assert complaints(config) == [
        f"config.select.rank_by: unknown value; found logme; allowed {allowed}"
    ]


TRANSFERS = {
    "sites": ("mine/south/t1/lesion", ("mine/north/t1/lesion",)),
    "rois": ("mine/north/t1/lesion", ("mine/north/t1/brain",)),
}


@pytest.mark.parametrize(
    ("preset", "name", "target", "steps"),
    [
        ("sites", "some-sites", "mine/south/t1/lesion", 400),
        ("rois", "some-rois", "mine/north/t1/lesion", 400),
        ("sites,tiny", "some-sites-tiny", "mine/south/t1/lesion", 6),
        ("tiny,sites", "some-sites-tiny", "mine/south/t1/lesion", 6),
    ],
)
def test_a_preset_is_a_target_with_its_sources(
    preset: str, name: str, target: str, steps: int
) -> None:
    config = default_config()
    config.name = "some"
    config = finish(config, preset, TRANSFERS)
    assert (config.name, config.target, config.finetune.steps) == (name, target, steps)
    assert config.sources == TRANSFERS[preset.replace("tiny", "").strip(",")][1]


@pytest.mark.parametrize(
    "preset", ["sites,rois", "tiny,tiny", "sites,small", "sites,", ",", "site", "Sites"]
)
def test_presets_that_are_none_list_those_that_are(preset: str) -> None:
    with pytest.raises(UserError, match="preset") as caught:
        finish(default_config(), preset, TRANSFERS)
    assert caught.value.found == preset
    for name in ("FILE.py:sites", "FILE.py:rois", "FILE.py:tiny", "FILE.py:ONE_OF_THEM,tiny"):
        assert name in caught.value.allowed


@pytest.fixture
def study(config: ConfigDict) -> ConfigDict:
    """A study that is valid."""
    config.stages = ("study",)
    config.data.test_subjects = 3
    validate(config)
    return config


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("stages", ("study", "select"), "config.stages: the study makes runs of its own"),
        ("data.test_subjects", 0, "config.data.test_subjects: 0: each few-shot subset"),
        ("shelf", "somewhere", "config.shelf: a study trains its own sources"),
        ("foreign", ("outputs",), "config.foreign: sources that are known by their outputs"),
        ("study.methods", ("magic",), "config.study.methods: unknown value"),
        ("study.methods", (), "config.study.methods: empty"),
        ("study.overrides", ("nothing",), "config.study.overrides: not of the form"),
        ("study.overrides", ("mine/all/t1/lesion data.seed=1",), "is the same for all targets"),
        ("study.overrides", ("mine/all/t1/lesion model.patch=x(",), "is no number, text or tuple"),
        ("study.overrides", ("mine/all/t1/other model.widths=(1,)",), "of no target of the study"),
        ("sources", ("mine/all/t1/lesion",), "no source is left for the target"),
    ],
)
def test_a_study_that_is_no_grid_is_refused(
    study: ConfigDict, path: str, value: object, told: str
) -> None:
    put(study, path, value)
    found = complaints(study)
    assert len(found) == 1, found
    assert told in found[0]


def test_targets_of_a_study_may_be_sources_of_each_other(study: ConfigDict) -> None:
    study.study.targets = (study.target, study.sources[0])
    study.sources = (study.target, *study.sources)
    validate(study)
    study.stages = ("prepare",)
    assert any("the target is among its sources" in line for line in complaints(study))


def test_an_override_changes_one_target_alone(study: ConfigDict) -> None:
    texts = (f"{study.target} data.spacing=(2.0, 2.0, 2.0)", f"{study.target} model.patch=(32, 48)")
    before = plain(study)
    overridden(study, "mine/all/t1/other", texts)
    assert plain(study) == before
    overridden(study, study.target, texts)
    assert study.data.spacing == (2.0, 2.0, 2.0)
    assert study.model.patch == (32, 48)
    with pytest.raises(UserError, match="overrides"):
        overridden(study, study.target, (f"{study.target} model.colour=1",))
