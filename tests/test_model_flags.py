import pytest

from Evaluator.errors import UsageError
from Evaluator.model_client import Stopped
from Evaluator.model_flags import client_from, teacher_from
from Evaluator.runs.clients import Clients
from Tools.selfplay_generator import build_parser


@pytest.mark.parametrize("key", ["sk-top-secret\nline two", "sk-top-secret\u20ac"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as error:
        client_from(build_parser().parse_args(["--model", "x", "--output", "-"]))
    assert "secret" not in str(error.value)


def test_a_line_end_after_the_key_is_no_part_of_it(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\r\n")
    flags = ["--model", "x", "--output", "-", "--api-key-env", "MY_KEY"]
    client = client_from(build_parser().parse_args(flags))
    assert client._headers["Authorization"] == "Bearer sk-secret"


def test_a_teacher_elsewhere_gets_no_key_that_it_was_not_given(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("TEACHER_KEY", "sk-teacher")
    args = build_parser().parse_args(["--model", "x", "--output", "-"])
    assert "Authorization" not in teacher_from(args, "gpt", ["http://teacher/v1"], "")._headers
    teacher = teacher_from(args, "gpt", ["http://teacher/v1"], "TEACHER_KEY")
    assert teacher._headers["Authorization"] == "Bearer sk-teacher"


@pytest.mark.parametrize(("flag", "is_used"), [("--no-use-proxy", False), ("--use-proxy", True)])
def test_claude_is_reached_through_a_proxy_only_when_asked(monkeypatch, flag, is_used):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    args = build_parser().parse_args(["--output", "-", flag])
    client = teacher_from(args, "claude-test-1")
    assert client._sdk._client.trust_env is is_used
    client.close()


def test_batches_are_for_claude_and_closed_with_the_other_clients(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    clients = Clients(build_parser().parse_args(["--output", "-"]))
    with pytest.raises(UsageError, match="gpt"):
        clients.batches("gpt")
    batches = clients.batches("claude-test-1")
    clients.stop()
    with pytest.raises(Stopped):
        batches.state("msgbatch_1")
    clients.close()
    assert batches._sdk._client.is_closed
