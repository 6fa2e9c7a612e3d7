"""Checkpoints: whole ones are taken up, damaged ones are named, others' are not touched."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import optax
import pytest

from jaxfer.errors import UserError
from jaxfer.train.checkpoints import Checkpoints, Writer


def state(value: float):
    params = {"kernel": np.full((2, 3), value, np.float32)}
    optimizer = optax.adamw(optax.cosine_decay_schedule(0.1, 10))
    return jax.tree.map(np.asarray, (params, optimizer.init(params), np.array(value), None))


@pytest.fixture
def kept(tmp_path):
    told = []
    found = Checkpoints(tmp_path / "steps", keep=2, mark="mine", say=told.append)
    found.folder.mkdir()
    return found, told


def test_the_last_one_is_taken_up_and_the_oldest_go(kept):
    checkpoints, told = kept
    assert checkpoints.restore(state(0.0))[0] == 0
    for step in (5, 10, 15):
        checkpoints.save(step, state(float(step)))
    assert checkpoints.steps() == [10, 15]
    step, found = checkpoints.restore(state(0.0))
    assert step == 15
    jax.tree.map(np.testing.assert_array_equal, found, state(15.0))
    assert jax.tree.structure(found) == jax.tree.structure(state(0.0))
    assert not told


def _flip(folder):
    file = max((p for p in folder.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def _cut(folder):
    file = max((p for p in folder.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        _cut,
        lambda folder: (folder / "checkpoint.json").unlink(),
        lambda folder: (folder / "checkpoint.json").write_text('{"mark": '),
        lambda folder: (folder / "manifest.ocdbt").unlink(),
        lambda folder: [p.unlink() for p in folder.rglob("*") if p.is_file()],
    ],
    ids=["bit", "cut", "no record", "cut record", "no manifest", "emptied"],
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(kept, damage):
    checkpoints, told = kept
    checkpoints.save(5, state(5.0))
    checkpoints.save(10, state(10.0))
    damage(checkpoints.folder / "00000010")
    step, found = checkpoints.restore(state(0.0))
    assert step == 5
    assert found[2] == 5.0
    assert len(told) == 1
    assert "00000010" in told[0]
    assert "damaged-00000010" in told[0]
    assert (checkpoints.folder / "damaged-00000010").is_dir()
    checkpoints.save(10, state(11.0))
    assert checkpoints.restore(state(0.0))[0] == 10


def test_another_trainings_are_not_taken_up(kept, tmp_path):
    Checkpoints(tmp_path / "steps", keep=2, mark="other").save(5, state(5.0))
    checkpoints, told = kept
    assert checkpoints.steps() == [5]
    step, found = checkpoints.restore(state(0.0))
    assert (step, found[2]) == (0, 0.0)
    assert not told
    assert checkpoints.steps() == []


def test_what_a_killed_process_half_wrote_is_removed(kept):
    checkpoints, _ = kept
    checkpoints.save(5, state(5.0))
    half = checkpoints.folder / ".123-00000010"
    shutil.copytree(checkpoints.folder / "00000005", half)
    assert checkpoints.restore(state(0.0))[0] == 5
    assert not half.exists()


def test_the_record_tells_what_made_it(tmp_path):
    Checkpoints(tmp_path, keep=1, mark="m", record={"versions": {"jax": "1"}}).save(7, state(1.0))
    record = json.loads((tmp_path / "00000007" / "checkpoint.json").read_text())
    assert record == {"mark": "m", "step": 7, "versions": {"jax": "1"}}


def test_a_failed_write_is_told_and_leaves_the_one_before(kept, monkeypatch):
    checkpoints, _ = kept
    checkpoints.save(5, state(5.0))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxfer.models.checkpoint._digest", full)
    with (
        pytest.raises(UserError, match="those before it are whole") as caught,
        Writer(checkpoints) as writer,
    ):
        writer.save(10, state(10.0))
    assert "No space left" in caught.value.found
    monkeypatch.undo()
    assert [p.name for p in checkpoints.folder.iterdir()] == ["00000005"]
    assert checkpoints.restore(state(0.0))[0] == 5


def test_a_vanished_folder_is_not_made_again(kept):
    checkpoints, _ = kept
    checkpoints.folder.rmdir()
    with pytest.raises(FileNotFoundError):
        checkpoints.save(5, state(5.0))
    assert not checkpoints.folder.exists()
