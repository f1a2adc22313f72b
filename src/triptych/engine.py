"""Device, precision and processes: the only module that knows Accelerate. One process needs none of it."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from triptych.check import choice

PRECISIONS = ("float32", "bf16", "float64")


@dataclass(frozen=True)
class Engine:
    """Where and how a run computes: its device, its precision, and this process's place among ``size``.

    Networks are not wrapped: gradients are summed by one flat all-reduce an optimiser step (``sum``).
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        choice("precision", self.precision, PRECISIONS)

    @property
    def dtype(self) -> torch.dtype:
        """The type of parameters, images and noise."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def autocast(self) -> AbstractContextManager:
        """The context of a forward pass: bfloat16 where the precision says so."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def slices(self, batch: int, accumulate: int = 1) -> list[tuple[int, int]]:
        """This process's share of a batch as (first, count), in ``accumulate`` pieces where it has as many images."""
        first, last = batch * self.rank // self.size, batch * (self.rank + 1) // self.size
        pieces = max(1, min(accumulate, last - first))
        ends = [first + (last - first) * piece // pieces for piece in range(pieces + 1)]
        return [(a, b - a) for a, b in pairwise(ends) if b > a]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values

    def place(self, module: nn.Module) -> nn.Module:
        """Move a network to the device, its type and, where it has convolutions, to channels last."""
        return module.to(device=self.device, dtype=self.dtype, memory_format=torch.channels_last)  # pyright: ignore

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
