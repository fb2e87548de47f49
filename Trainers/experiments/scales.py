"""How large an experiment is: rows, steps, learning rates, lengths."""

from dataclasses import dataclass, replace

PROMPT_METHOD = "self:1,template:1"
"""Who writes the requests of a round, where the model is the bundled one, which has an adapter for that."""

SERVED_PROMPT_METHOD = PROMPT_METHOD.replace("self", "teacher")
"""The same where the arm is on a server: the bundled model with the adapter for that, in the embedded engine."""


@dataclass(frozen=True)
class Scale:
    """`steps` are the optimizer steps of every arm after SFT, of `rows_a_step` rows each; `kto_batch_size` of them are
    computed at once in KTO, one in SFT.
    """

    sft_length: tuple[str, ...]
    sft_learning_rate: float
    lora_rank: int
    steps: int
    rows_a_step: int
    kto_batch_size: int
    more_sft_learning_rate: float
    kto_learning_rate: float
    beta: float
    max_length: int
    save_steps: int
    round_rows: int
    samples_per_prompt: int
    guided_variations: int
    behavior_share: float
    temperature: str
    play_max_tokens: int
    play_concurrency: int
    answer_max_tokens: int


SMALL = Scale(
    sft_length=("--num-epochs", "2"),
    sft_learning_rate=1e-3,
    lora_rank=16,
    steps=90,
    rows_a_step=8,
    kto_batch_size=2,
    more_sft_learning_rate=2e-4,
    kto_learning_rate=1e-4,
    beta=0.1,
    max_length=1024,
    save_steps=10,
    round_rows=400,
    samples_per_prompt=2,
    guided_variations=3,
    behavior_share=0.2,
    temperature="0.3-0.9",
    play_max_tokens=256,
    play_concurrency=4,
    answer_max_tokens=384,
)

SCALES = {
    "tiny": replace(
        SMALL,
        sft_length=("--max-steps", "2"),
        lora_rank=4,
        steps=2,
        save_steps=1,
        round_rows=16,
        samples_per_prompt=2,
        guided_variations=1,
        behavior_share=1.0,  # where a plain answer can be right: both labels, from a model that knows no tools
        play_max_tokens=64,
        answer_max_tokens=16,
    ),
    "small": SMALL,
    "gpu": replace(
        SMALL,
        sft_learning_rate=2e-4,
        lora_rank=32,
        steps=300,
        rows_a_step=32,
        kto_batch_size=8,
        more_sft_learning_rate=1e-4,
        kto_learning_rate=1e-5,
        max_length=2048,
        save_steps=50,
        round_rows=9600,
        samples_per_prompt=8,
        guided_variations=16,
        play_max_tokens=384,
        play_concurrency=16,
    ),
}
