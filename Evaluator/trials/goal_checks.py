"""Is a prompt's goal worth anything? The right call must meet it, doing nothing or anything else must not."""

import random
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.judging.execution import NOTHING, execute
from Evaluator.judging.goals import ABOUT, KINDS, OPTIONS, RESULT, Goal, shortcomings
from Evaluator.records import Prompt
from Evaluator.trials.random_calls import random_call
from Evaluator.vault.state import TABLES

NUM_RANDOM_CALLS = 5
RECORDS = frozenset(TABLES) - {"notes", "folders"}
"""Tables whose entries are objects, with a key that is made with them."""


def shape_fault(goal: Goal) -> str | None:
    """Where a goal has not the form that goals have, in words: no answer could meet it, or it could not be compared."""
    parts = (*TABLES, RESULT, OPTIONS, ABOUT)
    for part, wanted in goal.items():
        if part not in parts:
            return f"its goal has an unknown part {part}; known are {', '.join(parts)}"
        if not isinstance(wanted, str if part == ABOUT else dict):
            return f'"{part}" of its goal is no {"text" if part == ABOUT else "object"}'
        for name, value in wanted.items() if part != ABOUT else ():
            shown = repr(value)[:80]
            if part in TABLES and name not in KINDS:
                return f'"{part}" of its goal has {name}: {shown}; known are {", ".join(KINDS)}'
            if not (_is_formed(part, name, value) and _are_texts(value)):
                return f'"{part}" of its goal has {name}: {shown}, which is not of the form that is compared there'
    return None


def _is_formed(part: str, name: str, value: Any) -> bool:
    if part == RESULT:
        is_counted = isinstance(value, dict) and len(value) == 1 and value.keys() <= {"ordered", "at_least"}
        return isinstance(value, list) or (is_counted and isinstance(next(iter(value.values())), list))
    if part == OPTIONS:
        return "[]" not in name or isinstance(value, list)
    if isinstance(value, list):  # keys; of records that are new, which have none yet, the records
        kind = dict if name == "added" and part in RECORDS else str
        return all(isinstance(one, kind) for one in value)
    if not isinstance(value, dict):
        return False
    if part == "notes" and name != "moved":
        return all(_is_text_pattern(one) for one in value.values())
    return part not in RECORDS or name != "changed" or all(isinstance(one, dict) for one in value.values())


def _are_texts(value: Any) -> bool:
    """Whether what is to be alike is a text, however deep it stands."""
    if isinstance(value, list):
        return all(map(_are_texts, value))
    if not isinstance(value, dict):
        return True
    return isinstance(value["like"], str) if value.keys() == {"like"} else all(map(_are_texts, value.values()))


def _is_text_pattern(pattern: Any) -> bool:
    """A text, {"exactly": TEXT} or {"like": TEXT}, the latter with "at" or lines that are to go under "without"."""
    if not isinstance(pattern, dict):
        return isinstance(pattern, str)
    if pattern.keys() == {"exactly"}:
        return isinstance(pattern["exactly"], str)
    gone = pattern.get("without", [])
    return (
        {"like"} <= pattern.keys() <= {"like", "at", "without"}
        and isinstance(pattern["like"], str)
        and isinstance(gone, list)
        and all(isinstance(line, str) for line in gone)
    )


def goal_fault(prompt: Prompt, catalog: Catalog, num_random_calls: int = NUM_RANDOM_CALLS) -> str | None:
    """What is wrong with the goal of a prompt, in words; None for a good one or where there is none.

    Random calls of other tools than the expected ones are tried; the expected tool may be called right by luck.
    """
    if prompt.goal is None:
        return None
    if prompt.vault is None:
        return "it has a goal, but no vault"
    fault = shape_fault(prompt.goal)
    if fault:
        return fault
    if not shortcomings(NOTHING, prompt.goal):
        return "doing nothing meets its goal"
    if prompt.expected_call is not None:
        faults = shortcomings(execute([prompt.expected_call], prompt.vault, catalog), prompt.goal)
        if faults:
            return f"its expected_call does not meet its goal: {faults[0].sentence}"
    rng = random.Random(prompt.id)
    for _ in range(num_random_calls):
        call = random_call(catalog, prompt.vault, rng)
        is_asked_for = call.name in prompt.expected_tools  # which may be right by luck
        if not is_asked_for and not shortcomings(execute([call], prompt.vault, catalog), prompt.goal):
            return f"a random call of {call.name} meets its goal"
    return None
