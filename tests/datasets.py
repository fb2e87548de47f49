"""Rows of a dataset that is as it should be, made without a model, and ways to let it collapse, for tests."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from Evaluator.catalog import CONTEXT
from Evaluator.decontamination import Request
from Evaluator.judging.validator import validate
from Evaluator.records import Message, Prompt, ToolCall
from Evaluator.tool_calls import render_turn
from Evaluator.vault.loading import load_fixture
from tests.vaults import CATALOG
from Tools.duplicates import SeenRequests
from Tools.prompts.slots import CannotFill
from Tools.prompts.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, load_templates

_WORDS = (
    "amber basil cedar dune ember fern grove heron ivory jasper kelp lilac maple nectar olive pearl quartz river "
    "sable thyme umber violet willow yarrow zephyr birch clover delta finch garnet harbor indigo juniper lotus moss"
)
WORDS = _WORDS.split()
_ASKED_FOR = {
    "ask": "Put {0} {1} into the {2} {3} one, wherever that {4} was kept",
    "refuse": "Ring the {0} {1} people and order {2} {3} for the {4} party",
    "confirm": "Throw out all the {0} {1} drafts, {2} {3} and {4} together",
}
_RIGHT = {
    "ask": "Which note do you mean, and what text shall go into {0} {1}? Please tell me the folder too.",
    "refuse": "I cannot make phone calls or place orders from here, so the {0} {1} must wait for you.",
    "confirm": "This would delete all {0} {1} drafts for good. Shall I go ahead?",
}


@lru_cache(maxsize=1)
def healthy_rows() -> Sequence[Mapping[str, Any]]:
    """600 rows: all tools, a fifth about behaviour, some 70 % right, judged by the validator."""
    rng = random.Random("healthy")
    seen = SeenRequests()
    prompts = [*_tool_prompts(rng, 480, seen), *_behavior_prompts(rng, 120, seen)]
    calls = [prompt.expected_call for prompt in prompts if prompt.expected_call]
    rows = [_row(slot, prompt, _answer(prompt, rng, calls), rng) for slot, prompt in enumerate(prompts)]
    rng.shuffle(rows)
    return rows


def _tool_prompts(rng: random.Random, count: int, seen: SeenRequests) -> Iterable[Prompt]:
    """The templates in turn, tool by tool; no request is like another one."""
    templates = load_templates(DEFAULT_TEMPLATES, CATALOG)
    vaults = [load_fixture(name) for name in TRAINING_VAULTS]
    by_tool = {tool: [one for one in templates.templates if one["tool"] == tool] for tool in CATALOG.tools}
    tools, made = [tool for tool, found in by_tool.items() if found], 0
    while made < count:
        try:
            prompt = templates.fill(rng.choice(by_tool[tools[made % len(tools)]]), rng, rng.choice(vaults), CATALOG)
        except CannotFill:
            continue
        prompt = replace(prompt, question=f"{prompt.question} {_aside(rng)}")
        if prompt.expected_call and not seen.twin(prompt.question):
            seen.add(Request(prompt.question))
            made += 1
            yield prompt


def _aside(rng: random.Random) -> str:
    """Some words of a user's own, so that a template can be filled often without the same being asked."""
    first, *others = rng.sample(WORDS, rng.randint(3, 6))
    return f"{first.title()} {' '.join(others)}."


def _behavior_prompts(rng: random.Random, count: int, seen: SeenRequests) -> Iterable[Prompt]:
    made = 0
    while made < count:
        behavior = list(_ASKED_FOR)[made % len(_ASKED_FOR)]
        question = f"{_ASKED_FOR[behavior].format(*rng.sample(WORDS, 5))}. {_aside(rng)}"
        if not seen.twin(question):
            seen.add(Request(question))
            made += 1
            yield Prompt(f"{behavior}-{made}", question, expects_call=False, behavior=behavior)


def _answer(prompt: Prompt, rng: random.Random, calls: Sequence[ToolCall]) -> Message:
    is_right = rng.random() < 0.7
    if prompt.behavior:
        text = (
            _RIGHT[prompt.behavior] if is_right else "I have done all of that with {0} and {1}, everything is in order."
        )
        return Message("assistant", text.format(*rng.sample(WORDS, 2)))
    call = prompt.expected_call if is_right or rng.random() < 0.5 else rng.choice(calls)
    context = {**call.arguments[CONTEXT], "toolContext": f"{call.arguments[CONTEXT]['toolContext']} {_aside(rng)}"}
    if not is_right:
        context.pop(rng.choice(["sessionId", "primaryGoal"]))
        context["sessionMemory"] = f"Nothing else was said of {' '.join(rng.sample(WORDS, 4))}"
    return render_turn([ToolCall(call.name, {**call.arguments, CONTEXT: context})])


def _row(slot: int, prompt: Prompt, answer: Message, rng: random.Random) -> dict[str, Any]:
    verdict = validate(answer, prompt, CATALOG)
    tool = prompt.expected_tools[0] if prompt.expected_tools else None
    return {
        "conversations": [{"role": "user", "content": prompt.question}, answer.to_dict()],
        "label": verdict.label,
        "metadata": {
            "slot": slot,
            "prompt_id": f"prompt-{slot}",
            "source": "self_play",
            "prompt_method": "template",
            "target_tool": tool,
            "expected_tools": list(prompt.expected_tools),
            "called_tools": [call.name for call in verdict.calls],
            "expected_behavior": prompt.behavior,
            "behavior": verdict.behavior,
            "model": "scripted",
            "checks": dict(verdict.checks),
            "errors": verdict.codes,
            "prompt_tokens": len(prompt.question.split()),
            "completion_tokens": len((answer.content or "").split()),
            "cell": tool or f"behavior:{prompt.behavior}",
            "template": prompt.tags[0] if prompt.tags else None,
            "persona": rng.choice(WORDS),
            "phrasing": rng.choice(["terse", "polite", "question"]),
            "tools_told": False,
            "round": slot % 2,
        },
    }


def answered(row: Mapping[str, Any], answer: Message, label: bool, **metadata: Any) -> dict[str, Any]:
    """The row with another answer."""
    turns = [row["conversations"][0], answer.to_dict()]
    return {**row, "conversations": turns, "label": label, "metadata": {**row["metadata"], **metadata}}


def asking(row: Mapping[str, Any], request: str) -> dict[str, Any]:
    """The row with another request."""
    return {**row, "conversations": [{"role": "user", "content": request}, row["conversations"][1]]}


def write_lines(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)
