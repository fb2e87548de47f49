"""Ctrl-C, SIGTERM and a terminal that is closed as a wish to stop, and the exit status each asks for."""

import contextlib
import os
import signal

from Evaluator.errors import INTERRUPTED, OK, STOPPED_EARLY


class Signals:
    """SIGINT, SIGTERM, Windows' SIGBREAK and, unless nohup has it ignored, SIGHUP, counted instead of killing, while
    the `with` block runs (main thread only).

    While `interrupt` is set they also raise KeyboardInterrupt, to end what waits for a file or a model to load;
    `notice` is what the first one that does not says on stderr.
    """

    def __init__(self, notice: str = "") -> None:
        self.received: list[int] = []
        self.interrupt = True
        self._notice = notice

    def __enter__(self) -> "Signals":
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGBREAK"):
            numbers.append(signal.SIGBREAK)
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            numbers.append(hangup)
        self._former = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if number == getattr(signal, "SIGHUP", None) and number in self.received:
            return  # the shell and the kernel both tell of a terminal that is closed: that is no second wish
        self.received.append(number)
        if self.interrupt:
            raise KeyboardInterrupt
        if self._notice and len(self.received) == 1:
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(2, f"{self._notice}\n".encode())  # no logging: the signal may have come in the midst of it

    @property
    def status(self) -> int:
        """The exit status these signals ask for; OK without any."""
        if not self.received:
            return OK
        return INTERRUPTED if signal.SIGINT in self.received else STOPPED_EARLY
