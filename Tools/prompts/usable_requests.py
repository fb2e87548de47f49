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
    r"\b(?:one|examples?|requests?|prompts?|query|queries|questions?|tasks?|messages?)\b[^:\n]{0,60}"
    r"|(?:an? |the |your )?(?:realistic |example |sample )?(?:user )?"
    r"(?:request|prompt|query|question|task|message)(?: ?\d+)?"
    r"|(?:an? |the )?user)"
    r"[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
_CHATTER = re.compile(r"^(?:sure|certainly|of course|okay|ok|great)[,!.]*(?:\s*\n|$)", re.IGNORECASE)
_LIST_MARK = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+", re.MULTILINE)
_QUOTES = {"```": "```", '"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "**": "**"}
_ABOUT_PROMPTS = re.compile(
    r"\b(?:user|realistic|sample|example)\s+requests?\b|\brequests? for an? (?:obsidian|vault)\b|\bvault assistant\b"
    r"|\b(?:generate|write|create|make|come up with)\s+(?:an?\s+|the\s+|some\s+|\d+\s+)?(?:\w+\s+){0,2}requests?\b"
    r"(?! (?:letter|form|note|log|list))"
    r"|\b(?:generate|write|come up with)\s+(?:\w+\s+){1,3}prompts?\s+(?:that|which|for|to|asking)\b|\bas an ai\b"
    r"|\bvaried in complexity\b|\bspecific and actionable\b"
    r"|\bthe user (?:wants?|is|has|would|needs?|asks?|requests?|types?|says|sends?|sent|responds)\b"
    r"|\n\s*\((?:this|note|the message|in this)\b"
    r"|\bexactly as written\b|\bword it\b|\bthe message (?:is|names|asks|should|must|and nothing)\b"
    r"|\b(?:here is|the user's) (?:the |your )?response\b|^your request\b|\bbut does not say\b",
    re.IGNORECASE,
)


_ANSWER = re.compile(
    r"^(?:sure|certainly|of course)\b[,!.]"
    r"|^i(?:'m| am) (?:an? (?:ai|assistant|language)|your|here to|happy to|sorry)\b"
    r"|\bi can(?:not|'t)? (?:help|assist)\b|^(?:assistant|ai|user|human)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_REPORT = re.compile(
    r"^(?:done[.!]|i(?:'ve| have) (?:just |now |successfully )?\w+ed the\b"
    r"|(?:the|your) (?:\w+ ){0,3}(?:note|file|folder|agent|workspace|session|state|line|text)s?\b"
    r".{0,60}? (?:has|have) been \w+ed\b)",
    re.IGNORECASE | re.MULTILINE,
)
"""It says that something was done; a request may say so too, and then asks for more."""


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
_ENGLISH = frozenset(
    re.findall(
        r"\S+",
        "the of to and with my from this that it is are what which where please could would you into for not them all "
        "i'd i'm i on by at be have has how show list move create delete find give put write add rename new note notes "
        "folder file agent session state text line lines search top no let get make them their up out or as one",
    )
)
_OF_OTHERS = frozenset(
    re.findall(
        r"\S+",
        "der die das und bitte ich nicht ein eine den dem mit le la les des une du et je dans pour avec el los las por "
        "favor una con del il gli di che per sono het een van niet graag naar o os da em uma para nao",
    )
)
"""The commonest words of some other languages that use the same letters."""
_NAMELIKE = re.compile(r"\"[^\"]+\"|[^\s\"]+/[^\s\"]+|\S+\.md\b")
_TITLED = re.compile(r"\b(?:to|into|in|called|named|as|under) (?:the |a )?([A-Z][\w'-]+(?: [A-Z][\w'-]*)*)")
_NUMBER_WORDS = dict(
    enumerate(re.findall(r"\w+", "zero one two three four five six seven eight nine ten eleven twelve"))
)


def check_names(request: str, names: Sequence[str], *, leaves_out_a_value: bool = False) -> None:
    """Raise UnusablePrompt where a request lacks one of the `names`, or has more where one was to be left out."""
    said = _plain(request)
    for name in sorted(names, key=len, reverse=True):
        spoken = _NUMBER_WORDS.get(int(name), name) if name.isdigit() and len(name) < 3 else name
        found = re.compile(rf"(?<!\w)(?:{re.escape(_plain(name))}|{re.escape(_plain(spoken))})(?!\w)")
        if not found.search(said):
            raise UnusablePrompt("prompt.name_missing", f"it does not name {name}", request)
        said = found.sub("\x00", said)  # a folder is not named by the path of a note in it
    if leaves_out_a_value:
        more = _NAMELIKE.search(re.sub(r"[\x00\"/]*\x00[\x00\"/]*", " ", said)) or _TITLED.search(
            _without(request, names)
        )
        if more:
            raise UnusablePrompt("prompt.names_more", f"it names {more.group()}, which was to stay open", request)


def _without(request: str, names: Sequence[str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        request = re.sub(re.escape(name), "\x00", request, flags=re.IGNORECASE)
    return request


def _plain(text: str) -> str:
    """A text in lower case, on one line, with plain quotes."""
    text = text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
    return re.sub(r"\s+", " ", text).strip().lower()


def clean_request(text: str, names: Sequence[str] = ()) -> str:
    """The request in what a model wrote, without labels and quotes around it; `names` may be in any language.

    Raises UnusablePrompt.
    """
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
    if not _is_english(_without(request, names)):
        raise UnusablePrompt("prompt.language", "another language than English", text)
    if not _asks(request):
        is_report = _REPORT.search(request)
        code, sentence = ("answer", "a report of what was done") if is_report else ("asks_nothing", "a statement")
        raise UnusablePrompt(f"prompt.{code}", f"{sentence} that asks for nothing", text)
    return request


def _is_english(request: str) -> bool:
    """Whether the letters are Latin ones, and no more common words of other languages than English ones."""
    letters = [one for one in request if one.isalpha()]
    words = set(re.findall(r"[^\W\d_]+(?:'[a-z]+)?", _NAMELIKE.sub(" ", request.lower())))
    is_latin = sum(one < "\u0250" for one in letters) >= 0.8 * len(letters)
    return is_latin and len(words & _OF_OTHERS) <= len(words & _ENGLISH)


def _asks(request: str) -> bool:
    """Whether there is a question, a wish, or a clause that may be an imperative."""
    starts = _CLAUSE.findall(request)
    return bool(_ASKS.search(request)) or any(word.lower() not in _STARTS_OF_STATEMENTS for word in starts)


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
