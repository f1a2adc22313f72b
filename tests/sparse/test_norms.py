"""Local norms against loops over windows, and against the columns of the dense dictionary whose supports meet."""

import itertools

import pytest
import torch

from triptych.check import InputError
from triptych.sparse.codes import Codes
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.norms import l0_patch, l0_stripe, l2_patch

F64 = torch.float64
B = 24


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def sparse(*shape, seed=1):
    """Codes with one coefficient in five, and as many only in the first signal's corners."""
    x = torch.randn(*shape, dtype=F64, generator=rng(seed))
    return x * (torch.rand(*shape, dtype=F64, generator=rng(seed + 1)) < 0.2)


def windows(space, size, boundary):
    """The samples of every window, as index lists for each axis."""
    starts = [range(N if boundary == "circular" else N - n + 1) for N, n in zip(space, size)]
    for start in itertools.product(*starts):
        yield [[(s + o) % N for o in range(n)] for s, n, N in zip(start, size, space)]


def patches(x, size, boundary):
    """Every patch of x (b, c, *space): a list of (b, c, *size)."""
    found = []
    for where in windows(x.shape[2:], size, boundary):
        patch = x
        for axis, index in enumerate(where, 2):
            patch = patch.index_select(axis, torch.tensor(index))
        found.append(patch)
    return found


STRIPES = [
    (size, stride, boundary, shape)
    for size, shapes in {
        (5,): [(6,), (12,), (30,)],
        (2,): [(12,)],
        (4, 3): [(6, 6), (12, 18)],
        (1, 5): [(6, 12)],
    }.items()
    for stride in (1, 2, 3)
    for boundary in ("valid", "circular")
    for shape in shapes
]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("size", "stride", "boundary", "shape"), STRIPES)
def test_a_stripe_holds_the_atoms_whose_supports_meet(size, stride, boundary, shape, channels):
    """Whatever the shape: also circular signals in which atoms meet at both of their ends."""
    k = 2
    D = ConvDictionary(torch.rand(k, channels, *size, dtype=F64, generator=rng()) + 0.1, stride, boundary)
    support = (D.matrix(shape) != 0).double()
    meets = (support.T @ support) > 0
    codes = sparse(B, k, *D.code_shape(shape))
    for tol in (0.0, 0.7):
        present = (codes.flatten(1).abs() > tol).long()
        expected = [max(int((row & (p > 0)).sum()) for row in meets) for p in present]
        got = l0_stripe(D, codes, tol)
        assert got.dtype == torch.int64
        assert got.tolist() == expected
        kept = l0_stripe(D, Codes.of(codes), tol)
        assert kept.dtype == torch.int64
        assert kept.tolist() == expected


def test_the_stripe_of_one_place_reaches_q_places_and_no_farther():
    """n = 5 at stride 2 reaches 2 places: two coefficients 4 apart share a stripe, 5 apart none; n = 6 the same."""
    for n in (5, 6):
        for distance, most in ((4, 2), (5, 1)):
            codes = torch.zeros(1, 1, 20, dtype=F64)
            codes[..., [7, 7 + distance]] = 1
            assert l0_stripe(ConvDictionary(torch.ones(1, 1, n, dtype=F64), 2), codes).tolist() == [most]


@pytest.mark.parametrize(("boundary", "most"), [("valid", 1), ("circular", 2)])
def test_the_ends_meet_in_circular_signals_alone(boundary, most):
    ends = torch.zeros(1, 1, 12, dtype=F64)
    ends[..., [0, -1]] = 1
    assert l0_stripe(ConvDictionary(torch.ones(1, 1, 3, dtype=F64), 1, boundary), ends).tolist() == [most]
    assert l0_patch(ends, (3,), boundary=boundary).tolist() == [most]
    assert l2_patch(ends, (3,), boundary).tolist() == pytest.approx([most**0.5])


PATCHES = [((11,), (n,)) for n in (1, 2, 3, 11)] + [((6, 7), n) for n in ((1, 1), (2, 3), (5, 2), (6, 7))]


@pytest.mark.parametrize("boundary", ["valid", "circular"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("space", "size"), PATCHES)
def test_patches_are_those_of_a_loop(space, size, channels, boundary):
    x = sparse(B, channels, *space)
    found = patches(x, size, boundary)
    for tol in (0.0, 0.7):
        expected = torch.stack([(p.abs() > tol).flatten(1).sum(1) for p in found]).amax(0)
        got = l0_patch(x, size, tol, boundary)
        assert got.dtype == torch.int64
        assert got.tolist() == expected.tolist()
    expected = torch.stack([p.flatten(1).norm(dim=1) for p in found]).amax(0)
    torch.testing.assert_close(l2_patch(x, size, boundary), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("boundary", ["valid", "circular"])
def test_the_patch_of_no_size_is_the_whole_map(boundary):
    x = sparse(B, 2, 5, 6)
    assert l0_patch(x, None, boundary=boundary).tolist() == [int((one != 0).sum()) for one in x]


def test_a_coefficient_as_large_as_tol_does_not_count():
    x = torch.tensor([[[0.5, -0.5, 0.75, -0.75]]], dtype=F64)
    assert l0_patch(x, (4,), 0.5).tolist() == [2]
    assert l0_stripe(ConvDictionary(torch.ones(1, 1, 4, dtype=F64)), x, 0.5).tolist() == [2]


def test_a_loud_patch_takes_no_digits_from_a_quiet_one():
    x = torch.full((2, 1, 40), 1e-9)
    x[0, 0, :3] = 1e9
    assert l2_patch(x, (2,)).tolist() == pytest.approx([2**0.5 * 1e9, 2**0.5 * 1e-9])
    assert l2_patch(x, (2,)).dtype == x.dtype


def test_many_counts_stay_exact():
    """More than single precision can count."""
    n = (1 << 24) + 1
    assert l0_patch(torch.ones(1, 1, n), (n,)).tolist() == [n]


@pytest.mark.parametrize("tol", [-1e-9, float("nan"), "0"])
def test_what_is_no_tolerance_is_refused(tol):
    x = torch.ones(1, 1, 4, dtype=F64)
    with pytest.raises(InputError, match="tol must be"):
        l0_patch(x, None, tol)
    with pytest.raises(InputError, match="tol must be"):
        l0_stripe(ConvDictionary(x), x, tol)


BAD = [torch.ones(4), torch.ones(1, 4), torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 4, dtype=torch.int64), None]


@pytest.mark.parametrize("x", BAD, ids=str)
def test_what_is_no_batch_of_maps_is_refused(x):
    with pytest.raises(InputError, match="codes must be a floating-point tensor"):
        l0_stripe(ConvDictionary(torch.ones(1, 1, 3)), x)
    with pytest.raises(InputError, match="codes must be a floating-point tensor"):
        l0_patch(x, (2,))
    with pytest.raises(InputError, match="signals must be a floating-point tensor"):
        l2_patch(x, (2,))


def test_codes_of_other_atoms_or_of_no_place_are_refused():
    D = ConvDictionary(torch.ones(2, 1, 3))
    with pytest.raises(InputError, match="codes must be a floating-point tensor"):
        l0_stripe(D, torch.ones(1, 3, 4))
    with pytest.raises(InputError, match="at least one place"):
        l0_stripe(D, torch.ones(1, 2, 0))
    for shape in [(1, 3, 4), (1, 2, 4, 4)]:
        with pytest.raises(InputError, match="codes must be of 2 atoms on 1 axes"):
            l0_stripe(D, Codes.of(torch.ones(shape)))


@pytest.mark.parametrize("boundary", ["valid", "circular"])
@pytest.mark.parametrize("size", [(5,), (0,), (2, 2), (), (1.5,)])
def test_a_patch_that_does_not_fit_is_refused(size, boundary):
    x = torch.ones(1, 1, 4)
    for norm in (lambda: l0_patch(x, size, boundary=boundary), lambda: l2_patch(x, size, boundary)):
        with pytest.raises(InputError, match="size must be"):
            norm()


def test_an_unknown_boundary_is_refused():
    x = torch.ones(1, 1, 4)
    with pytest.raises(InputError, match="did you mean circular"):
        l0_patch(x, (2,), boundary="circulr")
    with pytest.raises(InputError, match="boundary must be one of valid, circular"):
        l2_patch(x, (2,), "same")
