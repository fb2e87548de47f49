"""Do the values of a call come from somewhere: the conversation, the system prompt or the vault?

Values that name things (paths, ids, dates, search words, names) must be found there; free text must share a word with
the request; the request must not be copied whole into one argument. What a value is follows from the name of its
argument, so this works for any catalog.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog, Tool
from Evaluator.records import Finding, ToolCall
from Evaluator.vault.state import Vault
from Evaluator.words import stems

_PATH = re.compile(r"(?<!^field)(?:path|folder|file)s?$", re.IGNORECASE)
_ID = re.compile(r"^ids?$|Ids?$|ID$|_id$")
_NAME = re.compile(
    r"(?:name|\w*Name|agent|provider|model|query|filter|pattern|\w*[tT]ags|tools|managers|findText|oldContent|fieldPath)"
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_RELATIVE_DAY = re.compile(
    r"\b(?:today|yesterday|tomorrow|tonight|(?:this|last|next|past|previous|coming)\s+(?:\w+\s+)?"
    r"(?:day|week|weekend|month|quarter|year|spring|summer|autumn|fall|winter|\w+day)s?"
    r"|since|recent(?:ly)?|ago)\b",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ROOTS = {"", "/", ".", "./"}
_SHORT = 3
"""Strings of so few characters (`ts`, `*`, `5`) name nothing."""
_COPY_WORDS = 5
"""A request of fewer words may be the text of an argument by rights."""


@dataclass(frozen=True)
class Sources:
    """Where values may come from: the last request, everything said so far (with the system prompt), and the vault."""

    request: str
    said: str
    vault: Vault | None = None

    @property
    def folded(self) -> str:
        return _folded(self.said)


@lru_cache(maxsize=4096)
def _folded(text: str) -> str:
    return re.sub(r"\s+", " ", text).lower()


def ungrounded(call: ToolCall, sources: Sources, catalog: Catalog) -> list[Finding]:
    """The faults of one call whose arguments fit its schema."""
    tool = catalog.tools[call.name]
    findings = []
    for argument, value in call.arguments.items():
        if argument == CONTEXT and catalog.context:
            findings += _context_findings(call, value, sources, catalog)
        else:
            findings += _argument_findings(tool, argument, value, sources)
    return findings


# -- the context --------------------------------------------------------------------------------------------------


def _context_findings(
    call: ToolCall, context: Mapping[str, Any], sources: Sources, catalog: Catalog
) -> Iterator[Finding]:
    """The context is about the request, or at least about what the tool does and on what it is called."""
    with_form = {name for name, _ in catalog.id_patterns}
    text = " ".join(value for name, value in context.items() if name not in with_form and isinstance(value, str))
    tool = catalog.tools[call.name]
    arguments = (
        text for name, value in call.arguments.items() if name != CONTEXT for _, text in named_strings("", value)
    )
    about = " ".join([sources.request, _split_name(call.name), tool.summary, *arguments])
    if not _share_a_word(text, about):
        yield Finding("grounding.unrelated_context", "Not one word of the context has to do with the request.")


# -- the other arguments ------------------------------------------------------------------------------------------


def _argument_findings(tool: Tool, argument: str, value: Any, sources: Sources) -> Iterator[Finding]:
    free: list[str] = []
    for name, text in named_strings(argument, value):
        kind = kind_of(name, text)
        if text in tool.fixed_words or (kind in ("free", "name") and 0 < len(text) <= _SHORT):
            continue
        if kind == "free":
            free.append(text)
        elif not _CHECKS[kind](text, sources):
            yield Finding(f"grounding.unknown_{kind}:{argument}", f"{name} {text[:100]!r} is named nowhere.")
        if _is_copied(text, sources.request):
            yield Finding(f"grounding.copied_request:{argument}", f"{name} is the whole request.")
    if free and not _share_a_word(" ".join(free), sources.request):
        yield Finding(f"grounding.unrelated_text:{argument}", f"Not one word of {argument} has to do with the request.")


def named_strings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every string in an argument with the name of the field that holds it."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from named_strings(key, one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from named_strings(name, one)


def kind_of(name: str, text: str) -> str:
    """What a string in the field `name` is: a path, an id, a date, a name, or free text."""
    if _DATE.fullmatch(text):
        return "date"
    if _PATH.search(name):
        return "path"
    if _ID.search(name):
        return "id"
    return "name" if _NAME.fullmatch(name) else "free"


def _is_path_known(path: str, sources: Sources) -> bool:
    """Path-aware: case, `.md` and slashes at the ends do not count, every other character does.

    A path is known when the whole is said or in the vault, or when each of its parts is. A part of a new name may
    also be put together from words that were said.
    """
    if path in _ROOTS:
        return True
    folded = path.lower().strip("/").removeprefix("./")
    return _is_part_known(folded, sources) or all(_is_part_known(part, sources) for part in folded.split("/") if part)


def _is_part_known(part: str, sources: Sources) -> bool:
    bare = part.removesuffix(".md")
    if sources.vault and (part in sources.vault.folded_paths or bare in sources.vault.folded_paths):
        return True
    if _stands_in(bare, sources.folded):
        return True
    words = re.split(r"[\s_-]+", bare)
    return len(words) > 1 and all(_stands_in(word, sources.folded) for word in words)


_AFTER = re.compile(r"(?:\.md)?(?:$|[^\w.!?-]|[.!?]+(?:$|[^\w.]))")
"""What may follow a name: the end of a sentence, but no more letters and no other extension."""


def _stands_in(text: str, where: str) -> bool:
    """Whether a name stands somewhere as it is, not inside a longer one."""
    position = where.find(text) if text else -1
    while position >= 0:
        before = where[position - 1] if position else " "
        if not (before.isalnum() and text[0].isalnum()) and _AFTER.match(where, position + len(text)):
            return True
        position = where.find(text, position + 1)
    return False


def _is_id_known(key: str, sources: Sources) -> bool:
    return _stands_in(key.lower(), sources.folded) or (sources.vault is not None and key in sources.vault.ids)


def _is_date_known(date: str, sources: Sources) -> bool:
    """The date as such, its day beside its month in words or digits, or a day told relative to now."""
    if (
        date in sources.said
        or (sources.vault and date in sources.vault.folded_text)
        or _RELATIVE_DAY.search(sources.said)
    ):
        return True
    year, month, day = date.split("-")
    names_month = _MONTHS[int(month) - 1] in sources.folded if 1 <= int(month) <= 12 else False
    return (year in sources.said and (names_month or month in sources.said)) or (
        names_month and re.search(rf"\b0?{int(day)}(?:st|nd|rd|th)?\b", sources.said) is not None
    )


def _is_name_known(name: str, sources: Sources) -> bool:
    """At least half of its words are said, or occur in the vault; `keyFile` are two words."""
    words = stems(_split_name(name))
    known = words & stems(sources.said)
    if sources.vault and len(known) * 2 < len(words):
        known |= {word for word in words - known if any(one.startswith(word) for one in sources.vault.words)}
    return bool(name) and len(known) * 2 >= len(words)


def _split_name(name: str) -> str:
    """`contentManager_readContent` as the words it is made of."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


_CHECKS = {"path": _is_path_known, "id": _is_id_known, "date": _is_date_known, "name": _is_name_known}


def _share_a_word(text: str, request: str) -> bool:
    wanted, found = stems(request), stems(text)
    return not wanted or not found or bool(wanted & found)


def _is_copied(text: str, request: str) -> bool:
    """Whether the whole request stands in a text, whatever the case and the punctuation."""
    if len(text) < len(request) // 2:
        return False
    words = re.findall(r"\w+", request.lower())
    return len(words) >= _COPY_WORDS and " ".join(words) in " ".join(re.findall(r"\w+", text.lower()))


def sources_of(request: str, earlier: Sequence[str], vault: Vault | None) -> Sources:
    """The sources of a turn: its request, what was said before it (the system prompt included), the vault."""
    return Sources(request, "\n".join([*earlier, request]), vault)
