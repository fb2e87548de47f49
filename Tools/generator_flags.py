"""The flags that both generators share: how answers are drawn, what is judged, where samples go."""

import argparse
from pathlib import Path

from Evaluator.catalog import DEFAULT_CATALOG
from Evaluator.model_flags import number


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


def add_catalog_argument(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--catalog",
        type=Path,
        default=DEFAULT_CATALOG,
        metavar="FILE.json",
        help="tool catalog to judge against (default: Claudesidian's 47 tools)",
    )


def add_judging_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("labels")
    add_catalog_argument(group)
    group.add_argument(
        "--execute",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="judge whether values are made up, and run each call on a throw-away vault (default: %(default)s)",
    )
    return group


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


class span:  # reads like a type in add_argument(type=...)
    """An argparse type: a number or a range LOW-HIGH within limits -> (low, high)."""

    def __init__(self, least: float, most: float) -> None:
        self._number = number(float, least, most)

    def __call__(self, text: str) -> tuple[float, float]:
        low, _, high = text.partition("-")
        try:
            limits = self._number(low), self._number(high or low)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range LOW-HIGH") from None
        if limits[0] > limits[1]:
            raise argparse.ArgumentTypeError(f"in {text!r} the first number is the larger one")
        return limits
