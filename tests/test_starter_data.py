import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import Tools.make_starter_data as make_starter_data
from Evaluator.catalog import CONTEXT, DEFAULT_CATALOG, load_catalog
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.judging.behavior import WRITING_CELL
from Evaluator.judging.validator import given_ids
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.rejudge import Judge
from Evaluator.rows import BadLine, read_rows
from Evaluator.tool_calls import parse_text
from Tools.prompts.methods import SEED_TEXT
from Tools.prompts.usable_requests import clean_request

DATASETS = Path(make_starter_data.__file__).parents[1] / "Datasets"
FILES = {"answers": DATASETS / "starter_sft.jsonl", "requests": DATASETS / "starter_writer_sft.jsonl"}
CATALOG = load_catalog(DEFAULT_CATALOG)


def rows_of(what):
    found = list(read_rows([str(FILES[what])]))
    assert not any(isinstance(row, BadLine) for row in found)
    return found


@pytest.fixture(scope="module")
def answers():
    return rows_of("answers")


@pytest.fixture(scope="module")
def requests():
    return rows_of("requests")


def system_of(row):
    return row.messages[0].content if row.messages[0].role == "system" else None


@pytest.mark.parametrize("what", FILES)
def test_the_committed_file_is_what_the_command_makes(tmp_path, what):
    assert make_starter_data.main([what, "--output", str(tmp_path / "again.jsonl")]) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == FILES[what].read_bytes()


@pytest.mark.parametrize("what", FILES)
def test_every_row_passes_when_it_is_judged_again(what):
    judge, rows = Judge(CATALOG), rows_of(what)
    assert len(rows) == make_starter_data.NUM_EXAMPLES[what]
    assert all(judge.verdict(row).label and row.label for row in rows)


def test_every_row_of_both_files_has_an_id_of_its_own_and_the_seed_that_was_given(answers, requests):
    rows = [*answers, *requests]
    assert len({row.metadata["sample_id"] for row in rows}) == len(rows)
    assert {row.metadata["seed"] for row in rows} == {0}


def test_all_tools_and_behaviours_are_covered_evenly(answers, requests):
    counts = Counter(row.metadata["cell"] for row in answers)
    tools = {cell: count for cell, count in counts.items() if cell in CATALOG.tools}
    assert tools.keys() == CATALOG.tools.keys() and max(tools.values()) < 2.5 * min(tools.values())
    assert {"behavior:ask", "behavior:call", "behavior:confirm", "behavior:refuse"} <= counts.keys()
    cells = [row.metadata["cell"] for row in requests]
    assert all(cell.startswith(WRITING_CELL) for cell in cells)
    assert {cell.removeprefix(WRITING_CELL) for cell in cells} == counts.keys()


def test_nothing_is_like_an_evaluation_prompt_or_said_twice(answers, requests):
    evaluation = EvaluationPrompts(prompt.question for prompt in load_prompt_sets(EVALUATION_SETS).prompts)
    for asked in ([row.messages[-2].content for row in answers], [row.messages[-1].content for row in requests]):
        assert [request for request in asked if evaluation.overlap(request)] == []
        assert len(set(asked)) == len(asked)


def test_calls_carry_the_ids_of_their_system_prompt_and_half_of_the_rows_have_none(answers):
    with_system = [row for row in answers if system_of(row)]
    assert len(with_system) == len(answers) / 2
    for row in with_system:
        given = given_ids(system_of(row), CATALOG.id_patterns)
        for call in parse_text(row.messages[-1].content).calls:
            context = call.arguments[CONTEXT]
            assert {context["sessionId"]} == given["sessionId"] and {context["workspaceId"]} == given["workspaceId"]


def test_a_name_stands_without_its_id_only_where_the_system_prompt_has_it(answers):
    looked_up = 0
    for row in answers:
        if row.metadata["expected_behavior"]:
            continue
        text = "\n".join(message.content for message in row.messages[:-1])
        for call in parse_text(row.messages[-1].content).calls:
            arguments = {name: value for name, value in call.arguments.items() if name != CONTEXT}
            for name in ("workspaceId", "id", "agentId"):
                value = arguments.get(name)
                if isinstance(value, str) and value.startswith(("ws_", "agent_")):
                    assert value in text, row.metadata["sample_id"]
                    looked_up += value not in row.messages[-2].content
    assert looked_up > 20


def test_nothing_is_lost_without_asking_below_instructions_that_say_to_ask(answers):
    instructed = [row for row in answers if "<instructions>" in (system_of(row) or "")]
    calls = [call for row in instructed for call in parse_text(row.messages[-1].content).calls]
    assert len(calls) > 100
    assert not [call for call in calls if "delete" in call.name or "replace" in call.name.lower()]
    assert not [call for call in calls if call.arguments.get("overwrite")]


def test_written_requests_are_usable_and_orders_are_not_answered_with_calls(answers, requests):
    assert all(clean_request(row.messages[-1].content) == row.messages[-1].content for row in requests)
    assert sum(row.messages[-2].content == SEED_TEXT for row in requests) == round(0.05 * len(requests))
    a_call = next(row for row in answers if row.metadata["cell"] == "vaultManager_createFolder").messages[-1]
    for row in requests[:20]:
        assert not Judge(CATALOG).verdict(replace(row, messages=[*row.messages[:-1], a_call])).label


@pytest.mark.parametrize("what", FILES)
def test_the_same_seed_makes_the_same_rows_and_another_one_others(capfdbinary, what):
    made = []
    for seed in ("0", "0", "1"):
        assert make_starter_data.main([what, "--output", "-", "--num-examples", "60", "--seed", seed]) == 0
        made.append(capfdbinary.readouterr().out)
    assert made[0] == made[1] != made[2]
    assert all(json.loads(line)["label"] for line in made[2].splitlines()) and made[2].count(b"\n") == 60


def test_an_output_that_holds_something_else_is_replaced_only_when_told(capsys, tmp_path):
    output = tmp_path / "selfplay.jsonl"
    output.write_text("rows of hours\n")
    told = ["requests", "--output", str(output), "--num-examples", "20"]
    assert make_starter_data.main(told) == 2 and output.read_text() == "rows of hours\n"
    assert make_starter_data.main([*told, "--overwrite"]) == make_starter_data.main(told) == 0
    assert output.read_bytes().count(b"\n") == 20


def test_a_folder_that_is_not_there_is_one_sentence(capsys, tmp_path):
    assert make_starter_data.main(["answers", "--output", str(tmp_path / "no" / "x.jsonl")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
