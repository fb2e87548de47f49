"""The shared core: what is asked, who answers, how an answer is judged."""

__version__ = "0.2.0"
