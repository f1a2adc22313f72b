import importlib
from pathlib import Path

import pytest


@pytest.fixture
def toy(monkeypatch):
    """The module of the toy experiment, importable here and in a child."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "toy")
    return importlib.import_module("triptych_toy")
