"""The command that compares two report files."""

import argparse
import json
from pathlib import Path

from Evaluator.errors import OK
from Evaluator.reports.compare import compare
from Evaluator.reports.page import check_page
from Evaluator.reports.report import load_report
from Evaluator.reports.text import comparison_as_markdown
from Evaluator.runs.atomic_files import write_atomically


def build_compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m Evaluator compare",
        description="Compare two reports on the same prompts: paired difference, exact McNemar test, what flipped.",
        epilog="examples:\n"
        "  python -m Evaluator compare before.json after.json\n"
        "  python -m Evaluator compare before.json after.json --json | jq .difference",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("first", type=Path, metavar="A.json", help="the report to start from")
    parser.add_argument("second", type=Path, metavar="B.json", help="the report to compare with it")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON instead of Markdown")
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="write both side by side as one HTML file")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser


def compare_files(args: argparse.Namespace) -> int:
    check_page(args.html, [args.first, args.second])
    first, second = load_report(args.first), load_report(args.second)
    found = compare(first, second)
    if args.html:
        from Evaluator.reports.page import comparison_page

        write_atomically(args.html, [comparison_page(found, first, second).encode()])
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else comparison_as_markdown(found))
    return OK
