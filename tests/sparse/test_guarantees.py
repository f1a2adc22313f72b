"""The theorems' promises kept: random codes inside the conditions, recovered by independent solvers on the dense dictionary."""

from math import inf, sqrt

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp

from triptych.check import InputError
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.guarantees import Guarantees, guarantees
from triptych.sparse.norms import l2_patch
from triptych.sparse.pursue import pursue

F64 = torch.float64


def long_atoms(seed, boundary="valid"):
    """Two long random atoms at a wide stride: of low coherence, and a signal that is quickly coded."""
    rng = torch.Generator().manual_seed(seed)
    return ConvDictionary(torch.randn(2, 1, 1000, dtype=F64, generator=rng), 100, boundary).normalise()


def planted(seed, boundary="valid", places=31):
    """A dictionary and a code with at least two non-zeros in a stripe, as many as the bound for basis pursuit allows."""
    D, rng = long_atoms(seed, boundary), np.random.default_rng(seed)
    code = torch.zeros(1, 2, places, dtype=F64)
    for at in rng.permutation(2 * places):
        k, place = divmod(int(at), places)
        code[0, k, place] = rng.choice([-1, 1]) * (1 + rng.random())
        if not guarantees(D, code)[0].basis_pursuit:
            code[0, k, place] = 0
    return D, code


@pytest.mark.parametrize("boundary", ["valid", "circular"])
@pytest.mark.parametrize("seed", range(10))
def test_basis_pursuit_finds_no_wrong_atom_and_errs_by_no_more_than_promised(seed, boundary):
    D, code = planted(seed, boundary)
    clean = D.synthesise(code)
    noise = 0.01 * torch.randn(clean.shape, dtype=F64, generator=torch.Generator().manual_seed(seed + 100))
    local = float(l2_patch(noise, D.size, boundary))
    promise = guarantees(D, code, local)[0]
    assert promise.basis_pursuit
    assert promise.stripe >= 2
    coding = Coding(D, clean + noise, promise.reg, "absolute")
    found = pursue(coding, tol=1e-11, max_steps=500)
    x = found.codes.dense()
    assert not x[code == 0].any()
    assert float((x - code).abs().max()) < promise.basis_pursuit_error
    assert bool((x[code.abs() > promise.basis_pursuit_error] != 0).all())


@pytest.mark.parametrize("boundary", ["valid", "circular"])
@pytest.mark.parametrize("seed", range(10))
def test_omp_finds_the_atoms_and_errs_by_no_more_than_promised(seed, boundary):
    D, code = planted(seed, boundary)
    clean = D.synthesise(code)
    noise = 0.002 * torch.randn(clean.shape, dtype=F64, generator=torch.Generator().manual_seed(seed + 100))
    promise = guarantees(D, code, float(l2_patch(noise, D.size, boundary)), float(noise.norm()))[0]
    assert promise.omp
    found = orthogonal_mp(
        D.matrix(clean.shape[2:]).numpy(), (clean + noise).flatten().numpy(), n_nonzero_coefs=int((code != 0).sum())
    )
    expected = code.flatten().numpy()
    assert (np.flatnonzero(found) == np.flatnonzero(expected)).all()
    assert np.linalg.norm(found - expected) <= promise.omp_error


def test_the_bounds_are_the_published_ones():
    """Worked by hand: mu = .1, two non-zeros a stripe, the least of them 2, noise .1 locally and .3 in all."""
    g = Guarantees(0.1, 2, 2.0, 0.1, 0.3)
    assert g.uniqueness_bound == 5.5
    assert g.omp_bound == pytest.approx(5.5 - 0.1 / (0.1 * 2))
    assert g.basis_pursuit_bound == pytest.approx(11 / 3)
    assert (g.unique, g.omp, g.basis_pursuit) == (True, True, True)
    assert g.reg == pytest.approx(0.4)
    assert g.stability == pytest.approx(0.6 / sqrt(0.7))
    assert g.omp_error == pytest.approx(0.3 / sqrt(0.9))
    assert g.basis_pursuit_error == pytest.approx(0.75)


def test_beyond_the_bounds_nothing_is_promised_and_the_verdict_says_so():
    g = Guarantees(0.5, 3, 1.0, 0.1, 0.3)
    assert (g.unique, g.omp, g.basis_pursuit) == (False, False, False)
    assert g.stability == g.omp_error == g.basis_pursuit_error == inf
    assert g.verdict().count("not promised") == 3
    assert "3 non-zeros" in g.verdict()


def test_each_promise_has_a_bound_of_its_own():
    """mu = .2: 3 for uniqueness and OMP without noise (not reached), 2 for basis pursuit (reached)."""
    assert [Guarantees(0.2, k, 1.0, 0.0, 0.0).unique for k in (2, 3)] == [True, False]
    assert [Guarantees(0.2, k, 1.0, 0.0, 0.0).basis_pursuit for k in (2, 3)] == [True, False]
    noisy = Guarantees(0.2, 2, 1.0, 0.21, 0.3)
    assert noisy.unique
    assert noisy.basis_pursuit
    assert not noisy.omp  # 3 - .21 / .2 = 1.95
    assert noisy.verdict().count("not promised") == 1


def test_orthogonal_atoms_are_told_apart_while_noise_is_less_than_half_of_them():
    """An atom of x correlates by at least 1 - noise, another by at most the noise."""
    assert Guarantees(0.0, 9, 1.0, 0.49, 2.0).omp
    assert not Guarantees(0.0, 9, 1.0, 0.5, 2.0).omp
    assert "fewer than 0.00" in Guarantees(0.0, 9, 1.0, 0.5, 2.0).verdict()


def test_the_norms_of_atoms_go_into_the_code():
    D, code = planted(0)
    scaled = ConvDictionary(D.atoms * torch.tensor([2.0, 0.5], dtype=F64).reshape(2, 1, 1), D.stride)
    same = code / torch.tensor([2.0, 0.5], dtype=F64).reshape(1, 2, 1)
    a, b = guarantees(D, code, 0.1)[0], guarantees(scaled, same, 0.1)[0]
    stored = Codes.of(same)
    stored.index[0] = torch.cat([stored.index[0], torch.tensor([0])])  # a 0 that is written out counts for nothing
    stored.value[0] = torch.cat([stored.value[0], torch.zeros(1, dtype=F64)])
    assert guarantees(scaled, stored, 0.1)[0] == b
    norms = scaled.norms.reshape(1, 2, 1)
    assert b.smallest == pytest.approx(float((norms * same.abs())[same != 0].min()))
    assert a.smallest == pytest.approx(b.smallest)
    assert a.coherence == pytest.approx(b.coherence)
    assert a.stripe == b.stripe


def test_local_noise_bounds_the_whole_by_the_patches_that_cover_it():
    D = ConvDictionary(torch.eye(4, dtype=F64).reshape(4, 1, 2, 2))
    code = torch.zeros(2, 4, 4, 6, dtype=F64)
    code[0, 0, 0, 0] = 1
    first, second = guarantees(D, code, 0.5)
    assert first.noise == pytest.approx(0.5 * sqrt(3 * 4))  # 5 x 7 samples in patches of 2 x 2
    assert (first.stripe, second.stripe, second.smallest) == (1, 0, inf)
    assert second.unique
    assert second.omp


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda D, x: guarantees(D, x, -1.0), "local_noise must be"),
        (lambda D, x: guarantees(D, x, float("nan")), "local_noise must be"),
        (lambda D, x: guarantees(D, x, 1.0, 0.5), "noise must be"),
        (lambda D, x: guarantees(D, x[:, :1]), "code must be"),
        (lambda D, x: guarantees(ConvDictionary(D.atoms, 1, "circular"), x[..., :4]), "at least 5"),
        (lambda D, x: guarantees(ConvDictionary(0 * D.atoms), x), "atom 0 is 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(make, says):
    D = ConvDictionary(torch.tensor([[[1.0, 2, 3]], [[3.0, 1, 0]]], dtype=F64))
    with pytest.raises(InputError, match=says):
        make(D, torch.ones(1, 2, 9, dtype=F64))
