"""ConvDictionary against its dense matrix, built here atom by atom from index arithmetic alone."""

import itertools

import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.convex import adjoint_error
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.fold import fold

F64 = torch.float64
CASES = [
    (size, channels, stride, boundary, shape)
    for size, shapes in {(5,): [(15,), (16,), (17,)], (4, 3): [(9, 12), (10, 11)], (1, 2): [(6, 6)]}.items()
    for channels, stride in itertools.product((1, 2), (1, 2, 3))
    for boundary in ("valid", "circular")
    for shape in shapes
]
whole = pytest.mark.parametrize(("size", "channels", "stride", "boundary", "shape"), CASES)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def made(size, channels, stride, boundary, shape, k=3):
    """A random dictionary, and the shape that its boundary allows."""
    if boundary == "circular":
        shape = tuple(n - n % stride for n in shape)
    atoms = torch.randn(k, channels, *size, dtype=F64, generator=rng())
    return ConvDictionary(atoms, stride, boundary), shape


def dense(D, shape):
    """Columns in the order of codes (k, *places): every atom written at every place, sample by sample."""
    columns = []
    places = [range(0, N if D.boundary == "circular" else N - n + 1, D.stride) for N, n in zip(shape, D.size)]
    for atom in D.atoms:
        for place in itertools.product(*places):
            signal = torch.zeros(D.channels, *shape, dtype=F64)
            for offset in itertools.product(*map(range, D.size)):
                where = tuple((p + o) % N for p, o, N in zip(place, offset, shape))
                signal[(slice(None), *where)] += atom[(slice(None), *offset)]
            columns.append(signal.flatten())
    return torch.stack(columns, 1)


@whole
def test_synthesis_analysis_and_the_matrix_are_the_dense_ones(size, channels, stride, boundary, shape):
    D, shape = made(size, channels, stride, boundary, shape)
    M = dense(D, shape)
    torch.testing.assert_close(D.matrix(shape), M, rtol=0, atol=0)
    places = D.code_shape(shape)
    x = torch.randn(2, 3, *places, dtype=F64, generator=rng(1))
    y = torch.randn(2, channels, *shape, dtype=F64, generator=rng(2))
    torch.testing.assert_close(D.synthesise(x, shape).flatten(1), x.flatten(1) @ M.T)
    torch.testing.assert_close(D.analyse(y).flatten(1), y.flatten(1) @ M)
    assert (adjoint_error(D.on(shape), x, y) < 1e-14).all()
    small = D.signal_shape(places)
    torch.testing.assert_close(D.synthesise(x), D.synthesise(x, shape)[(..., *(slice(n) for n in small))])
    torch.testing.assert_close(
        D.synthesise(x.float(), shape).flatten(1).double(), x.flatten(1) @ M.T, rtol=1e-5, atol=1e-5
    )


@whole
def test_the_lipschitz_constant_is_the_largest_eigenvalue(size, channels, stride, boundary, shape):
    D, shape = made(size, channels, stride, boundary, shape)
    exact = float(torch.linalg.matrix_norm(dense(D, shape), 2) ** 2)
    bound = D.lipschitz(shape)
    if boundary == "circular":
        assert bound == pytest.approx(exact, rel=1e-10)
    else:
        assert exact <= bound * (1 + 1e-12)
        assert bound <= 1.6 * exact


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("size", "shape", "at"), [((5,), (25,), (3,)), ((4, 3), (18, 15), (2, 2))])
def test_the_gram_holds_the_products_of_atoms_at_their_distance(stride, size, shape, at):
    D = ConvDictionary(torch.randn(3, 2, *size, dtype=F64, generator=rng()), stride)
    shape = tuple(n * stride for n in shape)
    places = D.code_shape(shape)
    M = dense(D, shape).T.reshape(3, *places, -1)
    G = D.gram()
    q = [(n - 1) // stride for n in size]
    assert G.shape == (3, 3, *(2 * r + 1 for r in q))
    at = tuple(a + r for a, r in zip(at, q))
    for t in itertools.product(*(range(-r, r + 1) for r in q)):
        there = tuple(a + s for a, s in zip(at, t))
        expected = M[(slice(None), *at)] @ M[(slice(None), *there)].T
        torch.testing.assert_close(G[(..., *(s + r for s, r in zip(t, q)))], expected)


def test_normalised_atoms_have_norm_one():
    D = ConvDictionary(torch.randn(4, 2, 5, 3, generator=rng()) * 7).normalise()
    torch.testing.assert_close(D.atoms.square().sum((1, 2, 3)), torch.ones(4))
    torch.testing.assert_close(D.norms, torch.ones(4))


@pytest.mark.parametrize("padding", [0, 2, "same", "valid"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False, None], ids=["affine", "plain", "no norm"])
@pytest.mark.parametrize("dims", [1, 2])
def test_a_convolution_and_its_batch_norm_are_an_analysis(dims, affine, bias, padding):
    torch.manual_seed(0)
    stride = 1 if padding == "same" else 2
    conv = (nn.Conv1d, nn.Conv2d)[dims - 1](3, 5, 5, stride=stride, padding=padding, bias=bias)
    norm = None if affine is None else (nn.BatchNorm1d, nn.BatchNorm2d)[dims - 1](5, affine=bool(affine))
    net = nn.Sequential(conv, *([] if norm is None else [norm]))
    for _ in range(3):  # statistics that are not 0 and 1
        net(2 + 3 * torch.randn(8, 3, *(14,) * dims))
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, *(14,) * dims)
    folded = fold(conv, norm)
    torch.testing.assert_close(folded.forward(x), net.eval()(x), rtol=1e-5, atol=1e-5)
    before = folded.dictionary.atoms.clone()
    with torch.no_grad():
        conv.weight.zero_()
    assert torch.equal(folded.dictionary.atoms, before)


@pytest.mark.parametrize(
    ("conv", "norm", "says"),
    [
        (nn.Linear(3, 3), None, "conv must be a torch.nn.Conv1d or Conv2d"),
        (nn.Conv2d(4, 4, 3, groups=2), None, "groups=1"),
        (nn.Conv2d(4, 4, 3, dilation=2), None, "dilation=1"),
        (nn.Conv2d(4, 4, 3, stride=(1, 2)), None, "the same on both axes"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), None, "padding_mode"),
        (nn.Conv2d(4, 4, 4, padding="same"), None, "even"),
        (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(5), "a BatchNorm of 4 channels"),
        (nn.Conv2d(4, 4, 3), nn.LayerNorm(4), "a BatchNorm of 4 channels"),
        (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), "running statistics"),
    ],
)
def test_what_is_no_dictionary_is_not_folded(conv, norm, says):
    with pytest.raises(InputError, match=says):
        fold(conv, norm)


ATOMS = torch.ones(2, 1, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ConvDictionary(torch.ones(2, 3)), r"atoms must be a floating-point tensor \(k, c, n\)"),
        (lambda: ConvDictionary(torch.ones(2, 1, 3, 3, 3)), "atoms must be"),
        (lambda: ConvDictionary(torch.ones(2, 1, 3, dtype=torch.int64)), "atoms must be"),
        (lambda: ConvDictionary(torch.ones(0, 1, 3)), "atoms must be"),
        (lambda: ConvDictionary([[1.0]]), "atoms must be"),
        (lambda: ConvDictionary(torch.tensor([[[1.0, torch.nan]]])), "atoms must be finite"),
        (lambda: ConvDictionary(ATOMS, stride=0), "stride must be"),
        (lambda: ConvDictionary(ATOMS, boundary="same"), "boundary must be one of valid, circular"),
        (lambda: ConvDictionary(torch.zeros(2, 1, 3)).normalise(), "atom 0 is 0"),
        (lambda: ConvDictionary(ATOMS).analyse(torch.ones(1, 1, 2)), "at least as large as the atoms"),
        (
            lambda: ConvDictionary(ATOMS).analyse(torch.ones(1, 2, 9)),
            r"signals must be a floating-point tensor \(b, 1, n\)",
        ),
        (lambda: ConvDictionary(ATOMS).analyse(torch.ones(1, 1, 9).long()), "signals must be"),
        (
            lambda: ConvDictionary(ATOMS).synthesise(torch.ones(1, 3, 9)),
            r"codes must be a floating-point tensor \(b, 2, n\)",
        ),
        (lambda: ConvDictionary(ATOMS).synthesise(torch.ones(1, 2, 9), (10,)), r"codes must be \(b, 2, 8\)"),
        (lambda: ConvDictionary(ATOMS, 2, "circular").analyse(torch.ones(1, 1, 9)), "multiple of the stride"),
        (lambda: ConvDictionary(ATOMS).on((9, 9)), "shape must be one whole number an axis"),
    ],
)
def test_bad_dictionaries_and_shapes_are_refused_with_a_sentence(make, says):
    with pytest.raises(InputError, match=says):
        make()
