"""Goals: what must be different in the vault after the right calls, and what they must have answered.

    {"notes": {"added": {PATH: TEXT}, "removed": [PATH], "changed": {PATH: TEXT}, "moved": {PATH: NEW PATH}},
     "folders": {"added": [PATH], "removed": [PATH]},
     "sessions": {"added": [FIELDS], "removed": [ID], "changed": {ID: FIELDS}},      and so on for every table
     "result": {"files[].path": [VALUE, ...]},
     "options": {"snippetLength": 400},
     "about": REQUEST}

Whatever changed beyond that is collateral damage. Of an added record the given fields count, of a changed one exactly
the given fields must have changed. A text is

- a string: word for word, up to spaces at line ends and, where lines are only added or only taken away, blank lines;
- {"exactly": TEXT}: blank lines count as well;
- {"like": TEXT}: free text about the same thing as TEXT or the request (see is_like). For a note it is what was added:
  the old lines stay, "at" the "start" or the "end" says on which side of it, those of "without" must be gone.

Values of a result may stand in any order unless it is {"ordered": [VALUE, ...]}; {"at_least": [...]} allows more.
`options` are parameters that the request asks for although they change nothing on this vault, `searches[].limit` those
of the elements of a list. The session that an answer runs in counts in results only where it is asked for: without a
system prompt its id is made up.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from Evaluator.judging.arguments import kind_of
from Evaluator.judging.execution import Execution
from Evaluator.judging.words import stems
from Evaluator.records import Finding
from Evaluator.vault.changes import TableChanges
from Evaluator.vault.state import Note

Goal = Mapping[str, Any]
RESULT, OPTIONS, ABOUT = "result", "options", "about"
MADE_BY_SERVER = {"id", "created", "lastAccessed", "timestamp"}
STEPS = ("results[]", "actionPerformed", "results[].actionPerformed")
"""Where replies tell of steps, which may fail while the call goes well."""
KINDS = ("added", "removed", "changed", "moved")
"""Which entries of a table a goal may be about."""


def shortcomings(execution: Execution, goal: Goal | None) -> list[Finding]:
    """Errors of the calls; without any, what is missing to the goal and what happened beyond it."""
    failed = [
        Finding(f"execution.error:{reply.tool}", f"{reply.tool} failed: {reply.error}")
        for reply in execution.replies
        if reply.error is not None
    ]
    failed += [
        Finding(f"execution.error:{reply.tool}", f"A step of {reply.tool} failed: {step.get('error')}")
        for reply in execution.replies
        for selector in STEPS
        for step in select(reply.data, selector)
        if isinstance(step, Mapping) and step.get("success") is False
    ]
    return failed or (list(_Comparison(goal, execution).findings()) if goal is not None else [])


class _Comparison:
    """A goal beside what was done."""

    def __init__(self, goal: Goal, execution: Execution) -> None:
        self._goal = goal
        self._about = goal.get(ABOUT, "")
        self._execution = execution

    def findings(self) -> Iterator[Finding]:
        changes = self._execution.changes
        for table in dict.fromkeys([*self._goal, *changes]):
            if table == RESULT:
                yield from self._wrong_results(self._goal[RESULT])
            elif table == OPTIONS:
                yield from self._missing_options(self._goal[OPTIONS])
            elif table != ABOUT:
                yield from self._table(table, self._goal.get(table, {}), changes.get(table, TableChanges()))

    # -- changes

    def _table(self, table: str, wanted: Goal, found: TableChanges) -> Iterator[Finding]:
        for kind in KINDS:
            missing, surplus = self._unmatched(wanted.get(kind, {}), getattr(found, kind), table, kind)
            if missing:
                shown = ", ".join(map(str, missing))[:200]
                yield Finding(f"execution.not_done:{table}.{kind}", f"{table} {kind} not as asked: {shown}.")
            if surplus:
                shown = ", ".join(map(str, surplus))[:200]
                yield Finding(f"execution.collateral:{table}.{kind}", f"{table} {kind} without being asked: {shown}.")

    def _unmatched(self, want: Any, have: Mapping[Any, Any], table: str, kind: str) -> tuple[list[Any], list[Any]]:
        """(what is wanted and not there, what is there and not wanted)."""
        if isinstance(want, Mapping):
            missing = [
                k for k, pattern in want.items() if k not in have or not self._is_as_asked(pattern, have[k], kind)
            ]
            return missing, [key for key in have if key not in want]
        if kind != "added" or table in ("notes", "folders"):
            return [key for key in want if key not in have], [key for key in have if key not in want]
        left, missing = dict(have), []  # new records have new ids: each pattern takes the first that fits
        for pattern in want:
            key = next((key for key, record in left.items() if self._fits(pattern, record)), None)
            if key is None:
                missing.append(pattern)
            else:
                del left[key]
        return missing, list(left)

    def _is_as_asked(self, pattern: Any, value: Any, kind: str) -> bool:
        if kind == "changed":
            old, new = value
            if isinstance(new, Note):
                return self._text_fits(pattern, new.text, old.text)
            changed = {key for key in {*old, *new} if old.get(key) != new.get(key)} - MADE_BY_SERVER
            return changed == pattern.keys() and self._fits(pattern, new)
        return self._text_fits(pattern, value.text, "") if isinstance(value, Note) else self._fits(pattern, value)

    def _text_fits(self, pattern: Any, text: str, old: str) -> bool:
        if isinstance(pattern, Mapping) and "like" in pattern:
            return self._added_text_fits(pattern, text, old)
        if isinstance(pattern, Mapping):
            return trimmed_lines(text) == trimmed_lines(pattern["exactly"])
        if text == pattern:
            return True
        wanted, before = Counter(lines_of(pattern)), Counter(lines_of(old))
        if before <= wanted:  # only added to
            return lines_of(text) == lines_of(pattern) and text.count("\n\n") >= old.strip("\n").count("\n\n")
        if wanted <= before:  # only taken from
            return lines_of(text) == lines_of(pattern)
        return trimmed_lines(text) == trimmed_lines(pattern)

    def _added_text_fits(self, pattern: Mapping[str, Any], text: str, old: str) -> bool:
        without = Counter(pattern.get("without", ()))
        before, after = (trimmed_lines(one) if without else lines_of(one) for one in (old, text))
        side = pattern.get("at")
        if side and before != (after[: len(before)] if side == "end" else after[-len(before) :]):
            return False
        added = Counter(after) - (Counter(before) - without)
        is_kept = Counter(before) - without <= Counter(after)
        return is_kept and not added & without and is_like("\n".join(added.elements()), pattern["like"], self._about)

    def _fits(self, pattern: Any, value: Any, name: str = "") -> bool:
        """Whether a value of the field `name` is as asked; of an object the given fields count."""
        if isinstance(pattern, Mapping):
            if pattern.keys() == {"like"}:
                return isinstance(value, str) and is_like(value, pattern["like"], self._about)
            return isinstance(value, Mapping) and all(
                key in value and self._fits(one, value[key], key) for key, one in pattern.items()
            )
        if isinstance(pattern, list):
            if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(pattern):
                return False
            return all(self._fits(one, other, name) for one, other in zip(pattern, value, strict=True))
        if isinstance(pattern, str) and isinstance(value, str):
            is_path = kind_of(name, pattern) == "path"
            return _path(pattern) == _path(value) if is_path else pattern.strip() == value.strip()
        return pattern == value and isinstance(pattern, bool) == isinstance(value, bool)

    # -- results and options

    def _wrong_results(self, wanted: Goal) -> Iterator[Finding]:
        for selector, values in wanted.items():
            same = _SPELLINGS.get(selector.rpartition(".")[2], str)
            kind = next(iter(values)) if isinstance(values, Mapping) else ""
            asked = [same(str(value)) for value in (values[kind] if kind else values)]
            found = [same(str(value)) for reply in self._execution.replies for value in select(reply.data, selector)]
            found = [value for value in found if value in asked or value not in self._execution.begun]
            if kind == "at_least":
                is_right = Counter(asked) <= Counter(found)
            else:
                is_right = found == asked or (kind != "ordered" and sorted(found) == sorted(asked))
            if not is_right:
                shown = ", ".join(found)[:200] or "nothing"
                yield Finding(
                    f"execution.wrong_result:{selector}", f"{selector} of the result is {shown}, not as asked."
                )

    def _missing_options(self, wanted: Goal) -> Iterator[Finding]:
        for name, value in wanted.items():
            if not any(self._has_option(call.arguments, name, value) for call in self._execution.calls):
                yield Finding(f"execution.option_missing:{name}", f"{name} is not {value!r}, which was asked for.")

    def _has_option(self, arguments: Mapping[str, Any], name: str, wanted: Any) -> bool:
        if "[]" not in name:
            return self._fits(wanted, arguments.get(name), name)
        left = select(arguments, name)
        for one in wanted:  # in any order, as the elements
            found = next((at for at, value in enumerate(left) if self._fits(one, value, name.rpartition(".")[2])), None)
            if found is None:
                return False
            del left[found]
        return not left


def _path(text: str) -> str:
    """A path as far as two spellings of it are told apart."""
    return text.strip("/ ").removesuffix(".md")


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


# -- texts --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def lines_of(text: str) -> tuple[str, ...]:
    """The lines of a text without blank ones and without spaces at their ends."""
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())


def trimmed_lines(text: str) -> tuple[str, ...]:
    """The lines of a text without spaces at their ends and without blank ones at both ends of the text."""
    return tuple(line.rstrip() for line in text.strip("\n").split("\n"))


ENOUGH = 0.3
"""Share of the stems of the model text that a free text must have, and at least one."""
ENOUGH_OF_REQUEST = 2
"""Or so many stems of the request."""
_NEGATION = re.compile(
    r"\b(?:no|not)\b(?! (?:more|less|fewer|longer|later|earlier|only)\b)"
    r"|\b(?:never|none|nobody|nothing|without)\b|n't\b",
    re.IGNORECASE,
)


def is_like(text: str, model: str, request: str = "") -> bool:
    """Whether a free text says about the same as `model`, as far as words can tell.

    It shares words with it or with the request, has its numbers, is negated where it is, and is not much longer.
    """
    wanted, found = stems(model), stems(text)
    shared = len(wanted & found)
    is_near = (
        shared >= max(min(1, len(wanted)), ENOUGH * len(wanted)) or len(found & stems(request)) >= ENOUGH_OF_REQUEST
    )
    has_numbers = all(word in found for word in wanted if word.isdigit())
    is_negated, may_be_negated = bool(_NEGATION.search(text)), bool(_NEGATION.search(f"{model} {request}"))
    must_be_negated = bool(_NEGATION.search(model))
    is_short = len(text) <= 4 * len(model) + len(request) + 100
    return (
        is_near
        and has_numbers
        and is_short
        and (is_negated or not must_be_negated)
        and (may_be_negated or not is_negated)
    )
