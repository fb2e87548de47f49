"""TRL's KTO trainer on rows that are tokenised, ordered and paired for the KL term already."""

from typing import Any

from datasets import Dataset
from trl import KTOTrainer


class PreparedKTOTrainer(KTOTrainer):
    """Takes the columns `prompt_ids`, `completion_ids`, `KL_completion_ids` and `label` as they are.

    TRL would tokenise the text once more, score what the template writes after the end of a turn, and take out rows
    after they were put into batches.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset
