"""What a run would take, told without loading weights, and the refusal of what cannot fit."""

import argparse
import logging
import math
import os
import random
import sys
from collections.abc import Sequence
from contextlib import suppress

from Evaluator.errors import UsageError
from Trainers.common.base_models import (
    BaseModel,
    dequantised_folder,
    gguf_path,
    load_tokenizer,
    refuse_missing_folder,
)
from Trainers.common.flags import resolve_for
from Trainers.common.launch import is_main_process, num_local_processes, num_processes
from Trainers.common.memory import (
    CARD_FLOPS,
    CPU_CORE_BF16_FLOPS,
    CPU_CORE_FLOPS,
    Load,
    as_gb,
    memory_parts,
    step_flops,
)
from Trainers.common.model_sizes import ModelShape, shape_of
from Trainers.common.prepared import EstimatingRenderer, Method, Prepared, RendersTurns, described_rows, num_characters
from Trainers.common.rendering import CannotRender, Renderer
from Trainers.common.trainer_setup import cpu_has_bf16
from Trainers.common.training_data import Conversation, TrainingData

log = logging.getLogger(__name__)

MOST_RENDERED = 1000
"""Rows that are tokenised for a dry run, which shall take no more than seconds."""
HAS_TRITON = sys.platform != "win32"
"""Assumed where no GPU can be asked; a run asks."""
CARD_GB = 24.0
"""An RTX 3090's memory, calculated for where no GPU is at hand."""


def dry_run(args: argparse.Namespace, method: Method, data: TrainingData) -> None:
    """Print rows, tokens, steps, memory by part and time. Raises UsageError for what cannot fit."""
    on_cpu = args.device == "cpu"
    resolve_for(args, "cpu" if on_cpu else "cuda")
    if not gguf_path(args.model_name):
        refuse_missing_folder(args.model_name)
    renderer, notes = _renderer(args, data.conversations)
    prepared = method.prepare(data, renderer, args, processes=1)
    steps = total_steps(args, prepared)
    lines = [*notes, *described_rows(data, prepared), f"steps: {prepared.steps} an epoch, {steps} in all", ""]
    load, shape = load_of(args, method.name, prepared), shape_of(args.model_name)
    if shape:
        lines += _memory_lines(shape, load, None if on_cpu else args.memory_gb or CARD_GB)
        speed = _cpu_flops() if on_cpu else CARD_FLOPS
        seconds = step_flops(shape, load, prepared.tokens) / speed * steps / prepared.steps
        where = "on this CPU" if on_cpu else "on an RTX 3090"
        lines.append(f"expected time {where}: {_as_time(seconds)} (calculated, not measured)")
        if not on_cpu:
            lines.append("for a CPU: --device cpu")
    else:
        lines.append(f"memory: not calculated, the shape of {args.model_name} is not known here")
    print("\n".join(lines))
    check_memory(args, method.name, prepared, None if on_cpu else CARD_GB)


def total_steps(args: argparse.Namespace, prepared: Prepared) -> int:
    """Optimizer steps of the whole run."""
    return args.max_steps or math.ceil(prepared.steps * args.num_epochs)


def warmup_steps(args: argparse.Namespace, steps: int) -> int:
    """Steps in which the learning rate rises from 0: a run of few steps would else hardly learn."""
    return min(5, steps // 20) if args.warmup_steps is None else args.warmup_steps


def load_of(args: argparse.Namespace, method: str, prepared: Prepared, *, has_triton: bool = HAS_TRITON) -> Load:
    """What one step of this run has to hold."""
    return Load(
        rows=args.batch_size,
        length=prepared.longest,
        lora_rank=args.lora_rank,
        is_nf4=args.quantization == "nf4",
        checkpointing=args.gradient_checkpointing,
        is_kto=method == "kto",
        has_reference_adapter=method == "kto" and args.adapter is not None,
        is_packed=getattr(args, "packing", False),
        on_cpu=args.device == "cpu",
        has_triton=has_triton,
        processes=num_processes(),
    )


def check_memory(
    args: argparse.Namespace,
    method: str,
    prepared: Prepared,
    card_gb: float | None,
    *,
    free_gb: float | None = None,
    has_triton: bool = HAS_TRITON,
) -> None:
    """Raise UsageError where the calculated memory is more than --memory-gb, or the card, has.

    `card_gb` is None on a CPU, where --memory-gb is the only limit: what may not fit into this machine is a warning, as
    is what may not fit into the `free_gb` that others leave of the card.
    """
    limit = args.memory_gb or card_gb
    shape = shape_of(args.model_name)
    if shape is None:
        return
    parts = memory_parts(shape, load_of(args, method, prepared, has_triton=has_triton))
    needed, largest = sum(parts.values()), max(parts, key=lambda part: parts[part])
    if limit is not None and needed > limit * 1e9:
        raise UsageError(
            f"{args.model_name} needs some {as_gb(needed)}, and there are {limit:g} GB (most of it: "
            f"{largest}, {as_gb(parts[largest])}). Lower --batch-size or --max-length, or take a smaller model"
        )
    if free_gb is not None and needed > free_gb * 1e9:
        log.warning(
            "warning: %s needs some %s, and other programs leave %.1f GB of the card: close some, or it may run out",
            *(args.model_name, as_gb(needed), free_gb),
        )
    there = machine_bytes()
    if limit is None and there and needed * num_local_processes() > there and is_main_process():
        log.warning(
            "warning: %s needs some %s in each of %d processes, and this machine has %s, so it may end them: lower "
            "--batch-size or --max-length, or train with fewer processes",
            *(args.model_name, as_gb(needed), num_local_processes(), as_gb(there)),
        )


def machine_bytes() -> int | None:
    """The memory of this machine; None where the system does not say."""
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _memory_lines(shape: ModelShape, load: Load, limit_gb: float | None) -> list[str]:
    parts = memory_parts(shape, load)
    lines = [f"memory at {load.rows} x {load.length} tokens (calculated, not measured):"]
    lines += [f"  {part:24}{as_gb(size):>10}" for part, size in parts.items()]
    limit = f" of {limit_gb:g} GB" if limit_gb else ""
    return [*lines, f"  {'in all':24}{as_gb(sum(parts.values())):>10}{limit}"]


def _renderer(args: argparse.Namespace, conversations: Sequence[Conversation]) -> tuple[RendersTurns, list[str]]:
    """The model's own renderer; one that estimates lengths where that is not on this machine, or would take long."""
    try:
        exact = Renderer(load_tokenizer(_base_on_disk(args.model_name), local_files_only=True))
    except (UsageError, ModuleNotFoundError):
        return EstimatingRenderer(), [
            f"the tokenizer of {args.model_name} is not on this machine: tokens and steps are estimated"
        ]
    if len(conversations) <= MOST_RENDERED:
        return exact, []
    sample = random.Random(args.seed).sample(conversations, MOST_RENDERED // 4)
    return EstimatingRenderer(_characters_a_token(exact, sample)), [
        f"tokens and steps are estimated from {len(sample)} of the rows"
    ]


def _characters_a_token(renderer: Renderer, conversations: Sequence[Conversation]) -> float:
    characters = tokens = 0
    for conversation in conversations:
        with suppress(CannotRender):
            tokens += len(renderer.last_turn(conversation.messages).input_ids)
            characters += sum(map(num_characters, conversation.messages))
    return max(characters, 1) / max(tokens, 1)


def _base_on_disk(name: str) -> BaseModel:
    """As find_base_model(), but nothing is fetched or dequantised."""
    gguf = gguf_path(name)
    return BaseModel(name, str(dequantised_folder(gguf)) if gguf else name)


def _cpu_flops() -> float:
    try:
        a_core = CPU_CORE_BF16_FLOPS if cpu_has_bf16() else CPU_CORE_FLOPS
    except ModuleNotFoundError:
        a_core = CPU_CORE_FLOPS
    return a_core * (os.cpu_count() or 1)


def _as_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
