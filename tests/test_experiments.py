"""The experiment: its arms' rows, its plan of public commands, and the table, whose numbers are calculated by hand."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from Evaluator import __main__ as evaluator
from Evaluator.backends.default_weights import STARTER_WRITER
from Evaluator.catalog import load_catalog
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.errors import ReportedError, UsageError
from Evaluator.intervals import paired_difference_interval
from Evaluator.prompt_sets import BEHAVIOR_PROMPTS, HELDOUT_PROMPTS, TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import CHECKS
from Evaluator.rows import rows_of
from Evaluator.runs.serving import Server
from Evaluator.runs.steps import Step, StepFailed
from Tools import mix_datasets, selfplay_generator, selfplay_generator_v2, with_server
from Tools.prompts.prompt_flags import check_prompt_arguments
from Trainers.experiments import __main__ as experiments
from Trainers.experiments.arms import ARMS, FOLLOW_UPS, HYPOTHESES, ORDER, wanted
from Trainers.experiments.plan import Inputs, MeasuredArm, plan_of, report_path, steps_of
from Trainers.experiments.rows import CHANGES
from Trainers.experiments.run import run_arms
from Trainers.experiments.scales import SCALES
from Trainers.experiments.table import Outcomes, adjusted, compared, effective_tools, is_strict, is_well_formed
from Trainers.export import __main__ as export
from Trainers.rtx3090_kto import train_kto
from Trainers.rtx3090_sft import train_sft

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "Trainers" / "experiments" / "README.md"
RESULTS = ROOT / "Trainers" / "experiments" / "results" / "outcomes.jsonl"


# -- the arms' rows -----------------------------------------------------------------------------------------------


def a_row(request, label, failed=None):
    checks = dict.fromkeys(CHECKS)
    for check in CHECKS:
        checks[check] = check != failed
        if check == failed:
            break
    turns = [{"role": "user", "content": request}, {"role": "assistant", "content": f"{label} {failed}"}]
    return {"conversations": turns, "label": label, "metadata": {"checks": checks, "errors": []}}


ROWS = [
    *(a_row(f"request {number}", True) for number in range(30)),
    *(a_row(f"request {number}", False, "execution") for number in range(20, 50)),
    *(a_row(f"request {number}", False, "context") for number in range(50, 90)),
]


def changed(change, seed=0, rows=ROWS):
    given = list(rows_of("rows", [json.dumps(row).encode() for row in rows]))
    return list(CHANGES[change](given, seed))


def test_rejection_sampling_keeps_the_true_rows_as_they_are():
    assert changed("true") == ROWS[:30]


def test_shuffled_labels_are_the_same_labels_on_the_same_rows_in_another_order():
    made = changed("shuffled")
    assert [row["conversations"] for row in made] == [row["conversations"] for row in ROWS]
    labels, before = [row["label"] for row in made], [row["label"] for row in ROWS]
    assert Counter(labels) == Counter(before)
    assert 0.4 < sum(now == then for now, then in zip(labels, before, strict=True)) / len(ROWS) < 0.75
    assert changed("shuffled") == made != changed("shuffled", seed=1)


def test_labels_of_fields_are_true_where_only_a_later_check_failed():
    made = changed("fields")
    assert [row["label"] for row in made] == [True] * 60 + [False] * 40
    assert [{**row, "label": None} for row in made] == [{**row, "label": None} for row in ROWS]


def test_labels_of_fields_accept_a_plain_answer_where_it_can_be_read():
    row = a_row("Delete it.", False)
    row["metadata"]["checks"] = {**dict.fromkeys(CHECKS), "parse": True, "relevance": False}
    assert changed("fields", rows=[row])[0]["label"] is True


def test_contested_rows_are_those_of_requests_with_right_and_wrong_answers():
    asked = Counter(row["conversations"][0]["content"] for row in changed("contested"))
    assert asked == {f"request {number}": 2 for number in range(20, 30)}


def test_the_command_writes_rows_that_the_trainers_read(tmp_path, capfdbinary):
    path = tmp_path / "round.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert experiments.main(["rows", "fields", str(path)]) == 0
    assert len([json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]) == len(ROWS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"conversations": []}', "rows.jsonl:1"),
        (json.dumps({**ROWS[0], "label": None}), "a row without a label"),
        (json.dumps({**ROWS[0], "metadata": {}}), "says nothing of checks"),
    ],
)
def test_rows_that_cannot_be_used_end_the_command_in_a_sentence(tmp_path, capfd, line, said):
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    assert experiments.main(["rows", "fields", str(path)]) == 2
    assert said in capfd.readouterr().err


# -- the plan -----------------------------------------------------------------------------------------------------

PARSERS = {
    "Tools/selfplay_generator.py": selfplay_generator.build_parser(),
    "Tools/selfplay_generator_v2.py": selfplay_generator_v2.build_parser(),
    "Tools/mix_datasets.py": mix_datasets.build_parser(),
    "Trainers/rtx3090_sft/train_sft.py": train_sft.build_parser(),
    "Trainers/rtx3090_kto/train_kto.py": train_kto.build_parser(),
    "Trainers.export": export.build_parser(),
    "Trainers.experiments": experiments.build_parser(),
    "Evaluator": evaluator.build_parser(),
}
ALL = [*ORDER, *((name, 0) for name in FOLLOW_UPS)]


def inputs(scale="small", workdir=Path("/work dir"), sft_data=Path("/data/starter.jsonl"), **others):
    sets = {"heldout": HELDOUT_PROMPTS, "behaviors": BEHAVIOR_PROMPTS}
    return Inputs(workdir, SCALES[scale], "embedded", sft_data, sets, **others)


def parsed(step):
    """The flags of a step, as the program that it starts reads them."""
    command = step.command
    if command[:2] == ("-m", "torch.distributed.run"):
        command = command[4:]
    command = command[1:] if command[0] == "-m" else command
    return PARSERS[command[0]].parse_args(command[1:])


def trainings(plan):
    return {step.name: parsed(step) for step in steps_of(plan) if step.name.endswith(" train")}


@pytest.mark.parametrize("scale", SCALES)
def test_every_command_of_the_plan_parses_and_makes_what_it_says(scale):
    for step in steps_of(plan_of(inputs(scale), ALL)):
        args = parsed(step)
        if not step.saves_stdout:
            assert step.makes == Path(args.output) or step.makes.parent == Path(args.output)
        assert shlex.split(step.line())[0] == "python"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("scale", SCALES)
def test_all_arms_train_for_the_same_steps_and_rows_from_the_sft_adapter_of_their_seed(scale, processes):
    found = trainings(plan_of(inputs(scale, processes=processes), ALL))
    arms = {name: args for name, args in found.items() if "sft train" not in name}
    assert len(arms) == len(ALL) - 3, "all but A1, which has three seeds"
    assert {args.max_steps for args in arms.values()} == {SCALES[scale].steps}
    rows = {args.batch_size * args.gradient_accumulation_steps * processes for args in found.values()}
    assert rows == {SCALES[scale].rows_a_step}
    for name, args in arms.items():
        seed = int(name.split(":")[0].removeprefix("seed "))
        assert (args.seed, args.adapter) == (seed, Path(f"/work dir/seed-{seed}/sft"))
    assert all(args.resume for args in found.values())


def test_arms_differ_by_their_rows_and_nothing_else():
    found = trainings(plan_of(inputs(), ORDER))
    kto = {name: vars(args) for name, args in found.items() if hasattr(args, "beta") and name.startswith("seed 0")}
    files = {name.split()[2]: [Path(file).name for file in flags.pop("local_file")] for name, flags in kto.items()}
    assert files == {
        "A4": ["round-1-guided-1-mixed.jsonl"],
        "A5": ["round-1-shuffled-mixed.jsonl"],
        "A6": ["round-1-fields-mixed.jsonl"],
        "A7": ["round-1-guided-1-round-2-guided-2-mixed.jsonl"],
        "A8": ["round-2-guided-2-mixed.jsonl"],
    }
    for flags in kto.values():
        flags.pop("output")
    first, *others = kto.values()
    assert all(flags == first for flags in others)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("F1", {"learning_rate": 2.5e-5}),
        ("F2", {"beta": 0.3}),
        ("F3", {"local_file": "round-1-contested-mixed.jsonl"}),
        ("F4", {"local_file": "round-1.jsonl"}),
        ("F5", {"desirable_weight": 1.0, "undesirable_weight": 0.5}),
        ("F6", {"mask": ["session-ids"]}),
        ("F7", {"mask": ["session-ids", "context-texts", "wrong-ends", "wrong-texts"]}),
    ],
)
def test_a_follow_up_changes_one_thing(name, changed):
    found = trainings(plan_of(inputs(), [("A4", 0), (name, 0)]))
    first, second = (vars(found[f"seed 0: {arm} train"]) for arm in ("A4", name))
    for flags in (first, second):
        flags.pop("output")
        flags["local_file"] = Path(flags["local_file"][0]).name
    assert {key: value for key, value in second.items() if value != first[key]} == changed


def test_a_step_comes_after_what_it_reads_and_the_first_arms_are_those_that_tell_most():
    steps, made = steps_of(plan_of(inputs(), ALL)), set()
    for step in steps:
        read = {part for part in step.command if part.startswith("/work dir/") and Path(part) != step.makes}
        for part in read - {str(step.makes.parent)}:
            assert any(one == Path(part) or one.parent == Path(part) for one in made), f"{step.name}: {part}"
        made.add(step.makes)
    measured = [step.name for step in steps if step.name.endswith("heldout")]
    assert measured[:4] == [f"seed 0: {name} heldout" for name in ("A1", "A4", "A5", "A3")]


def test_rounds_are_played_by_the_right_adapter_with_other_requests_each():
    steps = [step for step in steps_of(plan_of(inputs(), ORDER)) if "play" in step.name]
    played = {step.name: parsed(step) for step in steps}
    assert played["seed 0: play round-1"].adapter == Path("/work dir/seed-0/A1/served/adapter.gguf")
    assert played["seed 0: play round-2"].adapter == Path("/work dir/seed-0/A4/served/adapter.gguf")
    assert Path("/work dir/seed-0/round-1.jsonl") in played["seed 0: play round-2"].avoid
    assert len({args.seed for args in played.values()}) == len(played) == 4
    for args in played.values():
        args.avoid = []  # they are not there yet
        check_prompt_arguments(args)
        assert args.prompt_method == {"self": 1.0, "template": 1.0}
        assert args.writer_adapters == {"embedded": STARTER_WRITER}, "no arm trains the writer"


def test_an_sft_adapter_that_is_there_is_not_trained_again():
    plan = plan_of(inputs(sft_adapters={0: Path("/mine/sft")}), [("A4", 0), ("A4", 1)])
    found = trainings(plan)
    assert "seed 0: sft train" not in found and "seed 1: sft train" in found
    assert found["seed 0: A4 train"].adapter == Path("/mine/sft")


SERVER = Server("serve {model} --port 8123", "http://localhost:8123/v1", 64)


def served(name, command):
    """What a step runs while its server is there, and that server's words."""
    args = with_server.build_parser().parse_args(command[1:])
    assert command[0] == "Tools/with_server.py" and args.base_url == SERVER.base_url, name
    return Step(name, tuple(args.command[1:]), Path("x")), shlex.split(args.server)


def test_with_a_server_each_arm_is_served_merged_and_asked_there():
    plan = plan_of(inputs(server=SERVER, prompt_method="teacher:1,template:1"), [("A1", 0), ("A4", 0)])
    steps = {step.name.removeprefix("seed 0: "): step for step in steps_of(plan)}
    for arm in ("A1", "A4"):
        merged = Path(f"/work dir/seed-0/{arm}/served/merged")
        assert steps[f"{arm} export"].makes == merged / "config.json"
        assert parsed(steps[f"{arm} export"]).format == ["safetensors"]
        asked, words = served(arm, steps[f"{arm} heldout"].command)
        assert words == ["serve", str(merged), "--port", "8123"]
        args = parsed(asked)
        assert (args.model, args.adapter, args.base_url, args.concurrency) == ("arm", None, [SERVER.base_url], 64)
        assert args.timeout >= 600, "64 answers at once come late from a slow machine"
    played, words = served("play", steps["play round-1"].command)
    args = parsed(played)
    assert words[1] == "/work dir/seed-0/A1/served/merged"
    assert (args.model, args.prompt_generator_model, args.prompts_per_call) == ("arm", "embedded", 1)
    args.avoid = []
    check_prompt_arguments(args)
    assert args.writer_adapters == {"embedded": STARTER_WRITER}, "the same writer as without a server"


def test_rounds_that_are_there_are_not_played_again(tmp_path):
    played = {name: tmp_path / f"seed-0-{name}.jsonl" for name in ("round-1", "guided-1")}
    for path in played.values():
        path.write_text("")
    steps = {step.name: step for step in steps_of(plan_of(inputs(played=tmp_path), [("A5", 0), ("A4", 1)]))}
    assert not {"seed 0: play round-1", "seed 0: guided round-1", "seed 0: A1 export"} & steps.keys()
    assert {"seed 1: play round-1", "seed 1: guided round-1", "seed 1: A1 export"} <= steps.keys()
    assert set(map(str, played.values())) <= set(steps["seed 0: shuffled rows"].command)


def test_guided_prompts_are_like_no_prompt_that_arms_are_measured_with(capsys, tmp_path):
    assert experiments.main(["guided", str(HELDOUT_PROMPTS), str(BEHAVIOR_PROMPTS)]) == 0
    (tmp_path / "guided.json").write_text(capsys.readouterr().out, encoding="utf-8")
    kept, every = (load_prompt_sets([path]).prompts for path in (tmp_path / "guided.json", TOOL_PROMPTS))
    measured = load_prompt_sets([HELDOUT_PROMPTS, BEHAVIOR_PROMPTS]).prompts
    others = EvaluationPrompts(prompt.question for prompt in measured)
    assert not [one for one in kept if others.overlap(one.question)]
    assert len(kept) == sum(1 for one in every if not others.overlap(one.question)) == 43
    assert not {one.vault.name for one in kept} & {one.vault.name for one in measured}
    assert experiments.main(["guided", str(tmp_path / "none.json")]) == 2
    assert "cannot read the prompt set" in capsys.readouterr().err


def test_which_arms_and_seeds_are_run():
    assert wanted(None, None) == list(ORDER)
    assert wanted(["A4", "A1"], None) == [(name, seed) for seed in (0, 1, 2) for name in ("A1", "A4")]
    assert wanted(["F1", "A5"], None) == [("A5", 0), ("F1", 0)]
    assert wanted(["A5"], [0, 4]) == [("A5", 0), ("A5", 4)]
    assert wanted(None, [2]) == [("A1", 2), ("A4", 2), ("A3", 2)]


def test_a_dry_run_prints_the_commands_and_makes_nothing(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("")
    flags = ["--workdir", str(tmp_path / "work"), "--sft-data", str(tmp_path / "rows.jsonl"), "--arms", "A1"]
    assert experiments.main(["run", *flags, "--seeds", "0", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        "# seed 0: sft train",
        "# seed 0: A1 export",
        "# seed 0: A1 heldout",
        "# seed 0: A1 behaviors",
    ]
    assert all(line.startswith(("# ", "python ")) for line in lines)
    assert not (tmp_path / "work").exists()


def test_files_that_are_not_there_are_a_sentence(tmp_path, capsys):
    for flags in (
        ["--sft-data", str(tmp_path / "none.jsonl")],
        ["--sft-adapter", str(tmp_path)],
        ["--model", str(tmp_path / "none.gguf")],
    ):
        assert experiments.main(["run", "--workdir", str(tmp_path / "work"), *flags]) == 2
        assert f"there is no {flags[1]}" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


# -- the protocol -------------------------------------------------------------------------------------------------


def test_the_protocol_says_what_the_values_say():
    text = README.read_text(encoding="utf-8")
    for one in HYPOTHESES:
        comparison = f"{one.second} - {one.first}, {one.measure.replace('_', '-')}"
        assert f"{one.claim}" in text and f"| {comparison} |" in text
    small = SCALES["small"]
    for said in (
        f"{small.round_rows:,} rows: {small.round_rows // small.samples_per_prompt} requests",
        f"with {small.samples_per_prompt} answers each, temperature {small.temperature}, ",
        f"at most {small.play_max_tokens} tokens, half of the requests",
        f"{small.steps} of {small.rows_a_step} rows",
        f"| KTO | learning rate {small.kto_learning_rate:g}".replace("0.0001", "1e-4"),
        f"learning rate {small.more_sft_learning_rate:g}".replace("0.0002", "2e-4"),
        f"{small.guided_variations} answers each, sampled",
        f"beta {small.beta:g}",
        f"at most {small.answer_max_tokens} tokens",
        f"LoRA rank {small.lora_rank}",
    ):
        assert said in text, said
    assert all(f"| {name} |" in text for name in ARMS if name not in FOLLOW_UPS)


def test_the_longest_right_answer_has_room():
    """In characters, of which a token holds two and more."""
    from Evaluator.tool_calls import render_turn

    prompts = load_prompt_sets([HELDOUT_PROMPTS]).prompts
    longest = max(len(render_turn([prompt.expected_call]).content) for prompt in prompts)
    assert longest < 2.5 * SCALES["small"].answer_max_tokens


# -- the table ----------------------------------------------------------------------------------------------------


TOOLS = list(load_catalog().tools)[:4]


def outcomes_for(arm, seed, passed, total=20, failed="relevance", set_name="heldout"):
    """Outcomes of an arm that is right on the prompts with the numbers in `passed`."""
    return [
        {
            "arm": arm,
            "seed": seed,
            "set": set_name,
            "prompt": f"{set_name}-{number}",
            "tool": TOOLS[number % 4] if set_name == "heldout" else None,
            "behavior": None if set_name == "heldout" else ("ask", "refuse", "confirm", "call")[number % 4],
            "strict": number in passed,
            "failed": None if number in passed else failed,
            "codes": [] if number in passed else [f"{failed}.x"],
            "called": TOOLS[number % 4],
            "did": None,
            "validator": "v1",
        }
        for number in range(total)
    ]


A1, A4 = {0, 1, 2, 3}, {0, 1, *range(4, 14)}
"""A4 gains ten prompts and loses two: McNemar's p = 2 (1 + 12 + 66) / 2^12."""
P_A4 = 158 / 4096


def test_a_comparison_with_one_seed_is_mcnemars_with_newcombes_interval():
    found = compared(Outcomes([*outcomes_for("A1", 0, A1), *outcomes_for("A4", 0, A4)]), "A1", "A4", is_strict)
    assert (found.only_first, found.only_second, found.p) == (2, 10, pytest.approx(P_A4))
    assert found.difference == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx(paired_difference_interval(2, 2, 10, 6))


def test_a_comparison_with_several_seeds_takes_the_prompt_as_the_unit():
    rows = [
        *outcomes_for("A1", 0, set(), 3),
        *outcomes_for("A1", 1, {2}, 3),
        *outcomes_for("A1", 2, {2}, 3),
        *outcomes_for("A4", 0, {0, 1}, 3),
        *outcomes_for("A4", 1, {0, 1, 2}, 3),
        *outcomes_for("A4", 2, {0, 1}, 3),
    ]
    found = compared(Outcomes(rows), "A1", "A4", is_strict)
    # sums over the seeds: prompt 0 and 1 gain 3 each, prompt 2 loses 1: of 8 sums 4 are as far from 0
    assert (found.p, found.only_first, found.only_second) == (0.5, 1, 6)
    assert found.by_seed == pytest.approx({0: 2 / 3, 1: 2 / 3, 2: 1 / 3})
    assert found.difference == pytest.approx((1 + 1 - 1 / 3) / 3)


def test_only_seeds_that_both_arms_have_are_compared():
    rows = [*outcomes_for("A1", 0, A1), *outcomes_for("A4", 0, A4), *outcomes_for("A4", 1, set())]
    assert compared(Outcomes(rows), "A1", "A4", is_strict).p == pytest.approx(P_A4)
    assert compared(Outcomes(rows), "A3", "A4", is_strict) is None


def test_holm_counts_the_hypotheses_that_have_not_been_run():
    found = adjusted(Outcomes([*outcomes_for("A1", 0, A1), *outcomes_for("A4", 0, A4)]))
    assert found["H1"][1] == pytest.approx(7 * P_A4)
    assert found["H5"] == (None, 1.0)


def test_well_formed_is_what_failed_no_check_of_fields():
    rows = Outcomes([*outcomes_for("A1", 0, A1, failed="context"), *outcomes_for("A6", 0, A1, failed="grounding")])
    found = compared(rows, "A1", "A6", is_well_formed)
    assert (found.difference, found.only_first, found.only_second) == (0.8, 0, 16)
    assert adjusted(rows)["H7"][1] == pytest.approx(7 * 2 / 2**16)


def test_effective_tools_is_the_number_of_equally_common_ones():
    asked = {one["prompt"]: one for one in outcomes_for("A1", 0, A1)}
    assert effective_tools(asked) == pytest.approx(4.0)
    several = {one["prompt"]: one for one in outcomes_for("A1", 0, set(), failed="tool")}
    assert effective_tools(several) == pytest.approx(4.0), "a tool that a later call makes up is no first call"
    for one in several.values():
        one["called"] = one["called"].replace(TOOLS[3], "x")
    assert effective_tools(several) == pytest.approx(3.0)
    assert effective_tools({"p": {"called": None}}) == 0.0


def write(path, outcomes):
    path.write_text("".join(json.dumps(one) + "\n" for one in outcomes))
    return str(path)


def test_the_table_from_a_file_of_outcomes(tmp_path, capsys):
    rows = [*outcomes_for("A1", 0, A1), *outcomes_for("A4", 0, A4), *outcomes_for("A5", 0, A1, failed="context")]
    rows += outcomes_for("A1", 0, {0, 1, 2}, 8, set_name="behaviors")
    rows += outcomes_for("A4", 0, {3}, 8, set_name="behaviors")
    assert experiments.main(["table", write(tmp_path / "o.jsonl", rows)]) == 0
    table = capsys.readouterr().out
    with (tmp_path / "o.jsonl").open("rb") as stream:
        command = [sys.executable, "-m", "Trainers.experiments", "table", "-"]
        assert subprocess.run(command, cwd=ROOT, stdin=stream, capture_output=True, text=True).stdout == table
    lines = table.splitlines()
    assert "| A1 SFT only | 20.0 (8.1 to 41.6) | 0: 20.0 |  | |  | 100.0 | 4.0 |" in lines
    a4 = next(line for line in lines if line.startswith("| A4 KTO on round 1 |"))
    assert "| 60.0 (38.7 to 78.1) | 0: 60.0 | +40.0 (" in a4 and "| 2 : 10 | 0.0386 | 100.0 | 4.0 |" in a4
    h1 = next(line for line in lines if line.startswith("| H1 |"))
    assert h1.endswith("| 0.0386 | 0.2700 |") and "| A4 - A1, strict | +40.0 (" in h1 and ") | 0: +40.0 |" in h1
    control = next(line for line in lines if line.startswith("| control |"))
    assert "A5 must not gain" in control and "| +0.0 (" in control and "| 1.0000 | |" in control
    assert "| A5 | 100.0 | 100.0 | 20.0 | 20.0 | 20.0 | 20.0 | 20.0 |" in lines
    assert "| A1 | 37.5 | 50.0 | 50.0 | 50.0 | 50.0 | 0.0 |  |  |" in lines
    a4 = next(line for line in lines if line.startswith("| A4 | 12.5 | 0.0 | 0.0 | 0.0 | 0.0 | 50.0 | -50.0 ("))
    assert a4.endswith(" | 0.2500 |"), "three of the six prompts where no call is right are lost, none is won"
    assert not [line for line in lines if line.startswith(("| A2 ", "**Follow-ups"))], "what was not run has no row"


def test_follow_ups_are_compared_with_what_they_change(tmp_path, capsys):
    rows = [*outcomes_for("A4", 0, A4), *outcomes_for("F1", 0, A1)]
    assert experiments.main(["table", write(tmp_path / "o.jsonl", rows)]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = lines[lines.index("**Follow-ups** against A4, in no test above") + 4]
    assert row.startswith("| F1 | -40.0 (") and row.endswith(" | 10 : 2 | 0.0386 |")


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([*outcomes_for("A1", 0, A1), *outcomes_for("A1", 0, A1)], "more than once"),
        ([*outcomes_for("A1", 0, A1), *outcomes_for("A4", 0, A4, total=19)], "was not asked the same"),
        ([*outcomes_for("A1", 0, A1), *outcomes_for("X1", 0, A1)], "there is no arm X1 here"),
        ([{"arm": "A1"}], "a line that is no outcome"),
        ([], "holds no outcomes"),
    ],
)
def test_outcomes_that_cannot_be_compared_are_a_sentence(tmp_path, capsys, outcomes, said):
    assert experiments.main(["table", write(tmp_path / "o.jsonl", outcomes)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(not RESULTS.exists(), reason="the experiment has not been run yet")
def test_the_table_in_the_readme_is_the_one_that_the_outcomes_give(capsys):
    assert experiments.main(["table"]) == 0
    shown = README.read_text(encoding="utf-8").partition("<!-- table -->")[2].partition("<!-- /table -->")[0]
    assert shown.strip() == capsys.readouterr().out.strip()


# -- the run ------------------------------------------------------------------------------------------------------


def python(name, code, path):
    return Step(name, ("-c", code, str(path)), path)


def test_an_arm_whose_step_fails_is_left_out_and_the_others_are_run(tmp_path, caplog):
    bad = python("bad", "exit(2)", tmp_path / "bad")
    plan = [
        MeasuredArm("A4", 0, [bad, python("after", "exit(2)", tmp_path / "after")]),
        MeasuredArm("A7", 0, [bad]),
        MeasuredArm("A1", 0, [python("good", "import sys; open(sys.argv[1], 'w')", tmp_path / "good")]),
    ]
    with pytest.raises(ReportedError, match="left out: A4 with seed 0, A7 with seed 0; ") as left_out:
        run_arms(plan, inputs(workdir=tmp_path), tmp_path / "results", None)
    assert left_out.value.status == 1
    assert (tmp_path / "good").exists()
    records = json.loads((tmp_path / "state.json").read_text("utf-8"))["steps"]
    assert [one["name"] for one in records] == ["bad", "good"], "bad is not tried twice"


def test_time_that_is_up_stops_the_step_under_way(tmp_path):
    plan = [MeasuredArm("A1", 0, [python("long", "import time; time.sleep(60)", tmp_path / "never")])]
    started = time.monotonic()
    with pytest.raises(StepFailed, match="run the same command again to go on") as stopped:
        run_arms(plan, inputs(workdir=tmp_path), tmp_path / "results", 1.0)
    assert stopped.value.status == 3 and time.monotonic() - started < 20


def scripted_arm(tmp_path, name, reply):
    """An arm that is measured only, with a model that always says the same, on one prompt of each set."""
    replies = tmp_path / f"{reply}.jsonl"
    replies.write_text(json.dumps({"content": reply}) + "\n")
    steps = []
    for set_name, prompts in (("heldout", HELDOUT_PROMPTS), ("behaviors", BEHAVIOR_PROMPTS)):
        report = report_path(tmp_path, name, 0, set_name)
        report.parent.mkdir(parents=True, exist_ok=True)
        few = json.loads(prompts.read_text("utf-8"))
        few["prompts"] = few["prompts"][:1]
        (tmp_path / prompts.name).write_text(json.dumps(few))
        command = ["-m", "Evaluator", "--model", f"scripted:{replies}", "--prompt-set", str(tmp_path / prompts.name)]
        steps.append(Step(f"{name} {set_name}", (*command, "--output", str(report)), report))
    return MeasuredArm(name, 0, steps)


def test_outcomes_are_made_from_the_reports_of_all_arms(tmp_path, capfd):
    results = tmp_path / "results"
    plan = [scripted_arm(tmp_path, name, "Which one?") for name in ("A1", "A4")]
    run_arms(plan, inputs(workdir=tmp_path), results, None)
    outcomes = [json.loads(line) for line in (results / "outcomes.jsonl").read_text("utf-8").splitlines()]
    assert [(one["arm"], one["set"]) for one in outcomes] == [
        ("A1", "heldout"),
        ("A4", "heldout"),
        ("A1", "behaviors"),
        ("A4", "behaviors"),
    ]
    heldout, behavior = outcomes[0], outcomes[2]
    assert (heldout["strict"], heldout["failed"], heldout["codes"]) == (False, "parse", ["parse.no_tool_call"])
    assert (behavior["strict"], behavior["failed"], behavior["did"]) == (True, None, "ask")
    commands = [one["line"] for one in json.loads((results / "steps.json").read_text("utf-8"))]
    assert all("WORKDIR/" in line and str(tmp_path) not in line for line in commands)
    assert experiments.main(["table", str(results / "outcomes.jsonl")]) == 0
    assert "| A4 KTO on round 1 | 0.0 (" in capfd.readouterr().out


def test_results_tell_how_the_machine_trained_and_what_rewards_it_had(tmp_path):
    rewards = [
        {"step": 1, "rewards/chosen": 0.25, "rewards/rejected": -0.5, "kl": 0.125},
        {"step": 1, "train_loss": 0.7},
    ]
    data = {"rows": {"training": 8, "validation": 0}, "left_out": {"longer than 1024 tokens": 2}}
    for name, is_complete in (("A4", True), ("A5", False)):
        adapter = tmp_path / "seed-0" / name / "adapter"
        adapter.mkdir(parents=True)
        record = {
            "is_complete": is_complete,
            "steps": 1,
            "resolved": {"bf16": True},
            "versions": {"trl": "1"},
            "data": data,
        }
        (adapter / "run.json").write_text(json.dumps(record | {"settings": {"output": str(adapter)}}))
        (adapter / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in rewards))
    run_arms([scripted_arm(tmp_path, "A1", "Which one?")], inputs(workdir=tmp_path), tmp_path / "results", None)
    (training,) = json.loads((tmp_path / "results" / "trainings.json").read_text("utf-8"))
    assert training == {
        "name": "seed 0: A4 train",
        "steps": 1,
        "resolved": {"bf16": True},
        "versions": {"trl": "1"},
        "data": data,
        "rewards": [[0.25, -0.5]],
        "kl": [0.125],
    }


def test_a_folder_keeps_what_its_experiment_started_from(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    started_from = inputs(workdir=tmp_path / "work", sft_data=rows)
    run_arms([], started_from, tmp_path / "results", None)
    with pytest.raises(UsageError, match=r"other settings \(processes was 1, is 2\)"):
        run_arms([], replace(started_from, processes=2), tmp_path / "results", None)
    with pytest.raises(UsageError, match=r"holds an experiment with other settings .*; steps was 90, is 300;"):
        run_arms([], replace(started_from, scale=SCALES["gpu"]), tmp_path / "results", None)
    rows.write_text("{}\n{}\n")
    with pytest.raises(UsageError, match=r"other settings \(sft_data was \S+ 3:"):
        run_arms([], started_from, tmp_path / "results", None)
    model = tmp_path / "m.gguf"
    model.write_text("GGUF")
    other = replace(started_from, workdir=tmp_path / "other", model=str(model))
    run_arms([], other, tmp_path / "results", None)
    model.write_text("GGUF, another one")
    with pytest.raises(UsageError, match=r"other settings \(model_file was "):
        run_arms([], other, tmp_path / "results", None)
    (tmp_path / "seed-0-round-1.jsonl").write_text("{}\n")
    goes_on = replace(started_from, workdir=tmp_path / "goes on", sft_data=model, played=tmp_path)
    run_arms([], goes_on, tmp_path / "results", None)
    (tmp_path / "seed-0-round-1.jsonl").write_text("{}\n{}\n")
    with pytest.raises(UsageError, match=r"other settings \(played_seed-0-round-1 was \S+ 3:"):
        run_arms([], goes_on, tmp_path / "results", None)
    (tmp_path / "other" / "experiment.json").write_text("[]")
    with pytest.raises(UsageError, match=r"experiment\.json: it holds no settings"):
        run_arms([], other, tmp_path / "results", None)


def test_reports_made_in_other_ways_are_refused(tmp_path):
    plan = [scripted_arm(tmp_path, "A1", "Which one?"), scripted_arm(tmp_path, "A4", "Done.")]
    with pytest.raises(UsageError, match="was made with another model than others"):
        run_arms(plan, inputs(workdir=tmp_path), tmp_path / "results", None)


@pytest.mark.slow
def test_a_run_is_stopped_by_its_time_goes_on_and_gives_outcomes(tmp_path):
    for package in ("torch", "trl", "peft", "datasets", "gguf", "xllamacpp"):
        pytest.importorskip(package)
    from tests.test_training_end_to_end import write_rows

    command = ["-m", "Trainers.experiments", "run", "--workdir", str(tmp_path / "work"), "--scale", "tiny"]
    command += ["--sft-data", write_rows(tmp_path / "sft.jsonl", 8), "--arms", "A1", "--seeds", "0"]
    for flag, prompts in (("--heldout-prompts", HELDOUT_PROMPTS), ("--behavior-prompts", BEHAVIOR_PROMPTS)):
        few = json.loads(prompts.read_text("utf-8"))
        few["prompts"] = few["prompts"][:1]
        (tmp_path / prompts.name).write_text(json.dumps(few))
        command += [flag, str(tmp_path / prompts.name)]

    def run(*flags):
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *command, *flags],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    stopped = run("--until-s", "6")
    assert stopped.returncode == 3, stopped.stderr
    assert "run the same command again" in stopped.stderr
    assert not (tmp_path / "work" / "results").exists()
    finished = run()
    assert (finished.returncode, finished.stdout) == (0, ""), finished.stderr
    outcomes = [json.loads(line) for line in (tmp_path / "work/results/outcomes.jsonl").read_text("utf-8").splitlines()]
    assert [(one["arm"], one["set"]) for one in outcomes] == [
        ("A1", "heldout"),
        ("A1", "behaviors"),
    ]
    steps = json.loads((tmp_path / "work" / "results" / "steps.json").read_text("utf-8"))
    assert all(step["status"] == 0 and str(tmp_path / "work") not in step["line"] for step in steps)
    (training,) = json.loads((tmp_path / "work" / "results" / "trainings.json").read_text("utf-8"))
    assert training["name"] == steps[0]["name"] and training["resolved"]["device"] and training["rewards"] == []
    again = run()
    assert again.returncode == 0
    assert "python " not in again.stderr.replace("python -m Trainers.experiments table", ""), again.stderr
