"""A LoRA adapter as a GGUF file, written by hand from the format's description (version 3)."""

import random
import struct
from pathlib import Path

_STRING, _FLOAT32, _F32_TENSOR, _ALIGNMENT = 8, 6, 0, 32


def write_lora(path: Path, *, width: int = 576, rank: int = 2, size: float = 0.3) -> Path:
    """An adapter of random numbers up to `size` on the first query projection of a llama model of `width`."""
    rng = random.Random(0)
    numbers = [[rng.uniform(-size, size) for _ in range(width * rank)] for _ in range(2)]
    data = [struct.pack(f"<{width * rank}f", *part) for part in numbers]
    tensors = [
        ("blk.0.attn_q.weight.lora_a", (width, rank), 0),
        ("blk.0.attn_q.weight.lora_b", (rank, width), len(data[0])),
    ]
    metadata = [
        _string("general.architecture") + struct.pack("<I", _STRING) + _string("llama"),
        _string("general.type") + struct.pack("<I", _STRING) + _string("adapter"),
        _string("adapter.type") + struct.pack("<I", _STRING) + _string("lora"),
        _string("adapter.lora.alpha") + struct.pack("<If", _FLOAT32, 16.0),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata)
    for name, shape, offset in tensors:
        head += _string(name) + struct.pack("<IQQIQ", 2, *shape, _F32_TENSOR, offset)
    path.write_bytes(head + b"\0" * (-len(head) % _ALIGNMENT) + b"".join(data))
    return path


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
