"""One case, measured in a process of its own: our trainer or TRL with its defaults, for a few steps."""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Trainers.benchmark_gpu.random_model import METHODS, in_any_order, prepared_rows, tokenizer_without_words
from Trainers.common.base_models import find_base_model, load_model
from Trainers.common.dry_run import load_of
from Trainers.common.flags import check_arguments, resolve_for
from Trainers.common.memory import memory_parts
from Trainers.common.model_sizes import shape_of
from Trainers.common.prepared import Prepared
from Trainers.common.run_folder import RunFolder
from Trainers.common.trainer_setup import (
    card_gb,
    is_out_of_memory,
    loading_options,
    lora_config,
    quiet_libraries,
    score_trained_tokens_only,
    train_in_float32,
    training_arguments,
    triton_works,
)
from Trainers.rtx3090_kto import train_kto
from Trainers.rtx3090_sft import train_sft

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

log = logging.getLogger(__name__)

SCRIPTS = {"sft": train_sft, "kto": train_kto}
CASES = ("sft-ours", "sft-plain", "kto-ours", "kto-plain")


@dataclass(frozen=True)
class Measured:
    """One case: peaks of the training steps in GB (None: no GPU), tokens that are no padding, seconds of a step.

    `loading_gb` is the peak before the first step, `calculated_gb` what a dry run says (None: not our settings),
    `limit_gb` what the allocator may take.
    """

    sequences: str
    card: str
    limit_gb: float | None = None
    calculated_gb: float | None = None
    is_out_of_memory: bool = False
    loading_gb: float | None = None
    allocated_gb: float | None = None
    reserved_gb: float | None = None
    tokens_per_s: float | None = None
    step_s: float | None = None


def flags_of(args: argparse.Namespace, method: str) -> argparse.Namespace:
    """The method's default flags for the model, as its own script makes them of a command."""
    command = ["--model-name", str(args.checkpoint), "--local-file", "-", "--seed", str(args.seed)]
    if args.tiny:  # the rest as on a GPU
        command += ["--device", "cpu", "--max-length", "512", "--gradient-checkpointing"]
        command += ["--packing"] if method == "sft" else []
    flags = SCRIPTS[method].build_parser().parse_args(command)
    check_arguments(flags)
    resolve_for(flags, "cpu" if args.tiny else "cuda")
    flags.max_steps = args.warm_up_steps + args.steps
    return flags


def our_trainer(method: str, flags: argparse.Namespace, prepared: Prepared, folder: Path) -> "Trainer":
    score_trained_tokens_only(has_triton=flags.device == "cuda" and triton_works())
    trainer = METHODS[method].trainer(
        flags,
        prepared,
        {**training_arguments(flags, RunFolder(folder), has_validation=False), "save_strategy": "no"},
        model=load_model(find_base_model(flags.model_name), **loading_options(flags)),
        peft_config=lora_config(flags),
        processing_class=tokenizer_without_words(),
    )
    train_in_float32(trainer.model, {})
    return trainer


def plain_trainer(method: str, flags: argparse.Namespace, prepared: Prepared, folder: Path) -> "Trainer":
    """TRL with a bf16 model, PEFT's LoRA and our batch size and length, on as many batches as our steps have."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import KTOConfig, SFTConfig, SFTTrainer

    from Trainers.common.kto_trainer import PreparedKTOTrainer

    unquantised = argparse.Namespace(**{**vars(flags), "quantization": "none"})
    config = {"sft": SFTConfig, "kto": KTOConfig}[method](
        output_dir=str(folder),
        max_steps=flags.max_steps * flags.gradient_accumulation_steps,  # TRL's default is one batch a step
        per_device_train_batch_size=flags.batch_size,
        max_length=flags.max_length,
        save_strategy="no",
        **({"use_cpu": True, "bf16": False} if flags.device == "cpu" else {}),
    )
    columns = in_any_order(prepared.train, flags.batch_size, flags.seed) if method == "kto" else prepared.train
    return {"sft": SFTTrainer, "kto": PreparedKTOTrainer}[method](
        model=load_model(find_base_model(flags.model_name), **loading_options(unquantised)),
        args=config,
        train_dataset=Dataset.from_dict(columns),
        peft_config=LoraConfig(),
        processing_class=tokenizer_without_words(),
    )


@dataclass
class Meter:
    """Tokens of each batch in the order of training, the time after each step, and the peaks up to the last one."""

    on_gpu: bool
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    peaks_gb: tuple[float, float] | None = None

    def counts(self, collate: Callable[[Any], Mapping[str, Any]]) -> Callable[[Any], Mapping[str, Any]]:
        """`collate`, counting: batches are made ahead of their steps, but in their order."""

        def counted(rows: Any) -> Mapping[str, Any]:
            batch = collate(rows)
            is_token = batch.get("attention_mask")  # packed rows have none, and no padding
            self.tokens.append(batch["input_ids"].numel() if is_token is None else int(is_token.sum()))
            return batch

        return counted

    def end_step(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()
            self.peaks_gb = peaks_gb()
        self.times.append(time.perf_counter())

    def callback(self) -> "TrainerCallback":
        from transformers import TrainerCallback

        meter = self

        class EndOfStep(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                meter.end_step()

        return EndOfStep()


def peaks_gb() -> tuple[float, float]:
    """(allocated, reserved) since the start, or since the peaks were reset."""
    import torch

    return torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9


def measure(args: argparse.Namespace) -> Measured:
    """Train for a few steps. Raises what training raises, but for lack of the GPU's memory."""
    import torch

    quiet_libraries(args.verbose)
    method, settings = args.case.split("-")
    flags, is_ours = flags_of(args, method), settings == "ours"
    packed = is_ours and method == "sft" and flags.packing
    prepared = prepared_rows(method, flags, flags.max_steps * flags.gradient_accumulation_steps, packed=packed)
    accumulated = f"{flags.gradient_accumulation_steps} x " if is_ours else ""
    measured = Measured(
        sequences=f"{accumulated}{flags.batch_size}{' packed' if packed else ''}",
        card="no GPU" if args.tiny else torch.cuda.get_device_name(0),
        limit_gb=None if args.tiny else limit_memory(args.memory_gb),
        calculated_gb=calculated_gb(method, flags, prepared) if is_ours else None,
    )
    make, meter = our_trainer if is_ours else plain_trainer, Meter(on_gpu=not args.tiny)
    with tempfile.TemporaryDirectory() as folder:
        try:
            trainer = make(method, flags, prepared, Path(folder))
            if meter.on_gpu:
                measured = replace(measured, loading_gb=peaks_gb()[0])
                torch.cuda.reset_peak_memory_stats()
            train(trainer, meter)
        except RuntimeError as error:
            if not (meter.on_gpu and is_no_memory_left(error)):
                raise
            log.info("%s: %s", args.case, str(error).splitlines()[0])
            return replace(measured, is_out_of_memory=True)
    return with_speed(measured, meter, args, trainer.args.gradient_accumulation_steps)


def limit_memory(limit_gb: float) -> float:
    """Let torch's allocator take `limit_gb`, or all that the card has if that is less; what it may take."""
    import torch

    limit_gb = min(limit_gb, card_gb())
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_gb / card_gb()), 0)
    return limit_gb


def calculated_gb(method: str, flags: argparse.Namespace, prepared: Prepared) -> float:
    return sum(memory_parts(shape_of(flags.model_name), load_of(flags, method, prepared)).values()) / 1e9


def train(trainer: "Trainer", meter: Meter) -> None:
    from transformers import PrinterCallback, ProgressCallback

    for unwanted in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(unwanted)
    trainer.add_callback(meter.callback())
    trainer.data_collator = meter.counts(trainer.data_collator)
    trainer.train()


def is_no_memory_left(error: RuntimeError) -> bool:
    """Also where a library tells it in its own words: torch counts the allocations that failed for good."""
    import torch

    return is_out_of_memory(error) or torch.cuda.memory_stats().get("num_ooms", 0) > 0


def with_speed(measured: Measured, meter: Meter, args: argparse.Namespace, batches_a_step: int) -> Measured:
    """Add peaks and speed, the latter without the warm-up, which is the same share of every case's batches."""
    steps = len(meter.times)
    warm_up = steps * args.warm_up_steps // (args.warm_up_steps + args.steps)
    seconds = meter.times[-1] - meter.times[warm_up - 1]
    tokens = sum(meter.tokens[warm_up * batches_a_step : steps * batches_a_step])
    allocated, reserved = meter.peaks_gb or (None, None)
    return replace(
        measured,
        allocated_gb=allocated,
        reserved_gb=reserved,
        tokens_per_s=tokens / seconds,
        step_s=seconds / (steps - warm_up),
    )
