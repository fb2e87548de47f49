"""Teach a model the difference between right and wrong answers (KTO) with QLoRA, on one 24 GB GPU or a CPU.

python Trainers/rtx3090_kto/train_kto.py --model-size 7b --adapter sft-7b --local-file selfplay.jsonl --output kto-7b
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from Evaluator.console import run_main
from Evaluator.flag_types import number
from Trainers.common.answer_parts import PARTS
from Trainers.common.flags import (
    add_data_arguments,
    add_model_arguments,
    add_run_arguments,
    add_training_arguments,
)
from Trainers.common.kto import KTO
from Trainers.common.training_run import run_training


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train a model on rows of both labels: true answers become likelier, false ones less likely.",
        epilog="examples:\n"
        "  python Trainers/rtx3090_kto/train_kto.py --model-size 7b --adapter sft-7b --local-file selfplay.jsonl\n"
        "  cat a.jsonl b.jsonl | python Trainers/rtx3090_kto/train_kto.py --model-size 7b --adapter sft-7b "
        "--local-file - --output kto-7b",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    add_data_arguments(parser)
    group = add_training_arguments(parser, learning_rate=5e-6, batch_size=4, least_batch_size=2, accumulation=4)
    group.add_argument(
        "--beta",
        type=number(float, 0.001),
        default=0.1,
        metavar="X",
        help="how closely the model stays to the reference: higher is closer (default: %(default)s)",
    )
    for label, class_ in (("desirable", "true"), ("undesirable", "false")):
        group.add_argument(
            f"--{label}-weight",
            type=number(float, 0.001),
            metavar="X",
            help=f"weight of rows with label {class_} (default: from the counts of both)",
        )
    group.add_argument(
        "--mask",
        nargs="+",
        choices=PARTS,
        default=[],
        metavar="PART",
        help=f"parts of answers that are read and not scored, of {', '.join(PARTS)}: session ids that answers make up "
        "where the prompt gives none, texts in a call's context, the end of turn of rows with label false, the whole "
        "of such rows that call no tool; rows that are wrong in such a part alone are left out (default: none)",
    )
    add_run_arguments(parser, output="kto-output")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: run_training(args, KTO()), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
