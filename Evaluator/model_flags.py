"""The flags that choose a model and how it is reached, the same in every program."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from Evaluator.model_client import ModelClient

DEFAULT_BASE_URL = "http://localhost:1234/v1"
EMBEDDED = "embedded"
SCRIPTED_PREFIX = "scripted:"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group "model" to a parser. client_from() reads what it gives."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=EMBEDDED,
        help="'embedded', a FILE.gguf, scripted:REPLIES.jsonl, or the name of a model on an endpoint (default: "
        "%(default)s, which is SmolLM2-135M-Instruct in this process)",
    )
    group.add_argument("--adapter", type=Path, metavar="FILE.gguf", help="LoRA adapter for an embedded model")
    group.add_argument(
        "--context-length",
        type=number(int, 256),
        default=2048,
        metavar="N",
        help="tokens of prompt and answer together, embedded models only (default: %(default)s)",
    )
    group.add_argument(
        "--base-url",
        action="append",
        metavar="URL",
        help=f"endpoint, ends in /v1; repeat it to share the work among several (default: {DEFAULT_BASE_URL})",
    )
    group.add_argument(
        "--api-key-env",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable that holds the endpoint's API key, if it wants one (default: %(default)s)",
    )
    group.add_argument(
        "--use-proxy",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="go through the proxies named in the environment (default: %(default)s)",
    )
    group.add_argument(
        "--concurrency",
        type=number(int, 1),
        default=4,
        metavar="N",
        help="requests under way at once; as many as the server has slots (default: %(default)s)",
    )
    group.add_argument(
        "--timeout",
        type=number(float, 0.1),
        default=120.0,
        metavar="S",
        help="longest silence on the wire, in seconds (default: %(default)g)",
    )
    group.add_argument(
        "--max-retries",
        type=number(int, 0),
        default=3,
        metavar="N",
        help="tries again after a fault of the server, for one sample (default: %(default)s)",
    )
    group.add_argument(
        "--give-up-after",
        type=number(float, 0),
        default=120.0,
        metavar="S",
        help="stop, with status 3, after so many seconds without any success (default: %(default)g)",
    )


def client_from(args: argparse.Namespace, model: str | None = None, base_urls: Sequence[str] = ()) -> ModelClient:
    """The client for `model` (default: --model with --adapter) at `base_urls` (default: --base-url).

    Raises UsageError.
    """
    adapter = None if model else args.adapter
    model = model or args.model
    if model.startswith(SCRIPTED_PREFIX):
        from Evaluator.backends.scripted import ScriptedClient

        return ScriptedClient(Path(model.removeprefix(SCRIPTED_PREFIX)))
    if is_embedded(model):
        from Evaluator.backends.default_weights import default_weights
        from Evaluator.backends.embedded import EmbeddedClient

        return EmbeddedClient(
            default_weights() if model == EMBEDDED else Path(model),
            adapter=adapter,
            slots=args.concurrency,
            context_length=args.context_length,
            **_patience(args),
        )
    from Evaluator.backends.openai_compatible import OpenAICompatibleClient

    return OpenAICompatibleClient(
        model,
        [url.rstrip("/") for url in base_urls or args.base_url or [DEFAULT_BASE_URL]],
        api_key=os.environ.get(args.api_key_env),
        api_key_env=args.api_key_env,
        concurrency=args.concurrency,
        use_proxy=args.use_proxy,
        **_patience(args),
    )


def teacher_from(args: argparse.Namespace, model: str, base_urls: Sequence[str] = ()) -> ModelClient:
    """The client for a model that writes prompts: claude-... through the anthropic SDK, unless it has a base URL."""
    if not model.startswith("claude-") or base_urls:
        return client_from(args, model, base_urls)
    from Evaluator.backends.anthropic_messages import AnthropicMessagesClient

    return AnthropicMessagesClient(model, **_patience(args))


def _patience(args: argparse.Namespace) -> dict[str, Any]:
    return {"timeout_s": args.timeout, "max_retries": args.max_retries, "give_up_after_s": args.give_up_after}


def is_embedded(model: str) -> bool:
    return model == EMBEDDED or model.lower().endswith(".gguf")


def number(kind: type, least: float, most: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a number of `kind` from `least` to `most`."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return value

    parse.__name__ = kind.__name__  # argparse names it in "invalid int value"
    return parse
