"""One training run, from the files to the adapter: the same for SFT and KTO."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import Evaluator
from Evaluator.errors import OK, ReportedError
from Evaluator.runs.signals import Signals
from Trainers.common.base_models import BaseModel, find_base_model, load_model, load_tokenizer
from Trainers.common.dry_run import check_memory, dry_run
from Trainers.common.flags import check_arguments, resolve_for, settings_of
from Trainers.common.prepared import Method, Prepared, described_rows
from Trainers.common.rendering import Renderer
from Trainers.common.run_folder import RunFolder
from Trainers.common.trainer_setup import (
    card_gb,
    device_of,
    loading_options,
    lora_config,
    quiet_libraries,
    training_arguments,
    with_adapter,
)
from Trainers.common.training_data import TrainingData, read_training_data

if TYPE_CHECKING:
    from transformers import Trainer

log = logging.getLogger(__name__)

PACKAGES = ("torch", "trl", "transformers", "peft", "datasets", "accelerate", "bitsandbytes")


def run_training(args: argparse.Namespace, method: Method) -> int:
    """Train, or with --dry-run tell what training would take. Returns the exit status."""
    check_arguments(args)
    data = read_training_data(args.local_file, allow_eval_prompts=args.allow_eval_prompts)
    if args.dry_run:
        dry_run(args, method, data)
        return OK
    folder = RunFolder(args.output)
    settings = settings_of(args)
    if folder.is_complete(settings, data.sha256, resume=args.resume, overwrite=args.overwrite):
        log.info("%s is complete already", folder.path)
        print(folder.path)
        return OK
    with Signals() as signals:
        try:
            return _train(args, settings, method, data, folder, signals)
        except KeyboardInterrupt:
            log.error("interrupted before the first step; nothing was trained")
            return signals.status


def _train(
    args: argparse.Namespace,
    settings: Mapping[str, Any],
    method: Method,
    data: TrainingData,
    folder: RunFolder,
    signals: Signals,
) -> int:
    quiet_libraries(args.verbose)
    resolve_for(args, device_of(args))
    base = find_base_model(args.model_name)
    tokenizer = load_tokenizer(base)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    prepared = method.prepare(data, Renderer(tokenizer), args, processes)
    is_main = int(os.environ.get("RANK", "0")) == 0
    if is_main:
        for line in described_rows(data, prepared):
            log.info("%s", line)
    check_memory(args, method.name, prepared, card_gb())
    checkpoint = folder.last_checkpoint() if args.resume else None
    record = _record(settings, args, method, data, prepared, base)
    started = time.monotonic()
    try:
        trainer, stop = _make_trainer(args, method, prepared, base, tokenizer, folder, signals)
        if is_main:
            if args.overwrite:  # not before the new run is ready to begin
                folder.clear()
            folder.write_record(record)
            if checkpoint:
                log.info("going on from %s", checkpoint)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (RuntimeError, MemoryError) as error:
        raise _as_sentence(error) from error
    if stop.has_stopped:
        log.warning("run the same command with --resume to go on")
        return signals.status
    if is_main:
        _save(trainer, tokenizer, folder)
        metrics = {**result.metrics, "seconds_this_time": round(time.monotonic() - started, 1)}
        folder.write_record({**record, "is_complete": True, "steps": trainer.state.global_step, "metrics": metrics})
        log.info("the adapter is in %s", folder.path)
        print(folder.path)
    return OK


def _make_trainer(
    args: argparse.Namespace,
    method: Method,
    prepared: Prepared,
    base: BaseModel,
    tokenizer: Any,
    folder: RunFolder,
    signals: Signals,
) -> tuple["Trainer", Any]:
    from transformers import PrinterCallback, ProgressCallback

    from Trainers.common.callbacks import MetricsFile, ProgressBar, RewardWatch, StopOnSignal

    stop = StopOnSignal(signals)
    folder.path.mkdir(parents=True, exist_ok=True)
    model = with_adapter(args, load_model(base, **loading_options(args)))
    callbacks = [MetricsFile(folder.metrics_path), ProgressBar(), RewardWatch(), stop]
    trainer = method.trainer(
        args,
        prepared,
        training_arguments(args, folder, has_validation=prepared.validation is not None),
        model=model,
        peft_config=None if args.adapter else lora_config(args),
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    for unwanted in (ProgressCallback, PrinterCallback):  # they write to stdout
        trainer.remove_callback(unwanted)
    return trainer, stop


def _save(trainer: "Trainer", tokenizer: Any, folder: RunFolder) -> None:
    """The adapter that was trained, not the frozen copy that KTO compares it with, and the unchanged tokenizer."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(str(folder.path), selected_adapters=["default"])
    tokenizer.save_pretrained(str(folder.path))


def _record(
    settings: Mapping[str, Any],
    args: argparse.Namespace,
    method: Method,
    data: TrainingData,
    prepared: Prepared,
    base: BaseModel,
) -> dict[str, Any]:
    """What run.json says of a run; settings are as asked for, `resolved` what the machine made of them."""
    return {
        "method": method.name,
        "version": Evaluator.__version__,
        "is_complete": False,
        "settings": dict(settings),
        "resolved": {
            "device": args.device,
            "quantization": args.quantization,
            "gradient_checkpointing": args.gradient_checkpointing,
            "packing": getattr(args, "packing", None),
            "gguf": base.gguf.name if base.gguf else None,
            **prepared.settings,
        },
        "data": {
            "sha256": data.sha256,
            "rows": dict(prepared.rows),
            "left_out": dict(prepared.left_out),
            "bad_lines": data.num_bad_lines,
            "labels": {str(label).lower(): count for label, count in data.labels().items()},
            "tokens": prepared.tokens,
            "trained_tokens": prepared.answer_tokens,
        },
        "versions": {"python": sys.version.split()[0], **package_versions()},
    }


def package_versions() -> Mapping[str, str | None]:
    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {package: of(package) for package in PACKAGES}


def _as_sentence(error: BaseException) -> Exception:
    """Out of memory as one sentence with what to do; anything else as it is."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return ReportedError(
            f"out of memory ({text.splitlines()[0] if text else 'the system has none left'}). Lower --batch-size and "
            f"raise --gradient-accumulation-steps as much, then lower --max-length, then --lora-rank; --dry-run tells "
            f"what each part takes. --resume goes on from the last checkpoint"
        )
    return error if isinstance(error, Exception) else ReportedError(text)
