"""Pursuits through many layers: the forward pass of torch, cvxpy's optimum, and certificates that hold for every iterate."""

import cvxpy as cp
import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.convex import Iterate, certify, solve
from triptych.sparse import Coding, ConvDictionary, pursue
from triptych.sparse.deep.alternating import alternating, certifier
from triptych.sparse.deep.coding import Cascade, MultiLayerCoding, Table
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.exact import operator_norm, primal_dual
from triptych.sparse.deep.forward import layered_thresholding
from triptych.sparse.deep.ista import ml_fista, ml_ista
from triptych.sparse.deep.pursue import METHODS, pursue_layers

F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def model_of(atoms=((6, 1, 5), (8, 6, 3), (10, 8, 3)), strides=(2, 1, 1)):
    """Unit random atoms on lines."""
    layers = tuple(
        ConvDictionary(torch.randn(*shape, dtype=F64, generator=rng(i)), s)
        for i, (shape, s) in enumerate(zip(atoms, strides))
    )
    return MultiLayerDictionary(layers).normalise()


def coding_of(b=3, reg=(0.05, 0.04, 0.1), nonnegative=True, **kinds):
    model = model_of(**kinds)
    g = torch.randn(b, model.n_atoms[-1], 4, dtype=F64, generator=rng(7))
    g = g.abs() * (torch.rand(g.shape, dtype=F64, generator=rng(8)) < 0.2)
    clean = model.synthesise(g)
    y = clean + 0.1 * torch.randn(clean.shape, dtype=F64, generator=rng(9))
    return MultiLayerCoding(model, y, reg, "absolute", nonnegative)


def optimum(coding, i):
    """cvxpy's minimum for signal i, with the layers' dense matrices."""
    model, shapes = coding.model, (coding.shape, *coding.model.code_shapes(coding.shape))
    matrices = [D.matrix(s).numpy() for D, s in zip(model.layers, shapes)]
    g = cp.Variable(matrices[-1].shape[1], nonneg=coding.nonnegative)
    inner, cost = g, float(coding.lam()[-1][i]) * cp.norm1(g)
    for level in range(len(matrices) - 1, 0, -1):
        inner = matrices[level] @ inner
        cost = cost + float(coding.lam()[level - 1][i]) * cp.norm1(inner)
    cost = cost + 0.5 * cp.sum_squares(matrices[0] @ inner - coding.signals[i].flatten().numpy())
    return cp.Problem(cp.Minimize(cost)).solve(solver=cp.CLARABEL)


def test_layered_thresholding_is_the_forward_pass_to_the_last_bit():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 7, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(7, 11, 3),
        nn.ReLU(),
        nn.Conv2d(11, 4, 4, padding=1),
        nn.ReLU(),
    ).double()
    convs = [m for m in net if isinstance(m, nn.Conv2d)]
    layers = tuple(ConvDictionary(m.weight.detach(), m.stride[0]) for m in convs)
    model = MultiLayerDictionary(layers, tuple(m.padding[0] for m in convs))
    x = torch.randn(4, 3, 30, 31, dtype=F64, generator=rng())
    found = layered_thresholding(model, x, [-m.bias.detach() for m in convs])
    with torch.no_grad():
        for i, code in enumerate(found):
            assert torch.equal(code, net[: 2 * i + 2](x))


def test_soft_and_hard_thresholds_are_their_definitions():
    model, y = model_of(), torch.randn(2, 1, 31, dtype=F64, generator=rng(3))
    M = model.layers[0].matrix((31,))
    v = (y.flatten(1) @ M).reshape(2, 6, -1)
    for kind, expected in (
        ("soft", torch.sign(v) * torch.relu(v.abs() - 0.3)),
        ("hard", v * (v.abs() > 0.3)),
        ("nonnegative", torch.relu(v - 0.3)),
        ("nonnegative hard", v * (v > 0.3)),
    ):
        found = layered_thresholding(model, y, (0.3, 0.1, 0.1), kind)
        torch.testing.assert_close(found[0], expected)
    levels = torch.tensor([[0.3], [0.7]], dtype=F64)
    found = layered_thresholding(model, y, (levels, 0.1, 0.1), "soft")[0]
    torch.testing.assert_close(found, torch.sign(v) * torch.relu(v.abs() - levels[:, :, None]))


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("table", [True, False])
def test_primal_dual_comes_to_cvxpys_optimum(nonnegative, plain, table, monkeypatch):
    if not table:
        monkeypatch.setattr("triptych.sparse.deep.coding.DENSE", 0)
    coding = coding_of(nonnegative=nonnegative)
    assert isinstance(coding.map, Table) == table
    found = solve(
        coding.problem(),
        primal_dual(coding, plain),
        coding.start(),
        tol=1e-7,
        max_steps=20_000,
        relative=True,
        patience=10**6,
    )
    assert found.converged
    for i in range(3):
        best = optimum(coding, i)
        assert best - 1e-6 * best <= float(found.objective[i]) <= best * (1 + 1e-6)
        assert float(found.lower_bound[i]) <= best * (1 + 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nonnegative", [True, False])
def test_every_method_gives_a_bound_below_the_optimum_and_an_objective_above(method, nonnegative):
    coding = coding_of(nonnegative=nonnegative)
    found = pursue_layers(coding, method, tol=1e-4, max_steps=2000)
    shapes = coding.model.code_shapes(coding.shape)
    assert [tuple(code.shape[1:]) for code in found.codes] == [(k, *s) for k, s in zip(coding.model.n_atoms, shapes)]
    for i in range(3):
        best = optimum(coding, i)
        assert float(found.lower_bound[i]) <= best * (1 + 1e-7)
        assert float(found.objective[i]) >= best * (1 - 1e-7)
    if method in ("primal-dual", "alternating", "exact"):
        assert found.solution is not None
        assert found.solution.converged
    if nonnegative:
        assert float(found.codes[-1].min()) >= 0
        assert method not in ("thresholding", "hard", "layered") or min(float(code.min()) for code in found.codes) >= 0
    torch.testing.assert_close(found.objective, coding.objective(found.codes[-1].double()), rtol=1e-5, atol=1e-6)
    if method not in ("thresholding", "hard", "layered"):
        assert float(found.mismatch()[:, 1:].max()) < 1e-12
    elif method == "layered":
        assert float(found.mismatch()[:, 1:].min()) > 1e-3


def test_every_iterate_of_ml_fista_is_certified_by_its_own_dual_point():
    coding = coding_of()
    best = torch.tensor([optimum(coding, i) for i in range(3)], dtype=F64)
    stream = ml_fista(coding)(coding.problem(), coding.start())
    gaps = []
    for _ in range(200):
        found = certify(coding.problem(), next(stream))
        assert bool((found.lower_bound <= best * (1 + 1e-7)).all())
        assert bool((found.objective >= best * (1 - 1e-7)).all())
        gaps.append(float((found.gap / found.objective).max()))
    assert gaps[-1] < 0.2 * gaps[0]


def test_product_thresholds_solve_the_problem_and_the_published_ones_another():
    """With short steps ML-FISTA comes within 1e-3 of cvxpy's optimum; the published weighting stays far above it."""
    coding = coding_of(reg=(0.1, 0.1, 0.1))
    best = torch.tensor([optimum(coding, i) for i in range(3)], dtype=F64)
    away = {}
    for weighting in ("product", "published"):
        stream = ml_fista(coding, 0.05, weighting)(coding.problem(), coding.start())
        for _ in range(4000):
            g = next(stream).x
        away[weighting] = float((coding.objective(g) / best - 1).max())
    assert away["product"] < 1e-3
    assert away["published"] > 0.02


def test_ml_ista_goes_where_ml_fista_goes():
    coding = coding_of()
    ends = []
    for solver in (ml_ista, ml_fista):
        stream = solver(coding)(coding.problem(), coding.start())
        for _ in range(6000):
            g = next(stream).x
        ends.append(coding.objective(g))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=0)


def test_shorter_steps_come_nearer():
    coding = coding_of(reg=(0.1, 0.1, 0.1))
    best = torch.tensor([optimum(coding, i) for i in range(3)], dtype=F64)
    away = []
    for shorten in (1.0, 0.3, 0.1):
        stream = ml_fista(coding, shorten)(coding.problem(), coding.start())
        for _ in range(3000):
            g = next(stream).x
        away.append(float((coding.objective(g) / best - 1).max()))
    assert away[0] > 1.5 * away[1] > 2 * away[2]


def test_one_layer_is_basis_pursuit():
    coding = coding_of(atoms=((6, 1, 5),), strides=(2,), reg=(0.2,))
    own = pursue_layers(coding, "primal-dual", tol=1e-8, max_steps=5000)
    other = pursue(
        Coding(coding.model.layers[0], coding.signals, 0.2, "absolute", nonnegative=True),
        "fista",
        tol=1e-9,
        max_steps=5000,
    )
    torch.testing.assert_close(own.objective, other.solution.objective, rtol=1e-7, atol=0)


@pytest.mark.parametrize("solver", [ml_ista, ml_fista, primal_dual])
def test_problems_of_a_batch_are_those_alone(solver):
    """The same iterates, also after others were dropped. (Penalties of alternating directions are shared.)"""
    coding, whole = coding_of(), torch.tensor([False, True, True])
    together, alone = solver(coding)(coding.problem(), coding.start()), []
    for i in range(3):
        one = coding.take(torch.arange(3) == i)
        alone.append(solver(one)(one.problem(), one.start()))
    for step in range(40):
        x = together.send(whole).x if step == 20 else next(together).x
        apart = torch.cat([next(stream).x for stream in alone])
        torch.testing.assert_close(x, apart if step < 20 else apart[1:], rtol=1e-6, atol=1e-8)


def test_fractions_of_lambda_max_are_of_the_effective_dictionaries():
    coding = coding_of()
    scaled = MultiLayerCoding(coding.model, coding.signals, (0.1, 0.2, 1.0))
    for i, (level, share) in enumerate(zip(scaled.lam(), (0.1, 0.2, 1.0)), 1):
        M = coding.model.effective(i).matrix(coding.shape)
        seen = coding.signals.flatten(1) @ M
        torch.testing.assert_close(level, share * (seen if i == 3 else seen.abs()).amax(1))
    found = pursue_layers(scaled, "ml-fista", tol=1e-9, max_steps=50)
    assert all(bool((code == 0).all()) for code in found.codes)


def test_a_start_at_the_answer_is_one_step():
    coding = coding_of()
    first = pursue_layers(coding, "primal-dual", tol=1e-6, max_steps=4000)
    again = pursue_layers(coding, "ml-fista", start=first.codes[-1], tol=1e-6, max_steps=3)
    assert bool((again.objective <= first.objective * (1 + 1e-3)).all())


def test_the_matrix_of_a_map_is_the_map():
    coding = coding_of()
    K, whole = coding.map, Cascade(coding.model, coding.shape)
    x = torch.randn(2, *coding.start().shape[1:], dtype=F64, generator=rng(1))
    z = torch.randn(2, sum(K.sizes), dtype=F64, generator=rng(2))
    torch.testing.assert_close(K.forward(x), whole.forward(x))
    torch.testing.assert_close(K.adjoint(z), whole.adjoint(z))


@pytest.mark.parametrize("nonnegative", [True, False])
def test_alternating_directions_come_to_cvxpys_optimum_and_drop_solved_problems(nonnegative):
    coding = coding_of(nonnegative=nonnegative)
    tol = torch.tensor([1e-2, 1e-8, 1e-5], dtype=F64)
    found = solve(
        coding.problem(),
        alternating(coding),
        coding.start(),
        certify=certifier(coding),
        tol=tol,
        max_steps=4000,
        relative=True,
    )
    assert found.converged
    assert found.steps[0] < found.steps[2] < found.steps[1]
    for i in range(3):
        best = optimum(coding, i)
        assert best * (1 - 1e-7) <= float(found.objective[i]) <= best * (1 + float(tol[i]) + 1e-7)


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("nonnegative", [True, False])
def test_mended_dual_points_bound_from_below_and_better(table, nonnegative, monkeypatch):
    if not table:
        monkeypatch.setattr("triptych.sparse.deep.coding.DENSE", 0)
    coding = coding_of(nonnegative=nonnegative)
    best = torch.tensor([optimum(coding, i) for i in range(3)], dtype=F64)
    stream, judge = ml_fista(coding)(coding.problem(), coding.start()), certifier(coding)
    better = 0
    for step in range(120):
        iterate = next(stream)
        if step % 10 == 9:
            plain, mended = certify(coding.problem(), iterate), judge(coding.problem(), iterate)
            assert bool((mended.lower_bound <= best * (1 + 1e-7)).all())
            assert bool((mended.lower_bound >= plain.lower_bound).all())
            better += int((mended.gap < 0.7 * plain.gap).sum())
    assert better > 12


def test_alternating_directions_refuse_large_codes(monkeypatch):
    monkeypatch.setattr("triptych.sparse.deep.coding.DENSE", 0)
    with pytest.raises(InputError, match="alternating directions need deepest codes of few coefficients"):
        pursue_layers(coding_of(), "alternating")
    assert pursue_layers(coding_of(), "exact", tol=1e-4, max_steps=2000).solution.converged


def test_the_power_method_finds_the_norm():
    coding = coding_of()
    K = coding.map
    eye = torch.eye(coding.start()[0].numel(), dtype=F64).reshape(-1, *coding.start().shape[1:])
    M = K.forward(eye).T
    rows = torch.repeat_interleave(torch.tensor([1.0, 0.5, 2.0], dtype=F64), torch.tensor(K.sizes))
    exact = float(torch.linalg.matrix_norm(rows[:, None] * M, 2))
    assert 0.97 * exact <= operator_norm(K, coding.start()[:1], (1.0, 0.5, 2.0)) <= exact * (1 + 1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reg": (0.1, 0.1)}, "reg must be a number, or 3 of them"),
        ({"reg": -0.1}, "reg must be"),
        ({"reg_scale": "relative"}, "reg_scale must be one of"),
        ({"signals": torch.zeros(1, 2, 31, dtype=F64)}, "signals must be"),
        ({"signals": torch.zeros(1, 1, 6, dtype=F64)}, "layer 2: signals must be at least"),
        ({"signals": torch.full((1, 1, 31), torch.nan, dtype=F64)}, "signals must be finite"),
    ],
)
def test_wrong_problems_are_refused(change, message):
    given = {"signals": torch.zeros(1, 1, 31, dtype=F64), "reg": 0.1, "reg_scale": "absolute", **change}
    with pytest.raises(InputError, match=message):
        MultiLayerCoding(model_of(), **given)


def test_a_model_of_zeros_has_the_code_zero():
    layers = (ConvDictionary(torch.zeros(2, 1, 3, dtype=F64)), ConvDictionary(torch.zeros(3, 2, 2, dtype=F64)))
    coding = MultiLayerCoding(MultiLayerDictionary(layers), torch.ones(1, 1, 8, dtype=F64), 0.1, "absolute")
    for method in ("ml-fista", "alternating", "primal-dual"):
        assert not bool(pursue_layers(coding, method, max_steps=20).codes[-1].any())


def test_wrong_calls_are_refused():
    coding = coding_of()
    with pytest.raises(InputError, match="padding must be 3 whole numbers"):
        MultiLayerDictionary(coding.model.layers, 1)
    assert (
        MultiLayerCoding(coding.model, coding.signals, torch.tensor(0.1), "absolute").lam()[2].tolist()
        == [pytest.approx(0.1)] * 3
    )
    with pytest.raises(InputError, match="method must be one of"):
        pursue_layers(coding, "fista")
    with pytest.raises(InputError, match="start must be of shape"):
        pursue_layers(coding, "ml-fista", start=torch.zeros(1, 10, 4, dtype=F64))
    with pytest.raises(InputError, match="kind must be one of"):
        layered_thresholding(coding.model, coding.signals, 0.1, "relu")
    with pytest.raises(InputError, match="thresholds must be"):
        layered_thresholding(coding.model, coding.signals, (0.1, 0.1))
    with pytest.raises(InputError, match="thresholds"):
        layered_thresholding(coding.model, coding.signals, -0.1, "soft")
    with pytest.raises(InputError, match="weighting must be one of"):
        ml_fista(coding, weighting="listing")
    with pytest.raises(InputError, match="shorten"):
        ml_ista(coding, 1.5)


def test_a_certificate_of_a_dual_point_outside_its_box_is_no_bound():
    """The conjugate is infinite there: nothing is promised rather than too much."""
    coding = coding_of()
    theta = torch.full((3, sum(coding.map.sizes)), 10.0, dtype=F64)
    found = certify(coding.problem(), Iterate(coding.start(), theta=theta))
    assert bool((found.lower_bound <= 0).all())
