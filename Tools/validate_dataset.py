"""Judge the rows of any JSONL of conversations: do their labels agree with the validator?

python Tools/validate_dataset.py selfplay.jsonl
cat monday.jsonl tuesday.jsonl | python Tools/validate_dataset.py --relabel - > relabelled.jsonl
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
from Evaluator.console import printable, run_main
from Evaluator.errors import FAILED, OK, UsageError
from Evaluator.flag_types import number
from Evaluator.judging_flags import add_judging_arguments, vault_folder
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.records import CHECKS, Verdict, to_json_line
from Evaluator.rejudge import CannotJudge, Judge, relabelled
from Evaluator.rows import BadLines, Row, read_rows
from Evaluator.vault.loading import load_folder
from Tools.own_output import refuse_own_output

log = logging.getLogger(__name__)
_NAMES = {True: "true", False: "false", None: "none"}


class Agreement:
    """Counts of rows by label and verdict, of checks passed and made, of codes, and of rows not judged."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[bool | None, bool]] = Counter()
        self.made: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self.not_judged: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()

    def add(self, row: Row, verdict: Verdict) -> None:
        self.rows[row.label, verdict.label] += 1
        self.made.update(name for name in CHECKS if verdict.checks[name] is not None)
        self.passed.update(name for name in CHECKS if verdict.checks[name])
        self.codes.update(set(verdict.codes))

    def table(self, num_codes: int) -> str:
        total = sum(self.rows.values())
        lines = [f"{total} rows judged", "", f"{'':14}{'verdict true':>14}{'verdict false':>15}"]
        for label in (True, False, None):
            counts = [self.rows[label, verdict] for verdict in (True, False)]
            if any(counts):
                lines.append(f"label {_NAMES[label]:8}{counts[0]:>14}{counts[1]:>15}")
        lines += [
            "",
            self._agreement(),
            "checks passed: " + ", ".join(f"{n} {self.passed[n]} of {self.made[n]}" for n in CHECKS),
        ]
        if self.codes:
            lines += ["", "commonest codes, in rows:"]
            by_count = sorted(self.codes.items(), key=lambda one: (-one[1], one[0]))
            lines += [f"{count:>8}  {printable(code)}" for code, count in by_count[:num_codes]]
        if self.not_judged:
            lines += ["", "not judged, in rows:"]
            lines += [f"{count:>8}  {printable(why)}" for why, count in sorted(self.not_judged.items())]
        return "\n".join(lines)

    def _agreement(self) -> str:
        """Agreement, and Cohen's kappa: (agreement - chance) / (1 - chance), J. Cohen 1960."""
        labelled = {key: count for key, count in self.rows.items() if key[0] is not None}
        total = sum(labelled.values())
        if not total:
            return "no row that was judged has a label"
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
        "  cat monday.jsonl tuesday.jsonl | python Tools/validate_dataset.py --relabel - > relabelled.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="*", metavar="FILE.jsonl|-", help="what to judge (default: -, stdin)")
    group = add_judging_arguments(parser)
    group.add_argument(
        "--prompt-set",
        type=Path,
        nargs="+",
        default=EVALUATION_SETS,
        metavar="FILE.json",
        help="prompt sets that rows may come from, found by their prompt_id (default: the bundled ones)",
    )
    group.add_argument(
        "--vault-path", type=vault_folder, metavar="DIR", help="the folder that rows were made with, if one was"
    )
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
    if not args.files and sys.stdin.isatty():
        raise UsageError("name a file to judge, or - for stdin")
    args.files = args.files or ["-"]
    if args.relabel:
        refuse_own_output(args.files)
    judge = Judge(
        load_catalog(args.catalog),
        {prompt.id: prompt for prompt in load_prompt_sets(args.prompt_set).prompts},
        [load_folder(args.vault_path)] if args.vault_path else [],
        args.execute,
    )
    agreement, bad_lines = Agreement(), BadLines()
    for row in bad_lines.without(read_rows(args.files)):
        try:
            verdict = judge.verdict(row)
        except CannotJudge as why:
            agreement.not_judged[str(why)] += 1
            if args.relabel:
                sys.stdout.buffer.write(to_json_line(row.data))
            continue
        agreement.add(row, verdict)
        if row.label is not None and row.label != verdict.label:
            log.debug("%s: label %s, verdict %s %s", row.where, row.label, verdict.label, " ".join(verdict.codes))
        if args.relabel:
            sys.stdout.buffer.write(to_json_line(relabelled(row, verdict)))
    print(agreement.table(args.num_codes), file=sys.stderr if args.relabel else sys.stdout)
    bad_lines.tell()
    if not agreement.rows and not agreement.not_judged:
        log.warning("warning: there are no rows in %s", ", ".join(args.files))
    if agreement.not_judged:
        log.warning("warning: %d rows were not judged and keep their labels", agreement.not_judged.total())
    return FAILED if bad_lines.num else OK


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: judge_files(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
