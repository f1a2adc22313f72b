"""The convex problem of one layer: minimise the mean logistic loss of Z A over ‖A‖_* <= R.

A is features x (positions · classes), (q, P · K), so that its rank counts filters that all positions share:
logits_ik = Σ_p <z_p(x_i), A[:, p, k]>.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from triptych.convex import Certificate, Iterate, Problem

PRECISE_ROWS = 256  # images whose features are float32 at a time, where products are to be more precise than they are
CERTIFICATE_ROWS = 64  # images whose features are float64 at a time


class FeatureRows:
    """Z of n images as a Linear: A (1, q, P · K) -> logits (1, n, K), exact for the features as stored.

    The first images' features (n0, P · q) are held; those of the others are made again at every pass, by
    ``make(first, last)``. Products are computed in the dtype of the features, or in float32 where ``precise``, and
    returned in float32 at least.
    """

    def __init__(
        self,
        stored: Tensor,
        *,
        components: int,
        classes: int,
        count: int | None = None,
        make: Callable[[int, int], Tensor] | None = None,
        chunk: int = 1024,
        precise: bool = False,
    ) -> None:
        self.stored, self.make, self.chunk, self.precise = stored, make, chunk, precise
        self.q, self.classes = components, classes
        self.positions = stored.shape[1] // components
        self.n_rows = len(stored) if count is None else count

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of A with its axis of problems: (1, q, P · K)."""
        return 1, self.q, self.positions * self.classes

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their features, (rows, P · q): the stored ones first, then the others a chunk at a time."""
        held = len(self.stored)
        if held:
            yield slice(0, held), self.stored
        for first in range(held, self.n_rows, self.chunk):
            last = min(first + self.chunk, self.n_rows)
            if self.make is not None:
                yield slice(first, last), self.make(first, last)

    def weights(self, A: Tensor) -> Tensor:
        """A (1, q, P · K) as the matrix (P · q, K) that multiplies a row of features."""
        return A[0].view(self.q, self.positions, self.classes).permute(1, 0, 2).reshape(-1, self.classes)

    def matrix(self, W: Tensor) -> Tensor:
        """The inverse of `weights`: (P · q, K) -> (1, q, P · K)."""
        return W.view(self.positions, self.q, self.classes).permute(1, 0, 2).reshape(self.shape)

    def exactly(self) -> "FeatureRows":
        """The same map of the same stored features, its products computed in float32 at least."""
        return FeatureRows(
            self.stored, components=self.q, classes=self.classes, count=self.n_rows, make=self.make, chunk=self.chunk,
            precise=True,
        )  # fmt: skip

    def _parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their features in the dtype that products are computed in."""
        exact = _at_least_float32(self.stored.dtype)
        if not self.precise or exact == self.stored.dtype:
            yield from self.blocks()
            return
        buffer = torch.empty(PRECISE_ROWS, self.stored.shape[1], dtype=exact, device=self.stored.device)
        for block, features in self.blocks():
            for first, Z in zip(range(block.start, block.stop, PRECISE_ROWS), features.split(PRECISE_ROWS)):
                yield slice(first, first + len(Z)), buffer[: len(Z)].copy_(Z)

    def forward(self, A: Tensor) -> Tensor:
        """Logits (1, n, K)."""
        W = self.weights(A).mT.contiguous()
        logits = torch.empty(self.n_rows, self.classes, dtype=_at_least_float32(self.stored.dtype), device=A.device)
        for rows, Z in self._parts():
            # W' Z': the other order takes twice as long
            logits[rows] = (W.to(Z.dtype) @ Z.mT).mT.to(logits.dtype)
        return logits[None]

    def adjoint(self, theta: Tensor) -> Tensor:
        """Σ_i z_i theta_i', (1, q, P · K), for theta (1, n, K)."""
        total = 0.0
        for rows, Z in self._parts():
            # theta' Z: the other order is 40 times slower in float32
            total = total + (theta[0, rows].mT.to(Z.dtype) @ Z).to(_at_least_float32(Z.dtype))
        return self.matrix(torch.as_tensor(total).mT.contiguous())

    def rows(self, index: Tensor) -> "FeatureRows":
        """The map of some images (a minibatch); their features must be stored."""
        return FeatureRows(self.stored[index], components=self.q, classes=self.classes)


def certify_layer(problem: Problem, iterate: Iterate) -> Certificate:
    """Objective and lower bound of an iterate of a layer's problem, in float64 from the features as stored.

    Written apart from the solver: A is projected onto the ball by its singular values; the bound is the Frank-Wolfe gap,
    f(A) + min_{‖B‖_* <= R} <grad f(A), B - A> = f(A) - R ‖grad f(A)‖_op - <grad f(A), A>. Jaggi, ICML 2013.
    """
    K: FeatureRows = problem.map  # pyright: ignore[reportAssignmentType]
    labels, radius = problem.loss.labels, float(problem.term.radius)  # pyright: ignore[reportAttributeAccessIssue]
    A = into_ball(iterate.x[0].double(), radius)
    W = K.weights(A[None]).mT.contiguous()
    gradient = torch.zeros_like(W)
    total = torch.zeros((), dtype=torch.float64, device=W.device)
    # one small buffer: what stays in the cache is read four times as fast as what is allocated anew
    buffer = torch.empty(CERTIFICATE_ROWS, W.shape[1], dtype=torch.float64, device=W.device)
    for block, features in K.blocks():
        for Z, y in zip(features.split(CERTIFICATE_ROWS), labels[block].split(CERTIFICATE_ROWS)):
            rows = buffer[: len(Z)].copy_(Z)
            logits = (W @ rows.mT).mT
            total += torch.nn.functional.cross_entropy(logits, y, reduction="sum")
            residual = torch.softmax(logits, 1)
            residual[torch.arange(len(y), device=y.device), y] -= 1
            gradient.addmm_(residual.mT, rows)
    objective, G = total / K.n_rows, K.matrix(gradient.mT / K.n_rows)[0]
    gap = radius * torch.linalg.matrix_norm(G, 2) + (G * A).sum()
    return Certificate(A[None], objective[None], (objective - gap).clamp_min(0)[None])


def into_ball(A: Tensor, radius: float) -> Tensor:
    """A (q, d) projected onto ‖A‖_* <= radius, by a full float64 SVD and a bisection for the threshold."""
    left, values, right = torch.linalg.svd(A, full_matrices=False)
    if float(values.sum()) <= radius:
        return A
    low, high = 0.0, float(values[0])
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float((values - middle).clamp_min(0).sum()) > radius else (low, middle)
    return (left * (values - high).clamp_min(0)) @ right


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
