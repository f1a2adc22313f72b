"""``python -m triptych``: the command line."""

import sys

from triptych.cli import main

sys.exit(main())
