"""The whole path on real weights, with the commands of README: SFT, KTO, export, and the result served again."""

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

for package in ("torch", "trl", "peft", "datasets", "gguf", "xllamacpp"):
    pytest.importorskip(package, reason=f'training needs {package}: pip install torch, then -e ".[train,embedded]"')
# ruff: noqa: E402

from Evaluator.backends.embedded import EmbeddedClient
from Evaluator.catalog import DEFAULT_CATALOG, load_catalog
from Evaluator.model_client import SamplingOptions
from Evaluator.records import Message
from Evaluator.tool_calls import render_turn
from Evaluator.vault.loading import load_fixture
from tests.vaults import any_request
from Tools.prompts.templates import DEFAULT_TEMPLATES, load_templates

ROOT = Path(__file__).resolve().parents[1]
SECONDS, BYTES = 360, 3e9
QUESTIONS = ("What is the capital of France?", "Make a folder for the bees.")


def write_rows(path, num_prompts):
    """For each prompt its right call, and a wrong answer in plain words: short ones, for the sake of time."""
    catalog, vault = load_catalog(DEFAULT_CATALOG), load_fixture("farm")
    templates = load_templates(DEFAULT_TEMPLATES, catalog).that_fit([vault], catalog)
    prompts = [any_request(templates, random.Random(number), vault) for number in range(8 * num_prompts)]
    prompts.sort(key=lambda prompt: len(json.dumps(prompt.expected_call.arguments)))
    rows = []
    for prompt in prompts[:num_prompts]:
        question = [message.to_dict() for message in prompt.messages()]
        right, wrong = (
            render_turn([prompt.expected_call]).to_dict(),
            {"role": "assistant", "content": "I have done it."},
        )
        rows += [{"conversations": [*question, right], "label": True}]
        rows += [{"conversations": [*question, wrong], "label": False}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(*command):
    """Run a command of this project as a user does, and give its stdout."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def served_answers(model):
    client = EmbeddedClient(model, slots=1)
    options = SamplingOptions(max_tokens=24, temperature=0.0)
    try:
        return [client.complete([Message("user", question)], options).message.content for question in QUESTIONS]
    finally:
        client.close()


def trained_answers(adapter):
    """What transformers with PEFT answers, from the weights and the adapter as they were trained."""
    import torch
    from peft import PeftModel

    from Trainers.common.base_models import find_base_model, load_model, load_tokenizer

    base = find_base_model("embedded")
    tokenizer = load_tokenizer(base)
    model = PeftModel.from_pretrained(load_model(base, dtype=torch.float32), adapter).eval()
    answers = []
    for question in QUESTIONS:
        turn = [{"role": "user", "content": question}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=24)
        answers.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


@pytest.mark.slow
def test_sft_kto_export_and_a_run_with_the_adapter(tmp_path):
    rows, started = write_rows(tmp_path / "rows.jsonl", 8), time.monotonic()
    common = ["--model-name", "embedded", "--local-file", rows, "--device", "cpu", "--warmup-steps", "0"]
    sft = ["Trainers/rtx3090_sft/train_sft.py", *common, "--output", str(tmp_path / "sft"), "--learning-rate", "2e-3"]
    assert run(*sft, "--max-steps", "8", "--gradient-accumulation-steps", "1") == f"{tmp_path / 'sft'}\n"
    kto = ["Trainers/rtx3090_kto/train_kto.py", *common, "--adapter", str(tmp_path / "sft"), "--learning-rate", "2e-4"]
    kto += ["--batch-size", "2", "--gradient-accumulation-steps", "2", "--max-steps", "3"]
    assert run(*kto, "--output", str(tmp_path / "kto")) == f"{tmp_path / 'kto'}\n"
    export = ["-m", "Trainers.export", str(tmp_path / "kto"), "--output", str(tmp_path / "served")]
    assert len(run(*export, "--format", "lora", "gguf").splitlines()) == 3
    generate = ["Tools/selfplay_generator_v2.py", "--adapter", str(tmp_path / "served" / "adapter.gguf")]
    generate += ["--prompt-method", "template", "--num-examples", "4", "--max-tokens", "256", "--temperature", "0-0.5"]
    generate += ["--behavior-share", "0"]
    run(*generate, "--output", str(tmp_path / "out.jsonl"))
    took_s, most = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024

    generated = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert generated, "some answers may be cut off"
    assert any("tool_call" in row["conversations"][-1]["content"] for row in generated)
    lines = [json.loads(line) for line in (tmp_path / "kto" / "metrics.jsonl").read_text("utf-8").splitlines()]
    margins = [line["rewards/margins"] for line in lines if "rewards/margins" in line]
    assert abs(margins[0]) < 0.05 < margins[-1]
    assert served_answers(tmp_path / "served" / "model-f16.gguf") == trained_answers(tmp_path / "kto")
    print(f"{took_s:.0f} s, {most / 1e9:.2f} GB")
    assert took_s < SECONDS and most < BYTES
