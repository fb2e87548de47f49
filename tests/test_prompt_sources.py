"""v2 from its flags to its rows, by the source of its requests: who writes them, what is refused, what is kept."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from Evaluator.decontamination import EvaluationPrompts
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from tests.fakes.anthropic_server import FakeAnthropicServer
from tests.fakes.ordered_requests import written_to
from Tools.prompts.cells import ORDER_HEAD
from Tools.selfplay_generator_v2 import main as v2

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def silent(tmp_path):
    """A scripted model that never calls a tool."""
    path = tmp_path / "silent.jsonl"
    path.write_text('{"content": "I see."}\n')
    return f"scripted:{path}"


@pytest.fixture
def claude(monkeypatch):
    """Starts a teacher that does as it is told."""
    servers = []

    def start(**options):
        servers.append(FakeAnthropicServer(lambda ask: written_to(ask["messages"][0]["content"]), **options))
        servers[-1].__enter__()
        monkeypatch.setenv("ANTHROPIC_BASE_URL", servers[-1].url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def requests_of(path):
    return [row["conversations"][0]["content"] for row in rows_of(path)]


# -- the model itself ----------------------------------------------------------------------------------------------


def test_the_model_writes_the_request_of_its_cell_and_answers_it_without_more(model_server, out):
    server = model_server()
    flags = ["--model", "fake", "--base-url", server.url, "--num-examples", "60"]
    assert v2([*flags, "--output", str(out)]) == 0
    rows = rows_of(out)
    orders = [ask for ask in server.requests if ask["messages"][0]["content"].startswith(ORDER_HEAD)]
    assert len(orders) == len(rows) == 60
    assert {len(ask["messages"]) for ask in server.requests} == {1}, "no system prompt"
    for row in rows:
        metadata = row["metadata"]
        assert metadata["prompt_method"] == "self" and metadata["prompt_model"] == "fake"
        assert metadata["cell"] and metadata["template"] and metadata["persona"] and metadata["phrasing"]
        assert metadata["vault"] and (metadata["goal"] or metadata["expected_behavior"])


def test_answers_that_are_added_later_are_to_the_request_that_was_written(model_server, out):
    server = model_server()
    flags = ["--model", "fake", "--base-url", server.url, "--num-samples-per-prompt", "4", "--output", str(out)]
    for number in ("6", "8"):
        assert v2([*flags, "--num-examples", number]) == 0
    second = [row for row in rows_of(out) if row["metadata"]["slot"] >= 4]
    assert len(second) == 4
    assert len({row["conversations"][0]["content"] for row in second}) == 1
    assert len({json.dumps(row["metadata"]["goal"]) for row in second}) == 1
    assert sum(ask["messages"][0]["content"].startswith(ORDER_HEAD) for ask in server.requests) == 2


def test_a_request_without_its_names_is_refused_and_the_cell_reported_as_a_hole(tmp_path, out, capsys):
    replies = [{"content": "Please do what I told you before.", "contains": ORDER_HEAD}, {"content": "I see."}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, replies)))
    flags = ["--model", f"scripted:{tmp_path / 'r.jsonl'}", "--num-examples", "40", "--attempts-per-cell", "3"]
    command = [*flags, "--no-distinct", "--output", str(out)]
    assert v2(command) == 0
    assert "of 40 samples are missing, nothing usable came in 3 attempts each" in capsys.readouterr().err
    run = json.loads(out.with_suffix(".run.json").read_text())
    rows, holes = rows_of(out), run["counts"]["holes"]
    assert rows, "some requests have nothing to name"
    assert len(rows) + sum(holes.values()) == 40 and run["is_complete"]
    rejects = rows_of(out.with_suffix(".rejects.jsonl"))
    assert Counter(reject["cell"] for reject in rejects) == {cell: 3 * count for cell, count in holes.items()}
    assert {reject["reason"] for reject in rejects} == {"prompt.name_missing"}
    assert not {row["metadata"]["slot"] for row in rows} & {reject["slot"] for reject in rejects}
    before = out.read_bytes()
    assert v2(command) == 0, "a hole is not tried again"
    assert "nothing to do" in capsys.readouterr().err and out.read_bytes() == before
    assert v2([*command, "--attempts-per-cell", "4"]) == 0, "unless more attempts are allowed"
    assert len(rows_of(out.with_suffix(".rejects.jsonl"))) == len(rejects) + sum(holes.values())


def test_fewer_attempts_make_no_holes_of_samples_that_are_there(tmp_path, out):
    replies = [{"content": text, "contains": ORDER_HEAD} for text in ("Do it as before, please.", "Yes", "No")]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, [*replies, {"content": "I see."}])))
    flags = ["--model", f"scripted:{tmp_path / 'r.jsonl'}", "--no-distinct", "--output", str(out)]
    (tmp_path / "weights.json").write_text('{"tools": {"agentManager_listModels": 1}}')
    flags += ["--coverage", str(tmp_path / "weights.json"), "--behavior-share", "0"]
    assert v2([*flags, "--num-examples", "20", "--attempts-per-cell", "30"]) == 0
    assert len(rows_of(out)) == 20
    assert v2([*flags, "--num-examples", "30", "--attempts-per-cell", "2"]) == 0
    run = json.loads(out.with_suffix(".run.json").read_text())
    assert run["counts"]["samples"] + sum(run["counts"]["holes"].values()) == 30
    assert {row["metadata"]["slot"] for row in rows_of(out)} >= set(range(20))


def test_a_prompt_that_does_not_fit_the_model_is_a_hole(model_server, out):
    server = model_server(faults={"context": 1})
    flags = ["--model", "fake", "--base-url", server.url, "--prompt-method", "template", "--num-examples", "3"]
    assert v2([*flags, "--attempts-per-cell", "2", "--output", str(out)]) == 1
    assert server.count == 6


def test_a_run_of_nothing_but_holes_is_no_success(tmp_path, out, capsys):
    (tmp_path / "r.jsonl").write_text('{"content": "Yes"}\n')
    flags = ["--model", f"scripted:{tmp_path / 'r.jsonl'}", "--num-examples", "4"]
    assert v2([*flags, "--output", str(out)]) == 1
    assert "not one sample could be made" in capsys.readouterr().err
    assert v2([*flags, "--output", str(out)]) == 1, "nor is the same command again"
    assert v2([*flags, "--output", "-"]) == 1
    assert "4 of 4 samples are missing" in capsys.readouterr().err


def test_faults_of_the_server_make_no_holes(model_server, out):
    server = model_server(faults={"500": 3})
    flags = ["--model", "fake", "--base-url", server.url, "--max-retries", "0", "--attempts-per-cell", "1"]
    assert v2([*flags, "--num-examples", "30", "--output", str(out)]) == 0
    assert len(rows_of(out)) == 30 and rows_of(out.with_suffix(".rejects.jsonl"))


# -- templates -----------------------------------------------------------------------------------------------------


def test_templates_give_the_same_bytes_at_any_concurrency_and_after_a_kill(silent, tmp_path):
    written = []
    for concurrency in ("1", "16"):
        path = tmp_path / concurrency / "out.jsonl"
        path.parent.mkdir()
        flags = ["--model", silent, "--prompt-method", "template", "--num-examples", "150"]
        assert v2([*flags, "--concurrency", concurrency, "--output", str(path)]) == 0
        written.append(path.read_bytes())
    assert written[0] == written[1]
    journal = path.with_suffix(".journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:40] + lines[55:60]) + lines[60][:50])
    assert v2([*flags, "--concurrency", "16", "--output", str(path)]) == 0
    assert path.read_bytes() == written[0]


def test_no_request_comes_twice_in_a_run_or_from_the_files_to_avoid(silent, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    flags = ["--model", silent, "--prompt-method", "template", "--num-examples", "400"]
    assert v2([*flags, "--output", str(first)]) == 0
    assert len(set(requests_of(first))) == 400
    assert v2([*flags, "--output", str(second), "--avoid", str(first), str(second)]) == 0
    assert not set(requests_of(first)) & set(requests_of(second))
    ids = [row["metadata"]["sample_id"] for path in (first, second) for row in rows_of(path)]
    assert len(set(ids)) == 800
    assert json.loads(second.with_suffix(".run.json").read_text())["avoided"][0][0] == "first.jsonl"


def test_files_to_avoid_are_told_apart_by_more_than_their_names(silent, tmp_path):
    files = [tmp_path / folder / "play.jsonl" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        turns = [{"role": "user", "content": f"Open {file.parent.name}"}, {"role": "assistant", "content": "No."}]
        file.write_text(json.dumps({"conversations": turns}) + "\n")
    out, flags = tmp_path / "out.jsonl", ["--model", silent, "--prompt-method", "template", "--num-examples", "2"]
    assert v2([*flags, "--output", str(out), "--avoid", *map(str, files)]) == 0
    (first, _), (second, _) = json.loads(out.with_suffix(".run.json").read_text())["avoided"]
    assert first == second == "play.jsonl"


def test_phrasing_brings_no_request_near_an_evaluation_prompt(silent, out):
    flags = ["--model", silent, "--prompt-method", "template", "--num-examples", "1500", "--seed", "5"]
    assert v2([*flags, "--output", str(out)]) == 0
    evaluation = EvaluationPrompts(prompt.question for prompt in load_prompt_sets(EVALUATION_SETS).prompts)
    assert not [request for request in requests_of(out) if evaluation.overlap(request)]


LAMPS = {
    "name": "lamps",
    "server_version": "1",
    "tools": {
        "lamp_switch": {"parameters": {"type": "object", "properties": {"room": {"type": "string"}}}},
        "lamp_list": {"parameters": {"type": "object", "properties": {}}},
    },
}


def lamp(tool, text, **arguments):
    return {"id": f"{tool}-{text[:4]}", "tool": tool, "text": text, "arguments": arguments, "context": {}}


@pytest.mark.parametrize("method", ["template", "self"])
@pytest.mark.parametrize("told", [[], ["--tools-in-prompt"]])
def test_another_catalog_has_its_own_templates(tmp_path, out, method, told):
    (tmp_path / "lamps.json").write_text(json.dumps(LAMPS))
    templates = [
        lamp("lamp_switch", "Switch the lamp in the {room} please.", room="{room}"),
        lamp("lamp_list", "List all lamps."),
    ]
    data = {"words": {"room": ["hall", "kitchen", "attic", "cellar"]}, "templates": templates}
    (tmp_path / "templates.json").write_text(json.dumps(data))
    replies = [
        {"content": f"Would you please switch the light in the {room} of number {number}", "contains": f"- {room}"}
        for room in data["words"]["room"]
        for number in range(40)
    ]
    replies.append({"content": 'tool_call: lamp_switch\narguments: {"room": "hall"}'})
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, replies)))
    flags = ["--model", f"scripted:{tmp_path / 'r.jsonl'}", "--catalog", str(tmp_path / "lamps.json"), *told]
    flags += ["--templates", str(tmp_path / "templates.json"), "--prompt-method", method, "--num-examples", "20"]
    assert v2([*flags, "--output", str(out)]) == 0
    assert {row["metadata"]["cell"] for row in rows_of(out)} <= {"lamp_switch", "lamp_list"}
    assert any(row["label"] for row in rows_of(out))


def test_templates_of_one_tool_ask_for_no_second_step(silent, tmp_path, out):
    template = {"id": "a", "tool": "vaultManager_openNote", "text": "Open {note}.", "arguments": {"path": "{note}"}}
    context = dict.fromkeys(
        ["sessionDescription", "sessionMemory", "toolContext", "primaryGoal", "subgoal"], "Open {note}"
    )
    data = {"words": {}, "templates": [{**template, "context": context}]}
    (tmp_path / "templates.json").write_text(json.dumps(data))
    flags = ["--model", silent, "--prompt-method", "template", "--templates", str(tmp_path / "templates.json")]
    assert v2([*flags, "--num-examples", "60", "--output", str(out)]) == 0
    assert {tuple(row["metadata"]["expected_tools"]) for row in rows_of(out)} == {("vaultManager_openNote",)}
    assert v2([*flags, "--behavior-share", "0.5", "--output", str(tmp_path / "b.jsonl")]) == 2


# -- a teacher -----------------------------------------------------------------------------------------------------


def test_a_teacher_writes_several_requests_a_call_and_is_not_asked_twice(claude, silent, tmp_path, out, capsys):
    server = claude()
    kept = tmp_path / "kept.jsonl"
    flags = ["--prompt-generator-model", "claude-test-1", "--num-examples", "40", "--prompts-file", str(kept)]
    assert v2(["--model", silent, *flags, "--output", str(out)]) == 0
    assert 5 <= len(server.requests) <= 12, "40 requests, 8 a call"
    used = f"{11 * len(server.requests)} tokens in and {7 * len(server.requests)} out so far"
    assert used in capsys.readouterr().err
    assert all("output_config" in ask for ask in server.requests[:5])
    rows = rows_of(out)
    assert {row["metadata"]["prompt_model"] for row in rows} == {"claude-test-1"}
    asked = len(server.requests)
    other = tmp_path / "other.jsonl"
    assert v2(["--model", silent, *flags, "--temperature", "0.1", "--output", str(other)]) == 0
    assert len(server.requests) == asked, "all requests came from the prompts file"
    assert requests_of(other) == requests_of(out)


def test_an_endpoint_can_be_the_teacher(model_server, silent, out):
    server = model_server()
    flags = ["--prompt-generator-model", "any", "--prompt-generator-base-url", server.url, "--num-examples", "20"]
    assert v2(["--model", silent, *flags, "--output", str(out)]) == 0
    assert server.requests[0]["response_format"]["type"] == "json_schema"
    assert len(rows_of(out)) == 20


def test_batches_are_collected_by_the_next_run_after_a_kill(claude, silent, tmp_path, out):
    server = claude(polls=10_000)
    command = [sys.executable, str(ROOT / "Tools/selfplay_generator_v2.py"), "--model", silent, "--num-examples", "24"]
    command += ["--prompt-generator-model", "claude-test-1", "--prompt-generator-batch", "--output", str(out)]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "handed in" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(server.batches) == 1 and not out.exists()
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, process.stderr.read()
    server.end_batches()
    command.remove("--prompt-generator-batch")  # what was paid for is collected without it too
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(server.batches) == 1, "nothing was handed in twice"
    assert len(rows_of(out)) == 24
    assert '"batch_done": "msgbatch_1"' in out.with_suffix(".prompts.jsonl").read_text("utf-8")


def test_the_budget_ends_a_run_with_status_3_and_what_is_there_is_good(claude, silent, out, capsys):
    claude(usage=(800, 700))
    flags = ["--prompt-generator-model", "claude-test-1", "--num-examples", "200", "--max-teacher-tokens", "9000"]
    assert v2(["--model", silent, *flags, "--output", str(out)]) == 3
    assert "--max-teacher-tokens" in capsys.readouterr().err
    assert 8 <= len(rows_of(out)) <= 48


def test_a_retired_teacher_is_status_2_and_names_those_there_are(claude, silent, out, capsys):
    claude(models=("claude-new-1", "claude-new-2"))
    for batch in ([], ["--prompt-generator-batch"]):
        flags = ["--prompt-generator-model", "claude-retired-1", *batch]
        assert v2(["--model", silent, *flags, "--output", str(out)]) == 2
        assert "claude-new-1, claude-new-2" in capsys.readouterr().err


# -- bootstrap -----------------------------------------------------------------------------------------------------


def test_tools_in_the_prompt_are_told_and_not_written_down(model_server, out):
    server = model_server()
    flags = ["--model", "fake", "--base-url", server.url, "--prompt-method", "template", "--tools-in-prompt"]
    assert v2([*flags, "--num-examples", "60", "--output", str(out)]) == 0
    rows = rows_of(out)
    assert {len(row["conversations"]) for row in rows} == {2}
    assert {row["metadata"]["tools_told"] for row in rows} == {True}
    told = {ask["messages"][-1]["content"]: ask["messages"][0] for ask in server.requests}
    for row in rows:
        system = told[row["conversations"][0]["content"]]
        assert system["role"] == "system" and "An example of another request" in system["content"]
        assert row["conversations"][0]["content"] not in system["content"]
        assert all(f"The tool {tool}: " in system["content"] for tool in row["metadata"]["expected_tools"])


# -- flags ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompts-file", "x.jsonl"], "needs --prompt-generator-model"),
        (["--max-teacher-tokens", "5"], "needs --prompt-generator-model"),
        (["--prompt-generator-batch"], "needs --prompt-generator-model"),
        (["--prompt-generator-model", "qwen", "--prompt-generator-batch"], "claude"),
        (["--prompt-method", "free", "--coverage", "natural"], "--coverage does nothing"),
        (["--prompt-method", "free", "--behavior-share", "0"], "--behavior-share does nothing"),
        (["--prompt-method", "free", "--tools-in-prompt"], "--tools-in-prompt does nothing"),
        (["--coverage", "gone.json"], "cannot read --coverage"),
        (["--avoid", "gone.jsonl"], "--avoid gone.jsonl"),
        (["--avoid", "pyproject.toml"], "no line of it holds a row"),
        (["--prompt-method", "free", "--templates", "gone.json"], "--templates does nothing"),
        (["--prompt-method", "free", "--attempts-per-cell", "3"], "--attempts-per-cell does nothing"),
        (["--prompt-method", "template", "--prompt-max-tokens", "9"], "--prompt-max-tokens does nothing"),
        (["--prompt-method", "template", "--prompts-per-call", "3"], "--prompts-per-call does nothing"),
        (["--prompt-generator-model", "q", "--output", "a.jsonl", "--prompts-file", "a.journal"], "a name of its own"),
    ],
)
def test_a_flag_that_could_do_nothing_is_status_2(silent, out, capsys, flags, words):
    assert v2(["--model", silent, "--output", str(out), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()
