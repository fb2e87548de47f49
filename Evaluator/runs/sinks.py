"""Where judged attempts go: what a sink is, how it counts, and the one that streams to stdout."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from Evaluator.console import is_closed_pipe
from Evaluator.records import Reject, Sample, to_json_line

LONGEST_WRITE_S = 1.0
"""How long the end of a run waits for a line that is being written to stdout, in seconds."""


@dataclass
class Tally:
    """What a sink has taken, counted.

    `tools` counts target tools, `tools_true` tools called by true samples, `holes` slots that were given up, by cell.
    """

    labels: Counter[bool] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    tools_true: Counter[str] = field(default_factory=Counter)
    holes: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def samples(self) -> int:
        return self.labels.total()

    def count(self, label: bool, metadata: Mapping[str, Any]) -> None:
        self.labels[label] += 1
        self.errors.update(code.partition(":")[0] for code in metadata["errors"][:1])
        if tool := metadata["target_tool"]:
            self.tools[tool] += 1
        if label:
            self.tools_true.update(metadata["called_tools"])
        self.prompt_tokens += metadata["prompt_tokens"] or 0
        self.completion_tokens += metadata["completion_tokens"] or 0


class Holes:
    """Slots that are given up: what they were drawn for was rejected `limit` times (0: none ever is).

    Another, easier prompt in its place would hide that the model cannot do this one.
    """

    def __init__(self, limit: int, tally: Tally) -> None:
        self.slots: set[int] = set()
        self._limit = limit
        self._tally = tally
        self._rejects: dict[int, Counter[str]] = {}

    def note(self, slot: int, cell: str | None) -> bool:
        """Count a reject and return whether its slot is given up."""
        if cell is None or not self._limit:
            return False
        rejects = self._rejects.setdefault(slot, Counter())
        rejects[cell] += 1
        if rejects.total() == self._limit:
            self.slots.add(slot)
            self._tally.holes[cell] += 1
        return slot in self.slots

    def fill(self, slot: int) -> None:
        """A sample came after all: a run before this one allowed more rejects."""
        rejects = self._rejects.pop(slot, None)
        if slot in self.slots:
            self.slots.remove(slot)
            self._tally.holes -= Counter(rejects.keys())


class Sink(Protocol):
    """Where judged attempts go, and their tally."""

    tally: Tally

    def add_sample(self, sample: Sample) -> None: ...

    def add_reject(self, reject: Reject) -> bool:
        """Returns whether its slot is given up (see Holes)."""
        ...

    def seal(self) -> None: ...


class StdoutSink:
    """Samples straight to stdout as they come; rejects are only counted."""

    def __init__(self, attempts_per_cell: int = 0) -> None:
        self.tally = Tally()
        self._holes = Holes(attempts_per_cell, self.tally)
        self._writing = threading.Lock()
        self._is_open = True

    def add_sample(self, sample: Sample) -> None:
        data = sample.to_dict()
        with self._writing:
            if not self._is_open:
                return
            _write(to_json_line(data))
            self.tally.count(sample.label, data["metadata"])

    def add_reject(self, reject: Reject) -> bool:
        with self._writing:
            self.tally.rejects[reject.reason] += 1
            return self._holes.note(reject.slot, reject.cell)

    def seal(self) -> None:
        """Take nothing more: what is still under way comes too late. A reader that does not read is not waited for."""
        is_idle = self._writing.acquire(timeout=LONGEST_WRITE_S)
        self._is_open = False
        if is_idle:
            self._writing.release()


def _write(line: bytes) -> None:
    """To stdout past its buffer, which nobody could flush while a write to a full pipe waits."""
    stream = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    left = memoryview(line)
    while left:
        try:
            written = stream.write(left)
        except OSError as error:
            if is_closed_pipe(error):
                raise BrokenPipeError from error
            raise
        if not written:  # somebody has made stdout non-blocking
            time.sleep(0.01)
        left = left[written or 0 :]
