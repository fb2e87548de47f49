"""One training run, from the files to the adapter: the same for SFT and KTO."""

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import Evaluator
from Evaluator.errors import OK, ReportedError, UsageError
from Evaluator.runs.signals import Signals
from Trainers.common.base_models import BaseModel, find_base_model, load_model, load_tokenizer
from Trainers.common.dry_run import check_memory, dry_run
from Trainers.common.flags import check_arguments, resolve_for, settings_of
from Trainers.common.prepared import Method, Prepared, described_rows
from Trainers.common.rendering import Renderer
from Trainers.common.run_folder import RunFolder
from Trainers.common.training_data import TrainingData, read_training_data

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, Trainer

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
    trainer, stop = _make_trainer(args, method, prepared, base, tokenizer, folder, signals)
    record = _record(settings, args, method, data, prepared, base)
    if is_main:
        folder.write_record(record)
        if checkpoint:
            log.info("going on from %s", checkpoint)
    started = time.monotonic()
    try:
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


def quiet_libraries(verbose: bool) -> None:
    """Keep the libraries' chatter off the terminal, except their warnings with --verbose."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    if not verbose:
        warnings.simplefilter("ignore", FutureWarning)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        for name in ("trl", "accelerate", "peft", "datasets", "bitsandbytes", "huggingface_hub", "torch.distributed"):
            logging.getLogger(name).setLevel(logging.ERROR)


def device_of(args: argparse.Namespace) -> str:
    """Where to train: what --device says, else the GPU if there is one. Raises UsageError."""
    import torch

    has_gpu = torch.cuda.is_available()
    if args.device == "cuda" and not has_gpu:
        raise UsageError("--device cuda, but torch finds no GPU (is a CUDA build of torch installed?)")
    return "cuda" if has_gpu and args.device != "cpu" else "cpu"


def card_gb() -> float | None:
    """Memory of this process's GPU in GB; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0"))).total_memory / 1e9


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
    model = _with_adapter(args, load_model(base, **loading_options(args)))
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


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """What from_pretrained is told: bf16 on a GPU, float32 on a CPU, NF4 with double quantisation if asked for."""
    import torch

    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    if args.device == "cuda":
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    if args.quantization == "nf4":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return options


def lora_config(args: argparse.Namespace) -> "LoraConfig":
    """LoRA on every linear layer but the head (QLoRA, section 4: all layers are needed to match full fine-tuning)."""
    from peft import LoraConfig

    return LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _with_adapter(args: argparse.Namespace, model: "PreTrainedModel") -> "PreTrainedModel":
    if not args.adapter:
        return model
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(args.adapter), is_trainable=True)
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"the adapter {args.adapter} does not fit {args.model_name}: {first}") from error


def training_arguments(args: argparse.Namespace, folder: RunFolder, *, has_validation: bool) -> dict[str, Any]:
    """What both of TRL's configurations are given."""
    on_gpu = args.device == "cuda"
    return {
        "output_dir": str(folder.checkpoints),
        "num_train_epochs": args.num_epochs,
        "max_steps": args.max_steps or -1,
        "per_device_train_batch_size": args.batch_size,
        "per_device_eval_batch_size": args.batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "gradient_checkpointing": args.gradient_checkpointing,
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": args.lr_scheduler,
        "warmup_steps": args.warmup_steps,
        "optim": "paged_adamw_8bit" if on_gpu else "adamw_torch",
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "seed": args.seed,
        "data_seed": args.seed,
        "logging_steps": args.logging_steps,
        "save_strategy": "steps",
        "save_steps": args.save_steps,
        "save_total_limit": 2,
        "eval_strategy": "steps" if has_validation else "no",
        "eval_steps": args.eval_steps if has_validation else None,
        "prediction_loss_only": True,
        "report_to": args.report_to or "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
    }


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
