"""The store: every case once, on the working grid, as memory-mapped arrays."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from jaxfer.data.label_index import LabelIndex, index_labels
from jaxfer.data.nifti import read_header, read_images, read_volume
from jaxfer.data.preprocess import Geometry, Preprocessing, to_working
from jaxfer.errors import UserError
from jaxfer.files import opened, opened_lock, read_array, read_json
from jaxfer.tasks import Case, wrong_name

_VERSION = 4
"""Raised whenever the same files and settings give other arrays."""

_INDEX = "label_index.npz"


@dataclass(frozen=True)
class StoredCase:
    """A case in the store; its arrays are memory-mapped, axes R, A, S, axial slices contiguous.

    Attributes:
        content: file of each array → hash of its bytes.
    """

    id: str
    subject: str
    site: str
    folder: Path
    geometry: Geometry
    content: Mapping[str, str]

    @classmethod
    def read(cls, case: str, subject: str, site: str, folder: Path) -> StoredCase:
        """A case that lies in the store.

        Raises:
            OSError, ValueError: it does not, or not whole.
        """
        known = read_json(folder / "case.json", _RECORD)
        _check(folder, known)
        return _stored(case, subject, site, folder, known)

    def _array(self, name: str, kinds: str) -> np.ndarray:
        path = self.folder / name
        try:
            found = read_array(path)
            if found.shape != self.geometry.crop_shape or found.dtype.kind not in kinds:
                raise ValueError(f"it holds {found.dtype} of shape {found.shape}")
        except (OSError, ValueError) as error:
            raise damaged(path, error) from error
        return found

    def image(self, modality: str) -> Float[np.ndarray, "x y z"]:
        """z-scores in the precision that the store was built with."""
        return self._array(f"{modality}.npy", "f")

    def labels(self) -> Shaped[np.ndarray, "x y z"]:
        """Label values as the data set declares them."""
        return self._array("label.npy", "iu")

    def index(self) -> LabelIndex:
        """Where the labels lie; the label map is read only where no whole index lies beside it."""
        path = self.folder / _INDEX
        if not path.is_file() or _content(path) != self.content.get(_INDEX):
            return index_labels(np.asarray(self.labels()))
        with np.load(path, allow_pickle=False) as found:
            counts = (found["x"], found["y"], found["z"])
            return LabelIndex(tuple(found["values"].tolist()), counts, found["places"])


_TRIPLE = [(int, float)]
_RECORD = {
    "version": int,
    "made_of": dict,
    "arrays": {str: str},
    "sizes": {str: int},
    "geometry": {
        field.name: [[int]] if field.name == "orientation" else _TRIPLE
        for field in dataclasses.fields(Geometry)
    },
}
"""What a case's record must hold."""


def damaged(path: Path, error: Exception) -> UserError:
    """The message for a part of the store that cannot be read."""
    return UserError(
        f"{path}: the stored case is gone or damaged",
        found=f"{type(error).__name__}: {error}",
        mend="delete its folder, and prepare/done.json in the workdir: the stage 'prepare' makes "
        "the case again",
    )


def _check(folder: Path, known: Mapping[str, Any]) -> None:
    """Raises unless a case lies there as its record says."""
    geometry, sizes = known["geometry"], known["sizes"]
    if any(len(values) != 3 for values in geometry.values()):
        raise ValueError("a geometry without three axes")
    if any(len(axis) != 2 for axis in geometry["orientation"]):
        raise ValueError("an orientation that is none")
    for name, size in sizes.items():
        if wrong_name(name) or (folder / name).stat().st_size != size:
            raise ValueError(f"{name} is not as long as it was written")
    if not {n for n in sizes if n.endswith(".npy")} <= known["arrays"].keys():
        raise ValueError("arrays without a hash")


def _present(case: Case, modalities: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(m for m in modalities if m in case.images)


def case_fingerprint(case: Case, modalities: tuple[str, ...], how: Preprocessing) -> dict:
    """What decides a stored case: its files as they are on disk, and the preprocessing."""
    present = _present(case, modalities)
    files = [case.images[m].path for m in present] + ([case.label] if case.label else [])
    stats = [(os.path.realpath(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return {
        "files": [list(s) for s in stats],
        "modalities": list(present),
        "channels": [case.images[m].channel for m in present],
        "preprocessing": json.loads(json.dumps(dataclasses.asdict(how))),
    }


def _content(path: Path) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _smallest_type(labels: Shaped[np.ndarray, "x y z"]) -> Integer[np.ndarray, "x y z"]:
    """Label values as uint8 if they fit; verification has found them to be whole numbers."""
    if labels.dtype == np.uint8:
        return labels
    small = labels.min() >= 0 and labels.max() < 256
    return np.round(labels).astype(np.uint8 if small else np.int32)


def _write(case: Case, modalities: tuple[str, ...], how: Preprocessing, folder: Path) -> Geometry:
    headers = [read_header(case.images[m].path, case.images[m].channel) for m in modalities]
    working = to_working(
        read_images({m: case.images[m] for m in modalities}),
        _smallest_type(read_volume(case.label)) if case.label else None,
        next((h for h in headers if h.oriented), headers[0]),
        how,
    )
    for modality, image in working.images.items():
        np.save(folder / f"{modality}.npy", image)
    if working.labels is not None:
        index = index_labels(working.labels)
        np.save(folder / "label.npy", working.labels)
        x, y, z = index.counts
        np.savez(folder / _INDEX, values=index.values, x=x, y=y, z=z, places=index.places)
    return working.geometry


def store_case(
    case: Case, modalities: tuple[str, ...], how: Preprocessing, folder: Path
) -> tuple[StoredCase, bool]:
    """Puts a case into the store unless it lies there already, whole and unchanged.

    Args:
        case: verified.
        modalities: which of its images to store, as far as it has them.
        how: the preprocessing.
        folder: of this case in the store; written under a temporary name, then renamed.

    Returns:
        The stored case, and whether it had to be made.

    Raises:
        UserError: a file cannot be read any more, or the store cannot be written to; what was in
            the store is there as it was.
    """
    try:
        made_of = case_fingerprint(case, modalities, how)
    except OSError as error:
        raise UserError(
            f"{error.filename}: no such file any more",
            found=str(error),
            mend="leave the data set's folder as it is while a run reads it, and start again",
        ) from error
    known = _known(folder)
    if (known.get("made_of"), known.get("version")) == (made_of, _VERSION):
        return _stored(case.id, case.subject, case.site, folder, known), False
    temporary = _beside(folder, "new")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        geometry = _write(case, _present(case, modalities), how, temporary)
        files = sorted(temporary.iterdir())
        known = {
            "version": _VERSION,
            "made_of": made_of,
            "arrays": {f.name: _content(f) for f in files},
            "sizes": {f.name: f.stat().st_size for f in files},
            "geometry": dataclasses.asdict(geometry),
        }
        (temporary / "case.json").write_text(json.dumps(known, indent=1))
        _put(temporary, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: the store cannot be written to",
            found=str(error),
            allowed="a disk with room for it: for each voxel inside the brain 2 bytes per image "
            "(4 as float32) and 1 for the labels",
            mend="make room, or name a folder elsewhere with --config.data.cache=DIR",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _stored(case.id, case.subject, case.site, folder, known), True


def _beside(folder: Path, what: str) -> Path:
    """A name for what is not the case yet, or not any more."""
    return folder.with_name(f".{what}-{os.getpid()}-{folder.name}")


def _put(new: Path, folder: Path) -> None:
    """Renames a folder to where another may be; that one is never seen half gone."""
    old = _beside(folder, "old")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _known(folder: Path) -> dict:
    """The record of a case that lies whole in the store; nothing of another."""
    try:
        known = read_json(folder / "case.json", _RECORD)
        _check(folder, known)
    except (OSError, ValueError):
        return {}
    return known


def _stored(case: str, subject: str, site: str, folder: Path, known: dict) -> StoredCase:
    fields: dict[str, Any] = {
        key: tuple(tuple(v) if isinstance(v, (list, tuple)) else v for v in values)
        for key, values in known["geometry"].items()
    }
    return StoredCase(case, subject, site, folder, Geometry(**fields), known["arrays"])


@contextmanager
def _alone(folder: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Keeps other runs from building in the folder; a killed one holds it no longer."""
    folder.mkdir(parents=True, exist_ok=True)
    with opened_lock(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems know no locks: two builds at once then do the work twice.
            yield
            return
        for pattern in (".new-*", ".old-*"):
            for leftover in folder.rglob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        yield


def store_cases(
    cases: Sequence[Case],
    modalities: tuple[str, ...],
    how: Preprocessing,
    folder: Path,
    *,
    workers: int = 1,
    on_case: Callable[[str], None] = lambda _: None,
    on_wait: Callable[[], None] = lambda: None,
) -> tuple[list[StoredCase], int]:
    """Puts cases into the store, several at once, as ``store_case`` does one.

    Threads, for nearly all of the time passes in zlib and numpy, which run side by side; processes
    would each import the whole program again. What killed builds left behind is removed; what they
    finished is kept.

    Args:
        cases: verified.
        modalities: which of their images to store, as far as they have them.
        how: the preprocessing.
        folder: of all these cases; another run that builds there is waited for.
        workers: how many cases at once; the stored bytes do not depend on it.
        on_case: called with the id of each case when it is done, in no order.
        on_wait: called once if another run builds there.

    Returns:
        The stored cases in the order of ``cases``, and how many had to be made.

    Raises:
        UserError: as ``store_case``; the cases that were finished before stay in the store.
    """
    try:
        with _alone(folder, on_wait), ThreadPoolExecutor(workers) as pool:
            jobs = {
                pool.submit(store_case, case, modalities, how, folder / case.id): case.id
                for case in cases
            }
            try:
                for job in as_completed(jobs):
                    job.result()
                    on_case(jobs[job])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except OSError as error:
        raise UserError(
            f"{folder}: the store cannot be written to",
            found=str(error),
            mend="name a folder elsewhere with --config.data.cache=DIR",
        ) from error
    done = [job.result() for job in jobs]
    return [stored for stored, _ in done], sum(made for _, made in done)
