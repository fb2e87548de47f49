"""Parts of an answer that its label is hardly ever about, so that KTO can read them and not score them.

KTO's rewards are sums over all tokens of an answer. Most of a right answer's log-probability (47 of 50 nats, the
experiment's round 1, SmolLM2-135M after SFT) are the random characters of the session id that it makes up, since
self-play has no system prompt that tells one, and what it says about its work in the texts of its context.
"""

import re
from collections.abc import Iterator

SESSION_IDS, CONTEXT_TEXTS, WRONG_ENDS = PARTS = ("session-ids", "context-texts", "wrong-ends")
"""Session ids that are made up; texts in a call's context; the end of turn of answers with label false, which are
wrong for what stands before it: an answer that does not end has no row."""

_SESSION_ID = re.compile(r"\bsession_([0-9]{13}_[0-9a-z]{9})(?![0-9A-Za-z_])")
"""As the catalog's schema has it; an id of another form is a reason for a label, so it counts."""

TEXT_FIELDS = ("sessionDescription", "sessionMemory", "toolContext", "primaryGoal", "subgoal")
"""The fields of a context that are no ids."""

_CONTEXT = re.compile(r'"context"\s*:\s*\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)')
_CONTEXT_TEXT = re.compile(rf'"(?:{"|".join(TEXT_FIELDS)})"\s*:\s*"((?:[^"\\]|\\.)*)"')


def invented_ids(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """From where to where `text[start:end]` has the digits and letters of a session id, if it is the first in `text`.

    After another id it is that one's copy, or wrong, which is a reason for a label.
    """
    found = _SESSION_ID.search(text)
    if found and start <= found.start() < end:
        yield found.span(1)


def context_texts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """From where to where `text[start:end]` has the texts in the contexts of calls, without their quotation marks.

    Names of fields and ids are no texts: labels are about them.
    """
    for context in _CONTEXT.finditer(text, start, end):
        for found in _CONTEXT_TEXT.finditer(text, *context.span(1)):
            yield found.span(1)
