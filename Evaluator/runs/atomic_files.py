"""Files that appear whole or not at all: a reader sees the old one or the new one, whatever dies."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PATIENCE_S = 3.0
"""So long a file may be held by others on Windows, a virus scanner for instance, where held files are not replaced."""


def write_atomically(path: Path, lines: Iterable[bytes]) -> None:
    """Write beside `path` and move into place. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as stream:
            stream.writelines(lines)
            stream.flush()
            os.fsync(stream.fileno())
        move_into_place(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, ensure_ascii: bool = True) -> None:
    """Write a value as indented JSON, like write_atomically."""
    write_atomically(path, [json.dumps(value, indent=1, ensure_ascii=ensure_ascii).encode() + b"\n"])


def move_into_place(made: Path, path: Path) -> None:
    """Give a file or folder its name, in place of the file that has it. Raises OSError."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            made.replace(path)
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
