"""Every pursuit of basis pursuit against scikit-learn's lasso on the dense dictionary, and the laws that all of them keep."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from triptych.check import InputError
from triptych.convex import Iterate, solve
from triptych.convex import certify as certify_densely
from triptych.sparse import Codes, Coding, ConvDictionary, pursue
from triptych.sparse.pursuits import auto
from triptych.sparse.pursuits import placed as placed_module
from triptych.sparse.pursuits.admm import ADMM, Alternating, admm
from triptych.sparse.pursuits.greedy import _Walk as Greedy
from triptych.sparse.pursuits.greedy import greedy
from triptych.sparse.pursuits.placed import Placed
from triptych.sparse.pursuits.referee import certify, dense
from triptych.sparse.pursuits.slices import slices

F64 = torch.float64
LAYOUTS = {
    "line": ((5,), (50,), 1, 2, "valid"),
    "line with a stride": ((5,), (51,), 2, 1, "valid"),
    "picture": ((3, 4), (14, 16), 1, 2, "valid"),
    "stride": ((4, 4), (15, 17), 3, 3, "valid"),
    "circle": ((5,), (40,), 1, 1, "circular"),
    "small circle": ((5,), (6,), 2, 2, "circular"),
    "torus": ((3, 4), (12, 14), 1, 2, "circular"),
    "torus with a stride": ((4, 4), (6, 18), 3, 1, "circular"),
}
KINDS = ("plain", "weights, not negative", "mask")
STREAMS = {"admm": admm, "greedy": greedy, "slices": slices}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
every_stream = pytest.mark.parametrize("method", STREAMS)


def rng(seed):
    return torch.Generator().manual_seed(seed)


def made(layout, kind="plain", regs=(0.1, 0.3), dtype=F64):
    size, shape, stride, channels, boundary = layout
    atoms = torch.randn(4, channels, *size, dtype=F64, generator=rng(0)).to(dtype)
    D, b = ConvDictionary(atoms, stride, boundary), len(regs)
    signals = torch.randn(b, channels, *shape, dtype=F64, generator=rng(1)).to(dtype)
    weights = 0.5 + torch.rand(b, 4, *D.code_shape(shape), dtype=F64, generator=rng(2)).to(dtype)
    mask = torch.rand(b, 1, *shape, dtype=F64, generator=rng(3)).round(decimals=1).to(dtype)
    return Coding(
        D,
        signals,
        torch.tensor(regs, dtype=dtype),
        mask=mask if kind == "mask" else None,
        weights=None if kind == "plain" else weights,
        nonnegative=kind == "weights, not negative",
    )


def elsewhere():
    """A problem on a device that is not the CPU: its numbers are never looked at."""
    coding = made(LAYOUTS["line"])
    object.__setattr__(coding, "signals", coding.signals.to("meta"))
    return coding


def lasso(coding, i):
    """The least objective of problem i, by scikit-learn on the dense dictionary."""
    K, y = coding.dictionary.matrix(coding.shape).double(), coding.target[i].double().flatten()
    weights = torch.ones(K.shape[1], dtype=F64)
    if coding.mask is not None:
        K = coding.mask.expand_as(coding.signals)[i].double().flatten()[:, None] * K
    if coding.weights is not None:
        weights = coding.weights[i].double().flatten()
    lam = float(coding.lam()[i])
    model = Lasso(lam / len(y), fit_intercept=False, positive=coding.nonnegative, tol=1e-12, max_iter=100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the last digits
        x = torch.from_numpy(model.fit((K / weights).numpy(), y.numpy()).coef_)
    return float((y - K / weights @ x).square().sum() / 2 + lam * x.abs().sum())


def refuses(method, layout, kind):
    """What a method says that it cannot do."""
    circle = layout[-1] == "circular" and any(2 * n > m for n, m in zip(layout[0], layout[1]))
    return (kind == "mask" and method != "slices") or (method == "greedy" and circle)


@every_stream
@every_layout
@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_is_that_of_the_lasso_and_the_certificate_holds(method, layout, kind):
    coding = made(layout, kind, regs=(0.25, 0.5))
    if refuses(method, layout, kind):
        with pytest.raises(InputError, match=f"{method} (knows no mask|needs circular)"):
            pursue(coding, method)
        return
    found = pursue(coding, method, tol=1e-5)
    assert found.converged
    assert found.method == (method, method)
    for i in range(2):
        least = lasso(coding, i)
        assert float(found.solution.lower_bound[i]) <= least * (1 + 1e-10)
        assert least * (1 - 1e-10) <= float(found.solution.objective[i]) <= least * (1 + 1e-5)
    assert not coding.nonnegative or all(bool((value > 0).all()) for value in found.codes.value)
    torch.testing.assert_close(coding.objective(found.codes.dense()), found.solution.objective, rtol=1e-12, atol=0)


@every_stream
@pytest.mark.parametrize("layout", [LAYOUTS["line"], LAYOUTS["torus"]], ids=["line", "torus"])
def test_certificates_are_those_of_the_dense_code_or_better(method, layout):
    coding = made(layout)
    for _, found in zip(range(4), STREAMS[method](coding)):
        mine, usual = certify(coding.problem(), found), certify_densely(coding.problem(), Iterate(found.x.dense()))
        torch.testing.assert_close(mine.objective, usual.objective, rtol=1e-12, atol=0)
        assert bool((mine.lower_bound >= usual.lower_bound - 1e-12 * usual.objective).all())


@pytest.mark.parametrize("layout", ["torus", "picture", "circle"])
def test_for_dense_codes_what_admm_solves_exactly_bounds_better_than_its_code(layout):
    """Beside the same look at what the shrunk code leaves, after the first steps."""
    for step, found in zip(range(5), admm(made(LAYOUTS[layout], regs=(0.03,)))):
        one = found.walks[0]
        objective, mine = one.certificate()
        usual = one.judge.certificate()[1]
        assert step == 0 or mine > usual + 0.1 * (objective - usual)


@every_stream
def test_a_batch_is_its_problems_one_by_one_and_solved_ones_stop(method):
    coding = made(LAYOUTS["picture"], "weights, not negative", regs=(0.1, 0.2, 0.3))
    both, left = STREAMS[method](coding), torch.tensor([True, False, True])
    alone = STREAMS[method](coding.take(left))
    for _ in range(2):
        next(both)
        next(alone)
    found, expected = both.send(left).x, next(alone).x
    assert len(found) == 2
    torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-11, atol=1e-12)


@every_stream
@every_layout
def test_from_the_optimum_it_does_not_go_away(method, layout):
    coding = made(layout)
    if refuses(method, layout, "plain"):
        return
    best = pursue(coding, "working_set", tol=1e-13, max_steps=200)
    first = next(STREAMS[method](coding, start=best.codes)).x
    objective = coding.objective(first.dense())
    torch.testing.assert_close(objective, best.solution.objective, rtol=1e-7, atol=0)
    cold = coding.objective(next(STREAMS[method](coding)).x.dense())
    assert bool((objective <= cold).all())


@pytest.mark.parametrize("method", ["greedy", "slices"])
@every_layout
@pytest.mark.parametrize("kind", KINDS)
def test_descent_never_rises(method, layout, kind):
    coding = made(layout, kind, regs=(0.01,))
    if refuses(method, layout, kind):
        return
    steps = [float(coding.objective(found.x.dense())) for _, found in zip(range(8), STREAMS[method](coding))]
    assert steps[0] < float(coding.target.square().sum() / 2)
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(steps))


@pytest.mark.parametrize("method", ["auto", *STREAMS])
def test_single_precision_is_enough_for_1e_4(method):
    found = pursue(made(LAYOUTS["torus"], regs=(0.3, 0.5), dtype=torch.float32), method, tol=1e-4)
    assert found.converged
    assert found.codes.value[0].dtype == torch.float32


# ADMM


@every_layout
@pytest.mark.parametrize("kind", KINDS[:2])
def test_admm_makes_the_iterates_of_the_dense_iteration(layout, kind):
    """Ten iterations with one penalty, against the textbook's with a solve of the dense normal equations each."""
    coding = made(layout, kind, regs=(0.1,))
    K, y = coding.dictionary.matrix(coding.shape), coding.signals.flatten()
    rho, relax = 2.5, 1.6
    level = float(coding.lam()[0]) / rho * (1 if coding.weights is None else coding.weights.flatten())
    level = torch.as_tensor(level, dtype=F64).expand(K.shape[1])

    def shrunk(v):
        return (v - level).clamp_min(0) if coding.nonnegative else v.sign() * (v.abs() - level).clamp_min(0)

    u = K.T @ y / rho
    u = torch.minimum(u, level) if coding.nonnegative else u.clamp(-level, level)
    # The Fourier domain has the atoms that wrap and those between the places too; they take part in the solve alone.
    D = coding.dictionary
    whole = ConvDictionary(D.atoms, 1, "circular").matrix(coding.shape)
    inside = torch.zeros(4, *coding.shape, dtype=torch.bool)
    inside[(slice(None), *(slice(0, m * D.stride, D.stride) for m in coding.code_shape))] = True
    inside = inside.flatten()
    full_z, full_u = torch.zeros(len(inside), dtype=F64), whole.T @ y / rho
    full_u[inside] = u  # the multipliers start as the correlations with the signal, within their bounds
    normal = whole.T @ whole + rho * torch.eye(len(inside), dtype=F64)
    for _ in range(10):
        x = torch.linalg.solve(normal, whole.T @ y + rho * (full_z - full_u))
        x = relax * x + (1 - relax) * full_z
        v = x + full_u
        full_z = torch.zeros_like(v)
        full_z[inside] = shrunk(v[inside])
        full_u = v - full_z
    walk = Alternating(coding, 0, ADMM(rho, relax), None)
    for _ in range(10):
        walk._iterate()
    torch.testing.assert_close(dense(coding, walk.code()).flatten(), full_z[inside])
    assert bool((full_z != 0).any())


@pytest.mark.parametrize("rho", [1e-2, 1e3])
def test_the_penalty_finds_its_own_size(rho):
    """From a penalty far too small or too large, a few steps more are enough; without the balance it takes hundreds."""
    coding = made(LAYOUTS["torus"])

    def steps(settings):
        found = solve(
            coding.problem(),
            lambda problem, start: admm(coding, settings),
            torch.zeros(2, 1),
            certify=certify,
            tol=1e-4,
            relative=True,
            every_step=True,
            patience=1000,
            max_steps=200,
        )
        assert found.converged
        return int(found.steps.max())

    assert steps(ADMM(rho=rho)) <= steps(ADMM()) + 10


# Greedy


@pytest.mark.parametrize("layout", ["line", "line with a stride", "stride", "circle", "torus"])
def test_changes_of_a_sweep_do_not_meet(layout):
    """A sweep lowers the objective by the sum of what each change alone would, and correlations stay true."""
    coding = made(LAYOUTS[layout], "weights, not negative", regs=(0.02,))
    walk, several = Greedy(coding, 0, None), 0
    K, y = coding.dictionary.matrix(coding.shape), coding.signals.flatten()
    costs = float(coding.lam()[0]) * coding.weights.flatten()

    def objective(x):
        return float((y - K @ x).square().sum() / 2 + (costs * x.abs()).sum())

    for _ in range(6):
        before = walk.x.T.flatten().clone()
        walk._sweep()
        changed = (walk.x.T.flatten() != before).nonzero().squeeze(1)
        alone = []
        for j in changed:
            one = before.clone()
            one[j] = walk.x.T.flatten()[j]
            alone.append(objective(one) - objective(before))
        assert max(alone) < 0
        assert objective(walk.x.T.flatten()) - objective(before) == pytest.approx(sum(alone), rel=1e-9)
        torch.testing.assert_close(walk.c.T.flatten(), K.T @ (y - K @ walk.x.T.flatten()), rtol=1e-9, atol=1e-9)
        several += len(changed) > 1
    assert several or layout == "stride"


# The pursuit that looks first


def test_sparse_codes_stay_with_the_working_set_and_dense_ones_go_over():
    """One batch, two problems, two methods; both are the lasso's."""
    coding = made(LAYOUTS["torus"], regs=(0.8, 0.1))
    found = pursue(coding, tol=1e-6)
    assert found.method == ("working_set", "admm")
    assert found.converged
    shares = found.codes.nonzeros / (4 * 12 * 14)
    assert float(shares[0]) <= auto.SHARE < float(shares[1])
    for i in range(2):
        assert float(found.solution.objective[i]) == pytest.approx(lasso(coding, i), rel=2e-6)


@pytest.mark.parametrize(
    ("layout", "kind", "method"),
    [
        ("picture", "plain", "admm"),
        ("line with a stride", "plain", "admm"),
        ("stride", "plain", "fista"),
        ("stride", "mask", "fista"),
        ("line", "mask", "fista"),
    ],
)
def test_dense_codes_go_over_to_the_method_that_knows_them(layout, kind, method):
    coding = made(LAYOUTS[layout], kind, regs=(0.05,))
    if layout == "line":
        coding = replace(coding, dictionary=replace(coding.dictionary, atoms=coding.dictionary.atoms[:2]), weights=None)
    found = pursue(coding, tol=1e-6, max_steps=3000)
    assert found.method == (method,)
    assert found.converged
    assert float(found.solution.objective[0]) == pytest.approx(lasso(coding, 0), rel=2e-6)


def test_under_a_mask_the_working_set_goes_further():
    coding = made(LAYOUTS["picture"], "mask", regs=(0.3,))
    found = pursue(coding, tol=1e-6)
    assert found.method == ("working_set",)
    assert auto.SHARE < float(found.codes.nonzeros[0]) / coding.start().numel() <= auto.MASKED


@pytest.mark.parametrize("layout", ["torus", "stride"])
def test_what_a_problem_goes_over_with_is_not_lost(layout, monkeypatch):
    """One iteration of the other method from the code as it is, and from 0."""
    monkeypatch.setattr(auto, "DEFAULT", ADMM(iterations=1))
    monkeypatch.setattr(auto, "ITERATIONS", 1)
    coding, seen = made(LAYOUTS[layout], regs=(0.05,)), []
    solver = auto.Auto(coding)
    stream = solver(coding.problem(), coding.signals)
    while not seen or solver.method == ("working_set",):
        seen.append(float(coding.objective(next(stream).x.dense())))
    assert len(seen) == auto.ROUNDS + 1
    assert seen[-1] <= 1.02 * seen[-2]
    cold = auto._Problem(coding, 0)
    cold._go_over()
    cold.step()
    assert float(coding.objective(dense(coding, cold.code())[None])) > 1.02 * seen[-1]


@pytest.mark.parametrize("kind", ["plain", "mask"])
def test_without_a_penalty_it_is_least_squares(kind):
    coding = made(LAYOUTS["stride"], kind, regs=(0.0, 0.6))
    found = pursue(coding, max_steps=400, tol=1e-9)
    assert found.method[0] == "fista"
    K, y = coding.dictionary.matrix(coding.shape), coding.target[0].flatten()
    if kind == "mask":
        K = coding.mask.expand_as(coding.signals)[0].flatten()[:, None] * K
    least = float((y - K @ torch.linalg.lstsq(K, y).solution).square().sum() / 2)
    assert least > 1
    assert float(found.solution.objective[0]) == pytest.approx(least, rel=1e-6)
    assert float(found.solution.objective[1]) == pytest.approx(lasso(coding, 1), rel=1e-8)


def test_fista_in_single_precision_does_not_drift():
    """Predictions that are only ever added to lose the gap of codes this dense; made anew now and then they do not."""
    D = ConvDictionary(torch.randn(8, 1, 8, 8, generator=rng(0)), 2).normalise()
    signals = torch.randn(1, 1, 40, 40, generator=rng(1)).cumsum(2).cumsum(3)
    signals -= signals.mean()
    found = pursue(Coding(D, signals, 0.01), "fista", tol=1e-3, max_steps=1000)
    assert found.converged


def test_progress_sees_every_certificate():
    seen = []
    found = pursue(made(LAYOUTS["line"]), "slices", progress=lambda step, best: seen.append((step, best.objective)))
    assert [step for step, _ in seen] == [check.step for check in found.solution.history]
    torch.testing.assert_close(seen[-1][1], found.solution.objective)


# What they share


@every_layout
@pytest.mark.parametrize("few", [0.0, 1.0])
def test_a_sparse_synthesis_is_the_dense_one(layout, few, monkeypatch):
    monkeypatch.setattr(placed_module, "FEW", few)
    monkeypatch.setattr(placed_module, "PLACES", 20)
    coding = made(layout)
    n, line = int(np.prod(coding.code_shape)), len(coding.shape) == 1
    chosen = np.sort(np.random.default_rng(0).choice(4 * n, n, replace=False))
    x = np.random.default_rng(1).standard_normal(n)
    place, atom = np.divmod(chosen, 4)
    K = coding.dictionary.matrix(coding.shape).numpy()
    placed = Placed(
        coding.dictionary,
        (1, *coding.shape) if line else coding.shape,
        (1, *coding.code_shape) if line else coding.code_shape,
    )
    np.testing.assert_allclose(placed.synthesis(chosen, x), K[:, atom * n + place] @ x, rtol=1e-11, atol=1e-12)


BAD = {
    "a penalty of 0": (lambda: ADMM(rho=0.0), "rho must be"),
    "too much relaxation": (lambda: ADMM(relax=2.0), "relax must be"),
    "no iterations": (lambda: ADMM(iterations=0), "iterations must be"),
    "codes of another count": (
        lambda: next(admm(made(LAYOUTS["line"]), start=Codes.of(torch.zeros(1, 4, 46)))),
        "start must be codes of 2 problems",
    ),
    "codes of another shape": (
        lambda: next(slices(made(LAYOUTS["line"]), start=Codes.of(torch.zeros(2, 4, 47)))),
        "start must be codes of 2 problems",
    ),
    "a method that is none": (lambda: pursue(made(LAYOUTS["line"]), "greed"), "did you mean greedy"),
    "another device": (lambda: pursue(elsewhere(), "greedy"), "runs on the CPU, and the signals are on meta"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
