"""Both generators, from their flags to their files, with scripted models and with a real HTTP server."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from Evaluator.flag_types import span
from Evaluator.records import CHECKS
from tests.fakes.anthropic_server import FakeAnthropicServer
from tests.fakes.ordered_requests import written_to
from Tools.prompts.methods import SEED_TEXT
from Tools.selfplay_generator import main as v1
from Tools.selfplay_generator_v2 import main as v2

ROOT = Path(__file__).resolve().parents[1]
REQUEST = "Move Inbox/Plan.md to the folder Garden."
CALL = (
    'tool_call: vaultManager_moveNote\narguments: {"context": {"sessionId": "session_1767312345678_ab12cd34e", '
    '"workspaceId": "default", "sessionDescription": "Filing", "sessionMemory": "", "toolContext": "Wrong folder", '
    '"primaryGoal": "Tidy vault", "subgoal": "Move it"}, "path": "Inbox/Plan.md", "newPath": "Garden/Plan.md"}'
)


@pytest.fixture
def scripted(tmp_path):
    """Writes scripted replies and gives the value for --model."""

    def write(*replies):
        path = tmp_path / "replies.jsonl"
        lines = [json.dumps({"content": one} if isinstance(one, str) else one) for one in replies]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return f"scripted:{path}"

    return write


@pytest.fixture
def self_player(scripted):
    """Flags for a scripted model that writes one request, and answers it right or with plain text."""
    model = scripted({"content": REQUEST, "contains": SEED_TEXT[:30]}, CALL, "I have moved it.")
    return ["--model", model, "--prompt-method", "free", "--no-distinct"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.jsonl"


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- v1 ------------------------------------------------------------------------------------------------------------


def test_v1_asks_every_prompt_in_turn_and_keeps_its_system_message(scripted, out, tool_prompts):
    assert v1(["--model", scripted("No."), "--output", str(out), "--num-examples", "100"]) == 0
    rows = rows_of(out)
    assert set(Counter(row["metadata"]["target_tool"] for row in rows).values()) == {2, 3}
    assert [message["role"] for message in rows[0]["conversations"]] == ["system", "user", "assistant"]
    assert {row["metadata"]["source"] for row in rows} == {"guided"}
    assert {row["conversations"][0]["content"] for row in rows} == {prompt.system for prompt in tool_prompts}


def test_v1_without_a_number_asks_each_prompt_as_often_as_there_are_variations(scripted, out):
    flags = ["--num-variations", "3", "--temperature", "0.0-0.9", "--top-p", "0.5-0.8"]
    assert v1(["--model", scripted("No."), "--output", str(out), *flags]) == 0
    rows = sorted(rows_of(out), key=lambda row: row["metadata"]["slot"])
    assert len(rows) == 141
    for variation in range(3):
        band = [row["metadata"]["temperature"] for row in rows[47 * variation : 47 * (variation + 1)]]
        assert 0.3 * variation <= min(band) < max(band) <= 0.3 * (variation + 1)
    assert all(0.5 <= row["metadata"]["top_p"] <= 0.8 for row in rows)


def test_v1_labels_right_answers_true(model_server, out):
    server = model_server()
    assert v1(["--model", "fake", "--base-url", server.url, "--output", str(out), "--concurrency", "8"]) == 0
    rows = rows_of(out)
    assert Counter(row["label"] for row in rows) == {True: 32, False: 15}
    assert {row["metadata"]["errors"][0] for row in rows if not row["label"]} == {"context.missing"}
    assert {key for row in rows for key in row["metadata"]["checks"]} == set(CHECKS)
    assert all(0.3 <= request["temperature"] <= 0.9 for request in server.requests)


def test_v1_goes_on_to_the_next_prompt_when_one_is_always_cut_off(scripted, out, tmp_path):
    prompts = [{"id": "a", "question": "Be long"}, {"id": "b", "question": "Be short"}]
    (tmp_path / "set.json").write_text(json.dumps(prompts), encoding="utf-8")
    model = scripted({"content": "x", "contains": "long", "finish_reason": "length"}, "Short.")
    flags = ["--prompt-set", str(tmp_path / "set.json"), "--num-examples", "4"]
    assert v1(["--model", model, "--output", str(out), *flags]) == 0
    assert [row["metadata"]["prompt_id"] for row in rows_of(out)] == ["b"] * 4
    rejects = rows_of(out.with_suffix(".rejects.jsonl"))
    assert {(reject["reason"], reject["prompt"]) for reject in rejects} == {("answer.truncated", "Be long")}


# -- v2 ------------------------------------------------------------------------------------------------------------


def test_v2_writes_the_request_and_answers_it_without_a_system_prompt(self_player, out):
    assert v2([*self_player, "--output", str(out), "--num-examples", "20"]) == 0
    rows = rows_of(out)
    assert {len(row["conversations"]) for row in rows} == {2}
    assert {row["conversations"][0]["content"] for row in rows} == {REQUEST}
    assert Counter(row["label"] for row in rows)[True] > 3
    assert {row["metadata"]["prompt_model"] for row in rows} == {self_player[1]}


def test_v2_asks_with_the_seed_text_and_nothing_else(model_server, out):
    server = model_server()
    flags = ["--prompt-method", "free", "--num-examples", "3"]
    assert v2(["--model", "fake", "--base-url", server.url, "--output", str(out), *flags]) == 0
    asked = [request["messages"] for request in server.requests]
    assert asked.count([{"role": "user", "content": SEED_TEXT}]) == 3
    assert {len(messages) for messages in asked} == {1}


def test_v2_templates_know_the_tool(scripted, out):
    flags = ["--prompt-method", "template", "--num-examples", "60", "--behavior-share", "0"]
    assert v2(["--model", scripted(CALL), "--output", str(out), *flags]) == 0
    rows = rows_of(out)
    assert {row["metadata"]["prompt_method"] for row in rows} == {"template"}
    for row in rows:
        metadata = row["metadata"]
        assert metadata["checks"]["relevance"] is (metadata["expected_tools"] == ["vaultManager_moveNote"])
        assert metadata["cell"] in metadata["expected_tools"]
        assert row["label"] is False, "the note that it moves was not asked for"
        assert json.loads(metadata["goal"])


def test_v2_mixes_methods_and_asks_claude_through_the_sdk(self_player, out, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    with FakeAnthropicServer(lambda request: written_to(request["messages"][0]["content"])) as teacher:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", teacher.url)
        flags = ["--prompt-generator-model", "claude-test-1", "--prompts-per-call", "1", "--num-examples", "40"]
        methods = ["--prompt-method", "free,template,teacher:2"]
        assert v2([*self_player, "--output", str(out), *flags, *methods]) == 0
    rows = rows_of(out)
    assert set(Counter(row["metadata"]["prompt_method"] for row in rows)) == {"free", "template", "teacher"}
    taught = [row for row in rows if row["metadata"]["prompt_method"] == "teacher"]
    assert {row["metadata"]["prompt_model"] for row in taught} == {"claude-test-1"}
    assert {row["label"] for row in taught} == {False} and all(row["metadata"]["cell"] for row in taught)
    assert all("names exactly as written" in ask["messages"][0]["content"] for ask in teacher.requests[:1])


@pytest.mark.parametrize("method", ["template", "free"])
def test_v2_answers_each_request_several_times(scripted, tmp_path, method):
    """Cut off in the midst of a request and topped up, the rows are those of one run, at any concurrency."""
    requests = [{"content": f"Move {name}.md to Garden.", "contains": SEED_TEXT[:30]} for name in ("A", "B", "C")]
    flags = ["--model", scripted(*requests, CALL, "No."), "--prompt-method", method, "--no-distinct"]
    flags += ["--num-samples-per-prompt", "4"]
    steps, at_once = tmp_path / "steps.jsonl", tmp_path / "once.jsonl"
    for number in ("2", "6", "20"):
        assert v2([*flags, "--output", str(steps), "--num-examples", number]) == 0
    assert v2([*flags, "--output", str(at_once), "--num-examples", "20", "--concurrency", "1"]) == 0
    assert steps.read_bytes() == at_once.read_bytes()
    rows = sorted(rows_of(at_once), key=lambda row: row["metadata"]["slot"])
    asked = [row["conversations"][0]["content"] for row in rows]
    assert all(asked[at] == asked[at - at % 4] for at in range(20))
    assert len(set(asked)) == 5 if method == "template" else 1 < len(set(asked)) <= 3
    assert len({row["metadata"]["temperature"] for row in rows}) > 10
    goals = {(row["conversations"][0]["content"], row["metadata"]["goal"]) for row in rows}
    assert len(goals) == len(set(asked))


def test_v2_rejects_what_is_no_request_and_never_labels_it(scripted, out):
    bad = [{"content": text, "contains": SEED_TEXT[:30]} for text in ("Yes", REQUEST, "1. One.\n2. Two.")]
    cut_off = {"content": REQUEST, "contains": SEED_TEXT[:30], "finish_reason": "length"}
    flags = ["--prompt-method", "free", "--no-distinct", "--num-examples", "30"]
    assert v2(["--model", scripted(*bad, cut_off, CALL), "--output", str(out), *flags]) == 0
    rejects = rows_of(out.with_suffix(".rejects.jsonl"))
    assert {"prompt.too_short", "prompt.several", "prompt.truncated"} == {reject["reason"] for reject in rejects}
    assert {row["conversations"][0]["content"] for row in rows_of(out)} == {REQUEST}


def test_a_hopeless_run_ends_with_status_3_and_says_why(scripted, out, capsys):
    assert v2(["--model", scripted("Yes"), "--output", str(out), "--prompt-method", "free"]) == 3
    assert "prompt.too_short" in capsys.readouterr().err
    assert not rows_of(out)


def test_a_hopeless_run_with_several_answers_a_request_ends_as_well(scripted, out, capsys):
    flags = ["--prompt-method", "free", "--num-samples-per-prompt", "2"]
    assert v2(["--model", scripted("Yes"), "--output", str(out), *flags]) == 3
    assert "prompt.too_short" in capsys.readouterr().err
    assert len(rows_of(out.with_suffix(".rejects.jsonl"))) < 300


# -- the output, whatever the generator ----------------------------------------------------------------------------


def test_true_and_false_alternate_in_proportion(model_server, out):
    server = model_server()
    v1(["--model", "fake", "--base-url", server.url, "--output", str(out), "--num-examples", "300"])
    labels = [row["label"] for row in rows_of(out)]
    share = sum(labels) / len(labels)
    assert all(abs(sum(labels[:end]) - share * end) <= 1 for end in range(len(labels)))


def test_same_seed_same_bytes_at_any_concurrency(self_player, tmp_path):
    written = []
    for concurrency in ("1", "3", "16"):
        path = tmp_path / concurrency / "out.jsonl"
        path.parent.mkdir()
        v2([*self_player, "--output", str(path), "--num-examples", "50", "--concurrency", concurrency])
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]


def test_another_seed_gives_other_sampling(self_player, tmp_path):
    drawn = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.jsonl"
        v2([*self_player, "--output", str(path), "--num-examples", "5", "--seed", seed])
        drawn.append([row["metadata"]["temperature"] for row in rows_of(path)])
    assert drawn[0] != drawn[1]


def test_a_complete_run_does_nothing_again(self_player, out, capsys):
    command = [*self_player, "--output", str(out), "--num-examples", "10"]
    assert v2(command) == 0
    before = out.stat()
    assert v2(command) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before.st_mtime_ns


def test_a_lost_output_is_made_again_from_the_journal(self_player, out):
    command = [*self_player, "--output", str(out), "--num-examples", "10"]
    v2(command)
    before = out.read_bytes()
    out.unlink()
    assert v2(command) == 0
    assert out.read_bytes() == before


def test_a_larger_number_tops_up_to_the_same_bytes_as_one_run(self_player, tmp_path):
    steps, at_once = tmp_path / "steps.jsonl", tmp_path / "once.jsonl"
    for number in ("7", "20"):
        assert v2([*self_player, "--output", str(steps), "--num-examples", number]) == 0
    v2([*self_player, "--output", str(at_once), "--num-examples", "20"])
    assert steps.read_bytes() == at_once.read_bytes()


def test_a_torn_last_line_is_repaired(self_player, out):
    command = [*self_player, "--output", str(out), "--num-examples", "10"]
    v2(command)
    whole = out.read_bytes()
    journal = out.with_suffix(".journal")
    journal.write_bytes(journal.read_bytes()[:-40])
    assert v2(command) == 0
    assert out.read_bytes() == whole


def test_other_settings_are_refused_with_what_differs(self_player, out, capsys):
    v2([*self_player, "--output", str(out), "--num-examples", "5"])
    before = out.read_bytes()
    assert v2([*self_player, "--output", str(out), "--num-examples", "5", "--seed", "9"]) == 2
    assert "seed was 0, now 9" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert v2([*self_player, "--output", str(out), "--num-examples", "5", "--seed", "9", "--overwrite"]) == 0
    assert {row["metadata"]["seed"] for row in rows_of(out)} == {9}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--behavior-share", "0"], "shares was"),
        (["--tools-in-prompt"], "tools_in_prompt was false, now true"),
        (["--no-distinct"], "distinct was true, now false"),
        (["--round", "2"], "round was null, now 2"),
        (["--num-samples-per-prompt", "2"], "num_samples_per_prompt was null, now 2"),
    ],
)
def test_other_settings_of_v2_are_refused(scripted, out, capsys, more, said):
    command = ["--model", scripted("No."), "--prompt-method", "template", "--num-examples", "3", "--output", str(out)]
    assert v2(command) == 0
    assert v2([*command, *more]) == 2 and said in capsys.readouterr().err


def test_a_file_that_is_not_ours_is_left_alone(self_player, out, capsys):
    out.write_text("precious\n", encoding="utf-8")
    assert v2([*self_player, "--output", str(out), "--num-examples", "5"]) == 2
    assert out.read_text(encoding="utf-8") == "precious\n"
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["precious", "{}\n", '{"a": 1}\n{"reject"'])
def test_a_journal_that_is_not_ours_is_left_alone(self_player, out, content, capsys):
    journal = out.with_suffix(".journal")
    journal.write_text(content)
    assert v2([*self_player, "--output", str(out), "--num-examples", "4"]) == 2
    assert "is damaged at byte 0" in capsys.readouterr().err and journal.read_text() == content


@pytest.mark.parametrize("content", ["", '{"set', '{"settings": {"seed": 9', '{"settings": {"seed": 9}}\n{"conv'])
def test_a_journal_that_was_torn_before_its_first_entry_begins_anew(self_player, out, content):
    out.with_suffix(".journal").write_text(content)
    assert v2([*self_player, "--output", str(out), "--num-examples", "4"]) == 0
    assert len(rows_of(out)) == 4


def test_rejects_between_samples_do_not_add_up(scripted, out):
    bad = [{"content": text, "contains": SEED_TEXT[:30]} for text in ("Yes", REQUEST, "No", "1. One.\n2. Two.")]
    flags = ["--prompt-method", "free", "--no-distinct", "--num-examples", "120"]
    assert v2(["--model", scripted(*bad, CALL), "--output", str(out), *flags]) == 0
    assert len(rows_of(out)) == 120 and len(rows_of(out.with_suffix(".rejects.jsonl"))) > 200


def test_a_damaged_journal_is_refused_and_kept(self_player, out, capsys):
    command = [*self_player, "--output", str(out), "--num-examples", "5"]
    v2(command)
    journal = out.with_suffix(".journal")
    damaged = journal.read_bytes().replace(b'"label"', b'"lebal"', 1)
    journal.write_bytes(damaged)
    assert v2(command) == 2
    assert "damaged at byte" in capsys.readouterr().err
    assert journal.read_bytes() == damaged


def test_one_class_only_is_written_with_a_warning(scripted, out, capsys):
    assert v1(["--model", scripted("No."), "--output", str(out), "--num-examples", "5"]) == 0
    assert len(rows_of(out)) == 5
    assert "all samples are labelled false" in capsys.readouterr().err


def test_the_run_file_tells_settings_and_counts_and_no_secret(model_server, out, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    v1(["--model", "fake", "--base-url", model_server().url, "--output", str(out), "--num-examples", "9"])
    run = json.loads(out.with_suffix(".run.json").read_text(encoding="utf-8"))
    assert run["counts"]["samples"] == 9 and run["is_complete"]
    assert run["settings"]["model"] == "fake"
    for path in out.parent.iterdir():
        assert b"sk-very-secret" not in path.read_bytes()


def test_the_summary_counts_what_came(model_server, out, capsys):
    v1(["--model", "fake", "--base-url", model_server().url, "--output", str(out)])
    said = capsys.readouterr()
    assert said.out == ""
    for words in ("47 of 47 samples: 32 true, 15 false", "context.missing 15", "tools: 47 of 47", "slots busy"):
        assert words in said.err


def test_a_lone_surrogate_and_line_separators_make_whole_lines(scripted, out):
    odd = "\ud83d \u2028 \x85 \x00 end"
    assert v1(["--model", scripted(odd), "--output", str(out), "--num-examples", "2"]) == 0
    lines = out.read_bytes().split(b"\n")
    assert len(lines) == 3
    assert json.loads(lines[0])["conversations"][-1]["content"] == odd.replace("\ud83d", "?")


def test_v1_and_v2_have_one_schema(model_server, tmp_path):
    server = model_server()
    for script, name in ((v1, "a"), (v2, "b")):
        flags = ["--num-examples", "12"]
        assert (
            script(["--model", "fake", "--base-url", server.url, "--output", str(tmp_path / f"{name}.jsonl"), *flags])
            == 0
        )
    rows = rows_of(tmp_path / "a.jsonl") + rows_of(tmp_path / "b.jsonl")
    assert len({row["metadata"]["sample_id"] for row in rows}) == 24
    assert len({json.dumps(shape(row)) for row in rows}) == 1


def shape(row):
    """The keys of a row with the types they may have."""
    nullable = {
        *("prompt_model", "target_tool", "vault", "goal", "top_p", "cell", "template", "persona", "phrasing", "round"),
        *("expected_behavior", "behavior"),
    }
    metadata = {key: "null" if key in nullable else type(value).__name__ for key, value in row["metadata"].items()}
    return [
        list(row),
        sorted({tuple(message) for message in row["conversations"]}),
        list(row["metadata"]["checks"]),
        metadata,
    ]


# -- streams and statuses ------------------------------------------------------------------------------------------


def run_script(script, *flags, **options):
    return subprocess.run(
        [sys.executable, str(ROOT / "Tools" / script), *flags], capture_output=True, timeout=60, check=False, **options
    )


def test_a_dash_streams_rows_to_stdout_and_nothing_else(self_player):
    result = run_script("selfplay_generator_v2.py", *self_player, "--output", "-", "--num-examples", "6")
    assert result.returncode == 0
    assert len([json.loads(line) for line in result.stdout.splitlines()]) == 6
    assert b"6 of 6 samples" in result.stderr


def test_a_reader_that_goes_away_ends_it_quietly(scripted):
    command = f"{sys.executable} {ROOT}/Tools/selfplay_generator.py --model {scripted('No.')} --output -"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} --num-examples 5000 | head -1"], capture_output=True, check=False
    )
    assert result.returncode == 141
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == b""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--output"),
        (["--num-examples", "0"], "not 1 or more"),
        (["--timeout", "inf"], "not 0.1 or more"),
        (["--base-url", "localhost:1234/v1"], "http://"),
        (["--output", "out.json"], ".jsonl"),
        (["--output", ""], ".jsonl"),
        (["--temperature", "0.9-0.3"], "first number"),
        (["--temperature", "hot"], "neither a number nor a range"),
        (["--temperature", "0.3-"], "neither a number nor a range"),
        (["--top-p", "1.5"], "not between"),
        (["--concurrency", "x"], "invalid int"),
        (["--num-ex", "5"], "unrecognized"),
    ],
)
def test_a_bad_flag_is_status_2_before_anything_starts(flags, words, capsys, out):
    with pytest.raises(SystemExit) as stop:
        v1([*(["--output", str(out)] if flags else []), *flags])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not out.parent.joinpath("out.journal").exists()


@pytest.mark.parametrize(
    ("text", "limits"), [("0.7", (0.7, 0.7)), ("0.3-0.9", (0.3, 0.9)), ("1e-3", (0.001, 0.001)), ("0-1", (0, 1))]
)
def test_a_number_is_a_range_of_itself(text, limits):
    assert span(0, 2)(text) == limits


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompt-set", "gone.json"], "gone.json"),
        (["--catalog", "gone.json"], "gone.json"),
        (["--model", "scripted:gone.jsonl"], "gone.jsonl"),
        (["--model", "gone.gguf"], "gone.gguf"),
    ],
)
def test_a_missing_file_is_one_sentence_and_status_2(flags, words, out, capsys):
    assert v1(["--output", str(out), *flags]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model", "fake", "--adapter", "lora.gguf"], "--adapter"),
        (["--base-url", "http://localhost:1/v1"], "--base-url needs --model"),
        (["--output", "-", "--overwrite"], "--overwrite"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(flags, words, out, capsys):
    assert v1(["--output", str(out), *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_failed_start_leaves_nothing_in_the_way(scripted, out):
    flags = ["--output", str(out), "--num-examples", "2"]
    assert v1(["--model", "gone.gguf", *flags]) == 2
    assert not list(out.parent.glob("out.*"))
    assert v1(["--model", scripted("No."), *flags]) == 0


def test_overwrite_destroys_nothing_before_it_has_something_new(scripted, out):
    flags = ["--output", str(out), "--num-examples", "3"]
    v1(["--model", scripted("No."), *flags])
    before = {path.name: path.read_bytes() for path in out.parent.glob("out.*")}
    assert v1(["--model", "gone.gguf", *flags, "--overwrite"]) == 2
    assert {path.name: path.read_bytes() for path in out.parent.glob("out.*")} == before


def test_an_overwriting_run_killed_before_its_end_is_not_taken_for_the_old_one(scripted, out):
    flags = ["--model", scripted("No."), "--output", str(out), "--num-examples", "3"]
    v1(flags)
    old = {path: path.read_bytes() for path in (out, out.with_suffix(".run.json"))}
    v1([*flags, "--seed", "9", "--overwrite"])
    for path, data in old.items():  # as if it had been killed after the last sample
        path.write_bytes(data)
    assert v1([*flags, "--seed", "9"]) == 0
    assert {row["metadata"]["seed"] for row in rows_of(out)} == {9}


@pytest.mark.parametrize("suffix", [".rejects.jsonl", ".run.json"])
def test_files_of_others_beside_the_output_are_left_alone(scripted, out, suffix, capsys):
    other = out.with_suffix(suffix)
    other.write_text("precious", encoding="utf-8")
    assert v1(["--model", scripted("No."), "--output", str(out)]) == 2
    assert other.read_text(encoding="utf-8") == "precious"
    assert other.name in capsys.readouterr().err


def test_another_catalog_works_with_its_own_prompts(scripted, out, tmp_path, capsys):
    parameters = {"type": "object", "properties": {"is_on": {"type": "boolean"}}, "required": ["is_on"]}
    catalog = {"name": "lamps", "server_version": "1", "tools": {"lamp_switch": {"parameters": parameters}}}
    (tmp_path / "lamps.json").write_text(json.dumps(catalog), encoding="utf-8")
    prompt = {"id": "on", "question": "Light on please", "expected_tools": ["lamp_switch"]}
    (tmp_path / "set.json").write_text(json.dumps([prompt]), encoding="utf-8")
    right = 'tool_call: lamp_switch\narguments: {"is_on": true}'
    model = scripted({"content": "Please switch the light on.", "contains": SEED_TEXT[:30]}, right)
    flags = ["--model", model, "--catalog", str(tmp_path / "lamps.json"), "--num-examples", "2"]
    free = ["--prompt-method", "free", "--no-distinct"]
    assert v1([*flags, "--output", str(out), "--prompt-set", str(tmp_path / "set.json")]) == 0
    assert v2([*flags, "--output", str(tmp_path / "own.jsonl")]) == 2
    assert "--prompt-method free" in capsys.readouterr().err
    assert v2([*flags, *free, "--output", str(tmp_path / "own.jsonl")]) == 0
    assert all(row["label"] for row in rows_of(out) + rows_of(tmp_path / "own.jsonl"))
    assert v1([*flags, "--output", str(tmp_path / "wrong.jsonl")]) == 2
    assert "lamps@1 does not have" in capsys.readouterr().err


def test_self_play_shows_the_tools_that_were_called(self_player, out, capsys):
    v2([*self_player, "--output", str(out), "--num-examples", "10"])
    assert "1 called in true samples" in capsys.readouterr().err
    assert {tuple(row["metadata"]["called_tools"]) for row in rows_of(out) if row["label"]} == {
        ("vaultManager_moveNote",)
    }


def test_native_calls_have_one_shape_in_the_rows(model_server, out):
    server = model_server()
    arguments = {"context": {}, "path": "a.md"}
    native = [{"id": 7, "index": 0, "function": {"name": "vaultManager_openNote", "arguments": arguments}}]
    message = {"role": "assistant", "content": None, "tool_calls": native}
    server.completion = lambda request, number: {"choices": [{"finish_reason": "tool_calls", "message": message}]}
    assert v1(["--model", "fake", "--base-url", server.url, "--output", str(out), "--num-examples", "1"]) == 0
    function = {"name": "vaultManager_openNote", "arguments": json.dumps(arguments)}
    assert rows_of(out)[0]["conversations"][-1]["tool_calls"] == [{"id": "7", "type": "function", "function": function}]


def test_a_missing_output_folder_is_status_2(scripted, tmp_path, capsys):
    assert v1(["--model", scripted("No."), "--output", str(tmp_path / "gone" / "out.jsonl")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_teacher_without_its_method_is_refused(scripted, out, capsys):
    flags = ["--prompt-generator-model", "claude-x", "--prompt-method", "self"]
    assert v2(["--model", scripted("No."), "--output", str(out), *flags]) == 2
    assert "--prompt-generator-model" in capsys.readouterr().err


@pytest.mark.parametrize(("fault", "words"), [("401", "API key"), ("404", "other-model"), ("400", "made to fail")])
def test_a_refusing_endpoint_is_status_2_and_nothing_is_labelled(model_server, out, capsys, fault, words):
    server = model_server(faults={fault: 1})
    assert v1(["--model", "fake", "--base-url", server.url, "--output", str(out)]) == 2
    assert words in capsys.readouterr().err
    assert server.count <= 4
    assert not list(out.parent.glob("out.*"))


def test_an_absent_server_is_status_3(out, capsys):
    flags = ["--base-url", "http://127.0.0.1:9/v1", "--give-up-after", "0.5"]
    assert v1(["--model", "fake", "--output", str(out), *flags]) == 3
    assert "Is the server up?" in capsys.readouterr().err


def test_a_request_that_cannot_be_worded_for_many_answers_does_not_end_the_run(out, tmp_path):
    """Its answers are given up without an attempt, which says nothing about the model."""
    (tmp_path / "r.jsonl").write_text('{"content": "x"}\n')
    flags = ["--prompt-method", "self", "--num-samples-per-prompt", "32", "--num-examples", "320"]
    assert v2(["--model", f"scripted:{tmp_path / 'r.jsonl'}", *flags, "--output", str(out)]) == 1
    reasons = Counter(reject["reason"] for reject in rows_of(out.with_suffix(".rejects.jsonl")))
    assert reasons.pop("prompt.given_up") > 200 and 0 < reasons.total() <= 80


def test_a_scripted_reply_that_was_cut_off_in_a_made_up_result_is_whole(out, tmp_path, scripted):
    reply = {"content": f'{CALL}\n\nResult: {{"succ', "finish_reason": "length"}
    assert v1(["--model", scripted(reply), "--output", str(out), "--num-examples", "2"]) == 0
    assert len(rows_of(out)) == 2 and not rows_of(out.with_suffix(".rejects.jsonl"))


def test_scripted_replies_are_lines_of_bytes(out, tmp_path, capsys):
    replies = tmp_path / "r.jsonl"
    replies.write_bytes(b'\xef\xbb\xbf{"content": "One\xe2\x80\xa8two"}\r\n\n')
    assert v1(["--model", f"scripted:{replies}", "--output", str(out), "--num-examples", "2"]) == 0
    first = json.loads(out.read_bytes().split(b"\n")[0])
    assert first["conversations"][-1]["content"] == "One\u2028two"
    replies.write_bytes('{"content": "é"}\n'.encode("latin-1"))
    assert v1(["--model", f"scripted:{replies}", "--output", str(out), "--overwrite"]) == 2
    assert "line 1: no JSON object" in capsys.readouterr().err


def test_endpoint_errors_are_rejects_and_write_no_sample(model_server, out):
    server = model_server(faults={"empty": 2})
    flags = ["--num-examples", "10", "--max-retries", "0", "--concurrency", "1"]
    assert v1(["--model", "fake", "--base-url", server.url, "--output", str(out), *flags]) == 0
    rejects = rows_of(out.with_suffix(".rejects.jsonl"))
    assert {reject["reason"] for reject in rejects} == {"endpoint.empty"}
    assert len(rows_of(out)) == 10


@pytest.mark.parametrize("how", ["file", "own folder", "module", "root"])
def test_scripts_run_from_anywhere(how, tmp_path):
    commands = {
        "file": ([str(ROOT / "Tools" / "selfplay_generator.py")], tmp_path),
        "own folder": (["selfplay_generator_v2.py"], ROOT / "Tools"),
        "module": (["-m", "Tools.selfplay_generator"], ROOT),
        "root": (["Tools/selfplay_generator_v2.py"], ROOT),
    }
    arguments, folder = commands[how]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, *arguments, "--help"], cwd=folder, env=environment, capture_output=True, check=False
    )
    assert result.returncode == 0
    assert b"--num-examples" in result.stdout
