"""Judge the rows of any JSONL of conversations: do their labels agree with the validator?

python Tools/validate_dataset.py selfplay.jsonl
cat *.jsonl | python Tools/validate_dataset.py --relabel - > relabelled.jsonl
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import load_catalog
from Evaluator.console import run_main
from Evaluator.errors import FAILED, OK
from Evaluator.model_flags import number
from Evaluator.prompt_sets import HELDOUT_PROMPTS, TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import CHECKS, Verdict, to_json_line
from Evaluator.rejudge import Judge, relabelled
from Evaluator.rows import BadLine, Row, read_rows
from Evaluator.vault.loading import load_folder
from Tools.generator_flags import add_judging_arguments

log = logging.getLogger(__name__)
_NAMES = {True: "true", False: "false", None: "none"}


class Agreement:
    """Counts of rows by label and verdict, and of codes."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[bool | None, bool]] = Counter()
        self.made: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()

    def add(self, row: Row, verdict: Verdict) -> None:
        self.rows[row.label, verdict.label] += 1
        self.made.update(name for name in CHECKS if verdict.checks[name] is not None)
        self.codes.update(set(verdict.codes))

    def table(self, num_codes: int) -> str:
        total = sum(self.rows.values())
        lines = [f"{total} rows judged", "", f"{'':14}{'verdict true':>14}{'verdict false':>15}"]
        for label in (True, False, None):
            counts = [self.rows[label, verdict] for verdict in (True, False)]
            if any(counts):
                lines.append(f"label {_NAMES[label]:8}{counts[0]:>14}{counts[1]:>15}")
        lines += ["", self._agreement(), "checks made: " + ", ".join(f"{name} {self.made[name]}" for name in CHECKS)]
        if self.codes:
            lines += ["", "commonest codes, in rows:"]
            lines += [f"{count:>8}  {code}" for code, count in self.codes.most_common(num_codes)]
        return "\n".join(lines)

    def _agreement(self) -> str:
        """Agreement, and Cohen's kappa: (agreement - chance) / (1 - chance), J. Cohen 1960."""
        labelled = {key: count for key, count in self.rows.items() if key[0] is not None}
        total = sum(labelled.values())
        if not total:
            return "no row has a label"
        agreed = sum(count for (label, verdict), count in labelled.items() if label == verdict) / total
        shares = [sum(count for key, count in labelled.items() if key[side]) / total for side in (0, 1)]
        chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
        kappa = f", kappa {(agreed - chance) / (1 - chance):.3f}" if chance < 1 else ""
        return f"label and verdict agree in {agreed:.1%} of {total} labelled rows{kappa}"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Judge the rows of JSONL files of conversations and tell how far labels and verdicts agree.",
        epilog="examples:\n"
        "  python Tools/validate_dataset.py selfplay.jsonl guided.jsonl\n"
        "  cat *.jsonl | python Tools/validate_dataset.py --relabel - > relabelled.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="*", default=["-"], metavar="FILE.jsonl|-", help="what to judge; - is stdin")
    group = add_judging_arguments(parser)
    group.add_argument(
        "--prompt-set",
        type=Path,
        nargs="+",
        default=[TOOL_PROMPTS, HELDOUT_PROMPTS],
        metavar="FILE.json",
        help="prompt sets that rows may come from, found by their prompt_id (default: the bundled ones)",
    )
    group.add_argument("--vault-path", type=Path, metavar="DIR", help="the folder that rows were made with, if one was")
    group = parser.add_argument_group("output")
    group.add_argument(
        "--relabel",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="write the rows with the verdict for a label to stdout, the report to stderr (default: %(default)s)",
    )
    group.add_argument(
        "--num-codes", type=number(int, 0), default=10, metavar="N", help="codes to list (default: %(default)s)"
    )
    group.add_argument("--verbose", action="store_true", help="show tracebacks, and each row whose label differs")
    return parser


def judge_files(args: argparse.Namespace) -> int:
    judge = Judge(
        load_catalog(args.catalog),
        {prompt.id: prompt for prompt in load_prompt_sets(args.prompt_set).prompts},
        [load_folder(args.vault_path)] if args.vault_path else [],
        args.execute,
    )
    agreement, num_bad = Agreement(), 0
    for row in read_rows(args.files):
        if isinstance(row, BadLine):
            num_bad += 1
            log.error("%s: %s", row.where, row.why)
            continue
        verdict = judge.verdict(row)
        agreement.add(row, verdict)
        if row.label is not None and row.label != verdict.label:
            log.debug("%s: label %s, verdict %s %s", row.where, row.label, verdict.label, " ".join(verdict.codes))
        if args.relabel:
            sys.stdout.buffer.write(to_json_line(relabelled(row, verdict)))
    print(agreement.table(args.num_codes), file=sys.stderr if args.relabel else sys.stdout)
    if num_bad:
        log.error("%d lines hold no row", num_bad)
    return FAILED if num_bad else OK


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: judge_files(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
