"""`CSCLayer` against other solvers, its gradients against finite differences, and as a module among modules."""

import copy
import warnings

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from triptych.check import InputError
from triptych.sparse import Coding, ConvDictionary, CSCLayer, pursue
from triptych.sparse.layer import lipschitz_bound

F64 = torch.float64
CASES = {
    "line": (2, 3, (4,), 1, "valid", (14,)),
    "circle with a stride": (1, 3, (4,), 2, "circular", (12,)),
    "picture": (1, 3, (3, 2), 1, "valid", (6, 7)),
    "torus with a stride": (2, 4, (3, 3), 3, "circular", (6, 6)),
    "stride": (1, 5, (4, 4), 2, "valid", (9, 8)),
}


def made(case, seed=0, **options):
    c, k, size, stride, boundary, shape = case
    torch.manual_seed(seed)
    layer = CSCLayer(c, k, size, stride=stride, boundary=boundary, **{"lam": 0.15, **options}).to(F64)
    with torch.no_grad():
        layer.weight /= layer.dictionary.norms.reshape(-1, *(1,) * (len(size) + 1))
        layer.lam.copy_(0.1 + 0.2 * torch.rand(k, dtype=F64))
    return layer, torch.randn(2, c, *shape, dtype=F64)


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_many_steps_and_the_solved_layer_are_basis_pursuit(case, nonnegative):
    layer, y = made(case, nonnegative=nonnegative, steps=3000)
    weights = layer.lam.detach().reshape(1, -1, *(1,) * (y.ndim - 2))
    coding = Coding(layer.dictionary, y, 1.0, "absolute", weights=weights, nonnegative=nonnegative)
    x = pursue(coding, "fista", tol=1e-12, max_steps=20_000).codes.dense()
    best = coding.objective(x)
    for implicit in (False, True):
        layer.implicit, layer.tol = implicit, 1e-13
        torch.testing.assert_close(coding.objective(layer(y).detach()), best, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_bound_is_above_the_largest_eigenvalue_and_near_it(case):
    """On signals of several shapes, by the dense matrix."""
    c, k, size, stride, boundary, _ = case
    D = ConvDictionary(torch.randn(k, c, *size, dtype=F64), stride, boundary)
    bound = float(lipschitz_bound(D))
    found = [
        float(torch.linalg.matrix_norm(D.matrix(tuple(m * stride * times for m in size)), 2) ** 2)
        for times in (1, 2, 3)
    ]
    assert bound >= max(found) * (1 - 1e-12)
    assert bound <= 1.25 * float(D.lipschitz(tuple(24 * stride * n for n in size)))


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients(case, implicit, nonnegative):
    """For signals, atoms and weights, by finite differences in float64."""
    steps = 5000 if implicit else 4
    layer, y = made(case, implicit=implicit, nonnegative=nonnegative, steps=steps, tol=1e-12)

    def function(y, weight, lam):
        return torch.func.functional_call(layer, {"weight": weight, "lam": lam}, (y,))

    inputs = (
        y.requires_grad_(),
        layer.weight.detach().clone().requires_grad_(),
        layer.lam.detach().clone().requires_grad_(),
    )
    assert bool((function(*inputs) != 0).any())
    assert torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-5, fast_mode=implicit)


@pytest.mark.parametrize("norm", [False, True])
def test_one_step_is_the_convolution_it_was_made_from(norm):
    """ReLU(BatchNorm(conv(y))) times the step size, also where biases are positive."""
    torch.manual_seed(0)
    conv, batchnorm = nn.Conv2d(2, 5, 3, stride=2), nn.BatchNorm2d(5)
    batchnorm(conv(torch.randn(64, 2, 9, 9)))
    batchnorm.eval()
    layer = CSCLayer.from_conv(conv, batchnorm if norm else None, steps=1)
    y = torch.randn(3, 2, 9, 9)
    expected = torch.relu(batchnorm(conv(y)) if norm else conv(y))
    torch.testing.assert_close(layer(y) * lipschitz_bound(layer.dictionary), expected, rtol=1e-5, atol=1e-6)
    assert bool((layer.lam < 0).any())


@pytest.mark.parametrize(("padding", "zeros"), [(1, (1, 1)), ("same", (1, 2)), ((2, 0), (2, 0))])
def test_a_convolution_keeps_its_padding(padding, zeros):
    """One step is the convolution; solved, it codes the signal with its zeros; what is synthesised has the signal's shape."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 4, (3, 5), padding=padding).to(F64)
    y = torch.randn(2, 1, 8, 9, dtype=F64)
    layer = CSCLayer.from_conv(conv, steps=1)
    torch.testing.assert_close(layer(y) * lipschitz_bound(layer.dictionary), torch.relu(conv(y)))
    assert f"padding={zeros}" in repr(layer)
    solved = CSCLayer.from_conv(conv, steps=20_000, implicit=True, tol=1e-12)
    x = solved(y).detach()
    around = torch.zeros(2, 1, 8 + 2 * zeros[0], 9 + 2 * zeros[1], dtype=F64)
    inner = (..., slice(zeros[0], zeros[0] + 8), slice(zeros[1], zeros[1] + 9))
    around[inner] = y
    D, lam = solved.dictionary, solved.lam.detach().reshape(-1, 1, 1)
    slope = D.analyse(around - D.synthesise(x, around.shape[2:])) - lam
    assert float(slope.max()) < 1e-9
    assert float(slope[x > 0].abs().max()) < 1e-9
    torch.testing.assert_close(solved.synthesise(x), D.synthesise(x, around.shape[2:])[inner])
    torch.testing.assert_close(solved.synthesise(x, (8, 9)), solved.synthesise(x))
    with pytest.raises(InputError, match="padding is the convolution's"):
        CSCLayer.from_conv(conv, padding=0)


def test_what_has_not_settled_says_so():
    layer, y = made(CASES["picture"], implicit=True, steps=3, tol=1e-9)
    with pytest.warns(ConvergenceWarning, match="codes have not settled"):
        x = layer(y)
    with pytest.warns(ConvergenceWarning, match="gradients have not settled"):
        x.sum().backward()
    layer, y = made(CASES["picture"], implicit=True, tol=1e-9)
    assert layer.steps == 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(y).sum().backward()


def test_second_derivatives_of_the_solved_layer_are_refused():
    layer, y = made(CASES["picture"], implicit=True)
    (slope,) = torch.autograd.grad(layer(y.requires_grad_()).square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("implicit", [False, True])
def test_half_precision(implicit):
    """bfloat16 and float16 by type, bfloat16 by autocast: the same codes and gradients but for their rounding."""
    layer, y = made(CASES["picture"], implicit=implicit, tol=1e-4)
    layer, y = layer.float(), y.float()

    def run(layer, y):
        layer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            x = layer(y)
            x.float().square().sum().backward()
        return x.detach().float(), layer.weight.grad.float()

    def near(found, exact):
        return all(float((a - b).norm() / b.norm()) < 0.1 for a, b in zip(found, exact))

    exact = run(layer, y)
    for dtype in (torch.bfloat16, torch.float16):
        assert copy.deepcopy(layer).to(dtype)(y.to(dtype)).dtype == dtype
        assert near(run(copy.deepcopy(layer).to(dtype), y.to(dtype)), exact)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(layer, y)
    assert near(found, exact)


def test_more_steps_lower_the_objective_of_a_converted_layer():
    torch.manual_seed(0)
    conv, y = nn.Conv2d(1, 6, 5), torch.randn(2, 1, 12, 12)

    def objective(layer):
        x = layer(y)
        r = y - layer.synthesise(x, (12, 12))
        return float((r.square().sum() / 2 + (layer.lam.reshape(-1, 1, 1) * x).sum()).detach())

    values = [objective(CSCLayer.from_conv(conv, steps=n)) for n in (1, 5, 100)]
    assert values[0] > values[1] > values[2]


def test_it_learns_as_part_of_a_network():
    """Two classes of bumps, told apart by a layer and a linear read-out, both ways of differentiating."""
    for implicit in (False, True):
        torch.manual_seed(0)
        layer = CSCLayer(1, 4, 5, ndim=1, steps=5000 if implicit else 5, implicit=implicit, lam=0.05, tol=1e-5)
        net = nn.Sequential(layer, nn.Flatten(), nn.Linear(4 * 16, 2))
        y = torch.arange(40) % 2
        signals = 0.1 * torch.randn(40, 1, 20)
        signals[:, 0, 6:11] += torch.where(
            y[:, None] == 1, torch.tensor([1.0, 2, 3, 2, 1]), torch.tensor([1.0, -1, 2, -1, 1])
        )
        optimiser = torch.optim.Adam(net.parameters(), 0.02)
        first = layer.weight.detach().clone()
        for _ in range(40):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(net(signals), y)
            loss.backward()
            optimiser.step()
        assert float(loss.detach()) < 0.05
        assert not torch.equal(layer.weight, first)


def test_where_columns_depend_on_each_other_gradients_stay_finite():
    """Two atoms that are the same, both in the code: what the two share is differentiated, how they share it is not."""
    layer = CSCLayer(1, 2, (2,), stride=2, implicit=True, steps=100).to(F64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[0.6, 0.8]], [[0.6, 0.8]]]))
    y = torch.tensor([[[3.0, 4.0]]], dtype=F64, requires_grad=True)
    x = layer(y)
    assert bool((x > 0).all())
    x.sum().backward()
    torch.testing.assert_close(y.grad, torch.tensor([[[0.6, 0.8]]], dtype=F64))
    layer(y)[0, 0].sum().backward()
    assert bool(layer.weight.grad.isfinite().all())


def test_it_is_a_module_like_others():
    layer, y = made(CASES["picture"])
    assert {name for name, _ in layer.named_parameters()} == {"weight", "lam"}
    other, _ = made(CASES["picture"], seed=1)
    assert not torch.equal(other(y), layer(y))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(y), layer(y))
    assert torch.equal(copy.deepcopy(layer)(y), layer(y))
    half = copy.deepcopy(layer).float()
    assert half(y.float()).dtype == torch.float32
    assert "steps=10" in repr(layer)
    assert "implicit" in repr(made(CASES["picture"], implicit=True)[0])


BAD = {
    "three axes": ({"size": (3, 3, 3)}, "size"),
    "size 0": ({"size": 0}, "size"),
    "no atoms": ({"n_atoms": 0}, "n_atoms"),
    "no step": ({"steps": 0}, "steps"),
    "negative lam": ({"lam": -0.1}, "lam"),
    "a boundary": ({"boundary": "same"}, "boundary"),
    "no tolerance": ({"tol": 0.0}, "tol"),
    "volumes": ({"ndim": 3}, "ndim"),
    "padding below 0": ({"padding": -1}, "padding"),
    "padding of three axes": ({"padding": (1, 1, 1)}, "padding"),
}


@pytest.mark.parametrize(("wrong", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_refused(wrong, message):
    with pytest.raises(InputError, match=f"{message} must be"):
        CSCLayer(**{"channels": 1, "n_atoms": 2, "size": 3, **wrong})


def test_signals_that_do_not_fit_are_refused():
    layer = CSCLayer(1, 2, 3)
    with pytest.raises(InputError, match="signals must be"):
        layer(torch.zeros(1, 2, 8, 8))
    with pytest.raises(InputError, match="at least as large as the atoms"):
        layer(torch.zeros(1, 1, 2, 2))
    with pytest.raises(InputError, match="shape must be"):
        layer.synthesise(torch.zeros(1, 2, 6, 6), (8, 8, 8))
    with pytest.raises(InputError, match="not negative"):
        CSCLayer.from_conv(nn.Conv2d(1, 2, 3), nonnegative=False)
