"""What was measured as a Markdown table, with what one has to know to read it."""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from statistics import median

from Trainers.benchmark_gpu.cases import Measured
from Trainers.common.model_sizes import MODEL_SIZES, ModelShape
from Trainers.common.training_run import package_versions

SETTINGS = {"ours": "ours", "plain": "TRL's defaults"}
COLUMNS = (
    "method",
    "settings",
    "sequences a step",
    "peak allocated GB",
    "peak reserved GB",
    "calculated GB",
    "tokens/s",
    "s a step",
)


def table_lines(results: Mapping[str, Sequence[Measured]]) -> list[str]:
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for case, measured in results.items():
        method, settings = case.split("-")
        cells = [method.upper(), SETTINGS[settings], measured[0].sequences, *_memory_cells(measured)]
        cells += _range([one.tokens_per_s for one in measured], ".0f"), _range([one.step_s for one in measured], ".2f")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _memory_cells(measured: Sequence[Measured]) -> list[str]:
    calculated = measured[0].calculated_gb
    last = "-" if calculated is None else f"{calculated:.2f}"
    if any(one.is_out_of_memory for one in measured):
        return [f"out of memory at {measured[0].limit_gb:.3g} GB", "-", last]
    if measured[0].allocated_gb is None:
        return ["unmeasured", "unmeasured", last]
    return [f"{max(getattr(one, name) for one in measured):.2f}" for name in ("allocated_gb", "reserved_gb")] + [last]


def _range(values: Sequence[float | None], form: str) -> str:
    """The median, with the lowest and the highest of several; none if one is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    spread = f" ({min(known):{form}} to {max(known):{form}})" if len(known) > 1 else ""
    return f"{median(known):{form}}{spread}"


def note_lines(args: argparse.Namespace, shape: ModelShape, results: Mapping[str, Sequence[Measured]]) -> list[str]:
    import torch

    any_case = next(iter(results.values()))[0]
    limit = f", torch's allocator limited to {any_case.limit_gb:.3g} GB" if any_case.limit_gb else ""
    loading = [
        f"{case} {max(one.loading_gb or 0 for one in measured):.2f} GB"
        for case, measured in results.items()
        if any(one.loading_gb for one in measured)
    ]
    versions = ", ".join(f"{package} {number}" for package, number in package_versions().items() if number)
    return [
        f"- Card: {any_case.card}{limit}; driver {driver_version()}, CUDA {torch.version.cuda or 'none'}",
        f"- {versions}; Python {sys.version.split()[0]}; {date.today().isoformat()}",
        f"- Model: {shape.parameters:,} random weights"
        + ("" if args.tiny else f" in the shape of {MODEL_SIZES[args.model_size].name}"),
        f"- Runs of each case, in turn: {args.repeats}; optimizer steps: {args.warm_up_steps} to warm up, then "
        f"{args.steps} measured, with TRL's defaults as many batches; seed: {args.seed}",
        "- TRL's defaults: bf16 weights, not float32 as TRL itself would load them, PEFT's LoRA (rank 8, on q and v), "
        "AdamW in torch, one batch a step; batch size, length and rows are ours",
        "- Peaks are those of the training steps, in GB of 1e9 bytes; reserved is with what loading left in the "
        "allocator's cache. CUDA's context is in the calculated GB only",
        *([f"- Peaks of loading: {', '.join(loading)}"] if loading else []),
        "- Tokens are those of the rows, without padding and without KTO's mismatched answers",
    ]


def driver_version() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return lines[0] if lines else "unknown"
