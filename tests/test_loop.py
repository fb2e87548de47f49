"""The loop: its rounds with real commands but for training and the model, when it stops, and its page."""

import contextlib
import io
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from Evaluator import __main__ as evaluator
from Evaluator.backends.default_weights import STARTER_ADAPTER
from Evaluator.errors import UsageError
from Evaluator.prompt_sets import BEHAVIOR_PROMPTS, HELDOUT_PROMPTS, load_prompt_sets
from Evaluator.runs.steps import Steps
from tests.datasets import healthy_rows, write_lines
from tests.vaults import CATALOG
from Tools import dataset_report, mix_datasets, selfplay_generator_v2, selfplay_loop, validate_dataset, with_server
from Tools.loop import flags
from Tools.loop.commands import Commands
from Tools.loop.stopping import Measured, reasons_to_stop
from Tools.prompts.cells import right_answer
from Tools.prompts.prompt_flags import check_prompt_arguments
from Tools.selfplay_loop import tools_without_right_answer
from Trainers.common.answer_parts import PARTS
from Trainers.export import __main__ as export
from Trainers.rtx3090_kto import train_kto

REAL = {
    "Tools/selfplay_generator_v2.py": selfplay_generator_v2.main,
    "Tools/validate_dataset.py": validate_dataset.main,
    "Tools/dataset_report.py": dataset_report.main,
    "Tools/mix_datasets.py": mix_datasets.main,
    "Evaluator": evaluator.main,
}


class InProcess(Steps):
    """Steps that run here; training and export are made up, and a script stands in for the model they would give.

    `rights` says how many held-out prompts each round's model gets right, `trained` keeps what KTO was told.
    """

    rights = (0, 12, 12, 12)
    trained: ClassVar = []
    status_of_training = 0
    has_other_rows = False
    scripts: Path

    def _child(self, command, stdout):
        name, *told = command[1:] if command[0] == "-m" else command
        if name == "Trainers.export":
            return self._export(export.build_parser().parse_args(told))
        if name.endswith("train_kto.py"):
            return self._train(train_kto.build_parser().parse_args(told))
        if "--adapter" in told:
            at = told.index("--adapter")
            told[at : at + 2] = []
            number = int(Path(command[command.index("--adapter") + 1]).parents[1].name[-1])
            told[told.index("embedded")] = f"scripted:{self.scripts / f'{number}.jsonl'}"
        text = io.TextIOWrapper(stdout or io.BytesIO(), "utf-8", write_through=True)
        with contextlib.redirect_stdout(text):
            status = REAL[name](told)
        text.detach()
        return status

    def _export(self, args):
        args.output.mkdir(parents=True, exist_ok=True)
        for name in ("adapter.gguf", "Modelfile"):
            (args.output / name).write_text(str(args.adapter))
        return 0

    def _train(self, args):
        if self.status_of_training or (self.has_other_rows and not args.overwrite):
            return self.status_of_training or 2
        self.trained.append(args)
        args.output.mkdir(exist_ok=True)
        (args.output / "checkpoints").mkdir(exist_ok=True)
        for name in flags.ADAPTER_FILES:
            (args.output / name).write_text(str(args.output))
        return 0


@pytest.fixture
def loop(tmp_path, monkeypatch, capsys):
    """Runs the loop and gives (status, stdout, stderr)."""
    monkeypatch.setattr(flags, "PACKAGES", ("jinja2",))
    monkeypatch.setattr(selfplay_loop, "Steps", InProcess)
    monkeypatch.setattr(InProcess, "trained", [])
    monkeypatch.setattr(InProcess, "has_other_rows", False)
    monkeypatch.setattr(InProcess, "scripts", tmp_path, raising=False)
    sets = {}
    for name, bundled, count in (("heldout", HELDOUT_PROMPTS, 12), ("behavior", BEHAVIOR_PROMPTS, 8)):
        some = json.loads(bundled.read_text("utf-8"))["prompts"][:: 144 // count][:count]
        sets[name] = tmp_path / f"{name}.json"
        sets[name].write_text(json.dumps([{**one, "id": f"my-{one['id']}"} for one in some]), encoding="utf-8")
    write_scripts(tmp_path, InProcess.rights, sets)
    adapter = tmp_path / "sft"
    adapter.mkdir()
    for name in flags.ADAPTER_FILES:
        (adapter / name).write_text("sft")
    curated = write_lines(tmp_path / "curated.jsonl", [row for row in healthy_rows() if row["label"]][:100])
    common = ["--workdir", str(tmp_path / "loop"), "--adapter", str(adapter), "--curated", curated]
    common += ["--heldout-prompts", str(sets["heldout"]), "--behavior-prompts", str(sets["behavior"])]
    common += ["--examples-per-round", "12", "--num-samples-per-prompt", "3"]

    def run(*more):
        status = selfplay_loop.main([*common, *more])
        return status, *capsys.readouterr()

    return run


def write_scripts(folder, rights, sets):
    """A script for the model of each round: right where no call is, and for so many held-out prompts."""
    prompts = {name: load_prompt_sets([path]).prompts for name, path in sets.items()}
    for number, count in enumerate(rights):
        asked = [*prompts["heldout"][:count], *prompts["behavior"]]
        lines = [{"content": right_answer(one), "contains": one.question} for one in asked]
        write_lines(folder / f"{number}.jsonl", [*lines, {"content": "I have no idea."}])


def rounds_of(workdir):
    return json.loads((workdir / "rounds.json").read_text("utf-8"))["rounds"]


def rows_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_loop_plays_trains_and_measures_until_a_round_is_no_gain(loop, tmp_path):
    workdir = tmp_path / "loop"
    status, out, err = loop("--rounds", "3", "--learning-rate", "5e-5")
    assert (status, out) == (0, f"{workdir / 'best'}\n"), err
    rounds = rounds_of(workdir)
    assert [one["is_kept"] for one in rounds] == [True, True, False], err
    assert [one["measured"]["pass_rate"]["passed"] for one in rounds] == [0, 12, 12]
    assert "no significant gain" in rounds[2]["reasons"][0]
    assert json.loads((workdir / "best" / "round.json").read_text())["round"] == 1
    best = {path.name: path.read_text() for path in (workdir / "best").iterdir()}
    assert best["adapter_model.safetensors"] == best["adapter.gguf"] == str(workdir / "round_1" / "adapter")
    assert "checkpoints" not in best

    lines = err.splitlines()
    assert [line for line in lines if line.startswith("python Tools/selfplay_generator_v2.py ")]
    assert not (workdir / "round_3").exists()
    assert loop("--rounds", "3", "--learning-rate", "5e-5")[:2] == (0, out)
    assert len(InProcess.trained) == 2


def test_a_round_that_asks_and_refuses_less_often_is_not_kept(loop, tmp_path):
    heldout = load_prompt_sets([tmp_path / "heldout.json"]).prompts
    right = [{"content": right_answer(one), "contains": one.question} for one in heldout]
    write_lines(tmp_path / "1.jsonl", [*right, {"content": "I have done all of that."}])
    assert loop("--rounds", "3")[0] == 0
    first, second = rounds_of(tmp_path / "loop")
    assert [first["is_kept"], second["is_kept"]] == [True, False]
    (reason,) = second["reasons"]
    assert "points rarer than in round 0" in reason
    assert json.loads((tmp_path / "loop" / "best" / "round.json").read_text())["round"] == 0


def test_a_gain_that_is_not_sure_enough_for_max_p_is_none(loop, tmp_path):
    assert loop("--rounds", "2", "--max-p", "0.0001")[0] == 0  # 12 of 12 gained: p = 2 / 2^12
    assert [one["is_kept"] for one in rounds_of(tmp_path / "loop")] == [True, False]


def test_a_tool_that_any_round_had_right_is_not_missing(loop, monkeypatch):
    read = []

    def looked_at(files):
        read.append([f"{one.parent.name}/{one.name}" for one in files])
        return []

    monkeypatch.setattr(selfplay_loop, "tools_without_right_answer", looked_at)
    assert loop("--rounds", "2")[0] == 0
    assert read == [["round_1/play.jsonl"], ["round_2/play.jsonl", "round_1/judged.jsonl"]]


def test_data_accumulates_and_training_begins_at_the_sft_adapter(loop, tmp_path):
    workdir = tmp_path / "loop"
    assert loop("--rounds", "2")[0] == 0
    first, second = ([row["metadata"]["round"] for row in rows_of(workdir / f"round_{n}/judged.jsonl")] for n in (1, 2))
    assert set(first) == {1} and set(second) == {1, 2} and second.count(1) == len(first)
    assert [args.adapter for args in InProcess.trained] == 2 * [tmp_path / "sft"]
    for number in (1, 2):
        rows = rows_of(workdir / f"round_{number}" / "train.jsonl")
        sizes = {True: 0, False: 0}
        for row in rows:
            turns = "".join(turn["content"] for turn in row["conversations"])
            sizes[row["metadata"].get("round") is not None and "goal" in row["metadata"]] += len(turns)
        assert sizes[False] / sum(sizes.values()) >= 0.3
    requests = [row["conversations"][0]["content"] for row in rows_of(workdir / "round_2" / "play.jsonl")]
    assert len(set(requests)) == len(requests) / 3, "three answers to each"
    before = {row["conversations"][0]["content"] for row in rows_of(workdir / "round_1" / "judged.jsonl")}
    assert not before & set(requests)


def test_tools_without_a_right_answer_are_asked_for_again(loop, tmp_path):
    assert loop("--rounds", "1")[0] == 0
    folder = tmp_path / "loop" / "round_1"
    missing = json.loads((folder / "missing_tools.json").read_text("utf-8"))["tools"]
    assert set(missing) == set(CATALOG.tools)
    assert len(rows_of(folder / "coverage.jsonl")) == 9, "three of the four requests of 12 rows were for tools"
    called = write_lines(tmp_path / "rows.jsonl", healthy_rows())
    true = {tool for row in healthy_rows() if row["label"] for tool in row["metadata"]["called_tools"]}
    assert set(tools_without_right_answer([Path(called)])) == set(CATALOG.tools) - true


def test_a_stopped_step_stops_the_loop_and_it_goes_on_there(loop, tmp_path, monkeypatch):
    monkeypatch.setattr(InProcess, "status_of_training", 3)
    status, out, err = loop("--rounds", "1")
    assert (status, out) == (3, "")
    assert "the step 'round 1: KTO' stopped early: run the same command again to go on" in err
    played = (tmp_path / "loop" / "round_1" / "play.jsonl").stat().st_mtime_ns
    monkeypatch.setattr(InProcess, "status_of_training", 0)
    assert loop("--rounds", "1")[0] == 0
    assert (tmp_path / "loop" / "round_1" / "play.jsonl").stat().st_mtime_ns == played


def test_more_rounds_go_on_and_other_settings_are_refused(loop, tmp_path):
    assert loop("--rounds", "0")[0] == 0
    assert [one["number"] for one in rounds_of(tmp_path / "loop")] == [0]
    status, _, err = loop("--rounds", "1", "--seed", "5")
    assert status == 2 and "other settings (seed was 0, is 5)" in err
    assert loop("--rounds", "1")[0] == 0
    assert [one["number"] for one in rounds_of(tmp_path / "loop")] == [0, 1]
    status, _, err = loop("--rounds", "1", "--beta", "0.5")
    assert status == 2 and "other settings (beta was None, is 0.5)" in err
    assert loop("--rounds", "1", "--concurrency", "2", "--save-steps", "5")[0] == 0
    assert len(InProcess.trained) == 1, "how fast it goes is no setting"


def test_what_made_a_step_fail_may_be_changed(loop, tmp_path, monkeypatch):
    monkeypatch.setattr(InProcess, "status_of_training", 1)  # out of memory, say
    assert loop("--rounds", "1", "--batch-size", "4")[0] == 1
    played = (tmp_path / "loop" / "round_1" / "play.jsonl").stat().st_mtime_ns
    monkeypatch.setattr(InProcess, "status_of_training", 0)
    assert loop("--rounds", "1", "--batch-size", "2")[0] == 0
    assert InProcess.trained[-1].batch_size == 2
    assert (tmp_path / "loop" / "round_1" / "play.jsonl").stat().st_mtime_ns == played
    assert loop("--rounds", "1", "--batch-size", "4")[0] == 2


def test_a_round_whose_training_has_other_rows_now_is_trained_and_measured_anew(loop, tmp_path):
    assert loop("--rounds", "1")[0] == 0
    folder = tmp_path / "loop" / "round_1"
    measured = (folder / "heldout.json").stat().st_mtime_ns
    (folder / "train.jsonl").unlink()
    InProcess.has_other_rows = True
    assert loop("--rounds", "1")[0] == 0
    assert [args.overwrite for args in InProcess.trained] == [False, True]
    assert (folder / "heldout.json").stat().st_mtime_ns > measured


def test_a_measuring_cut_short_before_the_validator_changed_begins_anew(loop, tmp_path, monkeypatch):
    assert loop("--rounds", "0")[0] == 0
    folder = tmp_path / "loop" / "round_0"
    state = json.loads((tmp_path / "loop" / "state.json").read_text("utf-8"))
    for one in state["steps"]:
        one["status"] = None if one["name"] == "round 0: heldout prompts" else one["status"]
    (tmp_path / "loop" / "state.json").write_text(json.dumps(state), "utf-8")
    (folder / "heldout.json").unlink()
    monkeypatch.setattr("Evaluator.measure.validator_fingerprint", lambda: "0123456789abcdef")
    assert loop("--rounds", "0")[0] == 0
    assert (folder / "heldout.json").is_file()


def test_kto_is_told_which_parts_of_answers_not_to_score(loop):
    assert loop("--rounds", "1", "--mask", *flags.MASKS)[0] == 0
    assert tuple(InProcess.trained[0].mask) == flags.MASKS == PARTS


def test_the_best_adapter_is_copied_again_once_it_was_trained_anew(tmp_path):
    adapter, best = tmp_path / "adapter", tmp_path / "best"
    adapter.mkdir()
    for weights in ("old", "old", "new"):
        (adapter / "adapter_model.safetensors").write_text(weights)
        selfplay_loop.keep_best(best, 1, adapter, tmp_path)
        assert (best / "adapter_model.safetensors").read_text() == weights


def test_a_kill_before_the_best_adapter_was_kept_leaves_it_to_the_next_start(loop, tmp_path, monkeypatch):
    kept = selfplay_loop.keep_best
    monkeypatch.setattr(selfplay_loop, "keep_best", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert loop("--rounds", "0")[0] == 130
    monkeypatch.setattr(selfplay_loop, "keep_best", kept)
    monkeypatch.setattr(InProcess, "status_of_training", 3)
    assert loop("--rounds", "1")[0] == 3
    assert json.loads((tmp_path / "loop" / "best" / "round.json").read_text())["round"] == 0


def test_a_loop_goes_on_where_no_request_for_a_missing_tool_could_be_answered(loop, tmp_path, monkeypatch):
    def all_given_up(self, command, stdout):
        if "--coverage" not in command:
            return whole(self, command, stdout)
        Path(command[command.index("--output") + 1]).write_bytes(b"")
        return 1

    whole = InProcess._child
    monkeypatch.setattr(InProcess, "_child", all_given_up)
    status, _, err = loop("--rounds", "1")
    assert status == 0 and "round 1 goes on without an answer about missing tools" in err


def test_reports_of_another_validator_are_made_anew(loop, tmp_path, monkeypatch):
    assert loop("--rounds", "1")[0] == 0
    monkeypatch.setattr(selfplay_loop, "validator_fingerprint", lambda: "0123456789abcdef")
    monkeypatch.setattr("Evaluator.reports.report.validator_fingerprint", lambda: "0123456789abcdef")
    monkeypatch.setattr("Evaluator.measure.validator_fingerprint", lambda: "0123456789abcdef")
    assert loop("--rounds", "2")[0] == 0
    folder = tmp_path / "loop"
    assert (folder / "round_1" / "heldout-0123456789abcdef.json").is_file()
    assert len(InProcess.trained) == 2 and rounds_of(folder)[1]["is_kept"]


def checked(*more):
    args = selfplay_loop.build_parser().parse_args(["--workdir", "w", *more])
    flags.check_arguments(args)
    return args


def test_a_loop_begins_at_the_bundled_adapter_and_rows(monkeypatch):
    monkeypatch.setattr(flags, "PACKAGES", ())
    monkeypatch.setattr(flags, "ADAPTER_FILES", ())
    assert checked().adapter == STARTER_ADAPTER.parent and checked().curated == [flags.STARTER_ROWS]
    assert checked("--prompt-method", "self").curated == [flags.STARTER_ROWS], "its writer is not trained"
    own = checked("--base", "7b", "--adapter", "sft-7b", "--prompt-method", "self:3,template:1")
    assert own.curated == [flags.STARTER_ROWS, flags.STARTER_REQUESTS]
    with pytest.raises(UsageError, match="which SFT adapter on 7b shall the loop begin at"):
        checked("--base", "7b")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--adapter", "gone"], "there is no adapter in"),
        (["--curated", "gone.jsonl"], "give --curated FILE, or --curated-share 0"),
        (["--heldout-prompts", "gone.json"], "there is no prompt set"),
    ],
)
def test_what_is_missing_is_told_before_anything_starts(loop, tmp_path, flags, said):
    status, _, err = loop(*flags)
    assert status == 2 and said in err and not (tmp_path / "loop").exists()


def asked(step):
    """The server's words and the arguments of the command that a step runs while it is there."""
    assert step.command[0] == "Tools/with_server.py"
    around = with_server.build_parser().parse_args(step.command[1:])
    python, *command = around.command
    assert python == "python"
    module = {"-m": evaluator, "Tools/selfplay_generator_v2.py": selfplay_generator_v2}[command[0]]
    return shlex.split(around.server), module.build_parser().parse_args(command[2 if command[0] == "-m" else 1 :])


@pytest.mark.parametrize(("base", "writes"), [("7b", None), ("embedded", "embedded")])
def test_with_a_server_the_weights_of_each_round_are_merged_and_asked_there(tmp_path, base, writes):
    server = ["--server", "vllm serve {model} --port 8123", "--server-concurrency", "99", "--prompt-method", "self"]
    args = selfplay_loop.build_parser().parse_args(["--workdir", str(tmp_path / "a loop"), "--base", base, *server])
    args.curated, args.adapter = [], tmp_path / "sft"
    commands = Commands(args)
    exported = export.build_parser().parse_args(commands.export(1).command[2:])
    assert exported.format == ["safetensors", *(["lora"] if writes else [])], "the best one has a GGUF adapter too"
    words, playing = asked(commands.play(2))
    assert words == ["vllm", "serve", str(exported.output / "merged"), "--port", "8123"]
    assert (playing.model, playing.adapter, playing.base_url) == ("arm", None, ["http://localhost:8123/v1"])
    assert playing.prompt_generator_model == writes, "the bundled model has an adapter of its own for that"
    check_prompt_arguments(playing)
    words, measuring = asked(commands.evaluation(1, "heldout", None))
    assert words[2] == str(exported.output / "merged") and measuring.model == "arm"
    assert commands.evaluation(1, "heldout", None).how == ("--concurrency", "99")


@pytest.mark.parametrize(("method", "needs_it"), [("template", False), ("self:1,template:1", True)])
def test_beside_a_server_the_engine_is_needed_only_to_write_requests(tmp_path, monkeypatch, method, needs_it):
    monkeypatch.setattr(flags, "PACKAGES", ("engine_is_not_here", "jinja2"))
    told = ["--workdir", str(tmp_path / "loop"), "--server", "vllm serve {model}", "--prompt-method", method]
    args = selfplay_loop.build_parser().parse_args(told)
    with pytest.raises(ModuleNotFoundError) if needs_it else contextlib.nullcontext():
        flags.check_arguments(args)


def test_the_loop_needs_what_trains(loop, monkeypatch):
    monkeypatch.setattr(flags, "PACKAGES", ("trl_is_not_here",))
    status, _, err = loop()
    assert status == 2 and "the package trl_is_not_here is not installed" in err


@pytest.mark.parametrize("method", ["free", "teacher", "self:2,free:1", "nobody"])
def test_methods_that_a_loop_cannot_have_are_refused(loop, method):
    with pytest.raises(SystemExit) as ended:
        loop("--prompt-method", method)
    assert ended.value.code == 2


# -- when to stop -------------------------------------------------------------------------------------------------


def measured(passed=50, tools=20.0, no_call=50):
    def rate(count):
        return {"rate": count / 100, "low": 0.0, "high": 1.0, "passed": count, "total": 100}

    return Measured(rate(passed), tools, rate(no_call))


@pytest.mark.parametrize(
    ("now", "difference", "p", "words"),
    [
        (measured(), 0.1, 0.01, []),
        (measured(), 0.1, 0.05, []),
        (measured(), 0.1, 0.051, ["no significant gain"]),
        (measured(), -0.1, 0.01, ["no significant gain"]),
        (measured(), 0.0, 1.0, ["no significant gain"]),
        (measured(tools=19.0), 0.1, 0.01, []),
        (measured(tools=18.9), 0.1, 0.01, ["as varied as 18.9"]),
        (measured(tools=None), 0.1, 0.01, ["as varied as 0.0"]),
        (measured(no_call=48), 0.1, 0.01, []),
        (measured(no_call=47), 0.1, 0.01, ["3.0 points rarer"]),
        (measured(tools=1.0, no_call=0), -0.1, 0.5, ["no significant gain", "as varied", "rarer"]),
    ],
)
def test_a_round_is_kept_when_it_gains_and_loses_neither_tools_nor_restraint(now, difference, p, words):
    reasons = reasons_to_stop(measured(), now, {"difference": difference, "p": p}, 0.05)
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


def test_a_first_round_without_a_right_answer_limits_nothing():
    first = measured(passed=0, tools=None, no_call=0)
    assert not reasons_to_stop(first, measured(tools=None, no_call=0), {"difference": 0.1, "p": 0.01}, 0.05)


# -- the page -----------------------------------------------------------------------------------------------------


def test_the_page_shows_all_rounds_without_network(loop, tmp_path):
    loop("--rounds", "2")
    page = (tmp_path / "loop" / "index.html").read_text("utf-8")
    assert page.count("not kept: the pass rate changed by") == 1
    assert all(
        word in page for word in ("round 0", "round 1", "round 2", "The loop is over", "Balance", "unlike each other")
    )
    assert "http" not in page and "<script" not in page and "None" not in page
    browser = shutil.which("chromium")
    if browser:
        shot = tmp_path / "page.png"
        command = [browser, "--headless", "--no-sandbox", f"--screenshot={shot}", str(tmp_path / "loop" / "index.html")]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert shot.is_file()
