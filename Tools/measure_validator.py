"""How often is the validator wrong? Judge thousands of answers that are wrong or right by the way they were made.

python Tools/measure_validator.py
"""

import argparse
import contextlib
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import Catalog, load_catalog
from Evaluator.console import run_main
from Evaluator.errors import FAILED, OK, UsageError
from Evaluator.flag_types import number
from Evaluator.intervals import exact_interval
from Evaluator.judging.validator import validate
from Evaluator.judging_flags import add_catalog_argument
from Evaluator.prompt_sets import HELDOUT_PROMPTS, TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import Message, Prompt, ToolCall
from Evaluator.tool_calls import parse_turn, render_turn
from Evaluator.trials import mutants, variants
from Evaluator.vault.loading import load_fixture
from Tools.prompts.slots import CannotFill
from Tools.prompts.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, load_templates

INDEPENDENT_ANSWERS = Path(mutants.__file__).with_name("independent_answers.jsonl")
"""A right and a nearly right answer to each of 139 held-out prompts: {"id", "is_right", "arguments", "note"}."""


@dataclass
class Errors:
    """Judged answers of one truth (all wrong, or all right) and the wrong verdicts among them."""

    is_right: bool
    knows_goals: bool = True
    judged: Counter[tuple[str, str]] = field(default_factory=Counter)
    missed: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.missed.total() / max(1, self.judged.total())

    def add(self, key: tuple[str, str], prompt: Prompt, answer: Message, catalog: Catalog) -> None:
        """Judge an answer; `key` is its operator and its tool."""
        known = prompt if self.knows_goals else Prompt(prompt.id, prompt.question)
        verdict = validate(answer, known, catalog)
        self.judged[key] += 1
        if verdict.label != self.is_right:
            self.missed[key] += 1
            example = {"operator": key[0], "prompt": prompt.id, "codes": " ".join(verdict.codes)}
            self.examples.append({**example, "answer": answer.content or json.dumps(answer.tool_calls)})

    def summary(self) -> str:
        low, high = exact_interval(self.missed.total(), self.judged.total())
        name = "false negatives" if self.is_right else "false positives"
        share = f"{self.rate:.3%} (95 % interval {low:.3%} to {high:.3%})"
        return f"{name}: {self.missed.total()} of {self.judged.total()} answers, {share}"

    def table(self, side: int, title: str) -> list[str]:
        """A Markdown table by operator (side 0) or by tool (side 1)."""
        lines = [f"| {title} | answers | wrong verdicts | at most (95 %) |", "|---|---|---|---|"]
        for name in dict.fromkeys(key[side] for key in self.judged):
            total = sum(count for key, count in self.judged.items() if key[side] == name)
            missed = sum(count for key, count in self.missed.items() if key[side] == name)
            lines.append(f"| `{name}` | {total} | {missed} | {exact_interval(missed, total)[1]:.2%} |")
        return lines


def measure(
    prompts: Sequence[Prompt], catalog: Catalog, seed: int, *, knows_goals: bool = True
) -> tuple[Errors, Errors]:
    """Errors on wrong and on right answers to prompts that have an expected call."""
    wrong, right = Errors(False, knows_goals), Errors(True, knows_goals)
    for prompt in prompts:
        for errors, operators in ((wrong, mutants.OPERATORS), (right, variants.OPERATORS)):
            for operator in operators:
                case = mutants.Case(prompt, catalog, prompts, random.Random(f"{seed}:{prompt.id}:{operator.__name__}"))
                _judge(case, operator, errors)
    return wrong, right


def measure_independent(
    prompts: Sequence[Prompt], catalog: Catalog, *, knows_goals: bool = True
) -> tuple[Errors, Errors]:
    """Errors on answers that were written one by one by somebody who knew neither the checks nor the right calls."""
    known = {prompt.id: prompt for prompt in prompts}
    wrong, right = Errors(False, knows_goals), Errors(True, knows_goals)
    for line in INDEPENDENT_ANSWERS.read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        prompt = known.get(data["id"])
        if prompt:
            answer = render_turn([ToolCall(prompt.expected_tools[0], data["arguments"])])
            key = ("independent_answers", prompt.expected_tools[0])
            (right if data["is_right"] else wrong).add(key, prompt, answer, catalog)
    return wrong, right


def _judge(case: mutants.Case, operator: mutants.Operator, errors: Errors) -> None:
    key = (operator.__name__, case.call.name)
    for answer in operator(case):
        if not errors.is_right and list(parse_turn(answer).calls) == [case.call] and not parse_turn(answer).findings:
            continue  # nothing was changed
        errors.add(key, case.prompt, answer, case.catalog)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure the validator's false positives and false negatives; print Markdown tables.",
        epilog="examples:\n"
        "  python Tools/measure_validator.py\n"
        "  python Tools/measure_validator.py --examples | grep other_tool",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--prompt-set",
        type=Path,
        nargs="+",
        default=[TOOL_PROMPTS, HELDOUT_PROMPTS],
        metavar="FILE.json",
        help="prompts with an expected_call to make answers from (default: the two bundled sets)",
    )
    source.add_argument(
        "--num-templates",
        type=number(int, 1),
        metavar="N",
        help="make the answers from N filled templates of v2 instead, which share nothing with the bundled sets",
    )
    parser.add_argument(
        "--goals",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="judge with the prompt's goal, vault, tool and system prompt, as for templates and prompt sets; "
        "without, by the request alone, as for requests that a model wrote (default: %(default)s)",
    )
    add_catalog_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="other seeds change other places (default: %(default)s)")
    parser.add_argument(
        "--examples", action="store_true", help="print each wrongly judged answer as a JSON line instead"
    )
    limit = number(float, 0, 1)
    parser.add_argument(
        "--max-false-positive-rate",
        type=limit,
        default=0.001,
        metavar="X",
        help="status 1 above (default: %(default)s)",
    )
    parser.add_argument(
        "--max-false-negative-rate", type=limit, default=0.01, metavar="X", help="status 1 above (default: %(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser


def template_prompts(num_prompts: int, catalog: Catalog) -> list[Prompt]:
    """Filled templates, all of them in turn, on the vaults that v2 uses."""
    templates = load_templates(DEFAULT_TEMPLATES, catalog)
    vaults = [load_fixture(name) for name in TRAINING_VAULTS]
    prompts = []
    in_turn = random.Random("measure").sample(templates.templates, len(templates.templates))
    for index, template in zip(range(num_prompts), itertools.cycle(in_turn), strict=False):
        with contextlib.suppress(CannotFill):
            rng = random.Random(f"measure:{index}")
            prompts.append(templates.fill(template, rng, vaults[index % len(vaults)], catalog))
    return prompts


def prompts_of(args: argparse.Namespace, catalog: Catalog) -> list[Prompt]:
    prompt_set = load_prompt_sets(args.prompt_set)
    prompt_set.check_against(catalog)
    prompts = [prompt for prompt in prompt_set.prompts if prompt.expected_call and prompt.vault]
    if not prompts:
        raise UsageError("none of the prompts has both an expected_call and a vault")
    return prompts


def run(args: argparse.Namespace) -> int:
    catalog = load_catalog(args.catalog)
    prompts = template_prompts(args.num_templates, catalog) if args.num_templates else prompts_of(args, catalog)
    wrong, right = measure(prompts, catalog, args.seed, knows_goals=args.goals)
    by_hand = measure_independent(prompts, catalog, knows_goals=args.goals)
    for line in _examples(wrong, right, *by_hand) if args.examples else _report(wrong, right, by_hand, len(prompts)):
        print(line)
    is_good = wrong.rate <= args.max_false_positive_rate and right.rate <= args.max_false_negative_rate
    return OK if is_good else FAILED


def _report(wrong: Errors, right: Errors, by_hand: Sequence[Errors], num_prompts: int) -> Iterator[str]:
    tools = len({key[1] for key in wrong.judged})
    yield f"{num_prompts} prompts, {tools} tools"
    yield wrong.summary()
    yield right.summary()
    if by_hand[0].judged:
        yield from ("answers written independently:", *(errors.summary() for errors in by_hand))
    for errors, title in ((wrong, "wrong answers"), (right, "right answers")):
        yield from ("", *errors.table(0, f"{title} by operator"), "", *errors.table(1, f"{title} by tool"))


def _examples(*errors: Errors) -> Iterator[str]:
    return (json.dumps(example, ensure_ascii=False) for one in errors for example in one.examples)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: run(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
