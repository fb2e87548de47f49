"""Types of flags: numbers within limits, so that a bad value ends a program before anything starts."""

import argparse
from collections.abc import Callable


def number(kind: type, least: float, most: float = 1e9) -> Callable[[str], float]:
    """An argparse type: a number of `kind` from `least` to `most`."""

    def parse(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            limits = f"{least:g} or more" if most >= 1e9 else f"between {least:g} and {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return value

    parse.__name__ = kind.__name__  # argparse names it in "invalid int value"
    return parse


class span:  # reads like a type in add_argument(type=...)
    """An argparse type: a number or a range LOW-HIGH within limits -> (low, high)."""

    def __init__(self, least: float, most: float) -> None:
        self._number = number(float, least, most)

    def __call__(self, text: str) -> tuple[float, float]:
        try:
            float(text)  # 1e-3 is a number, and no range
            low = high = text
        except ValueError:
            low, _, high = text.partition("-")
        try:
            limits = self._number(low), self._number(high)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range LOW-HIGH") from None
        if limits[0] > limits[1]:
            raise argparse.ArgumentTypeError(f"in {text!r} the first number is the larger one")
        return limits
