"""Orthogonal matching pursuit against scikit-learn's on the dense dictionary, and where theory says that it must succeed."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp

from triptych.check import InputError
from triptych.sparse import Coding, ConvDictionary, Ending, omp

CASES = {
    "line": ((40,), (6,), 1, "valid", 1),
    "line with two channels": ((40,), (6,), 1, "valid", 2),
    "circle": ((30,), (6,), 1, "circular", 1),
    "circle with a stride": ((30,), (6,), 2, "circular", 2),
    "picture": ((12, 14), (4, 5), 1, "valid", 1),
    "torus with a stride": ((12, 12), (4, 4), 2, "circular", 3),
    "stride": ((14, 15), (5, 5), 3, "valid", 2),
}


def made(shape, size, stride, boundary, c, seed=0, b=2):
    rng = torch.Generator().manual_seed(seed)
    atoms = torch.randn(4, c, *size, generator=rng, dtype=torch.float64)
    return ConvDictionary(atoms, stride, boundary), torch.randn(b, c, *shape, generator=rng, dtype=torch.float64)


def theirs(D, signal, count, mask=None):
    """scikit-learn's codes after every count, with columns made unit and coefficients scaled back."""
    K = D.matrix(signal.shape[1:]).numpy()
    y = signal.flatten().numpy()
    if mask is not None:
        known = mask.flatten().numpy()
        K, y = K * known[:, None], np.where(known > 0, known * y, 0.0)
    norms = np.linalg.norm(K, axis=0)
    x = orthogonal_mp(K / np.where(norms > 0, norms, 1.0), y, n_nonzero_coefs=count)
    return x / np.where(norms > 0, norms, 1.0), np.linalg.norm(y - K @ (x / np.where(norms > 0, norms, 1.0)))


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_takes_the_atoms_that_scikit_learn_takes(case, masked, count):
    """Atoms are not unit, and masked ones even less so; after 12 atoms they overlap."""
    D, signals = made(*case)
    mask = None
    if masked:
        mask = (torch.rand(signals.shape, generator=torch.Generator().manual_seed(1)) < 0.7).double()
    found = omp(Coding(D, signals, mask=mask), n_nonzero=count)
    for i, code in enumerate(found.codes.dense().flatten(1).numpy()):
        x, left = theirs(D, signals[i], count, None if mask is None else mask[i])
        np.testing.assert_array_equal(np.flatnonzero(code), np.flatnonzero(x))
        np.testing.assert_allclose(code, x, atol=1e-9)
        assert float(found.residual[i]) == pytest.approx(left, rel=1e-9)
    assert found.ending == [Ending.COUNT] * 2


def test_many_atoms_are_still_least_squares():
    """More than the factor first has room for: the residual is orthogonal to every atom taken."""
    D, signals = made(*CASES["picture"])
    found = omp(Coding(D, signals), n_nonzero=60)
    K = D.matrix((12, 14))
    for signal, code in zip(signals, found.codes.dense().flatten(1)):
        r = signal.flatten() - K @ code
        assert float((K[:, code != 0].T @ r).abs().max()) < 1e-10
        assert int((code != 0).sum()) == 60


def test_it_ends_at_the_noise_of_every_signal():
    D, signals = made(*CASES["line"])
    noise = torch.tensor([2.0, 4.0], dtype=torch.float64)
    found = omp(Coding(D, signals), noise=noise)
    assert found.ending == [Ending.NOISE] * 2
    assert bool((found.residual <= noise).all())
    fewer = [omp(Coding(D, signals[i : i + 1]), n_nonzero=int(n) - 1) for i, n in enumerate(found.codes.nonzeros)]
    assert all(float(one.residual) > level for one, level in zip(fewer, noise.tolist()))


def test_it_ends_where_nothing_is_left():
    D, _ = made(*CASES["line"])
    blank = omp(Coding(D, torch.zeros(1, 1, 40, dtype=torch.float64)), n_nonzero=3)
    assert blank.codes.nonzeros.tolist() == [0]
    # two atoms that are the same: the second cannot be taken beside the first, and signals off their span stay
    same = ConvDictionary(torch.ones(2, 1, 3, dtype=torch.float64), 3)
    off = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, 0.0], dtype=torch.float64).reshape(1, 1, 6)
    found = omp(Coding(same, off), n_nonzero=4)
    assert found.ending == [Ending.NOTHING_LEFT]
    assert found.codes.nonzeros.tolist() == [1]


def test_float32_signals_have_float32_codes_of_float64_pursuits():
    D, signals = made(*CASES["picture"])
    found = omp(Coding(D, signals.float()), n_nonzero=5)
    assert found.codes.value[0].dtype == torch.float32
    torch.testing.assert_close(
        found.codes.dense().double(), omp(Coding(D, signals), n_nonzero=5).codes.dense(), atol=1e-5, rtol=1e-5
    )


def test_within_its_condition_it_finds_the_code():
    """Spikes on an orthonormal block and one more: low coherence, a few non-zeros, noise within what the theorem allows."""
    rng = torch.Generator().manual_seed(2)
    D = ConvDictionary(torch.linalg.qr(torch.randn(8, 8, generator=rng, dtype=torch.float64))[0][:, None], 8)
    x = torch.zeros(1, 8, 5, dtype=torch.float64)
    x[0, [1, 3, 5], [0, 2, 4]] = torch.tensor([1.0, -2.0, 1.5], dtype=torch.float64)
    e = torch.randn(1, 1, 40, generator=rng, dtype=torch.float64)
    e *= 0.3 / e.unfold(2, 8, 1).norm(dim=3).max()
    found = omp(Coding(D, D.synthesise(x) + e), n_nonzero=3)
    promised = found.guarantees(0, 0.3)
    assert promised.omp
    torch.testing.assert_close(found.codes.dense() != 0, x != 0)
    assert float((found.codes.dense() - x).norm()) <= promised.omp_error


BAD = {
    "no end": ({}, "n_nonzero, noise or both"),
    "no atom": ({"n_nonzero": 0}, "n_nonzero must be a whole number"),
    "negative noise": ({"noise": -1.0}, "noise must be"),
    "noise of another count": ({"noise": torch.ones(3)}, "noise must be"),
    "noise that is no number": ({"noise": torch.tensor([1.0, torch.nan])}, "noise must be"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_refused(arguments, message):
    D, signals = made(*CASES["line"])
    with pytest.raises(InputError, match=message):
        omp(Coding(D, signals), **arguments)


def test_what_it_does_not_know_is_refused():
    D, signals = made(*CASES["line"])
    for coding in (Coding(D, signals, nonnegative=True), Coding(D, signals, weights=torch.ones(1, 4, 1))):
        with pytest.raises(InputError, match="omp knows no"):
            omp(coding, n_nonzero=1)
