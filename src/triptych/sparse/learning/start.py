"""The first atoms: patches of the signals."""

from math import prod

import torch
from torch import Tensor

from triptych.sparse.learning.learn import Signals


def patches(data: Signals, count: int, size: tuple[int, ...], seed: int) -> Tensor:
    """So many unit patches ``(count, c, *size)`` of the signals, their known part, from random places.

    Where a patch is 0, and where signals have fewer places, Gaussian noise stands for it.
    """
    rng = torch.Generator().manual_seed(seed)
    signals = data.known
    n, c, *shape = signals.shape
    span = [N - m + 1 for N, m in zip(shape, size)]
    places = n * prod(span)
    chosen = (
        torch.randperm(places, generator=rng)[:count]
        if places < 1 << 24
        else torch.randint(places, (count,), generator=rng)
    )
    made = torch.randn(count, c, *size, generator=rng, dtype=signals.dtype)
    for row, at in enumerate(torch.stack(torch.unravel_index(chosen, (n, *span)), 1).tolist()):
        patch = signals[at[0], :, *(slice(p, p + m) for p, m in zip(at[1:], size))]
        if bool(patch.any()):
            made[row] = patch
    return made / torch.linalg.vector_norm(made.flatten(1), dim=1).reshape(-1, *(1,) * (made.ndim - 1))
