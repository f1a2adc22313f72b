import errno
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from cyclopts import App

from triptych import __version__, cli
from triptych.check import InputError, NotConverged
from triptych.cli import main
from triptych.cli.console import Console, Json, console

SCRIPT = "import sys; from triptych.cli import main; sys.exit(main(sys.argv[1:]))"


def run(*words, **options):
    return subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, **options)


def boom(kind: str, *, json: Json = False) -> int | None:
    """End in one of the ways a command can end."""
    if kind == "table":
        console(json).table(["name", "n"], [["a", 1], ["long", 22]], "Things")
        console(json).finish({"path": Path("p")}, "done")
        return None
    if kind == "warning":
        warnings.warn("not\nquite", RuntimeWarning, stacklevel=1)
        return 0
    raise {
        "input": InputError("n must be odd, got 2"),
        "gap": NotConverged("gap 0.2 is above tol 0.1"),
        "disk": OSError(errno.ENOSPC, "No space left on device", "big.bin"),
        "ctrl-c": KeyboardInterrupt(),
        "pipe": BrokenPipeError(),
        "bug": ValueError("a bug"),
    }[kind]


@pytest.fixture
def app(monkeypatch):
    def build() -> App:
        app = App(name="triptych", suppress_keyboard_interrupt=False)
        app.command(boom)
        return app

    monkeypatch.setattr(cli, "build", build)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("kind", "status", "sentence"),
    [
        ("input", 2, "n must be odd, got 2"),
        ("gap", 1, "gap 0.2 is above tol 0.1"),
        ("disk", 1, "big.bin: No space left on device"),
        ("ctrl-c", 130, "interrupted; what was finished is saved"),
        ("warning", 0, "warning: not quite"),
    ],
)
def test_every_end_has_a_status_and_one_sentence(app, capsys, kind, status, sentence):
    assert main(["boom", kind]) == status
    said = capsys.readouterr()
    assert said.err == f"triptych: {sentence}\n"
    assert said.out == ""


def test_a_broken_pipe_is_silent_and_a_bug_keeps_its_traceback(app, capsys):
    assert main(["boom", "pipe"]) == 141
    assert capsys.readouterr() == ("", "")
    assert main(["boom", "bug"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("ValueError: a bug\n")


WRONG = {
    "unknown command": (
        ["rn"],
        r"command must be one of demo, list, .*got 'rn' (did you mean run?); see `triptych --help`",
    ),
    "unknown option": (
        ["run", "x", "--out", "o", "--sed", "1"],
        "--sed (did you mean --seed?); see `triptych run --help`",
    ),
    "unknown choice": (["run", "x", "--out", "o", "--scale", "smok"], '(did you mean "smoke"?)'),
    "no number": (["run", "x", "--out", "o", "--seed", "two"], '"two"'),
    "nothing given": (["run"], "requires an argument"),
    "value missing": (["run", "x", "--out"], "--out"),
    "too much": (["list", "more"], "more"),
}


@pytest.mark.parametrize(("words", "part"), WRONG.values(), ids=WRONG)
def test_wrong_words_are_one_line_without_a_box(capsys, words, part):
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("triptych: ")
    assert all(piece in said.err for piece in part.split(".*"))
    assert "─" not in said.err
    assert "Traceback" not in said.err


def test_help_names_every_command_without_importing_one(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for name, (_, text) in cli.COMMANDS.items():
        assert f"  {name}: {text[:40]}" in said
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert main(["run", "--help"]) == 0
    assert "--where" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["--version"], []], ids=str)
def test_help_and_version_answer_at_once(words):
    """Nothing heavy is loaded: what a terminal answers with is the command line's own few modules."""
    heavy = {"torch", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "accelerate", "jinja2", "triptych.cli.papers"}
    code = f"{SCRIPT.rpartition(';')[0]}; main({words}); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("words", [["--help"], ["list"]], ids=str)
def test_a_reader_that_leaves_is_no_error(words):
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-c", SCRIPT, *words], stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert done.stderr == ""
    assert done.returncode in (141, 1)  # rich, which prints the help, leaves with 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_a_failure_said_once():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", SCRIPT, "list"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "triptych: No space left on device\n"
    assert done.returncode == 1


def test_json_is_one_object_on_stdout_and_all_else_on_stderr(app, capsys):
    assert main(["boom", "table", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"path": "p"}
    assert "Things" in said.err
    assert main(["boom", "table"]) == 0
    said = capsys.readouterr()
    assert said.out == "Things\nname   n\na      1\nlong  22\ndone\n"
    assert said.err == ""


def test_progress_in_a_pipe_is_one_line_on_stderr(capsys):
    with console().progress("rows", 3) as progress:
        progress.advance(2)
        progress.describe("images")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("images: 2 of 3, ")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_are_rules_and_a_bar(monkeypatch):
    """The bar is drawn on standard error; NO_COLOR leaves no colour in it; brackets are text, not markup."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    Console().table(["name", "n"], [["[bold]a", 1]], "[Things]")
    assert "─" in out.getvalue() or "━" in out.getvalue()
    assert "[bold]a" in out.getvalue()
    assert "[Things]" in out.getvalue()
    with Console().progress("fitting [b]", 4) as progress:
        progress.advance(3)
        progress.describe("testing [i]")
        assert progress.done == 3
    assert "fitting [b]" in err.getvalue() or "testing [i]" in err.getvalue()
    assert "\x1b[3" not in err.getvalue().replace("\x1b[3A", "")


def test_json_holds_numbers_of_numpy_and_nothing_strange(capsys):
    import numpy as np

    Console(json=True).finish({"a": np.float32(0.5), "b": np.arange(2), "c": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": 0.5, "b": [0, 1], "c": "x"}
    with pytest.raises(TypeError, match="object has no JSON form"):
        Console(json=True).finish({"a": object()})


@pytest.mark.parametrize(
    ("size", "status", "expected"),
    [("2", 1, 1), ("2", 2, 2), ("2", 0, 9), ("1", 1, 9)],
)
def test_of_several_processes_one_that_failed_ends_at_once(size, status, expected):
    """What would end a process with 9 while it is torn down does not come to it."""
    script = (
        "import atexit, os\nfrom triptych import cli\natexit.register(os._exit, 9)\n"
        f"cli.main = lambda: print('said', flush=False) or {status}\ncli.entry()"
    )
    environment = {**os.environ, "WORLD_SIZE": size}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert ended.returncode == expected
    assert ended.stdout == "said\n"
