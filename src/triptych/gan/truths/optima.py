"""What the best critic says where the laws of data and of generated images are known, and where that sends the generator."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn.functional import softplus

from triptych.check import Case
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, Scores, scorer
from triptych.gan.objectives import (
    Auxiliary,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
    WassersteinGP,
)
from triptych.gan.truths.small import F64, Slope, critic_loss, normal, solved

P, Q = (4, 3, 1), (1, 3, 4)  # of 8 images, how often each of three kinds is real, and generated
EXACT = "Newton's method in float64 ends at a gradient of 1e-15"


def optimal_critics() -> Iterator[Case]:
    """Laws on three kinds of images, a critic that is free on each: every optimum is a formula in p and q."""
    p, q = F64.new_tensor(P) / 8, F64.new_tensor(Q) / 8
    real, fake = counted(P), counted(Q)
    mixed = (p + q) / 2
    divergence = float(torch.special.xlogy(p, p / mixed).sum() + torch.special.xlogy(q, q / mixed).sum()) / 2
    for objective in (Minimax(), NonSaturating()):
        critic = Slope(F64.new_zeros(3))
        loss, name = solved(critic, objective, real, fake), type(objective).__name__
        yield from compared(f"best critic of {name}: D = log p/q", (p / q).log(), critic.w)
        yield Case(f"best loss of {name}: 2 log 2 - 2 JSD", 2 * math.log(2) - 2 * divergence, loss, 1e-12, EXACT)
    a, b = -1.0, 2.0
    critic = Slope(F64.new_zeros(3))
    loss = solved(critic, LeastSquares(real=b, fake=a), real, fake)
    yield from compared(
        "best critic of LeastSquares to 2 and -1: (2p - q) / (p + q)", (b * p + a * q) / (p + q), critic.w
    )
    yield Case(
        "best loss of LeastSquares to 2 and -1: 9 Σ pq / (p + q)",
        float((b - a) ** 2 * (p * q / (p + q)).sum()),
        loss,
        1e-12,
        EXACT,
    )
    critic = hinged(real, fake)
    loss = critic_loss(critic, Hinge(), real, fake).item()
    yield Case("best loss of Hinge: 2 - Σ|p - q|", float(2 - (p - q).abs().sum()), loss, 1e-5, STEPPED)
    for kind in (0, 2):  # where p = q every D from -1 to 1 is best
        sign = float((p - q)[kind].sign())
        yield Case(f"best critic of Hinge: sign (p - q), kind {kind}", sign, critic.w[kind].item(), 1e-5, STEPPED)
    yield from relativistic(real, fake, (p / q).log())


def relativistic(real: Tensor, fake: Tensor, ratio: Tensor) -> Iterator[Case]:
    """Every real image beside every generated one; and two kinds, for the averaged form, where symmetry leaves one number."""
    critic = Slope(F64.new_zeros(3))
    solved(critic, Relativistic(), real.repeat_interleave(8, 0), fake.repeat(8, 1))
    differences = (critic.w - critic.w[:1])[1:]
    yield from compared("best critic of Relativistic: differences of log p/q", (ratio - ratio[:1])[1:], differences)
    a = 0.75

    def slope(d: float) -> float:
        """The derivative of E s(E D(x̃) - D(x)) by d, half of the critic's loss, where D is d on one kind, -d on the other."""
        return (1 - a) ** 2 * _sigmoid(2 * (1 - a) * d) - a**2 * _sigmoid(-2 * a * d)

    critic = Slope(F64.new_zeros(2))
    solved(critic, Relativistic(averaged=True), counted((3, 1)), counted((1, 3)))
    d = (critic.w @ F64.new_tensor([0.5, -0.5])).item()
    root = root_scalar(slope, bracket=(0, 50), xtol=1e-14).root
    yield Case("best critic of Relativistic, averaged: the root of its one equation", root, d, 1e-12, EXACT)


STEPPED = "the last of 400 falling steps is shorter than 2e-6"


def hinged(real: Tensor, fake: Tensor) -> Slope:
    """The best critic of the hinge loss, by subgradients whose step falls geometrically: it has kinks at its optimum."""
    critic = Slope(F64.new_zeros(3))
    for step in range(400):
        (gradient,) = torch.autograd.grad(critic_loss(critic, Hinge(), real, fake), critic.w)
        with torch.no_grad():
            critic.w.sub_(2 * 0.966**step * gradient)
    return critic


def gaussians(n: int = 65_536) -> Iterator[Case]:
    """N(0, I) and N(m, I) on the line and in five dimensions (Goodfellow et al., NeurIPS 2014, Proposition 1: D = p / (p + q))."""
    yield from logistic("1.5 apart", (1.5,), n)
    yield from logistic("in five dimensions", (0.6, -0.4, 0.3, 0.1, 0.2), n)


def logistic(where: str, m: tuple[float, ...], n: int) -> Iterator[Case]:
    """The best logit is -m · x + ‖m‖²/2, the best loss 2 log 2 - 2 JSD."""
    shift = F64.new_tensor(m)
    real, fake = normal("gaussians", n, len(m)), normal("others", n, len(m)) + shift
    real, fake = (torch.cat([x, torch.ones_like(x[:, :1])], 1) for x in (real, fake))
    critic = Slope(F64.new_zeros(len(m) + 1))
    loss = solved(critic, NonSaturating(), real, fake)
    w = critic.w.detach()
    theory = torch.cat([-shift, shift.square().sum()[None] / 2]).tolist()
    names = [*("slope" if len(m) == 1 else f"slope {k}" for k in range(1, len(m) + 1)), "offset"]
    why = f"4 standard errors of logistic regression on {n} + {n} points (the sandwich of its scores)"
    for name, one, other, error in zip(names, theory, w.tolist(), _standard_errors(w, real, fake).tolist()):
        yield Case(f"logit of two Gaussians {where}, {name}", one, other, 4 * error, why)
    losses = [softplus(-real @ w), softplus(fake @ w)]
    error = sum(x.var().item() / n for x in losses) ** 0.5
    why = f"4 standard errors of the mean loss on {n} + {n} points"
    name = f"best loss of two Gaussians {where}: 2 log 2 - 2 JSD"
    yield Case(name, _best_loss(float(shift.norm())), loss, 4 * error, why)


def _best_loss(distance: float) -> float:
    """2 log 2 - 2 JSD of two standard Gaussians so far apart, by quadrature along the line through their means."""
    x, step = np.linspace(-12, 12 + distance, 20_001, retstep=True)
    p, q = norm.pdf(x), norm.pdf(x, distance)
    return float((p * np.log1p(q / p) + q * np.log1p(p / q)).sum() * step)


def _standard_errors(w: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """H⁻¹ S H⁻¹ / n: H the Hessian of the loss, S the covariance of the scores of both samples."""
    scores = [-(1 - (real @ w).sigmoid())[:, None] * real, (fake @ w).sigmoid()[:, None] * fake]
    hessian = torch.stack(
        [x.T @ ((x @ w).sigmoid() * (1 - (x @ w).sigmoid()) / len(x))[:, None].mul(x) for x in (real, fake)]
    )
    inverse = torch.linalg.inv(hessian.sum(0))
    return (inverse @ (scores[0].T.cov() + scores[1].T.cov()) @ inverse / len(real)).diagonal().sqrt()


def generators() -> Iterator[Case]:
    """The derivative of each generator's loss by the critic's value of one generated image, at log 3 beside a real one at 0."""
    known = {
        "Minimax: -σ(D)": (Minimax(), -3 / 4),
        "NonSaturating: -σ(-D)": (NonSaturating(), -1 / 4),
        "LeastSquares to 2: 2 (D - 2)": (LeastSquares(generator=2), 2 * (math.log(3) - 2)),
        "Wasserstein: -1": (Wasserstein(), -1.0),
        "WassersteinGP: -1": (WassersteinGP(), -1.0),
        "Hinge: -1": (Hinge(), -1.0),
        "Relativistic: -σ(D(x) - D)": (Relativistic(), -1 / 4),
        "Relativistic, averaged: twice that": (Relativistic(averaged=True), -1 / 2),
    }
    critic = scorer(Slope(F64.new_ones(1)))
    for name, (objective, theory) in known.items():
        x = F64.new_full((1, 1), math.log(3)).requires_grad_()
        objective.generator_loss(critic, Batch(x), Batch(F64.new_zeros(1, 1))).total.backward()
        measured = math.nan if x.grad is None else x.grad.item()
        yield Case(f"pull on the generator, {name}", theory, measured, 1e-14, "float64 rounding")


class Told(nn.Module):
    """A critic whose class head says log 1, log 2, log 3, log 4 whatever the image."""

    def forward(self, x: Tensor, labels: Tensor) -> Scores:
        """Values 0 and the logits."""
        logits = torch.arange(1, 5, device=x.device, dtype=x.dtype).log()
        return Scores(x.flatten(1).sum(1) * 0, logits.expand(len(labels), -1))


def classes() -> Iterator[Case]:
    """The cross-entropy of a class head that gives class k the probability (k + 1) / 10."""
    objective, critic = Auxiliary(NonSaturating(), critic_weight=0.5, generator_weight=0.25), scorer(Told())
    real = Batch(F64.new_zeros(3, 2), torch.tensor([0, 1, 3]))
    fake = Batch(F64.new_zeros(3, 2), torch.tensor([2, 2, 2]))
    told = -(math.log(0.1) + math.log(0.2) + math.log(0.4)) / 3
    draw = Draw(0, 0, 0, 3)
    both = Auxiliary(NonSaturating(), critic_weight=0.5, on_fake=True)
    log2, why = math.log(2), "float64 rounding"
    losses = {
        "Auxiliary, critic: 2 log 2 + E H / 2 on real": (
            2 * log2 + told / 2,
            objective.critic_loss(critic, real, fake, draw),
        ),
        "Auxiliary, critic, on both: 2 log 2 + (E H + E H) / 2": (
            2 * log2 + (told - math.log(0.3)) / 2,
            both.critic_loss(critic, real, fake, draw),
        ),
        "Auxiliary, generator: log 2 + E H / 4 on generated": (
            log2 - math.log(0.3) / 4,
            objective.generator_loss(critic, fake, real),
        ),
    }
    for name, (theory, loss) in losses.items():
        yield Case(name, theory, loss.total.item(), 1e-14, why)


def counted(counts: tuple[int, ...]) -> Tensor:
    """One-hot images, as many of each kind as the counts say."""
    kinds = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return torch.eye(len(counts), dtype=torch.float64)[kinds]


def compared(name: str, theory: Tensor, measured: Tensor) -> Iterator[Case]:
    """A case for each kind of image."""
    for k, (one, other) in enumerate(zip(theory.tolist(), measured.tolist())):
        yield Case(f"{name}, kind {k}", one, other, 1e-12, EXACT)


def _sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))
