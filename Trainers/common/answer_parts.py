"""Parts of an answer that its label is hardly ever about, so that KTO can read them and not score them.

KTO's rewards are sums over all tokens of an answer, and unlikely tokens have the largest gradients. Most of a right
answer's log-probability (54 of 57 nats, self-play of the experiment's round 1, SmolLM2-135M after SFT) are the random
characters of the session id that it makes up, since self-play has no system prompt that tells one, and what it says
about its work in the texts of its context; of a plain answer it is its wording.
"""

import re
from collections.abc import Iterator, Sequence

from Evaluator.records import Message
from Evaluator.tool_calls import parse_turn

SESSION_IDS, CONTEXT_TEXTS, WRONG_ENDS, WRONG_TEXTS = PARTS = (
    "session-ids",
    "context-texts",
    "wrong-ends",
    "wrong-texts",
)
"""Session ids that are made up; texts in a call's context; the end of turn of answers with label false, which are
wrong for what stands before it, since an answer that does not end has no row; answers with label false that call no
tool, which are wrong as a whole, however they are worded."""

_REASONS = {SESSION_IDS: ("context.bad_format:sessionId",), CONTEXT_TEXTS: ("context.placeholder:",)}
"""Codes of the validator, or what they begin with, that are about a part."""

TEXT_FIELDS = ("sessionDescription", "sessionMemory", "toolContext", "primaryGoal", "subgoal")
"""The fields of a context that are no ids."""

_SESSION_ID = re.compile(r'sessionId["`*]*\s*[:=]\s*["`*]*(?:session_)?([\w.-]+)')
_CONTEXT = re.compile(r'"context"\s*:\s*\{((?:[^"{}]|"(?:[^"\\]|\\.)*")*)')
_CONTEXT_TEXT = re.compile(rf'"(?:{"|".join(TEXT_FIELDS)})"\s*:\s*"((?:[^"\\]|\\.)*)"')


def invented_ids(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """From where to where `text[start:end]` has the characters of the session id in a context, if none is told before.

    One that is told before makes another one wrong; ids that a request is about are not told as the session's own.
    """
    if _SESSION_ID.search(text, 0, start):
        return
    for context in _CONTEXT.finditer(text, start, end):
        found = _SESSION_ID.search(text, *context.span(1))
        if found:
            yield found.span(1)
            return


def context_texts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """From where to where `text[start:end]` has the texts in the contexts of calls, without their quotation marks.

    Names of fields and ids are no texts: labels are about them.
    """
    for context in _CONTEXT.finditer(text, start, end):
        for found in _CONTEXT_TEXT.finditer(text, *context.span(1)):
            yield found.span(1)


def is_wrong_there(answer: Message, errors: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether an answer with label false is wrong in these parts alone: without them only what is right is left."""
    if WRONG_TEXTS in parts:
        turn = parse_turn(answer)
        if not turn.calls and not turn.findings:
            return True
    reasons = tuple(reason for part in parts for reason in _REASONS.get(part, ()))
    return bool(errors) and all(error.startswith(reasons) for error in errors)
