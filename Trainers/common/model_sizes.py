"""Models by size: the names behind --model-size, and the shapes from which memory and time are calculated."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Evaluator.backends.default_weights import EMBEDDED
from Evaluator.errors import UsageError
from Trainers.common.base_models import dequantised_folder, gguf_path


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder with gated MLPs and grouped-query attention (the Llama, Mistral and Qwen2 families).

    `head_dim` times `heads` need not be `hidden` (Mistral Nemo). `is_tied`: the head shares the embedding's weights.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    is_tied: bool = False
    has_qkv_bias: bool = False

    @property
    def linear_layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of the seven linear layers of one block: q, k, v, o, gate, up, down."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, q), (self.hidden, kv), (self.hidden, kv), (q, self.hidden)]
        return [*attention, *2 * [(self.hidden, self.intermediate)], (self.intermediate, self.hidden)]

    @property
    def linear_parameters(self) -> int:
        """Parameters of the linear layers of all blocks: what is quantised."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear_layers)

    @property
    def other_parameters(self) -> int:
        """Embedding, head, norms and biases: what stays in 16 bits."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim if self.has_qkv_bias else 0
        embeddings = self.vocab * self.hidden * (1 if self.is_tied else 2)
        return embeddings + self.layers * (2 * self.hidden + biases) + self.hidden

    @property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def lora_parameters(self, rank: int) -> int:
        """Parameters of LoRA matrices of `rank` on every linear layer: rank (inputs + outputs) each."""
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs in self.linear_layers)


@dataclass(frozen=True)
class SizedModel:
    """A model behind --model-size: its name on the Hugging Face hub, its shape."""

    name: str
    shape: ModelShape


MODEL_SIZES = {
    "135m": SizedModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        ModelShape(576, 30, 9, 3, 64, 1536, 49152, is_tied=True),
    ),
    "0.5b": SizedModel(
        "Qwen/Qwen2.5-0.5B-Instruct",
        ModelShape(896, 24, 14, 2, 64, 4864, 151936, is_tied=True, has_qkv_bias=True),
    ),
    "1.5b": SizedModel(
        "Qwen/Qwen2.5-1.5B-Instruct",
        ModelShape(1536, 28, 12, 2, 128, 8960, 151936, is_tied=True, has_qkv_bias=True),
    ),
    "3b": SizedModel(
        "Qwen/Qwen2.5-3B-Instruct",
        ModelShape(2048, 36, 16, 2, 128, 11008, 151936, is_tied=True, has_qkv_bias=True),
    ),
    "7b": SizedModel(
        "mistralai/Mistral-7B-Instruct-v0.3",
        ModelShape(4096, 32, 32, 8, 128, 14336, 32768),
    ),
    "13b": SizedModel(
        "mistralai/Mistral-Nemo-Instruct-2407",
        ModelShape(5120, 40, 32, 8, 128, 14336, 131072),
    ),
}
"""Instruct models with their shapes, as their config.json on the hub gives them."""


def shape_of(name: str) -> ModelShape | None:
    """The shape of a model of the table, a folder, a GGUF file or the hub's cache; None for what is not here, and for
    a mixture of experts, which has another one."""
    for sized in MODEL_SIZES.values():
        if sized.name == name:
            return sized.shape
    gguf = gguf_path(name)
    if name == EMBEDDED and gguf and not gguf.is_file():
        return MODEL_SIZES["135m"].shape
    path = gguf or Path(name)
    try:
        if gguf and dequantised_folder(gguf).is_dir():  # a JSON file is read faster
            path = dequantised_folder(gguf)
        if path.is_dir():
            return shape_from_config(json.loads((path / "config.json").read_text(encoding="utf-8")))
        if path.is_file():
            return _shape_from_gguf(path)
        config = _cached_config(name)
        return shape_from_config(json.loads(config.read_text(encoding="utf-8"))) if config else None
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(f"{name} does not tell the shape of its model: {type(error).__name__} {error}") from error


def _cached_config(name: str) -> Path | None:
    """The config.json of a model on the hub, if it was fetched before."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return None
    found = try_to_load_from_cache(name, "config.json")
    return Path(found) if isinstance(found, str) else None


def shape_from_config(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape that a config.json of the Llama, Mistral or Qwen2 family gives; None for experts. Raises KeyError."""
    if any(config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    heads = config["num_attention_heads"]
    return ModelShape(
        config["hidden_size"],
        config["num_hidden_layers"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or config["hidden_size"] // heads,
        config["intermediate_size"],
        config["vocab_size"],
        is_tied=config.get("tie_word_embeddings", True),
        has_qkv_bias=config.get("model_type") == "qwen2" or config.get("attention_bias", False),
    )


def _shape_from_gguf(path: Path) -> ModelShape | None:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    family = reader.fields["general.architecture"].contents()
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def field(name: str) -> int:
        return reader.fields[f"{family}.{name}"].contents()

    if f"{family}.expert_count" in reader.fields and field("expert_count"):
        return None

    heads = field("attention.head_count")
    return ModelShape(
        field("embedding_length"),
        field("block_count"),
        heads,
        field("attention.head_count_kv"),
        int(tensors["blk.0.attn_q.weight"].shape[1]) // heads,
        field("feed_forward_length"),
        int(tensors["token_embd.weight"].shape[1]),
        is_tied="output.weight" not in tensors,
        has_qkv_bias="blk.0.attn_q.bias" in tensors,
    )
