"""`CSCLayer`: sparse coding as a layer of a network, unrolled or solved, with gradients for atoms and thresholds."""

from collections.abc import Sequence
from math import cos, pi, prod
from typing import Any

import torch
from torch import Tensor, nn

from triptych.check import InputError, choice, real, whole, wrong
from triptych.sparse.dictionary import BOUNDARIES, ConvDictionary, aliased
from triptych.sparse.fold import fold

GRID = 8  # frequencies of the code on which a spectrum is looked at, for each place that an atom reaches


class CSCLayer(nn.Module):
    """Codes of signals in a learnt dictionary: steps towards, or all the way to, argmin ½ ‖y - D x‖² + Σ_k lam_k ‖x_k‖₁.

    Parameters
    ----------
    channels, n_atoms : c and k.
    size : samples of an atom on every axis; one number or a tuple of one (lines) or two (pictures).
    stride, boundary : see `ConvDictionary`.
    steps : accelerated proximal steps from 0. One step is a convolution, a bias and a ReLU, times a step size.
    implicit : go on until nothing changes by more than ``tol`` (at most ``steps`` steps), without a tape, and differentiate
        the solution itself: memory does not grow with the steps.
    nonnegative : whether x >= 0. ``lam`` may then also be below 0: minus the bias of a convolution.
    lam : the first value of every atom's weight.
    tol : relative, of ``implicit``.
    ndim : 1 for lines, 2 for pictures, where ``size`` is one number.

    Shapes: ``(b, c, *shape)`` -> ``(b, k, *code_shape)``. Parameters: ``weight (k, c, *size)``, ``lam (k,)``. Raises InputError
    for wrong values. Unrolled: Gregor & LeCun, ICML 2010; convolutional: Sreter & Giryes, ICASSP 2018. Implicit: Mairal, Bach &
    Ponce, IEEE TPAMI 2012, Proposition 1.
    """

    def __init__(
        self,
        channels: int,
        n_atoms: int,
        size: int | Sequence[int],
        *,
        stride: int = 1,
        boundary: str = "valid",
        steps: int = 10,
        implicit: bool = False,
        nonnegative: bool = True,
        lam: float = 0.1,
        tol: float = 1e-6,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        sizes = (whole("size", size),) * whole("ndim", ndim, high=2) if isinstance(size, int) else tuple(size)
        if len(sizes) not in (1, 2):
            raise wrong("size", "a whole number, or a tuple of one or two", size)
        shape = (whole("n_atoms", n_atoms), whole("channels", channels), *(whole("size", n) for n in sizes))
        self.stride, self.boundary = whole("stride", stride), choice("boundary", boundary, BOUNDARIES)
        self.steps, self.implicit, self.nonnegative = whole("steps", steps), bool(implicit), bool(nonnegative)
        self.tol = real("tol", tol, above=0.0)
        self.weight = nn.Parameter(torch.randn(shape) / prod(shape[1:]) ** 0.5)
        self.lam = nn.Parameter(torch.full((shape[0],), real("lam", lam, low=0.0)))

    @classmethod
    def from_conv(cls, conv: nn.Conv1d | nn.Conv2d, batchnorm: nn.Module | None = None, **options: Any) -> "CSCLayer":
        """The layer whose first step is ReLU(batchnorm(conv(y))), times a step size; ``options`` as of the class.

        Codes are not negative, lam is minus the bias, of either sign. Raises InputError as `fold` does.
        """
        folded = fold(conv, batchnorm)  # pyright: ignore[reportArgumentType]
        D = folded.dictionary
        layer = cls(D.channels, D.n_atoms, D.size, stride=D.stride, boundary=D.boundary, **options)
        if not layer.nonnegative:
            raise InputError("a convolution and its ReLU are codes that are not negative; leave nonnegative=True")
        with torch.no_grad():
            layer.weight.copy_(D.atoms)
            layer.lam.copy_(-folded.bias)
        return layer.to(D.atoms.dtype)

    @property
    def dictionary(self) -> ConvDictionary:
        """The atoms as they are now, without gradients."""
        return ConvDictionary(self.weight.detach().clone(), self.stride, self.boundary)

    def forward(self, y: Tensor) -> Tensor:
        """Codes ``(b, k, *code_shape)`` of signals ``(b, c, *shape)``."""
        if self.implicit:
            return _Solution.apply(y, self.weight, self.lam, self)  # pyright: ignore[reportReturnType]
        return self.unrolled(y, self.weight, self.lam, self.steps)[0]

    def synthesise(self, codes: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """D codes, ``(b, c, *shape)``, with gradients for atoms and codes."""
        return self._with(self.weight).synthesise(codes, shape)

    def unrolled(self, y: Tensor, weight: Tensor, lam: Tensor, steps: int, tol: float = 0.0) -> tuple[Tensor, int]:
        """Codes after some steps, fewer where they change by no more than ``tol``, relative; and how many were made."""
        D = self._with(weight)
        step = 1 / lipschitz_bound(D)
        level = (lam if self.nonnegative else lam.clamp_min(0)).reshape(-1, *(1,) * (y.ndim - 2)) * step
        x, v, t = self._shrunk(step * D.analyse(y), level), None, 1.0
        v = x
        for made in range(1, steps):
            new = self._shrunk(v + step * D.analyse(y - D.synthesise(v, y.shape[2:])), level)
            if tol:
                if bool(((v - new) * (new - x)).sum() > 0):  # the momentum points uphill (O'Donoghue & Candès 2015)
                    t = 1.0
                if bool((new - x).norm() <= tol * new.norm()) and made > 1:
                    return new, made + 1
            following = (1 + (1 + 4 * t * t) ** 0.5) / 2
            v = new + ((t - 1) / following) * (new - x)
            x, t = new, following
        return x, steps

    def extra_repr(self) -> str:
        """The settings, in the printed network."""
        k, c, *size = self.weight.shape
        how = f"implicit, tol={self.tol:g}" if self.implicit else f"steps={self.steps}"
        return f"{c}, {k}, size={tuple(size)}, stride={self.stride}, boundary={self.boundary}, {how}"

    def _with(self, weight: Tensor) -> ConvDictionary:
        """A dictionary of these atoms that carries their gradients."""
        return ConvDictionary(weight, self.stride, self.boundary)

    def _shrunk(self, x: Tensor, level: Tensor) -> Tensor:
        if self.nonnegative:
            return (x - level).clamp_min(0)
        return x - x.clamp(-level, level)


class _Solution(torch.autograd.Function):
    """The solved code; its gradient by the implicit function theorem on the active coefficients."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, lam: Tensor, layer: CSCLayer) -> Tensor:
        x, _ = layer.unrolled(y, weight, lam, layer.steps, layer.tol)
        ctx.layer = layer
        ctx.save_for_backward(y, weight, lam, x)
        return x

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """With A the active set and u = (D_A* D_A)⁻¹ g: the gradient of ⟨D u, y - D x⟩ - Σ lam ⟨u, sign x⟩ at fixed u, x."""
        y, weight, lam, x = ctx.saved_tensors
        layer: CSCLayer = ctx.layer
        u = _solved(layer._with(weight), x, outputs[0], y.shape[2:], layer.tol, layer.steps)
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_() for t in (y, weight, lam)]
            D = layer._with(inputs[1])
            value = (D.synthesise(u, y.shape[2:]) * (inputs[0] - D.synthesise(x, y.shape[2:]))).sum()
            level = inputs[2] if layer.nonnegative else inputs[2].clamp_min(0)
            value = value - (level * (u * x.sign()).transpose(0, 1).flatten(1).sum(1)).sum()
            gradients = torch.autograd.grad(value, inputs)
        return *(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad)), None


def _solved(D: ConvDictionary, x: Tensor, g: Tensor, shape: Sequence[int], tol: float, steps: int) -> Tensor:
    """(D_A* D_A)⁻¹ g_A by conjugate gradients, every signal with its own step, A where x is not 0.

    Where columns of A depend on each other the code has no derivative; what lies along such directions is left out.
    """
    active, axes = (x != 0).to(x), tuple(range(1, x.ndim))
    tiny, flat = torch.finfo(g.dtype).tiny, torch.finfo(g.dtype).eps ** 0.75 * lipschitz_bound(D)
    u, r = torch.zeros_like(g), g * active
    p, old = r, (r * r).sum(axes, keepdim=True)
    enough = old * tol * tol
    for _ in range(steps):
        q = D.analyse(D.synthesise(p, shape)) * active
        curvature, length = (p * q).sum(axes, keepdim=True), (p * p).sum(axes, keepdim=True)
        going = (curvature > flat * length) & (old > enough)
        if not bool(going.any()):
            break
        move = torch.where(going, old / curvature.clamp_min(tiny), 0.0)
        u, r = u + move * p, r - move * q
        new = (r * r).sum(axes, keepdim=True)
        p, old = torch.where(going, r + new / old.clamp_min(tiny) * p, 0.0), new
    return u


def lipschitz_bound(D: ConvDictionary) -> Tensor:
    """A number, with gradients for the atoms, that the largest eigenvalue of D* D does not exceed on signals of any shape.

    The spectral norm of the aliased spectra is looked at on a grid of ``GRID`` frequencies for every place an atom
    reaches. As trigonometric polynomials of degree q an axis they are nowhere larger than the largest value on the grid over
    cos(π / GRID) an axis (Ehlich & Zeller, Math. Z. 1964); in practice that is 1.2 times too much in two dimensions.
    """
    reach = [max(1, (n - 1) // D.stride) for n in D.size]
    period = [max(GRID * q, -(-n // D.stride)) * D.stride for q, n in zip(reach, D.size)]
    B = aliased(torch.fft.fftn(D.atoms, s=period, dim=D.axes), D.stride)
    small = B @ B.mH if B.shape[1] <= B.shape[2] else B.mH @ B
    largest = torch.linalg.eigvalsh(small)[:, -1].max()
    return largest / D.stride ** len(period) / cos(pi / GRID) ** len(period)
