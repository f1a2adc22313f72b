"""Projection onto the model: the deepest code found whole, so that every layer before it follows exactly.

The deep coding problem asks for codes with ‖G_i‖_{0,∞}^S <= λ_i in all layers and ‖y - D_1 ... D_L G_L‖₂ <= E. Here orthogonal
matching pursuit on the effective dictionary takes one atom after another; each time the codes of all layers are made from the
deepest, and the first that is too full ends it. Without noise this is Papyan, Romano & Elad, JMLR 2017, problem DCP; with it,
the projection of Sulam, Papyan, Romano & Elad, IEEE TSP 2018, Algorithm 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from triptych.check import InputError, real, whole, wrong
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.norms import l0_stripe
from triptych.sparse.pursuits.omp import Ending, Matching

ROUNDING = 1e-9  # of the largest coefficient: below it an implied one counts as 0


class Fit(Enum):
    """How a projection ended."""

    SOLVED = "the residual is within the noise, and every layer is as sparse as asked for"
    FULL = "one atom more would make a layer too full"
    NOTHING_LEFT = "no atom correlates with what is left, or the next depends on those taken"


@dataclass(frozen=True, eq=False)
class Projected:
    """Codes (G_1, ..., G_L), each ``(b, k_i, *code_shape_i)``, with G_{i-1} = D_i G_i; what they leave of each signal, (b,); how
    each ended, and where it was not solved, which layer was full (from 1; 0: none).
    """

    codes: tuple[Tensor, ...]
    residual: Tensor
    ending: tuple[Fit, ...]
    full: tuple[int, ...]

    @property
    def solved(self) -> bool:
        """Whether all signals have codes as sparse as asked for."""
        return all(ending is Fit.SOLVED for ending in self.ending)


def project(
    model: MultiLayerDictionary,
    signals: Tensor,
    stripes: Sequence[int],
    noise: float | Tensor = 0.0,
) -> Projected:
    """Codes of signals ``(b, c, *shape)`` with at most ``stripes`` = (λ_1, ..., λ_L) non-zeros in a stripe of each layer.

    Ends where ‖y - D_1 ... D_L G_L‖₂ is at most ``noise`` (a number or (b,)), or with the last codes before a layer is too full:
    what remains is then not of the model. Raises InputError for wrong values, and for padding.
    """
    if isinstance(noise, Tensor) and noise.shape not in ((), (1,), (len(signals),)):
        raise wrong("noise", f"a number of at least 0, or a tensor ({len(signals)},) of them", tuple(noise.shape))
    if any(model.around):
        raise InputError("project needs whole atoms, got a model with padding; make it without")
    if len(stripes) != len(model):
        raise wrong("stripes", f"{len(model)} whole numbers, one a layer", stripes)
    bounds = [whole("stripes", count, low=0) for count in stripes]
    levels = (
        noise.expand(len(signals)).tolist()
        if isinstance(noise, Tensor)
        else [real("noise", noise, low=0.0)] * len(signals)
    )
    double = model.to(torch.float64)
    coding = Coding(double.effective(), signals)
    found = [_one(double, coding, i, bounds, level) for i, level in enumerate(levels)]
    codes = tuple(torch.cat(layer).to(signals) for layer in zip(*(one[0] for one in found)))
    residual = torch.tensor([one[1] for one in found], dtype=torch.float64)
    return Projected(codes, residual, tuple(one[2] for one in found), tuple(one[3] for one in found))


def _one(
    model: MultiLayerDictionary, coding: Coding, i: int, bounds: list[int], noise: float
) -> tuple[tuple[Tensor, ...], float, Fit, int]:
    """Signal i."""
    matching, shape = Matching(coding, i), coding.shape
    code_shape = (model.n_atoms[-1], *coding.code_shape)
    kept, left, count = (
        model.cascade(torch.zeros(1, *code_shape, dtype=torch.float64), shape),
        float(matching.residual.norm()),
        0,
    )
    while True:
        count += 1
        ending = matching.run(count, noise)
        index, value = matching.code()
        codes = model.cascade(Codes(code_shape, [index], [value.double()]).dense(torch.float64), shape)
        full = _full(model, codes, bounds)
        if full:
            return kept[1:], left, Fit.FULL, full
        kept, left = codes, float(matching.residual.norm())
        if ending is Ending.NOISE:
            return kept[1:], left, Fit.SOLVED, 0
        if ending is Ending.NOTHING_LEFT:
            return kept[1:], left, Fit.NOTHING_LEFT, 0


def _full(model: MultiLayerDictionary, codes: tuple[Tensor, ...], bounds: list[int]) -> int:
    """The first layer with more in a stripe than its bound, from 1; 0: none."""
    for i, (D, code, bound) in enumerate(zip(model.layers, codes[1:], bounds), 1):
        if int(l0_stripe(D, code, ROUNDING * float(code.abs().max()))) > bound:
            return i
    return 0
