"""The benchmark of the trainers: its table without a GPU, and what it says of one that runs out. Needs torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("torch", "trl", "peft", "datasets", "bitsandbytes"):
    pytest.importorskip(package, reason=f'training needs {package}: pip install torch, then -e ".[train]"')
# ruff: noqa: E402

import torch

from Trainers.benchmark_gpu import __main__ as command
from Trainers.benchmark_gpu import cases, random_model
from Trainers.benchmark_gpu.table import COLUMNS, table_lines
from Trainers.common.model_sizes import MODEL_SIZES, ModelShape, shape_of

ROOT = Path(__file__).resolve().parents[1]
FEW = ("--tiny", "--warm-up-steps", "1", "--steps", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    random_model.write_checkpoint(random_model.TINY, folder)
    return str(folder)


def arguments(*more):
    return command.build_parser().parse_args([*FEW, *more])


def row_of(line):
    return dict(zip(COLUMNS, line.strip("| \n").split(" | "), strict=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_sentence_and_status_2(capsys):
    assert command.main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "torch finds no GPU" in err


def test_a_table_that_is_there_already_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "table.md").write_text("kept", encoding="utf-8")
    assert command.main(["--tiny", "--output", str(tmp_path / "table.md")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "table.md").read_text("utf-8") == "kept"


@pytest.mark.parametrize("case", cases.CASES)
def test_a_case_trains_and_says_its_speed_in_one_line(case, checkpoint, capsys):
    assert command.main([*FEW, "--case", case, "--checkpoint", checkpoint]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["tokens_per_s"] > 0 and measured["step_s"] > 0
    assert measured["allocated_gb"] is None and not measured["is_out_of_memory"]
    assert (measured["calculated_gb"] is None) == case.endswith("plain")


@pytest.mark.parametrize("case", cases.CASES)
def test_the_tokens_are_those_that_trl_counts(case, checkpoint, monkeypatch):
    seen, train = [], cases.train
    monkeypatch.setattr(cases, "train", lambda *both: (train(*both), seen.extend(both)))
    cases.measure(arguments("--case", case, "--checkpoint", checkpoint))
    trainer, meter = seen
    batches = len(meter.times) * trainer.args.gradient_accumulation_steps
    assert len(meter.times) == trainer.state.global_step
    assert sum(meter.tokens[:batches]) == trainer._total_train_tokens


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("has_qkv_bias", [False, True])
def test_the_checkpoint_is_whole_and_has_the_shape(is_tied, has_qkv_bias, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(random_model, "SHARD_BYTES", 5e4)
    shape = ModelShape(64, 2, 4, 2, 16, 128, 100, is_tied=is_tied, has_qkv_bias=has_qkv_bias)
    random_model.write_checkpoint(shape, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values())
    assert model.num_parameters() == shape.parameters
    assert shape_of(str(tmp_path)) == shape


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_every_size_has_a_configuration(size, tmp_path):
    shape = MODEL_SIZES[size].shape
    random_model.config_of(shape).save_pretrained(tmp_path)
    assert shape_of(str(tmp_path)) == shape


@pytest.fixture
def card(monkeypatch):
    """A card of 30 GB, as far as the benchmark asks torch about it; the training itself stays on the CPU."""
    asked = {}
    for name, answer in {
        "get_device_name": "A card",
        "synchronize": None,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 5e9,
        "max_memory_reserved": 6e9,
        "memory_stats": {"num_ooms": 0},
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: asked.update(limit=limit))
    monkeypatch.setattr(cases, "card_gb", lambda: 30.0)
    flags_of = cases.flags_of

    def on_cpu(args, method):
        args.tiny = True
        flags = flags_of(args, method)
        args.tiny = False
        return flags

    monkeypatch.setattr(cases, "flags_of", on_cpu)
    return asked


def on_card(case, checkpoint):
    few = ["--warm-up-steps", "1", "--steps", "1", "--case", case, "--checkpoint", checkpoint]
    return cases.measure(command.build_parser().parse_args(few))


def test_memory_is_limited_and_its_peaks_are_in_the_table(card, checkpoint):
    measured = on_card("kto-ours", checkpoint)
    assert card["limit"] == (24 / 30, 0)
    assert (measured.card, measured.limit_gb, measured.loading_gb) == ("A card", 24.0, 5.0)
    row = row_of(table_lines({"kto-ours": [measured]})[-1])
    assert (row["peak allocated GB"], row["peak reserved GB"]) == ("5.00", "6.00")
    assert float(row["tokens/s"]) > 0


@pytest.mark.parametrize(
    ("error", "num_ooms"),
    [(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), 1), (RuntimeError("issues"), 1)],
)
def test_running_out_of_memory_is_a_row(error, num_ooms, card, checkpoint, monkeypatch):
    def run_out(*_):
        raise error

    monkeypatch.setattr(cases, "train", run_out)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: {"num_ooms": num_ooms})
    measured = on_card("sft-plain", checkpoint)
    row = row_of(table_lines({"sft-plain": [measured, measured]})[-1])
    assert row["peak allocated GB"] == "out of memory at 24 GB"
    assert row["tokens/s"] == row["s a step"] == "-"


def test_any_other_error_stays_one(card, checkpoint, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(cases, "train", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        on_card("sft-plain", checkpoint)


@pytest.mark.slow
def test_the_table_has_all_cases_and_stands_alone_on_stdout(tmp_path):
    command = [sys.executable, "-m", "Trainers.benchmark_gpu", *FEW, "--repeats", "1"]
    result = subprocess.run(
        [*command, "--output", str(tmp_path / "table.md")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == (tmp_path / "table.md").read_text("utf-8")
    lines = result.stdout.splitlines()
    assert row_of(lines[0]).keys() == set(COLUMNS) and set(lines[1]) == set("| -")
    rows = [row_of(line) for line in lines[2:6]]
    assert [(row["method"], row["settings"]) for row in rows] == [
        (method, settings) for method in ("SFT", "KTO") for settings in ("ours", "TRL's defaults")
    ]
    assert all(float(row["tokens/s"]) > 0 and row["peak allocated GB"] == "unmeasured" for row in rows)
    assert lines[6] == "" and all(line.startswith("- ") for line in lines[7:])
