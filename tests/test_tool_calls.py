import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from Evaluator.records import Message, ToolCall
from Evaluator.tool_calls import SYNTAXES, parse_text, parse_turn, render_turn

NASTY = {
    "path": "C:\\",
    "text": 'He said "}" and {left} \\" [TOOL_CALLS] <tool_call> tool_call: x\narguments: {',
    "umlaut": "\u00fc \u2028 \U0001f600",
    "nested": {"list": [1, 2.5, None, True, {"deep": "]"}]},
}
CALL = ToolCall("vault_move", NASTY)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_strings_with_brackets_quotes_and_backslashes_survive(syntax):
    turn = parse_turn(render_turn([CALL, ToolCall("other", {})], syntax))
    assert turn.findings == ()
    assert turn.calls == (CALL, ToolCall("other", {}))
    assert turn.syntax == syntax


@pytest.mark.parametrize("syntax", ["text", "mistral", "qwen"])
def test_text_before_and_after_a_call_is_allowed(syntax):
    content = render_turn([CALL], syntax).content
    assert parse_text(f"I will move it.\n\n{content}\n\nDone: it is moved.").calls == (CALL,)


def test_several_text_calls_with_results_between_them():
    block = 'tool_call: a_b\narguments: {"x": 1}\n\nResult: {"content": "tool_call: no\\narguments: {}"}\n\nNext.\n\n'
    assert parse_text(block * 2).calls == (ToolCall("a_b", {"x": 1}),) * 2


@pytest.mark.parametrize(
    "content",
    [
        '[TOOL_CALLS]a_b[ARGS]{"x": 1}',
        '[TOOL_CALLS]a_b[CALL_ID]abc123def[ARGS]{"x": 1}',
        '[TOOL_CALLS] [{"name": "a_b", "arguments": "{\\"x\\": 1}", "id": "a1B2c3D4e"}]',
        '[TOOL_CALLS] [{"name": "a_b", "arguments": {"x": 1}}] [/TOOL_CALLS]',
        '<TOOL_CALL>{"name": "a_b", "arguments": {"x": 1}}</TOOL_CALL>',
        '<tool_call>[{"name": "a_b", "arguments": {"x": 1}}]</tool_call>',
        'tool_call: a_b\r\narguments: {"x": 1}\r\n',
        ' tool_call: a_b\narguments: {"x":\n  1}',
    ],
)
def test_accepted_spellings(content):
    turn = parse_text(content)
    assert (turn.calls, turn.findings) == ((ToolCall("a_b", {"x": 1}),), ())


def test_repeated_args_form_gives_several_calls():
    assert len(parse_text('[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]b[ARGS]{"x": 1}').calls) == 2


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('tool_call: a\narguments: {"x": 1', "truncated_json"),
        ('tool_call: a\narguments: {"x": "1', "truncated_json"),
        ("tool_call: a\narguments:", "truncated_json"),
        ("tool_call: a\narguments: {'x': 1}", "invalid_json"),
        ('tool_call: a\narguments: {"x": 1,}', "invalid_json"),
        ('tool_call: a\narguments: {"x": True}', "invalid_json"),
        ('tool_call: a\narguments: {"x": NaN}', "invalid_json"),
        ('tool_call: a\narguments: {"x": 1e999}', "invalid_json"),
        ('tool_call: a\narguments: {"x": 1, "x": 2}', "invalid_json"),
        ('tool_call: a\narguments: {"x": "raw\nbreak"}', "invalid_json"),
        ('tool_call: a\narguments: {"x": ' + "9" * 5000 + "}", "invalid_json"),
        ('tool_call: a\narguments: {"x": ' + "[" * 100000, "too_deep"),
        ("tool_call: a\narguments: [1]", "arguments_not_object"),
        ("tool_call: a\narguments: {}}", "trailing_text"),
        ("tool_call: a", "malformed_header"),
        ("tool_call:a\narguments: {}", "malformed_header"),
        ("Tool_Call: a\narguments: {}", "malformed_header"),
        ("tool_call: a\nArguments: {}", "malformed_header"),
        ("tool_call: a b\narguments: {}", "malformed_header"),
        ("I use tool_call: a\narguments: {}", "marker_inside_line"),
        ('arguments: {"x": 1}', "stray_marker"),
        ("[TOOL_CALLS]", "malformed_header"),
        ("[TOOL_CALLS] []", "no_calls"),
        ("[TOOL_CALLS] [1]", "not_an_object"),
        ('[TOOL_CALLS] [{"arguments": {}}]', "missing_name"),
        ('[TOOL_CALLS] [{"name": "a"}]', "missing_arguments"),
        ('[TOOL_CALLS] [{"name": "a", "arguments": "{} {}"}]', "trailing_text"),
        ('[TOOL_CALLS] [{"name": "a", "arguments": "nothing"}]', "invalid_json"),
        ('[TOOL_CALLS] [{"name": "a", "arguments": {}}', "truncated_json"),
        ("[tool_calls]a[ARGS]{}", "malformed_header"),
        ('<tool_call>{"name": "a", "arguments": {}}', "unclosed_block"),
        ('<tool_call>{"name": "a", "arguments": "{}"}</tool_call>', "arguments_not_object"),
        ("</tool_call>", "stray_marker"),
        ("<tool_call", "stray_marker"),
        ('{"name": "a", "arguments": {"x": 1}}', "bare_json"),
        ('[TOOL_CALLS] [{"name": "a", "arguments": {}}]]', "trailing_text"),
        ('[TOOL_CALLS] [{"name": "a", "arguments": {}}] , {"name": broken', "trailing_text"),
        ('[TOOL_CALLS]a[ARGS]{"x": {}}}', "trailing_text"),
        ("tool_call: a\narguments: {}\n}", "trailing_text"),
        ('tool_call: a\narguments: {}\n\n{"name": "b", "arguments": {}}', "bare_json"),
        ('{"arguments": {"x": 1}, "name": "a"}', "bare_json"),
        ('{"tool_name": "a", "tool_input": {"x": 1}}', "bare_json"),
        ("tool_call a_b\narguments {}", "stray_marker"),
        ("tool call: a_b", "stray_marker"),
        ('<|python_tag|>{"x": 1}', "stray_marker"),
        ('<invoke name="a">', "stray_marker"),
        ('functions.a:0{"x": 1}', "stray_marker"),
        ('Here:\n```json\n[{"name": "a", "arguments": {}}]\n```', "bare_json"),
        ('tool_call: a\narguments: {}\n<tool_call>{"name": "a", "arguments": {}}</tool_call>', "mixed_syntax"),
    ],
)
def test_a_broken_call_is_a_finding_and_never_plain_text(content, code):
    assert [finding.code for finding in parse_text(content).findings] == [f"parse.{code}"]


@pytest.mark.parametrize(
    ("tool_calls", "code"),
    [
        (["x"], "not_an_object"),
        ([{"function": None}], "not_an_object"),
        ([{"function": {"name": "", "arguments": "{}"}}], "missing_name"),
        ([{"function": {"name": "a", "arguments": None}}], "arguments_not_string"),
        ([{"function": {"name": "a", "arguments": {"x": 1}}}], "arguments_not_string"),
        ([{"function": {"name": "a", "arguments": "[]"}}], "arguments_not_object"),
        ([{"type": "code", "function": {"name": "a", "arguments": "{}"}}], "not_an_object"),
        ([{"function": {"name": "a", "arguments": '{"x": '}}], "truncated_json"),
    ],
)
def test_broken_native_calls(tool_calls, code):
    assert [f.code for f in parse_turn(Message("assistant", None, tool_calls)).findings] == [f"parse.{code}"]


def test_native_and_text_calls_in_one_turn_are_refused():
    native = render_turn([CALL], "openai").tool_calls
    turn = parse_turn(Message("assistant", render_turn([CALL]).content, native))
    assert [finding.code for finding in turn.findings] == ["parse.mixed_syntax"]


@pytest.mark.parametrize(
    "content", ["", "Which folder do you mean?", "The result: 5 notes. Tools are useful.", "a {b} [c] <d> \\"]
)
def test_plain_text_has_neither_calls_nor_findings(content):
    turn = parse_text(content)
    assert (turn.calls, turn.findings, turn.syntax) == ((), (), None)


@pytest.mark.parametrize(
    "content", ["[TOOL_CALLS] " + "[" * 65 + '"' + '\\"' * 50_000, '{"name":' * 20_000, "tool_call: " * 20_000]
)
def test_what_a_looping_model_writes_is_read_in_linear_time(content):
    started = time.process_time()
    parse_text(content)
    assert time.process_time() - started < 0.5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.sampled_from(SYNTAXES))
def test_whatever_is_rendered_is_read_back(arguments, syntax):
    turn = parse_turn(render_turn([ToolCall("a_b", arguments)], syntax))
    assert turn.findings == ()
    assert json.dumps(turn.calls[0].arguments) == json.dumps(arguments)
