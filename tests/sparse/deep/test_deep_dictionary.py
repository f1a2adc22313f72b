"""MultiLayerDictionary against products of the layers' dense matrices."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from triptych.check import InputError
from triptych.convex import adjoint_error
from triptych.sparse import ConvDictionary
from triptych.sparse.deep.coding import Cascade
from triptych.sparse.deep.dictionary import MultiLayerDictionary

F64 = torch.float64


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def made(sizes, strides, boundary="valid", padding=None, ndim=1, atoms=(3, 4, 5), channels=2):
    """Random layers."""
    layers, c = [], channels
    for i, (size, stride, k) in enumerate(zip(sizes, strides, atoms)):
        layers.append(ConvDictionary(torch.randn(k, c, *(size,) * ndim, dtype=F64, generator=rng(i)), stride, boundary))
        c = k
    return MultiLayerDictionary(tuple(layers), padding)


CASES = [
    ((4, 3), (1, 1), "valid", 1, (19,)),
    ((4, 3), (2, 3), "valid", 1, (27,)),
    ((4, 3, 2), (3, 2, 1), "valid", 1, (41,)),
    ((3, 2), (2, 1), "valid", 2, (11, 13)),
    ((3, 2), (2, 2), "circular", 1, (24,)),
    ((3, 2), (1, 2), "circular", 2, (10, 12)),
]
cases = pytest.mark.parametrize(("sizes", "strides", "boundary", "ndim", "shape"), CASES)


@cases
def test_the_cascade_is_the_product_of_the_dense_matrices(sizes, strides, boundary, ndim, shape):
    model = made(sizes, strides, boundary, ndim=ndim)
    shapes = (shape, *model.code_shapes(shape))
    matrices = [D.matrix(s) for D, s in zip(model.layers, shapes)]
    deep = torch.randn(2, model.n_atoms[-1], *shapes[-1], dtype=F64, generator=rng(9))
    flat = deep.flatten(1).T
    found = model.cascade(deep, shape)
    assert len(found) == len(model) + 1
    for M, code, expected_shape in zip(reversed(matrices), reversed(found[:-1]), reversed(shapes[:-1])):
        flat = M @ flat
        torch.testing.assert_close(code.flatten(1).T, flat)
        assert tuple(code.shape[2:]) == expected_shape


@cases
def test_effective_dictionaries_are_the_products(sizes, strides, boundary, ndim, shape):
    model = made(sizes, strides, boundary, ndim=ndim)
    shapes, product = (shape, *model.code_shapes(shape)), None
    for i, (D, s) in enumerate(zip(model.layers, shapes), 1):
        product = D.matrix(s) if product is None else product @ D.matrix(s)
        effective = model.effective(i)
        torch.testing.assert_close(effective.matrix(shape), product)
        assert effective.code_shape(shape) == shapes[i]


@pytest.mark.parametrize("padding", [None, (1, 0), (2, 1)])
def test_up_and_down_are_adjoints_and_a_padded_convolution(padding):
    model = made((4, 3), (2, 1), padding=padding, ndim=2)
    shape = (12, 15)
    K = Cascade(model, shape)
    x = torch.randn(2, model.n_atoms[-1], *model.code_shapes(shape)[-1], dtype=F64, generator=rng(1))
    z = torch.randn(2, sum(K.sizes), dtype=F64, generator=rng(2))
    assert float(adjoint_error(K, x, z).max()) < 1e-13
    y = torch.randn(2, 2, *shape, dtype=F64, generator=rng(3))
    p = 0 if padding is None else padding[0]
    torch.testing.assert_close(model.up(1, y), F.conv2d(y, model.layers[0].atoms, stride=2, padding=p), rtol=0, atol=0)


def test_analyse_is_the_adjoint_of_synthesise():
    model, shape = made((4, 3), (2, 1), ndim=2), (14, 13)
    M = model.effective().matrix(shape)
    y = torch.randn(3, 2, *shape, dtype=F64, generator=rng(4))
    torch.testing.assert_close(model.analyse(y).flatten(1), y.flatten(1) @ M)


@cases
def test_the_lipschitz_constants_bound_the_dense_norms(sizes, strides, boundary, ndim, shape):
    model = made(sizes, strides, boundary, ndim=ndim)
    for i, (D, s) in enumerate(zip(model.layers, (shape, *model.code_shapes(shape))), 1):
        exact = float(torch.linalg.matrix_norm(D.matrix(s), 2)) ** 2
        assert exact * (1 - 1e-12) <= model.lipschitz(i, s) <= 1.0001 * exact  # all small: dense


def test_the_bound_of_large_codes_is_above_the_dense_norm(monkeypatch):
    monkeypatch.setattr("triptych.sparse.deep.dictionary.DENSE", 0)
    model = made((4, 3), (2, 1), padding=(1, 1))
    for i, s in enumerate(((24,), model.code_shapes((24,))[0]), 1):
        exact = float(torch.linalg.matrix_norm(model._matrix(i, s), 2)) ** 2
        assert exact <= model.lipschitz(i, s) <= 4 * exact


def test_density_and_normalise():
    model = made((4, 3), (1, 1))
    atoms = model.layers[1].atoms.clone()
    atoms[:, 0] = 0
    sparse = MultiLayerDictionary((model.layers[0], ConvDictionary(atoms))).normalise()
    assert sparse.density() == (1.0, pytest.approx(2 / 3))
    for D in sparse.layers:
        torch.testing.assert_close(D.norms, torch.ones_like(D.norms))


@pytest.mark.parametrize(
    ("layers", "padding", "message"),
    [
        ((), None, "layers must be a tuple of at least one"),
        ((nn.Conv1d(1, 1, 3),), None, "layers must be a tuple of at least one"),
        ("mismatch", None, "layer 2 must have 3 channels"),
        ("boundary", None, "layer 2 must have 3 channels on 1 axes, valid"),
        ("fine", (0,), "padding must be 2 whole numbers"),
        ("fine", (0, -1), "padding"),
        ("circular", (1, 0), "padding is for boundary='valid'"),
    ],
)
def test_layers_that_do_not_follow_each_other_are_refused(layers, padding, message):
    D = made((4, 3), (1, 1)).layers
    circular = made((4, 3), (1, 1), "circular").layers
    named = {"mismatch": (D[0], D[0]), "boundary": (D[0], circular[1]), "fine": D, "circular": circular}
    with pytest.raises(InputError, match=message):
        MultiLayerDictionary(named[layers] if isinstance(layers, str) else layers, padding)


def test_signals_too_small_name_the_layer():
    with pytest.raises(InputError, match="layer 2: signals must be at least as large as the atoms"):
        made((4, 3), (1, 1)).code_shapes((5,))
    with pytest.raises(InputError, match="codes must be of the shape"):
        made((4, 3), (1, 1)).cascade(torch.zeros(1, 4, 7, dtype=F64), (19,))


@pytest.mark.parametrize(("stride", "padding"), list(itertools.product((1, 2), (0, 1))))
def test_a_signal_of_the_size_of_an_atom_is_a_product_of_matrices(stride, padding):
    """The shortcut for codes of one place is the convolution."""
    D = ConvDictionary(torch.randn(4, 3, 5, 5, dtype=F64, generator=rng()), stride)
    y = torch.randn(2, 3, 5, 5, dtype=F64, generator=rng(1))
    torch.testing.assert_close(D.analyse(y), F.conv2d(y, D.atoms, stride=stride))
    codes = torch.randn(2, 4, 1, 1, dtype=F64, generator=rng(2))
    torch.testing.assert_close(D.synthesise(codes, (5, 5)), F.conv_transpose2d(codes, D.atoms, stride=stride))
    wide = MultiLayerDictionary((D,), (padding,))
    torch.testing.assert_close(wide.up(1, y), F.conv2d(y, D.atoms, stride=stride, padding=padding))
