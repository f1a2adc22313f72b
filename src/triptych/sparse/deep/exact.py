"""Multi-layer basis pursuit solved exactly, by primal-dual iterations with a dual point of their own.

With K g = (D^(L) g, D_2..L g, ..., D_L g), loss ½ ‖z_0 - y‖² + Σ λ_i ‖z_i‖₁ and term λ_L ‖g‖₁, one iteration T is

    g⁺ = prox(g - τ K* p),    p⁺ = prox*(p + σ K (2 g⁺ - g))          Chambolle & Pock, J. Math. Imaging Vis. 2011

Plain, these are slow: the parts of K are of very different norms. Here every part has a step σ_i of its own, and of the
reflections 2 T(w) - w of w = (g, p) an average with the point of the last restart is taken, the point counting less and less
(Halpern); a restart is due when ‖w - T(w)‖ has fallen by a factor (Lu & Yang, 2024: restarted Halpern primal-dual iterations).
"""

from collections.abc import Generator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from triptych.convex import Iterate, Problem, Solver, inner, per_problem
from triptych.sparse.deep.coding import Cascade, LayerLoss, MultiLayerCoding, Table

POWER = 60  # iterations of the power method for a norm
SAFE = 1.02  # times what they find
SHARE = 0.5  # of the ratio of lengths: larger favours the code, smaller its bound
ENOUGH, LITTLE, LONG = 0.2, 0.8, 0.36  # when to restart: see `_due`


def primal_dual(coding: MultiLayerCoding, plain: bool = False, theta: Tensor | None = None) -> Solver:
    """Iterates that come to the minimiser, each with a dual point that comes to the dual's.

    ``plain``: the iteration of Chambolle & Pock with one step for all parts, neither averages nor restarts. ``theta``: the
    dual point to start from, as ML-ISTA gives one; None: 0.
    """
    if plain:
        return lambda problem, start: _plain(coding, start)
    return lambda problem, start: _restarted(coding, start, theta)


def _plain(coding: MultiLayerCoding, g: Tensor) -> Generator[Iterate, Tensor | None, None]:
    """σ = τ = 1 / ‖K‖."""
    K = coding.map
    norm = SAFE * (operator_norm(K, g[:1], (1.0,) * len(K.sizes)) or 1.0)
    size = g.new_full((1,), 1 / norm)
    p, problem = g.new_zeros(len(g), sum(K.sizes)), coding.problem()
    while True:
        g, p = _iteration(problem, g, p, size, size[:, None].expand(-1, len(K.sizes)))
        mask = yield Iterate(g, theta=p)
        if mask is not None:
            problem, g, p = problem.take(mask), g[mask], p[mask]


@dataclass(frozen=True, eq=False)
class _Walk:
    """Of every problem: where it is, where it last restarted, how far it was from a fixed point there and a step ago, steps
    since the restart and in all, and the ratio ω of dual to primal steps.
    """

    g: Tensor
    p: Tensor
    g0: Tensor
    p0: Tensor
    first: Tensor
    last: Tensor
    since: Tensor
    total: Tensor
    omega: Tensor

    def take(self, mask: Tensor) -> "_Walk":
        return _Walk(*(getattr(self, f.name)[mask] for f in fields(self)))


def _restarted(coding: MultiLayerCoding, g: Tensor, p: Tensor | None) -> Generator[Iterate, Tensor | None, None]:
    """The averaged and restarted iteration; its steps are τ / ω and σ_i ω."""
    K, problem, parts = coding.map, coding.problem(), range(len(coding.map.sizes))
    norms = [operator_norm(K, g[:1], tuple(float(i == j) for j in parts)) for i in parts]
    scales = tuple(1 / (norm or 1.0) for norm in norms)  # of every part, so that each has norm 1
    sigma = g.new_tensor(scales).square()[None]
    tau = 1 / (SAFE * (operator_norm(K, g[:1], scales) or 1.0)) ** 2
    ruler = _Ruler(tau, torch.repeat_interleave(sigma, torch.tensor(K.sizes, device=g.device), dim=1))
    p = g.new_zeros(len(g), sum(K.sizes)) if p is None else p.to(g)
    none, count = g.new_full((len(g),), torch.inf), g.new_zeros(len(g))
    walk = _Walk(g, p, g, p, none, none, count, count, ruler.ratio(g, p, torch.ones_like(count)))
    while True:
        walk, iterate = _advance(problem, walk, ruler, sigma)
        mask = yield iterate
        if mask is not None:
            problem, walk = problem.take(mask), walk.take(mask)


@dataclass(frozen=True, eq=False)
class _Ruler:
    """Lengths of steps in g and in p, in units in which K has norm about 1."""

    tau: float
    sigma: Tensor

    def primal(self, g: Tensor) -> Tensor:
        """(b,)."""
        return (inner(g, g) / self.tau).sqrt()

    def dual(self, p: Tensor) -> Tensor:
        """(b,)."""
        return (p.square() / self.sigma).sum(1).sqrt()

    def ratio(self, g: Tensor, p: Tensor, otherwise: Tensor) -> Tensor:
        """ω, a share of the length of p over that of g, where both are above 0."""
        primal, dual = self.primal(g), self.dual(p)
        usable = (primal > 1e-12) & (dual > 1e-12)
        return torch.where(usable, SHARE * dual / primal.clamp_min(1e-30), otherwise).clamp(1e-4, 1e4)


def _advance(problem: Problem, walk: _Walk, ruler: _Ruler, sigma: Tensor) -> tuple[_Walk, Iterate]:
    """One iteration, one average, and a restart where it is due."""
    g, p = _iteration(problem, walk.g, walk.p, ruler.tau / walk.omega, sigma * walk.omega[:, None])
    dg, dp = ruler.primal(g - walk.g), ruler.dual(p - walk.p)
    length = (walk.omega * dg.square() + dp.square() / walk.omega).sqrt()
    first = torch.where(walk.since == 0, length, walk.first)
    due = _due(length, first, walk.last, walk.since, walk.total) & (walk.since > 0)
    drawn = ruler.ratio(g, p, walk.omega)
    share = (walk.since + 1) / (walk.since + 2)
    new = _Walk(
        _where(due, g, _mixed(share, 2 * g - walk.g, walk.g0)),
        _where(due, p, _mixed(share, 2 * p - walk.p, walk.p0)),
        _where(due, g, walk.g0),
        _where(due, p, walk.p0),
        first,
        torch.where(due, torch.inf, length),
        torch.where(due, 0.0, walk.since + 1),
        walk.total + 1,
        torch.where(due, (walk.omega * drawn).sqrt(), walk.omega),
    )
    return new, Iterate(g, theta=p)


def _mixed(share: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """share · a + (1 - share) · b, problem by problem."""
    return b + per_problem(share, a) * (a - b)


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a for the problems of a mask (b,), b for the others."""
    return torch.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b)


def _due(length: Tensor, first: Tensor, last: Tensor, since: Tensor, total: Tensor) -> Tensor:
    """Whether to restart: much nearer to a fixed point; somewhat nearer, and going away again; or after long."""
    near = length <= ENOUGH * first
    turning = (length <= LITTLE * first) & (length > last)
    return near | turning | (since >= LONG * total)


def _iteration(problem: Problem, g: Tensor, p: Tensor, tau: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """T(g, p) with steps τ (b or 1,) and σ (b or 1, parts)."""
    loss, K = problem.loss, problem.map
    assert isinstance(loss, LayerLoss)
    assert isinstance(K, Cascade | Table)
    new = problem.term.prox(g - per_problem(tau, g) * K.adjoint(p), tau)
    z = K.forward(2 * new - g)
    steps = torch.cat([sigma[:, i : i + 1].expand(-1, n) for i, n in enumerate(K.sizes)], 1)
    return new, loss.dual_prox(p + steps * z, sigma)


def operator_norm(K: Cascade | Table, like: Tensor, scales: tuple[float, ...]) -> float:
    """‖(s_0 K_0, s_1 K_1, ...)‖ by the power method from a fixed start, in float64."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(like.shape, generator=rng, dtype=torch.float64).to(like.device)
    squares = torch.repeat_interleave(
        torch.tensor(scales, dtype=torch.float64, device=like.device) ** 2, torch.tensor(K.sizes, device=like.device)
    )
    norm = 0.0
    for _ in range(POWER):
        x = K.adjoint(squares * K.forward(x))
        norm = float(x.norm())
        if not norm:
            return 0.0
        x = x / norm
    return norm**0.5
