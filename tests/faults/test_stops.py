"""Killed, told to stop, out of time: the same command goes on and ends with the same bits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.running import FIRST, last_step, outcome, start


def _finish(workdir: Path, undisturbed: dict[str, bytes]) -> str:
    status, told, err = start(workdir).end(300)
    assert status == 0, err[-3000:]
    assert outcome(workdir) == undisturbed
    assert not list(workdir.glob("finetune/*/*/steps"))
    return told


@pytest.mark.parametrize("moments", [(3,), (11, 17, 25)])
def test_kill_9(workdir: Path, undisturbed: dict[str, bytes], moments: tuple[int, ...]) -> None:
    for moment in moments:
        running = start(workdir)
        running.until_step(moment)
        running.process.send_signal(signal.SIGKILL)
        assert running.end()[0] == -signal.SIGKILL
    told = _finish(workdir, undisturbed)
    assert "was left behind by its end" in told


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_the_step_and_asks_to_be_queued_again(
    workdir: Path, undisturbed: dict[str, bytes], name: str
) -> None:
    running = start(workdir, "--config.run.checkpoint_every=1000")
    running.until_step(6)
    sent = time.monotonic()
    running.process.send_signal(getattr(signal, name))
    status, _, err = running.end()
    assert time.monotonic() - sent < 30
    assert status == 75
    assert f"{name} received; training is saved after step" in err
    assert "Traceback" not in err
    saved = int(err.split("saved after step ")[1].split(";")[0])
    assert saved >= last_step(workdir / FIRST) >= 6
    assert [p.name for p in (workdir / FIRST / "steps").iterdir()] == [f"{saved:08d}"]
    _finish(workdir, undisturbed)


def test_a_second_signal_ends_it_at_once_and_the_last_checkpoint_is_whole(
    workdir: Path, undisturbed: dict[str, bytes]
) -> None:
    running = start(workdir)
    running.until_step(10)
    os.kill(running.process.pid, signal.SIGTERM)
    os.kill(running.process.pid, signal.SIGINT)
    status, _, err = running.end(20)
    # Both may have been seen before the loop looked: then the first one's end is as good.
    assert status in (128 + signal.SIGINT, 128 + signal.SIGTERM, 75)
    assert "Traceback" not in err
    _finish(workdir, undisturbed)


def test_out_of_time(workdir: Path, undisturbed: dict[str, bytes]) -> None:
    status, _, err = start(workdir, "--config.run.max_minutes=0.0001").end(120)
    assert status == 75
    assert "config.run.max_minutes = 0.0001 are over" in err
    assert "Traceback" not in err
    _finish(workdir, undisturbed)


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_is_used(
    workdir: Path, undisturbed: dict[str, bytes]
) -> None:
    running = start(workdir)
    running.until_step(18)
    running.process.send_signal(signal.SIGKILL)
    running.end()
    last = sorted(p for p in (workdir / FIRST / "steps").iterdir() if p.name.isdecimal())[-1]
    largest = max((p for p in last.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-50])
    told = _finish(workdir, undisturbed)
    assert f"{last.name} set aside as damaged-{last.name}" in told


def test_what_may_change_meanwhile_may_and_the_rest_is_shown_and_refused(workdir: Path) -> None:
    running = start(workdir)
    running.until_step(9)
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 75
    for change in ("model.widths=(4,16)", "seed=1", "data.train_subjects=1"):
        status, _, err = start(workdir, f"--config.{change}").end()
        assert status == 2
        assert f"config.{change.split('=')[0]}" in err
        assert "Traceback" not in err
    running = start(workdir, "--config.run.log_every=1", "--config.run.keep_checkpoints=1")
    running.until_step(20)
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 75
    records = (workdir / FIRST / "metrics.jsonl").read_text().splitlines()
    assert len(records) > 11
