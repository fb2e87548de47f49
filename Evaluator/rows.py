"""Rows of any conversation dataset, read one by one: this project's own and others of the same form.

A row is an object with `conversations`, a list of messages with `role` and `content` (and native `tool_calls`), and
as far as there, `label` and `metadata`.
"""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.records import Message

log = logging.getLogger(__name__)

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Row:
    """One row: `data` is the object as it stood in the file, `label` None where it has none."""

    where: str
    data: Mapping[str, Any]
    messages: Sequence[Message]
    label: bool | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class BadLine:
    """A line that holds no row, and why."""

    where: str
    why: str


class BadLines:
    """Passes rows on, tells of the first lines that hold none, and counts them all."""

    SHOWN = 20

    def __init__(self) -> None:
        self.num = 0

    def without(self, rows: Iterable[Row | BadLine]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, Row):
                yield row
                continue
            self.num += 1
            if self.num <= self.SHOWN:
                log.error("%s: %s", row.where, row.why)

    def tell(self) -> None:
        """Say how many there were, if there were any."""
        if self.num:
            more = f", the first {self.SHOWN} are shown" if self.num > self.SHOWN else ""
            log.error("%d lines hold no row%s", self.num, more)


def read_rows(sources: Sequence[str]) -> Iterator[Row | BadLine]:
    """The rows of JSONL files in order; `-` is stdin. Empty lines are passed over. Raises UsageError."""
    for source in sources:
        if source == "-":
            yield from rows_of("stdin", sys.stdin.buffer)
            continue
        try:
            with Path(source).open("rb") as file:
                yield from rows_of(source, file)
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error.strerror}") from error


def rows_of(name: str, lines: Iterable[bytes]) -> Iterator[Row | BadLine]:
    """The rows of a file's lines."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _row_from(f"{name}:{number}", line)


_OTHER_FILES = {
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"PAR1": "Parquet: write its rows as JSON, one a line",
    b"\xff\xfe": "UTF-16, as > in Windows PowerShell writes it: have it written as UTF-8",
}
"""What the first bytes of files say that hold rows in a form that is not read."""


def _row_from(where: str, line: bytes) -> Row | BadLine:
    """One line as a row, or why it is none. Raises UsageError where it shows that no line of the file can be read."""
    for beginning, what in _OTHER_FILES.items():
        if line.startswith(beginning):
            raise UsageError(f"{where} is {what}")
    if line.lstrip().startswith(b"["):
        return BadLine(where, "a JSON list: rows stand one a line, as jq -c '.[]' writes them")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else error
        return BadLine(where, f"no JSON: {why}")
    turns = data.get("conversations") if isinstance(data, dict) else None
    if not isinstance(turns, list) or not turns:
        return BadLine(where, 'no object with a list "conversations"')
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES:
            return BadLine(where, f'a message needs a "role", one of {", ".join(_ROLES)}')
        if not isinstance(turn.get("content"), str | None) or not isinstance(turn.get("tool_calls"), list | None):
            return BadLine(where, 'the "content" of a message is a string or null, its "tool_calls" a list')
    if not any(turn["role"] == "assistant" for turn in turns):
        return BadLine(where, "a conversation without an assistant turn")
    label, metadata = data.get("label"), data.get("metadata")
    if not isinstance(label, bool | None):
        return BadLine(where, f'the "label" is {label!r}, neither true nor false')
    messages = tuple(Message(t["role"], t.get("content"), tuple(t.get("tool_calls") or ())) for t in turns)
    return Row(where, data, messages, label, metadata if isinstance(metadata, dict) else {})
