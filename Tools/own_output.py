"""A file that is read while it is written, with `>` or `>>`, is lost or has no end: it is refused, as cat does."""

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from Evaluator.errors import UsageError


def refuse_own_output(files: Iterable[str]) -> None:
    """Raise UsageError where stdout goes to one of these files; `-` is stdin."""
    try:
        out = os.fstat(sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # there is none, or none of the system's
        return
    if not stat.S_ISREG(out.st_mode):
        return
    for file in files:
        path = Path("/dev/stdin" if file == "-" else file)
        if path.exists() and os.path.samestat(out, path.stat()):
            raise UsageError(f"{file} is read and written at once: write to another file, and move it afterwards")
