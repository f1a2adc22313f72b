"""The tests of this folder share short_runs.py; and no run of theirs is flushed to the disk."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="module")
def _no_power_cut():
    """These runs are stopped, not cut off, and a busy disk takes its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """A run that was never stopped."""
    from short_runs import finished

    return finished(tmp_path_factory.mktemp("runs") / "whole")
