"""Rows in files are judged again: our own with their goals, others by what they say themselves."""

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from Evaluator.prompt_sets import TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import Message
from Evaluator.tool_calls import render_turn, with_results
from Evaluator.vault.loading import load_fixture
from tests.vaults import call, training_cells
from Tools.prompts.cells import right_answer
from Tools.selfplay_generator import main as v1
from Tools.selfplay_generator_v2 import main as v2
from Tools.validate_dataset import main

ROOT = Path(__file__).resolve().parents[1]
MOVE = call("vaultManager_moveNote", path="Inbox/Plan.md", newPath="Garden/Plan.md")
ASK = {"role": "user", "content": "Move Inbox/Plan.md to Garden/Plan.md, it is about the beds."}


def row(*turns, **more) -> dict:
    return {"conversations": [turn.to_dict() if isinstance(turn, Message) else turn for turn in turns], **more}


def written(path: Path, *rows) -> str:
    path.write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows), encoding="utf-8"
    )
    return str(path)


def relabelled(capsys, *arguments) -> list[dict]:
    assert main(["--relabel", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_text_and_native_calls_and_several_turns_are_judged(tmp_path, capsys):
    right, native = render_turn([MOVE]), render_turn([MOVE], "openai")
    wrong = render_turn([call("vaultManager_moveNote", path="Inbox/Plan.md")])
    done = Message("assistant", "It is moved.")
    more = [done, {"role": "user", "content": "And open Garden/Plan.md, the beds"}]
    path = written(
        tmp_path / "rows.jsonl",
        row(ASK, right, label=True),
        row(ASK, native, label=True, behavior="x"),
        row(ASK, wrong, label=True),
        row(ASK, done, label=False),
        row(ASK, right, *more, render_turn([call("vaultManager_openNote", path="Garden/Plan.md")])),
        row(ASK, wrong, *more, render_turn([call("vaultManager_openNote", path="Garden/Plan.md")]), label=False),
        row(ASK, right, done, label=True),
    )
    assert main([path]) == 0
    report = capsys.readouterr().out
    assert "6 rows judged" in report
    assert "label true                 3              1" in report
    assert "label none                 1              0" in report
    assert "agree in 80.0% of 5 labelled rows" in report
    assert "kappa 0.545" in report  # (0.8 - 0.56) / 0.44
    assert "       1  no tool is called, and nothing says whether one should be" in report
    assert "       2  parameters.missing_field:newPath" in report
    rows = relabelled(capsys, path)
    assert [one["label"] for one in rows] == [True, True, False, False, True, False, True]
    assert rows[1]["behavior"] == "x"


@pytest.mark.parametrize("command", [["validate_dataset.py", "--relabel"], ["mix_datasets.py", "--curated-share", "0"]])
def test_a_file_is_not_written_while_it_is_read(tmp_path, command):
    path = Path(written(tmp_path / "rows.jsonl", row(ASK, render_turn([MOVE]), label=True)))
    before, (script, *flags) = path.read_bytes(), command
    with path.open("ab") as out:
        arguments = [sys.executable, str(ROOT / "Tools" / script), *flags, str(path)]
        done = subprocess.run(arguments, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "read and written at once" in done.stderr
    assert path.read_bytes() == before


def test_what_an_earlier_turn_named_is_known(tmp_path, capsys):
    ask = {"role": "user", "content": "Open it then, please, the beds"}
    turn = render_turn([call("vaultManager_openNote", path="Garden/Plan.md")])
    before = [{"role": "user", "content": "Which note is about the beds?"}, Message("assistant", "Garden/Plan.md is.")]
    path = written(tmp_path / "rows.jsonl", row(*before, ask, turn), row(ask, turn))
    assert [one["label"] for one in relabelled(capsys, path)] == [True, False]


def test_what_is_no_row_is_told_by_its_line_and_status_1(tmp_path, capsys):
    path = written(
        tmp_path / "rows.jsonl",
        "{",
        row(ASK, render_turn([MOVE])),
        "",
        '{"conversations": []}',
        row({"role": "bot"}),
        row(ASK, render_turn([MOVE]), label="yes"),
        row(ASK, {"role": "assistant", "content": 3}),
        row(ASK),
    )
    assert main([path]) == 1
    said = capsys.readouterr()
    assert "1 rows judged" in said.out
    for number, why in (
        (1, "no JSON"),
        (4, "conversations"),
        (5, "role"),
        (6, "label"),
        (7, "content"),
        (8, "assistant turn"),
    ):
        assert any(f"rows.jsonl:{number}: " in line and why in line for line in said.err.splitlines())
    assert main([str(tmp_path / "gone.jsonl")]) == 2


def test_a_row_whose_goal_has_no_form_of_goals_is_not_judged_and_the_next_is(tmp_path, capsys):
    vault = load_fixture("farm").fingerprint
    goals = ({"notes": 5}, {"result": 5}, {"notes": []}, {"result": {"files[].path": {}}})
    odd = [row(ASK, render_turn([MOVE]), metadata={"vault": vault, "goal": json.dumps(goal)}) for goal in goals]
    assert main([written(tmp_path / "rows.jsonl", *odd, row(ASK, render_turn([MOVE])))]) == 0
    said = capsys.readouterr().out
    assert "1 rows judged" in said and '"result" of its goal is no object' in said


def test_rows_of_v2_are_judged_on_their_vault_and_goal_again(tmp_path, capsys):
    """A scripted model that knows some right answers: the labels of the run are those of the second judgement."""
    cells = training_cells()
    (tmp_path / "none.jsonl").write_text('{"content": "No."}\n')
    flags = ["--prompt-method", "template", "--num-examples", "60", "--include-results"]
    probe = tmp_path / "probe.jsonl"
    assert v2(["--model", f"scripted:{tmp_path / 'none.jsonl'}", "--output", str(probe), *flags]) == 0
    replies = []
    for line in probe.read_text().splitlines():
        data = json.loads(line)
        question, goal = data["conversations"][0]["content"], data["metadata"]["goal"]
        answer = right_answer(cells.draw(data["metadata"]["slot"]).prompt)
        assert goal is None or json.loads(goal)
        replies.append({"content": answer, "contains": question})
    replies = [
        one if index % 2 else {**one, "content": one["content"].replace("e", "a", 9)}
        for index, one in enumerate(replies)
    ]
    written(tmp_path / "some.jsonl", *replies)
    out = tmp_path / "out.jsonl"
    assert v2(["--model", f"scripted:{tmp_path / 'some.jsonl'}", "--output", str(out), *flags]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert 20 <= sum(one["label"] for one in rows) <= 40
    right_calls = [one for one in rows if one["label"] and one["metadata"]["called_tools"]]
    assert right_calls and all("\n\nResult: {" in one["conversations"][-1]["content"] for one in right_calls)
    again = relabelled(capsys, str(out))
    assert [one["label"] for one in again] == [one["label"] for one in rows]
    assert [one["metadata"]["checks"] for one in again] == [one["metadata"]["checks"] for one in rows]


def test_rows_of_v1_are_judged_by_their_prompt_set(tmp_path, capsys):
    prompts = load_prompt_sets([TOOL_PROMPTS]).prompts
    replies = [{"content": render_turn([one.expected_call]).content, "contains": one.question} for one in prompts]
    written(tmp_path / "replies.jsonl", *replies)
    out = tmp_path / "out.jsonl"
    assert v1(["--model", f"scripted:{tmp_path / 'replies.jsonl'}", "--output", str(out), "--include-results"]) == 0
    assert main([str(out)]) == 0
    assert "agree in 100.0% of 47 labelled rows" in capsys.readouterr().out
    assert {one["label"] for one in relabelled(capsys, str(out))} == {True}


def test_a_row_whose_prompt_set_alone_says_what_is_right_keeps_its_label_without_it(tmp_path, capsys):
    prompts = tmp_path / "mine.json"
    prompts.write_text(json.dumps([{"id": "mine", "question": "Thanks, that was all.", "expects_call": False}]))
    written(tmp_path / "replies.jsonl", {"content": "You are welcome!"})
    out, model = tmp_path / "out.jsonl", f"scripted:{tmp_path / 'replies.jsonl'}"
    assert v1(["--model", model, "--prompt-set", str(prompts), "--output", str(out)]) == 0
    assert [one["label"] for one in relabelled(capsys, str(out))] == [True]
    assert main([str(out)]) == 0
    assert "only its prompt set says what is right" in capsys.readouterr().out
    assert main([str(out), "--prompt-set", str(prompts)]) == 0
    assert "agree in 100.0% of 1 labelled rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "metadata",
    [{"errors": [{"code": "x"}]}, {"errors": 5}, {"errors": True}, {"expected_tools": 3}, {"expected_tools": {"a": 1}}],
)
def test_metadata_of_others_is_no_reason_to_end(tmp_path, capsys, metadata):
    path = written(tmp_path / "rows.jsonl", row(ASK, render_turn([MOVE]), label=True, metadata=metadata))
    assert [one["label"] for one in relabelled(capsys, path)] == [True]


def test_without_execution_neither_grounding_nor_execution_is_judged(tmp_path, capsys):
    (tmp_path / "none.jsonl").write_text(json.dumps({"content": render_turn([MOVE]).content}) + "\n")
    out = tmp_path / "out.jsonl"
    flags = ["--prompt-method", "template", "--num-examples", "80", "--no-execute"]
    assert v2(["--model", f"scripted:{tmp_path / 'none.jsonl'}", "--output", str(out), *flags]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {one["metadata"]["checks"]["execution"] for one in rows} == {None}
    moving = [one for one in rows if one["metadata"]["target_tool"] == "vaultManager_moveNote"]
    assert moving and all(one["label"] for one in moving)
    assert not any(one["label"] for one in relabelled(capsys, str(out)))


@pytest.mark.parametrize(
    "mark", ["Result:", " **Result:**", "RESULT:", "> Result:", "Tool result:", "Results:\n```json\n"]
)
def test_a_result_that_a_model_wrote_is_never_kept(tmp_path, mark):
    text = render_turn([MOVE]).content + f'\n\n{mark} {{"success": true, "invented": 1}}\n\nDone.'
    (tmp_path / "replies.jsonl").write_text(json.dumps({"content": text}) + "\n")
    for name, flags in (("a", []), ("b", ["--include-results"])):
        out = tmp_path / f"{name}.jsonl"
        arguments = ["--prompt-method", "template", "--num-examples", "10", *flags]
        assert v2(["--model", f"scripted:{tmp_path / 'replies.jsonl'}", "--output", str(out), *arguments]) == 0
        assert "invented" not in out.read_text()
    answer = json.loads(out.read_text().splitlines()[0])["conversations"][-1]["content"]
    assert answer.endswith('Result: {"success": false, "error": "Failed to move note: File not found: Inbox/Plan.md"}')


@pytest.mark.parametrize(("syntax", "num_results"), [("text", 2), ("mistral", 2), ("qwen", 2), ("openai", 0)])
def test_results_follow_their_calls(syntax, num_results):
    turn = render_turn([MOVE, call("vaultManager_openNote", path="Garden/Plan.md")], syntax)
    message = with_results(turn, [{"success": True, "n": 1}, {"success": True, "n": 2}])
    content = message.content or ""
    assert content.count("Result: {") == num_results
    if syntax == "text":
        assert content.index('"n": 1') < content.index("openNote") < content.index('"n": 2')
    if num_results:
        assert content.index('"n": 1') < content.index('"n": 2')


def test_it_reads_stdin_and_ends_quietly_when_the_reader_goes(tmp_path, capsys, monkeypatch):
    line = json.dumps(row(ASK, render_turn([MOVE]), label=True)) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line.encode())))
    assert main([]) == 0
    assert "1 rows judged" in capsys.readouterr().out
    path = written(tmp_path / "many.jsonl", *[line.strip()] * 3000)
    script = [sys.executable, str(ROOT / "Tools" / "validate_dataset.py"), "--relabel", path]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""


def test_a_name_that_a_model_made_up_stays_on_its_line_of_the_report(tmp_path):
    """Half an emoji, which UTF-8 cannot hold, included; and stdout is UTF-8 where the system's encoding is another."""
    odd = call("vaultManager_moveNote", path="Inbox/Plan.md", newPath="Garden/Plan.md", **{"a\nb\x1b[31m\ud83d漢": 1})
    path = written(tmp_path / "odd.jsonl", row(ASK, Message("assistant", as_escaped(odd)), label=True))
    command = [sys.executable, str(ROOT / "Tools" / "validate_dataset.py"), path]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = subprocess.run(command, capture_output=True, env=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert "       1  parameters.unknown_field:a b [31m 漢" in result.stdout.decode("utf-8").splitlines()


def as_escaped(wrong) -> str:
    return f"tool_call: {wrong.name}\narguments: {json.dumps(dict(wrong.arguments))}"


@pytest.mark.parametrize(
    "form, said",
    [
        (gzip.compress, "gzip"),
        (lambda text: text.decode().encode("utf-16"), "UTF-16"),
        (lambda text: b"PAR1" + text, "Parquet"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_sentence(form, said, tmp_path, capsys):
    path = tmp_path / "rows"
    path.write_bytes(form(json.dumps(row(ASK, render_turn([MOVE]))).encode() + b"\n"))
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["--relabel", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_json_list_is_told_how_to_become_rows(tmp_path, capsys):
    path = written(tmp_path / "rows.json", json.dumps([row(ASK, render_turn([MOVE]))]))
    main([path])
    assert "rows.json:1: a JSON list: rows stand one a line, as jq -c '.[]' writes them" in capsys.readouterr().err
