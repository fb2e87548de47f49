"""Tool calls in a model's answer: the only parser, and the only renderer, of the four syntaxes.

text      tool_call: NAME          openai    message["tool_calls"][i]["function"]
          arguments: {...}         mistral   [TOOL_CALLS] [{...}]   or   [TOOL_CALLS]NAME[ARGS]{...}
                                   qwen      <tool_call>{"name": ..., "arguments": {...}}</tool_call>

Parsing never raises and never repairs: what a strict runtime would refuse is a Finding with a `parse.` code, and
an attempt at a call is never taken for plain text.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from Evaluator.records import Finding, Message, ToolCall

SYNTAXES = ("text", "openai", "mistral", "qwen")
MAX_DEPTH = 64
"""Brackets open at once in arguments. Far above any real call, far below Python's recursion limit."""


@dataclass(frozen=True)
class ParsedTurn:
    """The calls of one assistant turn in order, what is broken in it, and the syntax (None: no call).

    `ends` are the positions in the text where the calls end, for those that are written there.
    """

    calls: Sequence[ToolCall]
    findings: Sequence[Finding] = ()
    syntax: str | None = None
    ends: Sequence[int] = ()


def parse_turn(message: Message) -> ParsedTurn:
    """Read all tool calls of one assistant turn. A broken call ends the reading with one finding."""
    content = message.content if isinstance(message.content, str) else ""
    from_text = parse_text(content)
    if not message.tool_calls:
        return from_text
    if from_text.calls or from_text.findings:
        return ParsedTurn((), (Finding("parse.mixed_syntax", "Calls stand both in tool_calls and in the text."),))
    return _parse_native(message.tool_calls)


def parse_text(content: str) -> ParsedTurn:
    """Read the tool calls that are written in the text of a turn."""
    calls: list[ToolCall] = []
    ends: list[int] = []
    syntax: str | None = None
    position = 0
    around: list[str] = []
    try:
        while match := _MARKER.search(content, position):
            around.append(content[position : match.start()])
            kind = match.lastgroup or ""
            found, position = _READERS[kind](content, match)
            if not found:
                continue
            if _LEFTOVER.match(content, position):
                raise _Broken("trailing_text", "A bracket follows the end of a call.")
            if syntax not in (None, kind):
                raise _Broken("mixed_syntax", f"Calls are written both in the {syntax} and in the {kind} syntax.")
            syntax = kind
            calls += found
            ends += [position] * len(found)
        _refuse_bare_call("\n".join([*around, content[position:]]))
    except _Broken as broken:
        return ParsedTurn(tuple(calls), (broken.finding,), syntax)
    return ParsedTurn(tuple(calls), (), syntax, tuple(ends))


class _Broken(Exception):
    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.finding = Finding(f"parse.{code}", sentence)


# -- what starts a call -------------------------------------------------------------------------------------------

_MARKER = re.compile(
    r"(?P<text>\btool_calls?[ \t]*:)"
    r"|(?P<mistral>\[TOOL_CALLS\])"
    r"|(?P<qwen><tool_call>)"
    r"|(?P<result>^Result:)"
    r"|(?P<stray>\[/?TOOL_CALLS?\b|\[ARGS\]|</?tool_calls?\b|<\|tool_call|<function[=_]|<\|python_tag\|>|<invoke\b|\bfunctions\.\w+:"
    r"|^[ \t]*arguments:[ \t]*\{|^[ \t]*(?:tool call[ \t:]+|tool_call[ \t]+)[\w.]+[ \t]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_LEFTOVER = re.compile(r"\s*[]}),]")
_NAME_KEY = re.compile(r"""["'](?:name|tool|tool_name|function)["']\s*:""")
_ARGUMENTS_KEY = re.compile(r"""["'](?:arguments|parameters|args|tool_input|input)["']\s*:""")


def _refuse_bare_call(text: str) -> None:
    """Refuse JSON that looks like a call in the text around the calls."""
    if "{" in text and _NAME_KEY.search(text) and _ARGUMENTS_KEY.search(text):
        raise _Broken("bare_json", "A call stands as bare JSON, without any of the known call syntaxes.")


def _read_stray(content: str, match: re.Match[str]) -> tuple[list[ToolCall], int]:
    raise _Broken("stray_marker", f"{match.group().strip()!r} stands where no call begins.")


def _read_result(content: str, match: re.Match[str]) -> tuple[list[ToolCall], int]:
    """Step over a tool's result, so that marks inside it are not read as calls."""
    start = _skip_space(content, match.end())
    if not content.startswith("{", start):
        return [], match.end()
    try:
        return [], _decode(content, start, "The result")[1]
    except _Broken:
        return [], match.end()


# -- one reader a syntax: (content, match of the marker) -> the calls and where reading goes on -------------------

_TEXT_HEAD = re.compile(r"tool_call:[ \t]+(\S+)[ \t]*\r?\narguments:[ \t]*")
_LINE_END = re.compile(r"[ \t]*(?:\r?\n|\Z)")
_MISTRAL_HEAD = re.compile(r"\s*([^\s\[\]{}]+)(?:\[CALL_ID\]\w+)?\[ARGS\]\s*")
_MISTRAL_END = re.compile(r"\s*\[/TOOL_CALLS\]")
_QWEN_END = re.compile(r"\s*</tool_call>", re.IGNORECASE)


def _read_text(content: str, match: re.Match[str]) -> tuple[list[ToolCall], int]:
    line_start = content.rfind("\n", 0, match.start()) + 1
    if content[line_start : match.start()].strip():
        raise _Broken("marker_inside_line", "tool_call: does not stand at the start of a line.")
    head = _TEXT_HEAD.match(content, match.start())
    if not head:
        raise _Broken("malformed_header", "tool_call: NAME is not followed by a line that starts with arguments:.")
    arguments, end = _decode(content, head.end(), "arguments")
    line_end = _LINE_END.match(content, end)
    if not line_end:
        raise _Broken("trailing_text", "Text follows the arguments on the same line.")
    return [_call(head.group(1), arguments)], line_end.end()


def _read_mistral(content: str, match: re.Match[str]) -> tuple[list[ToolCall], int]:
    start = _skip_space(content, match.end())
    if content.startswith("[", start) and match.group() == "[TOOL_CALLS]":
        items, end = _decode(content, start, "[TOOL_CALLS]")
        closing = _MISTRAL_END.match(content, end)
        return _calls_of(items), closing.end() if closing else end
    head = _MISTRAL_HEAD.match(content, match.end())
    if not head or match.group() != "[TOOL_CALLS]":
        raise _Broken("malformed_header", "[TOOL_CALLS] is followed neither by an array nor by NAME[ARGS].")
    arguments, end = _decode(content, head.end(), "[ARGS]")
    return [_call(head.group(1), arguments)], end


def _read_qwen(content: str, match: re.Match[str]) -> tuple[list[ToolCall], int]:
    value, end = _decode(content, _skip_space(content, match.end()), "<tool_call>")
    closing = _QWEN_END.match(content, end)
    if not closing:
        raise _Broken("unclosed_block", "<tool_call> has no closing </tool_call> after its JSON.")
    items = value if isinstance(value, list) else [value]
    return _calls_of(items, string_arguments=False), closing.end()


_READERS: dict[str, Callable[[str, re.Match[str]], tuple[list[ToolCall], int]]] = {
    "text": _read_text,
    "mistral": _read_mistral,
    "qwen": _read_qwen,
    "result": _read_result,
    "stray": _read_stray,
}


def _parse_native(tool_calls: Sequence[Any]) -> ParsedTurn:
    calls: list[ToolCall] = []
    try:
        for entry in tool_calls:
            calls.append(_native_call(entry))
    except _Broken as broken:
        return ParsedTurn(tuple(calls), (broken.finding,), "openai")
    return ParsedTurn(tuple(calls), (), "openai")


def _native_call(entry: Any) -> ToolCall:
    if not isinstance(entry, dict) or entry.get("type", "function") != "function":
        raise _Broken("not_an_object", "An entry of tool_calls is no function call.")
    function = entry.get("function")
    if isinstance(function, dict) and not isinstance(function.get("arguments", ""), str):
        raise _Broken("arguments_not_string", "The arguments in tool_calls are not a JSON string.")
    return _call_of(function)


# -- pieces that the readers share --------------------------------------------------------------------------------


def _calls_of(items: list[Any], *, string_arguments: bool = True) -> list[ToolCall]:
    if not items:
        raise _Broken("no_calls", "The list of calls is empty.")
    return [_call_of(item, string_arguments=string_arguments) for item in items]


def _call_of(item: Any, *, string_arguments: bool = True) -> ToolCall:
    """{"name": ..., "arguments": {...}} -> ToolCall; OpenAI and Mistral write the arguments as a JSON string."""
    if not isinstance(item, dict):
        raise _Broken("not_an_object", "A call is not a JSON object with name and arguments.")
    name = item.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _Broken("missing_name", "A call has no name.")
    if "arguments" not in item:
        raise _Broken("missing_arguments", f"The call of {name} has no arguments.")
    arguments = item["arguments"]
    if isinstance(arguments, str) and string_arguments:
        text = arguments.strip()
        arguments, end = _decode(text, 0, f"The arguments string of {name}")
        if end != len(text):
            raise _Broken("trailing_text", f"Text follows the JSON in the arguments string of {name}.")
    return _call(name, arguments)


def _call(name: str, arguments: Any) -> ToolCall:
    if not isinstance(arguments, dict):
        raise _Broken("arguments_not_object", f"The arguments of {name} are not a JSON object.")
    return ToolCall(name, arguments)


def _decode(text: str, start: int, what: str) -> tuple[Any, int]:
    """Strict JSON at `start` (RFC 8259: no NaN, no raw line breaks in strings) without repeated keys."""
    if text.count("{", start) + text.count("[", start) > MAX_DEPTH and _depth(text, start) > MAX_DEPTH:
        raise _Broken("too_deep", f"{what}: more than {MAX_DEPTH} brackets are open at once.")
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].rstrip()
        is_cut_off = error.msg.startswith("Unterminated string") or any(
            word.startswith(rest) for word in ("true", "false", "null", "-")
        )
        code = "truncated_json" if is_cut_off else "invalid_json"
        raise _Broken(code, f"{what}: {error.msg} at character {error.pos - start}.") from None
    except ValueError as error:  # from the hooks below, or an integer of thousands of digits
        raise _Broken("invalid_json", f"{what}: {error}.") from None


def _depth(text: str, start: int) -> int:
    """Most brackets open at once, brackets in strings not counted."""
    deepest = depth = 0
    for bracket in re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[{\]}]', re.DOTALL).finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(bracket.group(), 0)
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
_SPACE = re.compile(r"\s*")


def _skip_space(content: str, position: int) -> int:
    return _SPACE.match(content, position).end()  # type: ignore[union-attr]  # it always matches


# -- calls -> an assistant turn -----------------------------------------------------------------------------------


def render_turn(calls: Sequence[ToolCall], syntax: str = "text") -> Message:
    """An assistant turn that makes `calls`, written in one of SYNTAXES."""
    if syntax == "openai":
        return Message("assistant", None, tuple(_native(index, call) for index, call in enumerate(calls)))
    return Message("assistant", _RENDERERS[syntax](calls))


def _native(index: int, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _json(call.arguments)}
    return {"id": f"call{index:05d}", "type": "function", "function": function}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_object(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}


_RENDERERS: dict[str, Callable[[Sequence[ToolCall]], str]] = {
    "text": lambda calls: "\n\n".join(f"tool_call: {c.name}\narguments: {_json(c.arguments)}" for c in calls),
    "mistral": lambda calls: f"[TOOL_CALLS] {_json([_as_object(call) for call in calls])}",
    "qwen": lambda calls: "\n".join(f"<tool_call>\n{_json(_as_object(call))}\n</tool_call>" for call in calls),
}


_RESULT = re.compile(
    r"^[>\s*_#-]*(?:tool[ _])?results?[*_ ]*:[*_\s]*(?:```\w*\s*)?(?=[{\[])", re.IGNORECASE | re.MULTILINE
)


def without_results(message: Message) -> Message:
    """A turn up to where it begins to tell a tool's result: no model knows what a tool gave back."""
    content = message.content or ""
    match = _RESULT.search(content)
    return Message(message.role, content[: match.start()].rstrip(), message.tool_calls) if match else message


def with_results(message: Message, results: Sequence[Mapping[str, Any]]) -> Message:
    """A turn with the result of each call after it, as `Result: {...}`.

    Turns with native tool_calls have no place for results and stay as they are.
    """
    if message.tool_calls or not message.content:
        return message
    content = message.content
    pairs = list(zip(parse_text(content).ends, results, strict=False))
    for end, result in reversed(pairs):
        before, after = content[:end].rstrip("\n"), content[end:].strip("\n")
        content = f"{before}\n\nResult: {_json(result)}" + (f"\n\n{after}" if after else "")
    return Message(message.role, content)
