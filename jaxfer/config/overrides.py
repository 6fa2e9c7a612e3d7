"""What one target of a study has of its own: texts of the form ``TARGET FIELD=VALUE``."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from jaxfer.errors import UserError

OWN = ("data.spacing", "data.test_subjects", "data.plane", "data.folds", "data.fold")
SECTIONS = ("model", "augment", "pretrain", "finetune", "risk", "select", "evaluate")
ALLOWED = f"a field of {', '.join(SECTIONS)}, or {', '.join(OWN)}"
"""Fields that may differ between the targets of a study."""


@dataclass(frozen=True)
class Override:
    """A field of one target's configuration."""

    target: str
    field: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Override:
        """Reads ``phantom/clinic/t1/tissue data.spacing=(2.0, 2.0, 2.0)``.

        Raises:
            ValueError: it is not of this form.
        """
        target, _, rest = text.partition(" ")
        field, equals, value = rest.strip().partition("=")
        if not (target and field and equals):
            raise ValueError("not of the form TARGET FIELD=VALUE")
        if field.partition(".")[0] not in SECTIONS and field not in OWN:
            raise ValueError(f"{field} is the same for all targets")
        try:
            return cls(target, field, ast.literal_eval(value))
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"{value} is no number, text or tuple of such") from error


def overridden(config: ConfigDict, target: str, texts: Sequence[str]) -> None:
    """Sets a target's own fields in its configuration.

    Raises:
        UserError: a field that there is not.
    """
    for text in texts:
        own = Override.parse(text)
        if own.target != target:
            continue
        *sections, name = own.field.split(".")
        section = config
        for part in sections:
            section = section[part]
        if name not in section:
            raise UserError(f"config.study.overrides: '{text}'", found=own.field, allowed=ALLOWED)
        with section.ignore_type():
            section[name] = own.value
