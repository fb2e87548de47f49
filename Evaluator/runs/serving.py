"""A server of the user's for merged weights: how it is started, and how a step asks the model that it serves.

Tools/with_server.py starts it for one command; this is what the plans of the loop and of the experiment know of it.
"""

import argparse
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from Evaluator.flag_types import number
from Evaluator.model_flags import base_url

SERVED_NAME = "arm"
"""What a server has to call the model, whichever it is, so that reports of several are alike."""
MERGED = "merged"
"""The folder of merged weights that `python -m Trainers.export --format safetensors` makes in its output."""
_TIMEOUT_S = 1800
"""Longest wait for an answer: on a slow machine all those that are asked at once come late, and none was forgotten."""


@dataclass(frozen=True)
class Server:
    """`line` starts it, with `{model}` for the folder of the weights; it answers at `base_url` and is sent
    `concurrency` requests at once."""

    line: str
    base_url: str
    concurrency: int

    def command(self, weights: Path, log: Path, *asking: str) -> tuple[str, ...]:
        """What follows `python` to run `asking` (a script or `-m MODULE`, and its flags) with these weights served."""
        place = ("--base-url", self.base_url)
        quoted = subprocess.list2cmdline([str(weights)]) if os.name == "nt" else shlex.quote(str(weights))
        line = self.line.replace("{model}", quoted)
        start = ("Tools/with_server.py", "--server", line, *place, "--server-log", str(log), "--", "python")
        return (*start, *asking, "--model", SERVED_NAME, *place, "--timeout", str(_TIMEOUT_S))


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who answers")
    group.add_argument(
        "--server",
        metavar="COMMAND",
        help="line that starts a server for merged weights, {model} in it stands for their folder, and calls them "
        f"{SERVED_NAME!r} (default: the embedded engine answers)",
    )
    group.add_argument(
        "--base-url",
        type=base_url,
        default="http://localhost:8123/v1",
        metavar="URL",
        help="where that server answers (default: %(default)s)",
    )
    group.add_argument(
        "--server-concurrency",
        type=number(int, 1),
        default=64,
        metavar="N",
        help="requests that it is sent at once (default: %(default)s)",
    )


def server_from(args: argparse.Namespace) -> Server | None:
    """The server that the flags name, None where the embedded engine shall answer."""
    return Server(args.server, args.base_url, args.server_concurrency) if args.server else None
