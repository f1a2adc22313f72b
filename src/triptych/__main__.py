"""``python -m triptych``: the command line."""

from triptych.cli import entry

entry()
