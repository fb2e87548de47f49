"""Cells: what a prompt is to be about, drawn outside the model, so that coverage and labels do not depend on it.

    slot -> whose turn it is (a tool or a behaviour) -> vault, template, persona, phrasing -> Cell

A cell carries a prompt as a template words it, with its goal, and the order for a model that is to word it itself.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.judging.behavior import BEHAVIOR_CELL
from Evaluator.judging.execution import can_run, execute
from Evaluator.judging.goals import ABOUT, shortcomings
from Evaluator.records import Prompt, ToolCall
from Evaluator.runs.attempts import Origin, UnusablePrompt
from Evaluator.tool_calls import render_turn
from Evaluator.vault.state import DEFAULT_WORKSPACE, Vault
from Tools.prompts.coverage import Turns
from Tools.prompts.phrasing import STEPS, Manners, Persona, Phrasing, framed, worded
from Tools.prompts.slots import CannotFill
from Tools.prompts.templates import Filled, Template, Templates, prompt_id, says_all
from Tools.prompts.usable_requests import MAX_WORDS

ORDER_HEAD = "Write one message that a user types to the assistant of an Obsidian vault."
_TRIES = 12
"""So many templates of a group, vaults and phrasings are tried until one can be filled."""


@dataclass(frozen=True)
class Cell:
    """What one prompt is drawn for.

    `prompt` is the request in the words of a template, `plain` that without any phrasing. `names` are the values that
    a request must name, `wants` what is wanted, each as the lines that a writing model is told.
    """

    origin: Origin
    prompt: Prompt
    plain: str
    names: tuple[str, ...]
    wants: Sequence[Sequence[str]]
    persona: Persona
    phrasing: Phrasing

    @property
    def leaves_out_a_value(self) -> bool:
        return self.prompt.behavior == "ask"

    @property
    def order(self) -> str:
        """What a model is told that is to write the request."""
        lines = [ORDER_HEAD, f"The user is {self.persona.who}."]
        lines += [f"On the user's mind: {line}" for line in self.persona.lines if line in self.prompt.question]
        for number, want in enumerate(self.wants, start=1):
            head = "What the user wants" if len(self.wants) == 1 else f"What the user wants, part {number}"
            lines += [f"{head}: {want[0]}", *want[1:]]
        lines.append(f"Word it {self.phrasing.instruction}.")
        if self.names:
            lines += ["The message names exactly as written here:", *(f"- {name}" for name in self.names)]
        return "\n".join([*lines, "Write the message and nothing else."])

    def worded_as(self, request: str) -> Prompt:
        """The prompt with the request in a model's words; goal and right answer stay."""
        goal = self.prompt.goal
        if goal is not None and ABOUT in goal:
            goal = {**goal, ABOUT: f"{self.plain}\n{request}"}
        return replace(self.prompt, id=prompt_id(request), question=request, goal=goal)


class Cells:
    """Draws the cell of each slot; the same cell for the same seed, whatever was drawn before."""

    def __init__(
        self,
        templates: Templates,
        manners: Manners,
        vaults: Sequence[Vault],
        catalog: Catalog,
        turns: Turns,
        seed: int,
    ) -> None:
        self._templates = templates
        self._manners = manners
        self._vaults = vaults
        self._catalog = catalog
        self._turns = turns
        self._seed = seed
        self._second_steps = [
            one for one in templates.templates if "workspace" not in one and one["tool"] in turns.shares
        ]
        self._by_group: dict[str, list[Template]] = {}
        for template in templates.templates:
            self._by_group.setdefault(template["tool"], []).append(template)
        for template in templates.behaviors:
            self._by_group.setdefault(BEHAVIOR_CELL + template["behavior"], []).append(template)

    def group_of(self, slot: int) -> str:
        return self._turns.group_of(slot)

    def draw(self, slot: int, number: int = 0, *, by_model: bool = False) -> Cell:
        """The cell of a slot; another `number` gives another cell of the same group.

        What a model is to word comes from templates that say all that their right call needs (see says_all): whether
        the model says it too can be told from the names. Raises UnusablePrompt where nothing of the group can be
        filled from the vaults.
        """
        group = self.group_of(slot)
        rng = random.Random(f"{self._seed}:{slot}:cell:{number}")
        why = f"no template of {group} says all that is needed"
        for _ in range(_TRIES):
            try:
                cell = self._cell(group, by_model, rng)
                if len(cell.prompt.question.split()) <= MAX_WORDS:
                    return cell
                why = "the request is too long"
            except CannotFill as error:
                why = str(error)
        raise UnusablePrompt("prompt.cannot_fill", why, None)

    def example(self, group: str, unlike: Prompt, rng: random.Random) -> tuple[str, str]:
        """Another request in plain words, and its right answer as text. Raises CannotFill.

        It is of the same group, or of another one where all requests of the group have the same answer.
        """
        everything = [template for templates in self._by_group.values() for template in templates]
        for templates in (self._by_group[group], everything):
            for _ in range(_TRIES):
                template, vault = rng.choice(templates), rng.choice(self._vaults)
                try:
                    prompt = self._templates.fill(template, rng, vault, self._catalog)
                except CannotFill:
                    continue
                if not _is_answered_alike(prompt, unlike):
                    return prompt.question, right_answer(prompt)
        raise CannotFill(f"there is no example for {group}")

    def _cell(self, group: str, by_model: bool, rng: random.Random) -> Cell:
        templates = [one for one in self._by_group[group] if says_all(one)] if by_model else self._by_group[group]
        if not templates:
            raise CannotFill(f"no template of {group} says all that is needed")
        template, vault = rng.choice(templates), rng.choice(self._vaults)
        persona, phrasings = rng.choice(self._manners.personas), self._manners.phrasings
        phrasing = rng.choices(phrasings, weights=[one.weight for one in phrasings])[0]
        if phrasing.name == STEPS:
            if self._may_be_a_first_step(template):
                return self._two_steps(group, template, by_model, vault, persona, phrasing, rng)
            phrasing = rng.choice([one for one in phrasings if one.name != STEPS])
        wording = worded(template["text"], phrasing, persona, rng, kept=str(template.get("arguments", "")))
        filled = self._templates.fill_in(template, wording, rng, vault, self._catalog)
        who = persona.who if by_model or any(line in wording for line in persona.lines) else None
        origin = Origin(group, template["id"], who, phrasing.name)
        return Cell(origin, filled.prompt, filled.plain, filled.names, [self._want(filled)], persona, phrasing)

    def _want(self, filled: Filled) -> list[str]:
        if filled.want:
            return [filled.want]
        return wanted(filled.prompt.expected_call, self._catalog)

    # -- two requests in one ------------------------------------------------------------------------------------

    def _may_be_a_first_step(self, template: Template) -> bool:
        has_a_second = any(one["tool"] != template["tool"] for one in self._second_steps)
        return has_a_second and not {"behavior", "workspace"} & template.keys()

    def _two_steps(
        self,
        group: str,
        template: Template,
        by_model: bool,
        vault: Vault,
        persona: Persona,
        phrasing: Phrasing,
        rng: random.Random,
    ) -> Cell:
        """A request for what two templates ask for, one after the other: of different tools, in no workspace."""
        others = [one for one in self._second_steps if one["tool"] != template["tool"]]
        pair = [template, rng.choice(others)]
        if by_model and not says_all(pair[1]):
            raise CannotFill("the second step does not say all that is needed")
        parts = [self._templates.fill_in(one, one["text"], rng, vault, self._catalog) for one in pair]
        if any(part.prompt.goal is None for part in parts):
            raise CannotFill("a step has no goal")
        texts = {"first": parts[0].plain, "second": parts[1].plain}
        question = framed(rng.choice(phrasing.frames), texts, persona, rng)
        calls = _in_one_session(part.prompt.expected_call for part in parts)
        prompt = Prompt(
            id=prompt_id(question),
            question=question,
            tags=tuple(one["id"] for one in pair),
            expected_tools=tuple(call.name for call in calls),
            expected_answer=render_turn(calls).content,
            vault=vault,
            goal=self._joint_goal(parts, calls, vault),
        )
        origin = Origin(group, template["id"], persona.who if by_model else None, phrasing.name)
        plain = "\n".join(texts.values())
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        return Cell(origin, prompt, plain, names, [self._want(part) for part in parts], persona, phrasing)

    def _joint_goal(self, parts: Sequence[Filled], calls: Sequence[ToolCall], vault: Vault) -> Mapping[str, Any]:
        """The goal that is met by both calls in their order and by neither alone. Raises CannotFill."""
        if not can_run(calls, self._catalog):
            raise CannotFill("a step cannot be run")
        goal = _joined(*(part.prompt.goal for part in parts))

        def fails(*tried: ToolCall) -> bool:
            return bool(shortcomings(execute(tried, vault, self._catalog, is_checked=True), goal))

        if fails(*calls) or not all(map(fails, calls)):
            raise CannotFill("two steps get in each other's way")
        return goal


def _in_one_session(calls: Iterable[ToolCall]) -> list[ToolCall]:
    """The calls with the session of the first, where the catalog has such a thing."""
    calls = list(calls)
    context = calls[0].arguments.get(CONTEXT)
    if not isinstance(context, Mapping) or "sessionId" not in context:
        return calls
    session = context["sessionId"]
    return [
        ToolCall(call.name, {**call.arguments, CONTEXT: {**call.arguments[CONTEXT], "sessionId": session}})
        for call in calls
    ]


def _joined(first: Any, second: Any, name: str = "") -> Any:
    """Two goals as one: objects key by key, lists one after the other. Raises CannotFill where they disagree."""
    if isinstance(first, Mapping) and isinstance(second, Mapping) and not {"ordered", "at_least"} & first.keys():
        keys = dict.fromkeys([*first, *second])
        return {
            key: _joined(first[key], second[key], key) if key in first and key in second else {**first, **second}[key]
            for key in keys
        }
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *second]
    if name == ABOUT:
        return f"{first}\n{second}"
    if first != second:
        raise CannotFill("two steps want different things of the same")
    return first


def _is_answered_alike(one: Prompt, other: Prompt) -> bool:
    """Whether two requests are the same, or have the same right answer but for the context."""
    if one.question in other.question or (one.tags == other.tags and one.behavior):
        return True
    first, second = one.expected_call, other.expected_call
    if first is None or second is None or first.name != second.name:
        return False
    return {**first.arguments, CONTEXT: None} == {**second.arguments, CONTEXT: None}


# -- what is told -------------------------------------------------------------------------------------------------


def wanted(call: ToolCall, catalog: Catalog) -> list[str]:
    """What a call does, in the lines that a writing model is told: the tool's summary, then a value a line."""
    lines = [catalog.tools[call.name].summary]
    context = call.arguments.get(CONTEXT, {}) if catalog.context else {}
    told = {name: value for name, value in call.arguments.items() if name != CONTEXT or not catalog.context}
    lines += [f"- {name}: {_shown(value)}" for name, value in told.items()]
    workspace = context.get("workspaceId", DEFAULT_WORKSPACE)
    return [*lines, f"- workspace: {workspace}"] if workspace != DEFAULT_WORKSPACE else lines


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def right_answer(prompt: Prompt) -> str:
    """A right answer to a prompt as text."""
    if prompt.expected_call is not None:
        return render_turn([prompt.expected_call]).content or ""
    return prompt.expected_answer or ""
