"""A teacher that writes several requests a call: the real anthropic SDK against a local server."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from Evaluator.backends.anthropic_messages import AnthropicMessagesClient
from Evaluator.backends.endpoint_pool import Patience
from Evaluator.backends.openai_compatible import OpenAICompatibleClient
from Evaluator.errors import STOPPED_EARLY
from Evaluator.model_client import Completion, ConfigurationRefused, EndpointLost, SampleFailed, Stopped
from Evaluator.records import Message
from Evaluator.runs.attempts import UnusablePrompt
from tests.fakes.anthropic_server import FakeAnthropicServer, write_all
from Tools.prompts.orders import messages_for, most_tokens, options_for, texts_in
from Tools.prompts.prompts_file import PromptsFile
from Tools.prompts.teacher import Order, Teacher
from Tools.prompts.token_budget import BudgetSpent

ORDERS = [Order(f"id-{number}", f"about topic {number}") for number in range(200)]
ONE_TRY = Patience(timeout_s=5.0, max_retries=0, give_up_after_s=0.3)


@pytest.fixture
def service(monkeypatch):
    """Starts a server; gives it and a client of it."""
    servers, clients = [], []

    def start(*replies, model="claude-test-1", patience=ONE_TRY, **options):
        servers.append(FakeAnthropicServer(*replies or [write_all], **options).__enter__())
        monkeypatch.setenv("ANTHROPIC_BASE_URL", servers[-1].url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-secret")
        clients.append(AnthropicMessagesClient(model, patience=patience))
        return servers[-1], clients[-1]

    yield start
    for client in clients:
        client.close()
    for server in servers:
        server.__exit__()


def teacher_of(client, kept=None, *, per_call=5, max_tokens=100, max_teacher_tokens=None):
    return Teacher(
        "claude-test-1",
        client,
        kept or PromptsFile(None),
        per_call=per_call,
        max_tokens=max_tokens,
        temperature=(0.7, 1.0),
        max_teacher_tokens=max_teacher_tokens,
    )


def ask(teacher, number, others=ORDERS):
    return teacher.text(ORDERS[number], lambda: others, random.Random(number))


def ask_all(teacher, numbers, threads=32):
    """Texts, or the errors that came, of all orders asked for at once."""

    def ask_one(number):
        try:
            return ask(teacher, number, ORDERS[number:]).text
        except Exception as error:
            return error

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(ask_one, numbers))


# -- one call ---------------------------------------------------------------------------------------------------------


def test_one_call_writes_the_order_and_its_neighbours(service):
    server, client = service()
    teacher = teacher_of(client)
    assert [ask(teacher, number).text for number in range(5)] == [f"written: about topic {n}" for n in range(5)]
    assert ask(teacher, 2).model == "claude-test-1"
    [sent] = server.requests
    assert sent["output_config"]["format"]["type"] == "json_schema"
    assert 5 * 100 < sent["max_tokens"] < 7 * 100
    ask(teacher, 5)
    assert len(server.requests) == 2


def test_what_was_kept_by_an_earlier_run_is_not_asked_for(service, tmp_path):
    server, client = service()
    path = tmp_path / "prompts.jsonl"
    with PromptsFile(path) as kept:
        ask(teacher_of(client, kept), 0)
    with PromptsFile(path) as kept:
        rng, untouched = random.Random(0), random.Random(0)
        teacher = teacher_of(client, kept)
        teacher.text(ORDERS[4], lambda: pytest.fail("no call is needed"), rng)
        assert (kept.tokens, kept.num_texts, len(server.requests)) == ((11, 7), 5, 1)
        teacher.text(ORDERS[9], lambda: [], untouched)
        assert rng.random() == untouched.random(), "the rest of an attempt is the same with a call and without"


def test_a_call_for_one_order_is_plain_text(service):
    server, client = service("Move my note.")
    assert ask(teacher_of(client, per_call=1), 0).text == "Move my note."
    assert "output_config" not in server.requests[0] and server.requests[0]["max_tokens"] == 100
    assert "about topic 0" in server.requests[0]["messages"][0]["content"]


def test_an_openai_endpoint_writes_several_too(model_server):
    server = model_server(replies=['A form {"requests": []} it is:\n```json\n{ "requests": ["a", "b", "c"]}\n```'])
    client = OpenAICompatibleClient("fake-model", [server.url], patience=ONE_TRY)
    teacher = teacher_of(client, per_call=3)
    assert [ask(teacher, number, ORDERS[:3]).text for number in range(3)] == ["a", "b", "c"]
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["requests"]["minItems"] == 3
    assert 0.7 <= server.requests[0]["temperature"] <= 1.0
    client.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Here they are: one, two", "prompt.no_json"),
        ('{"requests": ["one", "two"]}', "prompt.no_json"),
        ('{"requests": ["1", "2", "3", "4", "5", "6"]}', "prompt.no_json"),
        ('{"requests": ["1", "2", "3", "4", 5]}', "prompt.no_json"),
        ('{"requests": "one"}', "prompt.no_json"),
        ("[1]", "prompt.no_json"),
        ({"content": [{"type": "text", "text": '{"requests": ["on'}], "stop_reason": "max_tokens"}, "prompt.truncated"),
        ({"content": [], "stop_reason": "refusal"}, "prompt.refused"),
    ],
)
def test_a_useless_answer_rejects_one_order_and_the_others_are_asked_for_alone(service, reply, reason):
    server, client = service(reply, write_all)
    kept = PromptsFile(None)
    teacher = teacher_of(client, kept)
    with pytest.raises(UnusablePrompt) as error:
        ask(teacher, 0)
    assert error.value.reason == reason
    assert kept.tokens == (11, 7) and kept.num_texts == 0
    assert [ask(teacher, number).text for number in range(5)] == [f"written: about topic {n}" for n in range(5)]
    assert len(server.requests) == 6 and not any("output_config" in sent for sent in server.requests[1:])
    ask(teacher, 5)
    assert "output_config" in server.requests[-1], "orders that were in no such call still share one"


def test_an_empty_answer_has_cost_something(service):
    server, client = service({"content": []})
    kept = PromptsFile(None)
    assert ask(teacher_of(client, kept, per_call=1), 0).text == ""
    assert kept.tokens == (11, 7) and len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"content": [{"type": "text", "text": "Move"}], "stop_reason": "max_tokens"}, "prompt.truncated"),
        ({"content": [{"type": "text", "text": "I cannot"}], "stop_reason": "refusal"}, "prompt.refused"),
    ],
)
def test_a_useless_plain_answer_is_unusable(service, reply, reason):
    _, client = service(reply)
    with pytest.raises(UnusablePrompt) as error:
        ask(teacher_of(client, per_call=1), 0)
    assert error.value.reason == reason and error.value.text is not None


def test_the_answer_may_be_long_in_what_is_no_text(service):
    completion = Completion(Message("assistant", '{"requests": ["\\ud800", ""]}'), "stop", 1, 1, 0.0)
    assert texts_in(completion, ORDERS[:2]) == {"id-0": "\ud800", "id-1": ""}
    _, client = service('{"requests": ["\\ud800", ""]}')
    assert ask(teacher_of(client, per_call=2), 0).text == "?", "as the next run will read it"


# -- many threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_call", [1, 7])
def test_many_threads_ask_for_each_order_once(service, per_call):
    server, client = service(latency_s=0.02, patience=Patience(timeout_s=30.0, max_retries=0, give_up_after_s=30.0))
    teacher = teacher_of(client, per_call=per_call)
    numbers = [number for number in range(70) for _ in range(3)]
    random.Random(1).shuffle(numbers)
    assert ask_all(teacher, numbers) == [f"written: about topic {number}" for number in numbers]
    asked = [text for sent in server.requests for text in _topics(sent)]
    assert len(asked) == len(set(asked)), "no order is in two calls"


def _topics(sent):
    return [line for line in sent["messages"][0]["content"].splitlines() if line.startswith("about topic")]


def test_threads_wait_for_a_call_instead_of_making_smaller_ones(service):
    server, client = service(latency_s=0.05)
    teacher = teacher_of(client, per_call=10)
    others = ORDERS[:10]
    with ThreadPoolExecutor(10) as executor:
        list(executor.map(lambda number: ask(teacher, number, others), range(10)))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "options", "kind"),
    [
        ((500, {}), {}, SampleFailed),
        ((401, {}), {}, ConfigurationRefused),
        ((429, {"retry-after": "0.2"}), {}, EndpointLost),
        ("x", {"model": "claude-retired-1"}, ConfigurationRefused),
    ],
)
def test_an_error_of_the_client_reaches_all_who_wait(service, reply, options, kind):
    server, client = service(reply, latency_s=0.1, **options)
    teacher = teacher_of(client, per_call=8)
    with ThreadPoolExecutor(8) as executor:
        asked = [executor.submit(ask, teacher, number, ORDERS[:8]) for number in range(8)]
        errors = [one.exception(timeout=5) for one in asked]
    assert {type(error) for error in errors} == {kind}
    assert kind is EndpointLost or len(server.requests) == 1


def test_a_stop_reaches_all_who_wait(service):
    _, client = service((429, {"retry-after": "30"}))
    teacher = teacher_of(client, per_call=8)
    with ThreadPoolExecutor(8) as executor:
        asked = [executor.submit(ask, teacher, number, ORDERS[:8]) for number in range(8)]
        time.sleep(0.15)
        client.stop()
        assert {type(one.exception(timeout=5)) for one in asked} == {Stopped}


def test_after_a_useless_answer_those_who_wait_ask_for_themselves(service):
    server, client = service("no json", write_all, latency_s=0.1)
    results = ask_all(teacher_of(client, per_call=8), range(8), threads=8)
    assert [type(one) for one in results].count(UnusablePrompt) == 1
    assert sum(isinstance(one, str) for one in results) == 7
    assert len(server.requests) == 8


def test_a_call_for_several_that_fails_for_good_is_not_made_again(service):
    server, client = service((500, {}), write_all)
    teacher = teacher_of(client)
    with pytest.raises(SampleFailed):
        ask(teacher, 0)
    assert ask(teacher, 1).text == "written: about topic 1"
    assert "output_config" not in server.requests[-1]


def test_with_every_third_answer_useless_all_is_written_in_the_end(service):
    calls = iter(range(10_000))
    server, client = service(lambda request: "no json" if next(calls) % 3 == 0 else write_all(request), latency_s=0.005)
    teacher = teacher_of(client, per_call=6)
    left = list(range(100))
    for _ in range(10):
        results = ask_all(teacher, left)
        left = [number for number, one in zip(left, results, strict=True) if not isinstance(one, str)]
    assert not left
    assert len(server.requests) < 160


# -- the budget -------------------------------------------------------------------------------------------------------


def worst(orders, max_tokens=100):
    return most_tokens(messages_for(orders), options_for(orders, max_tokens))


def test_a_call_that_might_exceed_the_budget_is_not_made(service):
    server, client = service()
    teacher = teacher_of(client, max_teacher_tokens=worst(ORDERS[:5]) - 1)
    with pytest.raises(BudgetSpent, match=r"--max-teacher-tokens") as error:
        ask(teacher, 0)
    assert error.value.status == STOPPED_EARLY
    assert not server.requests
    assert ask(teacher_of(client, max_teacher_tokens=worst(ORDERS[:5])), 0).text


def test_what_earlier_runs_cost_counts(service, tmp_path):
    server, client = service(usage=(400, 300))
    path = tmp_path / "prompts.jsonl"
    limit = worst(ORDERS[:5]) + 699
    with PromptsFile(path) as kept:
        ask(teacher_of(client, kept, max_teacher_tokens=limit), 0)
    with PromptsFile(path) as kept:
        teacher = teacher_of(client, kept, max_teacher_tokens=limit)
        assert ask(teacher, 4).text, "what is kept costs nothing"
        with pytest.raises(BudgetSpent):
            ask(teacher, 5)
    assert len(server.requests) == 1


def test_the_budget_holds_with_many_threads_and_is_used_up(service):
    server, client = service(usage=(15, 40), latency_s=0.01)  # less than the worst case
    kept = PromptsFile(None)
    limit = 10 * worst(ORDERS[:1])
    results = ask_all(teacher_of(client, kept, per_call=1, max_teacher_tokens=limit), range(100))
    assert sum(kept.tokens) <= limit < sum(kept.tokens) + worst(ORDERS[:1]) + 1, "used up, as far as calls surely fit"
    assert len(server.requests) == sum(isinstance(one, str) for one in results)
    assert {type(one) for one in results} == {str, BudgetSpent}


def test_useless_answers_and_failed_calls_leave_no_reservation(service):
    _, client = service("no json", (500, {}), write_all)
    kept = PromptsFile(None)
    teacher = teacher_of(client, kept, max_teacher_tokens=worst(ORDERS[:5]) + 20)
    for kind in (UnusablePrompt, SampleFailed):
        with pytest.raises(kind):
            ask(teacher, 0)
    assert ask(teacher, 0).text
    assert kept.tokens == (22, 14)


def test_an_endpoint_that_counts_no_tokens_is_charged_an_estimate():
    class Uncounting:
        def complete(self, messages, options):
            return Completion(Message("assistant", "x" * 300), "stop", None, None, 0.0)

    kept = PromptsFile(None)
    ask(teacher_of(Uncounting(), kept, per_call=1), 0)
    spent_in, spent_out = kept.tokens
    assert spent_in > 20 and spent_out == 100


def test_no_text_is_lost_when_the_process_goes_on_after_an_interrupt(service):
    """A thread that is broken off lets go of what it claimed."""

    class Broken:
        num_asked = 0

        def complete(self, messages, options):
            self.num_asked += 1
            raise KeyboardInterrupt

    kept, client = PromptsFile(None), Broken()
    teacher = teacher_of(client, kept, max_teacher_tokens=worst(ORDERS[:5]))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ask(teacher, 0)
    assert client.num_asked == 2


def test_the_message_numbers_the_orders_and_the_form_is_strict():
    [message] = messages_for(ORDERS[:3])
    assert "Order 1:\nabout topic 0" in message.content and "exactly 3 messages" in message.content
    options = options_for(ORDERS[:3], 100, 0.8, 7)
    assert options.schema["additionalProperties"] is False and options.schema["required"] == ["requests"]
    assert json.dumps(options.schema)
