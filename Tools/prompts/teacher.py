"""A teacher model that writes requests to order, several in one call; what it wrote before is not asked for again."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from Evaluator.model_client import ModelClient, SampleFailed
from Evaluator.runs.attempts import UnusablePrompt
from Tools.prompts.orders import Order, messages_for, most_tokens, options_for, texts_in, tokens_of
from Tools.prompts.prompts_file import Kept, PromptsFile
from Tools.prompts.token_budget import TokenBudget


class Teacher:
    """Writes what is ordered. Shared by all workers.

    Which orders share a call depends on time: what makes a run repeatable is the prompts file, not the seed.
    """

    def __init__(
        self,
        name: str,
        client: ModelClient,
        kept: PromptsFile,
        *,
        per_call: int,
        max_tokens: int,
        temperature: tuple[float, float],
        max_teacher_tokens: int | None,
    ) -> None:
        """`name` is noted as the writer. `per_call` orders go into a call, with `max_tokens` for each of their texts.

        `max_teacher_tokens` is what all calls noted in `kept` may cost, input and output together; None: no limit.
        """
        self.name = name
        self._client = client
        self._kept = kept
        self._per_call = per_call
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._budget = TokenBudget(kept, max_teacher_tokens)
        self._claiming = threading.Lock()
        self._under_way: dict[str, Future[None]] = {}
        self._alone: set[str] = set()  # ids of orders that were in a call for several that gave nothing

    def text(self, order: Order, others: Callable[[], Sequence[Order]], rng: random.Random) -> Kept:
        """What was written for `order`, now or in an earlier run.

        Where a call has to be made, those of `others()` that nobody has asked for yet are asked for along with it.
        `rng` is drawn from equally often, whether there is a call or not. Raises UnusablePrompt, BudgetSpent, and
        what the client raises.
        """
        temperature, seed = round(rng.uniform(*self._temperature), 3), rng.getrandbits(31)
        while (kept := self._kept.text(order.id)) is None:
            call = self._under_way.get(order.id)
            if call is not None:
                call.result()
                continue
            together = self._claim(order, others)
            if together:
                self._write(together, temperature, seed)
        return kept

    def _claim(self, order: Order, others: Callable[[], Sequence[Order]]) -> list[Order]:
        """`order` and others to ask for with it, now under way; none if another thread was quicker with `order`."""
        may_share = self._per_call > 1 and order.id not in self._alone
        neighbours = others() if may_share else ()
        with self._claiming:
            if not self._is_free(order):
                return []
            together = {order.id: order}
            for other in neighbours:
                if len(together) < self._per_call and other.id not in self._alone and self._is_free(other):
                    together.setdefault(other.id, other)
            call: Future[None] = Future()
            self._under_way.update(dict.fromkeys(together, call))
        return list(together.values())

    def _is_free(self, order: Order) -> bool:
        return self._kept.text(order.id) is None and order.id not in self._under_way

    def _write(self, orders: Sequence[Order], temperature: float, seed: int) -> None:
        """Ask for `orders`, keep what comes, and let go of those who wait for it.

        They hear of an error of the client; after an answer that was of no use each asks for itself. What spoiled a
        common answer, be it one order that is refused or too much for a small model, would spoil it every time: these
        orders are asked for alone from now on.
        """
        error = None
        try:
            self._ask(orders, temperature, seed)
        except BaseException as failure:
            if len(orders) > 1 and isinstance(failure, UnusablePrompt | SampleFailed):
                self._alone.update(order.id for order in orders)
            error = None if isinstance(failure, UnusablePrompt) else failure
            raise
        finally:
            with self._claiming:
                calls = [self._under_way.pop(order.id) for order in orders]
            if error is None:
                calls[0].set_result(None)
            else:
                calls[0].set_exception(error)

    def _ask(self, orders: Sequence[Order], temperature: float, seed: int) -> None:
        """One call. Its cost is noted whatever the answer is."""
        messages = messages_for(orders)
        options = options_for(orders, self._max_tokens, temperature, seed)
        with self._budget.reserved(most_tokens(messages, options)):
            completion = self._client.complete(messages, options)
            tokens = tokens_of(messages, completion)
            try:
                texts = texts_in(completion, orders)
            except UnusablePrompt:
                self._kept.spend(self.name, tokens)
                raise
            self._kept.add(texts, self.name, tokens)
