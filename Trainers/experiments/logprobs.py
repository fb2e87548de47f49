"""How likely adapters hold the answers of labelled rows, part by part: what did training push up or down?"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from Evaluator.errors import UsageError
from Trainers.common.answer_parts import CONTEXT_TEXTS, SESSION_IDS, WRONG_ENDS
from Trainers.common.base_models import find_base_model, load_model, load_tokenizer
from Trainers.common.rendering import Rendered, Renderer
from Trainers.common.training_data import read_training_data

if TYPE_CHECKING:
    from peft import PeftModel

REST = "all else"
_SHOWN = {SESSION_IDS: "made-up session ids", CONTEXT_TEXTS: "texts of contexts", WRONG_ENDS: "end of turn", REST: REST}


@dataclass
class PartSums:
    """Over `rows` answers of one label: tokens by part, and by (adapter, part) their log-probability in nats."""

    rows: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    nats: Counter[tuple[Path, str]] = field(default_factory=Counter)


def logprob_table(files: Sequence[str], model_name: str, adapters: Sequence[Path], rows_a_label: int) -> Iterator[str]:
    """Markdown: mean log-probability of a row's answer in nats, by label, part and adapter.

    Of each label at most `rows_a_label` rows are drawn by chance, always the same. Raises UsageError.
    """
    labelled = [
        row for row in read_training_data(files, allow_eval_prompts=True).conversations if row.label is not None
    ]
    random.Random("logprobs").shuffle(labelled)
    base = find_base_model(model_name)
    renderer = Renderer(load_tokenizer(base))
    model = _with_adapters(load_model(base, dtype="float32"), adapters)
    yield f"| rows | part | tokens a row | {' | '.join(map(str, adapters))} |"
    yield f"|---|---|---|{'---|' * len(adapters)}"
    for label in (True, False):
        drawn = [row for row in labelled if row.label is label][:rows_a_label]
        sums = _part_sums([renderer.last_turn(row.messages) for row in drawn], model, adapters)
        for part in _SHOWN:
            if sums.tokens[part]:
                means = " | ".join(f"{sums.nats[adapter, part] / sums.rows:.2f}" for adapter in adapters)
                name = f"{sums.rows} {str(label).lower()}"
                yield f"| {name} | {_SHOWN[part]} | {sums.tokens[part] / sums.rows:.1f} | {means} |"


def _with_adapters(model: object, adapters: Sequence[Path]) -> "PeftModel":
    from peft import PeftModel

    adapted: PeftModel | None = None
    for adapter in adapters:
        try:
            if adapted is None:
                adapted = PeftModel.from_pretrained(model, str(adapter), adapter_name=_name(adapter))
            else:
                adapted.load_adapter(str(adapter), adapter_name=_name(adapter))
        except (RuntimeError, ValueError, OSError) as error:
            raise UsageError(
                f"the adapter {adapter} cannot be put on the model: {str(error).splitlines()[0]}"
            ) from error
    if adapted is None:
        raise UsageError("no adapter is given")
    return adapted.eval()


def _name(adapter: Path) -> str:
    """A name that PEFT takes: it stands in the names of weights, where a dot parts them."""
    return str(adapter).replace(".", "-")


def _part_sums(sequences: Sequence[Rendered], model: "PeftModel", adapters: Sequence[Path]) -> PartSums:
    import torch

    sums = PartSums(rows=len(sequences))
    for sequence in sequences:
        start = sequence.last_answer_start
        parts = {at: name for name, positions in sequence.parts.items() for at in positions}
        names = [parts.get(at, REST) for at in range(start, len(sequence.input_ids))]
        sums.tokens.update(names)
        ids = torch.tensor([sequence.input_ids])
        for adapter in adapters:
            model.set_adapter(_name(adapter))
            with torch.inference_mode():
                logits = model(ids, logits_to_keep=len(names) + 1).logits[0, :-1].float()
            nats = logits.log_softmax(-1).gather(1, ids[0, start:, None])[:, 0].tolist()
            for name, value in zip(names, nats, strict=True):
                sums.nats[adapter, name] += value
    return sums
