"""What a configuration needs of a card, calculated from the model's shape: memory by part, and time.

Calculated, not measured. The sizes of what is kept come from the formats (NF4 with double quantisation: 4.127 bits a
parameter, QLoRA, arXiv:2305.14314, section 3); what a block holds at once counts the tensors of its forward pass.
"""

from dataclasses import dataclass

from Trainers.common.model_sizes import ModelShape

NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a parameter: 4 bits, an 8-bit scale for 64 of them, a 32-bit one for 256 scales."""
HEAD_TOKENS = 4096
HEAD_VOCABULARY = 32768
"""TRL's loss projects hidden states to logits in tiles of this size, not (batch, length, vocabulary), with a float32
gradient of the hidden states beside; without Triton, which Windows and CPUs lack, with some eight float32 copies of a
tile (measured on a CPU: 4.4 GB, tile 0.5)."""
MASK_BYTES = 3
"""Of each pair of tokens in a row: whether one sees the other, and the same in the type of the queries."""
FIXED_BYTES = 1.0e9
"""CUDA's context, cuBLAS workspaces, and what the allocator cannot use."""
CPU_CORE_FLOPS = 4e10
CPU_CORE_BF16_FLOPS = 8.5e10
"""Of one core with AVX-512, from 80 tokens a second of SmolLM2-135M in float32 and 170 with bf16 instructions."""
CARD_FLOPS = 71e12 * 0.35
"""A 3090's dense bf16 peak (71 TFLOP/s, GA102 whitepaper), at the share of it that QLoRA is assumed to reach."""


@dataclass(frozen=True)
class Load:
    """What a step has to hold: sequences of `length` tokens in a per-device batch of `rows`, which packing makes
    into one row, on a card or a CPU."""

    rows: int
    length: int
    lora_rank: int
    is_nf4: bool
    checkpointing: bool
    is_kto: bool
    has_reference_adapter: bool = False
    is_packed: bool = False
    on_cpu: bool = False
    has_triton: bool = True
    processes: int = 1

    @property
    def value_bytes(self) -> int:
        return 4 if self.on_cpu else 2


def memory_parts(shape: ModelShape, load: Load) -> dict[str, float]:
    """Bytes by part, for one process. The sum is the estimate of the peak."""
    size, lora = load.value_bytes, shape.lora_parameters(load.lora_rank)
    state_bytes = 8 if load.on_cpu else 2 + 8 / 256  # AdamW's two moments: float32, or 8 bits with a scale for 256
    tokens = load.rows * load.length
    tile_bytes = 2 if load.has_triton and not load.on_cpu else 32
    return {
        "weights": shape.linear_parameters * (NF4_BYTES if load.is_nf4 else size) + shape.other_parameters * size,
        "LoRA and its gradients": lora * _lora_bytes(load),
        "optimizer": lora * state_bytes,
        "activations": tokens * _activation_bytes(shape, load),
        "attention mask": MASK_BYTES * (tokens**2 if load.is_packed else tokens * load.length),
        "logits": min(tokens, HEAD_TOKENS) * HEAD_VOCABULARY * tile_bytes + tokens * shape.hidden * 4,
        "a layer dequantised": max(i * o for i, o in shape.linear_layers) * size if load.is_nf4 else 0,
        "fixed": FIXED_BYTES,
    }


def _lora_bytes(load: Load) -> int:
    """Bytes of a LoRA parameter: it and its gradient in float32, the reference's, what autocast makes of it in bf16 for
    the whole of a forward pass, and the buckets in which several processes add their gradients."""
    return 8 + 4 * load.has_reference_adapter + 4 * (load.processes > 1) + 2 * (not load.on_cpu)


def _activation_bytes(shape: ModelShape, load: Load) -> float:
    """Bytes a token: the input of each block, and what one block (without checkpointing: each) keeps for backward."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    values = 6 * shape.hidden + 3 * q + 6 * kv + 5 * shape.intermediate + 7 * load.lora_rank
    block = values * load.value_bytes + 2 * shape.hidden * 4  # the norms compute in float32
    kept_blocks = 2 if load.checkpointing else shape.layers  # its gradients take as much again
    return shape.layers * shape.hidden * load.value_bytes + kept_blocks * block


def step_flops(shape: ModelShape, load: Load, tokens: int) -> float:
    """Floating-point operations for `tokens`: 2 a parameter forward, 2 back through frozen weights, 2 for forward
    again with checkpointing; KTO adds three forward passes (the KL term, and both once more for the reference)."""
    passes = 2 + (1 if load.checkpointing else 0) + (3 if load.is_kto else 0)
    return 2.0 * passes * (shape.linear_parameters + shape.vocab * shape.hidden) * tokens


def as_gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
