"""TRL's KTO trainer on rows that are tokenised, ordered and paired for the KL term already."""

from typing import Any

from datasets import Dataset
from trl import KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference


class MaskingCollator(DataCollatorForUnpairedPreference):
    """TRL's collator, whose completion masks leave out the positions in the columns `masked` and `KL_masked`."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        for prefix in ("", "KL_"):
            for row, example in enumerate(examples):
                mask, start = batch[f"{prefix}completion_mask"][row], len(example["prompt_ids"])
                masked = [start + at for at in example[f"{prefix}masked"]]
                mask[[at for at in masked if at < len(mask)]] = 0  # a long KL answer was cut off
        return batch


class PreparedKTOTrainer(KTOTrainer):
    """Takes the columns `prompt_ids`, `completion_ids`, `KL_completion_ids` and `label` as they are, and `masked` and
    `KL_masked`, the positions in both answers that are read and not scored.

    TRL would tokenise the text once more, score what the template writes after the end of a turn, and take out rows
    after they were put into batches.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        collator = self.data_collator
        self.data_collator = MaskingCollator(collator.pad_token_id, collator.max_length, collator.pad_to_multiple_of)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*dict.fromkeys((*self._signature_columns, "masked", "KL_masked"))]
