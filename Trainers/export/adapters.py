"""A PEFT adapter folder, read and checked: one pair of LoRA matrices for each module of the base model."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Evaluator.errors import UsageError
from Trainers.common.run_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, RUN_RECORD, read_json_object

if TYPE_CHECKING:
    import numpy as np

_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_CHANGE_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga", "mica")
_MUST_BE_UNSET = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
    "arrow_config",
)


@dataclass(frozen=True)
class Pair:
    """The change of one weight is `scale * b @ a`; a is (rank, columns), b is (rows, rank), both float32."""

    a: "np.ndarray"
    b: "np.ndarray"

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]


@dataclass(frozen=True)
class Adapter:
    """`pairs` by module, as `model.layers.0.self_attn.q_proj`; `scale` is alpha / rank, or alpha / sqrt(rank) (rsLoRA,
    D. Kalajdzievski 2023); `alpha` is what gives that scale when divided by the rank."""

    folder: Path
    rank: int
    scale: float
    pairs: Mapping[str, Pair]

    @property
    def alpha(self) -> float:
        return self.scale * self.rank

    def change(self, module: str) -> "np.ndarray":
        """What is added to the weight of `module`, float32 (rows, columns)."""
        pair = self.pairs[module]
        return self.scale * (pair.b @ pair.a)


def base_name(folder: Path) -> str:
    """The base model as the run that trained the adapter was told, else as PEFT wrote it down. Raises UsageError."""
    run = folder / RUN_RECORD
    recorded = read_json_object(run).get("settings", {}).get("model_name") if run.is_file() else None
    name = recorded or _adapter_config(folder).get("base_model_name_or_path")
    if not name:
        raise UsageError(f"{folder} does not say which model it was trained on: give --model-name")
    return name


def read_adapter(folder: Path, modules: Mapping[str, tuple[int, int]]) -> Adapter:
    """The adapter in `folder` for a base model with these modules. Raises UsageError for what cannot be exported."""
    config = _adapter_config(folder)
    _check_kind(folder, config)
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    pairs = _read_pairs(folder / ADAPTER_WEIGHTS)
    for module, pair in pairs.items():
        if module not in modules:
            raise UsageError(
                f"{folder} changes {module}, which the base model has not, or which is no part of its layers: name "
                f"the right base with --model-name"
            )
        if pair.shape != modules[module] or pair.a.shape[0] != rank or pair.b.shape[1] != rank:
            raise UsageError(
                f"{folder} was trained on another model: its change of {module} is {pair.shape} of rank "
                f"{pair.a.shape[0]}, expected {modules[module]} of rank {rank}"
            )
    return Adapter(folder, rank, scale, pairs)


def _adapter_config(folder: Path) -> dict[str, Any]:
    if not (folder / ADAPTER_CONFIG).is_file():
        raise UsageError(f"there is no adapter in {folder}: {ADAPTER_CONFIG} is missing")
    return read_json_object(folder / ADAPTER_CONFIG)


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UsageError(f"{folder} is an adapter of type {config.get('peft_type')}; only LORA can be exported")
    for key in _MUST_BE_UNSET:
        if config.get(key):
            raise UsageError(f"{folder} was trained with {key}, which cannot be exported: train plain LoRA")
    if config.get("bias", "none") != "none":
        raise UsageError(f"{folder} was trained with bias {config['bias']!r}, which cannot be exported: use none")
    how = str(config.get("init_lora_weights")).lower()
    if how.startswith(_CHANGE_THE_BASE):
        raise UsageError(f"{folder} started from {how}, which changes the base model too: convert it to plain LoRA")


def _read_pairs(path: Path) -> dict[str, Pair]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = {name: tensor.float().numpy() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    modules = {name.removesuffix(end) for name in tensors for end in (_A, _B) if name.endswith(end)}
    unknown = sorted(set(tensors) - {module + end for module in modules for end in (_A, _B)})
    incomplete = sorted(m for m in modules if m + _A not in tensors or m + _B not in tensors)
    if unknown or incomplete or not modules:
        what = (unknown or incomplete or ["nothing"])[0]
        raise UsageError(f"{path} is no plain LoRA adapter: it holds {what}{' alone' if incomplete else ''}")
    return {m.removeprefix(_PREFIX): Pair(tensors[m + _A], tensors[m + _B]) for m in sorted(modules)}


def write_half(path: Path, adapter: Adapter) -> None:
    """The adapter as a PEFT folder again, its matrices in float16: half the size, for training that goes on from it."""
    from safetensors.numpy import save_file

    path.mkdir()
    tensors = {}
    for module, pair in adapter.pairs.items():
        tensors[f"{_PREFIX}{module}{_A}"] = pair.a.astype("float16")
        tensors[f"{_PREFIX}{module}{_B}"] = pair.b.astype("float16")
    save_file(tensors, path / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    for name in (ADAPTER_CONFIG, RUN_RECORD):
        if (adapter.folder / name).is_file():
            shutil.copyfile(adapter.folder / name, path / name)
