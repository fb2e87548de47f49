"""The adapter that comes with the embedded model: what it was made of, and what it does with the first command."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from Evaluator.backends.default_weights import STARTER_ADAPTER

ROOT = Path(__file__).resolve().parents[1]
FOLDER = STARTER_ADAPTER.parent
MOST_BYTES = 12_000_000


def test_it_is_small_and_was_trained_to_the_end_on_the_starter_rows_as_they_are():
    assert STARTER_ADAPTER.stat().st_size <= MOST_BYTES
    record = json.loads((FOLDER / "run.json").read_text(encoding="utf-8"))
    rows = "Datasets/starter_sft.jsonl"
    assert record["is_complete"]
    assert record["data"]["sha256"] == {rows: hashlib.sha256((ROOT / rows).read_bytes()).hexdigest()}
    assert record["settings"]["local_file"] == [rows] and record["settings"]["model_name"] == "embedded"


def test_what_is_served_is_what_training_goes_on_from(tmp_path):
    pytest.importorskip("gguf")
    numpy = pytest.importorskip("safetensors.numpy")
    from gguf import GGUFReader

    trained = numpy.load_file(FOLDER / "adapter_model.safetensors")
    served = {tensor.name: tensor.data for tensor in GGUFReader(STARTER_ADAPTER).tensors}
    assert len(served) == len(trained) == 30 * 7 * 2, "both matrices of seven modules in thirty layers"
    down = trained["base_model.model.model.layers.3.mlp.down_proj.lora_A.weight"]
    assert (served["blk.3.ffn_down.weight.lora_a"] == down).all()


@pytest.mark.slow
def test_the_bundled_model_plays_both_sides(tmp_path):
    """README's first command; a third of its rows may be true by chance of sampling, so the bounds are wide."""
    output = tmp_path / "first.jsonl"
    command = ["Tools/selfplay_generator_v2.py", "--prompt-method", "self", "--max-tokens", "256"]
    command += ["--num-examples", "20", "--output", str(output)]
    command = [sys.executable, *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert {row["label"] for row in rows} == {True, False}
    assert {row["metadata"]["prompt_model"] for row in rows} == {"embedded"}
    record = json.loads((tmp_path / "first.run.json").read_text(encoding="utf-8"))
    assert record["settings"]["adapter"] == "starter"
