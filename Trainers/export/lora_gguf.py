"""An adapter as a GGUF file that llama.cpp and Ollama put on top of the base model."""

from pathlib import Path

from Trainers.export.adapters import Adapter
from Trainers.export.families import Family
from Trainers.export.gguf_files import LazyTensor, write_tensors


def write_lora(path: Path, adapter: Adapter, family: Family, *, is_half: bool = False) -> None:
    """float32, as trained, or `is_half`: float16, half the size; llama.cpp then rounds what it multiplies with them."""
    import gguf

    writer = gguf.GGUFWriter(None, family.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.alpha)
    kind = gguf.GGMLQuantizationType.F16 if is_half else gguf.GGMLQuantizationType.F32
    write_tensors(writer, path, _tensors(adapter, family), lambda _: kind)


def _tensors(adapter: Adapter, family: Family) -> list[LazyTensor]:
    tensors = []
    for module, pair in adapter.pairs.items():
        name, b = family.gguf_name(f"{module}.weight"), family.in_gguf_order(module, pair.b)
        tensors += [
            LazyTensor(f"{name}.lora_a", pair.a.shape, lambda a=pair.a: a),
            LazyTensor(f"{name}.lora_b", b.shape, lambda b=b: b),
        ]
    return tensors
