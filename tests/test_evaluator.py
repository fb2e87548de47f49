"""Measuring a model from flags to report, comparing two reports, and the page that shows them in a real browser."""

import copy
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from Evaluator.__main__ import main
from Evaluator.intervals import mcnemar_p, paired_difference_interval, wilson_interval
from Evaluator.prompt_sets import BEHAVIOR_PROMPTS, HELDOUT_PROMPTS, TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import Prompt, ToolCall
from Evaluator.reports.compare import paired_difference
from Evaluator.reports.page import comparison_page, report_page
from Evaluator.reports.summary import NO_SUCH_TOOL, pass_at_k, pass_hat_k
from Evaluator.tool_calls import render_turn
from Evaluator.trials.random_calls import random_call
from tests.vaults import CATALOG
from Tools.validate_dataset import main as validate_dataset

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt install chromium)")


def answer_of(prompt: Prompt) -> str:
    return prompt.expected_answer or render_turn([prompt.expected_call]).content


def scripted(path: Path, answers: dict[str, str]) -> str:
    lines = [json.dumps({"content": answer, "contains": question}) for question, answer in answers.items()]
    path.write_text("\n".join([*lines, '{"content": "Done."}']) + "\n", encoding="utf-8")
    return f"scripted:{path}"


def evaluate(tmp_path: Path, model: str, *flags: str, name: str = "report") -> tuple[int, dict]:
    output = tmp_path / f"{name}.json"
    status = main(["--model", model, "--output", str(output), *flags])
    return status, json.loads(output.read_text(encoding="utf-8"))


def rate_of(report: dict) -> float:
    return report["summary"]["pass_rate"]["rate"]


# -- what models score --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt_set", [TOOL_PROMPTS, HELDOUT_PROMPTS, BEHAVIOR_PROMPTS], ids=lambda path: path.stem)
def test_a_perfect_model_scores_100_percent(tmp_path, prompt_set):
    prompts = load_prompt_sets([prompt_set]).prompts
    model = scripted(tmp_path / "perfect.jsonl", {one.question: answer_of(one) for one in prompts})
    status, report = evaluate(tmp_path, model, "--prompt-set", str(prompt_set), "--min-pass-rate", "1")
    assert status == 0 and report["is_complete"]
    assert rate_of(report) == 1.0
    assert report["summary"]["num_prompts"] == len(prompts)


@pytest.mark.parametrize("prompt_set", [TOOL_PROMPTS, HELDOUT_PROMPTS], ids=lambda path: path.stem)
def test_a_model_that_does_nothing_and_one_that_guesses_score_0(tmp_path, prompt_set):
    status, report = evaluate(
        tmp_path, scripted(tmp_path / "n.jsonl", {}), "--prompt-set", str(prompt_set), name="nothing"
    )
    assert (status, rate_of(report)) == (0, 0.0)
    guesses = {
        one.question: render_turn([random_call(CATALOG, one.vault, random.Random(one.id))]).content
        for one in load_prompt_sets([prompt_set]).prompts
    }
    model = scripted(tmp_path / "g.jsonl", guesses)
    status, report = evaluate(tmp_path, model, "--prompt-set", str(prompt_set), "--min-pass-rate", "0.01", name="guess")
    assert (status, rate_of(report)) == (1, 0.0)


def test_a_stopped_evaluation_is_reported_as_incomplete_with_the_status_of_the_signal(tmp_path, model_server):
    server, output = model_server(latency_s=0.05), tmp_path / "report.json"
    command = [sys.executable, "-m", "Evaluator", "--model", "fake", "--base-url", server.url, "--concurrency", "2"]
    command += ["--min-pass-rate", "1", "--output", str(output)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while server.count < 20 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    report = json.loads(output.read_text("utf-8"))
    assert process.returncode == 3 and "the evaluation is not complete" in said
    assert not report["is_complete"] and 0 < report["summary"]["num_prompts"] < 235


def test_what_was_answered_before_a_key_was_refused_is_reported(tmp_path, model_server):
    server = model_server(faults={"401": 30})
    flags = ["--base-url", server.url, "--prompt-set", str(TOOL_PROMPTS), "--concurrency", "1"]
    status, report = evaluate(tmp_path, "fake", *flags)
    assert status == 2 and not report["is_complete"] and report["summary"]["num_prompts"] == 29


def planted(prompt: Prompt, stage: str) -> str:
    """The right answer with one fault that the check of this name must find."""
    call = prompt.expected_call
    text = answer_of(prompt)
    context = dict(call.arguments["context"])
    if stage == "parse":
        return text[:-20]
    if stage == "tool":
        return text.replace("Manager_", "Manager_x", 1)
    if stage == "context":
        context.pop("subgoal")
        return render_turn([ToolCall(call.name, {**call.arguments, "context": context})]).content
    if stage == "parameters":
        return render_turn([ToolCall(call.name, {**call.arguments, "zeal": 1})]).content
    if stage == "relevance":
        return render_turn([ToolCall("commandManager_listCommands", {"context": context})]).content
    wrong = {"grounding": "Nowhere/Never said.md", "execution": "Desk"}[stage]
    return render_turn([ToolCall(call.name, {**call.arguments, "path": wrong})]).content


def test_planted_faults_are_counted_in_their_stage(tmp_path):
    prompts = json.loads(HELDOUT_PROMPTS.read_text())["prompts"][:40]
    (tmp_path / "forty.json").write_text(json.dumps(prompts))
    loaded = load_prompt_sets([tmp_path / "forty.json"]).prompts
    answers = {one.question: answer_of(one) for one in loaded}
    stages = ["parse", "parse", "tool", "tool", "context", "context", "parameters", "relevance", "relevance"]
    for prompt, stage in zip(loaded[20:], stages, strict=False):
        answers[prompt.question] = planted(prompt, stage)
    with_path = [one for one in loaded if one.expected_call.name == "vaultManager_deleteNote"]
    for prompt, stage in zip(with_path, ["grounding", "execution", "execution"], strict=False):
        answers[prompt.question] = planted(prompt, stage)
    _, report = evaluate(
        tmp_path, scripted(tmp_path / "m.jsonl", answers), "--prompt-set", str(tmp_path / "forty.json")
    )
    assert rate_of(report) == 0.7
    failed = {step["check"]: step["made"] - step["passed"] for step in report["summary"]["funnel"]}
    assert failed == {
        "parse": 2, "tool": 2, "context": 2, "parameters": 1, "relevance": 2, "grounding": 1, "execution": 2
    }  # fmt: skip
    assert report["summary"]["funnel"][-1]["left"] == 28


def test_several_samples_give_pass_at_k(tmp_path):
    prompts = load_prompt_sets([TOOL_PROMPTS]).prompts
    lines = [
        json.dumps({"content": text, "contains": one.question}) for one in prompts for text in (answer_of(one), "No.")
    ]
    (tmp_path / "half.jsonl").write_text("\n".join(lines))
    flags = ["--prompt-set", str(TOOL_PROMPTS), "--num-samples-per-prompt", "4"]
    status, report = evaluate(tmp_path, f"scripted:{tmp_path / 'half.jsonl'}", *flags)
    summary = report["summary"]
    assert status == 0 and summary["num_samples"] == 4 * 47
    assert set(summary["pass_at_k"]) == {"1", "2", "4"}
    assert summary["pass_at_k"]["1"] == pytest.approx(summary["pass_rate"]["rate"], abs=1e-3)
    assert summary["pass_hat_k"]["4"] < summary["pass_at_k"]["1"] < summary["pass_at_k"]["4"]
    assert report["temperature"] == [0.8, 0.8]


def test_pass_at_k_follows_its_formula():
    outcomes = [{"samples": [{"label": index < passed} for index in range(5)]} for passed in (0, 2, 5)]
    assert pass_at_k(outcomes, 2) == pytest.approx((0 + (1 - 3 / 10) + 1) / 3, abs=1e-4)
    assert pass_hat_k(outcomes, 2) == pytest.approx((0 + 1 / 10 + 1) / 3, abs=1e-4)


def test_an_answer_that_is_cut_off_is_wrong(tmp_path):
    prompt = load_prompt_sets([TOOL_PROMPTS]).prompts[0]
    (tmp_path / "one.json").write_text(json.dumps(json.loads(TOOL_PROMPTS.read_text())["prompts"][:1]))
    reply = {"content": answer_of(prompt), "finish_reason": "length"}
    (tmp_path / "r.jsonl").write_text(json.dumps(reply))
    _, report = evaluate(tmp_path, f"scripted:{tmp_path / 'r.jsonl'}", "--prompt-set", str(tmp_path / "one.json"))
    assert report["prompts"][0]["samples"][0]["errors"] == ["parse.cut_off"]


def test_behaviours_are_told_apart(tmp_path):
    prompts = load_prompt_sets([BEHAVIOR_PROMPTS]).prompts
    assert len(prompts) >= 120
    assert {one.behavior for one in prompts} == {"call", "ask", "refuse", "confirm"}
    hasty = {one.question: render_turn([random_call(CATALOG, one.vault, random.Random(1))]).content for one in prompts}
    _, report = evaluate(tmp_path, scripted(tmp_path / "h.jsonl", hasty), "--prompt-set", str(BEHAVIOR_PROMPTS))
    table = report["summary"]["behaviors"]
    assert table["ask"]["call"] == 36 and rate_of(report) == 0.0


@pytest.mark.parametrize("known", [str(BEHAVIOR_PROMPTS), str(TOOL_PROMPTS)], ids=["prompt set", "metadata alone"])
def test_rows_of_an_evaluation_are_judged_alike_again(tmp_path, capsys, known):
    """Right texts, a hasty call, a cut-off answer: by the prompt set or by what the row says, the labels stay."""
    prompts = load_prompt_sets([BEHAVIOR_PROMPTS]).prompts
    texts = [one for one in prompts if one.behavior != "call"]
    replies = [{"content": answer_of(one), "contains": one.question} for one in texts]
    replies[3]["content"] = "Done."
    replies[4]["finish_reason"] = "length"
    replies[5]["content"] = render_turn([prompts[-1].expected_call]).content
    (tmp_path / "model.jsonl").write_text("\n".join(map(json.dumps, replies)))
    evaluate(tmp_path, f"scripted:{tmp_path / 'model.jsonl'}", "--prompt-set", str(BEHAVIOR_PROMPTS))
    before = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    capsys.readouterr()
    assert validate_dataset(["--relabel", str(tmp_path / "report.jsonl"), "--prompt-set", known]) == 0
    after = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in after] == [row["label"] for row in before]
    assert sum(row["label"] for row in before) >= 100


def test_tools_are_told_in_the_prompt_or_sent_along(tmp_path, model_server):
    server = model_server()
    flags = ["--base-url", server.url, "--prompt-set", str(TOOL_PROMPTS)]
    _, report = evaluate(tmp_path, "fake", *flags, "--tools-in-prompt", name="a")
    told = server.requests[-1]["messages"][0]["content"]
    assert all(name in told for name in CATALOG.tools) and report["tools_told"] == "prompt"
    _, report = evaluate(tmp_path, "fake", *flags, "--send-tools", name="b")
    sent = {one["function"]["name"]: one["function"]["parameters"] for one in server.requests[-1]["tools"]}
    assert set(sent) == set(CATALOG.tools) and report["tools_told"] == "api"
    assert "context" in sent["vaultManager_moveNote"]["required"]
    assert server.requests[-1]["temperature"] == 0.0


# -- files, streams, statuses -------------------------------------------------------------------------------------


def without_times(report: dict) -> dict:
    return {key: value for key, value in report.items() if key != "cost"}


def test_killed_half_way_and_run_again_it_says_the_same(tmp_path, model_server):
    server = model_server(latency_s=0.02, slots=4)
    command = [sys.executable, "-m", "Evaluator", "--model", "fake", "--base-url", server.url, "--concurrency", "2"]
    command += ["--prompt-set", str(TOOL_PROMPTS), str(HELDOUT_PROMPTS)]
    first = subprocess.Popen([*command, "--output", str(tmp_path / "killed.json")], cwd=ROOT, stderr=subprocess.PIPE)
    while server.count < 100:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "killed.json").exists()
    again = subprocess.run(
        [*command, "--output", str(tmp_path / "killed.json")], cwd=ROOT, capture_output=True, timeout=60
    )
    whole = subprocess.run(
        [*command, "--output", str(tmp_path / "whole.json")], cwd=ROOT, capture_output=True, timeout=60
    )
    assert (again.returncode, whole.returncode) == (0, 0), again.stderr
    killed, untouched = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("killed", "whole"))
    assert without_times(killed) == without_times(untouched)
    assert untouched["summary"]["num_prompts"] == 282


def test_a_second_run_has_nothing_to_do_and_other_settings_are_refused(tmp_path, capsys):
    model = scripted(tmp_path / "n.jsonl", {})
    assert evaluate(tmp_path, model, "--prompt-set", str(TOOL_PROMPTS))[0] == 0
    before = (tmp_path / "report.json").read_bytes()
    assert evaluate(tmp_path, model, "--prompt-set", str(TOOL_PROMPTS))[0] == 0
    assert "nothing to do" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_bytes() == before
    assert evaluate(tmp_path, model, "--prompt-set", str(TOOL_PROMPTS), "--max-tokens", "9")[0] == 2
    assert "max_tokens was 512, now 9" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_bytes() == before
    assert evaluate(tmp_path, model, "--prompt-set", str(TOOL_PROMPTS), "--max-tokens", "9", "--overwrite")[0] == 0


def test_a_server_that_is_not_there_is_status_3_and_leaves_no_report(tmp_path, capsys):
    flags = ["--model", "x", "--base-url", "http://127.0.0.1:9", "--give-up-after", "0.1", "--output"]
    assert main([*flags, str(tmp_path / "r.json")]) == 3
    assert not (tmp_path / "r.json").exists()
    assert "127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.txt", "report.jsonl"])
def test_a_report_has_the_name_of_a_json_file(tmp_path, name, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--output", str(tmp_path / name)])
    assert ended.value.code == 2
    assert "no file name that ends in .json" in capsys.readouterr().err


def test_markdown_goes_to_stdout_and_nothing_else(tmp_path, capsys):
    model = scripted(tmp_path / "n.jsonl", {})
    evaluate(tmp_path, model, "--prompt-set", str(TOOL_PROMPTS), "--markdown")
    said = capsys.readouterr().out
    assert said.startswith("**scripted:")
    assert "| parse | 47 | 0 | 0.0% |" in said and "| `parse.no_tool_call` | 47 |" in said
    evaluate(tmp_path, model, "--prompt-set", str(TOOL_PROMPTS))
    assert capsys.readouterr().out == ""


def test_a_new_model_that_never_answers_leaves_the_old_report_alone(tmp_path):
    silent = scripted(tmp_path / "n.jsonl", {})
    evaluate(tmp_path, silent, "--prompt-set", str(TOOL_PROMPTS))
    before = (tmp_path / "report.json").read_bytes()
    dead = ["--model", "new", "--base-url", "http://127.0.0.1:9", "--give-up-after", "0.1", "--overwrite"]
    assert main([*dead, "--prompt-set", str(TOOL_PROMPTS), "--output", str(tmp_path / "report.json")]) == 3
    assert (tmp_path / "report.json").read_bytes() == before


def test_a_dead_server_is_not_reported_with_the_answers_of_before(tmp_path, model_server, capsys):
    server = model_server()
    flags = ["--model", "fake", "--base-url", server.url, "--prompt-set", str(TOOL_PROMPTS), "--give-up-after", "0.1"]
    flags += ["--output", str(tmp_path / "report.json"), "--markdown"]
    assert main(flags) == 0
    before = (tmp_path / "report.json").read_bytes()
    server.__exit__()
    capsys.readouterr()
    assert main([*flags, "--overwrite"]) == 3
    captured = capsys.readouterr()
    assert captured.out == "" and "pass rate" not in captured.err
    assert (tmp_path / "report.json").read_bytes() == before


def test_another_model_file_or_validator_is_not_taken_for_the_old_one(tmp_path, capsys, monkeypatch):
    flags = ["--prompt-set", str(TOOL_PROMPTS)]
    evaluate(tmp_path, scripted(tmp_path / "n.jsonl", {}), *flags)
    other = scripted(tmp_path / "n.jsonl", {"something": "else"})
    assert evaluate(tmp_path, other, *flags)[0] == 2
    assert "model_file was" in capsys.readouterr().err
    evaluate(tmp_path, other, *flags, "--overwrite")
    monkeypatch.setattr("Evaluator.measure.validator_fingerprint", lambda: "other")
    assert evaluate(tmp_path, other, *flags)[0] == 2
    assert "validator was" in capsys.readouterr().err


def test_no_input_and_no_other_file_is_overwritten(tmp_path, capsys):
    prompts = tmp_path / "small.json"
    shutil.copy(TOOL_PROMPTS, prompts)
    before = prompts.read_bytes()
    model = scripted(tmp_path / "replies.jsonl", {})
    for flags in (
        ["--output", str(prompts)],
        ["--output", str(tmp_path / "r.json"), "--html", str(prompts)],
        ["--output", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.jsonl")],
        ["--output", str(tmp_path / "r.json"), "--html", str(tmp_path / "gone" / "r.html")],
        ["--output", str(tmp_path / "replies.json"), "--overwrite"],
        ["--output", str(tmp_path / "r.json"), "--send-tools"],
    ):
        assert main(["--model", model, "--prompt-set", str(prompts), *flags]) == 2, flags
    (tmp_path / "mine.json").write_text("{}")
    assert main(["--model", model, "--prompt-set", str(prompts), "--output", str(tmp_path / "mine.json")]) == 2
    assert prompts.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"small.json", "replies.jsonl", "mine.json"}
    assert "Traceback" not in capsys.readouterr().err


def test_a_prompt_that_does_not_fit_the_context_is_a_wrong_answer(tmp_path, model_server):
    server = model_server(faults={"context": 5})
    flags = ["--base-url", server.url, "--prompt-set", str(TOOL_PROMPTS), "--concurrency", "1"]
    status, report = evaluate(tmp_path, "fake", *flags)
    assert status == 0 and report["is_complete"]
    assert report["summary"]["errors"]["parse.no_room"] == 9


def test_an_answer_that_stays_empty_is_wrong_and_the_report_complete(tmp_path, model_server):
    server = model_server(faults={"empty": 2})
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps([{"id": str(n), "question": f"Thanks {n}", "expects_call": False} for n in range(8)]))
    flags = ["--base-url", server.url, "--prompt-set", str(chat), "--concurrency", "1", "--max-retries", "0"]
    status, report = evaluate(tmp_path, "fake", *flags)
    assert status == 0 and report["is_complete"]
    assert report["summary"]["errors"]["parse.empty"] == 4


def test_half_a_character_in_an_answer_does_not_cost_the_report(tmp_path):
    prompts = load_prompt_sets([TOOL_PROMPTS]).prompts
    prompt = next(one for one in prompts if one.expected_call.name == "contentManager_createContent")
    call = prompt.expected_call
    arguments = json.dumps({**call.arguments, "content": "@"}).replace('"@"', r'"\ud83d and more"')
    model = scripted(tmp_path / "m.jsonl", {prompt.question: f"tool_call: {call.name}\narguments: {arguments}"})
    flags = ["--prompt-set", str(TOOL_PROMPTS), "--html", str(tmp_path / "r.html"), "--markdown"]
    status, report = evaluate(tmp_path, model, *flags)
    assert status == 0 and report["is_complete"]
    changed = next(one for one in report["prompts"] if one["id"] == prompt.id)["samples"][0]["changes"]
    assert "? and more" in json.dumps(changed)


def test_the_table_of_tools_goes_by_the_first_call(tmp_path, capsys):
    prompt = load_prompt_sets([TOOL_PROMPTS]).prompts[0]
    right = prompt.expected_call
    invented = ToolCall("vaultManager_x|y`\n", right.arguments)
    answers = {"first": [right, invented], "last": [invented, right]}
    for name, calls in answers.items():
        model = scripted(tmp_path / f"model-{name}.jsonl", {prompt.question: render_turn(calls, "qwen").content})
        _, report = evaluate(tmp_path, model, "--prompt-set", str(TOOL_PROMPTS), "--markdown", name=name)
        first = right.name if name == "first" else NO_SUCH_TOOL
        assert report["summary"]["confusion"][right.name] == {first: 1}
    assert r"| `tool.unknown:vaultManager_x\|y' ` | 1 |" in capsys.readouterr().out


# -- comparing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_reports(tmp_path):
    """47 prompts: 20 passed by both, 9 by the first only, 13 by the second only, 5 by neither."""
    prompts = load_prompt_sets([TOOL_PROMPTS]).prompts
    right = [answer_of(one) for one in prompts]
    groups = [(True, True)] * 20 + [(True, False)] * 9 + [(False, True)] * 13 + [(False, False)] * 5
    for side, name in enumerate(("a", "b")):
        answers = {one.question: text for one, text, group in zip(prompts, right, groups, strict=True) if group[side]}
        evaluate(
            tmp_path, scripted(tmp_path / f"model-{name}.jsonl", answers), "--prompt-set", str(TOOL_PROMPTS), name=name
        )
    return tmp_path / "a.json", tmp_path / "b.json"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_sentence_and_status_1(two_reports):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "Evaluator", "compare", *map(str, two_reports)]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_compare_gives_what_a_hand_calculation_gives(two_reports, capsys):
    """Counts 20, 9, 13, 5. The difference is 33/47 - 29/47 = 4/47.

    Wilson: 29/47 -> (0.4743, 0.7421), 33/47 -> (0.5602, 0.8135); phi = (20 x 5 - 9 x 13) / sqrt(29 x 18 x 33 x 14) =
    -0.0346. Newcombe: 4/47 - sqrt(0.1419^2 + 2 x 0.0346 x 0.1419 x 0.1251 + 0.1251^2) = -0.1073, and
    4/47 + sqrt(0.1114^2 + 2 x 0.0346 x 0.1114 x 0.1428 + 0.1428^2) = 0.2692.
    McNemar: 2 x P(X <= 9) for X ~ B(22, 1/2) = 2 x 1097790 / 2^22 = 0.5235.
    """
    assert main(["compare", *map(str, two_reports), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == {"both": 20, "only_first": 9, "only_second": 13, "neither": 5, "same": 0}
    assert found["difference"] == pytest.approx(4 / 47, abs=1e-4)
    assert (found["low"], found["high"]) == pytest.approx((-0.1073, 0.2692), abs=1e-4)
    assert found["p"] == pytest.approx(2 * 1097790 / 2**22, abs=1e-6)
    assert len(found["gained"]) == 13 and len(found["lost"]) == 9
    assert main(["compare", *map(str, two_reports)]) == 0
    assert "Difference: **+8.5 points**" in capsys.readouterr().out


def test_several_samples_are_compared_by_their_shares(tmp_path, capsys):
    """Four samples a prompt: the first model fails one in four, the second three in four."""
    reports = []
    for name, passed in (("a", 3), ("b", 1)):
        outcomes = [
            {"id": str(index), "samples": [{"label": (sample + index) % 4 < passed} for sample in range(4)]}
            for index in range(20)
        ]
        tools = {"x": {"rate": passed / 4, "total": 20}}
        same = {"format": 1, "is_complete": True, "model": name, "adapter": None, "prompt_set": "p", "catalog": {}}
        more = {"validator": {}, "cost": {}, "num_samples_per_prompt": 4, "summary": {"tools": tools}}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**same, **more, "prompts": outcomes}))
        reports.append(str(path))
    assert main(["compare", *reports, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["difference"] == pytest.approx(-0.5) and len(found["lost"]) == 20
    assert found["p"] == pytest.approx(2 / 2**20)


def test_a_page_counts_prompts_with_several_samples_where_the_numbers_do(tmp_path, two_reports, capsys):
    paths = []
    for path, shares in zip(two_reports, ([2, 0, 4, 2, 3], [2, 0, 4, 3, 2]), strict=True):
        report = json.loads(path.read_text())
        del report["prompts"][len(shares) :]
        for outcome, passed in zip(report["prompts"], shares, strict=True):
            outcome["samples"] = [{**outcome["samples"][0], "label": number >= 4 - passed} for number in range(4)]
        paths.append(tmp_path / f"several-{path.name}")
        paths[-1].write_text(json.dumps({**report, "num_samples_per_prompt": 4}))
    assert main(["compare", *map(str, paths), "--html", str(tmp_path / "c.html")]) == 0
    assert "1 passed by both, 1 by the first only, 1 by the second only, 1 by neither, 1 by the same" in (
        capsys.readouterr().out
    )
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    flips = re.findall(r'data-outcome="([^"]*)"', page)
    assert flips == ["gained", "lost", "same", "neither", "both"]
    assert "<option>same</option>" in page and "3 of 4 samples pass, the first is shown" in page


def test_differences_that_are_all_the_same_have_an_interval_all_the_same():
    """Ten prompts from 1 of 4 to 2 of 4: q = 1 - 0.025^(1/10) = 0.3085 of others may do anything."""
    found = paired_difference({str(n): 0.25 for n in range(10)}, {str(n): 0.5 for n in range(10)})
    q = 1 - 0.025 ** (1 / 10)
    assert q == pytest.approx(0.3085, abs=1e-4)
    assert (found["low"], found["high"]) == pytest.approx((0.25 - q * 1.25, 0.25 + q * 0.75))
    one = paired_difference({"x": 0.5}, {"x": 0.5})
    assert (one["low"], one["high"]) == pytest.approx((-0.975, 0.975))


def test_reports_that_differ_in_what_they_measure_are_refused(two_reports, tmp_path, capsys):
    first, second = two_reports
    for key, value, words in (
        ("prompt_set", "x", "different prompt sets"),
        ("catalog", {"name": "x", "sha256": "y"}, "different catalogs"),
        ("validator", {"version": "0", "fingerprint": "y"}, "different validators"),
        ("execute", False, "without --execute"),
        ("num_samples_per_prompt", 4, "different numbers of samples"),
        ("is_complete", False, "not complete"),
        ("format", 99, "is no whole report"),
        ("prompts", [{"id": "x"}], "is no whole report"),
    ):
        other = tmp_path / "other.json"
        other.write_text(json.dumps({**json.loads(second.read_text()), key: value}))
        assert main(["compare", str(first), str(other)]) == 2
        assert words in capsys.readouterr().err
    assert main(["compare", str(first), str(tmp_path / "gone.json")]) == 2


@pytest.mark.parametrize(
    ("count", "total", "interval"), [(8, 10, (0.4902, 0.9433)), (0, 20, (0.0, 0.1611)), (5, 5, (0.5655, 1.0))]
)
def test_the_wilson_interval_is_that_of_the_tables(count, total, interval):
    assert wilson_interval(count, total) == pytest.approx(interval, abs=1e-4)


def test_paired_numbers_at_their_ends():
    assert mcnemar_p(0, 0) == 1.0 and mcnemar_p(3, 3) == 1.0
    assert mcnemar_p(0, 10) == pytest.approx(2 / 1024)
    low, high = paired_difference_interval(10, 0, 0, 0)
    assert low < 0 < high
    assert paired_difference_interval(0, 0, 0, 0) == (-1.0, 1.0)


# -- the page -----------------------------------------------------------------------------------------------------

OWN = "document.title='owned'"
HOSTILE = f"<script>{OWN}</script> </pre></details><img src=x onerror=\"{OWN}\"> {{{{ 7*7 }}}} & 'q'"


@pytest.fixture
def hostile_report(two_reports):
    report = json.loads(two_reports[0].read_text())
    for outcome in report["prompts"]:
        outcome["samples"][0]["answer"] = HOSTILE
        outcome["samples"][0]["errors"] = [f"tool.unknown:{HOSTILE}"]
        outcome["samples"][0]["changes"] = {"notes": {"added": {HOSTILE: HOSTILE}}}
    report["prompts"][3]["question"] = f"zebra {HOSTILE}"
    report["model"] = HOSTILE
    report["summary"]["errors"] = {HOSTILE: 3}
    report["summary"]["confusion"] = {HOSTILE: {HOSTILE: 1}}
    return report


def test_what_a_model_wrote_is_escaped(hostile_report):
    page = report_page(hostile_report)
    other = comparison_page(comparison_of(hostile_report), hostile_report, copy.deepcopy(hostile_report))
    for html in (page, other):
        assert "<script>document" not in html and "<img" not in html
        assert "&lt;script&gt;document" in html and "{{ 7*7 }}" in html
        assert html.count("<script>") == 1
        assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html), "it needs the network"


def comparison_of(report: dict) -> dict:
    from Evaluator.reports.compare import compare

    return compare(report, copy.deepcopy(report))


def dom_of(path: Path, search: str = "") -> str:
    """The page as Chromium has it after its script ran, with errors of the console on stderr."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += ["--virtual-time-budget=3000", f"--user-data-dir={path.parent / 'profile'}", "--dump-dom"]
    result = subprocess.run([*command, f"{path.as_uri()}#{search}"], capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in result.stderr, result.stderr
    return result.stdout


@needs_browser
def test_a_browser_opens_the_page_and_searches_it(tmp_path, hostile_report):
    path = tmp_path / "report.html"
    path.write_text(report_page(hostile_report), encoding="utf-8")
    dom = dom_of(path)
    assert "47 of 47" in dom and "<title>owned" not in dom
    found = dom_of(path, "zebra")
    assert "1 of 47" in found and found.count('hidden=""') == 46
    assert "0 of 47" in dom_of(path, "no%20such%20words%20anywhere")


@needs_browser
def test_a_browser_opens_a_comparison(tmp_path, two_reports):
    page = tmp_path / "both.html"
    assert main(["compare", *map(str, two_reports), "--html", str(page)]) == 0
    dom = dom_of(page, "readContent")
    assert re.search(r"\d+ of 47", dom) and "+8.5 points" in dom
