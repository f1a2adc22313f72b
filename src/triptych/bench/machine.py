"""The provenance of a row: versions, commit, device, processor, threads; and what a process cost."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import triptych

LIBRARIES = ("torch", "numpy", "scikit-learn", "safetensors", "pillow")


def provenance(device: str) -> dict[str, Any]:
    """Name what a measurement was made with; torch is loaded, because the number of threads is its own."""
    import torch

    return {
        "version": triptych.__version__,
        "commit": commit(Path(triptych.__file__)),
        "device": device if not device.startswith("cuda") else f"{device} ({torch.cuda.get_device_name(device)})",
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": installed(LIBRARIES),
        "platform": platform.platform(terse=True),
    }


def commit(file: Path) -> str | None:
    """Name the commit that a file belongs to, with ``-dirty`` where its checkout has changes; None where git does not track it."""
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file.parent, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40")


def installed(names: Sequence[str]) -> dict[str, str]:
    """Map each library that is installed to its version."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def cpu_model() -> str:
    """Name the processor as the system does."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_rss_mb() -> float:
    """Give this process's peak resident memory in MB (10^6 bytes).

    Linux keeps the parent's peak in ru_maxrss across fork and exec, hence VmHWM, which starts anew with the program.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def cpu_seconds() -> float:
    """Give the CPU time of this process and of its ended children so far, in seconds, user and system."""
    return sum(os.times()[:4])


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
