"""Answers that are wrong on purpose: each operator breaks one thing in a right call.

An operator takes a Case and yields answers that no longer do what the prompt asks, by the way they are made; it does
not ask the validator. Where a change could leave the effect as it is (an optional flag whose default does the same)
the operator leaves the call alone.
"""

import difflib
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.judging.arguments import kind_of, named_strings
from Evaluator.judging.execution import execute
from Evaluator.records import Message, Prompt, ToolCall
from Evaluator.tool_calls import render_turn
from Evaluator.vault.state import Vault, base_name, parent


@dataclass(frozen=True)
class Case:
    """A prompt with its right call, and all prompts it stands among."""

    prompt: Prompt
    catalog: Catalog
    others: Sequence[Prompt]
    rng: random.Random

    @property
    def call(self) -> ToolCall:
        assert self.prompt.expected_call is not None
        return self.prompt.expected_call

    @property
    def vault(self) -> Vault:
        assert self.prompt.vault is not None
        return self.prompt.vault

    @property
    def context(self) -> Mapping[str, Any]:
        return self.call.arguments[CONTEXT]

    @property
    def schema(self) -> Mapping[str, Any]:
        return self.catalog.tools[self.call.name].parameters

    @cached_property
    def parameters(self) -> dict[str, Any]:
        return {name: value for name, value in self.call.arguments.items() if name != CONTEXT}

    @property
    def required(self) -> list[str]:
        return [name for name in self.schema.get("required", ()) if name in self.parameters]

    @cached_property
    def strings(self) -> list[tuple[str, str, str]]:
        """(parameter, field, text) of every string in the parameters that the schema does not name itself."""
        fixed = self.catalog.tools[self.call.name].fixed_words
        found = [(key, *pair) for key, value in self.parameters.items() for pair in named_strings(key, value)]
        return [one for one in found if one[2] not in fixed]

    def of_kind(self, kind: str) -> list[tuple[str, str, str]]:
        return [one for one in self.strings if kind_of(one[1], one[2]) == kind]

    @property
    def num_found(self) -> int:
        """How many things the right call finds."""
        result = (self.prompt.goal or {}).get("result", {})
        counts = [len(v["ordered"] if isinstance(v, Mapping) else v) for key, v in result.items() if "[]" in key]
        return max(counts, default=0)

    @property
    def has_subfolder(self) -> bool:
        """Whether the folder of the call has one that a listing with its filter would show."""
        inside = [path for path in self.vault.folders if parent(path) == self.parameters.get("path", "").strip("/")]
        wanted = self.parameters.get("filter", "").lower()
        return any(wanted in base_name(path).lower() for path in inside)

    def is_quoted(self, text: str) -> bool:
        return f'"{text.strip()}"' in self.prompt.question or f"'{text.strip()}'" in self.prompt.question

    # -- answers

    def answer(self, arguments: Mapping[str, Any], name: str = "") -> Message:
        return render_turn([ToolCall(name or self.call.name, arguments)])

    def with_parameters(self, parameters: Mapping[str, Any]) -> Message:
        return self.answer({CONTEXT: self.context, **parameters})

    def with_parameter(self, name: str, value: Any) -> Message:
        return self.with_parameters({**self.parameters, name: value})

    def with_context(self, context: Any) -> Message:
        return self.answer({CONTEXT: context, **self.parameters})

    def with_text(self, parameter: str, old: str, new: str) -> Message:
        """The call with one string of a parameter replaced, wherever it stands in it."""
        return self.with_parameter(parameter, replaced(self.parameters[parameter], old, new))

    def pick(self, candidates: Sequence[Any], count: int = 1) -> list[Any]:
        return self.rng.sample(list(candidates), min(count, len(candidates)))


def replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return new if value == old else value
    if isinstance(value, Mapping):
        return {key: replaced(one, old, new) for key, one in value.items()}
    return [replaced(one, old, new) for one in value] if isinstance(value, list) else value


Operator = Callable[[Case], Iterator[Message]]


# -- the answer as text -------------------------------------------------------------------------------------------


def no_call(case: Case) -> Iterator[Message]:
    yield Message(
        "assistant",
        case.rng.choice(["Done, everything is as you wished.", f"I have done this: {case.prompt.question}"]),
    )


def truncated(case: Case) -> Iterator[Message]:
    text = case.answer(case.call.arguments).content or ""
    start = text.index("{")
    for position in case.pick(range(start + 1, len(text) - 1), 2):
        yield Message("assistant", text[:position])


def broken_json(case: Case) -> Iterator[Message]:
    text = case.answer(case.call.arguments).content or ""
    yield Message("assistant", text[:-1] + ",}")
    yield Message("assistant", text.replace('"sessionId"', "sessionId", 1))
    yield Message("assistant", text.replace('", "', "', '"))


def bare_json(case: Case) -> Iterator[Message]:
    data = json.dumps({"name": case.call.name, "arguments": case.call.arguments})
    yield Message("assistant", case.rng.choice([f"```json\n{data}\n```", data]))


def unknown_syntax(case: Case) -> Iterator[Message]:
    arguments = json.dumps(case.call.arguments)
    yield Message("assistant", f"<function={case.call.name}>{arguments}</function>")


# -- the tool -----------------------------------------------------------------------------------------------------


def unknown_tool(case: Case) -> Iterator[Message]:
    manager, _, mode = case.call.name.rpartition("_")
    wrong = f"{manager}.{mode}" if manager else mode.title()
    yield case.answer(
        case.call.arguments, case.rng.choice([wrong, mode if manager else "getTools", f"{case.call.name}s"])
    )


def other_tool(case: Case) -> Iterator[Message]:
    """Another tool with the same arguments, two of them of the same manager where there are some."""
    tools = [name for name in case.catalog.tools if name != case.call.name]
    manager = case.catalog.tools[case.call.name].manager
    same = [name for name in tools if case.catalog.tools[name].manager == manager]
    for name in case.pick(same, 2) + case.pick(tools):
        yield case.answer(case.call.arguments, name)


def call_of_another_prompt(case: Case) -> Iterator[Message]:
    """The right call of another prompt with this prompt's context."""
    others = [
        one.expected_call for one in case.others if one.expected_call and one.expected_call.name != case.call.name
    ]
    for other in case.pick(others):
        yield case.answer({**other.arguments, CONTEXT: case.context}, other.name)


def sibling_call(case: Case) -> Iterator[Message]:
    """The right call of another prompt for the same tool."""
    for other in case.others:
        call = other.expected_call
        if call and call.name == case.call.name and other.id != case.prompt.id:
            parameters = {name: value for name, value in call.arguments.items() if name != CONTEXT}
            is_other = parameters != case.parameters and not _may_be_equal(case, parameters)
            if is_other and not _does_the_same(case, parameters):
                yield case.with_parameters(parameters)


def _may_be_equal(case: Case, parameters: Mapping[str, Any]) -> bool:
    """Whether two sets of parameters differ in nothing but limits, sorting and flags, which need not matter."""
    return not case.strings or {key for key in parameters if isinstance(parameters[key], str)} == set()


def _does_the_same(case: Case, parameters: Mapping[str, Any]) -> bool:
    """Whether the vault answers alike and ends up alike: an agent by its id or its name, a limit that cuts nothing."""
    done = [
        execute([ToolCall(case.call.name, {**one, CONTEXT: case.context})], case.vault, case.catalog)
        for one in (case.parameters, parameters)
    ]
    return done[0].results == done[1].results and done[0].changes == done[1].changes


# -- the context --------------------------------------------------------------------------------------------------


def dropped_context(case: Case) -> Iterator[Message]:
    yield case.answer(case.parameters)


def dropped_context_field(case: Case) -> Iterator[Message]:
    for name in case.pick(list(case.context), 2):
        yield case.with_context({key: value for key, value in case.context.items() if key != name})


def emptied_context_field(case: Case) -> Iterator[Message]:
    for name in case.pick([name for name in case.context if name not in case.catalog.fields_that_may_be_empty], 2):
        yield case.with_context({**case.context, name: case.rng.choice(["", " "])})


def retyped_context_field(case: Case) -> Iterator[Message]:
    for name in case.pick(list(case.context)):
        yield case.with_context({**case.context, name: case.rng.choice([None, 7, [case.context[name]], {"text": ""}])})


def renamed_context_field(case: Case) -> Iterator[Message]:
    for name in case.pick(list(case.context)):
        snake = re.sub(r"(?=[A-Z])", "_", name).lower()
        wrong = snake if snake != name else name.title()
        yield case.with_context({wrong if key == name else key: value for key, value in case.context.items()})


def foreign_context_field(case: Case) -> Iterator[Message]:
    yield case.with_context({**case.context, case.rng.choice(["userId", "mode", "timestamp", "path"]): "now"})


def context_placeholder(case: Case) -> Iterator[Message]:
    for name in case.pick(list(case.context), 2):
        wrong = case.rng.choice([f"<{name}>", "...", "string", f"{{{name}}}", "[your text here]", "TODO", name])
        yield case.with_context({**case.context, name: wrong})


def other_session(case: Case) -> Iterator[Message]:
    """The id of another session than the one that the system prompt gives."""
    others = [key for key in case.vault.sessions if key != case.context["sessionId"] and case.prompt.system]
    for key in case.pick(others):
        yield case.with_context({**case.context, "sessionId": key})


def other_workspace(case: Case) -> Iterator[Message]:
    """The id of another workspace than the one that the system prompt gives."""
    known = [*case.vault.workspaces, "default"] if case.prompt.system else []
    others = [key for key in known if key != case.context["workspaceId"]]
    for key in case.pick(others):
        yield case.with_context({**case.context, "workspaceId": key})


_ELSEWHERE = (
    "Comparing quotes from three roofing firms",
    "Helping someone learn Hungarian verbs",
    "Choosing a mattress before Friday",
    "Booking ferry cabins across Denmark",
    "Debugging an elevator controller",
)


def unrelated_context(case: Case) -> Iterator[Message]:
    """All texts about something else, without a word in common with the request."""
    said = set(re.findall(r"\w+", case.prompt.question.lower()))
    fitting = [text for text in _ELSEWHERE if not said & set(re.findall(r"\w{4,}", text.lower()))]
    for text in case.pick(fitting):
        texts = {name: text for name in case.context if not name.endswith("Id")}
        yield case.with_context({**case.context, **texts})


# -- the parameters -----------------------------------------------------------------------------------------------


def dropped_parameter(case: Case) -> Iterator[Message]:
    for name in case.required:
        yield case.with_parameters({key: value for key, value in case.parameters.items() if key != name})


def emptied_parameter(case: Case) -> Iterator[Message]:
    for name in case.required:
        if isinstance(case.parameters[name], str | list) and case.parameters[name] and case.parameters[name] != "/":
            yield case.with_parameter(name, type(case.parameters[name])())


def retyped_parameter(case: Case) -> Iterator[Message]:
    for name in case.pick(list(case.parameters), 2):
        value = case.parameters[name]
        if name == "newValue":
            continue
        wrong = [value, "x"] if isinstance(value, str) else str(value)
        yield case.with_parameter(name, wrong)


def renamed_parameter(case: Case) -> Iterator[Message]:
    for name in case.pick(list(case.parameters), 2):
        snake = re.sub(r"(?=[A-Z])", "_", name).lower()
        wrong = snake if snake != name else f"{name}Value"
        yield case.with_parameters({wrong if key == name else key: value for key, value in case.parameters.items()})


def foreign_parameter(case: Case) -> Iterator[Message]:
    known = case.schema.get("properties", {})
    names = [name for name in ("confirm", "force", "folder", "reason_text", "dryRun") if name not in known]
    yield case.with_parameter(case.rng.choice(names), True)


def parameter_placeholder(case: Case) -> Iterator[Message]:
    for parameter, name, text in case.pick(case.strings, 2):
        wrong = case.rng.choice([f"<{name}>", f"path/to/{name}.md", f"your_{name}", "example.md", f"{{{name}}}"])
        yield case.with_text(parameter, text, wrong)


def copied_request(case: Case) -> Iterator[Message]:
    for parameter, _, text in case.pick(case.strings):
        yield case.with_text(parameter, text, case.prompt.question)


def similar_note(case: Case) -> Iterator[Message]:
    """The existing file whose path is most alike."""
    for parameter, _, text in case.of_kind("path"):
        others = [path for path in case.vault.notes if path not in (text, f"{text}.md")]
        if text in case.vault.notes:
            yield case.with_text(parameter, text, difflib.get_close_matches(text, others, n=1, cutoff=0)[0])


def similar_folder(case: Case) -> Iterator[Message]:
    for parameter, _, text in case.of_kind("path"):
        others = [path for path in case.vault.folders if path != text and not path.startswith(f"{text}/")]
        if text in case.vault.folders:
            yield case.with_text(parameter, text, difflib.get_close_matches(text, others, n=1, cutoff=0)[0])


def path_elsewhere(case: Case) -> Iterator[Message]:
    """The same name in a folder that is not there, or without its folder."""
    for parameter, _, text in case.of_kind("path"):
        if base_name(text) and text not in ("/", "."):
            yield case.with_text(parameter, text, f"{parent(text) or 'Notes'} old/{base_name(text)}")
            if parent(text):
                yield case.with_text(parameter, text, base_name(text))


def misspelt_path(case: Case) -> Iterator[Message]:
    """Two neighbouring letters of the name change places."""
    for parameter, _, text in case.of_kind("path"):
        stem = base_name(text).partition(".")[0]
        places = [i for i in range(len(stem) - 1) if stem[i] != stem[i + 1] and stem[i : i + 2].isalnum()]
        for place in case.pick(places):
            wrong = stem[:place] + stem[place + 1] + stem[place] + stem[place + 2 :]
            yield case.with_text(
                parameter, text, text[: len(text) - len(base_name(text))] + base_name(text).replace(stem, wrong, 1)
            )


def escaping_path(case: Case) -> Iterator[Message]:
    for parameter, _, text in case.pick(case.of_kind("path")):
        yield case.with_text(
            parameter, text, case.rng.choice([f"../{text}", f"C:\\vault\\{text}", f"{text}\0", f"../../etc/{text}"])
        )


_PAIRS = (("sourcePath", "targetPath"), ("path", "newPath"), ("oldContent", "newContent"), ("findText", "replaceText"))


def swapped_pair(case: Case) -> Iterator[Message]:
    for first, second in _PAIRS:
        if {first, second} <= case.parameters.keys():
            swapped = {first: case.parameters[second], second: case.parameters[first]}
            yield case.with_parameters({**case.parameters, **swapped})


def without_effect(case: Case) -> Iterator[Message]:
    """Both halves of a pair the same: moved to where it is, replaced by itself."""
    for first, second in _PAIRS:
        if {first, second} <= case.parameters.keys():
            yield case.with_parameter(second, case.parameters[first])


def other_id(case: Case) -> Iterator[Message]:
    """The id or name of another record of the same kind."""
    for table in ("workspaces", "sessions", "states", "agents"):
        records = list(getattr(case.vault, table).values())
        for key in ("id", "name"):
            values = [record[key] for record in records]
            for parameter, _, text in case.strings:
                others = [value for value in values if value != text]
                if text in values and others and case.call.name != "memoryManager_createWorkspace":
                    yield case.with_text(parameter, text, case.rng.choice(others))


def invented_id(case: Case) -> Iterator[Message]:
    for parameter, _, text in case.of_kind("id"):
        match = re.fullmatch(r"([a-z]+)_(\d{13})_(\w+)", text)
        if match:
            digits = str(int(match.group(2)) + case.rng.randint(1, 9))
            yield case.with_text(parameter, text, f"{match.group(1)}_{digits}_{match.group(3)}")


def shifted_range(case: Case) -> Iterator[Message]:
    """A range of lines that starts or ends one line off."""
    for first, last in (("offset", "limit"), ("startLine", "endLine")):
        if {first, last} <= case.parameters.keys():
            num_lines = case.vault.notes[case.parameters["filePath"]].text.count("\n")
            for name, step in ((first, 1), (first, -1), (last, 1), (last, -1)):
                shifted = {**case.parameters, name: case.parameters[name] + step}
                end = shifted[last] if last == "endLine" else shifted[first] + shifted[last] - 1
                if shifted[first] >= 1 and end <= num_lines:  # beyond both ends nothing is told apart
                    yield case.with_parameters(shifted)


def wrong_limit(case: Case) -> Iterator[Message]:
    """One less than the number asked for, where the vault has as many."""
    if "offset" not in case.parameters and 1 < case.parameters.get("limit", 0) <= case.num_found:
        yield case.with_parameter("limit", case.parameters["limit"] - 1)


def altered_text(case: Case) -> Iterator[Message]:
    """A text that the request quotes, with a word missing, added or changed in case."""
    for parameter, name, text in case.strings:
        words = text.split(" ")
        if case.is_quoted(text) and len(words) > 1 and kind_of(name, text) in ("free", "name"):
            place = case.rng.randrange(len(words))
            yield case.with_text(parameter, text, " ".join(words[:place] + words[place + 1 :]))
            if name != "query":  # searching knows no case
                yield case.with_text(parameter, text, text.swapcase())
            yield case.with_text(parameter, text, f"{text.rstrip()} and more")


def missing_text(case: Case) -> Iterator[Message]:
    """Text to be found in the note that is not there."""
    for name in ("oldContent", "findText"):
        if name in case.parameters:
            yield case.with_parameter(name, f"{case.parameters[name]} zebra")


def other_choice(case: Case) -> Iterator[Message]:
    """Another member of an enum that the request has chosen from."""
    for name in ("mode", "order", "sortBy", "aspectRatio"):
        choices = case.schema.get("properties", {}).get(name, {}).get("enum", ())
        others = [one for one in choices if one != case.parameters.get(name)]
        if name in case.parameters and others and (name not in ("order", "sortBy") or case.num_found > 1):
            yield case.with_parameter(name, case.rng.choice(others))


def flipped_flag(case: Case) -> Iterator[Message]:
    """A flag that decides about the effect, turned round."""
    for name in (
        "recursive",
        "replaceAll",
        "enabledOnly",
        "isEnabled",
        "createContinuationSession",
        "includeLineNumbers",
    ):
        if name in case.parameters:
            yield case.with_parameter(name, not case.parameters[name])


def dropped_option(case: Case) -> Iterator[Message]:
    """An optional parameter left out that decides about the effect."""
    for name in (
        "recursive",
        "replaceAll",
        "enabledOnly",
        "filesOnly",
        "tags",
        "sessionGoal",
        "description",
        "filepaths",
        "agent",
    ):
        is_optional = name in case.parameters and name not in case.required
        is_one_of_several = len(case.parameters) > 1 + (name == "description")
        if is_optional and is_one_of_several and (name != "filesOnly" or case.has_subfolder):
            yield case.with_parameters({key: value for key, value in case.parameters.items() if key != name})


def dropped_inner_option(case: Case) -> Iterator[Message]:
    """An optional parameter left out of one element of a list."""
    for name, elements in case.parameters.items():
        schemas = case.schema.get("properties", {}).get(name, {}).get("items", {}).get("properties", {})
        for key in ("paths", "limit", "contextFiles", "savePath"):
            for at, element in enumerate(elements if key in schemas else ()):
                if key in element and element[key] != schemas[key].get("default"):
                    less = {one: value for one, value in element.items() if one != key}
                    yield case.with_parameter(name, [*elements[:at], less, *elements[at + 1 :]])


def repeated_step(case: Case) -> Iterator[Message]:
    """A step of a batch made twice."""
    for name in ("operations", "prompts", "searches"):
        if name in case.parameters:
            steps = case.parameters[name]
            yield case.with_parameter(name, [*steps, case.rng.choice(steps)])


# -- more calls than asked for ------------------------------------------------------------------------------------


def repeated_call(case: Case) -> Iterator[Message]:
    yield render_turn([case.call, case.call])


def collateral_call(case: Case) -> Iterator[Message]:
    """A second call that was not asked for, after or before the right one."""
    extra = ToolCall("vaultManager_createFolder", {CONTEXT: case.context, "path": "Collateral"})
    calls = [case.call, extra] if case.rng.random() < 0.5 else [extra, case.call]
    yield render_turn(calls)


def destructive_call(case: Case) -> Iterator[Message]:
    """Afterwards a note is deleted, which nobody asked for."""
    note = case.rng.choice(sorted(case.vault.notes))
    extra = ToolCall("vaultManager_deleteNote", {CONTEXT: case.context, "path": note})
    yield render_turn([case.call, extra])


OPERATORS: tuple[Operator, ...] = (
    no_call, truncated, broken_json, bare_json, unknown_syntax,
    unknown_tool, other_tool, call_of_another_prompt, sibling_call,
    dropped_context, dropped_context_field, emptied_context_field, retyped_context_field, renamed_context_field,
    foreign_context_field, context_placeholder, other_session, other_workspace, unrelated_context,
    dropped_parameter, emptied_parameter, retyped_parameter, renamed_parameter, foreign_parameter,
    parameter_placeholder, copied_request, similar_note, similar_folder, path_elsewhere, misspelt_path, escaping_path,
    swapped_pair, without_effect, other_id, invented_id, shifted_range, wrong_limit, altered_text, missing_text,
    other_choice, flipped_flag, dropped_option, dropped_inner_option, repeated_step,
    repeated_call, collateral_call, destructive_call,
)  # fmt: skip
