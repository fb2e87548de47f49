"""The file of what a teacher wrote: nothing that was paid for is lost, or asked for twice.

A JSONL file that only grows, one fact a line:

    {"order": ID, "text": TEXT, "model": NAME}          a request that was written
    {"tokens": [INPUT, OUTPUT], "model": NAME}          what a call cost, whatever came of it
    {"batch": ID, "model": NAME, "orders": {REQUEST_ID: [ORDER_ID, ...]}, "most_tokens": N}     handed in
    {"batch_done": ID, "tokens": [INPUT, OUTPUT], "model": NAME}        its results are in the lines before
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from Evaluator.errors import UsageError
from Evaluator.records import to_json_line
from Evaluator.runs.file_lock import take_lock


@dataclass(frozen=True)
class Kept:
    """A text and the name of the model that wrote it."""

    text: str
    model: str


@dataclass(frozen=True)
class OpenBatch:
    """A batch that was handed in and is not collected yet: the orders of each of its requests.

    `most_tokens` is what it may cost, input and output together.
    """

    id: str
    model: str
    orders: Mapping[str, Sequence[str]]
    most_tokens: int


class PromptsFile:
    """Texts by the ids of their orders, the tokens they cost, and batches not collected yet. Safe for many threads.

    A file belongs to one process at a time, because its tokens count for one budget.
    """

    def __init__(self, path: Path | None) -> None:
        """Open `path`, or keep everything in memory only. A last line without its end, of a killed process, is cut off.

        Raises UsageError where another run has the file, or a line is damaged.
        """
        self.path = path
        self._texts: dict[str, Kept] = {}
        self._tokens = (0, 0)
        self._batches: dict[str, OpenBatch] = {}
        self._writing = threading.Lock()
        self._file: BinaryIO | None = None
        self._end = 0
        if path is not None:
            self._open(path)

    def __enter__(self) -> "PromptsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, path: Path) -> None:
        self._file = path.open("ab+", buffering=0)
        try:
            if not take_lock(self._file):
                raise UsageError(f"another run is writing {path}: wait for it, or give another file")
            self._end = self._load(path)
            if self._end == 0 and not _may_be_ours(path):
                raise UsageError(f"{path} is no file of a teacher's requests: give another --prompts-file")
            if os.fstat(self._file.fileno()).st_size > self._end:
                self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise

    def _load(self, path: Path) -> int:
        """Read the whole lines and return where they end."""
        end = 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._note(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    raise UsageError(
                        f"{path} is damaged in line {number}: mend that line or take it out, or give another file"
                    ) from error
                end += len(line)
        return end

    # -- reading --------------------------------------------------------------------------------------------------

    def text(self, order_id: str) -> Kept | None:
        return self._texts.get(order_id)

    @property
    def num_texts(self) -> int:
        return len(self._texts)

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens of all calls and collected batches, in every run that wrote this file."""
        return self._tokens

    @property
    def most_tokens(self) -> int:
        """What is spent, and what the open batches may cost at worst, input and output together."""
        with self._writing:
            return sum(self._tokens) + sum(batch.most_tokens for batch in self._batches.values())

    def open_batches(self) -> list[OpenBatch]:
        """Batches that were handed in and are not closed, oldest first."""
        with self._writing:
            return list(self._batches.values())

    # -- writing --------------------------------------------------------------------------------------------------

    def add(self, texts: Mapping[str, str], model: str, tokens: tuple[int, int]) -> None:
        """Keep what one call wrote, by order id, and what it cost: the cost first, so that no kill hides it."""
        self._append([_cost(model, tokens), *_lines(texts, model)])

    def spend(self, model: str, tokens: tuple[int, int]) -> None:
        """Keep what a call cost that wrote nothing of use."""
        self._append([_cost(model, tokens)])

    def add_batch(self, batch: OpenBatch) -> None:
        """Note a batch that was handed in; it is on the disk when this returns."""
        line = {"batch": batch.id, "model": batch.model, "orders": batch.orders, "most_tokens": batch.most_tokens}
        self._append([line], is_synced=True)

    def close_batch(self, batch_id: str, texts: Mapping[str, str], tokens: tuple[int, int]) -> None:
        """Keep the results of a batch, and that they are all there. A kill in between is harmless: the batch is still
        open then, and collecting it again gives the same texts and counts its tokens once."""
        model = self._batches[batch_id].model
        new = {order_id: text for order_id, text in texts.items() if order_id not in self._texts}
        self._append(_lines(new, model), is_synced=True)
        self._append([{"batch_done": batch_id, **_cost(model, tokens)}], is_synced=True)

    def close(self) -> None:
        """Close the file and let go of it; one without a single byte goes. What is added later stays in memory only."""
        with self._writing:
            file, self._file = self._file, None
            if file is not None:
                is_empty = os.fstat(file.fileno()).st_size == 0
                file.close()
                if is_empty:
                    self.path.unlink(missing_ok=True)

    def _append(self, entries: Sequence[Mapping[str, Any]], *, is_synced: bool = False) -> None:
        lines = [to_json_line(entry) for entry in entries]
        with self._writing:
            if self._file is not None:
                self._write(self._file, b"".join(lines), is_synced)
            for line in lines:
                self._note(json.loads(line))  # as the next run will read it

    def _write(self, file: BinaryIO, data: bytes, is_synced: bool) -> None:
        """All of `data` or nothing: what follows half a line would be lost with it."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
            if is_synced:
                os.fsync(file.fileno())
        except BaseException as error:
            file.truncate(self._end)
            if isinstance(error, OSError):
                error.filename = error.filename or str(self.path)
            raise
        self._end += len(data)

    def _note(self, entry: dict[str, Any]) -> None:
        """Take one line in. Raises KeyError, TypeError, ValueError or AttributeError where it is none of ours."""
        if "order" in entry:
            self._texts.setdefault(_text(entry["order"]), Kept(_text(entry["text"]), _text(entry["model"])))
        elif "batch" in entry:
            orders = {request: [_text(order) for order in ids] for request, ids in entry["orders"].items()}
            batch = OpenBatch(_text(entry["batch"]), _text(entry["model"]), orders, _count(entry["most_tokens"]))
            self._batches[batch.id] = batch
        else:
            spent_in, spent_out = entry["tokens"]
            self._tokens = (self._tokens[0] + _count(spent_in), self._tokens[1] + _count(spent_out))
            self._batches.pop(entry.get("batch_done"), None)


_BEGINNINGS = (b'{"tokens": [', b'{"order": "', b'{"batch": "', b'{"batch_done": "')


def _may_be_ours(path: Path) -> bool:
    """Whether a file without one whole line is empty, or the torn first line of a killed process."""
    with path.open("rb") as file:
        start = file.read(max(map(len, _BEGINNINGS)))
    return any(start.startswith(one) or one.startswith(start) for one in _BEGINNINGS)


def _lines(texts: Mapping[str, str], model: str) -> list[dict[str, Any]]:
    return [{"order": order_id, "text": text, "model": model} for order_id, text in texts.items()]


def _cost(model: str, tokens: tuple[int, int]) -> dict[str, Any]:
    return {"tokens": [_count(number) for number in tokens], "model": model}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value
