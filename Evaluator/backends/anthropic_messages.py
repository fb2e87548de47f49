"""Claude through the anthropic SDK, one request at a time, as a teacher that writes prompts."""

import time
from collections.abc import Sequence

from Evaluator.backends.anthropic_sdk import AnthropicService, completion_of, request_parameters
from Evaluator.backends.endpoint_pool import Faulty
from Evaluator.model_client import EMPTY_ANSWER, Completion, SamplingOptions
from Evaluator.records import Message


class AnthropicMessagesClient(AnthropicService):
    """Answers of one Claude model."""

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        parameters = request_parameters(self._model, messages, options)

        def ask(url: str) -> Completion:
            started = time.perf_counter()
            completion = completion_of(self._sdk.messages.create(**parameters), time.perf_counter() - started)
            if not (completion.message.content or "").strip() and completion.finish_reason == "stop":
                raise Faulty(EMPTY_ANSWER, f"{url} sent an empty answer")
            return completion

        return self._call(ask)
