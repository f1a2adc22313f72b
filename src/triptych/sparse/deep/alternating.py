"""Multi-layer basis pursuit by alternating directions, and dual points mended until they bound well.

With copies z_i = D_{i+1} ... D_L g and w = g, one iteration is a least squares for g, whose matrix has a factor that serves all
signals, and shrinkage of the copies (Boyd, Parikh, Chu, Peleato & Eckstein, 2011, sections 3.4 and 5). For deepest codes of up to
some thousand coefficients it needs a tenth of the iterations of primal-dual methods.

A dual point θ = (θ_0, q_1, ..., q_{L-1}) bounds only where -K* θ <= λ_L (in magnitude, where g has signs). Scaling it until that holds pays for the
worst coefficient with all of θ; here θ_0 moves by the shortest step that takes off what is too much, coefficient by coefficient, and
only the rest is scaled away. That costs little where the codes that are too much are 0.
"""

from collections.abc import Generator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from triptych.check import InputError
from triptych.convex import Certificate, Certifier, Iterate, Problem, Solver, certify, per_problem
from triptych.sparse.deep.coding import Cascade, LayerLoss, MultiLayerCoding, Table
from triptych.sparse.dictionary import ConvDictionary

RELAXED = 1.6  # how much of a step of the copies is taken
BALANCED = (10, 20, 40, 60, 80, 120, 160, 240, 320)  # iterations after which penalties are set anew
MOST = 5.0  # times that a penalty may change at once
ROUNDS, RIDGE, CG = 4, 1e-3, 20  # of mending a dual point


def alternating(coding: MultiLayerCoding) -> Solver:
    """Iterates of the method, each with a dual point; from the codes of the start.

    Raises InputError where the deepest code has too many coefficients for a matrix.
    """
    if not isinstance(coding.map, Table):
        raise InputError(
            f"alternating directions need deepest codes of few coefficients, got {coding.start()[0].numel()}; use primal-dual"
        )
    return lambda problem, start: _alternating(coding, start)


@dataclass(frozen=True, eq=False)
class _Copies:
    """Of every problem z_1, ..., z_{L-1} and w side by side, (b, numbers), and their scaled multipliers."""

    z: Tensor
    u: Tensor

    def take(self, mask: Tensor) -> "_Copies":
        return _Copies(*(getattr(self, f.name)[mask] for f in fields(self)))


def _alternating(coding: MultiLayerCoding, start: Tensor) -> Generator[Iterate, Tensor | None, None]:
    """The stream, in float64."""
    K = coding.map
    assert isinstance(K, Table)
    n = start[0].numel()
    device = K.matrix.device
    M0 = K.matrix[: K.sizes[0]]
    rest = torch.cat([K.matrix[K.sizes[0] :], torch.eye(n, dtype=torch.float64, device=device)])
    sizes = (*K.sizes[1:], n)
    gram = torch.stack([M0.T @ M0, *(part.T @ part for part in rest.split(sizes))])
    r = torch.tensor(_penalties(coding), dtype=torch.float64, device=device)
    inverse = _inverse(gram, r)
    y = coding.signals.flatten(1).double()
    b = y @ M0
    z = start.flatten(1).double() @ rest.T
    copies, k = _Copies(z, torch.zeros_like(z)), 0
    while True:
        k += 1
        each = torch.repeat_interleave(r, torch.tensor(sizes, device=r.device))
        g = (b + ((copies.z - copies.u) * each) @ rest) @ inverse
        a = g @ rest.T
        over = RELAXED * a + (1 - RELAXED) * copies.z + copies.u
        z = _shrunk(coding, over, r, sizes)
        u = over - z
        w = z[:, -n:]
        theta = torch.cat([g @ M0.T - y, (u * each)[:, :-n]], 1)
        iterate = Iterate(w.reshape(len(w), *start.shape[1:]), theta=_boxed(coding, theta, K.sizes))
        if k in BALANCED:
            factor = _balance(a, z, copies.z, u, sizes)
            r, u = r * factor, u / torch.repeat_interleave(factor, torch.tensor(sizes, device=r.device))
            inverse = _inverse(gram, r)
        copies = _Copies(z, u)
        mask = yield iterate
        if mask is not None:
            coding, copies, y, b = coding.take(mask), copies.take(mask), y[mask], b[mask]


def _penalties(coding: MultiLayerCoding) -> list[float]:
    """The first ones: mean ‖atom‖² of D^(1), ..., D^(L), so that the units of a layer do not matter."""
    found = []
    for i in range(1, len(coding.model) + 1):
        D: ConvDictionary = coding.model.effective(i)
        found.append(max(float(D.norms.double().square().mean()), 1e-12))
    return found


def _inverse(gram: Tensor, r: Tensor) -> Tensor:
    """(K_0* K_0 + Σ r_i K_i* K_i + r_L)⁻¹."""
    total = gram[0] + (r[:, None, None] * gram[1:]).sum(0)
    return torch.cholesky_inverse(torch.linalg.cholesky(total))


def _shrunk(coding: MultiLayerCoding, x: Tensor, r: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Every copy shrunk by λ_i / r_i."""
    found, last = [], len(sizes) - 1
    for i, (part, lam) in enumerate(zip(x.split(sizes, 1), coding.lam())):
        level = lam.to(x)[:, None] / r[i]
        found.append(
            (part - level).clamp_min(0) if i == last and coding.nonnegative else part - part.clamp(-level, level)
        )
    return torch.cat(found, 1)


def _balance(a: Tensor, z: Tensor, before: Tensor, u: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """What to multiply each penalty by: the root of the ratio of relative primal to dual residuals, over all problems."""
    found = []
    for a_i, z_i, old, u_i in zip(a.split(sizes, 1), z.split(sizes, 1), before.split(sizes, 1), u.split(sizes, 1)):
        primal = (a_i - z_i).norm() / torch.maximum(a_i.norm(), z_i.norm()).clamp_min(1e-300)
        dual = (z_i - old).norm() / u_i.norm().clamp_min(1e-300)
        usable = bool(primal > 1e-12) and bool(dual > 1e-12)
        found.append((primal / dual).sqrt().clamp(1 / MOST, MOST) if usable else torch.ones_like(primal))
    return torch.stack(found)


def _boxed(coding: MultiLayerCoding, theta: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """A dual point with |q_i| <= λ_i."""
    parts = theta.split(sizes, 1)
    found = [parts[0]]
    for part, lam in zip(parts[1:], coding.lam()):
        level = lam.to(theta)[:, None]
        found.append(part.clamp(-level, level))
    return torch.cat(found, 1)


def certifier(coding: MultiLayerCoding) -> Certifier:
    """Certificates with the better of two bounds: the scaled dual point of the iterate, and the mended one."""
    factor = _factor(coding.map)

    def judge(problem: Problem, iterate: Iterate) -> Certificate:
        found = certify(problem, iterate)
        loss, K = problem.loss, problem.map
        assert isinstance(loss, LayerLoss)
        assert isinstance(K, Cascade | Table)
        theta = loss.grad(K.forward(found.x)) if iterate.theta is None else iterate.theta.double()
        mended = _mended(problem, theta, factor)
        other = certify(problem, Iterate(found.x, theta=mended))
        return Certificate(found.x, found.objective, torch.fmax(found.lower_bound, other.lower_bound))

    return judge


def _factor(K: Cascade | Table) -> Tensor | None:
    """A Cholesky factor of K_0* K_0 and a little, of maps that are a matrix."""
    if not isinstance(K, Table):
        return None
    M0 = K.matrix[: K.sizes[0]]
    gram = M0.T @ M0
    return torch.linalg.cholesky(
        gram
        + RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    )


def _mended(problem: Problem, theta: Tensor, factor: Tensor | None) -> Tensor:
    """θ with θ_0 moved by K_0 (K_0* K_0 + a little)⁻¹ of what -K* θ is too large by, some times."""
    K = problem.map
    assert isinstance(K, Cascade | Table)
    rest = sum(K.sizes[1:])
    for _ in range(ROUNDS):
        over = _over(problem, -K.adjoint(theta))
        if not bool(over.any()):
            break
        move = _solved(K, over, factor)
        step = K.forward(move)[:, : K.sizes[0]]
        theta = theta + torch.cat([step, step.new_zeros(len(step), rest)], 1)
    return theta


def _over(problem: Problem, u: Tensor) -> Tensor:
    """What of u is outside the domain of the term's conjugate: prox of step 1 is u less its projection onto it."""
    return problem.term.prox(u, 1.0)


def _solved(K: Cascade | Table, e: Tensor, factor: Tensor | None) -> Tensor:
    """(K_0* K_0 + a little)⁻¹ e, by the factor or by conjugate gradients."""
    if factor is not None:
        return torch.cholesky_solve(e.flatten(1).T, factor).T.reshape(e.shape)
    rest = sum(K.sizes[1:])

    def normal(x: Tensor) -> Tensor:
        z = K.forward(x)
        return K.adjoint(torch.cat([z[:, : K.sizes[0]], z.new_zeros(len(z), rest)], 1)) + RIDGE * x

    x, r = torch.zeros_like(e), e
    p, old = r, r.flatten(1).square().sum(1)
    for _ in range(CG):
        q = normal(p)
        step = old / (p * q).flatten(1).sum(1).clamp_min(1e-300)
        x, r = x + per_problem(step, x) * p, r - per_problem(step, x) * q
        new = r.flatten(1).square().sum(1)
        p, old = r + per_problem(new / old.clamp_min(1e-300), r) * p, new
    return x
