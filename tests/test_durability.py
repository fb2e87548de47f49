"""Whatever dies, nothing is lost and nothing appears twice: real processes, real signals, a real server."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmark import server
from Tools.selfplay_generator import main as v1

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("selfplay_generator.py", "selfplay_generator_v2.py")
NUM_EXAMPLES = 400


def command(script, url, output, *flags, num_examples=NUM_EXAMPLES):
    base = [sys.executable, str(ROOT / "Tools" / script), "--model", "fake", "--base-url", url, "--output", str(output)]
    return [*base, "--num-examples", str(num_examples), "--concurrency", "8", *flags]


def run(arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=90, check=False, **options)


def assert_complete(output, num_examples=NUM_EXAMPLES):
    """Every slot once, each line whole and with its label, true and false both."""
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert sorted(row["metadata"]["slot"] for row in rows) == list(range(num_examples))
    assert len({row["metadata"]["sample_id"] for row in rows}) == num_examples
    assert all(row["label"] is (not row["metadata"]["errors"]) for row in rows)
    run_file = json.loads(output.with_suffix(".run.json").read_text(encoding="utf-8"))
    assert run_file["is_complete"] and run_file["counts"]["samples"] == num_examples
    return rows


def rows_kept(output):
    journal = output.with_suffix(".journal")
    return journal.read_bytes().count(b'"label"') if journal.exists() else 0


def wait_for_rows(process, output, num_rows):
    """Wait until the run has kept so many rows, or is over: no machine is too slow for that."""
    while rows_kept(output) < num_rows and process.poll() is None:
        time.sleep(0.005)


def interrupted(arguments, with_signal, after_s=0.0, after_rows=None):
    """Start, send a signal after seconds or (output, rows), and give (status, seconds it took, stderr)."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    if after_rows:
        wait_for_rows(process, *after_rows)
    time.sleep(after_s)
    process.send_signal(with_signal)
    signalled = time.monotonic()
    _, said = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - signalled, said


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_kill_9_at_20_random_moments_loses_nothing(script, tmp_path):
    rng = random.Random(script)
    killed = 0
    with server(0.02, 8) as url:
        for moment in range(20):
            output = tmp_path / str(moment) / "out.jsonl"
            output.parent.mkdir()
            status, _, _ = interrupted(command(script, url, output), signal.SIGKILL, after_s=rng.uniform(0.1, 1.2))
            killed += status == -signal.SIGKILL
            assert run(command(script, url, output)).returncode == 0
            assert_complete(output)
    assert killed >= 15  # else the moments were after the end


@pytest.mark.slow
def test_one_run_killed_again_and_again_goes_on(tmp_path):
    output, kept, statuses = tmp_path / "out.jsonl", [0], []
    with server(0.02, 8) as url:
        while not statuses or statuses[-1]:
            until = (output, kept[-1] + 60)
            statuses.append(interrupted(command(SCRIPTS[0], url, output), signal.SIGKILL, after_rows=until)[0])
            kept.append(rows_kept(output))
            assert kept[-1] >= kept[-2]
            assert len(statuses) < 40
    assert len(statuses) > 3
    assert_complete(output)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 3)])
def test_a_signal_writes_the_output_and_the_same_command_goes_on(number, status, tmp_path):
    rng = random.Random(number)
    with server(0.02, 8) as url:
        for moment in range(5):
            output = tmp_path / str(moment) / "out.jsonl"
            output.parent.mkdir()
            until = (output, rng.randrange(1, 250))
            got, _, said = interrupted(command(SCRIPTS[0], url, output), number, after_rows=until)
            assert got == status, said
            assert "Traceback" not in said
            partial = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
            assert 0 < len(partial) < NUM_EXAMPLES
            assert run(command(SCRIPTS[0], url, output)).returncode == 0
            rows = assert_complete(output)
            assert {row["metadata"]["sample_id"] for row in partial} <= {row["metadata"]["sample_id"] for row in rows}


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_a_server_that_never_answers(tmp_path):
    with server(60.0, 8) as url:
        arguments = command(SCRIPTS[0], url, tmp_path / "out.jsonl")
        status, took_s, _ = interrupted(arguments, signal.SIGINT, after_s=1.0)
    assert status == 130
    assert took_s < 7


@pytest.mark.slow
def test_a_server_that_dies_for_five_seconds_is_waited_for(tmp_path):
    output = tmp_path / "out.jsonl"
    with server(0.02, 8) as url:
        process = subprocess.Popen(command(SCRIPTS[1], url, output), stderr=subprocess.PIPE, text=True)
        wait_for_rows(process, output, 50)
    time.sleep(5)
    with server(0.02, 8, port=int(url.split(":")[2].split("/")[0])):
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "connection refused" in said and "answers again" in said
    assert_complete(output)
    assert output.with_suffix(".rejects.jsonl").read_bytes() == b""


@pytest.mark.parametrize("fault", ["500:5", "429:3", "503:4", "garbage:5", "empty:5", "never:40", "close:6"])
def test_a_faulty_server_costs_time_but_no_sample(fault, tmp_path):
    output = tmp_path / "out.jsonl"
    with server(0.0, 8, [fault]) as url:
        result = run(command(SCRIPTS[1], url, output, "--timeout", "0.5", num_examples=60))
    assert result.returncode == 0, result.stderr
    assert_complete(output, 60)


def test_a_full_disk_is_one_sentence_and_the_journal_stays_good(tmp_path):
    output = tmp_path / "out.jsonl"

    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with server(0.0, 8) as url:
        result = run(command(SCRIPTS[0], url, output), preexec_fn=limit_file_size)
        assert result.returncode == 1
        assert "File too large" in result.stderr and "Traceback" not in result.stderr
        kept = output.with_suffix(".journal").read_bytes()
        assert kept.endswith(b"\n") and kept.count(b"\n") > 20
        assert run(command(SCRIPTS[0], url, output)).returncode == 0
    assert_complete(output)
    assert output.with_suffix(".journal").read_bytes().startswith(kept)


def test_an_output_that_cannot_be_written_is_status_1_and_made_by_the_next_run(tmp_path, monkeypatch, capsys):
    replies, output = tmp_path / "replies.jsonl", tmp_path / "out.jsonl"
    replies.write_text('{"content": "No."}\n', encoding="utf-8")
    flags = ["--model", f"scripted:{replies}", "--output", str(output), "--num-examples", "10"]

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert v1(flags) == 1 and "No space left" in capsys.readouterr().err
    assert not output.exists() and not list(tmp_path.glob(".*unfinished"))
    monkeypatch.undo()
    assert v1(flags) == 0 and len(output.read_text("utf-8").splitlines()) == 10


def test_answers_under_way_when_a_signal_comes_are_kept(model_server, tmp_path):
    fake, output = model_server(latency_s=1.0), tmp_path / "out.jsonl"
    process = subprocess.Popen(command(SCRIPTS[0], fake.url, output), stderr=subprocess.PIPE, text=True)
    while fake.count < 8 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 3, said
    assert len(output.read_text("utf-8").splitlines()) == 8


def test_attempts_of_before_count_when_a_run_goes_on(tmp_path):
    replies, prompts, output = tmp_path / "replies.jsonl", tmp_path / "set.json", tmp_path / "out.jsonl"
    cut_off = {"content": "x", "contains": "long", "finish_reason": "length"}
    replies.write_text(f'{json.dumps(cut_off)}\n{{"content": "Short."}}\n', encoding="utf-8")
    prompts.write_text(json.dumps([{"id": "a", "question": "Be long"}, {"id": "b", "question": "Be short"}]))
    flags = ["--model", f"scripted:{replies}", "--prompt-set", str(prompts), "--num-examples", "4"]
    files = (output, output.with_suffix(".rejects.jsonl"))
    assert v1([*flags, "--output", str(output)]) == 0
    before, journal = [path.read_bytes() for path in files], output.with_suffix(".journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"label"' not in line))
    assert v1([*flags, "--output", str(output)]) == 0
    assert [path.read_bytes() for path in files] == before


def test_a_second_run_on_the_same_output_is_refused(tmp_path):
    output = tmp_path / "out.jsonl"
    with server(0.2, 8) as url:
        first = subprocess.Popen(command(SCRIPTS[0], url, output, num_examples=200), stderr=subprocess.PIPE)
        while not output.with_suffix(".journal").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        second = run(command(SCRIPTS[0], url, output, num_examples=200))
        first.communicate(timeout=60)
    assert second.returncode == 2
    assert "another run" in second.stderr
    assert first.returncode == 0
    assert_complete(output, 200)


def test_a_refused_configuration_does_not_wait_for_the_other_requests(tmp_path):
    started = time.monotonic()
    with server(0.0, 8, ["401:5", "never:1"]) as url:
        result = run(command(SCRIPTS[0], url, tmp_path / "out.jsonl"))
    assert result.returncode == 2, result.stderr
    assert "API key" in result.stderr
    assert time.monotonic() - started < 15


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_reader_of_stdout_that_does_not_read_is_not_waited_for(tmp_path):
    replies = tmp_path / "replies.jsonl"
    replies.write_text(json.dumps({"content": "I have moved it. " * 40}) + "\n", encoding="utf-8")
    script, flags = str(ROOT / "Tools" / SCRIPTS[0]), ["--num-examples", "3000", "--output", "-"]
    arguments = [sys.executable, script, "--model", f"scripted:{replies}", *flags]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert json.loads(process.stdout.readline())["label"] is False
    time.sleep(1)
    for _ in range(2):  # the second wish ends the seconds of grace
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    assert process.wait(timeout=30) == 3
    assert "Traceback" not in process.stderr.read()
