"""The journal of a run: every judged sample and every reject, appended and flushed as it comes.

The journal is the truth; the output, the rejects file and run.json are made from it. It is a JSONL file: first a
header with the settings, then lines that are either samples, byte for byte as the output holds them, or
{"reject": {...}}. Each belongs to a slot (its place among --num-examples) and an attempt (0, 1, ... until one gives
a sample), so a run that is started again knows what is missing, at any concurrency and after any kind of death.
"""

import contextlib
import json
import os
import sys
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from Evaluator.errors import UsageError
from Evaluator.records import Reject, Sample, to_json_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class JournalError(UsageError):
    """A journal that cannot be continued; the sentence says what differs and what to do."""


class Sink(Protocol):
    """Where judged attempts go, and their tally."""

    tally: "Tally"

    def add_sample(self, sample: Sample) -> None: ...

    def add_reject(self, reject: Reject) -> None: ...


@dataclass
class Tally:
    """What a journal holds, counted. `tools` counts the target tools of the samples, those labelled true apart."""

    labels: Counter[bool] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    tools_true: Counter[str] = field(default_factory=Counter)
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
            self.tools_true[tool] += label
        self.prompt_tokens += metadata["prompt_tokens"] or 0
        self.completion_tokens += metadata["completion_tokens"] or 0


class StdoutSink:
    """Samples straight to stdout as they come, flushed one by one; rejects are only counted."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._writing = threading.Lock()

    def add_sample(self, sample: Sample) -> None:
        data = sample.to_dict()
        with self._writing:
            sys.stdout.buffer.write(to_json_line(data))
            sys.stdout.buffer.flush()
            self.tally.count(sample.label, data["metadata"])

    def add_reject(self, reject: Reject) -> None:
        with self._writing:
            self.tally.rejects[reject.reason] += 1


class Journal:
    """An open journal, locked against a second run. Writing is safe from many threads."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Open or begin the journal at `path`. Raises JournalError where its settings differ, or a run holds it."""
        self.path = path
        self.tally = Tally()
        self._places = array("q")  # of each slot: twice the offset of its line, plus its label; -1 without a sample
        self._attempts: dict[int, int] = {}  # slot without a sample -> attempts made
        self._writing = threading.Lock()
        self._is_open = True
        self._file: BinaryIO = path.open("ab+", buffering=0)
        try:
            _lock(self._file, path)
            if overwrite:
                self._file.truncate(0)
            self._end = self._load(settings)
        except BaseException:
            self._file.close()
            raise

    def _load(self, settings: Mapping[str, Any]) -> int:
        """Read what is there, cut a torn last line off, and return the end."""
        end = 0
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as lines:  # buffered, same file
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._index(line, end, settings)
                end += len(line)
        if os.fstat(self._file.fileno()).st_size > end:
            self._file.truncate(end)
        if end == 0:
            end = self._write(to_json_line({"settings": settings}), 0)
        return end

    def _index(self, line: bytes, offset: int, settings: Mapping[str, Any]) -> None:
        try:
            entry = json.loads(line)
            if offset == 0:
                self._compare(entry["settings"], settings)
            elif "reject" in entry:
                self._note_reject(Reject(**entry["reject"]))
            else:
                self._note_sample(entry["metadata"]["slot"], entry["label"], entry["metadata"], offset)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalError(
                f"{self.path} is damaged at byte {offset}: give another --output, or --overwrite to begin anew"
            ) from error

    def _compare(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        different = [
            f"{name} was {_short(found.get(name))}, now {_short(wanted.get(name))}"
            for name in {**found, **wanted}
            if found.get(name) != wanted.get(name)
        ]
        if different:
            raise JournalError(
                f"{self.path} was made with other settings ({'; '.join(different)}): "
                "give another --output, or --overwrite to begin anew"
            )

    # -- writing ------------------------------------------------------------------------------------------------

    def add_sample(self, sample: Sample) -> None:
        data = sample.to_dict()
        line = to_json_line(data)
        with self._writing:
            if self._is_open:
                offset = self._end
                self._end = self._write(line, offset)
                self._note_sample(sample.metadata.slot, sample.label, data["metadata"], offset)

    def add_reject(self, reject: Reject) -> None:
        line = to_json_line({"reject": reject.to_dict()})
        with self._writing:
            if self._is_open:
                self._end = self._write(line, self._end)
                self._note_reject(reject)

    def _write(self, line: bytes, offset: int) -> int:
        """Append one whole line and return the new end; a line that does not fit is taken back."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(offset)
            error.filename = error.filename or str(self.path)
            raise
        return offset + len(line)

    def _note_sample(self, slot: int, label: bool, metadata: Mapping[str, Any], offset: int) -> None:
        if slot >= len(self._places):
            self._places.extend([-1] * (slot + 1 - len(self._places)))
        self._places[slot] = 2 * offset + label
        self._attempts.pop(slot, None)
        self.tally.count(label, metadata)

    def _note_reject(self, reject: Reject) -> None:
        self._attempts[reject.slot] = reject.attempt + 1
        self.tally.rejects[reject.reason] += 1

    def seal(self) -> None:
        """Take nothing more: what is still under way comes too late."""
        with self._writing:
            self._is_open = False

    def close(self) -> None:
        """Close the file and let go of the lock."""
        self.seal()
        self._file.close()

    # -- reading ------------------------------------------------------------------------------------------------

    def missing_slots(self, num_examples: int) -> Iterator[tuple[int, int]]:
        """(slot, attempts made so far) of each sample that the first `num_examples` slots still lack."""
        for slot in range(num_examples):
            if slot >= len(self._places) or self._places[slot] < 0:
                yield slot, self._attempts.get(slot, 0)

    def offsets(self, label: bool) -> list[int]:
        """Where the lines of the samples with this label start, by slot."""
        return [place >> 1 for place in self._places if place >= 0 and place & 1 == label]

    def sample_lines(self, offsets: Iterable[int]) -> Iterator[bytes]:
        """The lines of the samples at `offsets`, as the output holds them."""
        with self.path.open("rb") as lines:
            for offset in offsets:
                lines.seek(offset)
                yield lines.readline()

    def reject_lines(self) -> Iterator[bytes]:
        """All rejects in the order they came, one JSON line each."""
        with self.path.open("rb") as lines:
            next(lines)
            for line in lines:
                if line.startswith(b'{"reject"'):
                    yield to_json_line(json.loads(line)["reject"])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lock(file: BinaryIO, path: Path) -> None:
    """Hold `file` for this process. The system lets go of it when the process ends, however it ends."""
    try:
        if fcntl:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            file.seek(1 << 40)  # far behind the end: Windows lets nobody else read what is locked
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise JournalError(f"another run is writing {path}: wait for it, or give another --output") from error
