"""The flags of both trainers, and the values that they leave to the machine."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.flag_types import number
from Trainers.common.launch import num_processes
from Trainers.common.model_sizes import MODEL_SIZES
from Trainers.common.run_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_json_object

PASSING = ("resume", "overwrite", "dry_run", "verbose")
"""Flags that are about one start of the program, not about what is trained."""


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    sizes = ", ".join(f"{size}: {model.name}" for size, model in MODEL_SIZES.items())
    group.add_argument("--model-size", choices=MODEL_SIZES, help=f"a model of this size ({sizes})")
    group.add_argument(
        "--model-name",
        metavar="NAME",
        help="any other: a name on the hub, a folder, a FILE.gguf, or 'embedded', the one that the generators use",
    )
    group.add_argument("--adapter", type=Path, metavar="DIR", help="go on from this LoRA adapter, not from a fresh one")
    group.add_argument(
        "--quantization",
        choices=("nf4", "none"),
        help="keep the frozen weights in 4 bits, or in 16 (on a CPU 32) (default: nf4 on a GPU, none on a CPU)",
    )
    group.add_argument("--lora-rank", type=number(int, 1), metavar="R", help="rank of a fresh adapter (default: 32)")
    group.add_argument(
        "--lora-alpha", type=number(float, 0.01), metavar="A", help="its scale is alpha/rank (default: twice the rank)"
    )
    group.add_argument(
        "--device",
        choices=("auto", "cuda", "cpu"),
        default="auto",
        help="where to train (default: %(default)s: the GPU if there is one)",
    )
    group.add_argument(
        "--memory-gb",
        type=number(float, 0.1),
        metavar="GB",
        help="memory that may be used; what cannot fit is refused before loading (default: the GPU's; 24 in a dry "
        "run; no limit on a CPU)",
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--local-file", nargs="+", required=True, metavar="FILE.jsonl|-", help="rows to train on; - is stdin"
    )
    group.add_argument(
        "--allow-eval-prompts",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="train on rows that answer the bundled evaluation prompts too, such as v1's (default: %(default)s)",
    )
    group.add_argument(
        "--max-length",
        type=number(int, 64),
        default=2048,
        metavar="N",
        help="longest row in tokens; a longer one is left out and counted, never cut (default: %(default)s)",
    )
    group.add_argument(
        "--validation-fraction",
        type=number(float, 0, 0.5),
        default=0.0,
        metavar="X",
        help="share of the prompts whose rows are kept for the evaluation loss (default: %(default)g)",
    )
    group.add_argument("--seed", type=number(int, 0), default=0, help="of order, split and fresh adapter (default: 0)")


def add_training_arguments(
    parser: argparse.ArgumentParser, *, learning_rate: float, batch_size: int, least_batch_size: int, accumulation: int
) -> Any:
    """Add the group "training" with a method's defaults, and return it for what the method adds."""
    group = parser.add_argument_group("training")
    group.add_argument("--num-epochs", type=number(float, 0.01), default=1.0, help="passes over the rows (default: 1)")
    group.add_argument(
        "--max-steps", type=number(int, 1), metavar="N", help="end after N optimizer steps, whatever --num-epochs says"
    )
    group.add_argument(
        "--learning-rate",
        type=number(float, 0, 1),
        default=learning_rate,
        metavar="X",
        help="highest learning rate (default: %(default)g)",
    )
    group.add_argument(
        "--lr-scheduler",
        choices=("cosine", "linear", "constant", "constant_with_warmup"),
        default="cosine",
        help="how the learning rate goes down (default: %(default)s)",
    )
    group.add_argument(
        "--warmup-steps",
        type=number(int, 0),
        metavar="N",
        help="steps up to it, the first of them at 0 (default: a twentieth of all, at most 5)",
    )
    group.add_argument(
        "--batch-size",
        type=number(int, least_batch_size),
        default=batch_size,
        metavar="N",
        help="sequences on the device at once (default: %(default)s)",
    )
    group.add_argument(
        "--gradient-accumulation-steps",
        type=number(int, 1),
        default=accumulation,
        metavar="N",
        help="such batches in an optimizer step (default: %(default)s)",
    )
    group.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        help="compute activations twice to keep fewer (default: on a GPU)",
    )
    return group


def add_run_arguments(parser: argparse.ArgumentParser, *, output: str) -> None:
    group = parser.add_argument_group("run")
    group.add_argument(
        "--output",
        type=Path,
        default=Path(output),
        metavar="DIR",
        help="folder for adapter, checkpoints, metrics.jsonl and run.json (default: %(default)s)",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="load no weights; print rows, steps, tokens, memory by part and time",
    )
    group.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="go on from the last checkpoint in --output, if there is one (default: %(default)s)",
    )
    group.add_argument(
        "--overwrite",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="begin anew over a run that is in --output (default: %(default)s)",
    )
    group.add_argument(
        "--save-steps", type=number(int, 1), default=50, metavar="N", help="steps to a checkpoint (default: 50)"
    )
    group.add_argument(
        "--eval-steps",
        type=number(int, 1),
        default=50,
        metavar="N",
        help="steps to an evaluation loss, with --validation-fraction (default: 50)",
    )
    group.add_argument(
        "--logging-steps", type=number(int, 1), default=1, metavar="N", help="steps to a line of metrics (default: 1)"
    )
    group.add_argument(
        "--report-to",
        nargs="+",
        choices=("tensorboard", "wandb"),
        default=[],
        help="send metrics there too; has to be installed (default: only metrics.jsonl)",
    )
    group.add_argument("--verbose", action="store_true", help="show tracebacks and the libraries' messages")


def check_arguments(args: argparse.Namespace) -> None:
    """Fill in what depends on other flags. Raises UsageError where flags contradict each other."""
    if (args.model_size is None) == (args.model_name is None):
        raise UsageError("give a model: either --model-size or --model-name")
    args.model_name = args.model_name or MODEL_SIZES[args.model_size].name
    if args.adapter and (args.lora_rank or args.lora_alpha):
        raise UsageError("--lora-rank and --lora-alpha are for a fresh adapter; --adapter has its own")
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if args.adapter else ():
        if not (args.adapter / name).is_file():
            raise UsageError(f"there is no adapter in {args.adapter} (no {name})")
    if args.adapter and args.adapter.resolve().is_relative_to(args.output.resolve()):
        raise UsageError("--adapter is in --output, which would be written over: choose another --output")
    if args.resume and args.overwrite:
        raise UsageError("--resume goes on with a run, --overwrite begins anew: give one of them")
    missing = [name for name in args.report_to if not find_spec(name)]
    if missing:
        raise UsageError(f"--report-to {missing[0]} needs a package that is not installed: pip install {missing[0]}")
    if "-" in args.local_file and num_processes() > 1:
        raise UsageError("several processes cannot all read stdin: give --local-file a file")
    if args.adapter:
        config = read_json_object(args.adapter / "adapter_config.json")
        args.lora_rank, args.lora_alpha = config.get("r", 32), config.get("lora_alpha", 64)
    args.lora_rank = args.lora_rank or 32
    args.lora_alpha = args.lora_alpha or 2 * args.lora_rank


def resolve_for(args: argparse.Namespace, device: str) -> None:
    """Fill in what flags leave to the machine, for "cuda" or "cpu". `packing` is SFT's alone."""
    args.device = device
    args.quantization = args.quantization or ("nf4" if device == "cuda" else "none")
    for name in ("gradient_checkpointing", "packing"):
        if getattr(args, name, False) is None:
            setattr(args, name, device == "cuda")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What a run is made with, as JSON values: all flags but those about one start, and the number of processes."""
    flags = {name: _plain(value) for name, value in vars(args).items() if name not in PASSING}
    return flags | {"processes": num_processes()}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
