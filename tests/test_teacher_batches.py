"""Message Batches: the real anthropic SDK against a local server, with processes that die in between."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, patch

import pytest

from Evaluator.backends.anthropic_batches import AnthropicBatches, BatchInDoubt, BatchRequest
from Evaluator.backends.anthropic_messages import AnthropicMessagesClient
from Evaluator.backends.endpoint_pool import Patience
from Evaluator.model_client import ConfigurationRefused, EndpointLost, SampleFailed, SamplingOptions
from Evaluator.records import Message
from tests.fakes.anthropic_server import FakeAnthropicServer, write_all
from Tools.prompts import teacher_batches
from Tools.prompts.orders import messages_for, most_tokens, options_for
from Tools.prompts.prompts_file import PromptsFile
from Tools.prompts.teacher import Order
from Tools.prompts.teacher_batches import write_in_batches

ROOT = Path(__file__).resolve().parents[1]
ORDERS = [Order(f"id-{number}", f"about topic {number}") for number in range(40)]
ASK = BatchRequest("call-0", [Message("system", "Be brief."), Message("user", "Write")], SamplingOptions(64))


@pytest.fixture
def service(monkeypatch):
    """Starts a server; gives it and batches there."""
    servers, made = [], []

    def start(*replies, model="claude-test-1", patience=None, **options):
        servers.append(FakeAnthropicServer(*replies or [write_all], **options).__enter__())
        monkeypatch.setenv("ANTHROPIC_BASE_URL", servers[-1].url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-secret")
        patience = patience or Patience(timeout_s=5.0, max_retries=1, give_up_after_s=0.5)
        made.append(AnthropicBatches(model, patience=patience))
        return servers[-1], made[-1]

    yield start
    for batches in made:
        batches.close()
    for server in servers:
        server.__exit__()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prompts.jsonl"


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records if record.name == "Tools.prompts.teacher_batches"]


def write(batches, kept, orders=ORDERS, **options):
    settings = {"per_call": 5, "max_tokens": 100, "max_teacher_tokens": None, "poll_s": 0.01, **options}
    write_in_batches(orders, "claude-test-1", batches, kept, **settings)


def write_until_interrupted(batches, kept, **options):
    """Ctrl-C comes at the first wait."""
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=Mock(side_effect=KeyboardInterrupt))
    with patch.object(teacher_batches, "time", clock), pytest.raises(KeyboardInterrupt):
        write(batches, kept, **options)


def texts(kept):
    return {order.id: kept.text(order.id).text for order in ORDERS if kept.text(order.id)}


ALL_WRITTEN = {order.id: f"written: {order.text}" for order in ORDERS}


# -- the batches themselves -------------------------------------------------------------------------------------------


def test_a_request_in_a_batch_is_what_it_is_alone(service):
    server, batches = service("Done.")
    batch_id = batches.submit([ASK])
    AnthropicMessagesClient("claude-test-1").complete(ASK.messages, ASK.options)
    assert batches.state(batch_id).has_ended
    [result] = batches.results(batch_id)
    assert (result.id, result.ending, result.completion.message.content) == ("call-0", "succeeded", "Done.")
    assert (result.completion.prompt_tokens, result.completion.completion_tokens) == (11, 7)
    alone, in_batch = server.requests
    assert alone == in_batch


def test_results_that_are_none_say_how_they_ended(service):
    _, batches = service("Done.", endings=("expired", "canceled", "invalid_request_error"))
    batch_id = batches.submit([BatchRequest(f"call-{n}", ASK.messages, ASK.options) for n in range(4)])
    batches.state(batch_id)
    results = {result.id: result for result in batches.results(batch_id)}
    assert [results[f"call-{n}"].ending for n in range(4)] == ["succeeded", "errored", "canceled", "expired"]
    assert results["call-1"].error_type == "invalid_request_error" and "made to fail" in results["call-1"].error
    assert results["call-3"].completion is None


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_busy_service_is_waited_for(service, status):
    server, batches = service(batch_faults=(status, status))
    batch_id = batches.submit([ASK])
    server.batch_faults.extend([status, status])
    assert batches.state(batch_id).has_ended
    assert len(server.batches) == 1


def test_a_fault_while_polling_is_tried_again(service):
    server, batches = service()
    batch_id = batches.submit([ASK])
    server.batch_faults.extend([500])
    assert batches.state(batch_id).has_ended
    server.batch_faults.extend(["close"])
    assert len(batches.results(batch_id)) == 1


def test_a_transfer_that_breaks_off_is_tried_again(service):
    server, batches = service(broken_transfers=1)
    batch_id = batches.submit([ASK])
    batches.state(batch_id)
    assert len(batches.results(batch_id)) == 1
    assert server.broken_transfers == 0


@pytest.mark.parametrize("fault", ["close", 500, 502, 504])
def test_a_batch_that_may_have_been_taken_is_not_handed_in_again(service, fault):
    server, batches = service(batch_faults=(fault,))
    with pytest.raises(BatchInDoubt, match="look at the account's batches") as error:
        batches.submit([ASK])
    assert error.value.status == 3
    assert len(server.batches) == (fault == "close")


def test_no_server_gives_up_after_a_while(service):
    server, batches = service()
    server.__exit__()
    with pytest.raises(EndpointLost):
        batches.submit([ASK])


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_one_sentence_without_the_key(service, status):
    _, batches = service(batch_faults=(status,))
    with pytest.raises(ConfigurationRefused, match="ANTHROPIC_API_KEY") as error:
        batches.submit([ASK])
    assert "sk-test-secret" not in str(error.value)


def test_a_batch_of_another_account_is_one_sentence(service):
    _, batches = service()
    with pytest.raises(ConfigurationRefused, match="no batch msgbatch_9"):
        batches.state("msgbatch_9")


# -- orders in batches ------------------------------------------------------------------------------------------------


def test_all_orders_are_written_several_a_call(service, path, said):
    server, batches = service(polls=2)
    with PromptsFile(path) as kept:
        write(batches, kept)
        assert texts(kept) == ALL_WRITTEN
        assert kept.tokens == (8 * 11, 8 * 7) and not kept.open_batches()
    assert [len(batch["entries"]) for batch in server.batches.values()] == [8]
    handed_in, waiting, collected = said()
    assert "40 requests in 8 calls" in handed_in
    assert "waiting for batches: 1 with 8 calls" in waiting
    assert "40 of 40 requests written, 88 tokens in and 56 out" in collected


def test_large_work_is_shared_among_batches(service, path):
    server, batches = service(polls=1)
    with PromptsFile(path) as kept:
        write(batches, kept, requests_a_batch=3)
        assert texts(kept) == ALL_WRITTEN
    assert [len(batch["entries"]) for batch in server.batches.values()] == [3, 3, 2]


def test_one_order_a_call_is_plain_text(service):
    server, batches = service()
    kept = PromptsFile(None)
    write(batches, kept, per_call=1)
    assert texts(kept) == ALL_WRITTEN and len(server.requests) == 40


def test_what_is_kept_is_not_ordered_again(service, path):
    server, batches = service()
    with PromptsFile(path) as kept:
        write(batches, kept, ORDERS[:20])
    with PromptsFile(path) as kept:
        write(batches, kept, ORDERS[:20])
        assert len(server.batches) == 1
        write(batches, kept, [*ORDERS, *ORDERS])
        assert texts(kept) == ALL_WRITTEN
    assert len(server.requests) == 8


def test_what_comes_to_nothing_is_left_out_and_said_in_one_line(service, said):
    replies = ("no json", {"content": [], "stop_reason": "refusal"}, write_all)
    server, batches = service(*replies, endings=("expired", "expired", "overloaded_error", "canceled"))
    kept = PromptsFile(None)
    write(batches, kept)
    assert len(texts(kept)) == 10 and len(server.batches) == 1
    assert kept.tokens == (4 * 11, 4 * 7), "useless answers cost too"
    assert "10 of 40 requests written" in said()[-1] and "6 of 8 calls gave nothing: 2 expired" in said()[-1]


def test_results_that_are_archived_count_as_nothing(service, said):
    server, batches = service()
    kept = PromptsFile(None)
    server.polls = 99
    write_until_interrupted(batches, kept)
    server.end_batches()
    server.batches["msgbatch_1"]["is_archived"] = True
    write(batches, kept)
    assert not texts(kept) and not kept.open_batches()
    assert "8 no result" in said()[-1]


@pytest.mark.parametrize("is_checked_at_once", [True, False])
def test_a_model_that_is_gone_gives_the_models_that_there_are(service, is_checked_at_once):
    _, batches = service(model="claude-retired-1", batches_check_models=is_checked_at_once)
    kept = PromptsFile(None)
    with pytest.raises(ConfigurationRefused, match=r"no model claude-retired-1.*claude-test-1"):
        write(batches, kept)
    assert not kept.open_batches()


def test_polling_outlives_faults_of_the_service(service, said):
    server, batches = service(patience=Patience(5.0, max_retries=0, give_up_after_s=60), broken_transfers=3)
    kept = PromptsFile(None)
    write(batches, kept)
    assert texts(kept) == ALL_WRITTEN and len(server.batches) == 1
    assert len([line for line in said() if "asking again" in line]) == 3


def test_results_that_can_never_be_read_end_the_run_and_stay_to_be_collected(service):
    server, batches = service(patience=Patience(5.0, max_retries=0, give_up_after_s=60), broken_transfers=1_000)
    kept = PromptsFile(None)
    with pytest.raises(SampleFailed):
        write(batches, kept)
    assert [batch.id for batch in kept.open_batches()] == list(server.batches)


# -- the budget -------------------------------------------------------------------------------------------------------


def worst(orders):
    return most_tokens(messages_for(orders), options_for(orders, 100))


def test_only_what_surely_fits_the_budget_is_handed_in(service, said):
    server, batches = service(usage=(worst(ORDERS[:5]) - 600, 600))
    kept = PromptsFile(None)
    write(batches, kept, max_teacher_tokens=sum(worst(ORDERS[n : n + 5]) for n in (0, 5, 10)))
    assert len(texts(kept)) == 15 and len(server.batches) == 1
    assert said()[-1] == "25 requests are left out: --max-teacher-tokens has no room for them"


def test_what_a_batch_did_not_cost_is_used_for_the_next(service):
    server, batches = service(usage=(10, 10))
    kept = PromptsFile(None)
    limit = 3 * worst(ORDERS[30:35])
    write(batches, kept, max_teacher_tokens=limit)
    assert texts(kept) == ALL_WRITTEN and len(server.batches) > 1
    assert sum(kept.tokens) <= limit


def test_open_batches_count_against_the_budget(service, path):
    server, batches = service(polls=99)
    limit = worst(ORDERS[30:35]) + 100
    with PromptsFile(path) as kept:
        write_until_interrupted(batches, kept, max_teacher_tokens=limit)
    with PromptsFile(path) as kept:
        write_until_interrupted(batches, kept, max_teacher_tokens=limit)
    assert [len(batch["entries"]) for batch in server.batches.values()] == [1]


def test_without_room_for_anything_nothing_is_handed_in(service):
    server, batches = service()
    write(batches, PromptsFile(None), max_teacher_tokens=10)
    assert not server.batches


# -- processes that end in between ------------------------------------------------------------------------------------


def test_a_batch_of_a_run_that_died_is_collected_and_not_handed_in_again(service, path, said):
    server, batches = service(polls=99)
    with PromptsFile(path) as kept:
        write_until_interrupted(batches, kept)
    server.end_batches()
    with PromptsFile(path) as kept:
        write(batches, kept)
        assert texts(kept) == ALL_WRITTEN and kept.tokens == (88, 56)
    assert len(server.batches) == 1 and len(server.requests) == 8
    assert "batches that an earlier run handed in: 1" in said()


def test_open_batches_are_collected_for_orders_that_nobody_wants_now(service, path):
    server, batches = service(polls=99)
    with PromptsFile(path) as kept:
        write_until_interrupted(batches, kept)
    server.end_batches()
    with PromptsFile(path) as kept:
        write(batches, kept, [])
        assert texts(kept) == ALL_WRITTEN


def test_ctrl_c_while_a_batch_is_handed_in_still_notes_it(service, path):
    server, batches = service(latency_s=0.4, polls=99)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with PromptsFile(path) as kept:
        with pytest.raises(KeyboardInterrupt):
            write(batches, kept)
        assert [batch.id for batch in kept.open_batches()] == list(server.batches) == ["msgbatch_1"]


CHILD = """
import sys
from pathlib import Path
from Evaluator.backends.anthropic_batches import AnthropicBatches
from Evaluator.console import run_main
from tests.test_teacher_batches import write
from Tools.prompts.prompts_file import PromptsFile
run = lambda: write(AnthropicBatches("claude-test-1"), PromptsFile(Path(sys.argv[1]))) or 0
raise SystemExit(run_main(run))
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_process_that_is_ended_while_it_waits_loses_nothing(service, path, sent, status):
    server, batches = service(polls=1_000_000)
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not (path.exists() and b"msgbatch_1" in path.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    process.send_signal(sent)
    _, said = process.communicate(timeout=10)
    assert process.returncode == status, said
    server.end_batches()
    with PromptsFile(path) as kept:
        write(batches, kept)
        assert texts(kept) == ALL_WRITTEN and kept.tokens == (88, 56)
    assert len(server.batches) == 1 and len(server.requests) == 8


def test_a_full_disk_names_the_batch_that_it_cannot_note(service, path, monkeypatch, said):
    _, batches = service()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with PromptsFile(path) as kept:
        monkeypatch.setattr(kept, "add_batch", no_space)
        with pytest.raises(OSError, match="No space left"):
            write(batches, kept)
    assert "batch msgbatch_1 was handed in" in said()[0]
