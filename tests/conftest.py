"""What all tests share."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_interrupts():
    """A shell that starts the tests in the background has them ignore SIGINT; the tests of Ctrl-C need Python's handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
