"""Claude through the anthropic SDK, as a teacher that writes prompts.

The key comes from ANTHROPIC_API_KEY, another address from ANTHROPIC_BASE_URL, both read by the SDK. Sampling
parameters are not sent: the SDK's messages.create has had none since 2.0, and current models refuse them.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from Evaluator.backends.endpoint_pool import Busy, EndpointPool, Faulty, Patience, Unreachable, retry_after_s
from Evaluator.model_client import Completion, ConfigurationRefused, SamplingOptions
from Evaluator.records import Message

if TYPE_CHECKING:
    import anthropic

_FINISH_REASONS = {"max_tokens": "length", "end_turn": "stop", "stop_sequence": "stop"}


class AnthropicMessagesClient:
    """Answers of one Claude model."""

    def __init__(
        self,
        model: str,
        *,
        patience: Patience = Patience(),  # noqa: B008  # frozen
        use_proxy: bool = False,
    ) -> None:
        import anthropic  # takes a second: only where it is used

        self._model = model
        http_client = anthropic.DefaultHttpxClient(trust_env=use_proxy)
        self._sdk = anthropic.Anthropic(timeout=patience.timeout_s, max_retries=0, http_client=http_client)
        self._pool = EndpointPool([str(self._sdk.base_url)], patience)

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        return self._pool.call(lambda url: self._attempt(url, messages, options))

    def stop(self) -> None:
        self._pool.stop()

    def close(self) -> None:
        self._sdk.close()

    def _attempt(self, url: str, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        import anthropic

        started = time.perf_counter()
        try:
            reply = self._create(messages, options)
        except anthropic.APITimeoutError as error:
            raise Faulty("endpoint.timeout", f"no reply from {url} in time") from error
        except anthropic.APIConnectionError as error:
            raise Unreachable(f"no reply from {url} ({error.__cause__ or error})") from error
        except anthropic.APIStatusError as error:
            raise self._meaning_of(url, error) from error
        except (anthropic.AnthropicError, TypeError) as error:  # the SDK raises TypeError when it has no key
            raise ConfigurationRefused(f"the anthropic SDK cannot ask {self._model}: {error}. {_KEY_ADVICE}") from error
        return _completion(url, reply, time.perf_counter() - started)

    def _create(self, messages: Sequence[Message], options: SamplingOptions) -> "anthropic.types.Message":
        import anthropic

        system = "\n\n".join(message.content or "" for message in messages if message.role == "system")
        return self._sdk.messages.create(
            model=self._model,
            max_tokens=options.max_tokens,
            system=system or anthropic.omit,
            stop_sequences=list(options.stop) or anthropic.omit,
            messages=[
                {"role": "assistant" if message.role == "assistant" else "user", "content": message.content or ""}
                for message in messages
                if message.role != "system"
            ],
        )

    def _meaning_of(self, url: str, error: "anthropic.APIStatusError") -> Exception:
        """What to make of a status that is no success."""
        status = error.status_code
        if status in (429, 503, 529):
            return Busy(f"{url} is busy (HTTP {status})", retry_after_s(error.response.headers.get("retry-after")))
        if status >= 500 or status == 408:
            return Faulty(f"endpoint.http_{status}", f"{url} failed with HTTP {status}")
        if status in (401, 403):
            return ConfigurationRefused(f"{url} refuses the API key (HTTP {status}). {_KEY_ADVICE}")
        if status == 404:
            return ConfigurationRefused(f"there is no model {self._model} (HTTP 404). {self._models()}")
        return ConfigurationRefused(f"{url} refuses the request (HTTP {status}): {error.message[:300]}")

    def _models(self) -> str:
        import anthropic

        try:
            names = [model.id for model in self._sdk.models.list(limit=50).data]
        except anthropic.AnthropicError:
            return "See --prompt-generator-model"
        return f"This account has: {', '.join(names) or 'none'}. See --prompt-generator-model"


_KEY_ADVICE = "Put a valid key into ANTHROPIC_API_KEY"


def _completion(url: str, reply: "anthropic.types.Message", latency_s: float) -> Completion:
    text = "".join(block.text for block in reply.content if block.type == "text")
    finish_reason = _FINISH_REASONS.get(reply.stop_reason or "", reply.stop_reason)
    if not text.strip() and finish_reason == "stop":
        raise Faulty("endpoint.empty", f"{url} sent an empty answer")
    message = Message("assistant", text)
    return Completion(message, finish_reason, reply.usage.input_tokens, reply.usage.output_tokens, latency_s)
