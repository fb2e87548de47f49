"""A command against a server that is started for it: waits, passes on status and signals, leaves nothing running."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from Evaluator.errors import ReportedError
from Tools import with_server

ROOT = Path(__file__).resolve().parents[1]
SERVER = """
import http.server, os, subprocess, sys, time
time.sleep(float(sys.argv[2]))
began = time.monotonic()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[3], "w").write(str(child.pid))
open(sys.argv[3] + ".own", "w").write(str(os.getpid()))
class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_loading = self.path == "/health" and time.monotonic() - began < float(sys.argv[4])  # as llama.cpp's is
        self.send_response(503 if is_loading else 200 if self.path in ("/v1/models", "/health") else 404)
        self.end_headers()
        self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Models).serve_forever()
"""


@pytest.fixture
def place(tmp_path):
    """(server's command line, its URL, the file with the process that it starts)"""
    (tmp_path / "server.py").write_text(SERVER)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    line = f'"{sys.executable}" "{tmp_path}/server.py" {port} 0.3 "{tmp_path}/child" 0.7'
    return line, f"http://127.0.0.1:{port}/v1", tmp_path / "child"


def run(line, url, *command, **options):
    words = [sys.executable, "Tools/with_server.py", "--server", line, "--base-url", url, "--", *command]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **options)


def is_gone(child):
    """Whether the process that the server started has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{child.read_text()}/stat")
        if not stat.exists() or stat.read_text().split()[2] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_server_that_tells_its_models_before_it_has_loaded_them_is_waited_for(place):
    line, url, _ = place
    asks = "import sys, urllib.request as u; u.urlopen(sys.argv[1].replace('v1', 'health'))"
    assert run(line, url, "python", "-c", asks, url).returncode == 0


ASKS = "import sys, urllib.request as u; u.urlopen(sys.argv[1] + '/models'); print(sys.stdin.read()); sys.exit(7)"


def test_the_command_runs_when_the_server_answers_and_its_status_and_streams_are_its_own(place):
    line, url, child = place
    done = run(line, url, "python", "-c", ASKS, url, input="what is asked")
    assert (done.returncode, done.stdout) == (7, "what is asked\n"), done.stderr
    assert is_gone(child) and not with_server.answers(url)


def test_a_server_that_is_there_already_is_not_taken_for_the_one_to_start(place):
    line, url, child = place
    there = subprocess.Popen(shlex.split(line))
    deadline = time.monotonic() + 20
    while not with_server.answers(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    done = run(line, url, "python", "-c", "raise SystemExit(0)")
    there.kill()
    os.kill(int(child.read_text()), signal.SIGKILL)
    assert done.returncode == 1 and f"a server answers at {url} already" in done.stderr


def test_a_second_command_does_not_take_the_first_ones_server_for_its_own(place):
    line, url, _ = place
    late = line.replace(" 0.3 ", " 5 ")
    words = [sys.executable, "Tools/with_server.py", "--server", late, "--base-url", url, "--"]
    first = subprocess.Popen([*words, "python", "-c", "raise SystemExit(7)"], cwd=ROOT)
    time.sleep(2)
    second = run(line, url, "python", "-c", "raise SystemExit(0)")
    assert second.returncode == 1 and f"another command has a server at {url}" in second.stderr
    assert first.wait(timeout=60) == 7


def test_a_server_that_has_ended_while_another_one_answers_is_not_used(monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(4)"])
    ended.wait()
    monkeypatch.setattr(with_server, "answers", lambda _: True)
    with pytest.raises(ReportedError, match="the server ended with status 4, and another one answers"):
        with_server.wait_for_answer(ended, "http://localhost:1/v1", 5.0, None)


def test_a_command_whose_server_died_has_failed(place):
    line, url, child = place
    kills = "import os, sys; os.kill(int(open(sys.argv[1]).read()), 9)"
    done = run(line, url, "python", "-c", kills, f"{child}.own")
    assert done.returncode == 1 and "the server ended with status -9 before the command did" in done.stderr
    os.kill(int(child.read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    "line, status, said",
    [
        (f'"{sys.executable}" -c "raise SystemExit(5)"', 1, "the server ended with status 5 before it answered"),
        ("no-such-program --port 1", 2, "cannot start the server 'no-such-program --port 1'"),
        ("'", 2, "cannot start the server"),
    ],
)
def test_a_server_that_does_not_start_is_a_sentence(place, line, status, said):
    done = run(line, place[1], "python", "-c", "print('asked')")
    assert done.returncode == status and said in done.stderr and not done.stdout
    assert "Traceback" not in done.stderr


def test_a_server_that_takes_too_long_is_a_sentence(place):
    line = f'"{sys.executable}" -c "import time; time.sleep(60)"'
    words = [sys.executable, "Tools/with_server.py", "--server", line, "--base-url", place[1], "--wait-s", "1"]
    done = subprocess.run([*words, "--", "true"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "did not answer" in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_reaches_the_command_and_the_server_ends_too(place, tmp_path, name):
    line, url, child = place
    command = f"import signal, sys, time; signal.signal(signal.{name}, lambda *_: sys.exit(3)); "
    command += "open(sys.argv[1], 'w'); time.sleep(60)"
    words = [sys.executable, "Tools/with_server.py", "--server", line, "--base-url", url, "--"]
    running = subprocess.Popen([*words, "python", "-c", command, str(tmp_path / "began")], cwd=ROOT)
    deadline = time.monotonic() + 20
    while not (tmp_path / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(getattr(signal, name))
    assert running.wait(timeout=30) == 3
    assert is_gone(child)


def test_a_signal_while_the_server_still_loads_ends_both(place):
    line, url, child = place
    words = [sys.executable, "Tools/with_server.py", "--server", f"{line.removesuffix('0.7')}60", "--base-url", url]
    running = subprocess.Popen([*words, "--", "python", "-c", ""], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not (child.exists() and child.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert "stopped before the server answered" in running.communicate(timeout=30)[1]
    assert running.returncode == 3 and is_gone(child)


def test_a_server_that_does_not_want_to_end_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(with_server, "_LONGEST_GOODBYE_S", 0.5)
    code = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    code += "pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
    ignores = tmp_path / "ignores"
    with with_server.started(shlex.join([sys.executable, "-c", code, str(ignores)]), None) as server:
        deadline = time.monotonic() + 20
        while not ignores.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert server.poll() == -signal.SIGKILL


def test_a_command_that_a_signal_ended_has_failed(place):
    assert run(*place[:2], "python", "-c", "import os; os.kill(os.getpid(), 9)").returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_neither_server_nor_command_outlives_a_killed_run(place, tmp_path):
    line, url, child = place
    words = [sys.executable, "Tools/with_server.py", "--server", line, "--base-url", url, "--"]
    command = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    began = tmp_path / "began"
    running = subprocess.Popen([*words, "python", "-c", command, str(began)], cwd=ROOT)
    deadline = time.monotonic() + 20
    while not (began.exists() and began.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert is_gone(began)
    while with_server.answers(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not with_server.answers(url)
    os.kill(int(child.read_text()), signal.SIGKILL)
