"""How much true and false rows weigh in KTO, so that neither label drowns the other.

The formula is that of Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization" (arXiv 2402.01306),
Eq. 8: (w_D n_D) / (w_U n_U) lies in [1, 4/3].
"""

from Evaluator.errors import UsageError


def kto_weights(num_desirable: int, num_undesirable: int) -> tuple[float, float]:
    """(desirable, undesirable) weights with (w_D n_D) / (w_U n_U) = 7/6, inside [1, 4/3] (Eq. 8 of the KTO paper).

    The rarer class is weighed up, the other one keeps weight 1. Raises UsageError when a class has no row.
    """
    if not num_desirable or not num_undesirable:
        missing = "true" if num_undesirable else "false"
        raise UsageError(
            f"no row has the label {missing}, and KTO needs both: generate answers from the current model without "
            f"filtering them (both generators write both labels), or use train_sft.py for rows that are all right"
        )
    ratio = 7 / 6 * num_undesirable / num_desirable
    return (ratio, 1.0) if ratio > 1 else (1.0, 1 / ratio)
