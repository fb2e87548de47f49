"""The goal that a known right call has: what it does on the vault, told as goals are told."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.judging.arguments import kind_of, named_strings
from Evaluator.judging.execution import Execution, execute
from Evaluator.judging.goals import (
    ABOUT,
    MADE_BY_SERVER,
    OPTIONS,
    RESULT,
    Goal,
    lines_of,
    select,
    shortcomings,
    trimmed_lines,
)
from Evaluator.records import ToolCall
from Evaluator.vault.changes import TableChanges
from Evaluator.vault.server import ANSWERS
from Evaluator.vault.state import Vault

_QUOTED = re.compile(r'"([^"]+)"|(?<!\w)\'((?:[^\']|(?<=\w)\'(?=\w))+)\'(?!\w)')
_BLANK_LINE = re.compile(r"\b(?:blank|empty) lines?\b", re.IGNORECASE)
_ECHOES = ("query", "searches[].query", "searchedPaths[]")
"""Parts of a result that repeat the question and are no find."""


class NoGoal(ValueError):
    """A call that is to be the right one fails on the vault, or does and tells nothing."""


def goal_of(
    call: ToolCall, question: str, vault: Vault, catalog: Catalog, system: str = "", *, is_checked: bool = False
) -> Goal:
    """The goal that `call` meets on `vault`, where `question` asks for it after the system prompt. Raises NoGoal.

    Names that were said, and texts that the question quotes, are asked for word for word; other texts are free.
    Optional parameters of the call that change nothing here are asked for as such. `is_checked`: the call is known to
    fit the tool's schema.
    """
    execution = execute([call], vault, catalog, is_checked=is_checked)
    for failed in shortcomings(execution, None):
        raise NoGoal(f"{call.name} fails: {failed.sentence}")
    author = _Author(call, question, system, catalog)
    goal: dict[str, Any] = {table: author.table_goal(table, one) for table, one in execution.changes.items()}
    result = author.result_goal(execution)
    if result:
        goal[RESULT] = result
    if not execution.changes and not author.finds_something(result):
        raise NoGoal(f"{call.name} changes nothing and finds nothing")
    if author.has_free_text:
        goal[ABOUT] = question
    options = {
        name: author.value_goal(select(call.arguments, name) if "[]" in name else call.arguments[name])
        for name in author.optional_parameters()
        if any(
            not shortcomings(execute([thinner], vault, catalog, is_checked=True), goal)
            for thinner in _without(call, name)
        )
    }
    return {**goal, OPTIONS: options} if options else goal


def _without(call: ToolCall, parameter: str) -> Iterator[ToolCall]:
    """The call without an optional parameter; one of elements is left out of each element in turn."""
    name, _, inner = parameter.partition("[].")
    rest = {key: value for key, value in call.arguments.items() if key != name}
    if not inner:
        yield ToolCall(call.name, rest)
        return
    elements = call.arguments[name]
    for at, element in enumerate(elements):
        if inner in element:
            less = {key: value for key, value in element.items() if key != inner}
            yield ToolCall(call.name, {**rest, name: [*elements[:at], less, *elements[at + 1 :]]})


class _Author:
    """Writes the parts of a goal: tells what of a call was given by the question and what was worded freely."""

    def __init__(self, call: ToolCall, question: str, system: str, catalog: Catalog) -> None:
        self._call = call
        self._schema = catalog.tools[call.name].parameters
        self._texts = {text for _, text in _named_texts(call)}
        self._free = strings_to_word_freely(call, question)
        self._quoted = _quotes_in(question)
        self._counts_blank_lines = bool(_BLANK_LINE.search(question))
        self._said = f"{system}\n{question}"
        self._context = set(map(str, call.arguments.get(CONTEXT, {}).values()))

    @property
    def has_free_text(self) -> bool:
        return bool(self._free)

    def optional_parameters(self) -> list[str]:
        """Those of the call that its schema does not require, and that say something else than their default."""
        found = _optional(self._call.arguments, self._schema)
        for name, schema in self._schema.get("properties", {}).items():
            elements = self._call.arguments.get(name)
            if isinstance(elements, list) and all(isinstance(one, Mapping) for one in elements):
                inner = [f"{name}[].{key}" for one in elements for key in _optional(one, schema.get("items", {}))]
                found += dict.fromkeys(inner)
        return found

    # -- results

    def result_goal(self, execution: Execution) -> dict[str, Any]:
        (reply,) = execution.replies
        found = {
            selector: [one for one in select(reply.data, selector) if self._is_asked_for(one, execution.begun)]
            for selector in ANSWERS.get(self._call.name, ())
        }
        return {
            selector: self._values_goal(values) for selector, values in found.items() if self._counts(selector, values)
        }

    def _is_asked_for(self, value: Any, begun: frozenset[str]) -> bool:
        """Not the session that the call runs in, unless its id is told: an answer may make up another one."""
        return not isinstance(value, str) or value not in begun or value in self._said

    def _counts(self, selector: str, values: Sequence[Any]) -> bool:
        """Whether a part of the result must be as it is: there is one, and search words were not left to the caller."""
        if selector.endswith("query"):
            return all(_spaced(value) in self._quoted for value in values)
        return values not in ([], [""])

    def _values_goal(self, values: Sequence[Any]) -> Any:
        if {"sortBy", "order"} & self._call.arguments.keys():
            return {"ordered": values}
        default_limit = _default_limit(self._schema)
        is_cut = default_limit is not None and len(values) >= default_limit
        return {"at_least": values} if is_cut and not _has_limit(self._call.arguments) else list(values)

    def finds_something(self, result: Mapping[str, Any]) -> bool:
        parts = [values for selector, values in result.items() if selector not in _ECHOES]
        lists = [next(iter(values.values())) if isinstance(values, Mapping) else values for values in parts]
        return any(value not in (0, "") for values in lists for value in values)

    # -- changes

    def table_goal(self, table: str, changes: TableChanges) -> Goal:
        goal: dict[str, Any] = {}
        if table == "notes":
            goal["added"] = {path: self._text_goal(note.text, "") for path, note in changes.added.items()}
            goal["changed"] = {
                path: self._text_goal(new.text, old.text) for path, (old, new) in changes.changed.items()
            }
            goal["moved"] = dict(changes.moved)
        elif table == "folders":
            goal["added"] = list(changes.added)
        else:
            goal["added"] = [self._record_goal(table, record) for record in changes.added.values()]
            goal["changed"] = {key: self._changed_goal(*pair) for key, pair in changes.changed.items()}
        goal["removed"] = list(changes.removed)
        return {kind: value for kind, value in goal.items() if value}

    def _text_goal(self, new: str, old: str) -> Any:
        if not any(_spaced(text) in _spaced(new) and _spaced(text) not in _spaced(old) for text in self._free):
            return {"exactly": new} if self._counts_blank_lines else new
        lines, old_lines = trimmed_lines(new), trimmed_lines(old) if old else ()
        added = "\n".join(line for line in (Counter(lines) - Counter(old_lines)).elements() if line)
        removed = list((Counter(old_lines) - Counter(lines)).elements())
        goal: dict[str, Any] = {"like": added}
        if removed:
            goal["without"] = removed
        elif old:
            goal["at"] = "end" if lines_of(new)[: len(lines_of(old))] == lines_of(old) else "start"
        return goal

    def _changed_goal(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Goal:
        fields = {key: value for key, value in new.items() if old.get(key) != value and key not in MADE_BY_SERVER}
        return {key: self.value_goal(value) for key, value in fields.items()}

    def _record_goal(self, table: str, record: Mapping[str, Any]) -> Goal:
        """The fields that the call decides; those that the server makes up or leaves empty are free."""
        decided = {
            key: value
            for key, value in record.items()
            if key not in MADE_BY_SERVER and value is not None and not self._is_made_up(table, value)
        }
        return {key: self.value_goal(value) for key, value in decided.items()}

    def _is_made_up(self, table: str, value: Any) -> bool:
        if not isinstance(value, str) or value in self._texts:
            return False
        is_choice_of_server = table == "requests" and value not in self._said  # a model, a provider
        return not value or " " in value or is_choice_of_server or (value in self._context and value not in self._said)

    def value_goal(self, value: Any) -> Any:
        if isinstance(value, str):
            return {"like": value} if value in self._free else value
        if isinstance(value, Mapping):
            return {key: self.value_goal(one) for key, one in value.items()}
        return [self.value_goal(one) for one in value] if isinstance(value, list | tuple) else value


def _optional(values: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Names of the values that a schema does not require, and that say something else than their default."""
    known, required = schema.get("properties", {}), schema.get("required", ())
    return [
        name
        for name, value in values.items()
        if name in known and name not in required and known[name].get("default") != value
    ]


def strings_to_word_freely(call: ToolCall, question: str) -> set[str]:
    """The texts of a call that the question leaves to the caller.

    They are put together of more than what it quotes; names are free where the question does not say them.
    """
    quoted, said = sorted(_quotes_in(question), key=len, reverse=True), _spaced(question)
    return {
        text
        for name, text in _named_texts(call)
        if " " in text.strip()
        and (
            (kind_of(name, text) == "free" and not _is_made_of(text, quoted))
            or (kind_of(name, text) == "name" and _spaced(text) not in said)
        )
    }


def _is_made_of(text: str, quoted: Sequence[str]) -> bool:
    """Whether a text is one of the quoted ones, part of one, or several of them put together."""
    rest = _spaced(text)
    if any(rest in one for one in quoted):
        return True
    for one in quoted:
        rest = rest.replace(one, " ")
    return not re.search(r"\w", rest)


def _named_texts(call: ToolCall) -> list[tuple[str, str]]:
    return [pair for key, value in call.arguments.items() if key != CONTEXT for pair in named_strings(key, value)]


def _quotes_in(question: str) -> set[str]:
    return {_spaced(text) for pair in _QUOTED.findall(question) for text in pair if text}


def _spaced(text: str) -> str:
    """A text on one line, in lower case."""
    return re.sub(r"\s+", " ", text).strip().lower()


def _default_limit(schema: Any) -> float | None:
    """How many results a tool gives where no limit is asked for."""
    if isinstance(schema, list):
        return next((found for one in schema if (found := _default_limit(one)) is not None), None)
    if not isinstance(schema, Mapping):
        return None
    limit = schema.get("properties", {}).get("limit", {})
    return limit["default"] if "default" in limit else _default_limit(list(schema.values()))


def _has_limit(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "limit" in value or any(map(_has_limit, value.values()))
    return isinstance(value, list) and any(map(_has_limit, value))
