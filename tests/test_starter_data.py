import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import Tools.make_starter_data as make_starter_data
from Evaluator.behavior import WRITING_CELL
from Evaluator.catalog import CONTEXT, DEFAULT_CATALOG, load_catalog
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.rejudge import Judge
from Evaluator.rows import BadLine, read_rows
from Evaluator.tool_calls import parse_text
from Evaluator.validator import given_ids
from Tools.prompts.prompt_writer import SEED_TEXT
from Tools.prompts.usable_requests import clean_request

STARTER = Path(make_starter_data.__file__).parents[1] / "Datasets" / "starter_sft.jsonl"
CATALOG = load_catalog(DEFAULT_CATALOG)


@pytest.fixture(scope="module")
def rows():
    found = list(read_rows([str(STARTER)]))
    assert not any(isinstance(row, BadLine) for row in found)
    return found


def writes_a_request(row):
    return row.metadata["cell"].startswith(WRITING_CELL)


def system_of(row):
    return row.messages[0].content if row.messages[0].role == "system" else None


def test_the_committed_file_is_what_the_command_makes(tmp_path):
    assert make_starter_data.main(["--output", str(tmp_path / "again.jsonl")]) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == STARTER.read_bytes()


def test_every_row_passes_when_it_is_judged_again(rows):
    judge = Judge(CATALOG)
    assert all(judge.verdict(row).label and row.label for row in rows)


def test_all_tools_and_behaviours_are_covered_evenly(rows):
    answers = Counter(row.metadata["cell"] for row in rows if not writes_a_request(row))
    tools = {cell: count for cell, count in answers.items() if cell in CATALOG.tools}
    assert tools.keys() == CATALOG.tools.keys() and max(tools.values()) < 2.5 * min(tools.values())
    assert {"behavior:ask", "behavior:call", "behavior:confirm", "behavior:refuse"} <= answers.keys()
    assert {row.metadata["cell"].removeprefix(WRITING_CELL) for row in rows if writes_a_request(row)} == answers.keys()


def test_nothing_is_like_an_evaluation_prompt(rows):
    evaluation = EvaluationPrompts(prompt.question for prompt in load_prompt_sets(EVALUATION_SETS).prompts)
    requests = [row.messages[-1 if writes_a_request(row) else -2].content for row in rows]
    assert [request for request in requests if evaluation.overlap(request)] == []
    assert len(set(requests)) == len(requests)


def test_calls_carry_the_ids_of_their_system_prompt_and_some_rows_have_none(rows):
    with_system = [row for row in rows if system_of(row)]
    assert 0.3 < len(with_system) / len(rows) < 0.45
    for row in with_system:
        given = given_ids(system_of(row), CATALOG.id_patterns)
        for call in parse_text(row.messages[-1].content).calls:
            context = call.arguments[CONTEXT]
            assert {context["sessionId"]} == given["sessionId"] and {context["workspaceId"]} == given["workspaceId"]


def test_a_name_stands_without_its_id_only_where_the_system_prompt_has_it(rows):
    looked_up = 0
    for row in rows:
        if writes_a_request(row) or row.metadata["expected_behavior"]:
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


def test_nothing_is_lost_without_asking_below_instructions_that_say_to_ask(rows):
    instructed = [row for row in rows if "<instructions>" in (system_of(row) or "")]
    calls = [call for row in instructed for call in parse_text(row.messages[-1].content).calls]
    assert len(calls) > 100
    assert not [call for call in calls if "delete" in call.name or "replace" in call.name.lower()]
    assert not [call for call in calls if call.arguments.get("overwrite")]


def test_written_requests_are_usable_and_orders_are_not_answered_with_calls(rows):
    written = [row for row in rows if writes_a_request(row)]
    assert all(clean_request(row.messages[-1].content) == row.messages[-1].content for row in written)
    assert sum(row.messages[-2].content == SEED_TEXT for row in written) == round(0.03 * len(rows))
    a_call = next(row for row in rows if row.metadata["cell"] == "vaultManager_createFolder").messages[-1]
    for row in written[:20]:
        assert not Judge(CATALOG).verdict(replace(row, messages=[*row.messages[:-1], a_call])).label


def test_the_same_seed_makes_the_same_rows_and_another_one_others(capfdbinary):
    made = []
    for seed in ("0", "0", "1"):
        assert make_starter_data.main(["--output", "-", "--num-examples", "60", "--seed", seed]) == 0
        made.append(capfdbinary.readouterr().out)
    assert made[0] == made[1] != made[2]
    assert all(json.loads(line)["label"] for line in made[2].splitlines()) and made[2].count(b"\n") == 60


def test_a_folder_that_is_not_there_is_one_sentence(capsys, tmp_path):
    assert make_starter_data.main(["--output", str(tmp_path / "no" / "x.jsonl")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
