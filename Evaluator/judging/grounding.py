"""Do the values of a call come from somewhere: the conversation, the system prompt or the vault?

Values that name things (paths, ids, dates, search words, names) must be found there; free text must share a word with
the request; the request must not be copied whole into one argument. What a value is follows from the name of its
argument, so this works for any catalog.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog, Tool
from Evaluator.judging.arguments import kind_of, named_strings
from Evaluator.judging.words import stems
from Evaluator.records import Finding, ToolCall
from Evaluator.vault.state import DEFAULT_WORKSPACE, Vault

_RELATIVE_DAY = re.compile(
    r"\b(?:today|daily|yesterday|tomorrow|tonight|(?:this|last|next|past|previous|coming)\s+(?:\w+\s+)?"
    r"(?:day|week|weekend|month|quarter|year|spring|summer|autumn|fall|winter|\w+day)s?"
    r"|since|recent(?:ly)?|ago)\b",
    re.IGNORECASE,
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EXTENSION = re.compile(r"(?<=[^/])\.(?:md|canvas|png|jpe?g|webp|pdf|txt)$")
_ROOTS = {"", "/", ".", "./"}
_SHORT = 4
"""Strings of so few characters (`ts`, `*`, `5`) name nothing."""
_COPY_WORDS = 5
"""A request of fewer words may be the text of an argument by rights."""


@dataclass(frozen=True)
class Sources:
    """Where values may come from: the last request, what was talked about so far, all texts that there are (the system
    prompt too), and the vault."""

    request: str
    talk: str
    said: str
    vault: Vault | None = None

    @property
    def folded(self) -> str:
        return _folded(self.said)


@lru_cache(maxsize=512)
def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", re.sub(r"\s+", " ", text)).lower()


def ungrounded(call: ToolCall, sources: Sources, catalog: Catalog) -> list[Finding]:
    """The faults of one call whose arguments fit its schema."""
    tool = catalog.tools[call.name]
    findings = list(_same_on_both_sides(call))
    for argument, value in call.arguments.items():
        if argument == CONTEXT and catalog.context:
            findings += _context_findings(call, value, sources, catalog)
        else:
            findings += _argument_findings(tool, argument, value, sources)
    return findings


_PAIRS = (("path", "newPath"), ("sourcePath", "targetPath"), ("oldContent", "newContent"), ("findText", "replaceText"))


def _same_on_both_sides(call: ToolCall) -> Iterator[Finding]:
    """Moved to where it is, replaced by itself."""
    for old, new in _PAIRS:
        if {old, new} <= call.arguments.keys() and call.arguments[old] == call.arguments[new]:
            yield Finding(f"grounding.same_value:{new}", f"{new} is the same as {old}.")


# -- the context --------------------------------------------------------------------------------------------------


def _context_findings(
    call: ToolCall, context: Mapping[str, Any], sources: Sources, catalog: Catalog
) -> Iterator[Finding]:
    """The context is about the request, or at least about what the tool does and on what it is called."""
    with_form = {name for name, _ in catalog.id_patterns}
    text = " ".join(value for name, value in context.items() if name not in with_form and isinstance(value, str))
    arguments = (
        text for name, value in call.arguments.items() if name != CONTEXT for _, text in named_strings("", value)
    )
    about = " ".join([sources.talk, _split_name(call.name), *arguments])
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
    if free and not _share_a_word(" ".join(free), sources.talk):
        yield Finding(f"grounding.unrelated_text:{argument}", f"Not one word of {argument} has to do with the request.")


def _is_path_known(path: str, sources: Sources) -> bool:
    """Path-aware: case, `.md` and slashes at the ends do not count, every other character does.

    A path is known when the whole is said or in the vault, or when each of its parts is. A part of a new name may
    also be put together from words that were said.
    """
    if path in _ROOTS:
        return True
    folded = _folded(path).strip("/").removeprefix("./")
    return _is_part_known(folded, sources) or all(_is_part_known(part, sources) for part in folded.split("/") if part)


def _is_part_known(part: str, sources: Sources) -> bool:
    bare = _EXTENSION.sub("", part)
    if sources.vault and (part in sources.vault.folded_paths or bare in sources.vault.folded_paths):
        return True
    if _stands_in(part, sources.folded) or _stands_in(bare, sources.folded):
        return True
    if kind_of("", bare) == "date" and _RELATIVE_DAY.search(sources.talk):
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
        end = position + len(text)
        if not text.isascii() or (not (before.isalnum() and text[0].isalnum()) and _AFTER.match(where, end)):
            return True  # scripts without spaces have no ends of words
        position = where.find(text, position + 1)
    return False


def _is_id_known(key: str, sources: Sources) -> bool:
    if key == DEFAULT_WORKSPACE or _stands_in(key.lower(), sources.folded):
        return True
    return sources.vault is not None and key in sources.vault.ids


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
    """It is said as it is, or at least half of its words are said or occur in the vault; `keyFile` are two words."""
    if _stands_in(_folded(name), sources.folded):
        return True
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


def sources_of(request: str, earlier: Sequence[str], vault: Vault | None, system: str = "") -> Sources:
    """The sources of a turn: its request, the turns before it, the vault, the system prompt."""
    talk = "\n".join([*earlier, request])
    return Sources(request, talk, f"{system}\n{talk}", vault)
