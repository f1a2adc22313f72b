"""The command line; every command is imported when it is called, so that help and version answer at once."""

import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

from cyclopts import App, CycloptsError, UnknownCommandError

from triptych import __version__
from triptych.check import InputError, NotConverged, nearest

DONE, FAILED, WRONG_USE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141

COMMANDS = {
    "demo": ("triptych.cli.demo:demo", "Train on small images, print the certificate and the error, write a report."),
    "list": ("triptych.cli.papers:list_", "List the experiments and the recipes."),
    "run": ("triptych.cli.papers:run", "Run an experiment; rows that are there already are kept."),
    "report": (
        "triptych.cli.papers:report",
        "Write report.html and report.md from saved rows, a saved model or a run.",
    ),
    "data": ("triptych.cli.data:app", "Look at data; fetch well-known sets."),
    "ccnn": ("triptych.cli.ccnn:app", "Fit, use and show convexified networks."),
    "sparse": ("triptych.cli.sparse:app", "Code pictures sparsely: denoise, fill in, look at dictionaries."),
    "gan": ("triptych.cli.gan:app", "Train adversarial networks and look at what they make."),
}


def build() -> App:
    """Build the application; no command is imported."""
    formatter: Literal["default", "plain"] = "default" if sys.stdout.isatty() else "plain"
    app = App(
        name="triptych",
        help="Convolutional networks one can reason about.",
        version=__version__,
        help_formatter=formatter,
        suppress_keyboard_interrupt=False,
    )
    for name, (address, text) in COMMANDS.items():
        app.command(address, name=name, help=text)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    0 done, 1 failed, 2 wrong use, 130 interrupted, 141 where the reader of standard output has gone.
    """
    # Before torch loads. Threads that spin for long take others' cores; those that sleep at once make small networks slow.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    with warnings.catch_warnings():
        warnings.showwarning = _warning
        return _guarded(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def entry() -> None:
    """Run this process's command line and end the process.

    One of several that failed ends at once: a back end whose peers have gone may abort as it is torn down, and take the exit
    status with it.
    """
    status = main()
    if status and os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _run(words: list[str]) -> int:
    action = "return_value"
    status = build()(words, exit_on_error=False, print_error=False, verbose=False, result_action=action)
    sys.stdout.flush()
    return status if isinstance(status, int) else DONE


def _guarded(command: Callable[[], int]) -> int:
    """Turn what a command raises into one sentence on standard error and an exit status."""
    try:
        return command()
    except CycloptsError as error:
        return _said(_sentence(error), WRONG_USE)
    except InputError as error:
        return _said(str(error), WRONG_USE)
    except NotConverged as error:
        return _said(str(error), FAILED)
    except KeyboardInterrupt:
        return _said("interrupted; what was finished is saved", INTERRUPTED)
    except BrokenPipeError:
        _close_standard_output()
        return BROKEN_PIPE
    except OSError as error:
        return _said(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), FAILED)
    except Exception:
        traceback.print_exc()
        return FAILED


def _said(text: str, status: int) -> int:
    print(f"triptych: {text}", file=sys.stderr)
    return status


def _sentence(error: CycloptsError) -> str:
    """Give a parser's error as one sentence: what is wrong, the nearest name, where the help is."""
    if isinstance(error, UnknownCommandError) and not error.command_chain:  # cyclopts would import every command
        word = (error.unused_tokens or [""])[0]
        return f"command must be one of {', '.join(COMMANDS)}, got {word!r}{nearest(word, COMMANDS)}; see `triptych --help`"
    text = " ".join(str(error).split())
    text = re.sub(r"\.? Did you mean ([^?]+)\?", r" (did you mean \1?)", text)
    text = re.sub(r"\.? Available commands: (.*?)\.?$", r"; the commands are \1", text)
    chain = " ".join(("triptych", *(error.command_chain or ())))
    return f"{text[:1].lower()}{text[1:].rstrip('.')}; see `{chain} --help`"


def _warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    del category
    print(f"triptych: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _close_standard_output() -> None:
    """Point standard output at nothing, or Python would complain once more when it flushes at its end."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, sys.stdout.fileno())
    except OSError:  # not a file: nothing is flushed either
        pass
    finally:
        os.close(nothing)
