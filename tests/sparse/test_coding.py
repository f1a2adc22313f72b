"""The coding problem against scikit-learn's and cvxpy's solutions with the dense matrix."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from triptych.check import InputError
from triptych.convex import fista, solve
from triptych.sparse import coding as coding_module
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary

F64 = torch.float64
LAYOUTS = [
    ((5,), (20,), 1, "valid"),
    ((5,), (20,), 2, "circular"),
    ((3, 4), (9, 10), 1, "valid"),
    ((3, 4), (9, 9), 3, "circular"),
]
every_layout = pytest.mark.parametrize(("size", "shape", "stride", "boundary"), LAYOUTS)


def made(size, shape, stride, boundary, channels=1, b=3):
    rng = torch.Generator().manual_seed(0)
    atoms = torch.randn(4, channels, *size, dtype=F64, generator=rng)
    signals = torch.randn(b, channels, *shape, dtype=F64, generator=rng)
    return ConvDictionary(atoms, stride, boundary).normalise(), signals * torch.tensor([1.0, 5.0, 0.2]).reshape(
        b, *[1] * (len(shape) + 1)
    )


def solved(coding, tol=1e-10):
    scale = coding.target.square().flatten(1).sum(1)
    return solve(coding.problem(), fista, coding.start(), tol=tol * scale, max_steps=20_000)


@every_layout
@pytest.mark.parametrize("nonnegative", [False, True])
def test_codes_are_scikit_learns(size, shape, stride, boundary, nonnegative):
    """A batch of problems of very different scale, each with its own weight, against Lasso one by one."""
    D, signals = made(size, shape, stride, boundary, channels=2)
    coding = Coding(D, signals, reg=0.1, nonnegative=nonnegative)
    solution = solved(coding)
    assert solution.converged
    M = D.matrix(shape).numpy()
    for signal, x, lam, objective in zip(signals, solution.x, coding.lam(), solution.objective):
        n = len(M)
        lasso = Lasso(alpha=float(lam) / n, fit_intercept=False, positive=nonnegative, tol=1e-12, max_iter=200_000)
        lasso.fit(M, signal.flatten().numpy())
        r = signal.flatten().numpy() - M @ lasso.coef_
        best = r @ r / 2 + float(lam) * np.abs(lasso.coef_).sum()
        assert float(objective) == pytest.approx(best, rel=1e-7)
        assert np.linalg.norm(M @ (x.flatten().numpy() - lasso.coef_)) <= 1e-3 * np.linalg.norm(signal)


@every_layout
def test_lambda_max_is_where_the_code_becomes_zero(size, shape, stride, boundary):
    D, signals = made(size, shape, stride, boundary)
    for nonnegative in (False, True):
        at, below = (Coding(D, signals, reg=reg, nonnegative=nonnegative) for reg in (1.0, 0.98))
        assert not solved(at).x.any()
        assert solved(below).x.flatten(1).any(1).all()


@pytest.mark.parametrize("together", [1, 300, 1 << 25])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_lambda_max_is_the_dense_matrix_s_however_many_atoms_are_looked_at_together(monkeypatch, nonnegative, together):
    monkeypatch.setattr(coding_module, "TOGETHER", together)
    D, signals = made((3, 4), (9, 10), 1, "valid")
    rng = torch.Generator().manual_seed(1)
    mask = torch.rand(3, 1, 9, 10, generator=rng, dtype=F64)
    weights = 0.5 + torch.rand(1, D.n_atoms, *D.code_shape((9, 10)), generator=rng, dtype=F64)
    found = Coding(D, signals, mask=mask, weights=weights, nonnegative=nonnegative).lambda_max()
    u = (D.matrix((9, 10)).T @ (mask.square() * signals).flatten(1).T).T / weights.flatten(1)
    torch.testing.assert_close(found, (u if nonnegative else u.abs()).amax(1).clamp_min(0))


@pytest.mark.parametrize("nonnegative", [False, True])
def test_masks_and_weights_are_cvxpys(nonnegative):
    """What the mask hides is NaN; the mask has fractions; coefficients have their own weights."""
    D, signals = made((3, 4), (9, 10), 1, "valid")
    rng = torch.Generator().manual_seed(1)
    mask = (torch.rand(3, 1, 9, 10, generator=rng) > 0.4).double()
    mask[:, :, 0] = 0.5
    weights = 0.5 + torch.rand(1, 4, *D.code_shape((9, 10)), generator=rng, dtype=F64)
    hidden = torch.where(mask > 0, signals, torch.nan)
    coding = Coding(D, hidden, reg=0.2, mask=mask, weights=weights, nonnegative=nonnegative)
    solution = solved(coding, tol=1e-9)
    assert solution.converged
    M = D.matrix((9, 10)).numpy()
    for i, lam in enumerate(coding.lam().tolist()):
        m = mask[i].flatten().numpy()
        x = cp.Variable(M.shape[1], nonneg=nonnegative)
        r = cp.multiply(m, M @ x - signals[i].flatten().numpy())
        problem = cp.Problem(cp.Minimize(cp.sum_squares(r) / 2 + lam * weights.flatten().numpy() @ cp.abs(x)))
        problem.solve(solver=cp.CLARABEL)
        assert float(solution.objective[i]) == pytest.approx(problem.value, rel=1e-6)
    torch.testing.assert_close(coding.objective(solution.x), solution.objective)
    assert coding.reconstruct(solution.x).isfinite().all()
    torch.testing.assert_close(coding.target - mask * coding.reconstruct(solution.x), coding.residual(solution.x))


def test_some_of_the_problems_are_those_problems():
    D, signals = made((5,), (20,), 1, "valid")
    coding = Coding(D, signals, reg=torch.tensor([0.1, 0.2, 0.3], dtype=F64), mask=torch.ones(3, 1, 20))
    keep = torch.tensor([True, False, True])
    part = coding.take(keep)
    torch.testing.assert_close(part.lam(), coding.lam()[keep])
    x = torch.randn(3, 4, 16, dtype=F64)
    torch.testing.assert_close(part.objective(x[keep]), coding.objective(x)[keep])


def test_an_absolute_weight_is_taken_as_it_is():
    D, signals = made((5,), (20,), 1, "valid")
    assert Coding(D, signals, 0.3, "absolute").lam().tolist() == [0.3] * 3
    torch.testing.assert_close(Coding(D, signals, 0.3).lam(), 0.3 * Coding(D, signals).lambda_max())


LINE = ConvDictionary(torch.ones(2, 1, 3))
ONES = torch.ones(2, 1, 9)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Coding(LINE, ONES, reg=-1.0), "reg must be a finite number of at least 0"),
        (lambda: Coding(LINE, ONES, reg=torch.tensor([0.1, torch.nan])), r"reg must be .* tensor \(2,\)"),
        (lambda: Coding(LINE, ONES, reg=torch.ones(3)), r"reg must be .* tensor \(2,\)"),
        (lambda: Coding(LINE, ONES, reg_scale="lambda"), "did you mean lambda_max"),
        (lambda: Coding(LINE, ONES[:, :, :2]), "at least as large as the atoms"),
        (lambda: Coding(LINE, torch.ones(2, 3, 9)), r"signals must be a floating-point tensor \(b, 1, n\)"),
        (lambda: Coding(LINE, ONES * torch.nan), "signals must be finite"),
        (lambda: Coding(LINE, ONES, mask=torch.zeros(2, 1, 9)), "at least one sample of every signal"),
        (lambda: Coding(LINE, ONES, mask=2 * ONES), r"mask must be of numbers from 0 \(not known\) to 1"),
        (lambda: Coding(LINE, ONES, mask=torch.ones(2, 1, 8)), r"mask must be a tensor that broadcasts to \(2, 1, 9\)"),
        (
            lambda: Coding(LINE, ONES, weights=torch.ones(2, 3, 7)),
            r"weights must be a tensor that broadcasts to \(2, 2, 7\)",
        ),
        (lambda: Coding(LINE, ONES, weights=torch.zeros(1, 2, 1)), "weights must be of finite numbers above 0"),
    ],
)
def test_bad_problems_are_refused_with_a_sentence(make, says):
    with pytest.raises(InputError, match=says):
        make()
