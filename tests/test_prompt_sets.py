import json

import pytest

from Evaluator.errors import UsageError
from Evaluator.prompt_sets import load_prompt_sets

GOOD = {"id": "a", "question": "Open my note"}


def write(tmp_path, data):
    path = tmp_path / "set.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_a_list_and_an_object_are_read_and_may_be_joined(tmp_path):
    first = write(tmp_path, [GOOD])
    second = tmp_path / "second.json"
    second.write_text(
        json.dumps({"name": "x", "prompts": [{**GOOD, "id": "b", "expects_call": False}]}), encoding="utf-8"
    )
    prompts = load_prompt_sets([first, second]).prompts
    assert [(prompt.id, prompt.expects_call) for prompt in prompts] == [("a", True), ("b", False)]


def test_null_is_what_is_not_there(tmp_path):
    keys = ("system", "tags", "expected_tools", "expects_call", "expected_call", "vault", "goal", "behavior")
    nothing = load_prompt_sets([write(tmp_path, [GOOD])]).prompts
    assert load_prompt_sets([write(tmp_path, [{**GOOD, **dict.fromkeys(keys)}])]).prompts == nothing
    assert nothing[0].expects_call


def test_system_prompts_and_ids_of_the_bundled_set_differ(tool_prompts):
    assert len({prompt.system for prompt in tool_prompts}) > 40
    contexts = [prompt.expected_call.arguments["context"] for prompt in tool_prompts]
    assert len({context["sessionId"] for context in contexts}) > 40
    assert len({context["workspaceId"] for context in contexts}) > 5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("[", "no JSON"),
        ("3", "neither a list"),
        ([], "no prompts"),
        ([GOOD, GOOD], "stands twice"),
        ([{"id": "a"}], "prompt 1"),
        ([{**GOOD, "question": "  "}], "is empty"),
        ([{**GOOD, "system": ["x"]}], '"system" is no string'),
        ([{**GOOD, "tags": "abc"}], '"tags" is no list'),
        ([{**GOOD, "expected_tools": [3]}], '"expected_tools"'),
        ([{**GOOD, "expects_call": "false"}], "true or false"),
        ([{**GOOD, "expected_call": {"name": "x"}}], "expected_call"),
        ([{**GOOD, "expected_tool": "x"}], "unknown key expected_tool"),
    ],
)
def test_a_faulty_set_is_refused_with_the_place(tmp_path, data, words):
    with pytest.raises(UsageError, match=words):
        load_prompt_sets([write(tmp_path, data)])
