"""The flags that both generators share: how answers are drawn, where samples go."""

import argparse
from pathlib import Path

from Evaluator.flag_types import number, span


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--temperature",
        type=span(0, 5),
        default=(0.3, 0.9),
        metavar="T|LOW-HIGH",
        help="sampling temperature, drawn anew for each attempt from a range (default: 0.3-0.9)",
    )
    group.add_argument(
        "--top-p",
        type=span(0, 1),
        metavar="P|LOW-HIGH",
        help="nucleus sampling, a value or a range (default: what the endpoint does)",
    )
    group.add_argument(
        "--max-tokens",
        type=number(int, 1),
        default=512,
        metavar="N",
        help="longest answer in tokens; answers cut off there are rejected, not labelled (default: %(default)s)",
    )
    group.add_argument(
        "--seed", type=int, default=0, help="same seed: same prompts and sampling parameters (default: %(default)s)"
    )


def add_output_arguments(parser: argparse.ArgumentParser, *, num_examples_default: str) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        type=_output,
        required=True,
        metavar="FILE.jsonl|-",
        help="where samples go; the same command run again resumes. '-' streams them to stdout",
    )
    group.add_argument(
        "--num-examples",
        type=number(int, 1),
        metavar="N",
        help=f"samples that the output shall hold in all (default: {num_examples_default})",
    )
    group.add_argument(
        "--round",
        type=number(int, 0),
        metavar="R",
        help="which turn of a loop of self-play and training this is; a note in the rows (default: none)",
    )
    group.add_argument(
        "--overwrite",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="begin anew over an output that exists (default: %(default)s)",
    )
    group.add_argument(
        "--include-results",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="write the vault's result after each call, as Result: {...} (default: %(default)s)",
    )
    group.add_argument("--verbose", action="store_true", help="show tracebacks and debug messages")


def _output(text: str) -> str:
    """An argparse type: '-', or a file name from which the names of the other files can be made."""
    if text != "-" and (not text.endswith(".jsonl") or Path(text).is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a file name that ends in .jsonl nor -")
    return text
