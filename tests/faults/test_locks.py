"""One launch at a time in a workdir."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from jaxfer.errors import UserError
from jaxfer.stages import lock
from jaxfer.stages.lock import locked
from tests.faults.running import start


def test_a_second_launch_is_refused_and_names_the_first(workdir: Path) -> None:
    first = start(workdir, "--config.finetune.steps=100000")
    first.until_step(2)
    status, _, err = start(workdir).end()
    assert status == 2
    assert f"process {first.process.pid} on {socket.gethostname()}" in err
    assert "Traceback" not in err
    first.process.send_signal(signal.SIGTERM)
    assert first.end()[0] == 75


def test_it_is_let_go_at_the_end(tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        with locked(tmp_path, say=told.append):
            held = json.loads((tmp_path / ".lock").read_text())
            assert held["process"] == os.getpid()
    assert not told


def test_waits_for_another_when_told_to(tmp_path: Path) -> None:
    told: list[str] = []
    order: list[str] = []
    entered = threading.Event()

    def first() -> None:
        with locked(tmp_path):
            entered.set()
            time.sleep(0.5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait()
    with pytest.raises(UserError, match="another launch works in this folder"), locked(tmp_path):
        pass
    with locked(tmp_path, wait=True, say=told.append):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert f"waits for process {os.getpid()}" in told[0]


@pytest.mark.parametrize("alive", [True, False])
def test_a_lock_of_another_host_holds_as_long_as_it_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    monkeypatch.setattr(lock, "_BEAT", 0.05)
    monkeypatch.setattr(lock, "_PATIENCE", 0.5)
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"process": 7, "host": "elsewhere", "since": "then"}))
    stop = threading.Event()
    if alive:
        threading.Thread(target=lock._beat, args=(path, stop), daemon=True).start()
    told: list[str] = []
    try:
        if alive:
            with (
                pytest.raises(UserError, match="another launch") as caught,
                locked(tmp_path, say=told.append),
            ):
                pass
            assert "process 7 on elsewhere, since then" in caught.value.found
        else:
            with locked(tmp_path, say=told.append):
                assert json.loads(path.read_text())["process"] == os.getpid()
            assert "taken over" in told[-1]
    finally:
        stop.set()


@pytest.mark.parametrize("text", ["{", "[]", "null", "\x00\x01"])
def test_a_cut_record_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / ".lock").write_text(text)
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
