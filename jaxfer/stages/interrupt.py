"""Being told to stop: by a signal, or by the clock; the work ends at its next good moment."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jaxfer.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Whether this launch has been told to stop, and by what."""

    def __init__(self, max_minutes: float = 0.0) -> None:
        self._reason = ""
        self._limit = f"config.run.max_minutes = {max_minutes:g} are over"
        self._end = time.monotonic() + 60 * max_minutes if max_minutes else float("inf")

    def reason(self) -> str:
        """Why to stop; empty as long as the work may go on."""
        if not self._reason and time.monotonic() >= self._end:
            self._reason = self._limit
        return self._reason

    def check(self) -> None:
        """Raises ``Interrupted`` if the work is to stop here."""
        if reason := self.reason():
            raise Interrupted(reason)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Notes the first SIGTERM or SIGINT; a second one ends the process at once."""

        def note(number: int, _frame: FrameType | None) -> None:
            name = signal.Signals(number).name
            if self._reason:
                os._exit(128 + number)
            self._reason = f"{name} received"
            told = f"jaxfer: {name}: stops at the next step, all saved; again to stop at once\n"
            os.write(2, told.encode())

        before = {number: signal.signal(number, note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
