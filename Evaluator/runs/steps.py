"""Steps: public commands of this project, run one after the other, so that a killed run goes on where it was.

    with Steps(folder / "state.json") as steps:
        steps.run(Step("play", ("Tools/selfplay_generator_v2.py", "--output", "rows.jsonl"), makes=Path("rows.jsonl")))

Each step is shown as a line for a shell before it runs. What is done stands in the state file and is not done again; a
step that was cut short runs again with the same command, so it has to be one that goes on where it was. So does what
came after a step that is done again: it has to see for itself whether what it has made still holds.
"""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from Evaluator.errors import FAILED, INTERRUPTED, OK, STOPPED_EARLY, USAGE, ReportedError, UsageError
from Evaluator.runs.atomic_files import move_into_place, write_json
from Evaluator.runs.children import OWN_GROUP, wait_for
from Evaluator.runs.file_lock import take_lock
from Evaluator.runs.signals import Signals

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
"""Commands run here: their scripts are named from here, and so are relative paths."""
_GO_ON = "run the same command again to go on"


class StepFailed(ReportedError):
    """A step that did not end well, or was stopped; `status` is the exit status that its own asks for."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Step:
    """`command` is what follows `python`; `makes` has to be there when it is done, else it is done again.

    With `saves_stdout` what the command prints becomes the file `makes`, whole or not at all. `how` are flags that
    follow the command and say how it works, not what comes of it: with others a step that is done stays done.
    `goes_on` are flags with which it goes on where it was, `anew` those with which it begins anew instead, where it was
    begun before and now ends with status USAGE, since what lies there was made of something else.
    """

    name: str
    command: tuple[str, ...]
    makes: Path
    saves_stdout: bool = False
    how: tuple[str, ...] = ()
    goes_on: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()

    def words(self, *, anew: bool = False) -> tuple[str, ...]:
        """What follows `python`."""
        return (*self.command, *(self.anew if anew else self.goes_on), *self.how)

    def line(self, *, anew: bool = False) -> str:
        """The step for a shell, from ROOT."""
        shown = _quoted(["python", *self.words(anew=anew)])
        return f"{shown} > {_quoted([str(self.makes)])}" if self.saves_stdout else shown


class Steps:
    """Runs steps and keeps their record in the file `state`; one process at a time, also while a child of it lives.

    `num_run` counts the steps that were not done already.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._records: list[dict[str, Any]] = []
        self.num_run = 0
        self._signals = Signals()
        self._closing = ExitStack()

    def __enter__(self) -> "Steps":
        """Take the lock and read the state. Raises UsageError where another process has it, or it is no state."""
        self._lock = self._closing.enter_context(self._state.with_suffix(".lock").open("ab"))
        try:
            if not take_lock(self._lock):
                raise UsageError(f"another run is at work in {self._state.parent}: wait for its end")
            self._records = _read(self._state)
            self._closing.enter_context(self._signals)
        except BaseException:
            self._closing.close()
            raise
        self._signals.interrupt = False
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def run(self, step: Step) -> None:
        """Run a step to its end, unless it is done. Raises StepFailed."""
        self.check_signals()
        known = next((one for one in self._records if one["name"] == step.name), None)
        is_same = known is not None and known.get("command") == list(step.command)
        if is_same and known["status"] == OK and step.makes.exists():
            log.debug("done already: %s", step.name)
            return
        was_begun, was_cut_short = known is not None, is_same and known["status"] != OK
        if known is None:
            known = {"name": step.name}
            self._records.append(known)
        if not was_cut_short:
            known.update(command=list(step.command), seconds=0.0)
            for later in self._records[self._records.index(known) + 1 :]:  # they may stand on what it makes
                later.update(status=None, seconds=0.0)
        self.num_run += 1
        status = self._run(step, known)
        if status == USAGE and step.anew and was_begun and not self._signals.received:
            log.info("what the step %r made before was made of something else: it begins anew", step.name)
            status = self._run(step, known, anew=True)
        self._judge(step, status)

    def has_done(self, ending: str = "") -> bool:
        """Whether a step whose name ends so is done."""
        return any(one["status"] == OK and one["name"].endswith(ending) for one in self._records)

    def check_signals(self) -> None:
        """Raise StepFailed where a signal came."""
        if self._signals.received:
            raise StepFailed(f"stopped: {_GO_ON}", self._signals.status)

    def _run(self, step: Step, record: dict[str, Any], *, anew: bool = False) -> int:
        """Show a step, run it, and record how it ended; give its exit status."""
        record["line"] = step.line(anew=anew)
        log.info("%s", record["line"])
        started, before = time.monotonic(), record["seconds"]
        self._record(record, None, before)
        status = self._wait_for(step, anew=anew)
        self._record(record, status, before + time.monotonic() - started)
        return status

    def _record(self, record: dict[str, Any], status: int | None, seconds: float) -> None:
        record.update(status=status, seconds=round(seconds, 1))
        write_json(self._state, {"steps": self._records})

    def _wait_for(self, step: Step, *, anew: bool) -> int:
        """Run the command and pass signals on to it; give its exit status."""
        unfinished = step.makes.with_name(f".{step.makes.name}.unfinished")
        if step.saves_stdout:  # other commands make their own folders
            step.makes.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") if step.saves_stdout else nullcontext() as saved:
            status = self._child(step.words(anew=anew), saved)
        if saved and status == OK:
            move_into_place(unfinished, step.makes)
        elif saved:
            unfinished.unlink()
        return status

    def _child(self, command: Sequence[str], stdout: BinaryIO | None) -> int:
        """The child holds the lock as well: an orphan of a killed run still keeps others out."""
        inherited = {"pass_fds": [self._lock.fileno()]} if os.name == "posix" else {}
        child = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stdout or sys.stderr.fileno(),  # ours is for data
            **inherited,
            **OWN_GROUP,
        )
        return wait_for(child, self._signals, knows=_is_told_by_the_terminal)

    def _judge(self, step: Step, status: int) -> None:
        """Raise StepFailed where a step did not do what it was to do."""
        if status == OK and not step.makes.exists():
            raise StepFailed(f"the step {step.name!r} ended well but has not made {step.makes}", FAILED)
        self.check_signals()
        if status in (STOPPED_EARLY, INTERRUPTED):
            raise StepFailed(f"the step {step.name!r} stopped early: {_GO_ON}", status)
        if status < 0:
            raise StepFailed(f"the step {step.name!r} was ended by signal {-status}: {_GO_ON}", FAILED)
        if status != OK:
            raise StepFailed(f"the step {step.name!r} ended with status {status}; its message is above", status)


def _is_told_by_the_terminal(number: int) -> bool:
    """Ctrl-C reaches all processes at a terminal, and told twice, a run would not wait for its answers."""
    return number == signal.SIGINT and os.name != "nt" and sys.stdin is not None and sys.stdin.isatty()


def _quoted(words: Sequence[str]) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _read(state: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(state.read_bytes())["steps"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"cannot read the state of the steps in {state}: {error}") from error
