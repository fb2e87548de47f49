"""What a label stands on: the checks of an answer, in their order. The calls run on `Evaluator.vault`.

Reports say which state of this package, of the vault and of what both stand on they were judged by, and are compared
only where it is the same (see `Evaluator.reports.report.validator_fingerprint`).
"""
