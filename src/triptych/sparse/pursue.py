"""One call for all pursuits: codes of signals, sparse, with a certificate for every signal."""

from dataclasses import dataclass

from torch import Tensor

from triptych.check import choice
from triptych.convex import Solution, fista, solve
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.pursuits import working_set

METHODS = ("working_set", "fista")


@dataclass(frozen=True, eq=False)
class Pursuit:
    """Codes of b signals, and what is known of each: ``solution`` has status, steps, objective, lower_bound and history (b,)."""

    codes: Codes
    solution: Solution

    @property
    def gap(self) -> Tensor:
        """objective - lower bound, (b,): no code has an objective lower by more than that."""
        return self.solution.gap

    @property
    def converged(self) -> bool:
        """Whether every problem is within its tolerance."""
        return self.solution.converged


def pursue(
    coding: Coding, method: str = "working_set", *, tol: float | Tensor = 1e-3, max_steps: int = 1000
) -> Pursuit:
    """Solve coding problems to a duality gap of ``tol`` times the objective, a number or (b,).

    ``method``: "working_set" for codes of which few coefficients are not 0, in memory that grows with those few; "fista"
    for dense ones, with all coefficients in memory, also where ``reg`` is 0. Raises InputError for wrong arguments.
    """
    choice("method", method, METHODS)
    problem = coding.problem()
    if method == "fista":
        found = solve(problem, fista, coding.start(), tol=tol, max_steps=max_steps, relative=True)
        return Pursuit(Codes.of(found.x), found)
    solver, start = working_set.solver(coding), coding.signals.new_zeros(len(coding.signals), 1)
    found = solve(
        problem,
        solver,
        start,
        certify=working_set.certify,
        tol=tol,
        max_steps=max_steps,
        patience=30,
        relative=True,
        every_step=True,
    )
    return Pursuit(found.x, found)  # pyright: ignore[reportArgumentType]
