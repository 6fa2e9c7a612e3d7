"""The one error that a user can mend, and the one end that is no error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST = 2000


def legible(value: object, keep: str = "") -> str:
    """A value in words that a terminal and a file can take.

    Control characters, halves of characters and what turns the direction of writing become
    escapes: names of files and texts in them may hold any. Very long texts are cut.

    Args:
        value: of any kind.
        keep: characters that stay as they are, such as line breaks.
    """
    try:
        text = str(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a deep structure
        text = f"a {type(value).__name__} too large to show"
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}… ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


class UserError(Exception):
    """Something the user can mend: shown as one message, without a traceback, exit status 2.

    Args:
        what: what is wrong, with the file or the config field that it concerns.
        found: the value that was found.
        allowed: the values that would have been accepted.
        mend: the flag, the command or the change that mends it.
        details: lines of their own.
    """

    def __init__(
        self,
        what: str,
        *,
        found: object = None,
        allowed: object = None,
        mend: str = "",
        details: Sequence[str] = (),
    ):
        self.what = what
        self.found = found
        self.allowed = allowed
        self.mend = mend
        self.details = tuple(details)
        super().__init__(what)

    def __str__(self) -> str:
        lines = [legible(self.what), *(f"  {legible(line)}" for line in self.details)]
        if self.found is not None:
            lines.append(f"  found:   {legible(self.found)}")
        if self.allowed is not None:
            lines.append(f"  allowed: {legible(self.allowed)}")
        if self.mend:
            lines.append(f"  mend:    {legible(self.mend)}")
        return "\n".join(lines)


class Interrupted(Exception):
    """The work was told to stop, and did so at a good moment: the same command goes on.

    Args:
        reason: the signal, or the time limit.
        saved: what was saved last, in words.
    """

    def __init__(self, reason: str, saved: str = ""):
        self.reason = reason
        self.saved = saved
        super().__init__(f"{reason}; {saved}" if saved else reason)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with all that is needed to mend it.

    Attributes:
        severity: 'error' stops the run, 'warning' does not.
        where: the file or the config field.
        what: what is wrong with it.
        found: the value found.
        allowed: the values that would have been accepted.
        mend: what to do about it.
    """

    severity: str
    where: str
    what: str
    found: object = None
    allowed: object = None
    mend: str = ""

    def __str__(self) -> str:
        text = f"{legible(self.where)}: {legible(self.what)}"
        if self.found is not None:
            text += f"; found {legible(self.found)}"
        if self.allowed is not None:
            text += f"; allowed {legible(self.allowed)}"
        return text + (f" → {legible(self.mend)}" if self.mend else "")


def raise_problems(problems: Sequence[Problem], what: str) -> None:
    """Raises one ``UserError`` with every problem of severity 'error'; none, no error."""
    errors = [p for p in problems if p.severity == "error"]
    if not errors:
        return
    shown = [str(p) for p in errors[:30]]
    if len(errors) > len(shown):
        shown.append(f"… and {len(errors) - len(shown)} more")
    raise UserError(f"{what} ({len(errors)}):", details=shown)
