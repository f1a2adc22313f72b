import os
import shutil
import subprocess
import time

import pytest
import torch

import triptych
from triptych.bench import machine


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_only_where_git_tracks_the_file(tmp_path):
    """Not outside a checkout, not for an ignored or new file inside one; a change shows as -dirty."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

    def git(*words):
        done = subprocess.run(
            ["git", "-C", tmp_path, *words], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    file = tmp_path / "a.py"
    file.write_text("1")
    assert machine.commit(file) is None
    git("init", "-q")
    assert machine.commit(file) is None
    git("add", "a.py")
    git("-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "m")
    head = git("rev-parse", "HEAD")
    assert machine.commit(file) == head
    (tmp_path / "new.py").write_text("2")
    assert machine.commit(tmp_path / "new.py") is None
    file.write_text("3")
    assert machine.commit(file) == f"{head}-dirty"


def test_provenance_names_the_machine():
    found = machine.provenance("cpu")
    assert found["version"] == triptych.__version__
    assert (
        found["libraries"]["torch"] == torch.__version__.partition("+")[0]
        or found["libraries"]["torch"] == torch.__version__
    )
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]
    assert machine.installed(["torch", "no-such-library"]).keys() == {"torch"}


def test_cpu_seconds_count_this_process_and_its_children():
    start = machine.cpu_seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert machine.cpu_seconds() - start >= 0.15
