"""Device, precision and processes: the only module that knows Accelerate. One process needs none of it."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from triptych.check import InputError, NotConverged, choice, wrong

PRECISIONS = ("float32", "bf16", "float64")
DEVICES = "'cpu', 'cuda' or 'cuda:N'"


class ProcessLost(NotConverged):
    """Another process of the run has ended, or has gone another way; this one cannot go on alone."""


@dataclass(frozen=True)
class Engine:
    """Where and how a run computes: its device, its precision, and this process's place among ``size``.

    Networks are not wrapped: gradients are summed by one flat all-reduce an optimiser step (``sum``). As a context, it
    parts from the other processes at its end. ``start`` makes the engine of a process that torchrun started.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    rank: int = 0
    size: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        choice("precision", self.precision, PRECISIONS)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:  # after an error the others learn of it from the closed connection: to wait would be for ever
            self.end()

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    @property
    def dtype(self) -> torch.dtype:
        """The type of parameters, images and noise."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def repeatable(self) -> bool:
        """Whether the same step gives the same bits: on a GPU, under PyTorch's deterministic algorithms alone."""
        return self.device.type == "cpu" or (
            torch.are_deterministic_algorithms_enabled()
            and not torch.backends.cudnn.benchmark
            and os.environ.get("CUBLAS_WORKSPACE_CONFIG") in (":4096:8", ":16:8")
        )

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass: bfloat16 where the precision says so."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def slices(self, batch: int, accumulate: int = 1) -> list[tuple[int, int]]:
        """This process's share of a batch as (first, count), in ``accumulate`` pieces where it has as many images."""
        first, last = batch * self.rank // self.size, batch * (self.rank + 1) // self.size
        pieces = max(1, min(accumulate, last - first))
        ends = [first + (last - first) * piece // pieces for piece in range(pieces + 1)]
        return [(a, b - a) for a, b in pairwise(ends) if b > a]

    def place(self, module: nn.Module) -> nn.Module:
        """Move a network to the device, its type and, where it has convolutions, to channels last."""
        return module.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)  # pyright: ignore

    def compiled(self, module: nn.Module) -> nn.Module:
        """The network, with ``compile`` compiled in place; not for critics under a gradient penalty (double backward)."""
        if self.compile:
            module.compile()
        return module

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes. Raises ProcessLost, as all that follow do."""
        if self.size == 1:
            return values
        from accelerate.utils import reduce

        with _together():
            return reduce(values, "sum")  # pyright: ignore[reportReturnType]

    def sum_gradients(self, parameters: Iterable[nn.Parameter], beside: Tensor) -> Tensor:
        """Sum gradients over all processes in place, and the numbers beside them, which are returned: one all-reduce."""
        if self.size == 1:
            return beside
        chosen = [p for p in parameters if p.grad is not None]
        gradients = [p.grad for p in chosen if p.grad is not None]
        flat = self.sum(torch.cat([*(g.flatten() for g in gradients), beside.to(self.device, self.dtype)]))
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients] + [beside.numel()])):
            gradient.copy_(summed.view_as(gradient))
        return flat[flat.numel() - beside.numel() :]

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the main one's values, in place: one message for each type of number."""
        if self.size == 1:
            return
        from accelerate.utils import broadcast

        for dtype in sorted({t.dtype for t in tensors}, key=str):
            chosen = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.detach().flatten().to(self.device) for t in chosen])
            with _together():
                flat = broadcast(flat)
            for tensor, values in zip(chosen, flat.split([t.numel() for t in chosen])):  # pyright: ignore
                tensor.copy_(values.view_as(tensor))

    def share(self, value: Any = None) -> Any:
        """The main process's value, which JSON can hold, in every process."""
        if self.size == 1:
            return value
        data = json.dumps(value).encode() if self.main else b""
        length = torch.tensor([len(data)], device=self.device)
        self.broadcast([length])
        text = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.main:
            text.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self.broadcast([text])
        return json.loads(text.cpu().numpy().tobytes())

    def any(self, said: bool) -> bool:
        """Whether any process says so."""
        return bool(said) if self.size == 1 else bool(self.sum(torch.tensor([int(said)], device=self.device)) > 0)

    def agree(self, what: str, number: int) -> None:
        """Check that all processes have the same whole number of at most 63 bits. Raises ProcessLost."""
        if self.size == 1:
            return
        from accelerate.utils import gather

        with _together():
            numbers = gather(torch.tensor([number], device=self.device)).tolist()  # pyright: ignore
        if len(set(numbers)) > 1:
            odd = next(rank for rank, other in enumerate(numbers) if other != numbers[0])
            raise ProcessLost(f"{what} of process {odd} are not those of process 0; go on from the last checkpoint")

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.any(False)

    def end(self) -> None:
        """Part from the other processes, all at the same place."""
        if self.size > 1:
            from accelerate import PartialState

            # Without the wait, a process that leaves first makes another abort in its last clean-up, now and then.
            with _together():
                PartialState().wait_for_everyone()
            PartialState().destroy_process_group()


def start(device: str | None = None, precision: str = "float32", *, compile: bool = False) -> Engine:
    """The engine of this process: alone, or one of those that torchrun started, then joined by Accelerate.

    ``device`` is 'cpu', 'cuda' or 'cuda:N', by default a GPU where there is one. On a GPU, deterministic algorithms are
    switched on, so that a run repeats. Raises InputError where there is no such device, ProcessLost where the processes
    do not find each other.
    """
    choice("precision", precision, PRECISIONS)
    size, local = _environment("WORLD_SIZE", 1), _environment("LOCAL_RANK", 0)
    chosen = _device(device, local if size > 1 else None)
    if chosen.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore  # nothing here reads it, and filling takes time
        torch.backends.cudnn.benchmark = False
        torch.cuda.set_device(chosen)
    if size == 1:
        return Engine(chosen, precision, compile=compile)
    lacking = next((name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)), None)
    if lacking:
        raise InputError(
            f"the environment must have {lacking} where WORLD_SIZE is {size}; start the processes by torchrun"
        )
    from accelerate import PartialState

    with _together(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OMP_NUM_THREADS")
        # Others wait while the main process reads pictures; torchrun, or the closed connection, tells of one that has gone.
        state = PartialState(cpu=chosen.type == "cpu", timeout=timedelta(days=1))
    return Engine(chosen, precision, state.process_index, state.num_processes, compile)


def _device(name: str | None, local: int | None) -> torch.device:
    """The device of a name; ``local`` is this process's number on its machine, where there are several."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        name = "cuda" if count else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise wrong("device", DEVICES, name) from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise wrong("device", DEVICES, name)
    if device.type == "cpu":
        return device
    index = device.index if device.index is not None else local or 0
    if not count:
        raise wrong("device", "'cpu', as this machine or this PyTorch has no CUDA", name)
    if local is not None and device.index is not None:
        raise wrong("device", "'cuda' where there are several processes, each on a GPU of its own", name)
    if index >= count:
        raise InputError(
            f"device must be one of the {count} GPUs of this machine, got cuda:{index}; start fewer processes"
        )
    return torch.device("cuda", index)


def _environment(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdigit():
        raise wrong(f"the environment's {name}", "a whole number, as torchrun sets it", value)
    return int(value)


@contextmanager
def _together() -> Iterator[None]:
    """Say in one sentence what the back ends say in many ways when a process has gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ProcessLost(
            "another process of this run has ended or cannot be reached; go on with --resume from the last checkpoint, "
            "with any number of processes"
        ) from error
