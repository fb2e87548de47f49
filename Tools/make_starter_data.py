"""Make data to start with: requests from templates with their right answers, or orders with requests that fulfil them.

    python Tools/make_starter_data.py answers --output starter_sft.jsonl
    python Tools/make_starter_data.py requests --output starter_writer_sft.jsonl

No model takes part. Every answer is judged as a model's would be, and passes every check. Rows of the second kind teach
a model to write requests itself: one that has only ever called tools answers an order with a call.
"""

import argparse
import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import CONTEXT, DEFAULT_CATALOG, Catalog, load_catalog
from Evaluator.console import run_main
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.errors import OK, ReportedError, UsageError
from Evaluator.flag_types import number
from Evaluator.judging.behavior import WRITING_CELL
from Evaluator.model_client import Completion, SamplingOptions
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.records import Message, Prompt, Sample, to_json_line
from Evaluator.runs.atomic_files import write_atomically
from Evaluator.runs.attempts import Answered, Judging, UnusablePrompt, WrittenPrompt
from Evaluator.tool_calls import parse_text
from Evaluator.vault.loading import load_fixture
from Tools.prompts.cells import Cell, Cells, right_answer
from Tools.prompts.coverage import BALANCED, Turns, shares_of
from Tools.prompts.known_requests import Known
from Tools.prompts.methods import SEED_TEXT
from Tools.prompts.phrasing import load_manners
from Tools.prompts.prompt_flags import DEFAULT_BEHAVIOR_SHARE
from Tools.prompts.session_context import in_session
from Tools.prompts.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, load_templates, prompt_id
from Tools.prompts.usable_requests import check_names, clean_request

log = logging.getLogger(__name__)

SOURCE = "curated"
ANSWERS, REQUESTS = "answers", "requests"
NUM_EXAMPLES = {ANSWERS: 2200, REQUESTS: 1800}
PLAIN, IN_SESSION, ORDERED, FREE = "plain", "in_session", "ordered", "free"
SHARES: Mapping[str, Mapping[str, float]] = {
    ANSWERS: {PLAIN: 0.5, IN_SESSION: 0.5},
    REQUESTS: {ORDERED: 0.95, FREE: 0.05},
}
"""Of the rows: answers without and with a system prompt; requests for a cell, requests for the text without a cell."""
_DRAWS = 64
"""So many cells of a group are tried until one gives a row that no other row, and no evaluation prompt, is like."""


class StarterData:
    """Makes the rows, one a slot, each for the tool or behaviour whose turn it is."""

    def __init__(self, catalog: Catalog, what: str, seed: int) -> None:
        """`what` is ANSWERS or REQUESTS; with one seed they are about different things."""
        self._judging = Judging(SOURCE, "none", catalog, seed, f"starter-{what}-{seed}")
        self._shares = SHARES[what]
        seed = 2 * seed + (what == REQUESTS)
        templates = load_templates(DEFAULT_TEMPLATES, catalog)
        tools = dict.fromkeys(one["tool"] for one in templates.templates)
        behaviors = dict.fromkeys(one["behavior"] for one in templates.behaviors)
        shares = shares_of(BALANCED, tools, behaviors, DEFAULT_BEHAVIOR_SHARE)
        vaults = [load_fixture(name) for name in TRAINING_VAULTS]
        self._cells = Cells(templates, load_manners(), vaults, catalog, Turns(shares, seed), seed)
        evaluation_prompts = load_prompt_sets(EVALUATION_SETS).prompts
        self._known = Known(EvaluationPrompts(one.question for one in evaluation_prompts), is_distinct=True)
        self._seed = seed

    def rows(self, num_rows: int) -> Iterator[Sample]:
        """Raises ReportedError where no row of a tool or behaviour can be made that is like no other."""
        kinds = [kind for kind, share in self._shares.items() for _ in range(round(share * num_rows))]
        kinds = [*kinds, next(iter(self._shares))][:num_rows]  # the shares may have been rounded down
        random.Random(f"{self._seed}:kinds").shuffle(kinds)
        for slot, kind in enumerate(kinds):
            yield self._row(slot, kind)

    def _row(self, slot: int, kind: str) -> Sample:
        why: object = None
        for draw in range(_DRAWS):
            try:
                cell = self._cells.draw(slot, draw, by_model=kind == ORDERED)
                sample = self._sample(slot, draw, kind, cell)
            except UnusablePrompt as unusable:
                why = unusable
                continue
            if sample.label:
                return sample
            why = f"{sample.metadata.errors}: {sample.conversations[-1].content}"
        raise ReportedError(f"no row can be made for {self._cells.group_of(slot)} ({kind}): {why}")

    def _sample(self, slot: int, draw: int, kind: str, cell: Cell) -> Sample:
        """The row of a slot; its label is false where the answer does not hold. Raises UnusablePrompt."""
        rng = random.Random(f"{self._seed}:{slot}:{draw}:{kind}")
        if kind in (ORDERED, FREE):
            return self._request(slot, cell, cell.order if kind == ORDERED else SEED_TEXT)
        prompt = in_session(cell, rng) if kind == IN_SESSION else cell.prompt
        sample = self._judged(slot, cell, prompt, right_answer(prompt))
        if kind == IN_SESSION and (not sample.label or _loads_the_current_workspace(prompt)):
            # it does something else in another workspace, or nothing that is needed
            prompt = in_session(cell, rng, keeps_workspace=True)
            sample = self._judged(slot, cell, prompt, right_answer(prompt))
        self._known.take(slot, prompt.question, cell.plain)
        return sample

    def _request(self, slot: int, cell: Cell, order: str) -> Sample:
        """A row whose answer is the request of the cell."""
        request = clean_request(cell.prompt.question)
        if order != SEED_TEXT:
            check_names(request, cell.names, leaves_out_a_value=cell.leaves_out_a_value)
        self._known.take(slot, request, cell.plain)
        cell = replace(cell, origin=replace(cell.origin, cell=f"{WRITING_CELL}{cell.origin.cell}"))
        return self._judged(slot, cell, Prompt(prompt_id(order), order, expects_call=False), request)

    def _judged(self, slot: int, cell: Cell, prompt: Prompt, answer: str) -> Sample:
        completion = Completion(Message("assistant", answer), "stop", None, None, 0.0)
        written = WrittenPrompt(prompt, "template", origin=cell.origin)
        sample = self._judging.judge(Answered(slot, 0, written, SamplingOptions(max_tokens=0), completion))
        return replace(sample, metadata=replace(sample.metadata, max_tokens=None))  # nothing was sampled


def make(args: argparse.Namespace) -> int:
    if not args.output.parent.is_dir():
        raise UsageError(f"there is no folder {args.output.parent} for the output {args.output.name}")
    catalog = load_catalog(DEFAULT_CATALOG)
    num_rows = args.num_examples or NUM_EXAMPLES[args.what]
    lines = [to_json_line(row.to_dict()) for row in StarterData(catalog, args.what, args.seed).rows(num_rows)]
    if str(args.output) == "-":
        sys.stdout.buffer.writelines(lines)
        sys.stdout.flush()
    else:
        if args.output.exists() and not args.overwrite and args.output.read_bytes() != b"".join(lines):
            raise UsageError(f"{args.output} holds something else: choose another --output, or --overwrite it")
        write_atomically(args.output, lines)
        log.info("%s: %d rows", args.output, len(lines))
    return OK


def _loads_the_current_workspace(prompt: Prompt) -> bool:
    calls = parse_text(right_answer(prompt)).calls if prompt.expects_call else ()
    return any(
        call.name == "memoryManager_loadWorkspace" and call.arguments["id"] == call.arguments[CONTEXT]["workspaceId"]
        for call in calls
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make rows with right answers, or rows that write requests, from templates, without any model.",
        epilog="examples:\n"
        "  python Tools/make_starter_data.py answers --output starter_sft.jsonl\n"
        "  python Tools/make_starter_data.py requests --output - --num-examples 100 --seed 7 | head -1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", choices=SHARES, help="rows that answer requests, or that write them")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.jsonl|-", help="- is stdout")
    parser.add_argument(
        "--num-examples", type=number(int, 1), help="rows to make (default: 2200 answers, 1800 requests)"
    )
    parser.add_argument("--seed", type=number(int, 0), default=0, help="the same one makes the same bytes (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that holds something else")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: make(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
