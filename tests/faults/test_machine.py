"""Full disk, vanished folder, no permission, no memory: one message, and then it goes on."""

from __future__ import annotations

import errno
import resource
import shutil
from pathlib import Path

import pytest

from jaxfer.stages.trouble import in_words
from tests.faults.running import FIRST, outcome, start


def test_a_disk_without_room(workdir: Path, undisturbed: dict[str, bytes]) -> None:
    running = start(workdir)
    running.until_step(6)
    # As long as a process lives, its limits can be lowered from outside.
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (100, 100))
    status, _, err = running.end(120)
    assert status == 2, err
    assert "grow beyond the allowed size" in err or "cannot be written" in err
    assert "the same command then goes on" in err
    assert "Traceback" not in err
    status, _, err = start(workdir).end(300)
    assert status == 0, err
    assert outcome(workdir) == undisturbed


def test_a_disk_without_room_for_the_store(tmp_path: Path) -> None:
    running = start(tmp_path / "run", "--config.stages=('prepare',)", before="ulimit -f 20")
    status, _, err = running.end(120)
    assert status == 2, err
    assert "grow beyond the allowed size" in err
    assert "Traceback" not in err


def test_a_vanished_workdir(workdir: Path) -> None:
    running = start(workdir, "--config.finetune.steps=100000")
    running.until_step(4)
    shutil.rmtree(workdir / FIRST)
    status, _, err = running.end(120)
    assert status == 2, err
    assert "vanished" in err or "cannot be written" in err
    assert "Traceback" not in err


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = start(tmp_path / "file" / "run").end()
    assert status == 2
    assert "cannot be written to" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "read-only"),
        (OSError(errno.EACCES, "Permission denied", "/x"), "permission denied"),
        (OSError(errno.ESTALE, "Stale file handle", "/x"), "a network folder is gone"),
        (MemoryError(), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "out of memory"),
        (ValueError("INTERNAL: write failed: No space left on device"), "the disk is full"),
    ],
)
def test_the_machines_troubles_in_words(error: Exception, words: str) -> None:
    told = in_words(error)
    assert told is not None
    assert words in str(told)
    assert "the same command then goes on" in str(told)
    try:
        try:
            raise error
        except type(error) as first:
            raise KeyError("wrapped") from first
    except KeyError as second:
        wrapped = in_words(second)
    assert str(wrapped) == str(told)


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("shapes (3,) and (4,)")])
def test_our_own_defects_keep_their_traceback(error: Exception) -> None:
    assert in_words(error) is None
