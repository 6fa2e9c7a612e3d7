"""Cases in the store, made of arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from jaxfer.data.preprocess import field_of_view
from jaxfer.data.sampler import TaskCase, task_case
from jaxfer.data.store import StoredCase
from jaxfer.tasks import IGNORE, RoI


@pytest.fixture
def make_case(tmp_path) -> Callable[..., TaskCase]:
    """Makes a case of class indices, and of an image if one is given."""

    def make(classes: np.ndarray, num_classes: int, image: np.ndarray | None = None) -> TaskCase:
        folder = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        np.save(folder / "label.npy", classes.astype(np.uint8))
        np.save(folder / "t2.npy", (classes if image is None else image).astype(np.float16))
        geometry = field_of_view(classes.shape, np.eye(4), (1.0, 1.0, 1.0))
        stored = StoredCase(folder.name, folder.name, "site", folder, geometry, {})
        roi = RoI("roi", tuple((f"class{k}", (k,)) for k in range(1, num_classes)))
        return task_case(stored, "t2", roi, (IGNORE,))

    return make
