"""`CSCLayer`: sparse coding as a layer of a network, unrolled or solved, with gradients for atoms and thresholds."""

import warnings
from collections.abc import Sequence
from math import cos, pi, prod
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from triptych.check import InputError, choice, real, whole, wrong
from triptych.sparse.dictionary import BOUNDARIES, ConvDictionary, aliased
from triptych.sparse.fold import fold, padded

UNROLLED, SOLVED = 10, 1000  # steps by default
GRID = 8  # frequencies of the code on which a spectrum is looked at, for each place that an atom reaches


class CSCLayer(nn.Module):
    """Codes of signals in a learnt dictionary: steps towards, or all the way to, argmin ½ ‖y - D x‖² + Σ_k lam_k ‖x_k‖₁.

    Parameters
    ----------
    channels, n_atoms : c and k.
    size : samples of an atom on every axis; one number or a tuple of one (lines) or two (pictures).
    stride, boundary : see `ConvDictionary`.
    steps : accelerated proximal steps from 0, 10 by default. One step is a convolution, a bias and a ReLU, times a step size.
    implicit : go on until nothing changes by more than ``tol`` (at most ``steps`` steps, by default 1,000), without a tape, and
        differentiate the solution itself: memory does not grow with the steps. Where the steps do not suffice, or those of
        the gradient's linear system, a ConvergenceWarning says so. Second derivatives raise an error.
    nonnegative : whether x >= 0. ``lam`` may then also be below 0: minus the bias of a convolution.
    lam : the first value of every atom's weight.
    tol : relative, of ``implicit``.
    ndim : 1 for lines, 2 for pictures, where ``size`` is one number.
    padding : zeros put around signals on every axis, as a convolution does; one number or a tuple. They are coded with them.

    Shapes: ``(b, c, *shape)`` -> ``(b, k, *code_shape)``. Parameters: ``weight (k, c, *size)``, ``lam (k,)``. Any floating-point
    type, autocast too; step sizes and solutions are computed in float32 at least. Raises InputError for wrong values.
    Unrolled: Gregor & LeCun, ICML 2010; convolutional: Sreter & Giryes, ICASSP 2018. Implicit: Mairal, Bach & Ponce, IEEE
    TPAMI 2012, Proposition 1.
    """

    def __init__(
        self,
        channels: int,
        n_atoms: int,
        size: int | Sequence[int],
        *,
        stride: int = 1,
        boundary: str = "valid",
        steps: int | None = None,
        implicit: bool = False,
        nonnegative: bool = True,
        lam: float = 0.1,
        tol: float = 1e-6,
        ndim: int = 2,
        padding: int | Sequence[int] = 0,
    ) -> None:
        super().__init__()
        sizes = (whole("size", size),) * whole("ndim", ndim, high=2) if isinstance(size, int) else tuple(size)
        if len(sizes) not in (1, 2):
            raise wrong("size", "a whole number, or a tuple of one or two", size)
        shape = (whole("n_atoms", n_atoms), whole("channels", channels), *(whole("size", n) for n in sizes))
        self.stride, self.boundary = whole("stride", stride), choice("boundary", boundary, BOUNDARIES)
        self.implicit, self.nonnegative = bool(implicit), bool(nonnegative)
        self.steps = (SOLVED if implicit else UNROLLED) if steps is None else whole("steps", steps)
        self.tol = real("tol", tol, above=0.0)
        around = (padding,) * len(sizes) if isinstance(padding, int) else tuple(padding)
        if len(around) != len(sizes):
            raise wrong("padding", f"a whole number, or a tuple of {len(sizes)}", padding)
        self.padding = tuple(whole("padding", p, low=0) for p in around)
        self.weight = nn.Parameter(torch.randn(shape) / prod(shape[1:]) ** 0.5)
        self.lam = nn.Parameter(torch.full((shape[0],), real("lam", lam, low=0.0)))

    @classmethod
    def from_conv(cls, conv: nn.Conv1d | nn.Conv2d, batchnorm: nn.Module | None = None, **options: Any) -> "CSCLayer":
        """The layer whose first step is ReLU(batchnorm(conv(y))), times a step size; ``options`` as of the class.

        Codes are not negative, lam is minus the bias, of either sign, and the padding is the convolution's. Raises
        InputError as `fold` does.
        """
        folded = fold(conv, batchnorm)  # pyright: ignore[reportArgumentType]
        D = folded.dictionary
        fixed: dict[str, Any] = {"stride": D.stride, "boundary": D.boundary, "padding": folded.padding}
        for name in fixed.keys() & options.keys():
            raise InputError(f"{name} is the convolution's; leave it away")
        layer = cls(D.channels, D.n_atoms, D.size, **fixed, **options)
        if not layer.nonnegative:
            raise InputError("a convolution and its ReLU are codes that are not negative; leave nonnegative=True")
        with torch.no_grad():
            layer.weight.copy_(D.atoms)
            layer.lam.copy_(-folded.bias)
        return layer.to(D.atoms)

    @property
    def dictionary(self) -> ConvDictionary:
        """The atoms as they are now, without gradients."""
        return ConvDictionary(self.weight.detach().clone(), self.stride, self.boundary)

    def forward(self, y: Tensor) -> Tensor:
        """Codes ``(b, k, *code_shape)`` of signals ``(b, c, *shape)``."""
        y = padded(y, self.padding) if any(self.padding) else y
        if self.implicit:
            held = self.weight.dtype
            enough = torch.promote_types(held, torch.float32)  # the last steps are smaller than halves can tell
            with torch.autocast(y.device.type, enabled=False):
                return _Solution.apply(*(t.to(enough) for t in (y, self.weight, self.lam)), self).to(held)  # pyright: ignore
        return self.unrolled(y, self.weight, self.lam, self.steps)[0]

    def synthesise(self, codes: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """D codes, ``(b, c, *shape)``, with gradients for atoms and codes; what falls on the padding is cut off."""
        if shape is not None and len(shape) == len(self.padding):
            shape = tuple(n + 2 * p for n, p in zip(shape, self.padding))
        full = self._with(self.weight).synthesise(codes, shape)
        return full[..., *(slice(p, n - p) for p, n in zip(self.padding, full.shape[2:]))]

    def unrolled(self, y: Tensor, weight: Tensor, lam: Tensor, steps: int, tol: float = 0.0) -> tuple[Tensor, bool]:
        """Codes after some steps, fewer where they change by at most ``tol``, relative; and whether they came to that."""
        D = self._with(weight)
        step = (1 / lipschitz_bound(D)).to(weight.dtype)
        level = (lam if self.nonnegative else lam.clamp_min(0)).reshape(-1, *(1,) * (y.ndim - 2)) * step
        x, v, t = self._shrunk(step * D.analyse(y), level), None, 1.0
        v = x
        for made in range(1, steps):
            new = self._shrunk(v + step * D.analyse(y - D.synthesise(v, y.shape[2:])), level)
            if tol:
                if bool(((v - new) * (new - x)).sum() > 0):  # the momentum points uphill (O'Donoghue & Candès 2015)
                    t = 1.0
                if bool((new - x).norm() <= tol * new.norm()) and made > 1:
                    return new, True
            following = (1 + (1 + 4 * t * t) ** 0.5) / 2
            v = new + ((t - 1) / following) * (new - x)
            x, t = new, following
        return x, False

    def extra_repr(self) -> str:
        """The settings, in the printed network."""
        k, c, *size = self.weight.shape
        around = f", padding={self.padding}" if any(self.padding) else ""
        how = f"implicit, tol={self.tol:g}" if self.implicit else f"steps={self.steps}"
        return f"{c}, {k}, size={tuple(size)}, stride={self.stride}, boundary={self.boundary}, {how}{around}"

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
        x, settled = layer.unrolled(y, weight, lam, layer.steps, layer.tol)
        if not settled:
            _unsettled(f"codes have not settled to tol={layer.tol:g} in {layer.steps} steps")
        ctx.layer = layer
        ctx.save_for_backward(y, weight, lam, x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """With A the active set and u = (D_A* D_A)⁻¹ g: the gradient of ⟨D u, y - D x⟩ - Σ lam ⟨u, sign x⟩ at fixed u, x."""
        y, weight, lam, x = ctx.saved_tensors
        layer: CSCLayer = ctx.layer
        u, settled = _solved(layer._with(weight), x, outputs[0], y.shape[2:], layer.tol, layer.steps)
        if not settled:
            _unsettled(f"gradients have not settled to tol={layer.tol:g} in {layer.steps} steps")
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_() for t in (y, weight, lam)]
            D = layer._with(inputs[1])
            value = (D.synthesise(u, y.shape[2:]) * (inputs[0] - D.synthesise(x, y.shape[2:]))).sum()
            level = inputs[2] if layer.nonnegative else inputs[2].clamp_min(0)
            value = value - (level * (u * x.sign()).transpose(0, 1).flatten(1).sum(1)).sum()
            gradients = torch.autograd.grad(value, inputs)
        return *(g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad)), None


def _solved(
    D: ConvDictionary, x: Tensor, g: Tensor, shape: Sequence[int], tol: float, steps: int
) -> tuple[Tensor, bool]:
    """(D_A* D_A)⁻¹ g_A by conjugate gradients, every signal with its own step, A where x is not 0; and whether they settled.

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
            return u, True
        move = torch.where(going, old / curvature.clamp_min(tiny), 0.0)
        u, r = u + move * p, r - move * q
        new = (r * r).sum(axes, keepdim=True)
        p, old = torch.where(going, r + new / old.clamp_min(tiny) * p, 0.0), new
    return u, False


def _unsettled(what: str) -> None:
    warnings.warn(f"CSCLayer: {what}; give more steps, a larger tol or a larger lam", ConvergenceWarning, stacklevel=2)


def lipschitz_bound(D: ConvDictionary) -> Tensor:
    """A number, with gradients for the atoms, that the largest eigenvalue of D* D does not exceed on signals of any shape.

    The spectral norm of the aliased spectra is looked at on a grid of ``GRID`` frequencies for every place an atom
    reaches. As trigonometric polynomials of degree q an axis they are nowhere larger than the largest value on the grid over
    cos(π / GRID) an axis (Ehlich & Zeller, Math. Z. 1964); in practice that is 1.2 times too much in two dimensions.
    """
    reach = [max(1, (n - 1) // D.stride) for n in D.size]
    period = [max(GRID * q, -(-n // D.stride)) * D.stride for q, n in zip(reach, D.size)]
    atoms = D.atoms.to(torch.promote_types(D.atoms.dtype, torch.float32))
    B = aliased(torch.fft.fftn(atoms, s=period, dim=D.axes), D.stride)
    small = B @ B.mH if B.shape[1] <= B.shape[2] else B.mH @ B
    largest = torch.linalg.eigvalsh(small)[:, -1].max()
    return largest / D.stride ** len(period) / cos(pi / GRID) ** len(period)
