"""The merged model as one GGUF file.

A base that came from a GGUF file gives its metadata and its tensors, as they are there; any other base is described
anew from its config and its tokenizer.
"""

import logging
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Evaluator.errors import ReportedError, UsageError
from Trainers.common.base_models import BaseModel
from Trainers.export.adapters import Adapter
from Trainers.export.families import Family
from Trainers.export.gguf_files import LazyTensor, write_tensors
from Trainers.export.merging import MergedWeights
from Trainers.export.tokenizer_gguf import add_tokenizer, strip_training_tags

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, ReaderTensor
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

F16, Q8_0, Q4_K_M = "f16", "q8_0", "q4_k_m"
GGUF_TYPES = (F16, Q8_0, Q4_K_M)
_NOT_COPIED = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version", "quantize.")


def write_from_gguf(path: Path, gguf_type: str, base: BaseModel, adapter: Adapter, family: Family) -> None:
    """Merge into the GGUF file that `base` came from."""
    import gguf

    reader = gguf.GGUFReader(base.gguf)
    architecture = reader.get_field(gguf.Keys.General.ARCHITECTURE).contents()
    if architecture != family.architecture:
        raise UsageError(f"{base.gguf} is of architecture {architecture}, expected {family.architecture}")
    writer = gguf.GGUFWriter(None, family.architecture)
    _copy_metadata(reader, writer)
    modules = {family.gguf_name(f"{module}.weight"): module for module in adapter.pairs}
    missing = set(modules) - {tensor.name for tensor in reader.tensors}
    if missing:
        raise UsageError(f"{base.gguf} has no tensor {min(missing)}")
    tensors = [_merged_tensor(tensor, modules.get(tensor.name), adapter, family) for tensor in reader.tensors]
    _write(writer, path, tensors, gguf_type)


def write_from_weights(
    path: Path,
    gguf_type: str,
    weights: MergedWeights,
    name: str,
    config: "PreTrainedConfig",
    family: Family,
    tokenizer: "PreTrainedTokenizerBase",
) -> None:
    """Describe a model called `name` anew."""
    import gguf

    writer = gguf.GGUFWriter(None, family.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    tensors = _add_hyperparameters(writer, config, family)
    add_tokenizer(writer, tokenizer, config.vocab_size)
    is_tied = config.tie_word_embeddings
    names = [name for name in weights.names if not (is_tied and name == "lm_head.weight")]
    tensors += [_renamed_tensor(name, weights, family) for name in names]
    _write(writer, path, tensors, gguf_type)


def quantize_with_llama_cpp(program: str, source: Path, path: Path) -> None:
    """Run llama.cpp's own program: K-quants have no other writer. Raises ReportedError with what it said last."""
    command = [program, str(source), str(path), Q4_K_M.upper()]
    result = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, check=False
    )
    log.debug("%s", result.stderr)
    if result.returncode or not path.is_file():
        said = (result.stderr or result.stdout).strip().splitlines() or ["it said nothing"]
        raise ReportedError(f"{program} could not write {Q4_K_M} (status {result.returncode}, last: {said[-1]})")


def find_llama_quantize(program: str) -> str:
    """Path of the program. Raises UsageError when it is not installed."""
    found = shutil.which(program)
    if not found:
        raise UsageError(
            f"{Q4_K_M} needs llama.cpp's program {program}, which is not there: install llama.cpp, give "
            f"--llama-quantize PATH, or take --gguf-type {Q8_0}"
        )
    return found


def _write(writer: "GGUFWriter", path: Path, tensors: list[LazyTensor], gguf_type: str) -> None:
    import gguf

    wide = {F16: gguf.GGMLQuantizationType.F16, Q8_0: gguf.GGMLQuantizationType.Q8_0}[gguf_type]
    file_types = {F16: gguf.LlamaFileType.MOSTLY_F16, Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0}
    writer.add_file_type(file_types[gguf_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def kind_of(tensor: LazyTensor) -> "GGMLQuantizationType":
        if len(tensor.shape) < 2:
            return gguf.GGMLQuantizationType.F32
        block = gguf.GGML_QUANT_SIZES[wide][0]
        return gguf.GGMLQuantizationType.F16 if tensor.shape[-1] % block else wide

    write_tensors(writer, path, tensors, kind_of)


def _copy_metadata(reader: "GGUFReader", writer: "GGUFWriter") -> None:
    import gguf

    for key, field in reader.fields.items():
        if key.startswith(_NOT_COPIED):
            continue
        value: Any = field.contents()
        if key == gguf.Keys.Tokenizer.CHAT_TEMPLATE:
            value = strip_training_tags(value)
        writer.add_key_value(key, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)


def _merged_tensor(tensor: "ReaderTensor", module: str | None, adapter: Adapter, family: Family) -> LazyTensor:
    import gguf

    def read() -> "np.ndarray":
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if module:
            weight = weight + family.in_gguf_order(module, adapter.change(module))
        return weight

    return LazyTensor(tensor.name, tuple(int(size) for size in reversed(tensor.shape)), read)


def _renamed_tensor(name: str, weights: MergedWeights, family: Family) -> LazyTensor:
    gguf_name = family.gguf_name(name)
    if gguf_name is None:
        raise UsageError(f"the base model has a weight {name}, for which GGUF has no name")
    return LazyTensor(gguf_name, weights.shape(name), lambda: family.in_gguf_order(name, weights.read(name).numpy()))


def _add_hyperparameters(writer: "GGUFWriter", config: "PreTrainedConfig", family: Family) -> list[LazyTensor]:
    """Write them; returns the tensor that some ways to stretch positions need."""
    window = getattr(config, "sliding_window", None)
    writer.add_vocab_size(config.vocab_size)
    # llama.cpp attends to all of the text: within a sliding window that is the same
    writer.add_context_length(min(config.max_position_embeddings, window or config.max_position_embeddings))
    writer.add_embedding_length(family.shape.hidden)
    writer.add_block_count(family.shape.layers)
    writer.add_feed_forward_length(family.shape.intermediate)
    writer.add_head_count(family.shape.heads)
    writer.add_head_count_kv(family.shape.kv_heads)
    writer.add_key_length(family.shape.head_dim)
    writer.add_value_length(family.shape.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(family.shape.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    return _add_rope_scaling(writer, config, family.shape.head_dim)


def _add_rope_scaling(writer: "GGUFWriter", config: "PreTrainedConfig", head_dim: int) -> list[LazyTensor]:
    import gguf

    kind = config.rope_parameters.get("rope_type", "default")
    if kind == "default":
        return []
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
        return []
    if kind == "llama3":
        factors = _llama3_factors(config, head_dim)
        return [LazyTensor("rope_freqs.weight", factors.shape, lambda: factors)]
    raise UsageError(f"positions stretched by {kind} cannot be written to GGUF: export lora or safetensors")


def _llama3_factors(config: "PreTrainedConfig", head_dim: int) -> "np.ndarray":
    """What llama.cpp divides each frequency by: the plain frequency over the one that transformers computes."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = 1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim)
    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return (plain / stretched).numpy()
