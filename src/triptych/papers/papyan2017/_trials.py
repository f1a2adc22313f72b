"""Random trials of the theorems: dictionaries of low coherence, planted codes, and every other code there could be."""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from triptych.sparse import ConvDictionary
from triptych.sparse.norms import l0_stripe

F64 = torch.float64
STEPS, RATE = 1000, 0.02
HARD = (10.0, 50.0)  # the exponent of the norm that stands for the maximum, first and last


def incoherent(k: int, size: tuple[int, ...], stride: int, boundary: str, seed: int) -> ConvDictionary:
    """k unit atoms of one channel whose largest correlation was made small, by gradient steps from random ones.

    The descent is on a p-norm of all correlations, p rising; of all steps' atoms those of least coherence are kept.
    """
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randn(k, 1, *size, generator=rng, dtype=F64).requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=RATE)
    least, kept = float("inf"), weights.detach()
    for step in range(STEPS):
        done = step / STEPS
        atoms = weights / torch.linalg.vector_norm(weights.flatten(1), dim=1).reshape(-1, *(1,) * (weights.ndim - 1))
        squares = ConvDictionary.gram(ConvDictionary(atoms, stride)).square()
        others = torch.ones_like(squares)
        others[(torch.arange(k), torch.arange(k), *(n // 2 for n in squares.shape[2:]))] = 0
        squares = squares * others
        largest = squares.max().detach()
        if float(largest) < least:
            least, kept = float(largest), atoms.detach().clone()
        p = HARD[0] + (HARD[1] - HARD[0]) * done
        optimiser.zero_grad()
        (largest * (squares / largest).pow(p).sum().pow(1 / p)).backward()
        optimiser.param_groups[0]["lr"] = RATE * (1 - done) + 1e-4
        optimiser.step()
    return ConvDictionary(kept, stride, boundary)


def planted(D: ConvDictionary, places: tuple[int, ...], stripe: int, rng: np.random.Generator) -> Tensor:
    """A code ``(1, k, *places)`` with ``stripe`` non-zeros in its fullest stripe, as full as it can be; magnitudes 1 to 2."""
    code = torch.zeros(1, D.n_atoms, *places, dtype=F64)
    flat = code.view(-1)
    misses = 0
    for at in rng.permutation(flat.numel()).tolist():
        flat[at] = rng.choice([-1, 1]) * (1 + rng.random())
        if int(l0_stripe(D, code)) > stripe:
            flat[at] = 0
            misses += 1
            if misses > 60:
                break
    return code


def supports(D: ConvDictionary, places: tuple[int, ...], stripe: int) -> list[Tensor]:
    """Every set of placed atoms with at most ``stripe`` in any stripe, by their number: tensors (sets, number)."""
    columns = D.n_atoms * int(np.prod(places))
    eye = torch.eye(columns, dtype=F64).view(columns, D.n_atoms, *places)
    meets = torch.stack([_stripe_of(D, one[None]) for one in eye])  # (columns, places): which stripes hold a column
    sets, counts = torch.arange(columns)[:, None], meets.clone()
    found = [torch.empty(1, 0, dtype=torch.int64), sets]
    while len(sets):
        grown, sums = [], []
        for last in range(columns):
            here = sets[:, -1] < last
            more = counts[here] + meets[last]
            fits = more.amax(1) <= stripe
            grown.append(torch.cat([sets[here][fits], torch.full((int(fits.sum()), 1), last)], 1))
            sums.append(more[fits])
        sets, counts = torch.cat(grown), torch.cat(sums)
        if len(sets):
            found.append(sets)
    return found


def _stripe_of(D: ConvDictionary, code: Tensor) -> Tensor:
    """How many non-zeros every stripe holds, (places,): the code laid on its line or circle, windows of 2 q + 1."""
    counts = (code != 0).sum(1)[0].long()
    q = (D.size[0] - 1) // D.stride
    wide = (
        torch.cat([counts[-q:], counts, counts[:q]])
        if D.boundary == "circular"
        else torch.nn.functional.pad(counts, (q, q))
    )
    return wide.unfold(0, 2 * q + 1, 1).sum(1)


class Rivals:
    """All codes as sparse as a bound allows, for signals of one dictionary: the exhaustive side of uniqueness."""

    def __init__(self, D: ConvDictionary, places: tuple[int, ...], stripe: int) -> None:
        self.columns = D.matrix(D.signal_shape(places))
        self.sets = supports(D, places, stripe)
        gram = self.columns.T @ self.columns
        self.least = 1.0  # the smallest eigenvalue of a Gram matrix of a set: 0 would be two codes with one signal
        self.factors = []
        for sets in self.sets:
            G = gram[sets[:, :, None], sets[:, None, :]]
            if sets.shape[1]:
                self.least = min(self.least, float(torch.linalg.eigvalsh(G).min()))
            self.factors.append(torch.linalg.cholesky(G))

    def __len__(self) -> int:
        return sum(len(sets) for sets in self.sets)

    def judge(self, code: Tensor) -> tuple[int, float]:
        """How many other codes have the signal of a code, and ‖residual‖ / ‖signal‖ of the nearest set that does not hold it."""
        x = code.flatten()
        y = self.columns @ x
        inner = self.columns.T @ y
        energy, true = float(y @ y), x.nonzero().squeeze(1)
        others, nearest = 0, float("inf")
        for sets, L in zip(self.sets, self.factors):
            b = inner[sets]
            z = torch.cholesky_solve(b[:, :, None], L)[:, :, 0] if sets.shape[1] else b
            left = (energy - (b * z).sum(1)).clamp_min(0)
            holds = (
                (sets[:, :, None] == true).any(1).all(1) if sets.shape[1] else torch.zeros(len(sets), dtype=torch.bool)
            )
            exact = left <= 1e-16 * energy * self.columns.shape[1]
            wrong = exact & ((z - x[sets]).abs().amax(1) > 1e-6 if sets.shape[1] else exact)
            others += int((wrong | (exact & ~holds)).sum())
            if bool((~holds).any()):
                nearest = min(nearest, float(left[~holds].min()))
        return others, (nearest / energy) ** 0.5


def levels(bound: float, most: int) -> list[int]:
    """Stripe norms from 1 to ``most``, those at and beyond a bound thinner."""
    grid = sorted({*range(1, int(bound) + 3), *np.unique(np.geomspace(max(1, bound), most, 9).astype(int)).tolist()})
    return [s for s in grid if s <= most]


def half(values: dict[int, float]) -> float | None:
    """The stripe norm at which a share falls below one half, between two that were tried; None where it never does."""
    for (a, high), (b, low) in pairwise(sorted(values.items())):
        if high >= 0.5 > low:
            return a + (high - 0.5) / (high - low) * (b - a)
    return None
