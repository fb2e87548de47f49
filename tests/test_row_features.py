"""Rows of every kind load as one table, whichever file comes first."""

import itertools
import json

import pytest

from Evaluator.row_features import ROW_FEATURES
from Tools.selfplay_generator import main as v1
from Tools.selfplay_generator_v2 import main as v2

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files with every key null somewhere, lists that are empty throughout, and native calls."""
    from tests.fakes.model_server import FakeModelServer

    folder = tmp_path_factory.mktemp("rows")
    (folder / "silent.txt").write_text('{"content": "I see."}\n')
    silent = ["--model", f"scripted:{folder / 'silent.txt'}", "--num-examples", "12"]
    made = {name: folder / f"{name}.jsonl" for name in ("self", "free", "template", "guided", "silent", "native")}
    with FakeModelServer() as server:
        asked = ["--model", "fake", "--base-url", server.url, "--num-examples", "12", "--output"]
        assert v2([*asked, str(made["self"])]) == 0
        assert v2([*asked, str(made["free"]), "--prompt-method", "free"]) == 0
        assert v1([*asked, str(made["guided"]), "--top-p", "0.5-0.9", "--round", "2"]) == 0
        function = {"name": "get_tools", "arguments": json.dumps({"tools": ["get_tools"]})}
        message = {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
        server.completion = lambda *_: {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": {}}
        assert v1([*asked, str(made["native"])]) == 0
    assert v2([*silent, "--output", str(made["template"]), "--prompt-method", "template"]) == 0
    assert v1([*silent, "--output", str(made["silent"])]) == 0
    return made


def loaded(files, tmp_path, **options):
    datasets.disable_progress_bars()
    names = [str(path) for path in files]
    return datasets.load_dataset("json", data_files=names, split="train", cache_dir=str(tmp_path), **options)


def test_any_two_files_load_in_any_order_with_the_types(files, tmp_path):
    features = datasets.Features.from_dict(ROW_FEATURES)
    for pair in itertools.permutations(files.values(), 2):
        table = loaded(pair, tmp_path, features=features)
        assert table.num_rows == 24 and table.features == features
    assert loaded(files.values(), tmp_path, features=features).num_rows == 72


def test_files_joined_by_cat_load_without_being_told_the_types(files, tmp_path):
    for number, order in enumerate((list(files.values()), list(files.values())[::-1])):
        joined = tmp_path / f"joined{number}.jsonl"
        joined.write_bytes(b"".join(path.read_bytes() for path in order))
        assert loaded([joined], tmp_path).num_rows == 72


def test_what_is_loaded_is_what_was_written(files, tmp_path):
    for row, line in zip(
        loaded([files["guided"]], tmp_path, features=datasets.Features.from_dict(ROW_FEATURES)),
        files["guided"].read_text().splitlines(),
        strict=True,
    ):
        written = json.loads(line)
        assert row["metadata"] == written["metadata"] and row["label"] == written["label"]
        assert [turn["content"] for turn in row["conversations"]] == [
            turn["content"] for turn in written["conversations"]
        ]
