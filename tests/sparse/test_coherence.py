"""Coherence, Babel function and Welch bound against the Gram matrix of the dense dictionary."""

import itertools
from math import inf, prod, sqrt

import pytest
import torch

from triptych.check import InputError
from triptych.sparse.coherence import (
    babel,
    basis_pursuit_bound,
    coherence_per_shift,
    mutual_coherence,
    uniqueness_bound,
    welch_bound,
)
from triptych.sparse.dictionary import ConvDictionary

F64 = torch.float64
SIZES = [(5,), (2,), (4, 3), (2, 1)]
every = pytest.mark.parametrize(
    ("size", "channels", "stride", "boundary"),
    list(itertools.product(SIZES, (1, 2), (1, 2, 3), ("valid", "circular"))),
)


def made(size, channels, stride, boundary="valid", k=3, seed=0):
    """A random dictionary whose atoms have norms far from 1."""
    rng = torch.Generator().manual_seed(seed)
    atoms = torch.randn(k, channels, *size, dtype=F64, generator=rng)
    return ConvDictionary(atoms * torch.arange(1, k + 1).reshape(-1, *(1,) * (len(size) + 1)), stride, boundary)


def dense_gram(D):
    """|Gram| of the normalised columns of the dense dictionary, (k, *places, k, *places); more places than a stripe has."""
    stripe = [2 * ((n - 1) // D.stride) + 1 for n in D.size]
    places = [m + 2 for m in stripe]
    M = D.matrix([p * D.stride if D.boundary == "circular" else (p - 1) * D.stride + n for p, n in zip(places, D.size)])
    M = M / M.norm(dim=0)
    return (M.T @ M).abs().reshape(D.n_atoms, *places, D.n_atoms, *places), stripe


def central_rows(D):
    """|Gram| of the atoms at the central place with all columns, themselves set to 0, (k, k, *places), and the stripe's extent."""
    G, stripe = dense_gram(D)
    centre = tuple(m // 2 + 1 for m in stripe)
    rows = G[(slice(None), *centre)].clone()
    for i in range(D.n_atoms):
        assert float(rows[(i, i, *centre)]) == pytest.approx(1)
        rows[(i, i, *centre)] = 0
    return rows, stripe


@every
def test_the_coherence_of_a_shift_is_the_largest_correlation_at_that_distance(size, channels, stride, boundary):
    D = made(size, channels, stride, boundary)
    rows, stripe = central_rows(D)
    largest = rows.amax((0, 1))
    inner = (slice(1, -1),) * len(size)
    torch.testing.assert_close(coherence_per_shift(D), largest[inner], rtol=1e-12, atol=1e-14)
    assert largest[inner].shape == tuple(stripe)
    largest[inner] = 0
    assert largest.abs().max() == 0  # a stripe holds all that meets its atom


@every
def test_the_mutual_coherence_is_the_largest_entry_off_the_diagonal(size, channels, stride, boundary):
    D = made(size, channels, stride, boundary)
    G, _ = dense_gram(D)
    columns = D.n_atoms * prod(G.shape[1 : 1 + len(size)])
    G = G.reshape(columns, columns)
    off = max(float(G[i, j]) for i in range(columns) for j in range(i))
    assert mutual_coherence(D) == pytest.approx(off, rel=1e-12)


@every
def test_babel_sums_the_largest_correlations_of_one_column(size, channels, stride, boundary):
    D = made(size, channels, stride, boundary)
    rows, stripe = central_rows(D)
    held = D.n_atoms * prod(stripe) - 1
    sums = [list(itertools.accumulate(sorted(row.flatten().tolist(), reverse=True)))[:held] for row in rows]
    expected = torch.tensor([max(of) for of in zip(*sums)], dtype=F64)
    torch.testing.assert_close(babel(D), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(babel(D, min(3, held)), expected[:3], rtol=1e-12, atol=1e-14)


def test_babel_takes_the_largest_over_atoms_after_the_sums():
    """Columns e1, e2 and (e1 + e2) / sqrt(2): the third one meets both others, each of them only the third."""
    D = ConvDictionary(torch.tensor([[[1.0, 0]], [[0, 2.0]], [[3.0, 3.0]]], dtype=F64), stride=2)
    torch.testing.assert_close(babel(D), torch.tensor([sqrt(0.5), sqrt(2)], dtype=F64))


def test_one_atom_meets_its_shifts_alone():
    D = ConvDictionary(torch.ones(1, 1, 3, dtype=F64) * 7)
    torch.testing.assert_close(coherence_per_shift(D), torch.tensor([1, 2, 0, 2, 1], dtype=F64) / 3)
    torch.testing.assert_close(babel(D), torch.tensor([2, 4, 5, 6], dtype=F64) / 3)
    alone = ConvDictionary(torch.ones(1, 1, 3, dtype=F64), stride=3)
    assert mutual_coherence(alone) == 0
    assert coherence_per_shift(alone).tolist() == [0]
    assert babel(alone).shape == (0,)
    assert welch_bound(alone) == 0


@pytest.mark.parametrize(("k", "n"), [(2, 2), (3, 5), (8, 11)])
def test_the_welch_bound_of_one_channel_is_the_published_one(k, n):
    assert welch_bound(made((n,), 1, 1, k=k)) == pytest.approx(sqrt((k - 1) / (k * (2 * n - 1) - 1)), rel=1e-14)


@every
def test_no_dictionary_is_less_coherent_than_the_welch_bound(size, channels, stride, boundary):
    for seed, k in enumerate([1, 2, 5, 9, 30]):
        D = made(size, channels, stride, boundary, k, seed)
        assert mutual_coherence(D) >= welch_bound(D)
        assert welch_bound(D) > 0 or k <= channels * prod(min(n, stride) for n in size)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("size", "stride"), [((4,), 1), ((4,), 2), ((6,), 3), ((2,), 3), ((4, 2), 1), ((4, 2), 2), ((1, 3), 3)]
)
def test_tight_frames_meet_the_welch_bound_in_the_mean(size, stride, channels):
    """An orthonormal basis of patches, twice over, at strides that divide them: D D* is a multiple of 1 where atoms reach."""
    d = channels * prod(size)
    bases = [
        torch.linalg.qr(torch.randn(d, d, dtype=F64, generator=torch.Generator().manual_seed(s))).Q for s in (0, 1)
    ]
    D = ConvDictionary(torch.cat(bases).reshape(2 * d, channels, *size), stride)
    rows, stripe = central_rows(D)
    mean = float(rows.square().sum()) / (2 * d * (2 * d * prod(stripe) - 1))
    assert welch_bound(D) == pytest.approx(sqrt(mean), rel=1e-10)


@pytest.mark.parametrize(("space", "stride"), [((1, 2), 2), ((2, 1), 1), ((2, 1, 1), 1), ((1, 1, 2), 2)])
def test_three_directions_of_the_plane_meet_the_welch_bound(space, stride):
    """Vectors at 120 degrees correlate by 1/2, and no three do by less."""
    angle = torch.arange(3, dtype=F64) * 2 * torch.pi / 3
    D = ConvDictionary(torch.stack([angle.cos(), angle.sin()], 1).reshape(3, *space), stride)
    assert welch_bound(D) == pytest.approx(0.5, rel=1e-14)
    assert mutual_coherence(D) == pytest.approx(0.5, rel=1e-14)


def test_the_bounds_of_the_theory():
    assert uniqueness_bound(1.0) == 1
    assert uniqueness_bound(0.25) == 2.5
    assert basis_pursuit_bound(0.25) == pytest.approx(5 / 3)
    assert basis_pursuit_bound(0.2) == 2
    assert uniqueness_bound(0) == basis_pursuit_bound(0.0) == inf


def test_single_precision_is_measured_in_double():
    D = made((5,), 2, 1).to(torch.float32)
    assert mutual_coherence(D) == mutual_coherence(D.to(F64))
    tiny = ConvDictionary(D.atoms * 1e-30)
    assert mutual_coherence(tiny) == pytest.approx(mutual_coherence(D), rel=1e-6)


@pytest.mark.parametrize("measure", [coherence_per_shift, mutual_coherence, babel])
def test_an_atom_that_is_zero_is_refused(measure):
    atoms = torch.ones(2, 1, 3, dtype=F64)
    atoms[1] = 0
    with pytest.raises(InputError, match="atom 1 is 0"):
        measure(ConvDictionary(atoms))


@pytest.mark.parametrize("count", [15, -1, 2.0, True])
def test_a_count_that_no_stripe_holds_is_refused(count):
    D = made((3,), 1, 1)
    assert babel(D, 14).shape == (14,)
    with pytest.raises(InputError, match="count must be a whole number from 0 to 14"):
        babel(D, count)


@pytest.mark.parametrize("bound", [uniqueness_bound, basis_pursuit_bound])
@pytest.mark.parametrize("mu", [-0.1, inf, float("nan"), "0.5", None])
def test_what_is_no_coherence_is_refused(bound, mu):
    with pytest.raises(InputError, match="mu must be"):
        bound(mu)
