"""What `stable_codes` promises of every signal near by, against exact codes of signals that are moved, at random and on purpose."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch.nn import functional as F

from triptych.check import InputError
from triptych.sparse import ConvDictionary
from triptych.sparse.deep import MultiLayerDictionary, StableCodes, stable_codes

LAM, RIDGE = (0.05, 0.03), (0.3, 0.2)


def model(padding: int = 0, stride: int = 2, seed: int = 0) -> MultiLayerDictionary:
    rng = torch.Generator().manual_seed(seed)
    first = torch.randn(5, 1, 4, generator=rng, dtype=torch.float64)
    second = torch.rand(6, 5, 3, generator=rng, dtype=torch.float64)
    layers = ConvDictionary(first, stride).normalise(), ConvDictionary(second).normalise()
    return MultiLayerDictionary(layers, (padding, padding))


def signals(count: int = 4, n: int = 14) -> torch.Tensor:
    return 2 * torch.randn(count, 1, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def exact_layer(D: np.ndarray, y: np.ndarray, lam: float, ridge: float) -> np.ndarray:
    """The elastic net by scipy's active set method: the linear term becomes part of what is fitted."""
    wide = np.vstack([D, np.sqrt(ridge) * np.eye(D.shape[1])])
    target = np.concatenate([y, np.zeros(D.shape[1])])
    return nnls(wide, target - lam * wide @ np.linalg.solve(wide.T @ wide, np.ones(D.shape[1])))[0]


def exact(model: MultiLayerDictionary, x: torch.Tensor) -> list[torch.Tensor]:
    """Exact codes of signals ``(b, 1, n)``, each layer's as a matrix (b, coefficients)."""
    found, shape = [], x.shape[2:]
    for i, (lam, ridge) in enumerate(zip(LAM, RIDGE), 1):
        matrix = model._matrix(i, shape).numpy()
        x = torch.from_numpy(np.stack([exact_layer(matrix, row, lam, ridge) for row in x.flatten(1).numpy()]))
        found.append(x)
        shape = model.code_shapes(signals().shape[2:])[i - 1]
    return found


def moved(found: StableCodes, x: torch.Tensor, radius: torch.Tensor, seed: int) -> torch.Tensor:
    """Signals at the radius (b,), half of them moved at random, half towards the coefficient of the first layer that enters next."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if seed % 2:
        coding, code = found.codings[0], found.codes[0]
        lead = coding.map.adjoint(coding.target - coding.map.forward(code)).masked_fill(code != 0, -torch.inf)
        nearest = F.one_hot(lead.flatten(1).argsort(descending=True)[:, seed // 2], lead[0].numel())
        v = coding.map.forward(nearest.double().reshape(code.shape))[:, :1]
    return x + radius.reshape(-1, 1, 1) * v / v.flatten(1).norm(dim=1).reshape(-1, 1, 1)


@pytest.mark.parametrize("padding", [0, 1])
def test_the_codes_are_those_of_an_active_set_method(padding: int) -> None:
    D, x = model(padding), signals()
    found = stable_codes(D, x, LAM, RIDGE)
    for got, want, off in zip(found.codes, exact(D, x), found.off.T):
        assert 0 < int((want > 0).sum()) < want.numel()
        assert bool(((got.flatten(1) - want).norm(dim=1) <= off + 1e-9).all())
        assert float(off.max()) < 1e-3


def test_how_far_codes_are_from_exact_ones_is_bounded_and_not_by_much() -> None:
    D, x = model(), signals()
    rough = stable_codes(D, x, LAM, RIDGE, tol=1e-2)
    ratios = []
    for got, want, off in zip(rough.codes, exact(D, x), rough.off.T):
        away = (got.flatten(1) - want).norm(dim=1)
        assert float(away.max()) > 1e-5
        assert bool((away <= off).all())
        ratios.append(float((away / off).max()))
    assert min(ratios) > 0.05


@pytest.mark.parametrize("radius", [0.01, 0.05, 0.2])
def test_what_is_promised_of_supports_holds_for_signals_that_are_moved(radius: float) -> None:
    D, x = model(), signals()
    found = stable_codes(D, x, LAM, RIDGE)
    promised = found.support(radius)
    said = [sum(int(mask.sum()) for mask in pair) for pair in promised]
    assert said[0] > 0
    assert radius > 0.1 or said[1] > 0
    for seed in range(12):
        near = exact(D, moved(found, x, torch.full((4,), radius), seed))
        for (out, kept), code in zip(promised, near):
            assert not bool((code[out.flatten(1)] > 1e-9).any())
            assert bool((code[kept.flatten(1)] > 0).all())


def test_within_the_radius_supports_are_the_same_and_a_little_beyond_the_first_is_not() -> None:
    D, x = model(), signals(12)
    found = stable_codes(D, x, LAM, RIDGE, tol=1e-13)
    radii = found.support_radius()
    assert radii.shape == (12, 2)
    assert bool((radii[:, 0] > 0).all())
    for i in range(2):
        for seed in range(8):
            near = exact(D, moved(found, x, 0.999 * radii[:, i], seed))[i]
            assert torch.equal(near > 1e-12, found.codes[i].flatten(1) > 0)
    changed = torch.zeros(12, dtype=torch.bool)
    for seed in range(24):
        near = exact(D, moved(found, x, 6 * radii[:, 0], seed))[0]
        changed |= ((near > 1e-12) != (found.codes[0].flatten(1) > 0)).any(1)
    assert float(changed.double().mean()) > 0.5


def test_labels_hold_within_the_radius_under_attack_and_not_far_beyond_it() -> None:
    D, x = model(), signals(12)
    rng = torch.Generator().manual_seed(5)
    weights, bias = torch.randn(3, 24, generator=rng).double(), torch.zeros(3).double()
    found = stable_codes(D, x, LAM, RIDGE)
    assert found.codes[1][0].numel() == 24
    sure = found.certify(weights, bias)
    label = (found.codes[1].flatten(1) @ weights.T + bias).argmax(1)
    assert torch.equal(sure.label, label)
    assert float(sure.radius.median()) > 0.01
    alone = torch.linalg.matrix_norm(D._matrix(1, x.shape[2:]), 2) <= RIDGE[0] ** 0.5
    assert not bool(alone)  # so that both constants are 1 / (2 sqrt(ridge)), and the margin alone gives a radius
    far = (weights[:, None] - weights).norm(dim=2).max()
    assert bool((sure.radius >= 0.99 * sure.margin / far * 4 * (RIDGE[0] * RIDGE[1]) ** 0.5 - 1e-3).all())
    assert torch.equal(attacked(D, x, weights, label, 0.999 * sure.radius), label)
    assert bool((attacked(D, x, weights, label, 20 * sure.radius + 1e-3) != label).any())


def attacked(
    D: MultiLayerDictionary, x: torch.Tensor, weights: torch.Tensor, label: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """Labels at the end of gradient steps on the least lead, through both layers, in balls; exact codes."""
    matrices = [D._matrix(i, s) for i, s in ((1, x.shape[2:]), (2, D.code_shapes(x.shape[2:])[0]))]
    v = torch.zeros_like(x)
    for _ in range(15):
        one, two = exact(D, x + v)
        scores = two @ weights.T
        rival = scores.scatter(1, label[:, None], -torch.inf).argmax(1)
        away = []
        for j in range(len(x)):
            a = weights[label[j]] - weights[rival[j]]
            for code, matrix, ridge in zip((two[j], one[j]), matrices[::-1], RIDGE[::-1]):
                A = matrix[:, code > 0]
                a = A @ torch.linalg.solve(A.T @ A + ridge * torch.eye(A.shape[1]).double(), a[code > 0])
            away.append(a)
        g = torch.stack(away).reshape(x.shape)
        v = v - 0.3 * radius.reshape(-1, 1, 1) * F.normalize(g.flatten(1)).reshape(x.shape)
        v = v * (radius / v.flatten(1).norm(dim=1).clamp_min(1e-300)).clamp_max(1).reshape(-1, 1, 1)
    return (exact(D, x + v)[1] @ weights.T).argmax(1)


def test_one_layer_is_certified_as_basis_pursuit_is() -> None:
    from triptych.sparse import certified_radius

    D, x = model(), signals()
    one = MultiLayerDictionary(D.layers[:1])
    found = stable_codes(one, x, LAM[0], RIDGE[0])
    weights, bias = torch.randn(3, found.codes[0][0].numel()).double(), torch.zeros(3).double()
    gap = found.short[:, 0].square() / (2 * RIDGE[0])
    alone = certified_radius(found.codings[0], found.codes[0], gap, weights, bias)
    assert bool((found.certify(weights, bias).radius >= 0.999999 * alone.radius).all())


@pytest.mark.parametrize(
    ("lam", "ridge", "says"),
    [(0.0, 1.0, "lam must be"), (1.0, 0.0, "ridge must be"), ((1.0,), 1.0, "lam must be one number, or 2 of them")],
)
def test_wrong_values_are_refused(lam: object, ridge: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        stable_codes(model(), signals(), lam, ridge)  # pyright: ignore[reportArgumentType]
