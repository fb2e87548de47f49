import pytest

from Evaluator.backends.default_weights import STARTER_ADAPTER, STARTER_WRITER
from Evaluator.errors import UsageError
from Evaluator.model_client import Stopped
from Evaluator.model_flags import adapter_name, client_from, resolve_model_arguments, teacher_from
from Evaluator.runs.clients import Clients
from Tools.prompts.prompt_flags import check_prompt_arguments
from Tools.selfplay_generator import build_parser
from Tools.selfplay_generator_v2 import build_parser as build_v2_parser


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


@pytest.mark.parametrize(
    ("flags", "method", "adapter", "writer"),
    [
        ([], "self", "starter", "starter writer"),
        (["--adapter", "none"], "template", None, None),
        (["--adapter", "none", "--prompt-method", "self"], "self", None, None),
        (["--adapter", "mine.gguf"], "self", "mine.gguf", "starter writer"),
        (["--adapter", "mine.gguf", "--writer-adapter", "none"], "self", "mine.gguf", None),
        (["--writer-adapter", "w.gguf"], "self", "starter", "w.gguf"),
        (["--prompt-method", "template"], "template", "starter", None),
        (["--prompt-generator-model", "embedded"], "teacher", "starter", "starter writer"),
        (["--prompt-generator-model", "embedded", "--model", "m"], "teacher", None, None),
        (["--model", "m.gguf"], "self", None, None),
        (["--model", "m.gguf", "--writer-adapter", "w.gguf"], "self", None, "w.gguf"),
        (["--model", "m"], "self", None, None),
    ],
)
def test_which_adapters_answer_and_write(flags, method, adapter, writer):
    args = build_v2_parser().parse_args(["--output", "-", *flags])
    resolve_model_arguments(args)
    check_prompt_arguments(args)
    assert list(args.prompt_method) == [method]
    assert (adapter_name(args.adapter), adapter_name(args.writer_adapter)) == (adapter, writer)
    assert (args.adapter == STARTER_ADAPTER, args.writer_adapter == STARTER_WRITER) == (
        adapter == "starter",
        writer == "starter writer",
    )


@pytest.mark.parametrize("flags", [["--model", "m"], ["--prompt-method", "template"]])
def test_a_writer_adapter_that_could_do_nothing_is_refused(flags):
    args = build_v2_parser().parse_args(["--output", "-", "--writer-adapter", "w.gguf", *flags])
    resolve_model_arguments(args)
    with pytest.raises(UsageError, match="--writer-adapter is for an embedded model that writes requests"):
        check_prompt_arguments(args)
