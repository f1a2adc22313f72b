"""The shifts of a strided dictionary's grid: an image coded patch by patch at all of them, the answers averaged, in bands."""

from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.pursuits.disjoint import omp_disjoint, omp_disjoint_twice

BAND = 1 << 16  # patches that are cut out at a time


def shifts(
    image: Tensor,
    dictionary: ConvDictionary,
    energy: float,
    correlation: float = 0.0,
    mask: Tensor | None = None,
    wanted: Tensor | None = None,
    least: int = 1,
) -> tuple[Tensor, Tensor, float]:
    """The mean over all shifts of the strided dictionary's estimates of an image (c, h, w), in bands of rows.

    Half of it by codes that leave ``energy`` of a patch, half by those that leave nothing that an atom meets with more than
    ``correlation``. With a mask (h, w) those patches are coded that have a ``wanted`` sample and at least ``least`` known ones,
    all by their energy, to so much less as less is known. Also: where any patch was coded, and atoms a patch.
    """
    c, h, w = image.shape
    n1, n2 = dictionary.size
    atoms, free = centred(dictionary), _flat(dictionary)
    most = atoms.shape[1] // (2 if mask is None else 6)
    rules = 2 if mask is None else 1
    total, weight = image.new_zeros(rules, *image.shape), image.new_zeros(rules, 1, h, w)
    used, coded = 0.0, 0
    rows = max(1, BAND // (w - n2 + 1))
    for top in range(0, h - n1 + 1, rows):
        band = slice(top, min(top + rows, h - n1 + 1) + n1 - 1)
        patches = _patches(image[:, band], (n1, n2))
        if mask is None or wanted is None:
            bound = torch.full_like(patches[:, 0], energy)
            fits = omp_disjoint_twice(patches, atoms, bound, correlation, most, free=free)
            # What so many atoms do not explain is no patch of this dictionary: it stays as it is.
            estimates = [torch.where((one.atoms < most)[:, None], one.estimate, patches) for one in fits]
            trusts = [1 / (1.0 + one.atoms.to(image)) for one in fits]
        else:
            known, asked = (_patches(one[None, band].to(image), (n1, n2)) for one in (mask, wanted))
            take = (asked.amax(1) > 0) & (known.sum(1) >= least)
            share = known[take].mean(1)
            fits = [omp_disjoint(patches[take], atoms, energy * share, most, mask=known[take].repeat(1, c), free=free)]
            estimate, trust = torch.zeros_like(patches), torch.zeros_like(patches[:, 0])
            estimate[take], trust[take] = fits[0].estimate, share / (1.0 + fits[0].atoms.to(image))
            estimates, trusts = [estimate], [trust]
        shape = (band.stop - band.start, w)
        for rule, (estimate, trust) in enumerate(zip(estimates, trusts)):
            total[rule, :, band] += _laid(estimate * trust[:, None], shape, (n1, n2))
            weight[rule, :, band] += _laid(trust[:, None].expand(-1, n1 * n2), shape, (n1, n2))
        used += sum(float(one.atoms.sum()) for one in fits) / rules
        coded += len(fits[0].atoms)
    mean = torch.where(weight > 0, total / weight, 0.0).mean(0)
    return mean, weight[0, 0] > 0, used / max(1, coded)


def filled(image: Tensor, known: Tensor, level: float, dictionary: ConvDictionary) -> tuple[Tensor, float]:
    """Estimates of an image (c, h, w) known where (h, w) is; holes that no patch spans from their rims inwards."""
    samples = prod(dictionary.size)
    energy, least = len(image) * samples * level**2, samples // 4
    result, reached, used = shifts(image, dictionary, energy, mask=known, wanted=torch.ones_like(known), least=least)
    while not bool(reached.all()):
        image, known = torch.where(known, image, result), known | reached
        estimate, new, _ = shifts(image, dictionary, energy, mask=known, wanted=~reached, least=least)
        if not bool((new & ~reached).any()):
            least = max(1, least // 2)
        result, reached = torch.where(reached, result, estimate), reached | new
    return result, used


def _patches(image: Tensor, size: tuple[int, int]) -> Tensor:
    """All patches of an image (c, h, w), row by row, (p, c n1 n2)."""
    return F.unfold(image[None], size)[0].T.contiguous()


def _laid(patches: Tensor, shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The sum of patches (p, c n1 n2), each at its place, (c, h, w)."""
    return F.fold(patches.T.contiguous()[None], shape, size)[0]


def centred(dictionary: ConvDictionary) -> Tensor:
    """Atoms (k, c n1 n2) of norm 1 without their channels' means; those that are flat are left out."""
    atoms = dictionary.atoms - dictionary.atoms.mean((2, 3), keepdim=True)
    norms = torch.linalg.vector_norm(atoms.flatten(1), dim=1)
    keep = norms > 1e-3 * dictionary.norms
    if not bool(keep.any()):
        raise InputError("dictionary must hold an atom that is not flat, all of them are; learn it anew")
    return atoms.flatten(1)[keep] / norms[keep, None]


def _flat(dictionary: ConvDictionary) -> Tensor:
    """The flat patterns of every channel, (c, c n1 n2), orthonormal."""
    return (
        torch.eye(dictionary.channels).to(dictionary.atoms).repeat_interleave(prod(dictionary.size), 1)
        / prod(dictionary.size) ** 0.5
    )
