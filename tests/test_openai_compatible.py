import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from Evaluator.backends.endpoint_pool import Patience, retry_after_s
from Evaluator.backends.openai_compatible import OpenAICompatibleClient
from Evaluator.model_client import (
    ConfigurationRefused,
    EndpointLost,
    SampleFailed,
    SamplingOptions,
    Stopped,
    cut_at_stop,
)
from Evaluator.records import Message

ASK = [Message("user", "Move my note")]
OPTIONS = SamplingOptions(max_tokens=64, temperature=0.7, top_p=0.9, seed=5, stop=("\nResult:",))


@pytest.fixture
def client_for():
    made = []

    def make(*urls, **options):
        known = {name: options.pop(name) for name in ("max_retries", "give_up_after_s") if name in options}
        patience = Patience(timeout_s=options.pop("timeout_s", 5.0), **known)
        made.append(OpenAICompatibleClient("fake-model", urls, patience=patience, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def unused_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_sampling_parameters_and_messages_are_sent(model_server, client_for):
    server = model_server()
    completion = client_for(server.url, api_key="secret").complete(ASK, OPTIONS)
    sent = server.requests[-1]
    assert sent["messages"] == [{"role": "user", "content": "Move my note"}]
    assert {key: sent[key] for key in ("model", "max_tokens", "temperature", "top_p", "seed", "stop")} == {
        "model": "fake-model",
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 5,
        "stop": ["\nResult:"],
    }
    assert "authorization: bearer secret" in server.headers[-1].lower()
    assert completion.message.content.startswith("tool_call: ")
    assert completion.completion_tokens > 0


def test_what_is_not_set_is_not_sent(model_server, client_for):
    server = model_server()
    client_for(server.url).complete(ASK, SamplingOptions(max_tokens=8))
    assert not {"temperature", "top_p", "seed", "stop", "response_format"} & server.requests[-1].keys()
    assert "authorization" not in server.headers[-1].lower()


def test_a_schema_is_sent_as_the_form_of_the_answer(model_server, client_for):
    server = model_server()
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    client_for(server.url).complete(ASK, SamplingOptions(max_tokens=8, schema=schema))
    assert server.requests[-1]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def test_a_result_that_the_model_wrote_is_cut_off(model_server, client_for):
    server = model_server(replies=['tool_call: a\narguments: {}\n\nResult: {"success": true}'])
    content = client_for(server.url).complete(ASK, OPTIONS).message.content
    assert content == "tool_call: a\narguments: {}\n"
    assert cut_at_stop("no mark", OPTIONS.stop) == ("no mark", False)


@pytest.mark.parametrize("fault", ["500", "502", "garbage", "empty", "close"])
def test_a_fault_of_the_server_is_tried_again(model_server, client_for, fault):
    server = model_server(faults={fault: 2})
    client = client_for(server.url)
    for _ in range(4):
        assert client.complete(ASK, OPTIONS).message.content
    assert server.count > 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "endpoint.http_500"),
        ("garbage", "endpoint.garbage"),
        ("empty", "endpoint.empty"),
        ("close", "endpoint.connection_lost"),
        ("never", "endpoint.timeout"),
    ],
)
def test_a_fault_that_stays_fails_the_sample_with_its_reason(model_server, client_for, fault, reason):
    server = model_server(faults={fault: 1})
    with pytest.raises(SampleFailed) as error:
        client_for(server.url, max_retries=1, timeout_s=0.3).complete(ASK, OPTIONS)
    assert error.value.reason == reason
    assert server.count == 2


def test_a_model_that_says_nothing_is_no_server_that_is_down(model_server, client_for, caplog):
    caplog.set_level("INFO")
    client = client_for(model_server(faults={"empty": 1}).url, max_retries=1, give_up_after_s=0.3)
    for _ in range(4):
        with pytest.raises(SampleFailed, match="empty answer"):
            client.complete(ASK, OPTIONS)
    assert "trying again" not in caplog.text


def test_http_400_where_others_are_taken_is_about_one_request(model_server, client_for):
    server = model_server(faults={"400": 2})
    client = client_for(server.url, max_retries=1)
    assert client.complete(ASK, OPTIONS) and client.complete(ASK, OPTIONS), "the second is refused once"
    server.faults = {"400": 1}
    with pytest.raises(SampleFailed, match="made to fail") as error:
        client.complete(ASK, OPTIONS)
    assert error.value.reason == "endpoint.http_400"


def test_a_wrong_path_at_lm_studio_is_told(model_server, client_for):
    server = model_server()
    server.completion = lambda *_: {"error": "Unexpected endpoint or method. (POST /chat/completions)"}
    with pytest.raises(ConfigurationRefused, match=r"Unexpected endpoint.*end in /v1"):
        client_for(server.url).complete(ASK, OPTIONS)
    server.completion = lambda *_: {"error": {"message": "no tokens\nleft"}}
    with pytest.raises(SampleFailed, match="no tokens left"):
        client_for(server.url, max_retries=0).complete(ASK, OPTIONS)


@pytest.mark.parametrize("url", ["http://192.168.1..5:1234/v1", "http://:1234/v1", "http://localhost:99999/v1"])
def test_what_is_no_address_is_told(client_for, url):
    with pytest.raises(ConfigurationRefused, match="is no address"):
        client_for(url, give_up_after_s=0.1).complete(ASK, OPTIONS)


def test_time_in_which_nobody_asks_is_no_time_without_success(model_server, client_for):
    server = model_server(faults={"500": 1})
    client = client_for(server.url, max_retries=0, give_up_after_s=0.5)
    with pytest.raises(SampleFailed):
        client.complete(ASK, OPTIONS)
    time.sleep(0.7)
    with pytest.raises(SampleFailed):
        client.complete(ASK, OPTIONS)


@pytest.mark.parametrize("fault", ["429", "503"])
def test_a_busy_server_costs_no_attempts(model_server, client_for, fault):
    server = model_server(faults={fault: 1})
    client = client_for(server.url, max_retries=0)
    threading.Timer(0.6, server.faults.clear).start()
    assert client.complete(ASK, OPTIONS).message.content
    assert server.count > 3


def test_retry_after_holds_all_workers_back(model_server, client_for):
    server = model_server(faults={"429": 1}, retry_after="1")
    client = client_for(server.url, concurrency=4)
    with pytest.raises(Stopped):
        threading.Timer(0.4, client.stop).start()
        client.complete(ASK, OPTIONS)
    assert server.count == 1


def test_retry_after_holds_the_other_workers_back_too(model_server, client_for):
    server = model_server(faults={"429": 1}, retry_after="2")
    client = client_for(server.url, concurrency=4)

    def ask():
        with contextlib.suppress(Stopped):
            client.complete(ASK, OPTIONS)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for number, thread in enumerate(threads):
        thread.start()
        time.sleep(0.5 if number == 0 else 0.1)
    client.stop()
    for thread in threads:
        thread.join()
    assert server.count == 1


def test_a_retry_after_may_be_a_date():
    then = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    assert 27 < retry_after_s(then) <= 30
    assert [retry_after_s(text) for text in (None, "2.5", "-3", "soon")] == [None, 2.5, 0.0, None]


def test_an_endpoint_comes_back_after_a_request_that_did_not_fit(model_server, client_for):
    server = model_server(faults={"context": 1})
    client = client_for(server.url, give_up_after_s=6.0)
    with pytest.raises(SampleFailed):
        client.complete(ASK, OPTIONS)
    server.__exit__()
    threading.Timer(0.5, lambda: model_server(port=server.port)).start()
    assert client.complete(ASK, OPTIONS).message.content


def test_an_answer_that_is_cut_off_in_a_made_up_result_is_whole(model_server, client_for):
    server = model_server()
    message = {"role": "assistant", "content": 'tool_call: a\narguments: {}\n\nResult: {"succ'}
    server.completion = lambda *_: {"choices": [{"finish_reason": "length", "message": message}]}
    completion = client_for(server.url).complete(ASK, OPTIONS)
    assert (completion.message.content, completion.is_truncated) == ("tool_call: a\narguments: {}\n", False)


def test_a_refused_connection_costs_no_attempts_and_is_waited_for(model_server, client_for):
    url = unused_url()
    client = client_for(url, max_retries=0)
    start = threading.Timer(0.7, lambda: model_server(port=int(url.split(":")[2].split("/")[0])))
    start.start()
    assert client.complete(ASK, OPTIONS).message.content
    start.join()


def test_nothing_but_failures_gives_up(client_for, caplog):
    started = time.monotonic()
    with pytest.raises(EndpointLost, match=r"connection refused.*--base-url"):
        client_for(unused_url(), give_up_after_s=0.5).complete(ASK, OPTIONS)
    assert 0.5 <= time.monotonic() - started < 4


def test_one_request_that_hangs_does_not_end_a_healthy_run(model_server, client_for):
    good, hanging = model_server(latency_s=0.01), model_server(faults={"never": 1})
    client = client_for(good.url, hanging.url, concurrency=2, timeout_s=0.6, give_up_after_s=0.6)
    stop_at = time.monotonic() + 2.5

    def work():
        while time.monotonic() < stop_at:
            assert client.complete(ASK, OPTIONS)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work) for _ in range(3)]:
            done.result()
    assert hanging.count > 1


def test_a_retry_after_of_nothing_is_no_spin(model_server, client_for):
    server = model_server(faults={"429": 1}, retry_after="0")
    client = client_for(server.url)
    threading.Timer(1.0, client.stop).start()
    with pytest.raises(Stopped):
        client.complete(ASK, OPTIONS)
    assert server.count < 15


@pytest.mark.parametrize("body", ["[" * 200_000, '{"choices": [{"message": {"content": ["x"]}}]}', "null", "[]"])
def test_odd_replies_are_garbage_and_no_crash(model_server, client_for, body):
    server = model_server()
    server.completion = lambda request, number: body
    with pytest.raises(SampleFailed) as error:
        client_for(server.url, max_retries=0).complete(ASK, OPTIONS)
    assert error.value.reason == "endpoint.garbage"


@pytest.mark.parametrize("count", [-1, True, 2.5, "3", None])
def test_odd_token_counts_are_unknown(model_server, client_for, count):
    message = {"role": "assistant", "content": "Yes."}
    usage = {"prompt_tokens": count, "completion_tokens": 2}
    server = model_server()
    server.completion = lambda request, number: json.dumps({"choices": [{"message": message}], "usage": usage})
    completion = client_for(server.url).complete(ASK, OPTIONS)
    assert (completion.prompt_tokens, completion.completion_tokens) == (None, 2)


def test_an_answer_that_the_server_broke_off_is_no_data(model_server, client_for):
    server = model_server()
    choice = {"finish_reason": "abort", "message": {"role": "assistant", "content": "I will"}}
    server.completion = lambda request, number: {"choices": [choice]}
    with pytest.raises(SampleFailed) as error:
        client_for(server.url, max_retries=0).complete(ASK, OPTIONS)
    assert error.value.reason == "endpoint.broken_off"


def test_work_is_shared_and_a_dead_endpoint_is_set_aside(model_server, client_for):
    servers = [model_server(latency_s=0.02), model_server(latency_s=0.02)]
    client = client_for(unused_url(), *(server.url for server in servers), concurrency=8)
    threads = [threading.Thread(target=client.complete, args=(ASK, OPTIONS)) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert servers[0].count + servers[1].count == 60
    assert min(servers[0].count, servers[1].count) > 15


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", ["API key", "MY_KEY"]),
        ("403", ["API key"]),
        ("404", ["fake-model", "other-model", "--model"]),
        ("400", ["HTTP 400", "made to fail"]),
        ("302", ["redirects", "--base-url"]),
    ],
)
def test_a_refused_configuration_stops_at_once_and_says_what_to_do(model_server, client_for, fault, words):
    server = model_server(faults={fault: 1})
    with pytest.raises(ConfigurationRefused) as error:
        client_for(server.url, api_key="top-secret", api_key_env="MY_KEY").complete(ASK, OPTIONS)
    assert all(word in str(error.value) for word in words)
    assert "top-secret" not in str(error.value)
    assert server.count == 1


def test_a_prompt_that_does_not_fit_fails_that_sample_only(client_for, model_server):
    server = model_server()
    server._spoil = lambda connection, fault: connection.reply(
        400, {"error": {"message": "request (6031 tokens) exceeds the available context size (2048 tokens)"}}
    )
    server.faults = {"400": 1}
    with pytest.raises(SampleFailed) as error:
        client_for(server.url).complete(ASK, OPTIONS)
    assert error.value.reason == "endpoint.context_overflow"


def test_an_answer_of_thoughts_alone_is_truncated_and_not_empty(client_for, model_server):
    server = model_server()
    choice = {"finish_reason": "length", "message": {"role": "assistant", "content": None}}
    server.completion = lambda request, number: {"choices": [choice], "usage": None}
    assert client_for(server.url).complete(ASK, OPTIONS).is_truncated


def test_native_tool_calls_are_kept_as_sent(client_for, model_server):
    server = model_server()
    native = [{"id": "x", "type": "function", "function": {"name": "a", "arguments": json.dumps({"b": 1})}}]
    choice = {"finish_reason": "tool_calls", "message": {"role": "assistant", "content": None, "tool_calls": native}}
    server.completion = lambda request, number: {"choices": [choice]}
    assert list(client_for(server.url).complete(ASK, OPTIONS).message.tool_calls) == native


def test_proxies_are_used_only_when_asked(client_for, model_server, monkeypatch):
    server = model_server()
    monkeypatch.setenv("HTTP_PROXY", unused_url())
    monkeypatch.setenv("NO_PROXY", "")
    assert client_for(server.url).complete(ASK, OPTIONS)
    with pytest.raises(EndpointLost):
        client_for(server.url, use_proxy=True, give_up_after_s=0.3).complete(ASK, OPTIONS)
