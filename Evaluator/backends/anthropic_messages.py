"""Claude through the anthropic SDK, one request at a time, as a teacher that writes prompts."""

import time
from collections.abc import Sequence

from Evaluator.backends.anthropic_sdk import AnthropicService, completion_of, request_parameters
from Evaluator.model_client import Completion, SamplingOptions
from Evaluator.records import Message


class AnthropicMessagesClient(AnthropicService):
    """Answers of one Claude model. An empty one is an answer: it has cost something."""

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        parameters = request_parameters(self._model, messages, options)

        def ask(_url: str) -> Completion:
            started = time.perf_counter()
            return completion_of(self._sdk.messages.create(**parameters), time.perf_counter() - started)

        return self._call(ask)
