"""Prompt sets: JSON files of prompts with what is known about their right answers.

A file is {"name": ..., "prompts": [PROMPT, ...]}, or just the list. A prompt is {"id", "question"} and, as far as
known, "system", "tags", "expected_tools", "expects_call", "expected_call" {"name", "arguments"}, "vault" (the name of
a bundled one), "goal" (see goals), and where calling at once may be wrong "behavior" (see behavior), "why" that is
right and an "expected_answer" that does it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.errors import UsageError
from Evaluator.judging.behavior import BEHAVIORS, CALL
from Evaluator.records import Prompt, ToolCall
from Evaluator.trials.goal_checks import goal_fault
from Evaluator.vault.loading import load_fixture

TOOL_PROMPTS = Path(__file__).parent / "prompts" / "tool_prompts.json"
"""One prompt for each of the 47 tools."""
HELDOUT_PROMPTS = TOOL_PROMPTS.with_name("heldout_prompts.json")
"""Five prompts for each of the 47 tools, on other vaults: only for measuring, no generator reads them."""
BEHAVIOR_PROMPTS = TOOL_PROMPTS.with_name("behavior_prompts.json")
"""Prompts in which calling at once is wrong, or another call is right than one would think; for measuring too."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one or several files in order; `sha256` is that of the files' contents one after the other."""

    prompts: Sequence[Prompt]
    sha256: str

    def check_against(self, catalog: Catalog) -> None:
        """Raise UsageError where a prompt expects a tool that the catalog does not have, or has a worthless goal."""
        for prompt in self.prompts:
            for name in prompt.expected_tools:
                if name not in catalog.tools:
                    raise UsageError(
                        f"the prompt {prompt.id} expects {name}, which the catalog {catalog.label} does not have "
                        f"(nearest: {catalog.nearest_tool(name)}): give a --prompt-set for this catalog"
                    )
            fault = goal_fault(prompt, catalog)
            if fault:
                raise UsageError(f"the prompt {prompt.id} cannot be used: {fault}")


EVALUATION_SETS = (TOOL_PROMPTS, HELDOUT_PROMPTS, BEHAVIOR_PROMPTS)
"""All sets that models are measured with: nothing like them belongs into training data."""


def load_prompt_sets(paths: Sequence[Path]) -> PromptSet:
    """Read prompt sets one after the other. Raises UsageError; ids must be unique over all of them."""
    digest = hashlib.sha256()
    prompts: list[Prompt] = []
    for path in paths:
        raw = _read(path)
        digest.update(raw)
        prompts += _prompts_of(path, raw)
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise UsageError(f"the prompt id {prompt.id} stands twice in {', '.join(map(str, paths))}")
        seen.add(prompt.id)
    if not prompts:
        raise UsageError(f"there are no prompts in {', '.join(map(str, paths))}")
    return PromptSet(tuple(prompts), digest.hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the prompt set {path}: {error.strerror}") from error


def _prompts_of(path: Path, raw: bytes) -> list[Prompt]:
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise UsageError(f"the prompt set {path} is no JSON: {error}") from error
    entries = data.get("prompts") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise UsageError(f'the prompt set {path} is neither a list nor an object with a list "prompts"')
    return [_prompt_from(f"{path}, prompt {number}", entry) for number, entry in enumerate(entries, start=1)]


FROM_A_SET = "prompt_set"
"""The `prompt_method` of rows that answer a prompt of a set."""

_KINDS: dict[str, type] = {
    "id": str,
    "question": str,
    "system": str,
    "tags": list,
    "expected_tools": list,
    "expects_call": bool,
    "expected_call": dict,
    "vault": str,
    "goal": dict,
    "behavior": str,
    "expected_answer": str,
    "why": str,
}
_KIND_NAMES = {str: "string", list: "list", bool: "true or false", dict: "object"}


def _prompt_from(where: str, entry: Any) -> Prompt:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("id", "question")):
        raise UsageError(f'{where} needs "id" and "question", both strings')
    entry = {key: value for key, value in entry.items() if value is not None}
    unknown = entry.keys() - _KINDS.keys()
    if unknown:
        raise UsageError(f"{where}: unknown key {', '.join(sorted(unknown))}; known are {', '.join(_KINDS)}")
    for key, kind in _KINDS.items():
        if key in entry and not isinstance(entry[key], kind):
            raise UsageError(f'{where}: "{key}" is no {_KIND_NAMES[kind]}')
    for key in ("tags", "expected_tools"):
        if not all(isinstance(item, str) for item in entry.get(key, ())):
            raise UsageError(f'{where}: "{key}" is no list of strings')
    if not entry["question"].strip():
        raise UsageError(f'{where}: "question" is empty')
    if entry.get("behavior") not in (None, *BEHAVIORS):
        raise UsageError(f'{where}: "behavior" is none of {", ".join(BEHAVIORS)}')
    call = entry.get("expected_call")
    if call is not None and not (
        isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), dict)
    ):
        raise UsageError(f'{where}: "expected_call" needs "name" and "arguments"')
    return Prompt(
        id=entry["id"],
        question=entry["question"],
        system=entry.get("system"),
        tags=tuple(entry.get("tags", ())),
        expected_tools=tuple(entry.get("expected_tools", ())),
        expects_call=entry.get("expects_call", entry.get("behavior", CALL) == CALL),
        expected_call=ToolCall(call["name"], call["arguments"]) if call else None,
        vault=load_fixture(entry["vault"]) if entry.get("vault") else None,
        goal=entry.get("goal"),
        behavior=entry.get("behavior"),
        expected_answer=entry.get("expected_answer"),
    )
