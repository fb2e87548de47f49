"""The model families that GGUF files are written for: what their parts are called there and how rows are ordered.

llama.cpp turns pairs of neighbouring rows of the query and key matrices of architecture "llama"; transformers pairs a
row with the one half a head away. Rows are put into llama.cpp's order on the way into a GGUF file.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from Evaluator.errors import UsageError
from Trainers.common.base_models import ARCHITECTURES, BaseModel
from Trainers.common.model_sizes import ModelShape, shape_from_config

if TYPE_CHECKING:
    import numpy as np
    from gguf import TensorNameMap
    from transformers import PreTrainedConfig

_PERMUTED = "llama"
_PARTS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
"""In the order of ModelShape.linear_layers."""


@dataclass(frozen=True)
class Family:
    """A model's sizes and its `general.architecture`: these decide names, shapes and the order of rows."""

    architecture: str
    shape: ModelShape

    def modules(self) -> dict[str, tuple[int, int]]:
        """Each matrix that an adapter may change: name -> (rows, columns), as transformers has them."""
        sizes = dict(zip(_PARTS, self.shape.linear_layers, strict=True))
        return {
            f"model.layers.{layer}.{part}": (outputs, inputs)
            for layer in range(self.shape.layers)
            for part, (inputs, outputs) in sizes.items()
        }

    def gguf_name(self, name: str) -> str | None:
        """`blk.0.attn_q.weight` for `model.layers.0.self_attn.q_proj.weight`; None for what GGUF has no name for."""
        return _names(self.architecture, self.shape.layers).get_name(name, try_suffixes=(".weight", ".bias"))

    def in_gguf_order(self, name: str, rows: "np.ndarray") -> "np.ndarray":
        """The rows of a weight, a bias or a LoRA B of module `name`, in llama.cpp's order."""
        heads = {"q_proj": self.shape.heads, "k_proj": self.shape.kv_heads}
        part = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
        if self.architecture != _PERMUTED or part not in heads:
            return rows
        halves = rows.reshape(heads[part], 2, self.shape.head_dim // 2, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)


@cache
def _names(architecture: str, num_layers: int) -> "TensorNameMap":
    import gguf

    kind = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[architecture]
    return gguf.get_tensor_name_map(kind, num_layers)


def load_config(base: BaseModel) -> "PreTrainedConfig":
    """The base model's config.json. Raises UsageError when there is none or it is of a family not known here."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base.path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read the configuration of {base.name}: {str(error).splitlines()[0]} Go online once, or name the "
            f"base with --model-name"
        ) from error
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UsageError(f"{base.name} is of type {config.model_type}; models that can be exported: {known}")
    if config.hidden_act != "silu":
        raise UsageError(f"{base.name} uses the activation {config.hidden_act}, which llama.cpp has not for its type")
    if getattr(config, "quantization_config", None) and base.gguf is None:
        raise UsageError(f"{base.name} is quantised: name the 16-bit model that it was made of with --model-name")
    return config


def family_of(config: "PreTrainedConfig") -> Family:
    return Family(ARCHITECTURES[config.model_type], shape_from_config(config.to_dict()))
