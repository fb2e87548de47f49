from types import SimpleNamespace

import pytest

from Evaluator.errors import UsageError
from Evaluator.model_client import Stopped
from Evaluator.model_flags import adapter_name, answering_client, resolve_model_arguments, writing_client
from Evaluator.runs.clients import Clients
from Tools.prompts.prompt_flags import cannot_write, check_prompt_arguments
from Tools.selfplay_generator import build_parser
from Tools.selfplay_generator_v2 import build_parser as build_v2_parser


@pytest.mark.parametrize("key", ["sk-top-secret\nline two", "sk-top-secret\u20ac"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as error:
        answering_client(build_parser().parse_args(["--model", "x", "--output", "-"]))
    assert "secret" not in str(error.value)


def test_a_line_end_after_the_key_is_no_part_of_it(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\r\n")
    flags = ["--model", "x", "--output", "-", "--api-key-env", "MY_KEY"]
    client = answering_client(build_parser().parse_args(flags))
    assert client._headers["Authorization"] == "Bearer sk-secret"


def test_a_teacher_elsewhere_gets_no_key_that_it_was_not_given(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("TEACHER_KEY", "sk-teacher")
    args = build_parser().parse_args(["--model", "x", "--output", "-"])
    assert "Authorization" not in writing_client(args, "gpt", ["http://teacher/v1"], "")._headers
    teacher = writing_client(args, "gpt", ["http://teacher/v1"], "TEACHER_KEY")
    assert teacher._headers["Authorization"] == "Bearer sk-teacher"


@pytest.mark.parametrize(("flag", "is_used"), [("--no-use-proxy", False), ("--use-proxy", True)])
def test_claude_is_reached_through_a_proxy_only_when_asked(monkeypatch, flag, is_used):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    args = build_parser().parse_args(["--output", "-", flag])
    client = writing_client(args, "claude-test-1")
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


class FakeEmbedded:
    """Notes what it was made with instead of loading it."""

    def __init__(self, path, adapter, writer_adapter, **_):
        self.adapter = adapter
        self.writer = SimpleNamespace(adapter=writer_adapter) if writer_adapter else self


def clients_of(*flags):
    args = build_v2_parser().parse_args(["--output", "-", *flags])
    resolve_model_arguments(args)
    check_prompt_arguments(args)
    return args, Clients(args)


def adapter_behind(metered):
    return adapter_name(getattr(metered._client, "adapter", None))


@pytest.fixture
def no_weights(monkeypatch):
    monkeypatch.setattr("Evaluator.backends.embedded.EmbeddedClient", FakeEmbedded)
    monkeypatch.setattr("Evaluator.backends.default_weights.default_weights", lambda: None)


@pytest.mark.parametrize(
    ("flags", "method", "answers", "writes"),
    [
        ([], "self", "starter", "starter writer"),
        (["--adapter", "none"], "template", None, None),
        (["--adapter", "none", "--prompt-method", "self"], "self", None, None),
        (["--adapter", "none", "--writer-adapter", "w.gguf"], "self", None, "w.gguf"),
        (["--adapter", "mine.gguf"], "self", "mine.gguf", "starter writer"),
        (["--adapter", "mine.gguf", "--writer-adapter", "none"], "self", "mine.gguf", "mine.gguf"),
        (["--writer-adapter", "w.gguf"], "self", "starter", "w.gguf"),
        (["--prompt-method", "template"], "template", "starter", "starter"),
        (["--model", "m.gguf"], "self", None, None),
        (["--model", "m.gguf", "--adapter", "a.gguf", "--writer-adapter", "w.gguf"], "self", "a.gguf", "w.gguf"),
        (["--model", "m"], "self", None, None),
        (["--adapter", "none", "--writer-adapter", "none"], "template", None, None),
        (["--adapter", "none", "--writer-adapter", "w.gguf"], "self", None, "w.gguf"),
    ],
)
def test_which_adapters_answer_and_write(no_weights, flags, method, answers, writes):
    args, clients = clients_of(*flags)
    assert list(args.prompt_method) == [method]
    assert (adapter_behind(clients.answering()), adapter_behind(clients.writing())) == (answers, writes)


@pytest.mark.parametrize(
    ("flags", "answers", "writes"),
    [
        ([], "starter", "starter writer"),
        (["--adapter", "none"], None, "starter writer"),
        (["--model", "m"], None, "starter writer"),
        (["--model", "m.gguf", "--writer-adapter", "w.gguf"], None, "w.gguf"),
        (["--model", "m.gguf", "--writer-adapter", "none"], None, None),
    ],
)
def test_which_adapter_an_embedded_teacher_has(no_weights, flags, answers, writes):
    _, clients = clients_of("--prompt-generator-model", "embedded", *flags)
    assert adapter_behind(clients.answering()) == answers
    assert adapter_behind(clients.teacher("embedded", (), None)) == writes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--writer-adapter", "w.gguf", "--model", "m"], "for an embedded model that writes requests: self has none"),
        (["--writer-adapter", "w.gguf", "--prompt-method", "template"], "writes requests: template has none"),
        (["--writer-adapter", "none", "--prompt-method", "template"], "writes requests: template has none"),
        (["--writer-adapter", "none", "--model", "m"], "for an embedded model that writes requests: self has none"),
        (
            ["--prompt-generator-model", "t.gguf", "--prompt-generator-base-url", "http://x/v1"],
            "t.gguf uses no --prompt-generator-base-url",
        ),
        (
            ["--prompt-generator-model", "scripted:t.jsonl", "--prompt-generator-base-url", "http://x/v1"],
            "scripted:t.jsonl uses no --prompt-generator-base-url",
        ),
        (
            ["--prompt-method", "self,teacher", "--prompt-generator-model", "t.gguf", "--writer-adapter", "w.gguf"],
            "fits one model, and embedded and t.gguf write requests",
        ),
    ],
)
def test_flags_about_writers_that_could_do_nothing_are_refused(flags, said):
    with pytest.raises(UsageError, match=said):
        clients_of(*flags)


RAW_TEACHER = ["--prompt-generator-model", "embedded", "--writer-adapter", "none"]


@pytest.mark.parametrize(
    ("flags", "is_warned"),
    [
        ([], False),
        (["--adapter", "none", "--prompt-method", "self"], True),
        (["--writer-adapter", "none"], True),
        (["--adapter", "mine.gguf", "--writer-adapter", "none"], False),
        (["--adapter", "none", "--prompt-generator-model", "embedded"], False),
        (["--model", "m", *RAW_TEACHER], True),
        (["--model", "m.gguf", "--adapter", "a.gguf", *RAW_TEACHER], True),
    ],
)
def test_bundled_weights_that_cannot_write_are_known(flags, is_warned):
    assert cannot_write(clients_of(*flags)[0]) is is_warned
