"""How a program ends: messages on stderr, an exit status, one sentence for an error, quiet on a closed pipe."""

import errno
import io
import logging
import os
import sys
from collections.abc import Callable

from Evaluator.errors import FAILED, INTERRUPTED, READER_WENT_AWAY, USAGE, ReportedError

log = logging.getLogger(__name__)

EXTRAS = {"xllamacpp": "embedded", "jinja2": "report"} | dict.fromkeys(
    ("torch", "trl", "transformers", "peft", "datasets", "accelerate", "bitsandbytes", "gguf"), "train"
)
"""Packages that come with an extra of this project."""
OWN_PACKAGES = {"Evaluator", "Tools", "Trainers"}


def run_main(work: Callable[[], int], *, verbose: bool = False) -> int:
    """Run `work` and return its exit status; errors become one sentence on stderr (`verbose` adds the traceback)."""
    logging.basicConfig(
        stream=sys.stderr, format="%(message)s", level=logging.DEBUG if verbose else logging.INFO, force=True
    )
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):  # data is UTF-8 everywhere; what it cannot hold becomes `?`
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    try:
        status = work()
        if sys.stdout:  # None where it was closed
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        log.error("interrupted")
        return INTERRUPTED
    except ReportedError as error:
        log.error("error: %s", error, exc_info=verbose)
        return error.status
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] in OWN_PACKAGES:
            raise
        what = f'".[{EXTRAS[name]}]"' if name in EXTRAS else "."
        log.error("error: the package %s is not installed: run `pip install -e %s`", name, what, exc_info=verbose)
        return USAGE
    except OSError as error:
        if is_closed_pipe(error):
            _discard_stdout()
            return READER_WENT_AWAY
        log.error("error: %s", describe_os_error(error), exc_info=verbose)
        _flush_or_discard_stdout()
        return FAILED


def printable(text: str) -> str:
    """A text that stays on its line of a terminal: line breaks and control characters become blanks."""
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def is_closed_pipe(error: OSError) -> bool:
    """Whether nobody reads any more what is written. Windows' C library says EINVAL, of a write that names no file."""
    is_windows_own = os.name == "nt" and error.errno == errno.EINVAL and error.filename is None
    return is_windows_own or isinstance(error, BrokenPipeError)


def describe_os_error(error: OSError) -> str:
    """`No space left on device: data.jsonl`, or as much of it as the error knows."""
    filename = error.filename2 or error.filename  # what was moved, and where to
    return f"{error.strerror or error}: {filename}" if filename else f"{error.strerror or error}"


def _flush_or_discard_stdout() -> None:
    """Write what waits to be written, where that was not what failed."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        _discard_stdout()


def _discard_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
