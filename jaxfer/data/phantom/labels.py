"""The label scheme of the collection."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CSF, GM, WM, WMH, NECROSIS, OEDEMA, ENHANCING = range(1, 8)

LABEL_NAMES: Mapping[int, str] = MappingProxyType(
    {
        0: "background",
        CSF: "CSF",
        GM: "GM",
        WM: "WM",
        WMH: "WMH",
        NECROSIS: "necrosis",
        OEDEMA: "oedema",
        ENHANCING: "enhancing",
    }
)
