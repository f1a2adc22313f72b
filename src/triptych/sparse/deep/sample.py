"""Signals drawn from the model: a sparse deepest code, and what it makes of itself layer by layer, as deconvolutional nets do."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, real, whole
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.norms import l0_stripe

TRIES = 20  # of places for one code


@dataclass(frozen=True, eq=False)
class Sample:
    """Signals ``(b, c, *shape)``, their codes (G_1, ..., G_L), and of each layer non-zeros and stripe norms, each (b, L) int64."""

    signals: Tensor
    codes: tuple[Tensor, ...]
    nonzeros: Tensor
    stripes: Tensor


def sample(
    model: MultiLayerDictionary,
    count: int,
    code_shape: tuple[int, ...],
    *,
    nonzeros: int,
    stripe: int | None = None,
    least: float = 1.0,
    most: float = 2.0,
    nonnegative: bool = True,
    shape: tuple[int, ...] | None = None,
    rng: torch.Generator,
) -> Sample:
    """Draw ``count`` signals whose deepest code, of a shape in space, has so many non-zeros at random places.

    Magnitudes are uniform from ``least`` to ``most``, signs positive or, unless ``nonnegative``, random. ``stripe``: no stripe of the
    deepest code has more non-zeros; places are drawn until that holds. ``shape``: of the signals in space, by default the smallest that
    has such codes. The layers before follow, and how sparse they are is told. Raises InputError where there is no room.
    """
    whole("count", count)
    whole("nonzeros", nonzeros, high=model.n_atoms[-1] * torch.Size(code_shape).numel())
    low, high = real("least", least, low=0.0), real("most", most, low=least)
    D = model.layers[-1]
    support = torch.stack([_drawn(model, code_shape, nonzeros, stripe, rng) for _ in range(count)])
    size = low + (high - low) * torch.rand(support.shape, generator=rng, dtype=torch.float64)
    sign = torch.ones_like(size) if nonnegative else 2.0 * torch.randint(2, size.shape, generator=rng) - 1
    deep = torch.where(support, size * sign, 0.0).to(D.atoms.dtype)
    signals, *codes = model.cascade(deep, shape)
    tol = [1e-9 * float(code.abs().max()) for code in codes]
    return Sample(
        signals,
        tuple(codes),
        torch.stack([(code.abs() > t).flatten(1).sum(1) for code, t in zip(codes, tol)], 1),
        torch.stack([l0_stripe(layer, code, t) for layer, code, t in zip(model.layers, codes, tol)], 1),
    )


def _drawn(
    model: MultiLayerDictionary, code_shape: tuple[int, ...], nonzeros: int, stripe: int | None, rng: torch.Generator
) -> Tensor:
    """Where one code is not 0, ``(k, *code_shape)``: random places, taken while they fit; from the beginning where too few did."""
    D, shape, most = model.layers[-1], (model.n_atoms[-1], *code_shape), 0
    for _ in range(TRIES):
        support, placed = torch.zeros(shape, dtype=torch.bool), 0
        for at in torch.randperm(support.numel(), generator=rng).tolist():
            if placed == nonzeros:
                break
            support.view(-1)[at] = True
            if stripe is not None and int(l0_stripe(D, support[None].to(D.atoms.dtype))) > stripe:
                support.view(-1)[at] = False
            else:
                placed += 1
        if placed == nonzeros:
            return support
        most = max(most, placed)
    raise InputError(
        f"nonzeros must leave at most {stripe} in a stripe, and there is room for about {most}, got {nonzeros}; take fewer, or a "
        "larger code_shape"
    )
