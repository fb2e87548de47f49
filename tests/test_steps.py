"""Steps: done ones are skipped, killed runs go on, signals reach the child, one run at a time."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from Evaluator.errors import UsageError
from Evaluator.runs.signals import Signals
from Evaluator.runs.steps import ROOT, Step, StepFailed, Steps

SLOW = "import sys, time; open(sys.argv[1], 'a').write('x'); time.sleep(60)"
RUN = (
    "import sys; from pathlib import Path; from Evaluator.console import run_main\n"
    "from Evaluator.runs.steps import Step, Steps\n"
    "def work():\n"
    "    with Steps(Path(sys.argv[1])) as steps:\n"
    "        steps.run(Step('slow', ('-c', sys.argv[2], sys.argv[3]), Path(sys.argv[3])))\n"
    "    return 0\n"
    "raise SystemExit(run_main(work))"
)


def python(name, code, path, **options):
    return Step(name, ("-c", code, str(path)), path, **options)


def adds(name, path, text="x"):
    return python(name, f"import sys; open(sys.argv[1], 'a').write({text!r})", path)


def run(state, *steps):
    with Steps(state) as running:
        for step in steps:
            running.run(step)


def records(state):
    return {one["name"]: one for one in json.loads(state.read_text("utf-8"))["steps"]}


def until(happened):
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_done_step_is_not_done_again(tmp_path, caplog):
    caplog.set_level("INFO")
    state, made = tmp_path / "state.json", tmp_path / "made here"
    run(state, adds("one", made))
    run(state, adds("one", made), adds("two", tmp_path / "two"))
    assert made.read_text() == "x"
    assert [one["status"] for one in records(state).values()] == [0, 0]
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("python -c ") and f"'{made}'" in caplog.messages[0]


def test_a_step_is_done_again_when_its_command_changed_or_its_file_is_gone(tmp_path):
    state, first, second = tmp_path / "state.json", tmp_path / "first", tmp_path / "second"
    run(state, adds("one", first), adds("two", second))
    second.unlink()
    run(state, adds("one", first), adds("two", second))
    assert (first.read_text(), second.read_text()) == ("x", "x")
    run(state, adds("one", first, "y"), adds("two", second))
    assert (first.read_text(), second.read_text()) == ("xy", "xx"), "what came after a changed step is done again"


def test_a_step_that_is_done_in_another_way_stays_done(tmp_path, caplog):
    state, made = tmp_path / "state.json", tmp_path / "made"
    step = adds("one", made)
    caplog.set_level("INFO")
    run(state, replace(step, how=("--quickly", "1")))
    assert caplog.messages[-1].endswith(" --quickly 1")
    run(state, replace(step, how=("--quickly", "2")))
    assert made.read_text() == "x" and len(caplog.messages) == 1


def test_what_came_after_a_step_whose_file_is_gone_is_done_again(tmp_path):
    state, first, second = tmp_path / "state.json", tmp_path / "first", tmp_path / "second"
    run(state, adds("one", first), adds("two", second))
    first.unlink()
    run(state, adds("one", first), adds("two", second))
    assert (first.read_text(), second.read_text()) == ("x", "xx")


REFUSES_ANOTHER = (
    "import sys; from pathlib import Path; path = Path(sys.argv[1]); wanted = sys.argv[2]\n"
    "if path.exists() and path.read_text() != wanted and '--overwrite' not in sys.argv: raise SystemExit(2)\n"
    "path.write_text(wanted)"
)


def test_a_step_whose_leftovers_are_of_something_else_begins_anew(tmp_path, caplog):
    def steps(wanted):
        command = ("-c", REFUSES_ANOTHER, str(tmp_path / "made"), wanted)
        makes = tmp_path / "done"
        made = Step("one", command, tmp_path / "made", goes_on=("--resume",), anew=("--overwrite",))
        return made, python("two", f"open({str(makes)!r}, 'a').write('x')", makes)

    caplog.set_level("INFO")
    (tmp_path / "made").write_text("another's")
    with pytest.raises(StepFailed, match="status 2"):
        run(tmp_path / "state.json", steps("mine")[0])
    assert (tmp_path / "made").read_text() == "another's", "what this run has not begun is not written over"
    (tmp_path / "made").unlink()
    run(tmp_path / "state.json", *steps("mine"))
    assert caplog.messages[-2].endswith(" --resume")
    run(tmp_path / "state.json", *steps("new"))
    assert (tmp_path / "made").read_text() == "new" and (tmp_path / "done").read_text() == "xx"
    assert records(tmp_path / "state.json")["one"]["line"].endswith(" new --overwrite")


def test_what_a_step_prints_becomes_its_file_or_goes_to_stderr(tmp_path, capfd):
    saved, made = tmp_path / "saved", tmp_path / "made"
    run(tmp_path / "s.json", python("save", "print('data')", saved, saves_stdout=True))
    run(tmp_path / "s.json", python("make", "import sys; open(sys.argv[1], 'w'); print('told')", made))
    assert saved.read_text() == "data\n"
    captured = capfd.readouterr()
    assert (captured.out, "told" in captured.err) == ("", True)
    with pytest.raises(StepFailed):
        run(tmp_path / "s.json", python("half", "print('half'); exit(1)", tmp_path / "half", saves_stdout=True))
    assert not [path for path in tmp_path.iterdir() if "half" in path.name]


def test_what_a_step_prints_goes_into_a_folder_that_was_not_there(tmp_path):
    saved = tmp_path / "new" / "saved.txt"
    run(tmp_path / "s.json", python("save", "print('data')", saved, saves_stdout=True))
    assert saved.read_text() == "data\n"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("exit(1)", 1, "ended with status 1"),
        ("exit(2)", 2, "ended with status 2"),
        ("exit(3)", 3, "stopped early: run the same command again"),
        ("exit(130)", 130, "stopped early: run the same command again"),
        ("import os; os.kill(os.getpid(), 9)", 1, "was ended by signal 9"),
        ("exit(0)", 1, "has not made"),
    ],
)
def test_a_failing_step_ends_the_run_with_its_status(tmp_path, code, status, said):
    state = tmp_path / "state.json"
    with pytest.raises(StepFailed, match=said) as failed:
        run(state, python("bad", code, tmp_path / "made"), adds("next", tmp_path / "next"))
    assert failed.value.status == status
    assert not (tmp_path / "next").exists() and "next" not in records(state)
    with pytest.raises(StepFailed):
        run(state, python("bad", code, tmp_path / "made"))


def test_a_file_that_is_no_state_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(UsageError, match="cannot read the state"):
        run(tmp_path / "state.json")


def start(tmp_path):
    """A run of a step that would take a minute; once its child has begun."""
    made = tmp_path / "made"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, tmp_path / "state.json", SLOW, made],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(made.exists)
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 3)])
def test_a_signal_reaches_the_child_and_ends_the_run(tmp_path, number, status):
    process = start(tmp_path)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == status
    assert "run the same command again to go on" in said.splitlines()[-1]
    run(tmp_path / "state.json", adds("slow", tmp_path / "made"))
    assert Path(tmp_path / "made").read_text() == "xx"


def test_a_second_run_is_refused_while_the_first_or_its_orphan_lives(tmp_path):
    process = start(tmp_path)
    with pytest.raises(UsageError, match="another run is at work"):
        run(tmp_path / "state.json")
    process.kill()
    process.wait()
    with pytest.raises(UsageError, match="another run is at work"):  # its child still writes
        run(tmp_path / "state.json")
    os.killpg(process.pid, signal.SIGKILL)
    until(lambda: _is_free(tmp_path / "state.json"))
    assert records(tmp_path / "state.json")["slow"]["status"] is None
    run(tmp_path / "state.json", adds("slow", tmp_path / "made"))


def _is_free(state):
    try:
        run(state)
    except UsageError:
        return False
    return True


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals")
def test_a_closed_terminal_is_told_of_twice_and_counts_once():
    with Signals() as signals:
        signals.interrupt = False
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert (signals.received, signals.status) == ([signal.SIGHUP], 3)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals")
def test_what_nohup_started_goes_on_when_the_terminal_is_closed():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)
