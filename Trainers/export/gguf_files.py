"""GGUF files written tensor by tensor: only one tensor is in memory at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter


@dataclass(frozen=True)
class LazyTensor:
    """A tensor by its GGUF name; `shape` as numpy has it (rows first), `read` gives it as float32."""

    name: str
    shape: tuple[int, ...]
    read: "Callable[[], np.ndarray]"


def write_tensors(
    writer: "GGUFWriter",
    path: Path,
    tensors: Sequence[LazyTensor],
    kind_of: "Callable[[LazyTensor], GGMLQuantizationType]",
) -> None:
    """Write the metadata that `writer` holds, then the tensors, each as `kind_of` says."""
    import math

    import gguf
    import numpy as np

    for tensor in tensors:
        kind = kind_of(tensor)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        num_bytes = math.prod(tensor.shape) // block * size
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), num_bytes, raw_dtype=kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(tensor.read()), kind_of(tensor)))
    writer.close()
