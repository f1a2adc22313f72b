"""Orthogonal matching pursuit where places do not overlap: at a stride of an atom's size every patch is a problem of its own.

A million small problems then go through the same few products of matrices.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, real, whole, wrong

TOGETHER = 8192  # patches that are coded at a time
DEPENDENT = 0.05  # an atom of which so little is new, or known, is not taken


@dataclass(frozen=True, eq=False)
class Fits:
    """What atoms make of patches: ``estimate`` (p, d), known and unknown samples alike, and ``atoms`` (p,), how many each took."""

    estimate: Tensor
    atoms: Tensor


def omp_disjoint(
    patches: Tensor, atoms: Tensor, energy: Tensor, most: int, *, mask: Tensor | None = None, free: Tensor | None = None
) -> Fits:
    """Take atoms, patch by patch, until ‖mask · (estimate - patch)‖₂² is at most ``energy`` or ``most`` atoms are taken.

    Parameters
    ----------
    patches : floating-point tensor (p, d).
    atoms : (k, d), none of which is 0.
    energy : (p,), in the units of the squared patches.
    most : atoms a patch may take.
    mask : (p, d) of numbers in [0, 1], 1 where a sample is known; None: all are.
    free : (f, d), orthogonal patterns that every patch may have for nothing; they are fitted first and not counted.

    All coefficients are fitted anew with each atom, by orthogonalising it to those before. Raises InputError where the shapes
    do not fit. Pati, Rezaiifar & Krishnaprasad, Asilomar 1993; with an error to reach: Elad & Aharon, IEEE TIP 2006.
    """
    return _fits(patches, atoms, energy, None, most, mask, free)[0]


def omp_disjoint_twice(
    patches: Tensor, atoms: Tensor, energy: Tensor, correlation: float, most: int, *, free: Tensor | None = None
) -> tuple[Fits, Fits]:
    """What `omp_disjoint` gives at ``energy``, and where no atom of norm 1 meets more than ``correlation`` in what is left.

    One path of atoms serves both: of the two rules now one, now the other stops first.
    """
    correlation = real("correlation", correlation, low=0.0)
    first, second = _fits(patches, atoms, energy, correlation, most, None, free)
    return first, second


def _fits(
    patches: Tensor,
    atoms: Tensor,
    energy: Tensor,
    correlation: float | None,
    most: int,
    mask: Tensor | None,
    free: Tensor | None,
) -> list[Fits]:
    """Codes by one rule to stop or by two."""
    p, d = patches.shape
    if atoms.ndim != 2 or atoms.shape[1] != d:
        raise wrong("atoms", f"a tensor (k, {d})", tuple(atoms.shape))
    if energy.shape != (p,):
        raise wrong("energy", f"a tensor ({p},)", tuple(energy.shape))
    if mask is not None and mask.shape != patches.shape:
        raise wrong("mask", f"a tensor {tuple(patches.shape)}", tuple(mask.shape))
    whole("most", most, low=0)
    if not bool((atoms != 0).any(1).all()):
        raise InputError("atoms must be different from 0, one of them is 0; leave it out")
    rules = 1 if correlation is None else 2
    estimate, count = patches.new_empty(rules, p, d), patches.new_empty(rules, p, dtype=torch.int64)
    for part in torch.arange(p, device=patches.device).split(TOGETHER):
        known = None if mask is None else mask[part]
        fitting = _Fitting(patches[part], known, atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True))
        for pattern in () if free is None else free:
            fitting.add(pattern.expand(len(part), -1))
        estimate[:, part], count[:, part] = fitting.run(energy[part], correlation, most)
    return [Fits(*one) for one in zip(estimate, count)]


class _Fitting:
    """Some patches, with what is left of each and an orthonormal basis of the atoms it took."""

    def __init__(self, patches: Tensor, mask: Tensor | None, atoms: Tensor) -> None:
        p, d = patches.shape
        self.mask, self.atoms = mask, atoms
        self.residual = patches if mask is None else patches * mask
        self.estimate = torch.zeros_like(patches)
        self.seen = patches.new_zeros(p, 0, d)  # mask · basis, orthonormal
        self.basis = self.seen  # the same sums of atoms, unmasked
        self.size = None  # ‖mask · atom‖
        if mask is not None:
            size = (mask.square() @ atoms.square().T).sqrt()
            self.size = size.masked_fill(size < DEPENDENT, torch.inf)

    def run(self, energy: Tensor, correlation: float | None, most: int) -> tuple[Tensor, Tensor]:
        """Take atoms until every patch has done by all rules; estimates (rules, p, d) and counts (rules, p)."""
        rules = 1 if correlation is None else 2
        estimate = self.estimate.new_empty(rules, *self.estimate.shape)
        count = energy.new_empty(rules, len(energy), dtype=torch.int64)
        rows = torch.arange(len(energy), device=energy.device)
        going = torch.ones_like(count, dtype=torch.bool)
        for step in range(most + 1):
            more = going & (step < most)
            more[0] &= self.residual.square().sum(1) > energy
            best = None
            if correlation is not None:
                largest, best = self._best()
                more[1] &= largest > correlation
            for rule, done in enumerate(going & ~more):
                estimate[rule, rows[done]], count[rule, rows[done]] = self.estimate[done], step
            going, keep = more, more.any(0)
            if not bool(keep.all()):
                rows, energy, going = rows[keep], energy[keep], going[:, keep]
                best = None if best is None else best[keep]
                self._keep(keep)
            if not len(rows):
                break
            self.add(self.atoms[self._best()[1] if best is None else best])
        return estimate, count

    def _best(self) -> tuple[Tensor, Tensor]:
        """The atom of each patch that explains most of what is left, and how much it meets there."""
        correlation = (self.residual @ self.atoms.T).abs()
        found = (correlation if self.size is None else correlation / self.size).max(1)
        return found.values, found.indices

    def add(self, atoms: Tensor) -> None:
        """Fit an atom (p, d) to each patch beside those that it has."""
        seen = whole = atoms if self.mask is None else atoms * self.mask
        whole, before = atoms, torch.linalg.vector_norm(seen, dim=1, keepdim=True)
        for _ in range(2):  # once leaves rounding errors that grow with the count
            share = torch.bmm(self.seen, seen.unsqueeze(2)).squeeze(2).unsqueeze(1)
            seen = seen - torch.bmm(share, self.seen).squeeze(1)
            if self.mask is not None:
                whole = whole - torch.bmm(share, self.basis).squeeze(1)
        norm = torch.linalg.vector_norm(seen, dim=1, keepdim=True)
        scale = torch.where(norm > DEPENDENT * before, 1 / norm, 0.0)
        seen = seen * scale
        whole = seen if self.mask is None else whole * scale
        coefficient = (self.residual * seen).sum(1, keepdim=True)
        self.residual = self.residual - coefficient * seen
        self.estimate = self.estimate + coefficient * whole
        self.seen = torch.cat([self.seen, seen.unsqueeze(1)], 1)
        self.basis = self.seen if self.mask is None else torch.cat([self.basis, whole.unsqueeze(1)], 1)

    def _keep(self, going: Tensor) -> None:
        """Go on with some of the patches."""
        same = self.mask is None
        self.residual, self.estimate, self.seen = self.residual[going], self.estimate[going], self.seen[going]
        self.basis = self.seen if same else self.basis[going]
        self.mask = None if self.mask is None else self.mask[going]
        self.size = None if self.size is None else self.size[going]
