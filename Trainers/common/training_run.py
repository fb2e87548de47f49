"""One training run, from the files to the adapter: the same for SFT and KTO."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import Evaluator
from Evaluator.errors import OK, ReportedError
from Evaluator.runs.signals import Signals
from Trainers.common.base_models import ARCHITECTURES, BaseModel, find_base_model, load_model, load_tokenizer
from Trainers.common.dry_run import check_memory, dry_run, total_steps, warmup_steps
from Trainers.common.flags import check_arguments, resolve_for, settings_of
from Trainers.common.launch import is_main_process, num_processes
from Trainers.common.prepared import Method, Prepared, described_rows
from Trainers.common.rendering import Renderer
from Trainers.common.run_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TRAINER_STATE, RunFolder
from Trainers.common.trainer_setup import (
    card_gb,
    computes_in_bf16,
    device_of,
    free_gb,
    is_out_of_memory,
    loading_options,
    lora_config,
    quiet_libraries,
    score_trained_tokens_only,
    train_in_float32,
    trained_weights,
    training_arguments,
    triton_works,
    with_adapter,
)
from Trainers.common.training_data import TrainingData, read_training_data, sha256_of

if TYPE_CHECKING:
    from transformers import Trainer

log = logging.getLogger(__name__)

PACKAGES = ("torch", "trl", "transformers", "peft", "datasets", "accelerate", "bitsandbytes")


def run_training(args: argparse.Namespace, method: Method) -> int:
    """Train, or with --dry-run tell what training would take. Returns the exit status."""
    check_arguments(args)
    data = read_training_data(args.local_file, allow_eval_prompts=args.allow_eval_prompts)
    method.check(data)
    if args.dry_run:
        dry_run(args, method, data)
        return OK
    folder = RunFolder(args.output)
    settings = settings_of(args)
    if args.adapter:
        data.sha256[str(args.adapter)] = sha256_of(args.adapter / ADAPTER_WEIGHTS)
    others_wait = folder.held() if is_main_process() else nullcontext()
    with others_wait, Signals("stopping after the step under way") as signals:
        if folder.is_complete(method.name, settings, data.sha256, resume=args.resume, overwrite=args.overwrite):
            if is_main_process():
                log.info("%s is complete already", folder.path)
                print(folder.path)
            return OK
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
    if is_main_process() and not base.is_local:
        log.info("loading %s from huggingface.co, or from its cache ...", base.name)
    tokenizer = load_tokenizer(base)
    prepared = method.prepare(data, Renderer(tokenizer), args, num_processes())
    is_main = is_main_process()
    if is_main:
        for line in described_rows(data, prepared):
            log.info("%s", line)
    has_triton = args.device == "cuda" and triton_works()
    card = card_gb() if args.device == "cuda" else None
    check_memory(args, method.name, prepared, card, free_gb=free_gb(args.device), has_triton=has_triton)
    if args.device == "cuda" and not has_triton and is_main:
        log.warning(
            "warning: Triton does not work here, so the loss takes some 4 GB more and longer. It needs a C compiler "
            "and Python's headers (build-essential and python3-dev), and not Windows"
        )
    args.warmup_steps = warmup_steps(args, total_steps(args, prepared))
    checkpoint = folder.last_checkpoint() if args.resume else None
    record = _record(settings, args, method, data, prepared, base)
    if checkpoint:
        folder.refuse_other_machine(record["resolved"])
    started = time.monotonic()
    try:
        score_trained_tokens_only(has_triton=has_triton)
        trainer, stop = _make_trainer(args, method, prepared, base, tokenizer, folder, signals)
        if is_main:
            if args.overwrite:  # not before the new run is ready to begin
                folder.clear()
            folder.write_record(record)
            if checkpoint:
                log.info("going on from %s", checkpoint)
        metrics = _trained(trainer, checkpoint)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, folder) from error
    if stop.has_stopped:
        if is_main:
            log.warning("run the same command with --resume to go on")
        return signals.status
    signals.interrupt = False  # also where there was no step to train
    if is_main:
        _save(trainer, tokenizer, folder, args.model_name)
        metrics |= {"seconds_this_time": round(time.monotonic() - started, 1)}
        folder.write_record({**record, "is_complete": True, "steps": trainer.state.global_step, "metrics": metrics})
        log.info("the adapter is in %s", folder.path)
        print(folder.path)
    return OK


def _trained(trainer: "Trainer", checkpoint: Path | None) -> dict[str, Any]:
    """Train, from `checkpoint` on if there is one, and give the metrics.

    A run that ended after its last step, before its adapter was saved, has none left: transformers would make one more.
    How many there are the checkpoint knows: with packing they depend on TRL's shuffling.
    """
    if checkpoint:
        from transformers import TrainerState

        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
        if state.global_step >= state.max_steps:
            trainer._load_from_checkpoint(str(checkpoint))
            trainer.state = state
            return {}
    return dict(trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics)


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
    model = load_model(base, **loading_options(args))
    if model.config.model_type not in ARCHITECTURES and is_main_process():
        log.warning(
            "warning: %s is of type %s, which Trainers.export does not write: its adapter will be for PEFT and "
            "vLLM alone",
            *(base.name, model.config.model_type),
        )
    model = with_adapter(args, model)
    begun_with = trained_weights(model) if args.adapter else {}
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
    train_in_float32(trainer.model, begun_with)
    return trainer, stop


def _save(trainer: "Trainer", tokenizer: Any, folder: RunFolder, model_name: str) -> None:
    """The adapter that was trained, not the frozen copy that KTO compares it with, and the unchanged tokenizer."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(str(folder.path), selected_adapters=["default"])
    config = folder.path / ADAPTER_CONFIG
    named = json.loads(config.read_bytes()) | {"base_model_name_or_path": model_name}  # not a folder of a user's cache
    config.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(str(folder.path))
    for stub in (folder.path / "README.md", folder.checkpoints / "README.md"):
        stub.unlink(missing_ok=True)  # cards that say "More Information Needed"


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
            "bf16": computes_in_bf16(args),
            "gradient_checkpointing": args.gradient_checkpointing,
            "packing": getattr(args, "packing", None),
            "warmup_steps": args.warmup_steps,
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


def out_of_memory(error: BaseException, folder: RunFolder) -> ReportedError:
    """Running out of memory as one sentence with what to do."""
    said = (str(error).splitlines() or ["the system has none left"])[0]
    checkpoint = folder.last_checkpoint()
    kept = f"; --adapter {checkpoint} goes on from what was learnt" if checkpoint else ""
    return ReportedError(
        f"out of memory ({said}). Close what else uses that memory and run again with --resume. If that is not "
        f"enough, begin anew in another --output: a lower --batch-size with as much higher "
        f"--gradient-accumulation-steps, then a lower --max-length, then a fresh adapter of a lower --lora-rank{kept}. "
        f"--dry-run tells what each part takes"
    )
