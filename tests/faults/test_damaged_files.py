"""Damaged files end in one message or in a correct load: no traceback, no wait, little memory."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxfer.errors import UserError
from jaxfer.files import parse_json, read_json
from jaxfer.models.checkpoint import load_tree, save_tree
from jaxfer.models.zoo import read_card
from jaxfer.report.terminal import dice_table, ranking_table
from jaxfer.stages.lock import locked
from jaxfer.train.checkpoints import Checkpoints
from jaxfer.train.loop import _begin_log
from tests.faults.corpus import MEGABYTES, SECONDS, corpus, described, image, table, whole
from tests.launching import ROOT, Launch

FUZZ = settings(
    derandomize=True,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ODD = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([2**70, -1, 10**400, 0]),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["\x1b[2J", "..", "../../x", "\ud800", "x" * 99_999, "=1+1", "<b>"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=4,
)


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of a file flipped, cut out, or put in."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "end"]))
        if kind == "flip" and changed:
            changed[place] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del changed[place : place + draw(st.integers(1, 64))]
        elif kind == "insert":
            changed[place:place] = draw(st.binary(min_size=1, max_size=16))
        else:
            del changed[place:]
    return bytes(changed)


@st.composite
def another(draw: st.DrawFn, record: Any) -> Any:
    """A record with something else in one place of it, or nothing there."""
    if isinstance(record, dict) and record and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(record)))
        rest = {k: v for k, v in record.items() if k != key}
        return rest if draw(st.integers(0, 4)) == 0 else rest | {key: draw(another(record[key]))}
    if isinstance(record, list) and record and draw(st.integers(0, 5)):
        place = draw(st.integers(0, len(record) - 1))
        return [*record[:place], draw(another(record[place])), *record[place + 1 :]]
    return draw(ODD)


def mended(read: Callable[[], object]) -> str:
    """What a reader said; empty if it read."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


def test_the_corpus(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.corpus", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(corpus()) >= 60
    for one in found:
        assert one["outcome"] == ("loaded" if one["loads"] else "UserError"), one
        assert one["seconds"] < SECONDS, one
        assert one["megabytes"] < MEGABYTES, one
        assert "\x1b" not in one["words"], one
        assert len(one["words"]) < 10_000, one


@FUZZ
@given(damage(whole(shape=(4, 3, 2))))
def test_any_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    mended(lambda: image(path))


@FUZZ
@given(damage(gzip.compress(whole(shape=(4, 3, 2)), mtime=0)))
def test_any_compressed_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    told = mended(lambda: image(path))
    if not told:
        # What lets itself be read is the image: the checksum knows of the rest.
        np.testing.assert_array_equal(image(path)[1], np.arange(24).reshape(4, 3, 2))


@FUZZ
@given(damage(b"case,subject,site,label,t1\na,s,1,l.nii,i.nii\nb,s,1,l.nii,i.nii\n"))
def test_any_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    mended(lambda: table(tmp_path))


DESCRIPTION = {
    "name": "some",
    "labels": {"0": "background", "1": "lesion"},
    "modality": {"0": "T1"},
    "channel_names": {"0": "T1"},
    "numTraining": 1,
    "file_ending": ".nii.gz",
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
}


@FUZZ
@given(another(DESCRIPTION), st.sampled_from(["msd", "nnunet"]))
def test_any_description(tmp_path: Path, description: Any, layout: str) -> None:
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir(exist_ok=True)
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    (tmp_path / "labelsTr" / "a.nii.gz").touch()
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    mended(lambda: described(layout)(tmp_path))


@FUZZ
@given(ODD)
def test_what_json_can_say_is_read_or_refused(value: Any) -> None:
    try:
        parse_json(json.dumps(value))
    except ValueError:
        assert "ud800" in json.dumps(value) or isinstance(value, float)


@FUZZ
@given(data=st.data())
def test_any_card(demo: Path, tmp_path: Path, data: st.DataObject) -> None:
    card = json.loads(next(demo.glob("sources/*/card.json")).read_text())
    (tmp_path / "card.json").write_text(json.dumps(data.draw(another(card))))
    mended(lambda: read_card(tmp_path))


RECORDS = (
    "config.json",
    "run.json",
    "prepare/prepared.json",
    "prepare/splits.json",
    "select/selection.json",
    "finetune/summary.json",
    "evaluate/summary.json",
    "evaluate/cases.json",
    "evaluate/labels.json",
    "verify/verify.json",
)


@pytest.fixture(scope="module")
def reported(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without its largest parts."""
    copy = tmp_path_factory.mktemp("damaged") / "run"
    left_out = shutil.ignore_patterns("store", "checkpoint", "risk", "predictions", "*.jsonl")
    shutil.copytree(demo, copy, ignore=left_out)
    (copy / "evaluate" / "cases.json").write_text("[]")
    return copy


@settings(FUZZ, max_examples=30)
@given(data=st.data())
def test_any_record_in_the_tables(reported: Path, data: st.DataObject) -> None:
    path = reported / data.draw(st.sampled_from(RECORDS))
    sound = path.read_bytes()
    try:
        path.write_text(json.dumps(data.draw(another(json.loads(sound)))))
        mended(lambda: ranking_table(reported))
        mended(lambda: dice_table(reported))
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"fingerprint": 3}', "[" * 9999])
@pytest.mark.parametrize(
    "record",
    ["config.json", "prepare/prepared.json", "select/done.json", "finetune/summary.json"],
)
def test_a_broken_record_of_a_run(demo: Path, record: str, content: str) -> None:
    sound = (demo / record).read_bytes()
    assert isinstance(json.loads(sound), dict)
    like = {key: type(value) for key, value in json.loads(sound).items()}
    assert read_json(demo / record, like)
    (demo / "broken.json").write_text(content)
    with pytest.raises(ValueError):
        read_json(demo / "broken.json", like)
    (demo / "broken.json").unlink()


def _tree() -> dict[str, jax.Array]:
    return {"a": jnp.arange(2000.0), "b": jnp.ones((3, 4))}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tree"
    save_tree(folder, _tree(), {"checkpoint.json": '{"mark": "m"}'})
    return folder


FILES = ("sha256", "_METADATA", "manifest.ocdbt", "_sharding", "checkpoint.json", "d/*")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["missing", "emptied", "flipped", "pipe", "folder", "loop"])
def test_a_damaged_checkpoint_is_never_read(
    saved: Path, tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "00000005"
    shutil.copytree(saved, folder)
    file = next(iter(sorted(folder.glob(name))))
    content = file.read_bytes()
    file.unlink()
    if kind == "emptied":
        file.touch()
    elif kind == "flipped":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file)
    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        load_tree(folder, _tree())
    told: list[str] = []
    step, state = Checkpoints(tmp_path, 2, "m", say=told.append).restore(_tree())
    assert step == 0
    assert "set aside as damaged-00000005" in told[0]
    assert state["a"].shape == (2000,)


def test_other_names_beside_checkpoints_are_left_alone(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "00000005")
    for name in ("٣", "00000000000007", "7", "00000009"):
        (tmp_path / name).touch()
    assert Checkpoints(tmp_path, 2, "m").steps() == [5]


def test_lines_that_are_no_records_are_dropped(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    odd = ["[]", '{"step": "2"}', "[" * 9999, '{"step": null}', "", "\x00", '{"step": 9}']
    log.write_text("\n".join(['{"step": 1}', *odd, '{"step": 2}']) + '\n{"st')
    _begin_log(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "elsewhere"])
def test_something_else_in_the_place_of_the_lock(tmp_path: Path, kind: str) -> None:
    place, other = tmp_path / ".lock", tmp_path / "other"
    other.write_text("keep this")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(place if kind == "loop" else other)
    with pytest.raises(UserError, match="the folder's lock cannot be held"), locked(tmp_path):
        pass
    assert other.read_text() == "keep this"


def test_a_launch_over_broken_records_ends_in_a_message(
    launch: Launch, demo: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(demo, workdir, ignore=shutil.ignore_patterns("store"))
    (workdir / "store").symlink_to(demo / "store")
    prepared = workdir / "prepare" / "prepared.json"
    record = json.loads(prepared.read_text())
    record["datasets"] = {name: {} for name in record["datasets"]}
    prepared.write_text(json.dumps(record))
    (workdir / "evaluate" / "done.json").unlink()
    arguments = ("--config=configs/demo.py:tiny", f"--workdir={workdir}")
    done = launch(*arguments, "--config.stages=('evaluate',)")
    assert done.returncode == 2, done.stderr[-2000:]
    assert "prepared.json: not a readable record of this run" in done.stderr
    assert "Traceback" not in done.stderr
