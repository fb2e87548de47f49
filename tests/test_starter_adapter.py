"""The adapters that come with the embedded model: what they were made of, and what they do with the first command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from Evaluator.backends.default_weights import STARTER_ADAPTER, STARTER_WRITER
from Evaluator.rows import read_rows

ROOT = Path(__file__).resolve().parents[1]
FOLDER = STARTER_ADAPTER.parent
MOST_BYTES = 12_000_000
MADE_OF = [
    (STARTER_ADAPTER, "run.json", "Datasets/starter_sft.jsonl"),
    (STARTER_WRITER, "writer.run.json", "Datasets/starter_writer_sft.jsonl"),
]


def record_of(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("adapter", "record", "rows"), MADE_OF)
def test_an_adapter_is_small_and_was_trained_to_the_end_on_all_of_its_rows(adapter, record, rows):
    assert adapter.stat().st_size <= MOST_BYTES
    made = record_of(record)
    assert made["is_complete"] and made["data"]["left_out"] == {}
    assert made["settings"]["local_file"] == [rows] and made["settings"]["model_name"] == "embedded"
    assert made["data"]["rows"]["training"] == sum(1 for _ in read_rows([str(ROOT / rows)]))


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "record", "rows"), MADE_OF)
def test_the_rows_are_still_those_that_it_was_trained_on(adapter, record, rows):
    """By their tokens: the hash in the record is of the whole file, whose metadata name the version that made it."""
    pytest.importorskip("transformers")
    from Trainers.common.base_models import find_base_model, load_tokenizer
    from Trainers.common.rendering import Renderer

    renderer = Renderer(load_tokenizer(find_base_model("embedded")))
    turns = [turn for row in read_rows([str(ROOT / rows)]) for turn in renderer.all_turns(row.messages)]
    tokens, trained = sum(len(one.input_ids) for one in turns), sum(sum(one.is_answer) for one in turns)
    data = record_of(record)["data"]
    assert (tokens, trained) == (data["tokens"], data["trained_tokens"])


def test_what_is_served_is_what_training_goes_on_from():
    gguf, numpy = pytest.importorskip("gguf"), pytest.importorskip("safetensors.numpy")
    trained = numpy.load_file(FOLDER / "adapter_model.safetensors")
    served = {tensor.name: tensor.data for tensor in gguf.GGUFReader(STARTER_ADAPTER).tensors}
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    names |= {f"{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")}
    assert len(served) == len(trained) == 30 * len(names) * 2, "both matrices of seven modules in thirty layers"
    for name, matrix in trained.items():
        *_, layer, _, module, side, _ = name.split(".")
        got = served[f"blk.{layer}.{names[module]}.weight.{side.lower()}"]
        if module in ("q_proj", "k_proj") and side == "lora_B":  # llama.cpp has the rows of each head in another order
            matrix, got = sorted(map(tuple, matrix.tolist())), sorted(map(tuple, got.tolist()))
            assert matrix == got
        else:
            assert (matrix == got).all()


@pytest.mark.slow
def test_the_bundled_model_plays_both_sides(tmp_path):
    """README's first command; how many of its rows are true is told there."""
    output = tmp_path / "first.jsonl"
    command = ["Tools/selfplay_generator_v2.py", "--prompt-method", "self", "--max-tokens", "256"]
    command = [sys.executable, *command, "--num-examples", "20", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert {row["label"] for row in rows} == {True, False} and 15 <= len(rows) <= 20
    assert {row["metadata"]["prompt_model"] for row in rows} == {"embedded"}
    settings = json.loads((tmp_path / "first.run.json").read_text(encoding="utf-8"))["settings"]
    assert settings["adapter"] == "starter" and settings["writer_adapters"]["embedded"][0] == "starter writer"
