"""Mix labelled rows with curated ones, so that these are a share of the text to train on; write JSONL to stdout.

python Tools/mix_datasets.py round_1.jsonl round_2.jsonl --curated curated.jsonl --curated-share 0.3 > train.jsonl
"""

import argparse
import hashlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.console import run_main
from Evaluator.errors import FAILED, OK, UsageError
from Evaluator.flag_types import number
from Evaluator.records import to_json_line
from Evaluator.rows import BadLines, Row, read_rows
from Tools.own_output import refuse_own_output

log = logging.getLogger(__name__)


def mix(
    rows: Sequence[Row], curated: Sequence[Row], curated_share: float, seed: int
) -> tuple[Sequence[Row], Sequence[Row]]:
    """(rows, curated) of which the second are `curated_share` of all characters, and as little more as can be.

    Curated rows are drawn until they are enough. Where all of them are too few, all are taken and rows are drawn
    instead. What is drawn depends on the texts and the seed alone, so that more rows change little of it.
    """
    wanted = curated_share / (1 - curated_share) * sum(map(num_characters, rows))
    if wanted <= sum(map(num_characters, curated)):
        return rows, _drawn(curated, wanted, seed, reaches=True)
    room = (1 - curated_share) / curated_share * sum(map(num_characters, curated))
    return _drawn(rows, room, seed, reaches=False), curated


def num_characters(row: Row) -> int:
    """The length of a conversation, as a measure of its tokens that needs no tokenizer."""
    return sum(
        len(one.content or "") + (len(json.dumps(one.tool_calls, ensure_ascii=False)) if one.tool_calls else 0)
        for one in row.messages
    )


def _drawn(rows: Sequence[Row], num_wanted: float, seed: int, *, reaches: bool) -> Sequence[Row]:
    """Rows drawn until they have so many characters; in their own order. The last one `reaches` over it, or is out."""
    taken, total = set(), 0
    for at in sorted(range(len(rows)), key=lambda at: _draw(rows[at], seed)):
        size = num_characters(rows[at])
        if total >= num_wanted or (not reaches and total + size > num_wanted):
            break
        taken.add(at)
        total += size
    return [row for at, row in enumerate(rows) if at in taken]


def _draw(row: Row, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{json.dumps(row.data['conversations'])}".encode()).digest()


def as_right(row: Row) -> Mapping[str, Any]:
    """A curated row for training: without a label it counts as right."""
    return row.data if row.label is not None else {**row.data, "label": True}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Mix rows of JSONL files with curated ones, a share of the text, for training. Writes to stdout.",
        epilog="examples:\n"
        "  python Tools/mix_datasets.py round_1.jsonl round_2.jsonl --curated curated.jsonl > train.jsonl\n"
        "  cat round_1.jsonl round_2.jsonl | python Tools/mix_datasets.py - --curated mine.jsonl --curated-share 0.5 "
        "> train.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", metavar="FILE.jsonl|-", help="rows to train on; - is stdin")
    group = parser.add_argument_group("curated rows")
    group.add_argument("--curated", nargs="+", default=[], metavar="FILE.jsonl", help="rows known to be right")
    group.add_argument(
        "--curated-share",
        type=number(float, 0, 0.95),
        default=0.3,
        metavar="SHARE",
        help="their share of the text in all, in characters; as many as it takes are drawn, and where they are too few "
        "the other rows are drawn instead (default: %(default)s)",
    )
    group.add_argument("--seed", type=number(int, 0), default=0, help="of what is drawn (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser


def mix_files(args: argparse.Namespace) -> int:
    refuse_own_output([*args.files, *args.curated])
    bad_lines = BadLines()
    rows, curated = (list(bad_lines.without(read_rows(files))) for files in (args.files, args.curated))
    bad_lines.tell()
    if args.curated_share and not curated:
        raise UsageError("there are no curated rows: give --curated FILE, or --curated-share 0 to do without")
    if not rows:
        log.warning("warning: there are no rows in %s", ", ".join(args.files))
    taken, right = mix(rows, curated, args.curated_share, args.seed)
    if len(taken) < len(rows):
        log.warning(
            "warning: %d of %d rows are left out, since the curated ones would be less than --curated-share %g of all; "
            "give more of these",
            len(rows) - len(taken),
            len(rows),
            args.curated_share,
        )
    sys.stdout.buffer.writelines(to_json_line(row.data) for row in taken)
    sys.stdout.buffer.writelines(to_json_line(as_right(row)) for row in right)
    sizes = [sum(map(num_characters, some)) for some in (taken, right)]
    share = sizes[1] / sum(sizes) if sum(sizes) else 0.0
    log.info("%d rows and %d curated ones, which are %.1f %% of the text", len(taken), len(right), 100 * share)
    return FAILED if bad_lines.num else OK


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: mix_files(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
