"""Child processes that are told of the signals that this one gets."""

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from Evaluator.runs.signals import Signals

_POLL_S = 0.2

OWN_GROUP: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {}
"""Arguments of Popen with which Windows lets a child be told to stop, rather than killed."""


def wait_for(
    child: "subprocess.Popen[bytes]", signals: Signals, *, knows: Callable[[int], bool] = lambda _: False
) -> int:
    """The exit status of a child, negative where a signal ended it; signals are passed on unless it `knows` of them."""
    passed_on = 0
    while True:
        try:
            return child.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            for number in signals.received[passed_on:]:
                passed_on += 1
                if not knows(number):
                    _send(child, number)


def _send(child: "subprocess.Popen[bytes]", number: int) -> None:
    if os.name != "nt":
        child.send_signal(number)
        return
    try:  # all others would kill it at once, without a word to it
        child.send_signal(signal.CTRL_BREAK_EVENT)
    except OSError:  # there is no console
        child.terminate()
