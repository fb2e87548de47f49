"""Orders written through Message Batches: handed in, noted in the prompts file, collected by this run or the next."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from Evaluator.backends.anthropic_batches import AnthropicBatches, BatchRequest, BatchResult
from Evaluator.model_client import SampleFailed
from Evaluator.runs.attempts import UnusablePrompt
from Tools.prompts.orders import Order, messages_for, most_tokens, options_for, texts_in
from Tools.prompts.prompts_file import OpenBatch, PromptsFile
from Tools.prompts.token_budget import TokenBudget

log = logging.getLogger(__name__)

REQUESTS_A_BATCH = 5_000
"""The service takes 100,000; fewer are collected within little memory, and lose less if a batch expires."""
POLL_S = 20.0
NEWS_S = 60.0
"""How often people hear that a batch is still waited for, in seconds."""
FAILURES_IN_A_ROW = 5
"""So many times a batch is asked for in vain, each with all retries of one request, before that ends the run."""


def write_in_batches(
    orders: Sequence[Order],
    teacher_name: str,
    batches: AnthropicBatches,
    kept: PromptsFile,
    *,
    per_call: int,
    max_tokens: int,
    max_teacher_tokens: int | None,
    poll_s: float = POLL_S,
    requests_a_batch: int = REQUESTS_A_BATCH,
) -> None:
    """Have `orders` written that are neither kept nor in a batch already, and wait for all open batches, `kept`'s too.

    `per_call` orders share a request, with `max_tokens` for each. Only what surely fits the budget is handed in; as
    batches cost less than they might, the rest follows. An order that came to nothing is not handed in again: it is
    just not kept. Raises what a client's complete() raises, and BatchInDoubt. Whatever ends this, Ctrl-C too, no batch
    is lost: the same call goes on with those that were handed in.
    """
    budget = TokenBudget(kept, max_teacher_tokens)
    waiting = _Waiting(batches, kept, poll_s)
    tried = {order_id for batch in kept.open_batches() for ids in batch.orders.values() for order_id in ids}
    if kept.open_batches():
        log.info("batches that an earlier run handed in: %d", len(kept.open_batches()))
    while True:
        missing = {order.id: order for order in orders if order.id not in tried and kept.text(order.id) is None}
        requests = list(_requests(list(missing.values()), per_call, max_tokens))
        fitting = requests[: _num_fitting(requests, budget)]
        for start in range(0, len(fitting), requests_a_batch):
            chunk = fitting[start : start + requests_a_batch]
            _hand_in(chunk, teacher_name, batches, kept)
            tried.update(order.id for _, together in chunk for order in together)
        if not kept.open_batches():
            break
        waiting.collect_all()
    if missing:
        log.info("%d requests are left out: --max-teacher-tokens has no room for them", len(missing))


_Request = tuple[BatchRequest, list[Order]]


def _requests(orders: Sequence[Order], per_call: int, max_tokens: int) -> Iterator[_Request]:
    for number, start in enumerate(range(0, len(orders), per_call)):
        together = list(orders[start : start + per_call])
        yield BatchRequest(f"call-{number}", messages_for(together), options_for(together, max_tokens)), together


def _num_fitting(requests: Sequence[_Request], budget: TokenBudget) -> int:
    """How many of `requests`, from the first on, the budget has room for, however long the answers get."""
    left = budget.left
    for number, (request, _) in enumerate(requests):
        left -= most_tokens(request.messages, request.options)
        if left < 0:
            return number
    return len(requests)


def _hand_in(requests: Sequence[_Request], teacher_name: str, batches: AnthropicBatches, kept: PromptsFile) -> None:
    """Hand one batch in and note its id, both in a thread that Ctrl-C does not break off in between."""
    orders = {request.id: [order.id for order in together] for request, together in requests}
    most = sum(most_tokens(request.messages, request.options) for request, _ in requests)

    def hand_in_and_note() -> str:
        batch_id = batches.submit([request for request, _ in requests])
        try:
            kept.add_batch(OpenBatch(batch_id, teacher_name, orders, most))
        except OSError:
            log.error(
                "batch %s was handed in, but %s cannot take its id: it will not be collected", batch_id, kept.path
            )
            raise
        return batch_id

    with ThreadPoolExecutor(max_workers=1) as executor:
        noted = executor.submit(hand_in_and_note)
        try:
            batch_id = noted.result()
        except KeyboardInterrupt:
            batches.stop()  # a request under way still gets its answer, none is made again
            raise
    log.info("batch %s: %d requests in %d calls handed in", batch_id, sum(map(len, orders.values())), len(orders))


class _Waiting:
    """Waits for batches and keeps what they wrote."""

    def __init__(self, batches: AnthropicBatches, kept: PromptsFile, poll_s: float) -> None:
        self._batches = batches
        self._kept = kept
        self._poll_s = poll_s
        self._failures: Counter[str] = Counter()  # of a batch, in a row

    def collect_all(self) -> None:
        """Wait until all open batches have ended, and collect each as soon as it has."""
        started = news_at = time.monotonic()
        while True:
            for batch in self._kept.open_batches():
                self._collect_if_ended(batch)
            still_open = self._kept.open_batches()
            if not still_open:
                return
            if time.monotonic() >= news_at:
                news_at = time.monotonic() + NEWS_S
                minutes = (time.monotonic() - started) / 60
                calls = sum(len(batch.orders) for batch in still_open)
                log.info(
                    "waiting for batches: %d with %d calls, %.0f min so far, a day at most. Interrupted, the same "
                    "command goes on",
                    len(still_open),
                    calls,
                    minutes,
                )
            time.sleep(self._poll_s)

    def _collect_if_ended(self, batch: OpenBatch) -> None:
        try:
            state = self._batches.state(batch.id)
            if not state.has_ended:
                return
            results = self._batches.results(batch.id) if state.has_results else []
        except SampleFailed as failed:
            self._failures[batch.id] += 1
            if self._failures[batch.id] >= FAILURES_IN_A_ROW:
                raise
            log.info("batch %s: %s; asking again", batch.id, failed)
            return
        self._keep(batch, results)

    def _keep(self, batch: OpenBatch, results: Sequence[BatchResult]) -> None:
        """Keep what a batch wrote, say what it did not, and raise ConfigurationRefused for a model that is gone."""
        texts: dict[str, str] = {}
        problems: Counter[str] = Counter()
        for result in results:
            try:
                texts.update(_texts_of(result, [Order(order_id, "") for order_id in batch.orders.get(result.id, ())]))
            except UnusablePrompt as unusable:
                problems[str(unusable)] += 1
        missing = len(batch.orders.keys() - {result.id for result in results})
        if missing:
            problems["no result"] += missing
        self._kept.close_batch(batch.id, texts, _tokens_of(results))
        log.info("batch %s: %s", batch.id, _summary(batch, texts, results, problems))
        if results and all(result.error_type == "not_found_error" for result in results):
            raise self._batches.unknown_model()


def _texts_of(result: BatchResult, orders: Sequence[Order]) -> dict[str, str]:
    """The texts of one request. Raises UnusablePrompt where it has none, whatever the reason."""
    if not orders:
        return {}
    if result.completion is not None:
        return texts_in(result.completion, orders)
    why = f"{result.ending} ({result.error_type}: {result.error})" if result.error_type else result.ending
    raise UnusablePrompt(f"prompt.{result.ending}", why, None)


def _tokens_of(results: Sequence[BatchResult]) -> tuple[int, int]:
    answers = [result.completion for result in results if result.completion is not None]
    return sum(one.prompt_tokens or 0 for one in answers), sum(one.completion_tokens or 0 for one in answers)


def _summary(batch: OpenBatch, texts: dict[str, str], results: Sequence[BatchResult], problems: Counter[str]) -> str:
    spent_in, spent_out = _tokens_of(results)
    ordered = sum(map(len, batch.orders.values()))
    text = f"{len(texts)} of {ordered} requests written, {spent_in:,} tokens in and {spent_out:,} out"
    if not problems:
        return text
    shown = "; ".join(f"{count} {why[:200]}" for why, count in problems.most_common(3))
    return f"{text}; {problems.total()} of {len(batch.orders)} calls gave nothing: {shown}"
