import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Evaluator.catalog import load_catalog
from Evaluator.judging.validator import given_ids, validate
from Evaluator.records import CHECKS, Message, Prompt, ToolCall, Verdict
from Evaluator.tool_calls import SYNTAXES, render_turn
from tests.test_tool_calls import json_values

FIELDS = (
    "sessionId",
    "workspaceId",
    "sessionDescription",
    "sessionMemory",
    "toolContext",
    "primaryGoal",
    "subgoal",
)
OTHER_SESSION, OTHER_WORKSPACE = "session_1700000000000_zzzzzzzzz", "ws_1700000000000_zzzzzzzzz"


def test_every_expected_call_passes_in_every_syntax(tool_prompts, catalog):
    assert {prompt.expected_call.name for prompt in tool_prompts} == set(catalog.tools)
    for prompt in tool_prompts:
        for syntax in SYNTAXES:
            verdict = validate(render_turn([prompt.expected_call], syntax), prompt, catalog)
            assert verdict.label, (prompt.id, syntax, verdict.findings)
            assert [verdict.checks[name] for name in CHECKS] == [True] * 7


# -- 40 and more kinds of damage, each done to each of the 47 ------------------------------------------------------


def with_context(**changes):
    """Damage that changes context fields; None takes a field away."""

    def damage(call, prompt, catalog):
        context = {**call.arguments["context"], **changes}
        context = {name: value for name, value in context.items() if value is not None}
        return [ToolCall(call.name, {**call.arguments, "context": context})]

    return damage


def with_arguments(**changes):
    return lambda call, prompt, catalog: [ToolCall(call.name, {**call.arguments, **changes})]


def without_context(call, prompt, catalog):
    return [ToolCall(call.name, {name: value for name, value in call.arguments.items() if name != "context"})]


def renamed(change):
    return lambda call, prompt, catalog: [ToolCall(change(call.name), call.arguments)]


def wrongly_typed(call, prompt, catalog):
    """The first parameter that has a plain type gets a value of another one."""
    wrong = {"string": 7, "number": "7", "boolean": "true", "array": "x", "object": [], "integer": "7"}
    properties = catalog.tools[call.name].parameters["properties"]
    typed = {name: schema["type"] for name, schema in properties.items() if schema.get("type") in wrong}
    name, kind = next(iter(typed.items()), ("workspaceContext", "string"))  # listModels takes nothing else
    return [ToolCall(call.name, {**call.arguments, name: wrong[kind]})]


def twice(call, prompt, catalog):
    return [call, call]


def of_another_tool(call, prompt, catalog):
    other = "agentManager_listModels" if call.name != "agentManager_listModels" else "memoryManager_listWorkspaces"
    return [ToolCall(other, {"context": call.arguments["context"]})]


def and_another_tool(call, prompt, catalog):
    return [call, *of_another_tool(call, prompt, catalog)]


CALL_DAMAGE = {
    **{f"no {name}": (with_context(**{name: None}), f"context.missing_field:{name}") for name in FIELDS},
    **{f"{name} a number": (with_context(**{name: 7}), f"context.wrong_type:{name}") for name in FIELDS},
    "no context": (without_context, "context.missing"),
    "context a string": (with_arguments(context="session"), "context.wrong_type"),
    "context a list": (with_arguments(context=[]), "context.wrong_type"),
    "unknown context field": (with_context(mood="good"), "context.unknown_field:mood"),
    "empty field": (with_context(subgoal=""), "context.empty:subgoal"),
    "blank field": (with_context(subgoal="  "), "context.placeholder:subgoal"),
    "short session id": (with_context(sessionId="session_123"), "context.bad_format:sessionId"),
    "session id with line break": (
        with_context(sessionId=OTHER_SESSION + "\n"),
        "context.bad_format:sessionId",
    ),
    "session id in Arabic digits": (
        with_context(sessionId="session_" + "\u0661" * 13 + "_zzzzzzzzz"),
        "context.bad_format:sessionId",
    ),
    "workspace name as id": (with_context(workspaceId="My Workspace"), "context.bad_format:workspaceId"),
    "invented session": (with_context(sessionId=OTHER_SESSION), "context.wrong_id:sessionId"),
    "invented workspace": (with_context(workspaceId=OTHER_WORKSPACE), "context.wrong_id:workspaceId"),
    "dots": (with_context(primaryGoal="..."), "context.placeholder:primaryGoal"),
    "the word string": (with_context(toolContext="string"), "context.placeholder:toolContext"),
    "angle brackets": (with_context(toolContext="<why this tool>"), "context.placeholder:toolContext"),
    "field name as value": (with_context(subgoal="subgoal"), "context.placeholder:subgoal"),
    "unknown tool": (renamed(lambda name: "vaultManager_archiveNote"), "tool.unknown:vaultManager_archiveNote"),
    "misspelt tool": (renamed(lambda name: name + "s"), "tool.unknown"),
    "tool in capitals": (renamed(str.upper), "tool.unknown"),
    "foreign parameter": (with_arguments(colour="red"), "parameters.unknown_field:colour"),
    "wrongly typed parameter": (wrongly_typed, ("parameters.wrong_type", "parameters.no_alternative")),
    "called twice": (twice, "relevance.repeated_call"),
    "another tool": (of_another_tool, "relevance.missing_tool"),
    "another tool as well": (and_another_tool, "relevance.unexpected_tool"),
}


_NO_GOALS = (
    "none",
    "N/A",
    "null",
    "undefined",
    "-",
    "___",
    "xxx",
    "TBD",
    "value",
    "placeholder",
    "example",
    "your_goal",
)
CALL_DAMAGE |= {
    f"the goal {word!r}": (with_context(primaryGoal=word), "context.placeholder:primaryGoal") for word in _NO_GOALS
}


@pytest.mark.parametrize("kind", CALL_DAMAGE)
def test_a_damaged_call_is_false_with_the_right_code(kind, tool_prompts, catalog):
    damage, codes = CALL_DAMAGE[kind]
    for prompt in tool_prompts:
        calls = damage(prompt.expected_call, prompt, catalog)
        for syntax in SYNTAXES:
            verdict = validate(render_turn(calls, syntax), prompt, catalog)
            assert not verdict.label, (kind, prompt.id, syntax)
            assert verdict.codes[0].startswith(codes), (kind, prompt.id, verdict.findings)


TEXT_DAMAGE = {
    "cut off": (lambda text: text[:-3], "parse.truncated_json"),
    "single quotes": (lambda text: text.replace('"', "'"), "parse.invalid_json"),
    "trailing comma": (lambda text: text[:-1] + ",}", "parse.invalid_json"),
    "Python constant": (lambda text: text[:-1] + ', "x": None}', "parse.invalid_json"),
    "comment": (lambda text: text[:-1] + " // done\n}", "parse.invalid_json"),
    "key twice": (lambda text: text[:-1] + ', "context": {}}', "parse.invalid_json"),
    "one bracket too many": (lambda text: text + "}", "parse.trailing_text"),
    "no arguments line": (lambda text: text.split("\n")[0], "parse.malformed_header"),
    "arguments a list": (lambda text: text.split("\n")[0] + "\narguments: []", "parse.arguments_not_object"),
    "inside a line": (lambda text: "Now " + text, "parse.marker_inside_line"),
    "capital marker": (lambda text: "T" + text[1:], "parse.malformed_header"),
    "no marker": (lambda text: text.split("\n")[1], "parse.stray_marker"),
    "Qwen block not closed": (lambda text: as_qwen(text).removesuffix("</tool_call>"), "parse.unclosed_block"),
    "bare JSON": (lambda text: as_qwen(text)[11:-12], "parse.bare_json"),
    "two syntaxes": (lambda text: f"{text}\n\n{as_qwen(text)}", "parse.mixed_syntax"),
    "plain text": (lambda text: "I have done what you asked for.", "parse.no_tool_call"),
    "nothing": (lambda text: "", "parse.no_tool_call"),
}


def as_qwen(text):
    name, arguments = text.removeprefix("tool_call: ").split("\narguments: ")
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize("kind", TEXT_DAMAGE)
def test_a_damaged_text_is_false_with_the_right_code(kind, tool_prompts, catalog):
    damage, code = TEXT_DAMAGE[kind]
    for prompt in tool_prompts:
        text = render_turn([prompt.expected_call]).content
        verdict = validate(Message("assistant", damage(text)), prompt, catalog)
        assert not verdict.label
        assert verdict.codes[0].startswith(code), (prompt.id, verdict.findings)


def test_a_missing_required_parameter_is_named(tool_prompts, catalog):
    damaged = 0
    for prompt in tool_prompts:
        call = prompt.expected_call
        for name in catalog.tools[call.name].parameters.get("required", ()):
            arguments = {key: value for key, value in call.arguments.items() if key != name}
            verdict = validate(render_turn([ToolCall(call.name, arguments)]), prompt, catalog)
            assert verdict.codes == [f"parameters.missing_field:{name}"]
            damaged += 1
    assert damaged > 50


# -- single rules ---------------------------------------------------------------------------------------------------


def judged(catalog, tool_prompts, name, parameters):
    prompt = next(prompt for prompt in tool_prompts if prompt.expected_call.name == name)
    arguments = {"context": prompt.expected_call.arguments["context"], **parameters}
    return validate(render_turn([ToolCall(name, arguments)]), prompt, catalog).codes


@pytest.mark.parametrize(
    ("name", "parameters", "codes"),
    [
        ("vaultLibrarian_searchContent", {"query": "x", "limit": True}, ["parameters.wrong_type:limit"]),
        ("vaultLibrarian_searchContent", {"query": "x", "limit": 51}, ["parameters.out_of_range:limit"]),
        ("vaultManager_openNote", {"path": "a.md", "mode": "popup"}, ["parameters.not_allowed:mode"]),
        ("agentManager_createAgent", {"name": "", "description": "d", "prompt": "p"}, ["parameters.empty:name"]),
        (
            "agentManager_createAgent",
            {"name": "n" * 101, "description": "d", "prompt": "p"},
            ["parameters.too_long:name"],
        ),
        ("agentManager_getAgent", {}, ["parameters.no_alternative"]),
        ("vaultLibrarian_batch", {"searches": []}, ["parameters.too_few_items:searches"]),
        (
            "vaultLibrarian_searchMemory",
            {"query": "x", "workspaceId": "w", "dateRange": {"start": "last week"}},
            ["parameters.bad_format:dateRange.start"],
        ),
        (
            "contentManager_batchContent",
            {"operations": [{"type": "append", "params": {"filePath": "a.md"}}]},
            ["parameters.missing_field:operations[0].params.content"],
        ),
    ],
)
def test_parameters_follow_the_schema(catalog, tool_prompts, name, parameters, codes):
    assert judged(catalog, tool_prompts, name, parameters) == codes


def test_all_faults_of_the_failing_check_are_told(catalog, tool_prompts):
    codes = judged(catalog, tool_prompts, "vaultManager_moveNote", {"path": 1, "colour": "red"})
    assert sorted(codes) == [
        "parameters.missing_field:newPath",
        "parameters.unknown_field:colour",
        "parameters.wrong_type:path",
    ]


def test_an_unknown_tool_comes_with_the_nearest_known_one(catalog):
    verdict = validate(render_turn([ToolCall("vaultManager_movNote", {})]), Prompt("p", "q"), catalog)
    assert "vaultManager_moveNote" in verdict.findings[0].sentence
    assert verdict.checks == {**dict.fromkeys(CHECKS), "parse": True, "tool": False}


@pytest.mark.parametrize("memory", ["", "none", "N/A", "Two notes were moved."])
def test_session_memory_may_be_empty(catalog, tool_prompts, memory):
    prompt = tool_prompts[0]
    call = with_context(sessionMemory=memory)(prompt.expected_call, prompt, catalog)
    assert validate(render_turn(call), prompt, catalog).label


def test_without_a_system_prompt_any_well_formed_ids_pass(catalog, tool_prompts):
    prompt = replace(tool_prompts[0], system=None)
    call = with_context(sessionId=OTHER_SESSION, workspaceId="default")(prompt.expected_call, prompt, catalog)
    assert validate(render_turn(call), prompt, catalog).label


def test_given_ids_are_read_from_the_session_context_only():
    system = '- sessionId: "session_1"\nworkspaceId = ws_2\n- Home (id: "ws_3")\nUse "default" as the workspaceId.'
    fields = tuple((name, re.compile(r"^(session|ws)_\d\Z")) for name in ("sessionId", "workspaceId", "absent"))
    assert given_ids(system, fields) == {"sessionId": {"session_1"}, "workspaceId": {"ws_2"}}


def test_given_ids_end_before_a_full_stop_and_are_never_placeholders():
    fields = (("sessionId", re.compile(r"^session_\d\Z")),)
    assert given_ids("Use sessionId: session_1.", fields) == {"sessionId": {"session_1"}}
    assert given_ids('{"sessionId": "string"} or sessionId: "..."', fields) == {}


@pytest.mark.parametrize(("makes_call", "label"), [(False, True), (True, False)])
def test_a_prompt_that_expects_no_call(catalog, tool_prompts, makes_call, label):
    prompt = replace(tool_prompts[0], expects_call=False, expected_tools=())
    answer = render_turn([prompt.expected_call]) if makes_call else Message("assistant", "Which folder?")
    assert validate(answer, prompt, catalog).label is label


def test_an_expected_tool_may_be_expected_twice(catalog, tool_prompts):
    prompt = tool_prompts[0]
    prompt = replace(prompt, expected_tools=prompt.expected_tools * 2)
    assert validate(render_turn([prompt.expected_call] * 2), prompt, catalog).label
    assert not validate(render_turn([prompt.expected_call]), prompt, catalog).label


WORDS = {
    "ask": "Which note do you mean?",
    "refuse": "I cannot send e-mail from here. Shall I write a draft instead?",
    "confirm": "That would delete 14 notes for good. Shall I go ahead?",
    "other": "Done. Anything else?",
}


@pytest.mark.parametrize("right", ["ask", "refuse", "confirm"])
@pytest.mark.parametrize("did", WORDS)
def test_of_plain_answers_only_the_behaviour_that_is_right_is_true(catalog, right, did):
    prompt = Prompt("p", "q", expects_call=False, behavior=right)
    verdict = validate(Message("assistant", WORDS[did]), prompt, catalog)
    assert verdict.codes == ([] if did == right else [f"relevance.wrong_behavior:{did}"])
    assert (verdict.behavior, verdict.checks["relevance"]) == (did, did == right)


def test_the_same_call_twice_is_false_where_no_tool_is_expected(catalog, tool_prompts):
    prompt = replace(tool_prompts[0], expected_tools=(), goal=None)
    twice = validate(render_turn([prompt.expected_call] * 2), prompt, catalog)
    assert twice.codes == [f"relevance.repeated_call:{prompt.expected_call.name}"]
    assert validate(render_turn([prompt.expected_call]), prompt, catalog).checks["relevance"] is None


# -- whatever a model writes gives a verdict ------------------------------------------------------------------------

_CATALOG = load_catalog()
_PROMPT = Prompt("p", "q", 'sessionId: "session_1700000000000_zzzzzzzzz"', expected_tools=("get_tools",))
_MARKS = st.sampled_from(
    ["tool_call: get_tools\narguments: ", "[TOOL_CALLS]", "<tool_call>", "[ARGS]", "</tool_call>", "Result: ", "{", '"']
)


def assert_is_verdict(message):
    verdict = validate(message, _PROMPT, _CATALOG)
    assert isinstance(verdict, Verdict)
    assert verdict.label is all(passed is not False for passed in verdict.checks.values())
    json.dumps(verdict.codes)


@given(st.text())
def test_any_text_gives_a_verdict(text):
    assert_is_verdict(Message("assistant", text))


@given(st.lists(_MARKS | st.text(max_size=8) | st.builds(json.dumps, json_values), max_size=8))
def test_any_mixture_of_marks_gives_a_verdict(parts):
    assert_is_verdict(Message("assistant", "".join(parts)))


@given(st.binary())
def test_any_bytes_decoded_give_a_verdict(data):
    assert_is_verdict(Message("assistant", data.decode("utf-8", errors="surrogateescape")))
    assert_is_verdict(Message("assistant", data.decode("latin-1")))


@settings(max_examples=200)
@given(st.sampled_from([*_CATALOG.tools, "x"]), json_values, st.dictionaries(st.text(), json_values, max_size=4))
def test_any_json_as_arguments_gives_a_verdict(name, context, arguments):
    for syntax in SYNTAXES:
        assert_is_verdict(render_turn([ToolCall(name, {"context": context, **arguments})], syntax))


@given(st.lists(json_values, max_size=4))
def test_any_json_as_native_calls_gives_a_verdict(tool_calls):
    assert_is_verdict(Message("assistant", None, tool_calls))
