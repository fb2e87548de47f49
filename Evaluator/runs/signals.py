"""Ctrl-C and SIGTERM as a wish to stop, and the exit status each asks for."""

import os
import signal

from Evaluator.errors import INTERRUPTED, OK, STOPPED_EARLY


class Signals:
    """SIGINT and SIGTERM, counted instead of killing, while the `with` block runs (main thread only).

    While `interrupt` is set they also raise KeyboardInterrupt, to end what waits for a file or a model to load;
    `notice` is what the first one that does not says on stderr.
    """

    def __init__(self, notice: str = "") -> None:
        self.received: list[int] = []
        self.interrupt = True
        self._notice = notice

    def __enter__(self) -> "Signals":
        self._former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.received.append(number)
        if self.interrupt:
            raise KeyboardInterrupt
        if self._notice and len(self.received) == 1:
            os.write(2, f"{self._notice}\n".encode())  # no logging here: the signal may have come in the midst of it

    @property
    def status(self) -> int:
        """The exit status these signals ask for; OK without any."""
        if not self.received:
            return OK
        return INTERRUPTED if signal.SIGINT in self.received else STOPPED_EARLY
