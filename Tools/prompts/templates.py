"""Request templates: data with slots that are filled from a vault and from word lists, so that the goal is known.

A template is {"id", "tool", "text", "arguments", "context", "workspace"?}: a request, the arguments of the one right
call, what the five text fields of its context could say, and the workspace it runs in where the request names one.
A string that is exactly one slot takes the slot's value with its type. "implied" lists constants of the arguments that
a request need not say.

A template of a behaviour is for a request where calling at once is wrong: {"id", "behavior", "tool", "text", "want",
"answers"}: what the user wants told in one sentence, and texts that answer it rightly; that of the behaviour `call`
has the keys of a tool's template instead of answers.
"""

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.errors import UsageError
from Evaluator.goal_writing import NoGoal, goal_of
from Evaluator.judging.behavior import BEHAVIORS
from Evaluator.judging.execution import can_run
from Evaluator.judging.validator import check_parameters
from Evaluator.records import Prompt, ToolCall
from Evaluator.vault.state import DEFAULT_WORKSPACE, Vault
from Tools.prompts.slots import DRAWN_SLOTS, SLOT, CannotFill, Slots

DEFAULT_TEMPLATES = Path(__file__).parent / "templates.json"
TRAINING_VAULTS = ("farm", "studio")
"""The bundled vaults that templates are filled from; the others belong to evaluation sets."""
_TRIES = 16
"""So often other values are tried when a template does not fit the vault (the new note is there already)."""

Template = Mapping[str, Any]


@dataclass(frozen=True)
class Filled:
    """A filled template: the prompt, the request as the template words it, and the values that the request names.

    `want` is what the user wants in one sentence, for the templates of behaviours.
    """

    prompt: Prompt
    plain: str
    names: tuple[str, ...]
    want: str | None = None


@dataclass(frozen=True)
class Templates:
    """Templates of tools and of behaviours, and the word lists of their slots. `sha256` is that of their file."""

    templates: Sequence[Template]
    behaviors: Sequence[Template]
    words: Mapping[str, Sequence[Any]]
    sha256: str
    _said: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    """By the id of each template that was filled before, so that its call is known to fit the schema: the constants of
    its arguments that its text says."""

    def that_fit(self, vaults: Sequence[Vault], catalog: Catalog) -> "Templates":
        """Those templates that every one of the vaults has something for, as far as a few tries show."""

        def fitting(templates: Sequence[Template]) -> list[Template]:
            return [one for one in templates if all(self._fits(one, vault, catalog) for vault in vaults)]

        return replace(self, templates=fitting(self.templates), behaviors=fitting(self.behaviors))

    def _fits(self, template: Template, vault: Vault, catalog: Catalog) -> bool:
        try:
            return bool(self.fill(template, random.Random(0), vault, catalog))
        except CannotFill:
            return False

    def fill(self, template: Template, rng: random.Random, vault: Vault, catalog: Catalog) -> Prompt:
        """The prompt of one template filled at random, as the template words it. Raises CannotFill."""
        return self.fill_in(template, template["text"], rng, vault, catalog).prompt

    def fill_in(self, template: Template, wording: str, rng: random.Random, vault: Vault, catalog: Catalog) -> Filled:
        """Fill one template, its request in another `wording` with the same slots. Raises CannotFill."""
        why = "no values give it a goal"
        for _ in range(_TRIES):
            slots = Slots(rng, vault, self.words, catalog)
            try:
                said = self._said.get(template["id"])
                constants = said_constants(template) if said is None else said
                filled = _fill(template, wording, constants, slots, vault, catalog, is_checked=said is not None)
                self._said[template["id"]] = constants
                return filled
            except (CannotFill, NoGoal) as error:  # other values may do
                why = str(error)
        raise CannotFill(f"the template {template['id']}: {why}")


def said_constants(template: Template) -> tuple[str, ...]:
    """The constants of a template's arguments that its text says."""
    return tuple(str(one) for one in _constants(template) if _says(template, one))


def says_all(template: Template) -> bool:
    """Whether the request of a template names every value of its right call, but for those that are `implied`."""
    implied = template.get("implied", ())
    return all(one in implied or _says(template, one) for one in _constants(template))


def _says(template: Template, value: Any) -> bool:
    """Whether a template's text has a constant of its arguments word for word."""
    if isinstance(value, bool | None) or SLOT.search(str(value)) or not re.search(r"\w", str(value)):
        return False
    return bool(re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", template["text"], re.IGNORECASE))


def _constants(template: Template) -> list[Any]:
    """The values in the arguments of a template that are not just a slot."""

    def leaves(value: Any) -> Iterator[Any]:
        if isinstance(value, Mapping | list):
            for one in value.values() if isinstance(value, Mapping) else value:
                yield from leaves(one)
        elif not isinstance(value, str) or re.search(r"\w", SLOT.sub("", value)) or not SLOT.search(value):
            yield value

    return list(leaves(template.get("arguments", {})))


def _fill(
    template: Template,
    wording: str,
    constants: Sequence[str],
    slots: Slots,
    vault: Vault,
    catalog: Catalog,
    *,
    is_checked: bool,
) -> Filled:
    question, plain = _filled(wording, slots), _filled(template["text"], slots)
    names = tuple(dict.fromkeys([*(str(slots[name]) for name in SLOT.findall(template["text"])), *constants]))
    prompt = Prompt(
        prompt_id(question), question, tags=(template["id"],), vault=vault, behavior=template.get("behavior")
    )
    if "answers" in template:
        answer = _filled(slots.pick(template["answers"], "answers"), slots)
        silent = replace(prompt, expects_call=False, expected_answer=answer)
        return Filled(silent, plain, names, _filled(template["want"], slots))
    call = _call(template, slots, catalog)
    if not is_checked:
        for fault in check_parameters([call], prompt, catalog):
            raise UsageError(f"the template {template['id']} does not fit its tool {call.name}: {fault.sentence}")
    if not can_run([call], catalog):
        return Filled(replace(prompt, expected_tools=(call.name,), expected_call=call, vault=None), plain, names)
    goal = goal_of(call, plain, vault, catalog, is_checked=is_checked)
    known = replace(prompt, expected_tools=(call.name,), expected_call=call, goal=goal)
    return Filled(known, plain, names, _filled(template["want"], slots) if "want" in template else None)


def _call(template: Template, slots: Slots, catalog: Catalog) -> ToolCall:
    """The right call: its context, if the catalog has one, has ids of the right form, and the template's texts."""
    arguments = _filled(template["arguments"], slots)
    if not catalog.context:
        return ToolCall(template["tool"], arguments)
    ids = {"sessionId": slots["running_session"], "workspaceId": DEFAULT_WORKSPACE}
    if "workspace" in template:
        ids["workspaceId"] = _filled(template["workspace"], slots)
    context = {**ids, **_filled(template["context"], slots)}
    return ToolCall(template["tool"], {CONTEXT: context, **arguments})


def prompt_id(question: str) -> str:
    return hashlib.sha256(question.encode("utf-8", errors="replace")).hexdigest()[:16]


def _filled(value: Any, slots: Slots) -> Any:
    """A JSON value with the slots in its strings filled."""
    if isinstance(value, str):
        whole = SLOT.fullmatch(value)
        return slots[whole.group(1)] if whole else SLOT.sub(lambda slot: str(slots[slot.group(1)]), value)
    if isinstance(value, Mapping):
        return {key: _filled(one, slots) for key, one in value.items()}
    return [_filled(one, slots) for one in value] if isinstance(value, list) else value


# -- the file -----------------------------------------------------------------------------------------------------


def load_templates(path: Path, catalog: Catalog) -> Templates:
    """Read templates; all of their slots, tools and behaviours must be known. Raises UsageError."""
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
        templates = Templates(
            data["templates"], data.get("behaviors", []), data["words"], hashlib.sha256(raw).hexdigest()
        )
        faults = list(_faults(templates, catalog))
    except OSError as error:
        raise UsageError(f"cannot read the templates {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'the templates {path} are no JSON object with "templates" and "words"') from error
    if faults:
        raise UsageError(
            f"the templates {path} do not fit the catalog {catalog.label}: {', '.join(faults[:5])}. See --templates, "
            "or take --prompt-method free, which needs none"
        )
    return templates


_TYPES = {"id": str, "text": str, "want": str, "arguments": dict, "context": dict, "answers": list}


def _has_types(template: Any) -> bool:
    """Whether a template is an object with an id, and what else it has of the known keys has its type."""
    if not isinstance(template, dict) or "id" not in template:
        return False
    return all(isinstance(template[key], kind) for key, kind in _TYPES.items() if key in template)


def _faults(templates: Templates, catalog: Catalog) -> list[str]:
    """Slots, tools and behaviours that nobody knows, and templates that lack something, by their names."""
    everything = [*templates.templates, *templates.behaviors]
    odd = [f"entry {at}" for at, one in enumerate(everything, start=1) if not _has_types(one)]
    odd += [name for name, words in templates.words.items() if not isinstance(words, list)]
    if odd:
        return odd
    ids = Counter(one["id"] for one in everything)
    twice = [f"{name} twice" for name, count in ids.items() if count > 1]
    known = DRAWN_SLOTS.keys() | {name for name, words in templates.words.items() if words}
    slots = {slot for one in everything for slot in SLOT.findall(json.dumps(one))} - known
    slots |= {"title"} - templates.words.keys() if any("new_" in json.dumps(one) for one in everything) else set()
    tools = {one["tool"] for one in templates.templates} - catalog.tools.keys()
    behaviors = {one["behavior"] for one in templates.behaviors} - set(BEHAVIORS)
    calling = {"text", "arguments", "context"}
    lacking = [one["id"] for one in templates.templates if not calling <= one.keys()]
    silent = {"text", "want", "answers"}
    lacking += [
        one["id"] for one in templates.behaviors if not (silent <= one.keys() or {"want", *calling} <= one.keys())
    ]
    empty = [] if templates.templates else ["an empty list"]
    return [*twice, *sorted(map(str, slots | tools | behaviors)), *lacking, *empty]
