"""An adapter as a GGUF file that llama.cpp and Ollama put on top of the base model."""

from pathlib import Path

from Trainers.export.adapters import Adapter
from Trainers.export.families import Family
from Trainers.export.gguf_files import LazyTensor, write_tensors


def write_lora(path: Path, adapter: Adapter, family: Family) -> None:
    """float32, as trained: llama.cpp would round the activations that it multiplies with float16 matrices."""
    import gguf

    writer = gguf.GGUFWriter(None, family.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.alpha)
    write_tensors(writer, path, _tensors(adapter, family), lambda _: gguf.GGMLQuantizationType.F32)


def _tensors(adapter: Adapter, family: Family) -> list[LazyTensor]:
    tensors = []
    for module, pair in adapter.pairs.items():
        name, b = family.gguf_name(f"{module}.weight"), family.in_gguf_order(module, pair.b)
        tensors += [
            LazyTensor(f"{name}.lora_a", pair.a.shape, lambda a=pair.a: a),
            LazyTensor(f"{name}.lora_b", b.shape, lambda b=b: b),
        ]
    return tensors
