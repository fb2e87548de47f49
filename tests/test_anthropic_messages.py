"""The real anthropic SDK against a local server that speaks its protocol."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from Evaluator.backends.anthropic_batches import AnthropicBatches, BatchInDoubt, BatchRequest
from Evaluator.backends.anthropic_messages import AnthropicMessagesClient
from Evaluator.backends.endpoint_pool import Patience
from Evaluator.model_client import ConfigurationRefused, EndpointLost, SampleFailed, SamplingOptions
from Evaluator.records import Message
from tests.fakes.anthropic_server import FakeAnthropicServer

ASK = [Message("system", "Be brief."), Message("user", "Write a request")]
OPTIONS = SamplingOptions(max_tokens=64, temperature=0.7, top_p=0.9, seed=1, stop=("\nResult:",))


@pytest.fixture
def teacher(monkeypatch):
    servers = []

    def make(*replies, model="claude-test-1", **options):
        servers.append(FakeAnthropicServer(*replies).__enter__())
        monkeypatch.setenv("ANTHROPIC_BASE_URL", servers[-1].url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-secret")
        return AnthropicMessagesClient(model, patience=Patience(**{"timeout_s": 5.0, **options})), servers[-1]

    yield make
    for server in servers:
        server.__exit__()


def test_a_request_is_asked_without_sampling_parameters(teacher):
    client, server = teacher("Please open my note.")
    completion = client.complete(ASK, OPTIONS)
    assert completion.message == Message("assistant", "Please open my note.")
    assert (completion.finish_reason, completion.prompt_tokens, completion.completion_tokens) == ("stop", 11, 7)
    assert server.requests == [
        {
            "model": "claude-test-1",
            "max_tokens": 64,
            "system": "Be brief.",
            "stop_sequences": ["\nResult:"],
            "messages": [{"role": "user", "content": "Write a request"}],
        }
    ]


def test_max_tokens_shows_as_truncated(teacher):
    client, _ = teacher("Please")
    assert client.complete(ASK, SamplingOptions(max_tokens=2)).is_truncated


@pytest.mark.parametrize(
    "reply", [(429, {"retry-after": "0"}), (529, {"retry-after": "0"}), (503, {"retry-after": "0"})]
)
def test_a_busy_service_costs_no_attempts(teacher, reply):
    client, server = teacher(reply, reply, reply, "Done at last.", max_retries=0)
    assert client.complete(ASK, OPTIONS).message.content == "Done at last."
    assert len(server.requests) == 4


def test_a_fault_is_tried_again_and_then_fails_the_sample(teacher):
    client, server = teacher((500, {}), max_retries=1)
    with pytest.raises(SampleFailed) as error:
        client.complete(ASK, OPTIONS)
    assert error.value.reason == "endpoint.http_500"
    assert len(server.requests) == 2


def test_an_answer_that_the_service_filters_fails_one_request_alone(teacher):
    blocked = (400, {}, "invalid_request_error", "Output blocked by content filtering policy")
    client, server = teacher(blocked, "Fine.", blocked, max_retries=1, give_up_after_s=0.1)
    assert client.complete(ASK, OPTIONS).message.content == "Fine."
    with pytest.raises(SampleFailed, match="content filtering") as error:
        client.complete(ASK, OPTIONS)
    assert error.value.reason == "endpoint.filtered" and len(server.requests) == 4
    poor = (400, {}, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")
    client, server = teacher(poor)
    with pytest.raises(ConfigurationRefused, match="credit balance"):
        client.complete(ASK, OPTIONS)
    assert len(server.requests) == 1


def test_an_unknown_model_gives_the_models_that_there_are(teacher):
    client, _ = teacher("x", model="claude-retired-1")
    with pytest.raises(ConfigurationRefused, match=r"claude-retired-1.*claude-test-1"):
        client.complete(ASK, OPTIONS)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_variable_and_never_the_key(teacher, status):
    client, _ = teacher((status, {}))
    with pytest.raises(ConfigurationRefused, match="ANTHROPIC_API_KEY") as error:
        client.complete(ASK, OPTIONS)
    assert "sk-test-secret" not in str(error.value)


def test_no_key_at_all_is_one_sentence(teacher, monkeypatch):
    teacher("x")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(ConfigurationRefused, match="ANTHROPIC_API_KEY"):
        AnthropicMessagesClient("claude-test-1").complete(ASK, OPTIONS)


def test_half_a_character_fails_one_request_and_leaves_no_batch_in_doubt(teacher):
    client, server = teacher("Fine.")
    ask, batches = [Message("user", "\ud83d")], AnthropicBatches("claude-test-1")
    for send in (lambda: client.complete(ask, OPTIONS), lambda: batches.submit([BatchRequest("call-0", ask, OPTIONS)])):
        with pytest.raises(SampleFailed) as error:
            send()
        assert error.value.reason == "endpoint.not_sent"
    assert not server.requests and not server.batches


def test_no_server_gives_up_after_a_while(teacher):
    client, server = teacher("x", give_up_after_s=0.3)
    server.__exit__()
    with pytest.raises(EndpointLost):
        client.complete(ASK, OPTIONS)


def test_a_schema_is_sent_as_far_as_the_service_enforces_it(teacher):
    client, server = teacher('{"requests": ["a", "b"]}')
    texts = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
    schema = {
        "type": "object",
        "properties": {"requests": texts},
        "required": ["requests"],
        "additionalProperties": False,
    }
    client.complete(ASK, SamplingOptions(max_tokens=64, schema=schema))
    sent = server.requests[0]["output_config"]["format"]
    assert sent["type"] == "json_schema"
    assert sent["schema"]["required"] == ["requests"] and sent["schema"]["additionalProperties"] is False
    array = sent["schema"]["properties"]["requests"]
    assert not {"minItems", "maxItems"} & array.keys() and "minItems: 2" in array["description"]
    assert texts["minItems"] == 2, "the caller's schema stays as it is"


def test_a_refusal_shows_as_the_finish_reason(teacher):
    client, _ = teacher({"content": [], "stop_reason": "refusal"})
    assert client.complete(ASK, OPTIONS).finish_reason == "refusal"


@pytest.mark.parametrize(
    "body", [b"<html>Please sign in.</html>", b'{"id": "msg_1", "content": [', b"{}", b"[]", b'{"id": "\xff"}']
)
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
def test_a_reply_that_is_no_message_is_tried_again_and_fails_the_sample(monkeypatch, body, content_type):
    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-secret")
        patience = Patience(timeout_s=5.0, max_retries=1)
        with pytest.raises(SampleFailed) as error:
            AnthropicMessagesClient("claude-test-1", patience=patience).complete(ASK, OPTIONS)
        assert error.value.reason == "endpoint.garbage"
        batch = [BatchRequest("call-0", ASK, OPTIONS)]
        with pytest.raises(BatchInDoubt, match="may have taken"):
            AnthropicBatches("claude-test-1", patience=patience).submit(batch)
        server.shutdown()
