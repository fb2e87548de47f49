"""Is a prompt's goal worth anything? The right call must meet it, doing nothing or anything else must not."""

import random

from Evaluator.catalog import Catalog
from Evaluator.execution import NOTHING, execute
from Evaluator.goals import ABOUT, KINDS, OPTIONS, RESULT, Goal, shortcomings
from Evaluator.records import Prompt
from Evaluator.trials.random_calls import random_call
from Evaluator.vault.state import TABLES

NUM_RANDOM_CALLS = 5


def _shape_fault(goal: Goal) -> str | None:
    """Where a goal has not the form that goals have, so that no answer could ever meet it."""
    for part, wanted in goal.items():
        if part not in (*TABLES, RESULT, OPTIONS, ABOUT):
            return f"its goal has an unknown part {part}; known are {', '.join((*TABLES, RESULT, OPTIONS, ABOUT))}"
        if not isinstance(wanted, str if part == ABOUT else dict):
            return f'"{part}" of its goal is no {"text" if part == ABOUT else "object"}'
        for kind, values in wanted.items() if part in TABLES else ():
            if kind not in KINDS or not isinstance(values, dict | list):
                return f'"{part}" of its goal has {kind}: {values!r}; known are {", ".join(KINDS)}, objects or lists'
    return None


def goal_fault(prompt: Prompt, catalog: Catalog, num_random_calls: int = NUM_RANDOM_CALLS) -> str | None:
    """What is wrong with the goal of a prompt, in words; None for a good one or where there is none.

    Random calls of other tools than the expected ones are tried; the expected tool may be called right by luck.
    """
    if prompt.goal is None:
        return None
    if prompt.vault is None:
        return "it has a goal, but no vault"
    fault = _shape_fault(prompt.goal)
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
