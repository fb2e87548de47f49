"""Is a text that a model wrote a usable request? Without labels and quotes around it, and without anything else.

Usable is one request of 3 to 80 words in English that names what it has to name: no tool call, no list of several, no
talk about requests, no answer, no statement that asks for nothing. These are rules on words: they know form, not sense.
"""

import re
from collections.abc import Sequence

from Evaluator.runs.attempts import UnusablePrompt
from Evaluator.tool_calls import parse_text

MIN_WORDS, MAX_WORDS = 3, 80


_LABEL = re.compile(
    r"^[\s*_#>-]*(?:(?:(?:sure|certainly|of course|okay|ok|great)[,!.]?\s*)?here(?:'s| is| are)\b[^:\n]{0,60}"
    r"\b(?:one|examples?|requests?|prompts?|query|queries|questions?|tasks?)\b[^:\n]{0,60}"
    r"|(?:an? |the |your )?(?:realistic |example |sample )?(?:user )?(?:request|prompt|query|question|task)(?: ?\d+)?"
    r"|(?:an? |the )?user)"
    r"[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
_CHATTER = re.compile(r"^(?:sure|certainly|of course|okay|ok|great)[,!.]*(?:\s*\n|$)", re.IGNORECASE)
_LIST_MARK = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+", re.MULTILINE)
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "**": "**"}
_ABOUT_PROMPTS = re.compile(
    r"\b(?:user|realistic|sample|example)\s+requests?\b|\brequests? for an? (?:obsidian|vault)\b|\bvault assistant\b"
    r"|\b(?:generate|write|create|make|come up with)\s+(?:an?\s+|the\s+|some\s+|\d+\s+)?(?:\w+\s+){0,2}requests?\b"
    r"|\b(?:generate|write|come up with)\s+(?:\w+\s+){1,3}prompts?\s+(?:that|which|for|to|asking)\b|\bas an ai\b"
    r"|\bvaried in complexity\b|\bspecific and actionable\b|\bthe user(?!'s| guide| manual| name| id| list)\b"
    r"|\bexactly as written\b|\bword it\b|\bthe message (?:is|names|asks|should|must|and nothing)\b"
    r"|\b(?:here is|the user's) (?:the |your )?response\b|^your request\b|\bbut does not say\b",
    re.IGNORECASE,
)


_ANSWER = re.compile(
    r"^(?:done[.!]|i(?:'ve| have) (?:just |now |successfully )?\w+ed the\b"
    r"|(?:the|your) (?:\w+ ){0,3}(?:note|file|folder|agent|workspace|session|state|line|text)s?\b"
    r".{0,60}? (?:has|have) been \w+ed\b)"
    r"|^(?:sure|certainly|of course)\b[,!.]"
    r"|^i(?:'m| am) (?:an? (?:ai|assistant|language)|your|here to|happy to|sorry)\b"
    r"|\bi can(?:not|'t)? (?:help|assist)\b|^(?:assistant|ai|user|human)\s*:",
    re.IGNORECASE | re.MULTILINE,
)


_ASKS = re.compile(
    r"\?|\b(?:please|pls|plz|can|could|would|will you|needs?|wants?|like to|like you to|i'd like|let's|let us|let me"
    r"|help|how about|must|should|has to|have to|supposed to|time (?:to|for))\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"(?:^|[.!?:;,)\n]\s+|\s[-\u2013\u2014]\s)[\W_]*(?:(?:and|but|or|so|then|now)\s+)?([\w']+)", re.IGNORECASE
)
_STARTS_OF_STATEMENTS = frozenset(
    re.findall(
        r"\S+",
        "the a an this that these those it it's its there there's here my our your his her their i i'm i've i'd we "
        "we're he she they you because which who as with when while since after before if also although",
    )
)
"""A clause that starts otherwise may be an imperative, or a title or path about which something is asked."""
_ENGLISH = re.compile(
    r"\b(?:the|an?|to|of|in|on|and|or|for|is|are|was|my|me|i|i'd|i'm|it|its|this|that|from|with|into|what|which|where|all"
    r"|please|can|could|you|have|has|no|not|with|full|top|text|last|first|be|as|by|at|under|show|list|open|move|create|delete|find|new|how|give|up|out|we)\b",
    re.IGNORECASE,
)
_ENOUGH_WORDS_TO_TELL = 8
_NAMELIKE = re.compile(r"\"[^\"]+\"|[^\s\"]+/[^\s\"]+|\S+\.md\b")
_NUMBER_WORDS = dict(
    enumerate(re.findall(r"\w+", "zero one two three four five six seven eight nine ten eleven twelve"))
)


def check_names(request: str, names: Sequence[str], *, leaves_out_a_value: bool = False) -> None:
    """Raise UnusablePrompt where a request lacks one of the `names`, or has more where one was to be left out."""
    said = _plain(request)
    for name in names:
        spoken = _NUMBER_WORDS.get(int(name), name) if name.isdigit() and len(name) < 3 else name
        if not any(re.search(rf"(?<!\w){re.escape(_plain(one))}(?!\w)", said) for one in (name, spoken)):
            raise UnusablePrompt("prompt.name_missing", f"it does not name {name}", request)
    if leaves_out_a_value:
        rest = said
        for name in sorted(map(_plain, names), key=len, reverse=True):
            rest = rest.replace(f'"{name}"', " ").replace(name, " ")
        if more := _NAMELIKE.search(rest):
            raise UnusablePrompt("prompt.names_more", f"it names {more.group()}, which was to stay open", request)


def _plain(text: str) -> str:
    """A text in lower case, on one line, with plain quotes."""
    text = text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
    return re.sub(r"\s+", " ", text).strip().lower()


def clean_request(text: str) -> str:
    """The request in what a model wrote, without labels and quotes around it. Raises UnusablePrompt."""
    request = text.strip()
    turn = parse_text(request)
    if turn.calls or turn.findings:
        raise UnusablePrompt("prompt.tool_call", "a tool call instead of a request", text)
    request = _unwrapped(request)
    if not request:
        raise UnusablePrompt("prompt.empty", "nothing was written", text)
    if len(_LIST_MARK.findall(request)) > 1:
        raise UnusablePrompt("prompt.several", "a list instead of one request", text)
    if _ABOUT_PROMPTS.search(request):
        raise UnusablePrompt("prompt.about_prompts", "a text about requests instead of a request", text)
    if _ANSWER.search(request):
        raise UnusablePrompt("prompt.answer", "an answer or a dialogue instead of a request", text)
    words = len(request.split())
    if words < MIN_WORDS:
        raise UnusablePrompt("prompt.too_short", f"{words} words; a request has {MIN_WORDS} or more", text)
    if words > MAX_WORDS:
        raise UnusablePrompt("prompt.too_long", f"{words} words; a request has {MAX_WORDS} at most", text)
    letters = [one for one in request if one.isalpha()]
    is_latin = sum(one < "\u0250" for one in letters) >= 0.8 * len(letters)
    if not is_latin or (words >= _ENOUGH_WORDS_TO_TELL and not _ENGLISH.search(request)):
        raise UnusablePrompt("prompt.language", "another language than English", text)
    if not _ASKS.search(request) and all(w.lower() in _STARTS_OF_STATEMENTS for w in _CLAUSE.findall(request)):
        raise UnusablePrompt("prompt.asks_nothing", "a statement that asks for nothing", text)
    return request


def _unwrapped(text: str) -> str:
    """Take labels, a list mark and quotes off, as often as they stand around each other."""
    before = None
    while text != before:
        before = text
        text = _CHATTER.sub("", text, count=1).strip()
        text = _LABEL.sub("", text, count=1).strip()
        if len(_LIST_MARK.findall(text)) == 1:
            text = _LIST_MARK.sub("", text, count=1) if _LIST_MARK.match(text) else text
        for opening, closing in _QUOTES.items():
            inner = text[len(opening) : -len(closing)]
            if len(text) > 2 * len(opening) and text == f"{opening}{inner}{closing}" and opening not in inner:
                text = inner.strip()
    return text
