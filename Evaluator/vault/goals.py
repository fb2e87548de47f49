"""Goals: what must be different in the vault after the right calls, and what they must have answered.

    {"notes": {"added": {PATH: TEXT}, "removed": [PATH], "changed": {PATH: TEXT}, "moved": {PATH: NEW PATH}},
     "folders": {"added": [PATH], "removed": [PATH]},
     "sessions": {"added": [FIELDS], "removed": [ID], "changed": {ID: FIELDS}},      and so on for every table
     "result": {"files[].path": [VALUE, ...]}}

Whatever changed beyond that is collateral damage. A text is a string, which must be there word for word up to spaces
at line ends and, where lines are only added or only removed, blank lines; or {"like": TEXT}: free text that shares
words with TEXT (with "without": these lines must be gone). Added records need the given fields, changed ones exactly
these. Values of a result may stand in any order unless it is {"ordered": [VALUE, ...]}.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.grounding import kind_of, named_strings
from Evaluator.records import Finding, ToolCall
from Evaluator.vault.changes import Changes, TableChanges, changes_between
from Evaluator.vault.replies import Reply
from Evaluator.vault.server import ANSWERS, begin_session, run_call
from Evaluator.vault.state import Note, Vault
from Evaluator.words import stems

Goal = Mapping[str, Any]
RESULT = "result"
ENOUGH = 0.3
"""Share of the stems of a `like` text that a free text must have, and at least one."""
_MADE_BY_SERVER = {"id", "created", "lastAccessed", "timestamp"}
_KINDS = ("added", "removed", "changed", "moved")


# -- is a goal met? -----------------------------------------------------------------------------------------------


def unmet(goal: Goal, changes: Changes, replies: Sequence[Reply]) -> list[Finding]:
    """What keeps `changes` and `replies` from being what the goal asks for; empty when it is met."""
    findings = []
    for table in dict.fromkeys([*goal, *changes]):
        if table == RESULT:
            findings += _wrong_results(goal[RESULT], replies)
        else:
            findings += _table_findings(table, goal.get(table, {}), changes.get(table, TableChanges()))
    return findings


def _table_findings(table: str, wanted: Goal, found: TableChanges) -> Iterator[Finding]:
    for kind in _KINDS:
        want, have = wanted.get(kind, {}), getattr(found, kind)
        missing, surplus = _unmatched(want, have, table, kind)
        if missing:
            shown = ", ".join(map(str, missing))[:200]
            yield Finding(f"execution.not_done:{table}.{kind}", f"{table} {kind} not as asked: {shown}.")
        if surplus:
            shown = ", ".join(map(str, surplus))[:200]
            yield Finding(f"execution.collateral:{table}.{kind}", f"{table} {kind} without being asked: {shown}.")


def _unmatched(want: Any, have: Mapping[Any, Any], table: str, kind: str) -> tuple[list[Any], list[Any]]:
    """(what is wanted and not there, what is there and not wanted)."""
    if kind == "added" and isinstance(want, list) and table not in ("notes", "folders"):
        left = dict(have)
        missing = []
        for pattern in want:
            key = next((key for key, record in left.items() if _fits(pattern, record)), None)
            if key is None:
                missing.append(pattern)
            else:
                del left[key]
        return missing, list(left)
    if isinstance(want, list):
        return [key for key in want if key not in have], [key for key in have if key not in want]
    missing = [key for key, pattern in want.items() if key not in have or not _is_as_asked(pattern, have[key], kind)]
    return missing, [key for key in have if key not in want]


def _is_as_asked(pattern: Any, value: Any, kind: str) -> bool:
    if kind == "changed":
        old, new = value
        if isinstance(new, Note):
            return _text_fits(pattern, new.text, old.text)
        changed = {key for key in {*old, *new} if old.get(key) != new.get(key)} - _MADE_BY_SERVER
        return changed == pattern.keys() and _fits(pattern, new)
    return _text_fits(pattern, value.text, "") if isinstance(value, Note) else _fits(pattern, value)


def _text_fits(pattern: Any, text: str, old: str) -> bool:
    """A note's text: as given, or with {"like", "without"} the old lines less those of `without` and free text."""
    if isinstance(pattern, str):
        if text == pattern:
            return True
        wanted, before = Counter(_lines(pattern)), Counter(_lines(old))
        if before <= wanted or wanted <= before:  # only added to, or only taken from: blank lines between do not matter
            return _lines(text) == _lines(pattern)
        return _trimmed(text) == _trimmed(pattern)
    without = Counter(pattern.get("without", ()))
    before, after = (Counter(_trimmed(one) if without else _lines(one)) for one in (old, text))
    added = after - (before - without)
    is_kept = before - without <= after
    return is_kept and not added & without and is_like("\n".join(added.elements()), pattern["like"])


@lru_cache(maxsize=4096)
def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())


def _trimmed(text: str) -> list[str]:
    """Lines without spaces at their ends, without blank lines at both ends of the text."""
    return [line.rstrip() for line in text.strip("\n").split("\n")]


def _fits(pattern: Any, value: Any) -> bool:
    """Whether a value of a record is as asked; of an object the given fields count."""
    if isinstance(pattern, Mapping):
        if pattern.keys() == {"like"}:
            return isinstance(value, str) and is_like(value, pattern["like"])
        return isinstance(value, Mapping) and all(
            key in value and _fits(one, value[key]) for key, one in pattern.items()
        )
    if isinstance(pattern, list):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return is_list and len(value) == len(pattern) and all(map(_fits, pattern, value))
    if isinstance(pattern, str) and isinstance(value, str):
        return pattern.strip() == value.strip() or _path(pattern) == _path(value)
    return pattern == value and isinstance(pattern, bool) == isinstance(value, bool)


def _path(text: str) -> str:
    """A path as far as two spellings of it are told apart."""
    return text.strip("/ ").removesuffix(".md")


def is_like(text: str, other: str) -> bool:
    wanted = stems(other)
    return len(wanted & stems(text)) >= max(min(1, len(wanted)), ENOUGH * len(wanted))


def _wrong_results(wanted: Goal, replies: Sequence[Reply]) -> Iterator[Finding]:
    for selector, values in wanted.items():
        same = _SPELLINGS.get(selector.rpartition(".")[2], str)
        is_ordered = isinstance(values, Mapping)
        found = [same(str(value)) for reply in replies for value in select(reply.data, selector)]
        asked = [same(str(value)) for value in (values["ordered"] if is_ordered else values)]
        if found != asked and (is_ordered or sorted(found) != sorted(asked)):
            shown = ", ".join(found)[:200] or "nothing"
            yield Finding(f"execution.wrong_result:{selector}", f"{selector} of the result is {shown}, not as asked.")


_ECHOES = ("query", "searches[].query", "searchedPaths[]")
"""Parts of a result that repeat the question and are no find."""
_SPELLINGS = {"query": str.lower, "searchedPaths[]": _path}
"""What makes two values of a result the same where it is not equality, by the last part of the selector."""


def select(data: Any, selector: str) -> list[Any]:
    """The values at a selector such as `results[].filePath`: `[]` steps into each element of a list."""
    values = [data]
    for part in selector.split("."):
        name = part.removesuffix("[]")
        values = [value[name] for value in values if isinstance(value, Mapping) and name in value]
        if part.endswith("[]"):
            values = [item for value in values if isinstance(value, Sequence) for item in value]
    return values


# -- the goal that a known right call has -------------------------------------------------------------------------


class NoGoal(ValueError):
    """A call that is to be the right one fails on the vault, or does and tells nothing."""


def goal_of(call: ToolCall, question: str, vault: Vault, catalog: Catalog, system: str = "") -> Goal:
    """The goal that `call` meets on `vault`, where `question` asks for it after the system prompt. Raises NoGoal.

    Names, and texts that stand in quotes in the question, are asked for word for word; other texts are free.
    """
    before = vault.copy()
    begin_session(call, before, catalog)
    after = before.copy()
    reply = run_call(call, after, catalog)
    if reply.error is not None:
        raise NoGoal(f"{call.name} fails: {reply.error}")
    author = _Author(call, question, system)
    goal: dict[str, Any] = {
        table: author.table_goal(table, one) for table, one in changes_between(before, after).items()
    }
    result = {selector: select(reply.data, selector) for selector in ANSWERS.get(call.name, ())}
    result = {selector: values for selector, values in result.items() if author.asks_for(selector, values)}
    finds_something = any(
        value not in (0, "") for sel, values in result.items() if sel not in _ECHOES for value in values
    )
    if {"sortBy", "order"} & call.arguments.keys():
        result = {selector: {"ordered": values} for selector, values in result.items()}
    if result:
        goal[RESULT] = result
    if not goal or (goal.keys() == {RESULT} and not finds_something):
        raise NoGoal(f"{call.name} changes nothing and finds nothing")
    return goal


_QUOTED = re.compile(r'"([^"]+)"|(?<!\w)\'((?:[^\']|(?<=\w)\'(?=\w))+)\'(?!\w)')


def strings_to_word_freely(call: ToolCall, question: str) -> set[str]:
    """The texts of a call that the question does not quote and that name nothing."""
    quoted = _quotes_in(question)
    return {
        text
        for name, text in _named_texts(call)
        if " " in text.strip() and kind_of(name, text) == "free" and not any(_spaced(text) in one for one in quoted)
    }


def _quotes_in(question: str) -> set[str]:
    return {_spaced(text) for pair in _QUOTED.findall(question) for text in pair if text}


def _named_texts(call: ToolCall) -> list[tuple[str, str]]:
    return [pair for key, value in call.arguments.items() if key != CONTEXT for pair in named_strings(key, value)]


class _Author:
    """Writes goals: tells what of a call was given by the question and what was worded freely."""

    def __init__(self, call: ToolCall, question: str, system: str) -> None:
        self._texts = {text for _, text in _named_texts(call)}
        self._free = strings_to_word_freely(call, question)
        self._quoted = _quotes_in(question)
        self._said = f"{system}\n{question}"
        self._context = set(map(str, call.arguments.get(CONTEXT, {}).values()))

    def asks_for(self, selector: str, values: Sequence[Any]) -> bool:
        """Whether a result must be as it is: there is one, and search words were not left to the caller."""
        if selector.endswith("query"):
            return all(_spaced(value) in self._quoted for value in values)
        return values not in ([], [""])

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
            goal["added"] = [self._record_goal(record) for record in changes.added.values()]
            goal["changed"] = {key: self._changed_goal(*pair) for key, pair in changes.changed.items()}
        goal["removed"] = list(changes.removed)
        return {kind: value for kind, value in goal.items() if value}

    def _text_goal(self, new: str, old: str) -> Any:
        if not any(_spaced(text) in _spaced(new) and _spaced(text) not in _spaced(old) for text in self._free):
            return new
        lines, old_lines = Counter(_trimmed(new)), Counter(_trimmed(old))
        added = "\n".join(line for line in (lines - old_lines).elements() if line)
        removed = list((old_lines - lines).elements()) if old else []
        return {"like": added, **({"without": removed} if removed else {})}

    def _changed_goal(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> Goal:
        fields = {key: value for key, value in new.items() if old.get(key) != value and key not in _MADE_BY_SERVER}
        return {key: self._value_goal(value) for key, value in fields.items()}

    def _record_goal(self, record: Mapping[str, Any]) -> Goal:
        """The fields that the call decides; those that the server makes up or leaves empty are free."""
        decided = {
            key: value for key, value in record.items() if key not in _MADE_BY_SERVER and not self._is_made_up(value)
        }
        return {key: self._value_goal(value) for key, value in decided.items()}

    def _is_made_up(self, value: Any) -> bool:
        if not isinstance(value, str) or value in self._texts:
            return False
        return not value or " " in value or (value in self._context and value not in self._said)

    def _value_goal(self, value: Any) -> Any:
        if isinstance(value, str):
            return {"like": value} if value in self._free else value
        if isinstance(value, Mapping):
            return {key: self._value_goal(one) for key, one in value.items()}
        return [self._value_goal(one) for one in value] if isinstance(value, list | tuple) else value


def _spaced(text: str) -> str:
    """A text on one line, in lower case."""
    return re.sub(r"\s+", " ", text).strip().lower()
