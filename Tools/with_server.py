"""Start a model server, run a command against it, and stop the server: a step of a script that brings its own model.

    python Tools/with_server.py --server "vllm serve merged --served-model-name mine --port 8123" \\
        --base-url http://localhost:8123/v1 -- python -m Evaluator --model mine \\
        --base-url http://localhost:8123/v1 --output report.json

The exit status is the command's, and so are stdin and stdout. `python` is the one that runs this script.
"""

import argparse
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.backends.default_weights import cache_folder
from Evaluator.console import run_main
from Evaluator.errors import FAILED, OK, ReportedError, UsageError
from Evaluator.flag_types import number
from Evaluator.model_flags import base_url
from Evaluator.runs.children import OWN_GROUP, wait_for
from Evaluator.runs.file_lock import take_lock
from Evaluator.runs.signals import Signals

log = logging.getLogger(__name__)

_POLL_S = 0.25
_LONGEST_GOODBYE_S = 20.0
"""So long a server may take to end before it is killed."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Start a model server, run a command when it answers, stop the server.",
        epilog="examples:\n"
        '  python Tools/with_server.py --server "vllm serve merged --served-model-name mine --port 8123" '
        "--base-url http://localhost:8123/v1 -- python -m Evaluator --model mine "
        "--base-url http://localhost:8123/v1 --output report.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--server", required=True, metavar="COMMAND", help="the command line that starts the server")
    parser.add_argument(
        "--base-url",
        type=base_url,
        required=True,
        metavar="URL",
        help="where it will answer, such as http://localhost:8123/v1; what answers there already is not used",
    )
    parser.add_argument(
        "--server-log",
        type=Path,
        metavar="FILE",
        help="what the server prints is added to this file (default: it goes to stderr)",
    )
    parser.add_argument(
        "--wait-s",
        type=number(float, 1),
        default=600.0,
        metavar="SECONDS",
        help="longest wait for its first answer (default: %(default)g)",
    )
    parser.add_argument("--verbose", action="store_true", help="show tracebacks and debug messages")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, after --")
    return parser


def run_with_server(args: argparse.Namespace) -> int:
    """Run the command while the server runs; give its exit status."""
    with Signals() as signals:
        signals.interrupt = False
        with place_taken(args.base_url):
            if reply(f"{args.base_url}/models"):
                raise ReportedError(f"a server answers at {args.base_url} already: stop it, or choose another port")
            with started(args.server, args.server_log) as server:
                wait_for_answer(server, args.base_url, args.wait_s, signals)
                status = command_status(args.command, signals)
                if status == OK and server.poll() is not None:
                    raise ReportedError(f"the server ended with status {server.returncode} before the command did")
                return status


@contextmanager
def place_taken(url: str) -> Iterator[None]:
    """Keep other runs of this user from starting a server at the same address: a server that is still loading does not
    answer, and some systems let two listen. Raises ReportedError where another run has it."""
    folder = cache_folder() / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{urlsplit(url).netloc.replace(':', '-')}.lock").open("ab") as lock:
        if not take_lock(lock):
            raise ReportedError(f"another command has a server at {url}: wait for its end, or choose another port")
        yield


def answers(url: str) -> bool:
    """Whether a server is ready there; one that wants an API key says so, one that is still loading says 503.

    llama.cpp's tells its models while it loads them, and its health beside /v1, where others are well or have nothing.
    """
    status = reply(f"{url}/models")
    return status is not None and status < 500 and reply(f"{url.removesuffix('/v1')}/health") != 503


def reply(address: str) -> int | None:
    """The status with which a server answers there; None where nothing does."""
    import requests

    with requests.Session() as session:
        session.trust_env = False  # no proxy stands between this machine and itself
        try:
            return session.get(address, timeout=5).status_code
        except (requests.RequestException, ValueError):  # ValueError: no address
            return None


@contextmanager
def started(command: str, log_path: Path | None) -> Iterator["subprocess.Popen[bytes]"]:
    """A server with all processes that it starts, ended when the block is left."""
    output = log_path.open("ab") if log_path else os.fdopen(os.dup(sys.stderr.fileno()), "wb")
    with output:
        try:
            server = _start(_words_of(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        except (OSError, IndexError, ValueError) as error:
            raise UsageError(f"cannot start the server {command!r}: {error}") from error
    try:
        yield server
    finally:
        _end(server)


def _words_of(command: str) -> Sequence[str] | str:
    if os.name != "nt":
        return shlex.split(command)
    program, _, rest = command.strip().partition(" ")
    found = shutil.which(program)  # Windows takes a line apart by itself, but would look beside Python first
    return f"{subprocess.list2cmdline([found])} {rest}" if found else command


def wait_for_answer(server: "subprocess.Popen[bytes]", url: str, seconds: float, signals: Signals) -> None:
    """Wait until the server answers. Raises ReportedError where it ends before, takes too long, or a signal comes."""
    deadline = time.monotonic() + seconds
    while not answers(url):
        if signals.received:
            raise _Stopped(signals.status)
        if server.poll() is not None:
            raise ReportedError(f"the server ended with status {server.returncode} before it answered at {url}")
        if time.monotonic() > deadline:
            raise ReportedError(f"the server did not answer at {url} within {seconds:g} s: see --wait-s")
        time.sleep(_POLL_S)
    if server.poll() is not None:
        raise ReportedError(f"the server ended with status {server.returncode}, and another one answers at {url}")


def command_status(command: Sequence[str], signals: Signals) -> int:
    """Run a command, pass signals on to it, and give its exit status; 1 where a signal ended it."""
    words = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    try:
        child = _start(words)
    except OSError as error:
        raise UsageError(f"cannot run {shlex.join(command)}: {error.strerror}") from error
    status = wait_for(child, signals)
    return status if status >= 0 else FAILED


class _Stopped(ReportedError):
    """A signal came before the command began."""

    def __init__(self, status: int) -> None:
        super().__init__("stopped before the server answered")
        self.status = status


def _start(words: Sequence[str] | str, **streams: Any) -> "subprocess.Popen[bytes]":
    """A process that Ctrl-C reaches only as it is passed on, and that on Linux ends when this one is killed."""
    parent_dies = {"preexec_fn": _die_with_parent} if sys.platform == "linux" else {}
    return subprocess.Popen(words, start_new_session=True, **parent_dies, **OWN_GROUP, **streams)


def _die_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, however it dies (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End a server and what it has started: kindly, then not, on Windows at once."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/t", "/f", "/pid", str(server.pid)], capture_output=True, check=False)
        server.wait()
        return
    for way in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, way)
            server.wait(timeout=_LONGEST_GOODBYE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: run_with_server(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
