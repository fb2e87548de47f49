"""What TRL is given besides rows: the device, the weights as they are loaded, the adapter, the arguments."""

import argparse
import logging
import os
import subprocess
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from Evaluator.errors import UsageError
from Trainers.common.launch import local_rank, num_processes
from Trainers.common.run_folder import RunFolder

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


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
    if args.device == "auto" and not has_gpu and _has_card():
        raise UsageError(
            f"there is an NVIDIA GPU, which torch {torch.__version__} cannot use: it is built for "
            f"{f'CUDA {torch.version.cuda}, which needs a newer driver' if torch.version.cuda else 'CPUs'}. Install "
            f"another build (pytorch.org) or update the driver, or give --device cpu"
        )
    if not has_gpu or args.device == "cpu":
        return "cpu"
    torch.cuda.set_device(local_rank())  # where other libraries look for theirs
    if torch.cuda.device_count() > 1 and num_processes() == 1:
        raise UsageError(
            f"torch finds {torch.cuda.device_count()} GPUs: set CUDA_VISIBLE_DEVICES=0 to train on one, or start with "
            f"accelerate launch to train on all"
        )
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UsageError(
            f"{torch.cuda.get_device_name()} cannot compute in bf16: give an Ampere card or newer, or --device cpu"
        )
    return "cuda"


def _has_card() -> bool:
    """Whether NVIDIA's driver knows a GPU, and nobody hides it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    try:
        said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.startswith(b"GPU ")


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AVX512-BF16 or AMX)."""
    import torch

    has = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 and newer say
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def computes_in_bf16(args: argparse.Namespace) -> bool:
    """Whether matrices are multiplied in bf16: on a GPU, and on a CPU that has instructions for it."""
    return args.device == "cuda" or cpu_has_bf16()


def card_gb() -> float | None:
    """Memory of this process's GPU in GB; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(local_rank()).total_memory / 1e9


def free_gb(device: str) -> float | None:
    """What others leave of this process's GPU in GB; None without one."""
    if device != "cuda":
        return None
    import torch

    return torch.cuda.mem_get_info(local_rank())[0] / 1e9


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """What from_pretrained is told: weights as they are computed with, or NF4 with double quantisation."""
    import torch

    dtype = torch.bfloat16 if computes_in_bf16(args) else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    if args.device == "cuda":
        options["device_map"] = {"": local_rank()}
    if args.quantization == "nf4":
        from transformers import BitsAndBytesConfig

        options.setdefault("device_map", {"": "cpu"})  # bitsandbytes would take a GPU, where there is one
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return options


def is_out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(sign in said for sign in signs)


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


def with_adapter(args: argparse.Namespace, model: "PreTrainedModel") -> "PreTrainedModel":
    """The model with the adapter of --adapter, if any, on it. Raises UsageError where they do not fit."""
    if not args.adapter:
        return model
    from peft import PeftModel

    try:
        place = str(model.device)  # else PEFT takes the weights through a GPU, where there is one
        adapted = PeftModel.from_pretrained(model, str(args.adapter), is_trainable=True, torch_device=place)
    except (RuntimeError, ValueError, OSError) as error:
        if is_out_of_memory(error):
            raise
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"the adapter {args.adapter} does not fit {args.model_name}: {first}") from error
    # PEFT reads the base's config at every checkpoint, on the hub where this is no folder ("embedded")
    adapted.peft_config["default"].base_model_name_or_path = model.name_or_path
    return adapted


def score_trained_tokens_only(*, has_triton: bool) -> None:
    """Have TRL project only the tokens that a loss is on to logits where Triton is not, as it does where it is.

    Elsewhere, on a CPU and on a GPU under Windows, it scores every token, for compilers that would else see another
    shape with every batch; here nothing is compiled, and the projection takes half of the time of a small model.
    The kernels are another matter: TRL takes Triton's where the package is, whether or not it `has_triton` that works.
    """
    import trl.kernels.chunked_logprob
    import trl.trainer.utils

    if hasattr(trl.trainer.utils, "_use_triton"):
        trl.trainer.utils._use_triton = lambda device: True
    if not has_triton:
        trl.kernels.chunked_logprob._use_triton = lambda device: False


@lru_cache(maxsize=1)
def triton_works() -> bool:
    """Whether Triton can compile kernels for this GPU, for which it needs a C compiler and Python's headers as well."""
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:  # CalledProcessError, RuntimeError, ImportError: what its build of the day raises
        log.debug("Triton does not work here: %s", error)
        return False
    return True


def trained_weights(model: "PreTrainedModel") -> "dict[str, torch.Tensor]":
    """A copy of the parameters that are trained, by name."""
    return {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}


def train_in_float32(model: "PreTrainedModel", begun_with: "Mapping[str, torch.Tensor]") -> None:
    """Keep what is trained in float32: TRL casts the adapter of a 4-bit model to bf16, whose steps are coarser than
    the updates of a small learning rate, so that most weights would never move. Call it before the optimizer is made.

    Weights in `begun_with` become again what they were: KTO's reference is a copy of them that TRL did not round.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = begun_with.get(name, parameter.data).float()


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
        "warmup_steps": args.warmup_steps or 0,
        "optim": "adamw_8bit" if on_gpu else "adamw_torch",  # paged: several GPUs cannot resume (bitsandbytes #1708)
        "bf16": computes_in_bf16(args),
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
