"""The flags that choose a model and how it is reached, the same in every program."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from Evaluator.backends.default_weights import EMBEDDED, STARTER_ADAPTER, STARTER_WRITER
from Evaluator.backends.endpoint_pool import Patience
from Evaluator.errors import UsageError
from Evaluator.flag_types import number
from Evaluator.model_client import ModelClient

if TYPE_CHECKING:
    from Evaluator.backends.anthropic_batches import AnthropicBatches

DEFAULT_BASE_URL = "http://localhost:1234/v1"
STARTER, NO_ADAPTER = "starter", "none"
SCRIPTED_PREFIX = "scripted:"
CLAUDE_PREFIX = "claude-"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group "model" to a parser. resolve_model_arguments() and then answering_client() read what it gives."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=EMBEDDED,
        help="'embedded', a FILE.gguf, scripted:REPLIES.jsonl, or the name of a model on an endpoint (default: "
        "%(default)s, which is SmolLM2-135M-Instruct in this process)",
    )
    group.add_argument(
        "--adapter",
        type=Path,
        metavar="FILE.gguf|none",
        help="LoRA adapter for an embedded model (default: for --model embedded the one that comes with it, which "
        "knows the tools; none leaves it out)",
    )
    group.add_argument(
        "--context-length",
        type=number(int, 256),
        default=2048,
        metavar="N",
        help="tokens of prompt and answer together, embedded models only (default: %(default)s)",
    )
    group.add_argument(
        "--base-url",
        type=base_url,
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
        help="longest silence while an answer is waited for, in seconds; it is not streamed (default: %(default)g)",
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


def resolve_model_arguments(args: argparse.Namespace) -> None:
    """Make --adapter a path or None; call it once. Raises UsageError for flags that the model has no use for."""
    if args.adapter and not is_embedded(args.model):
        raise UsageError(f"--adapter is for embedded models, and --model {args.model} is none")
    if args.base_url and (is_embedded(args.model) or is_scripted(args.model)):
        raise UsageError(f"--base-url needs --model NAME, a model there; --model {args.model} uses no endpoint")
    if args.adapter is None and args.model == EMBEDDED:
        args.adapter = STARTER_ADAPTER
    elif is_none(args.adapter):
        args.adapter = None


def is_none(adapter: Path | None) -> bool:
    """Whether a flag for an adapter says that there is to be none; not given, it does not."""
    return str(adapter) == NO_ADAPTER


def adapter_name(adapter: Path | None) -> str | None:
    """What runs and reports call an adapter."""
    bundled = {STARTER_ADAPTER: STARTER, STARTER_WRITER: f"{STARTER} writer"}
    return bundled.get(adapter, str(adapter)) if adapter else None


def answering_client(args: argparse.Namespace) -> ModelClient:
    """The client for --model with --adapter; an embedded one has its adapter for writing requests as well.

    `args` are checked already. Raises UsageError.
    """
    return _client(args, args.model, args.base_url, args.api_key_env, args.adapter, _writer_adapter(args, args.model))


def writing_client(
    args: argparse.Namespace, model: str, base_urls: Sequence[str] = (), api_key_env: str | None = None
) -> ModelClient:
    """The client for a model that only writes requests: claude-... through the anthropic SDK, unless it has a base URL.

    `base_urls` are --base-url by default, `api_key_env`, the variable of the key, --api-key-env ("": no key). Raises
    UsageError.
    """
    if is_claude(model) and not base_urls:
        from Evaluator.backends.anthropic_messages import AnthropicMessagesClient

        return AnthropicMessagesClient(model, use_proxy=args.use_proxy, patience=_patience(args))
    key_env = args.api_key_env if api_key_env is None else api_key_env
    return _client(args, model, base_urls or args.base_url, key_env, _writer_adapter(args, model))


def _writer_adapter(args: argparse.Namespace, model: str) -> Path | None:
    return getattr(args, "writer_adapters", {}).get(model)  # only who lets models write requests has them


def _client(
    args: argparse.Namespace,
    model: str,
    base_urls: Sequence[str] | None,
    api_key_env: str,
    adapter: Path | None,
    writer_adapter: Path | None = None,
) -> ModelClient:
    if is_scripted(model):
        from Evaluator.backends.scripted import ScriptedClient

        return ScriptedClient(Path(model.removeprefix(SCRIPTED_PREFIX)))
    if is_embedded(model):
        from Evaluator.backends.default_weights import default_weights
        from Evaluator.backends.embedded import EmbeddedClient

        return EmbeddedClient(
            default_weights() if model == EMBEDDED else Path(model),
            adapter=adapter,
            writer_adapter=writer_adapter,
            slots=args.concurrency,
            context_length=args.context_length,
            patience=_patience(args),
        )
    from Evaluator.backends.openai_compatible import OpenAICompatibleClient

    return OpenAICompatibleClient(
        model,
        base_urls or [DEFAULT_BASE_URL],
        api_key=_api_key(api_key_env),
        api_key_env=api_key_env,
        concurrency=args.concurrency,
        use_proxy=args.use_proxy,
        patience=_patience(args),
    )


def batches_from(args: argparse.Namespace, model: str) -> "AnthropicBatches":
    """Message Batches for a claude-... at Anthropic. Raises UsageError for another model."""
    if not is_claude(model):
        raise UsageError(f"batches are for {CLAUDE_PREFIX}... at Anthropic, and {model} is none")
    from Evaluator.backends.anthropic_batches import AnthropicBatches

    return AnthropicBatches(model, use_proxy=args.use_proxy, patience=_patience(args))


def base_url(text: str) -> str:
    """An argparse type: an http or https address, without a closing slash."""
    if not re.match(r"https?://[^/\s]", text):
        raise argparse.ArgumentTypeError(f"{text!r} does not start with http:// or https:// and a host")
    return text.rstrip("/")


def _api_key(variable: str) -> str | None:
    """The key in an environment variable, None without one. Its text appears in no message."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"the API key in {variable} has characters that no header can carry")
    return key or None


def _patience(args: argparse.Namespace) -> Patience:
    return Patience(args.timeout, args.max_retries, args.give_up_after)


def is_embedded(model: str) -> bool:
    return model == EMBEDDED or model.lower().endswith(".gguf")


def is_claude(model: str) -> bool:
    return model.startswith(CLAUDE_PREFIX)


def is_scripted(model: str) -> bool:
    return model.startswith(SCRIPTED_PREFIX)
