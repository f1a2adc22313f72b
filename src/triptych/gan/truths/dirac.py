"""The Dirac GAN (Mescheder et al., ICML 2018, section 2): data at 0, a generator that is a point θ, a critic D(x) = ψ x.

Every game of this package that is smooth at the equilibrium (0, 0) turns around it; only a penalty on the gradient at the
data (R1), or at what is generated (R2), pulls it in.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from triptych.check import Case
from triptych.gan.game import Batch, Objective
from triptych.gan.objectives import Minimax, NonSaturating, Regularised, Wasserstein, WassersteinGP
from triptych.gan.optimiser import Optimiser
from triptych.gan.truths.small import F64, Play, Point, Slope

RATE = 0.1  # of both players: h
GAMMA = 0.6  # of R1 and R2; the eigenvalues -γ/2 ± √(γ²/4 - 1/4) are -0.3 ± 0.4 i
STEPS = 500
BY_DIFFERENCES = "central differences of 1e-5 in float64 are right to 1e-10, and so are eigenvalues that differ"


def play(objective: Objective, at: tuple[float, float], steps: int = 1) -> list[tuple[float, float]]:
    """(θ, ψ) after each of some steps of both players from a place."""
    generator, critic = Point(F64.new_tensor([at[0]])), Slope(F64.new_tensor([at[1]]))
    step = Optimiser("sgd", lr=RATE)
    path = []
    game = Play(generator, critic, objective, at_zero, 1, step, step)
    game.run(steps, each=lambda _: path.append((generator.shift.item(), critic.w.item())))
    return path


def at_zero(seed: int, seen: int, n: int) -> Batch:
    """The data: zeros (n, 1), all of one class."""
    del seed, seen
    return Batch(F64.new_zeros(n, 1), torch.zeros(n, dtype=torch.int64))


def jacobian(objective: Objective, small: float = 1e-5) -> Tensor:
    """The derivative of one step by (θ, ψ) at the equilibrium, (2, 2), by central differences."""
    columns = []
    for direction in ((1.0, 0.0), (0.0, 1.0)):
        up, down = (play(objective, (s * small * direction[0], s * small * direction[1]))[-1] for s in (1, -1))
        columns.append((F64.new_tensor(up) - F64.new_tensor(down)) / (2 * small))
    return torch.stack(columns, 1)


def growth(objective: Objective) -> float:
    """The largest modulus of the step's eigenvalues: below 1 the game converges to the equilibrium from nearby."""
    return float(torch.linalg.eigvals(jacobian(objective)).abs().max())


def dirac_gans() -> Iterator[Case]:
    """Which games turn, by how much, and which converge."""
    turning = math.hypot(1, RATE / 2)
    name = "Dirac GAN, growth of a step at the equilibrium: "
    for objective in (Minimax(simultaneous=True), NonSaturating(simultaneous=True)):
        yield Case(f"{name}{type(objective).__name__}, both at once", turning, growth(objective), 1e-8, BY_DIFFERENCES)
    for objective in (Minimax(), NonSaturating()):
        yield Case(f"{name}{type(objective).__name__}, in turn", 1.0, growth(objective), 1e-8, BY_DIFFERENCES)
    inner, pulled = NonSaturating(simultaneous=True), math.hypot(1 - RATE * GAMMA / 2, 0.4 * RATE)
    for penalty, objective in (("R1", Regularised(inner, r1=GAMMA)), ("R2", Regularised(inner, r2=GAMMA))):
        yield Case(f"{name}{penalty}", pulled, growth(objective), 1e-8, BY_DIFFERENCES)
    yield from wandering()


def wandering() -> Iterator[Case]:
    """A repulsion; and paths from (1, 1): an invariant, a bound, a rate."""
    weight, near = 1.0, 1e-9
    yield Case(
        "Dirac GAN, WassersteinGP: |ψ| one step after it was 1e-9",
        2 * weight * RATE,
        abs(play(WassersteinGP(weight=weight, steps=1), (near, near))[-1][1]),
        2e-9,
        "the penalty's slope is 2 λ (|ψ| - 1) up to the equilibrium itself, which repels; 1e-9 away it is as much off",
    )
    free = Wasserstein(clip=10, steps=1, long_until=0, long_every=0)
    yield Case(
        f"Dirac GAN, Wasserstein: θ² + ψ² - hθψ after {STEPS} steps",
        2 - RATE,
        energy(play(free, (1, 1), STEPS)[-1]),
        1e-12,
        "it is left as it is by each step, to float64's rounding, 500 times 1e-16 and the size 2",
    )
    tight = Wasserstein(clip=1, steps=1, long_until=0, long_every=0, clip_when="after")
    inscribed = 1 - RATE**2 / 4
    yield Case(
        f"Dirac GAN, Wasserstein with ψ clipped to 1: the same after {STEPS} steps, that of the largest orbit within",
        inscribed,
        energy(play(tight, (1, 1), STEPS)[-1]),
        inscribed * math.tan(RATE / 2) ** 2,
        "no orbit is cut that ends within half a step (0.05 radians) of its top, where it is 1 / cos² as large",
    )
    path = play(Regularised(NonSaturating(simultaneous=True), r1=GAMMA), (1, 1), STEPS)
    rate = math.log(modulus(path[-1]) / modulus(path[STEPS // 2 - 1])) / (STEPS // 2)
    yield Case(
        f"Dirac GAN, R1: logarithm of the shrinking a step, over the last half of {STEPS}",
        math.log(math.hypot(1 - RATE * GAMMA / 2, 0.4 * RATE)),
        rate,
        1e-6,
        "the game is linear up to distance² (1e-6 halfway), and what that adds is spread over 250 steps",
    )


def energy(place: tuple[float, float]) -> float:
    """θ² + ψ² - h θ ψ."""
    theta, psi = place
    return theta**2 + psi**2 - RATE * theta * psi


def modulus(place: tuple[float, float]) -> float:
    """The coordinate of (θ, ψ) along the eigenvector of the linear game with R1: it shrinks by the same factor each step."""
    theta, psi = place
    return abs(complex(theta * 0.5 + psi * 0.3, psi * 0.4))
