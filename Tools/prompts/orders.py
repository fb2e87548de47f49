"""What a teacher is told, and how its answer is read: one order in plain words, several as JSON of a schema."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from Evaluator.model_client import Completion, SamplingOptions
from Evaluator.records import Message
from Evaluator.runs.attempts import UnusablePrompt

SEVERAL_ORDERS = (
    "Below are {count} orders, each for one message that a user would type. They have nothing to do with each other. "
    "Answer each order with that message and nothing else: no label, no number, no remark.\n\n{orders}\n\n"
    'Give a JSON object with one key, "requests", whose value is the list of exactly {count} messages, as strings and '
    "in the order of the orders."
)
JSON_TOKENS = (64, 16)
"""Room for the form of a JSON answer: for the whole, and for each of its texts."""
FRAME_TOKENS, SCHEMA_TOKENS = 32, 200
"""What a chat template may add to the input, and a service to explain a schema."""
BYTES_A_TOKEN = 3
"""Of UTF-8, in an estimate that is rather too high: English has 4."""
_START_OF_REQUESTS = re.compile(r'\{\s*"requests"\s*:')


@dataclass(frozen=True)
class Order:
    """One request that is to be written.

    `id` is a hash of what is told: the same order has the same id in every run. `text` is what the teacher is told.
    """

    id: str
    text: str


def messages_for(orders: Sequence[Order]) -> list[Message]:
    if len(orders) == 1:
        return [Message("user", orders[0].text)]
    numbered = "\n\n".join(f"Order {number}:\n{order.text}" for number, order in enumerate(orders, start=1))
    return [Message("user", SEVERAL_ORDERS.format(count=len(orders), orders=numbered))]


def options_for(
    orders: Sequence[Order], max_tokens: int, temperature: float | None = None, seed: int | None = None
) -> SamplingOptions:
    """How the answer to `orders` is drawn, with `max_tokens` for each of them."""
    if len(orders) == 1:
        return SamplingOptions(max_tokens, temperature, seed=seed)
    whole, each = JSON_TOKENS
    most = whole + len(orders) * (max_tokens + each)
    return SamplingOptions(most, temperature, seed=seed, schema=_schema(len(orders)))


def _schema(count: int) -> dict[str, Any]:
    texts = {"type": "array", "items": {"type": "string"}, "minItems": count, "maxItems": count}
    return {
        "type": "object",
        "properties": {"requests": texts},
        "required": ["requests"],
        "additionalProperties": False,
    }


def texts_in(completion: Completion, orders: Sequence[Order]) -> dict[str, str]:
    """The written texts by order id. Raises UnusablePrompt where the answer does not hold one for each order."""
    content = completion.message.content or ""
    if completion.finish_reason == "refusal":
        raise UnusablePrompt("prompt.refused", "the teacher refused to write this", content)
    if completion.is_truncated:
        raise UnusablePrompt("prompt.truncated", "cut off at --prompt-max-tokens", content)
    if len(orders) == 1:
        return {orders[0].id: content}
    texts = _requests_in(content)
    if texts is None:
        raise UnusablePrompt("prompt.no_json", "the teacher's answer is no JSON of the form asked for", content)
    if len(texts) != len(orders):
        raise UnusablePrompt("prompt.no_json", f"{len(texts)} requests for {len(orders)} orders", content)
    return {order.id: text for order, text in zip(orders, texts, strict=True)}


def _requests_in(content: str) -> list[str] | None:
    """The list in an answer, also where an endpoint without schemas lets the model put words or a fence around it."""
    starts = [match.start() for match in _START_OF_REQUESTS.finditer(content)]
    try:
        texts = json.JSONDecoder().raw_decode(content, starts[-1])[0]["requests"]
    except (IndexError, ValueError, RecursionError):
        return None
    return texts if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else None


def most_tokens(messages: Sequence[Message], options: SamplingOptions) -> int:
    """What a call may cost at worst, input and output together; the input is an estimate."""
    schema_tokens = SCHEMA_TOKENS + _estimate(json.dumps(options.schema)) if options.schema is not None else 0
    return _input_estimate(messages) + schema_tokens + options.max_tokens


def tokens_of(messages: Sequence[Message], completion: Completion) -> tuple[int, int]:
    """(input, output) that a call cost, estimated where the endpoint does not say."""
    spent_in, spent_out = completion.prompt_tokens, completion.completion_tokens
    return (
        _input_estimate(messages) if spent_in is None else spent_in,
        _estimate(completion.message.content or "") if spent_out is None else spent_out,
    )


def _input_estimate(messages: Sequence[Message]) -> int:
    return FRAME_TOKENS + sum(_estimate(message.content or "") for message in messages)


def _estimate(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // BYTES_A_TOKEN)
