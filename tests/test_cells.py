"""Cells: what prompts are about, with the right answer and the goal of each."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from Evaluator.catalog import CONTEXT, load_catalog
from Evaluator.judging.validator import validate
from Evaluator.records import Message, ToolCall
from Evaluator.tool_calls import parse_text, render_turn
from tests.vaults import CATALOG, TEMPLATES, training_cells
from Tools.prompts.cells import right_answer, wanted
from Tools.prompts.phrasing import Persona, Phrasing, is_action, load_manners, with_typo, worded
from Tools.prompts.usable_requests import check_names, clean_request

CELLS = training_cells()
DRAWN = [CELLS.draw(slot) for slot in range(700)]
SOMEBODY = Persona("somebody", ["It is raining."])


def test_the_right_answer_to_every_cell_is_labelled_true():
    for cell in DRAWN:
        verdict = validate(Message("assistant", right_answer(cell.prompt)), cell.prompt, CATALOG)
        assert verdict.label, (cell.prompt.question, verdict.findings)


def test_every_request_is_usable_and_names_what_it_has_to():
    for cell in DRAWN:
        assert clean_request(cell.prompt.question) == cell.prompt.question.strip()
        check_names(cell.prompt.question, cell.names, leaves_out_a_value=cell.leaves_out_a_value)


def test_all_tools_behaviors_and_phrasings_come_up():
    cells = Counter(cell.origin.cell for cell in DRAWN)
    assert len(cells) == 47 + 4
    assert {cell.phrasing.name for cell in DRAWN} == {one.name for one in load_manners().phrasings}
    assert len({cell.persona.who for cell in DRAWN}) == len(load_manners().personas)


def test_a_request_for_two_steps_is_met_by_both_calls_only():
    steps = [cell for cell in DRAWN if cell.phrasing.name == "steps"]
    assert steps
    for cell in steps:
        calls = parse_text(right_answer(cell.prompt)).calls
        assert [call.name for call in calls] == list(cell.prompt.expected_tools)
        alone = replace(cell.prompt, expected_tools=())
        assert not any(validate(render_turn([call]), alone, CATALOG).label for call in calls)


def test_behaviors_are_met_by_words_and_never_by_a_call():
    silent = [cell for cell in DRAWN if cell.prompt.behavior not in (None, "call")]
    assert {cell.origin.cell for cell in silent} == {"behavior:ask", "behavior:refuse", "behavior:confirm"}
    call = render_turn([next(cell for cell in DRAWN if cell.prompt.expected_call).prompt.expected_call])
    assert not any(validate(call, cell.prompt, CATALOG).label for cell in silent)


def test_another_workspace_is_loaded_from_the_one_that_is_open():
    for cell in DRAWN:
        if cell.origin.cell == "behavior:call":
            call = cell.prompt.expected_call
            assert call.name == "memoryManager_loadWorkspace"
            assert call.arguments["id"] != call.arguments["context"]["workspaceId"]


def test_the_same_slot_gives_the_same_cell_and_another_number_another_one():
    assert CELLS.draw(5).prompt == DRAWN[5].prompt == training_cells().draw(5).prompt
    assert CELLS.draw(5, 1).prompt.question != DRAWN[5].prompt.question
    assert CELLS.draw(5, 1).origin.cell == DRAWN[5].origin.cell
    assert training_cells(seed=1).draw(5).prompt.question != DRAWN[5].prompt.question


def test_an_order_tells_who_asks_what_is_wanted_and_what_to_name():
    for cell in DRAWN[:100]:
        assert f"The user is {cell.persona.who}." in cell.order
        assert cell.phrasing.instruction in cell.order
        assert all(f"- {name}" in cell.order for name in cell.names)
        assert cell.prompt.question not in cell.order, "the model is to find its own words"
        said = [line for line in cell.persona.lines if line in cell.prompt.question]
        assert all(f"On the user's mind: {line}" in cell.order for line in said)
        assert said or "On the user's mind" not in cell.order


def test_what_a_model_words_can_be_told_from_the_names():
    for slot in range(400):
        cell = CELLS.draw(slot, by_model=True)
        if cell.prompt.expected_call and cell.phrasing.name != "steps":
            said = {name.lower() for name in cell.names} | {"text"}
            values = [value for key, value in cell.prompt.expected_call.arguments.items() if key != CONTEXT]
            assert all(isinstance(one, str) and one.lower() in said for one in leaves(values) if is_constant(cell, one))


def leaves(value):
    if isinstance(value, dict | list):
        return [leaf for one in (value.values() if isinstance(value, dict) else value) for leaf in leaves(one)]
    return [value if isinstance(value, str) else str(value)]


def is_constant(cell, value):
    template = next(one for one in [*TEMPLATES.templates, *TEMPLATES.behaviors] if one["id"] == cell.origin.template)
    return value in leaves(template["arguments"])


def test_the_example_is_another_request_with_another_answer():
    for cell in DRAWN:
        question, answer = CELLS.example(cell.origin.cell, cell.prompt, random.Random(cell.prompt.id))
        assert question not in cell.prompt.question
        calls = parse_text(answer).calls
        if calls and cell.prompt.expected_call and calls[0].name == cell.prompt.expected_call.name:
            assert {**calls[0].arguments, CONTEXT: 0} != {**cell.prompt.expected_call.arguments, CONTEXT: 0}


def test_a_second_step_is_of_a_tool_that_is_asked_for():
    tools = ["vaultManager_moveNote", "get_tools"]
    cells = training_cells(tools=tools)
    for slot in range(300):
        assert set(cells.draw(slot).prompt.expected_tools) <= {*tools, "memoryManager_loadWorkspace"}


def test_a_models_words_keep_goal_and_right_answer():
    cell = next(cell for cell in DRAWN if cell.prompt.expected_call and cell.names)
    prompt = cell.worded_as(f"Do it with {', '.join(cell.names)}")
    assert prompt.expected_call == cell.prompt.expected_call
    assert prompt.question.startswith("Do it") and prompt.id != cell.prompt.id
    assert prompt.goal.keys() == cell.prompt.goal.keys()


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("Move {note} to {folder}.", True),
        ("Move {note} to {folder}. Then stop.", False),
        ("Could you move {note}?", False),
        ("{note} belongs elsewhere.", False),
        ("List the agents: all of them.", False),
    ],
)
def test_only_a_single_command_becomes_a_clause(text, is_one):
    assert is_action(text) is is_one
    asked = worded(text, Phrasing("question", "", ["Could you {action}?", "{request}"], 1), SOMEBODY, random.Random(1))
    assert asked in ({"Could you move {note} to {folder}?", text} if is_one else {text})


def test_a_frame_takes_a_line_of_the_persona():
    framed = worded("Open {note}.", Phrasing("context", "", ["{line} {request}"], 1), SOMEBODY, random.Random(1))
    assert framed == "It is raining. Open {note}."


def test_a_typing_mistake_is_in_an_ordinary_word_only():
    text = 'Write "some quoted words" into {note} with openai'
    slips = {with_typo(text, "openai", random.Random(number)) for number in range(200)}
    assert text not in slips and len(slips) > 3
    for slip in slips:
        assert '"some quoted words"' in slip and "{note}" in slip and slip.endswith("openai")
        assert sum(one != other for one, other in zip(slip.split(), text.split(), strict=True)) == 1
    assert with_typo("{note}", "", random.Random(1)) == "{note}"


def test_a_context_may_be_a_parameter_of_a_tools_own(tmp_path):
    parameters = {"type": "object", "properties": {"q": {"type": "string"}, "context": {"type": "string"}}}
    tool = {"manager": "", "mode": "", "summary": "Asks.", "effect": "read", "parameters": parameters}
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps({"name": "own", "server_version": "1", "tools": {"ask": tool}}), encoding="utf-8")
    catalog = load_catalog(path)
    assert wanted(ToolCall("ask", {"q": "a", "context": "x"}), catalog) == ["Asks.", "- q: a", "- context: x"]
