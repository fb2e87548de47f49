"""The loop on real weights, killed in the middle of its training and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

for package in ("torch", "trl", "peft", "datasets", "gguf", "xllamacpp"):
    pytest.importorskip(package, reason=f'training needs {package}: pip install torch, then -e ".[train,embedded]"')
# ruff: noqa: E402

from Evaluator.prompt_sets import BEHAVIOR_PROMPTS, HELDOUT_PROMPTS
from tests.test_training_end_to_end import ROOT, run, write_rows

SECONDS = 480


def first_prompts(path, bundled, *numbers):
    prompts = json.loads(bundled.read_text("utf-8"))["prompts"]
    chosen = [{**prompts[number], "id": f"my-{prompts[number]['id']}"} for number in numbers]
    path.write_text(json.dumps(chosen), encoding="utf-8")
    return str(path)


def loop_command(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    sft = ["Trainers/rtx3090_sft/train_sft.py", "--model-name", "embedded", "--local-file", rows, "--device", "cpu"]
    sft += ["--warmup-steps", "0", "--learning-rate", "2e-3", "--max-steps", "8", "--gradient-accumulation-steps", "1"]
    run(*sft, "--output", str(tmp_path / "sft"))
    command = ["Tools/selfplay_loop.py", "--adapter", str(tmp_path / "sft"), "--workdir", str(tmp_path / "loop")]
    command += ["--rounds", "1", "--examples-per-round", "6", "--num-samples-per-prompt", "2", "--curated", rows]
    command += ["--max-tokens", "160", "--no-ask-missing-tools", "--batch-size", "2", "--learning-rate", "2e-4"]
    command += ["--gradient-accumulation-steps", "2", "--max-steps", "3", "--save-steps", "1", "--device", "cpu"]
    command += ["--heldout-prompts", first_prompts(tmp_path / "heldout.json", HELDOUT_PROMPTS, 0, 30, 60)]
    return [*command, "--behavior-prompts", first_prompts(tmp_path / "behavior.json", BEHAVIOR_PROMPTS, 0, 50)]


def killed_in_its_training(command, workdir):
    """Start the loop, and kill it and what it runs once there is a checkpoint."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=env, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + SECONDS
    while not list(workdir.glob("round_1/adapter/checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_loop_that_is_killed_goes_on(tmp_path):
    started, workdir = time.monotonic(), tmp_path / "loop"
    command = loop_command(tmp_path)
    killed_in_its_training(command, workdir)
    steps = json.loads((workdir / "state.json").read_text("utf-8"))["steps"]
    assert [(one["name"], one["status"]) for one in steps if one["status"] != 0] == [("round 1: KTO", None)]
    played = (workdir / "round_1" / "play.jsonl").read_bytes()
    assert run(*command) == f"{workdir / 'best'}\n"
    assert (workdir / "round_1" / "play.jsonl").read_bytes() == played
    done = json.loads((workdir / "state.json").read_text("utf-8"))["steps"]
    assert done[: len(steps) - 1] == steps[:-1] and all(one["status"] == 0 for one in done)
    assert (workdir / "best" / "adapter_model.safetensors").is_file() and (workdir / "best" / "adapter.gguf").is_file()
    rounds = json.loads((workdir / "rounds.json").read_text("utf-8"))["rounds"]
    assert [one["number"] for one in rounds] == [0, 1] and rounds[1]["comparison"]["num_prompts"] == 3
    assert "round 1" in (workdir / "index.html").read_text("utf-8")
    lines = (workdir / "round_1" / "adapter" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert json.loads((workdir / "round_1" / "adapter" / "run.json").read_text("utf-8"))["steps"] == 3 and lines

    before = (workdir / "state.json").read_bytes(), time.monotonic()
    assert run(*command) == f"{workdir / 'best'}\n"
    assert (workdir / "state.json").read_bytes() == before[0] and time.monotonic() - before[1] < 20
    took_s = time.monotonic() - started
    print(f"{took_s:.0f} s", Path(workdir))
    assert took_s < SECONDS
