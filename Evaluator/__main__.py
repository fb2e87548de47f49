"""`python -m Evaluator` measures a model; `python -m Evaluator compare` compares two measurements."""

import sys
from collections.abc import Sequence

from Evaluator.console import run_main
from Evaluator.measure import build_parser, measure
from Evaluator.reports.compare_files import build_compare_parser, compare_files


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["compare"]:
        args = build_compare_parser().parse_args(argv[1:])
        return run_main(lambda: compare_files(args), verbose=args.verbose)
    args = build_parser().parse_args(argv)
    return run_main(lambda: measure(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
