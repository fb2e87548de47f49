"""How the tools find things by name and text: filters, shares of words, one fuzzy match."""

import fnmatch
import re
from collections.abc import Callable
from functools import lru_cache

PATTERN_TIMEOUT_S = 0.5
"""A filter that takes longer on one name counts as no match: patterns come from a model."""


@lru_cache(maxsize=1024)
def name_filter(pattern: str | None) -> Callable[[str], bool]:
    """A test of names: a case-insensitive regular expression, or a glob where `pattern` is no valid one."""
    if not pattern:
        return lambda name: True
    if re.fullmatch(r"[\w \-/]+", pattern):
        folded = pattern.lower()
        return lambda name: folded in name.lower()
    import regex  # it can give up after a time, which `re` cannot

    for expression in (pattern, fnmatch.translate(pattern)):
        try:
            compiled = regex.compile(expression, regex.IGNORECASE)
            break
        except (regex.error, ValueError, OverflowError, RecursionError):
            continue
    else:
        return lambda name: False

    def fits(name: str) -> bool:
        try:
            return compiled.search(name, timeout=PATTERN_TIMEOUT_S) is not None
        except TimeoutError:
            return False

    return fits


@lru_cache(maxsize=4096)
def query_words(query: str) -> tuple[str, ...]:
    """The words of a query that count: those of more than two letters."""
    return tuple(word for word in query.lower().split() if len(word) > 2)


def text_score(query: str, folded: str) -> float:
    """0.9 for the whole query; else 0.8 x the share of its words that occur, at least 0.3; 0 for none."""
    if query.lower() in folded:
        return 0.9
    words = query_words(query)
    found = sum(word in folded for word in words)
    return max(0.3, 0.8 * found / len(words)) if found else 0.0


def name_score(query: str, name: str) -> float:
    """How well a query fits a name: 1 for equality, less the more of the name it leaves over; 0 when a word is missing.

    Stands for Obsidian's fuzzy search, whose scores are not published.
    """
    folded = name.lower()
    words = query.lower().split()
    if not words or not all(word in folded for word in words):
        return 0.0
    return min(1.0, sum(map(len, words)) / max(1, len(folded)) + 0.2)


def search_score(query: str, folded_text: str, name: str) -> tuple[float, str]:
    """Text and name together: 0.6 x text + 0.4 x name where both match. Returns the score and the method."""
    text, fuzzy = text_score(query, folded_text), name_score(query, name)
    if text and fuzzy:
        return 0.6 * text + 0.4 * fuzzy, "combined"
    return (text, "keyword") if text else (fuzzy, "fuzzy")


MAX_FUZZY_PATTERN = 32
"""The bitap matcher of diff-match-patch takes no longer patterns in its original, which the server runs."""


def fuzzy_match(text: str, pattern: str, threshold: float) -> int:
    """Where `pattern` is found nearly in `text`, or -1: diff-match-patch from position 0, distance 1000."""
    if not pattern or len(pattern) > MAX_FUZZY_PATTERN:
        return -1
    from diff_match_patch import diff_match_patch

    matcher = diff_match_patch()
    matcher.Match_Threshold, matcher.Match_Distance = 1 - threshold, 1000
    return matcher.match_main(text, pattern, 0)
