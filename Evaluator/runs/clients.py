"""The model clients of one run, with a meter on them."""

import argparse
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from Evaluator.model_client import Completion, ModelClient, SamplingOptions
from Evaluator.model_flags import answering_client, batches_from, writing_client
from Evaluator.records import Message

if TYPE_CHECKING:
    from Evaluator.backends.anthropic_batches import AnthropicBatches


class Meter:
    """Time that requests spent on the wire, in seconds, and tokens that came back, over all clients."""

    def __init__(self) -> None:
        self.wire_s = 0.0
        self.completion_tokens = 0
        self._lock = threading.Lock()

    def note(self, completion: Completion) -> None:
        with self._lock:
            self.wire_s += completion.latency_s
            self.completion_tokens += completion.completion_tokens or 0


class MeteredClient:
    """A client whose completions are noted by a meter."""

    def __init__(self, client: ModelClient, meter: Meter) -> None:
        self._client = client
        self._meter = meter

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        completion = self._client.complete(messages, options)
        self._meter.note(completion)
        return completion

    def stop(self) -> None:
        self._client.stop()

    def close(self) -> None:
        self._client.close()


class Clients:
    """Makes the clients of a run when they are first asked for: a run with nothing to do starts no model."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.meter = Meter()
        self._args = args
        self._made: list[MeteredClient | AnthropicBatches] = []

    def answering(self) -> ModelClient:
        """The client for --model."""
        return self._of_model[0]

    def writing(self) -> ModelClient:
        """The client for --model where it writes prompts: an embedded one may have an adapter of its own for that."""
        return self._of_model[1]

    @cached_property
    def _of_model(self) -> tuple[ModelClient, ModelClient]:
        client = answering_client(self._args)
        answering, writer = self._metered(client), getattr(client, "writer", None)
        return answering, MeteredClient(writer, self.meter) if writer else answering

    def teacher(self, model: str, base_urls: Sequence[str], api_key_env: str | None) -> ModelClient:
        """The client for a model that only writes prompts; --model itself is not loaded twice."""
        if model == self._args.model and not base_urls:
            return self.writing()
        return self._metered(writing_client(self._args, model, base_urls, api_key_env))

    def batches(self, model: str) -> "AnthropicBatches":
        """Message Batches for a claude-... that writes prompts."""
        made = batches_from(self._args, model)
        self._made.append(made)
        return made

    def _metered(self, client: ModelClient) -> MeteredClient:
        metered = MeteredClient(client, self.meter)
        self._made.append(metered)
        return metered

    def stop(self) -> None:
        """Requests that wait for an endpoint give up."""
        for client in self._made:
            client.stop()

    def close(self) -> None:
        for client in self._made:
            client.close()
