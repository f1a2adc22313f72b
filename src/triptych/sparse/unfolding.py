"""A trained denoiser: a few steps of strided convolutional coding, unrolled, averaged over the shifts of the stride."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from triptych.check import InputError, whole, wrong
from triptych.sparse.dictionary import ConvDictionary
from triptych.store import read_tensors, write_tensors

MIDDLE = 25 / 255  # the noise at which the two numbers of a threshold part
SHIPPED = Path(__file__).parent / "weights" / "unfolding.safetensors"
SHAPES = ("analysis", "synthesis", "readout", "level", "slope")


class Unfolding(nn.Module):
    """Denoise grey pictures: x_0 = 0, x_{t+1} = S(x_t + A(y - B x_t)), picture C x_T; analysis A, synthesis B and C are learnt.

    Parameters
    ----------
    n_atoms, size, stride : of A, B and C; atoms are laid at every ``stride``-th place.
    steps : T.

    A picture is coded once for every shift of the grid of places, and the results are averaged (Simon & Elad, Rethinking the CSC
    Model for Natural Images, NeurIPS 2019). The threshold of atom k in step t is sigma · exp(a_tk + b_tk log(255 sigma / 25)), so
    that one network serves all levels of noise. Raises InputError for wrong values.
    """

    def __init__(self, n_atoms: int = 144, size: int = 11, stride: int = 8, steps: int = 6) -> None:
        super().__init__()
        self.size, self.steps = whole("size", size), whole("steps", steps)
        self.stride = whole("stride", stride, high=size)
        atoms = first_atoms(whole("n_atoms", n_atoms), size)
        periodic = ConvDictionary(atoms, stride, "circular")
        period = stride * -(-4 * size // stride)
        step = 1 / periodic.lipschitz((period, period))  # ISTA's, which does not diverge
        self.analysis = nn.Parameter(step * atoms)
        self.synthesis = nn.Parameter(atoms.clone())
        self.readout = nn.Parameter(atoms.clone())
        self.level = nn.Parameter(torch.full((steps, n_atoms), -0.5))
        self.slope = nn.Parameter(torch.zeros(steps, n_atoms))

    def forward(self, y: Tensor, sigma: float | Tensor, shifts: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """Pictures ``(b, 1, h, w)`` with values from 0 to 1, denoised; sigma, a number or (b,), is the noise's deviation.

        ``shifts``: of the grid, (down, right) in 0 .. stride - 1, to average over; None: all of them. Raises InputError for
        other shapes.
        """
        if y.ndim != 4 or y.shape[1] != 1 or not y.is_floating_point():
            raise wrong("y", "a floating-point tensor (b, 1, h, w)", f"{y.dtype} {tuple(y.shape)}")
        noise = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
        if noise.shape not in ((), (1,), (len(y),)) or not bool((noise.isfinite() & (noise > 0)).all()):
            raise wrong("sigma", "a finite number above 0, or one for every picture", sigma)
        noise = noise.expand(len(y)).reshape(-1, 1, 1, 1)
        chosen = list(product(range(self.stride), range(self.stride))) if shifts is None else list(shifts)
        mean = y.mean((2, 3), keepdim=True)
        total = torch.zeros_like(y)
        for shift in chosen:
            total = total + self.one_shift(y - mean, noise, shift)
        return total / len(chosen) + mean

    def one_shift(self, y: Tensor, sigma: Tensor, shift: tuple[int, int]) -> Tensor:
        """The picture by one grid of places, sigma (b, 1, 1, 1); edges are mirrored as far as the grid reaches beyond them."""
        sides = []
        for length, at in zip(reversed(y.shape[2:]), reversed(shift)):
            before = self.size - self.stride + at
            sides += [before, -(length + before - self.size) % self.stride]
        z = mirrored(y, sides)
        A, B, C = (part.flatten(1) for part in (self.analysis, self.synthesis, self.readout))
        away = (sigma[:, 0] / MIDDLE).log()
        x = A @ F.unfold(z, self.size, stride=self.stride)
        for t in range(self.steps):
            if t:
                x = x + A @ F.unfold(z - self._laid(B.T @ x, z.shape), self.size, stride=self.stride)
            level = sigma[:, 0] * torch.exp(self.level[t, :, None] + self.slope[t, :, None] * away)
            x = F.relu(x - level) - F.relu(-x - level)
        found = self._laid(C.T @ x, z.shape)
        return found[:, :, sides[2] : sides[2] + y.shape[2], sides[0] : sides[0] + y.shape[3]]

    def _laid(self, patches: Tensor, shape: Sequence[int]) -> Tensor:
        """Patches (b, size², places) added where they lie. As a product of matrices before it, this is a transposed convolution."""
        return F.fold(patches, tuple(shape[2:]), self.size, stride=self.stride)

    def save(self, path: str | Path) -> Path:
        """Write the weights in half precision as one safetensors file, beside and renamed."""
        tensors = {name: getattr(self, name).detach().half() for name in SHAPES}
        return write_tensors(path, {**tensors, "stride": torch.tensor(self.stride)})

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Unfolding":
        """Read weights that `save` wrote; None: those that come with the package. Raises InputError for any other file."""
        path = SHIPPED if path is None else Path(path)
        tensors = read_tensors(path)
        try:
            steps, k = tensors["level"].shape
            net = cls(k, tensors["analysis"].shape[-1], int(tensors["stride"]), steps)
            net.load_state_dict({name: tensors[name].float() for name in SHAPES})
        except (KeyError, ValueError, RuntimeError, IndexError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{path} must hold the weights of an Unfolding, but it does not ({reason})") from None
        if not all(bool(p.isfinite().all()) for p in net.parameters()):
            raise InputError(f"{path} must hold finite weights, but some are not; train and save them again")
        return net.eval()


def first_atoms(count: int, size: int) -> Tensor:
    """Unit atoms ``(count, 1, size, size)``: the cosines of the two-dimensional DCT, lowest first, and products of windows."""
    n = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos(torch.pi * (n + 0.5) * n[:, None] / size)
    cosines = cosines / cosines.norm(dim=1, keepdim=True)
    basis = torch.einsum("iu,jv->ijuv", cosines, cosines).reshape(size * size, size, size)
    order = (n[:, None] ** 2 + n**2).flatten().argsort(stable=True)
    atoms = basis[order][:count]
    if count > len(atoms):
        rng = torch.Generator().manual_seed(0)
        more = torch.einsum(
            "ku,kv->kuv", *torch.randn(2, count - len(atoms), size, generator=rng, dtype=torch.float64).cumsum(2)
        )
        more = more - more.mean((1, 2), keepdim=True)
        atoms = torch.cat([atoms, more / more.flatten(1).norm(dim=1)[:, None, None]])
    return atoms[:, None].float()


def mirrored(y: Tensor, sides: Sequence[int]) -> Tensor:
    """Pictures with so many samples more (left, right, above, below), their edges mirrored, as often as need be."""
    for axis, (before, after) in ((3, sides[:2]), (2, sides[2:])):
        n = y.shape[axis]
        at = torch.arange(-before, n + after, device=y.device) % (2 * n)
        y = y.index_select(axis, torch.where(at < n, at, 2 * n - 1 - at))
    return y
