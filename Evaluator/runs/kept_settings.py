"""The settings of a folder that commands work in again and again: written once, and the same from then on."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.runs.atomic_files import write_json

_END_BYTES = 1 << 20


def keep_settings(path: Path, settings: Mapping[str, Any], what: str) -> None:
    """Write settings to the file `path`, or compare them with those that it has; `what` works in the folder, "a loop".

    Raises UsageError where the file has others, with all that differ, or cannot be read.
    """
    now = json.loads(json.dumps(settings, default=str))
    try:
        kept = json.loads(path.read_bytes())
    except FileNotFoundError:
        write_json(path, now)
        return
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(kept, dict):
        raise UsageError(f"cannot read {path}: it holds no settings")
    differing = [
        f"{name} was {kept.get(name)}, is {now.get(name)}"
        for name in {**kept, **now}
        if kept.get(name) != now.get(name)
    ]
    if differing:
        raise UsageError(
            f"{path.parent} holds {what} with other settings ({'; '.join(differing)}): give another folder"
        )


def file_fingerprint(path: Path) -> str | None:
    """Size and a hash of both ends of a file, which tell one state of a model from another; None without a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = hashlib.sha256(file.read(_END_BYTES))
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read())
    except OSError:
        return None
    return f"{size}:{digest.hexdigest()[:16]}"
