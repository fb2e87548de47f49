"""A GGUF model in this process: llama.cpp through xllamacpp, which answers on loopback and batches continuously.

Its listener speaks OpenAI's chat completions, so the client of every other endpoint serves it too. It is closed to
others by a random API key and sends no CORS permission.
"""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from Evaluator.backends.endpoint_pool import Patience
from Evaluator.backends.openai_compatible import OpenAICompatibleClient
from Evaluator.errors import UsageError
from Evaluator.model_client import Completion, EndpointLost, ModelClient, SamplingOptions
from Evaluator.records import Message

BATCH = 256
"""Prompt tokens that are computed in one go: the engine hears of a stop only in between."""
_GGUF_MAGIC = b"GGUF"


class EmbeddedClient:
    """Answers from the weights in `path`, `slots` at a time with `context_length` tokens each (prompt and answer).

    `writer` answers from the same weights with `writer_adapter` in place of `adapter`, if there is one.
    """

    def __init__(
        self,
        path: Path,
        *,
        adapter: Path | None = None,
        writer_adapter: Path | None = None,
        slots: int = 4,
        context_length: int = 2048,
        patience: Patience = Patience(),  # noqa: B008  # frozen
    ) -> None:
        adapters = [one for one in (adapter, writer_adapter) if one is not None]
        key = secrets.token_urlsafe(32)
        server = _start(path, adapters, slots, context_length, key)

        def connect(active: Path | None) -> _Voice:
            lora = [{"id": at, "scale": float(one is active)} for at, one in enumerate(adapters)]
            return _Voice(
                path.stem,
                [f"{server.listening_address}/v1"],
                api_key=key,
                concurrency=slots,
                patience=patience,
                extra={"lora": lora} if adapters else {},
            )

        self._server = server
        self._answering = connect(adapter)
        self.writer: ModelClient = connect(writer_adapter) if writer_adapter else self._answering

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        return self._answering.complete(messages, options)

    def stop(self) -> None:
        for voice in (self._answering, self.writer):
            voice.stop()

    def close(self) -> None:
        for voice in (self._answering, self.writer):
            voice.close()
        self._server = None


class _Voice(OpenAICompatibleClient):
    """The weights with one of the adapters."""

    def complete(self, messages: Sequence[Message], options: SamplingOptions) -> Completion:
        try:
            return super().complete(messages, options)
        except EndpointLost as error:
            raise EndpointLost(
                "the embedded model gave no answer for too long. Is something else using all cores? Run the same "
                "command again to continue. See --give-up-after and --timeout; OMP_NUM_THREADS limits its threads."
            ) from error


def _start(path: Path, adapters: Sequence[Path], slots: int, context_length: int, key: str) -> Any:
    for file in (path, *adapters):
        _check_gguf(file)
    try:
        import xllamacpp
    except ImportError as error:
        raise UsageError('the embedded engine needs xllamacpp: pip install -e ".[embedded]"') from error
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    if adapters:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(one), 1.0) for one in adapters]
    if len(adapters) > 1:
        params.cache_ram_mib = 0  # what llama.cpp keeps there is found by its tokens, whichever adapter made it
    params.n_parallel, params.n_ctx = slots, slots * context_length
    params.n_batch = params.n_ubatch = BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _cores()
    params.fit_params = params.warmup = False  # seconds at every start, for nothing on models of known size
    params.api_keys, params.cors_origins = [key], ""
    params.ui = params.endpoint_slots = False
    params.verbosity = 0
    try:
        return xllamacpp.Server(params)
    except Exception as error:  # the binding raises bare RuntimeError or Exception
        what = " with ".join(map(str, (path, *adapters)))
        raise UsageError(f"llama.cpp cannot load {what}: {error}") from error


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if magic != _GGUF_MAGIC:
        raise UsageError(f"{path} is no GGUF file")


def _cores() -> int:
    """Threads to compute with: as many as OMP_NUM_THREADS says, as for other engines, else as there are cores.

    llama.cpp's threads wait for each other busily: on cores that are taken already, more of them are slower.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) else cores
