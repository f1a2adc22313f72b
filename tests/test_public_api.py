"""`import triptych` and the command line's help are cheap; public names are there, and no others."""

import json
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest

import triptych

HEAVY = ("torch", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "jinja2", "accelerate", "safetensors")


def loaded_after(code: str) -> tuple[list[str], str]:
    """Which heavy packages a fresh interpreter has loaded after some code, and what the code printed."""
    tail = f"\nimport json, sys\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stderr.splitlines()[-1]), done.stdout


@pytest.mark.parametrize(
    "code", ["import triptych", "import triptych; dir(triptych)", "import triptych.check, triptych.store"]
)
def test_the_package_loads_nothing_heavy(code):
    assert loaded_after(code)[0] == []


def test_a_name_loads_what_it_needs():
    """So that the test above can fail."""
    assert {"torch", "sklearn"} <= set(loaded_after("import triptych; triptych.CCNNClassifier")[0])


@pytest.mark.parametrize("words", [["--version"], ["--help"], [], ["ccnn"], ["nonsense"]], ids=" ".join)
def test_the_command_line_answers_without_torch(words):
    """Version, help, a group of commands alone and an unknown command; what is asked for decides what is loaded."""
    heavy, out = loaded_after(f"from triptych.cli import main\nmain({words!r})")
    assert "torch" not in heavy
    assert "sklearn" not in heavy
    if words == ["--version"]:
        assert out.strip() == triptych.__version__
    if words == ["--help"]:
        assert all(name in out for name in ("demo", "list", "run", "report", "data", "ccnn"))


@pytest.mark.parametrize("words", [["--version"], ["--help"]], ids=" ".join)
def test_the_installed_command_is_the_same(words):
    """The script that the installer made of the entry point, and `python -m triptych`."""
    assert metadata.entry_points(group="console_scripts")["triptych"].value == "triptych.cli:entry"
    script, module = [Path(sys.executable).with_name("triptych")], [sys.executable, "-m", "triptych"]
    done, other = (
        subprocess.run([*command, *words], capture_output=True, text=True, check=True, timeout=60)
        for command in (script, module)
    )
    assert done.stdout == other.stdout
    assert done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", sorted(set(triptych.__all__) - {"__version__"}))
def test_every_public_name_resolves_to_what_it_says(name):
    """Also by `from triptych import *`, and always to the same object."""
    thing = getattr(triptych, name)
    assert thing.__name__ == name
    assert thing.__module__.startswith("triptych.")
    assert thing.__doc__
    assert getattr(triptych, name) is thing
    space = {}
    exec("from triptych import *", space)
    assert space[name] is thing


def test_dir_lists_the_public_names():
    assert set(triptych.__all__) <= set(dir(triptych))
    assert dir(triptych) == sorted(dir(triptych))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'triptych' has no attribute 'CNNClassifier'"):
        _ = triptych.CNNClassifier
    assert not hasattr(triptych, "layers")
    with pytest.raises(ImportError, match="cannot import name 'Layers'"):
        exec("from triptych import Layers")


def test_types_are_shipped():
    assert (files("triptych") / "py.typed").is_file()


def test_the_version_is_the_installed_one():
    assert metadata.version("triptych") == triptych.__version__
