"""Convex problems, minimise loss(K x) + term(x), solved with a certificate: a lower bound on the least objective."""

from triptych.convex.line_search import LineSearch
from triptych.convex.losses import BinaryLogistic, LeastSquares, Logistic, SquaredHinge
from triptych.convex.maps import Matrix, adjoint_error
from triptych.convex.problem import (
    Ball,
    Certificate,
    Certifier,
    Iterate,
    Linear,
    Loss,
    Problem,
    Sampled,
    Solver,
    Term,
    certify,
    gap,
    inner,
    per_problem,
    take,
)
from triptych.convex.referee import Check, Solution, Status, solve
from triptych.convex.solvers import SGD, fista, frank_wolfe, projected_sgd, proximal_gradient
from triptych.convex.spectrum import nuclear_norm, project_nuclear, singular_values, spectral_norm
from triptych.convex.terms import L1, L2Ball, NonNegativeL1, NuclearBall, SquaredL2, WeightedL1, soft_threshold

__all__ = [
    "L1",
    "SGD",
    "Ball",
    "BinaryLogistic",
    "Certificate",
    "Certifier",
    "Check",
    "Iterate",
    "L2Ball",
    "LeastSquares",
    "LineSearch",
    "Linear",
    "Logistic",
    "Loss",
    "Matrix",
    "NonNegativeL1",
    "NuclearBall",
    "Problem",
    "Sampled",
    "Solution",
    "Solver",
    "SquaredHinge",
    "SquaredL2",
    "Status",
    "Term",
    "WeightedL1",
    "adjoint_error",
    "certify",
    "fista",
    "frank_wolfe",
    "gap",
    "inner",
    "nuclear_norm",
    "per_problem",
    "project_nuclear",
    "projected_sgd",
    "proximal_gradient",
    "singular_values",
    "soft_threshold",
    "solve",
    "spectral_norm",
    "take",
]
