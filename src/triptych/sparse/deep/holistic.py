"""Holistic pursuit: the deepest code of two layers, found by turns from its own few non-zeros and from the zeros before it.

Where the middle code G_1 = D_2 g has a zero, g is orthogonal to a row of D_2: every zero found is a linear constraint on g, and
takes away as much noise as an unknown does. So: basis pursuit for g under the constraints found so far; the entry of D_2 g
nearest to 0 becomes a constraint; and so on. Aberdam, Sulam & Elad, SIAM J. Math. Data Sci. 2019.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, real, whole
from triptych.sparse.deep.dictionary import MultiLayerDictionary

LARGEST = 4096  # coefficients of either layer: matrices are dense
STEPS, TOL = 3000, 1e-7  # of the pursuits between two zeros
HALVINGS = 25  # of λ, in search of the one that leaves as much as the noise


@dataclass(frozen=True, eq=False)
class Holistic:
    """Codes (G_1, g) of b signals; the zeros of G_1 that were found, (b, zeros) int64, in its flat places; λ of each, (b,)."""

    codes: tuple[Tensor, Tensor]
    zeros: Tensor
    lam: Tensor


def holistic(model: MultiLayerDictionary, signals: Tensor, zeros: int, noise: float) -> Holistic:
    """Codes of signals ``(b, c, *shape)`` whose middle code has at least so many zeros, found one by one.

    λ is such that ‖y - D_1 D_2 g‖₂ = ``noise``; where that cannot be, it is as small as helps. With ``zeros=0`` it is basis
    pursuit on the effective dictionary. Matrices are dense: both codes must be small. Raises InputError for other models.
    """
    if len(model) != 2:
        raise InputError(f"holistic is for two layers, got {len(model)}; join some by MultiLayerDictionary.effective")
    model.layers[0].expect("signals", signals, model.channels)
    space = tuple(signals.shape[2:])
    shapes = model.code_shapes(space)
    sizes = [k * torch.Size(shape).numel() for k, shape in zip(model.n_atoms, shapes)]
    if max(sizes) > LARGEST:
        raise InputError(
            f"holistic needs codes of at most {LARGEST} coefficients, got {max(sizes)}; take smaller signals"
        )
    zeros, noise = whole("zeros", zeros, low=0, high=sizes[1] - 1), real("noise", noise, low=0.0)
    D2 = model._matrix(2, shapes[0])
    D = model._matrix(1, space) @ D2
    found = [_one(D, D2, y, zeros, noise) for y in signals.double().flatten(1)]
    g = torch.stack([one[0] for one in found])
    taken, middle = torch.stack([one[1] for one in found]), g @ D2.T
    middle = middle.scatter(1, taken, 0.0)  # zeros that were found, without rounding
    codes = (
        middle.reshape(-1, model.n_atoms[0], *shapes[0]).to(signals),
        g.reshape(-1, model.n_atoms[1], *shapes[1]).to(signals),
    )
    return Holistic(codes, taken, torch.tensor([one[2] for one in found], dtype=torch.float64))


def _one(D: Tensor, D2: Tensor, y: Tensor, zeros: int, noise: float) -> tuple[Tensor, Tensor, float]:
    """g, the zeros of D_2 g in the order in which they were found, and λ."""
    taken = torch.zeros(zeros, dtype=torch.int64)
    g, lam = _within(D, y, D2[:0], noise, None)
    for i in range(zeros):
        size = (D2 @ g).abs()
        size[taken[:i]] = torch.inf
        taken[i] = int(size.argmin())
        g, lam = _within(D, y, D2[taken[: i + 1]], noise, lam)
    return g, taken, lam


def _within(D: Tensor, y: Tensor, phi: Tensor, noise: float, guess: float | None) -> tuple[Tensor, float]:
    """Basis pursuit with φ g = 0 and the λ at which the residual is as large as the noise, to 2 %; by bisection of log λ."""
    solver = _Constrained(D, y, phi)
    high = float((D.T @ y).abs().max())
    low = high * 1e-6
    lam = (high * low) ** 0.5 if guess is None else min(max(guess, low), high)
    g, used = torch.zeros_like(solver.b), lam
    for _ in range(HALVINGS):
        g, used = solver.solve(lam), lam
        left = float((y - D @ g).norm())
        if abs(left - noise) <= 0.02 * noise:
            break
        low, high = (low, lam) if left > noise else (lam, high)
        lam = (low * high) ** 0.5
    return g, used


class _Constrained:
    """argmin ½ ‖y - D g‖² + λ ‖g‖₁ with φ g = 0, by alternating directions (Boyd et al. 2011): one factor for all λ."""

    def __init__(self, D: Tensor, y: Tensor, phi: Tensor) -> None:
        k = D.shape[1]
        self.gram, self.phi = D.T @ D, phi
        self.rho = max(float(self.gram.diagonal().mean()), 1e-12)
        self.b = D.T @ y
        inverse = torch.linalg.inv(self.gram + self.rho * torch.eye(k, dtype=D.dtype))
        if len(phi):
            # (A + constraint)⁻¹ on the kernel of φ: A⁻¹ - A⁻¹ φ* (φ A⁻¹ φ*)⁺ φ A⁻¹
            across = inverse @ phi.T
            inverse = inverse - across @ torch.linalg.pinv(phi @ across, hermitian=True) @ across.T
        self.inverse = inverse
        self.z, self.u = torch.zeros_like(self.b), torch.zeros_like(self.b)

    def solve(self, lam: float) -> Tensor:
        """From where the last λ ended; exactly 0 where the shrunk copy is."""
        level = lam / self.rho
        for _ in range(STEPS):
            x = self.inverse @ (self.b + self.rho * (self.z - self.u))
            over = x + self.u
            z = over - over.clamp(-level, level)
            self.u = over - z
            moved, self.z = float((z - self.z).norm()), z
            if max(moved, float((x - z).norm())) <= TOL * max(1e-30, float(z.norm())):
                break
        return self._polished(lam)

    def _polished(self, lam: float) -> Tensor:
        """The minimiser with the support and the signs found: G_S g_S + φ_S* ν = b_S - λ sign, φ_S g_S = 0."""
        on = self.z != 0
        n, m = int(on.sum()), len(self.phi)
        if not n:
            return torch.zeros_like(self.z)
        phi = self.phi[:, on]
        top = torch.cat([self.gram[on][:, on], phi.T], 1)
        system = torch.cat([top, torch.cat([phi, phi.new_zeros(m, m)], 1)])
        right = torch.cat([self.b[on] - lam * self.z[on].sign(), phi.new_zeros(m)])
        g = torch.zeros_like(self.z)
        g[on] = (torch.linalg.pinv(system, hermitian=True) @ right)[:n]
        return g
