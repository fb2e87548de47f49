"""The journal of a run: every judged sample and every reject, appended and flushed as it comes.

The journal is the truth; the output, the rejects file and run.json are made from it. It is a JSONL file: first a
header with the settings, then lines that are either samples, byte for byte as the output holds them, or
{"reject": {...}}. Each belongs to a slot (its place among --num-examples) and an attempt (0, 1, ... until one gives
a sample), so a run that is started again knows what is missing, at any concurrency and after any kind of death.
"""

import json
import os
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from Evaluator.errors import UsageError
from Evaluator.records import Reject, Sample, to_json_line
from Evaluator.runs.file_lock import take_lock
from Evaluator.runs.sinks import Holes, Tally

_BEGINNING = b'{"settings"'


class JournalError(UsageError):
    """A journal that cannot be continued; the sentence says what differs and what to do."""


class Journal:
    """An open journal, locked against a second run. Writing is safe from many threads."""

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False, attempts_per_cell: int = 0
    ) -> None:
        """Open the journal at `path`. Raises JournalError where its settings differ, or another run holds it.

        A new journal begins with its first entry: until then nothing is written, and `overwrite` destroys nothing.
        """
        self.path = path
        self.tally = Tally()
        self._holes = Holes(attempts_per_cell, self.tally)
        self.settings = json.loads(json.dumps(settings))
        self._places = array("q")  # of each slot: twice the offset of its line, plus its label; -1 without a sample
        self._attempts: dict[int, int] = {}  # slot without a sample -> attempts made
        self._writing = threading.Lock()
        self._is_open = True
        self._file: BinaryIO = path.open("ab+", buffering=0)
        try:
            if not take_lock(self._file):
                raise JournalError(f"another run is writing {path}: wait for it, or give another --output")
            self._end = 0 if overwrite else self._load()
        except BaseException:
            self._file.close()
            raise

    @property
    def has_entries(self) -> bool:
        return bool(self.tally.samples or self.tally.rejects)

    @property
    def size(self) -> int:
        """Bytes of this run's journal; 0 while it has no entries."""
        return self._end

    def _load(self) -> int:
        """Read what is there, cut a torn last line off, and return the end; 0 for a journal without entries."""
        header, end = None, 0
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as lines:  # buffered, same file
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                if end == 0:
                    header = self._parse(line, end).get("settings")
                else:
                    self._index(line, end)
                end += len(line)
        if not self.has_entries:
            self._refuse_anothers()
            return 0
        self._compare(header)
        if os.fstat(self._file.fileno()).st_size > end:
            self._file.truncate(end)
        return end

    def _refuse_anothers(self) -> None:
        """Raise JournalError for a file without entries that is no beginning of a journal, torn or whole."""
        self._file.seek(0)
        if not _BEGINNING.startswith(self._file.read(len(_BEGINNING))):
            raise self._damaged(0)

    def _index(self, line: bytes, offset: int) -> None:
        entry = self._parse(line, offset)
        try:
            if "reject" in entry:
                self._note_reject(Reject(**entry["reject"]))
            else:
                self._note_sample(entry["metadata"]["slot"], entry["label"], entry["metadata"], offset)
        except (KeyError, TypeError, AttributeError) as error:
            raise self._damaged(offset) from error

    def _parse(self, line: bytes, offset: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise self._damaged(offset) from error
        if not isinstance(entry, dict):
            raise self._damaged(offset)
        return entry

    def _damaged(self, offset: int) -> JournalError:
        return JournalError(
            f"{self.path} is damaged at byte {offset}: give another --output, or --overwrite to begin anew"
        )

    def _compare(self, found: Any) -> None:
        if not isinstance(found, dict):
            raise self._damaged(0)
        wanted = self.settings
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
                offset = self._write(line)
                self._note_sample(sample.metadata.slot, sample.label, data["metadata"], offset)

    def add_reject(self, reject: Reject) -> bool:
        line = to_json_line({"reject": reject.to_dict()})
        with self._writing:
            if not self._is_open:
                return False
            self._write(line)
            return self._note_reject(reject)

    def _write(self, line: bytes) -> int:
        """Append one whole line, after the header if it is the first, and return where it starts."""
        if self._end == 0:
            self._file.truncate(0)
            self._end = self._append(to_json_line({"settings": self.settings}), 0)
        start = self._end
        self._end = self._append(line, start)
        return start

    def _append(self, line: bytes, offset: int) -> int:
        """Write one line at the end, `offset`, and return the new end; a line that does not fit is taken back."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            error.filename = error.filename or str(self.path)
            self._take_back(offset)
            raise
        return offset + len(line)

    def _take_back(self, offset: int) -> None:
        try:
            self._file.truncate(offset)
        except OSError:
            self._is_open = False  # a later line must not follow half of this one

    def _note_sample(self, slot: int, label: bool, metadata: Mapping[str, Any], offset: int) -> None:
        if slot >= len(self._places):
            self._places.extend([-1] * (slot + 1 - len(self._places)))
        self._places[slot] = 2 * offset + label
        self._attempts.pop(slot, None)
        self._holes.fill(slot)
        self.tally.count(label, metadata)

    def _note_reject(self, reject: Reject) -> bool:
        self._attempts[reject.slot] = reject.attempt + 1
        self.tally.rejects[reject.reason] += 1
        return self._holes.note(reject.slot, reject.cell)

    def seal(self) -> None:
        """Take nothing more: what is still under way comes too late."""
        with self._writing:
            self._is_open = False

    def close(self) -> None:
        """Close the file and let go of the lock; a file without a single byte goes."""
        self.seal()
        is_empty = os.fstat(self._file.fileno()).st_size == 0
        self._file.close()
        if is_empty:
            self.path.unlink(missing_ok=True)

    # -- reading ------------------------------------------------------------------------------------------------

    def missing_slots(self, num_examples: int) -> Iterator[tuple[int, int]]:
        """(slot, attempts made so far) of each sample that the first `num_examples` slots lack and may still get."""
        for slot in range(num_examples):
            if (slot >= len(self._places) or self._places[slot] < 0) and slot not in self._holes.slots:
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

    def requests(self) -> Iterator[tuple[int, str]]:
        """(slot, request) of each sample."""
        for line in self.sample_lines(place >> 1 for place in self._places if place >= 0):
            sample = json.loads(line)
            asked = [turn["content"] for turn in sample["conversations"] if turn["role"] == "user"]
            yield sample["metadata"]["slot"], asked[-1]

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
