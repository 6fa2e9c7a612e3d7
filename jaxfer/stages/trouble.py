"""What the machine, not the user, has got wrong: one message instead of a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import jax

from jaxfer.errors import UserError

_GOES_ON = "; what was saved is whole, and the same command then goes on"

_OF_FILES = {
    errno.ENOSPC: ("the disk is full", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "make room"),
    errno.EFBIG: ("a file would grow beyond the allowed size", "raise the limit (ulimit -f)"),
    errno.EROFS: ("the file system is read-only", "mend it, or choose another folder"),
    errno.EACCES: ("permission denied", "mend the permissions, or choose another folder"),
    errno.EPERM: ("permission denied", "mend the permissions, or choose another folder"),
    errno.ENOENT: ("a file or folder has vanished", "bring it back"),
    errno.ENOTDIR: ("a folder has become a file", "bring it back"),
    errno.ESTALE: ("a network folder is gone", "mount it again"),
    errno.EIO: ("the disk cannot be read or written", "see to the disk"),
    errno.ENOTCONN: ("a network folder is gone", "mount it again"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n)"),
}

_BY_WORDS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
    "No such file or directory": errno.ENOENT,
}
"""As libraries that wrap the system's errors in their own tell of them."""

_LOST = ("gloo", "Gloo", "coordination service", "Connection closed by peer", "NCCL")
"""Words of errors of the connection between processes."""

_MEMORY = (
    "a smaller --config.pretrain.batch_size, --config.finetune.batch_size, "
    "--config.evaluate.batch_size, --config.model.patch or --config.model.widths"
)


class LostProcess(UserError):
    """Another process of the run has ended: nothing of this one's is wrong."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_files(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, OSError) and error.errno in _OF_FILES:
        return _OF_FILES[error.errno]
    words = next((code for text, code in _BY_WORDS.items() if text in str(error)), None)
    return _OF_FILES[words] if words else None


def in_words(error: BaseException) -> UserError | None:
    """The message for an error of the disk or of the memory; None for what is a defect of ours."""
    for one in _chain(error):
        text = f"{type(one).__name__}: {one}".split("\n")[0][:300]
        if isinstance(one, MemoryError) or "RESOURCE_EXHAUSTED: Out of memory" in str(one):
            return UserError("out of memory", found=text, mend=_MEMORY + _GOES_ON)
        if jax.process_count() > 1 and any(word in str(one) for word in _LOST):
            return LostProcess(
                "another process of this run has ended or cannot be reached",
                found=text,
                mend="see what it says" + _GOES_ON,
            )
        if known := _of_files(one):
            return UserError(known[0], found=text, mend=known[1] + _GOES_ON)
    return None
