import signal

import pytest

from Evaluator.catalog import load_catalog
from Evaluator.prompt_sets import TOOL_PROMPTS, load_prompt_sets
from tests.fakes.model_server import FakeModelServer

signal.signal(signal.SIGINT, signal.default_int_handler)
"""A shell without job control starts what runs in the background with Ctrl-C ignored, and children inherit that."""
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored


@pytest.fixture(scope="session")
def catalog():
    return load_catalog()


@pytest.fixture(scope="session")
def tool_prompts():
    return load_prompt_sets([TOOL_PROMPTS]).prompts


@pytest.fixture
def model_server():
    """Starts fake model servers with the given faults; they end with the test."""
    started = []

    def start(**options):
        server = FakeModelServer(**options)
        server.__enter__()
        started.append(server)
        return server

    yield start
    for server in started:
        server.__exit__()
