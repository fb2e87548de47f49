"""v1, guided: ask the prompts of a prompt set in turn, label the answers, write JSONL.

    python Tools/selfplay_generator.py --output guided.jsonl --num-examples 47

Covers every tool, but teaches to the test: the rows carry `"source": "guided"`, so that they can be kept apart.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import load_catalog
from Evaluator.console import run_main
from Evaluator.flag_types import number
from Evaluator.judging_flags import add_judging_arguments
from Evaluator.model_flags import add_model_arguments, resolve_model_arguments
from Evaluator.prompt_sets import FROM_A_SET, TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import Prompt
from Evaluator.runs.attempts import WrittenPrompt
from Evaluator.runs.run import Plan, run_plan
from Tools.generator_flags import add_output_arguments, add_sampling_arguments

ATTEMPTS_A_PROMPT = 5
"""So many rejected answers to one prompt, and the next prompt takes its place."""


class PromptsInTurn:
    """Slot i asks prompt i, modulo their number: N samples ask each prompt N/len times, give or take one."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._prompts = prompts

    def prompt_for(self, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        return WrittenPrompt(self._prompts[(slot + attempt // ATTEMPTS_A_PROMPT) % len(self._prompts)], FROM_A_SET)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Ask the prompts of a prompt set in turn and write the labelled answers as JSONL (v1, guided).",
        epilog="examples:\n"
        "  python Tools/selfplay_generator.py --output guided.jsonl --num-examples 47\n"
        "  python Tools/selfplay_generator.py --model qwen2.5-7b-instruct --concurrency 8 --output guided.jsonl\n"
        "  python Tools/selfplay_generator.py --output - --num-examples 5 | head -1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("prompts")
    group.add_argument(
        "--prompt-set",
        type=Path,
        nargs="+",
        default=[TOOL_PROMPTS],
        metavar="FILE.json",
        help="prompt sets to ask, one after the other (default: Evaluator/prompts/tool_prompts.json, one per tool)",
    )
    group.add_argument(
        "--num-variations",
        type=number(int, 1),
        default=1,
        metavar="V",
        help="ask each prompt V times with sampling parameters from V bands of their ranges (default: %(default)s)",
    )
    add_model_arguments(parser)
    add_sampling_arguments(parser)
    add_judging_arguments(parser)
    add_output_arguments(parser, num_examples_default="every prompt --num-variations times")
    return parser


def generate(args: argparse.Namespace) -> int:
    resolve_model_arguments(args)
    catalog = load_catalog(args.catalog)
    prompt_set = load_prompt_sets(args.prompt_set)
    prompt_set.check_against(catalog)
    plan = Plan(
        source="guided",
        settings={"prompt_set": prompt_set.sha256, "num_variations": args.num_variations, "round": args.round},
        num_examples=args.num_examples or len(prompt_set.prompts) * args.num_variations,
        prompt_source=lambda _clients, _earlier: PromptsInTurn(prompt_set.prompts),
        prompts_in_turn=len(prompt_set.prompts),
        num_variations=args.num_variations,
        round=args.round,
    )
    return run_plan(plan, args, catalog)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: generate(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
