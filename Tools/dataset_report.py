"""Look at a dataset: labels, checks, tools, repeats, diversity, leaks, and whether it is healthy enough to train on.

python Tools/dataset_report.py selfplay.jsonl --html selfplay.html
cat round_1.jsonl round_2.jsonl | python Tools/dataset_report.py --gate --json - > numbers.json
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import Catalog, load_catalog
from Evaluator.console import run_main
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.errors import FAILED, OK, UsageError
from Evaluator.judging_flags import add_catalog_argument
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.reports.page import check_page
from Evaluator.rows import BadLines, read_rows
from Evaluator.runs.atomic_files import write_atomically
from Tools.report.card import check_card, make_card
from Tools.report.counts import Counts
from Tools.report.limits import DEFAULT_LIMITS, Limit, judge, load_limits
from Tools.report.numbers import make_numbers
from Tools.report.row_counter import WRITTEN, RowCounter, count_rejects
from Tools.report.saving import SUFFIX, is_counts_file, load_counts, to_bytes
from Tools.report.text import as_text

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Tell in numbers what JSONL files of conversations hold, and warn where they are not healthy.",
        epilog="examples:\n"
        "  python Tools/dataset_report.py selfplay.jsonl --html selfplay.html --card selfplay.card.md\n"
        "  python Tools/dataset_report.py round_1.counts.json.gz round_2.jsonl --gate limits.json\n"
        "  cat round_1.jsonl round_2.jsonl | python Tools/dataset_report.py --gate --json - > numbers.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar=f"FILE.jsonl|FILE{SUFFIX}|-",
        help="what to count, or what --save wrote (default: -, stdin)",
    )
    group = parser.add_argument_group("counting")
    add_catalog_argument(group)
    group.add_argument(
        "--prompt-set",
        type=Path,
        nargs="+",
        default=EVALUATION_SETS,
        metavar="FILE.json",
        help="evaluation prompts that no row may overlap (default: the bundled sets)",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the numbers as JSON")
    group.add_argument(
        "--html", type=_named(".html"), metavar="FILE.html", help="write a page with plots as one HTML file"
    )
    group.add_argument("--card", type=_named(".md"), metavar="FILE.md", help="write a dataset card for a hub")
    group.add_argument("--license", metavar="ID", help="the licence that the card names, such as cc-by-4.0")
    group.add_argument(
        "--save", type=_named(SUFFIX), metavar=f"FILE{SUFFIX}", help="write what was counted, to add it to other files"
    )
    group.add_argument(
        "--overwrite",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="replace a card or saved counts that exist (default: %(default)s)",
    )
    group.add_argument(
        "--gate",
        type=_named(".json"),
        nargs="?",
        const=DEFAULT_LIMITS,
        metavar="FILE.json",
        help="status 1 when a limit of this file is broken (without a file: Tools/dataset_limits.json)",
    )
    group.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser


class _named:  # reads like a type in add_argument(type=...)
    """An argparse type: a file name with this ending."""

    def __init__(self, ending: str) -> None:
        self._ending = ending

    def __call__(self, text: str) -> Path:
        if not text.endswith(self._ending):
            raise argparse.ArgumentTypeError(f"{text!r} is no file name that ends in {self._ending}")
        return Path(text)


def report(args: argparse.Namespace) -> int:
    if not args.files and sys.stdin.isatty():
        raise UsageError("name a file to look at, or - for stdin")
    args.files = args.files or ["-"]
    catalog = load_catalog(args.catalog)
    prompt_set = load_prompt_sets(args.prompt_set)
    made_with = {"catalog": catalog.sha256, "prompt sets": prompt_set.sha256}
    no_rows = make_numbers(Counts(made_with), catalog)
    limits = load_limits(args.gate or DEFAULT_LIMITS, no_rows)
    _check_outputs(args)
    counter = RowCounter(catalog, EvaluationPrompts(prompt.question for prompt in prompt_set.prompts))
    counts = _count(args.files, counter, made_with)
    if args.save:
        write_atomically(args.save, [to_bytes(counts)])
    return _tell(counts, catalog, limits, args)


def _count(files: Sequence[str], counter: RowCounter, made_with: Mapping[str, Any]) -> Counts:
    counts, bad_lines = Counts(made_with), BadLines()
    for source in files:
        if is_counts_file(source):
            counts.merge(load_counts(Path(source), made_with))
            continue
        before = len(counts.hashes[WRITTEN])
        for row in bad_lines.without(read_rows([source])):
            counter.count(row, counts)
        count_rejects(Path(source), before, counts)
    counts.tally["bad_lines",] += bad_lines.num
    return counts


def _check_outputs(args: argparse.Namespace) -> None:
    """Raise UsageError before anything is read where an output would replace an input, or what is there already."""
    inputs = [Path(name) for name in args.files if name != "-"]
    outputs = [path for path in (args.card, args.save) if path]
    check_page(args.html, [*inputs, *outputs, args.catalog, *args.prompt_set, args.gate or DEFAULT_LIMITS])
    for path in outputs:
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} for {path.name}")
        if path.resolve() in {one.resolve() for one in inputs}:
            raise UsageError(f"{path} would be written and is an input as well: give another name")
        if path.exists() and not args.overwrite:
            raise UsageError(f"{path} is there already: give another name, or --overwrite to replace it")
    check_card(args.card, args.license, args.files)


def _tell(counts: Counts, catalog: Catalog, limits: Sequence[Limit], args: argparse.Namespace) -> int:
    numbers = make_numbers(counts, catalog)
    broken, not_checked = judge(limits, numbers)
    if args.html:
        from Tools.report.page import dataset_page

        write_atomically(args.html, [dataset_page(numbers, broken, not_checked, args.files).encode()])
    if args.card:
        write_atomically(args.card, [make_card(numbers, broken, args.files, args.card, args.license).encode()])
    if args.json:
        found = {"warnings": [one.to_dict() for one in broken], "not_checked": [one.limit.path for one in not_checked]}
        print(json.dumps({**numbers, **found}, indent=1, ensure_ascii=False))
    else:
        print(as_text(numbers, broken, not_checked))
    sys.stdout.flush()
    if counts.tally["bad_lines",]:
        log.error("%d lines hold no row", counts.tally["bad_lines",])
    if not numbers["rows"]:
        log.warning("warning: there are no rows in %s", ", ".join(args.files))
    if args.gate:
        for one in not_checked:
            log.warning("%s", one.sentence)
        for one in broken:
            log.error("%s", one.sentence)
    return FAILED if counts.tally["bad_lines",] or (args.gate and broken) else OK


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: report(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
