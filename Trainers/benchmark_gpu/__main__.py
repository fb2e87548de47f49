"""What training takes on an NVIDIA GPU: peak memory and speed of SFT and KTO steps, ours against TRL's defaults.

    python -m Trainers.benchmark_gpu --output table.md

A model of random weights is written as a bf16 checkpoint and loaded as the trainers load any other, so that all but
weights and tokens, on whose values memory and time do not depend, is what a run has. Each case has a process of its
own, with torch's allocator limited to --memory-gb; running out of it is a result.
"""

import argparse
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from Evaluator.console import run_main
from Evaluator.errors import OK, ReportedError, UsageError
from Evaluator.flag_types import number
from Trainers.benchmark_gpu.cases import CASES, Measured, measure
from Trainers.benchmark_gpu.random_model import TINY, write_checkpoint
from Trainers.benchmark_gpu.table import note_lines, table_lines
from Trainers.common.model_sizes import MODEL_SIZES

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]


def benchmark(args: argparse.Namespace) -> int:
    """Measure every case --repeats times, in turn, and print the table. Raises UsageError without a GPU."""
    if args.case:
        with contextlib.redirect_stdout(sys.stderr):  # the libraries' chatter
            measured = measure(args)
        print(json.dumps(asdict(measured)))
        return OK
    check(args)
    shape = TINY if args.tiny else MODEL_SIZES[args.model_size].shape
    results: dict[str, list[Measured]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        check_room(folder, 2 * shape.parameters)
        log.info("writing a checkpoint of %.1f GB into %s", 2 * shape.parameters / 1e9, folder)
        write_checkpoint(shape, Path(folder))
        for repeat in range(1, args.repeats + 1):
            for case, measured in results.items():
                log.info("%s, run %d of %d", case, repeat, args.repeats)
                measured.append(run_case(args, case, folder))
    table = "\n".join([*table_lines(results), "", *note_lines(args, shape, results)]) + "\n"
    print(table, end="")
    if args.output:
        args.output.write_text(table, encoding="utf-8")
    return OK


def check(args: argparse.Namespace) -> None:
    import torch

    if not args.tiny and not torch.cuda.is_available():
        raise UsageError("torch finds no GPU to measure (is a CUDA build of torch installed?); --tiny needs none")
    if args.output and args.output.exists():
        raise UsageError(f"{args.output} exists already: choose another --output")


def check_room(folder: str, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.05 * size:
        raise UsageError(
            f"the checkpoint takes {size / 1e9:.1f} GB and {tempfile.gettempdir()} has {free / 1e9:.1f} GB: set "
            f"TMPDIR to a folder with more, or take a smaller --model-size"
        )


def run_case(args: argparse.Namespace, case: str, checkpoint: str) -> Measured:
    """Measure a case in a fresh process, on one card. Raises ReportedError when it fails but for the card's memory."""
    command = [sys.executable, "-m", "Trainers.benchmark_gpu", "--case", case, "--checkpoint", checkpoint]
    for name in ("memory_gb", "warm_up_steps", "steps", "seed"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    command += [f"--{name}" for name in ("tiny", "verbose") if getattr(args, name)]
    first_card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "" if args.tiny else first_card, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=env, check=False, cwd=ROOT
    )
    if result.returncode:
        raise ReportedError(f"{case} ended with status {result.returncode}; what it said stands above")
    return Measured(**json.loads(result.stdout.splitlines()[-1]))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m Trainers.benchmark_gpu",
        description="Measure peak memory and speed of training on an NVIDIA GPU, with random weights and rows.",
        epilog="examples:\n"
        "  python -m Trainers.benchmark_gpu --output table.md\n"
        "  python -m Trainers.benchmark_gpu --model-size 13b --repeats 1\n"
        "  python -m Trainers.benchmark_gpu --tiny --repeats 1 | head -6",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--model-size", choices=MODEL_SIZES, default="7b", help="the shape of the model (default: %(default)s)"
    )
    parser.add_argument(
        "--memory-gb",
        type=number(float, 0.1),
        default=24.0,
        metavar="GB",
        help="what torch may take of the card (default: %(default)g)",
    )
    parser.add_argument(
        "--warm-up-steps",
        type=number(int, 1),
        default=2,
        metavar="N",
        help="optimizer steps before time is taken (default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=number(int, 1), default=4, metavar="N", help="optimizer steps measured (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats",
        type=number(int, 1),
        default=3,
        metavar="N",
        help="runs of each case, taken in turn (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=number(int, 0), default=0, help="of lengths, tokens and order (default: %(default)s)"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="try it out: a tiny model, on the CPU; its memory is not measured"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the table there too; a new file")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks and the libraries' messages")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)  # the process of one case
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: benchmark(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
