"""Fine-tune a model on right answers (SFT) with QLoRA, on one 24 GB GPU or slowly on a CPU.

python Trainers/rtx3090_sft/train_sft.py --model-size 7b --local-file selfplay.jsonl --output sft-7b
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from Evaluator.console import run_main
from Trainers.common.flags import (
    add_data_arguments,
    add_model_arguments,
    add_run_arguments,
    add_training_arguments,
)
from Trainers.common.sft import SFT
from Trainers.common.training_run import run_training


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Fine-tune a model on the rows whose label is true, or that have none.",
        epilog="examples:\n"
        "  python Trainers/rtx3090_sft/train_sft.py --model-size 7b --local-file selfplay.jsonl --dry-run\n"
        "  cat a.jsonl b.jsonl | python Trainers/rtx3090_sft/train_sft.py --model-size 7b --local-file - "
        "--output sft-7b",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    add_data_arguments(parser)
    group = add_training_arguments(parser, learning_rate=2e-4, batch_size=1, least_batch_size=1, accumulation=8)
    group.add_argument(
        "--packing",
        action=argparse.BooleanOptionalAction,
        help="put several rows into a sequence of --max-length tokens; they do not see each other (default: on a GPU)",
    )
    add_run_arguments(parser, output="sft-output")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: run_training(args, SFT()), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
