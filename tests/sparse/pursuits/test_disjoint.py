import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp

from triptych.check import InputError
from triptych.sparse.pursuits.disjoint import omp_disjoint, omp_disjoint_twice


def problem(patches=40, d=16, k=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = 3 * torch.randn(patches, d, generator=generator, dtype=torch.float64)
    return y, torch.randn(k, d, generator=generator, dtype=torch.float64), generator


@pytest.mark.parametrize("most", [0, 1, 5, 12])
def test_patches_take_the_atoms_that_scikit_learn_takes(most):
    y, atoms, _ = problem()
    unit = (atoms / atoms.norm(dim=1, keepdim=True)).numpy()
    fits = omp_disjoint(y, atoms, torch.zeros(len(y)).double(), most)
    for i in range(len(y)):
        code = orthogonal_mp(unit.T, y[i].numpy(), n_nonzero_coefs=most) if most else np.zeros(len(unit))
        np.testing.assert_allclose(fits.estimate[i].numpy(), code @ unit, atol=1e-9)
    assert (fits.atoms == most).all()


def test_a_patch_stops_at_its_own_error():
    y, atoms, generator = problem(patches=60)
    energy = 40 * torch.rand(len(y), generator=generator, dtype=torch.float64)
    unit = (atoms / atoms.norm(dim=1, keepdim=True)).numpy()
    fits = omp_disjoint(y, atoms, energy, 16)
    for i in range(len(y)):
        code = orthogonal_mp(unit.T, y[i].numpy(), tol=float(energy[i]))
        assert int(fits.atoms[i]) == np.count_nonzero(code) or float(y[i].square().sum()) <= energy[i]
        if np.count_nonzero(code):
            np.testing.assert_allclose(fits.estimate[i].numpy(), code @ unit, atol=1e-8)
    assert len(set(fits.atoms.tolist())) > 4


def test_masked_patches_are_problems_of_their_known_rows():
    """Where samples are missing, the atoms are those of the known rows, normalised there, and the estimate is whole."""
    y, atoms, generator = problem()
    mask = (torch.rand(y.shape, generator=generator) < 0.7).double()
    fits = omp_disjoint(y * mask, atoms, torch.zeros(len(y)).double(), 4, mask=mask)
    unit = (atoms / atoms.norm(dim=1, keepdim=True)).numpy()
    for i in range(len(y)):
        rows = mask[i].numpy() > 0
        seen = unit[:, rows]
        sizes = np.linalg.norm(seen, axis=1)
        code = orthogonal_mp((seen / sizes[:, None]).T, y[i].numpy()[rows], n_nonzero_coefs=4) / sizes
        np.testing.assert_allclose(fits.estimate[i].numpy(), code @ unit, atol=1e-8)


def test_free_patterns_are_fitted_first_and_not_counted():
    y, atoms, _ = problem()
    atoms = atoms - atoms.mean(1, keepdim=True)
    y = y + 100
    flat = torch.full((1, 16), 0.25, dtype=torch.float64)
    fits = omp_disjoint(y, atoms, torch.zeros(len(y)).double(), 3, free=flat)
    low = y.mean(1, keepdim=True)
    high = omp_disjoint(y - low, atoms, torch.zeros(len(y)).double(), 3)
    torch.testing.assert_close(fits.estimate, low + high.estimate)
    assert (fits.atoms == 3).all()


def test_a_second_rule_stops_where_no_atom_meets_much():
    """Of the two rules now one, now the other stops first; both are on scikit-learn's path."""
    y, atoms, generator = problem(patches=60)
    energy = 60 * torch.rand(len(y), generator=generator, dtype=torch.float64)
    unit = (atoms / atoms.norm(dim=1, keepdim=True)).numpy()
    first, second = omp_disjoint_twice(y, atoms, energy, 2.5, 12)
    alone = omp_disjoint(y, atoms, energy, 12)
    assert torch.equal(first.atoms, alone.atoms)
    torch.testing.assert_close(first.estimate, alone.estimate)
    for i in range(len(y)):
        count, fit = 0, np.zeros(16)
        while np.abs(unit @ (y[i].numpy() - fit)).max() > 2.5 and count < 12:
            count += 1
            fit = orthogonal_mp(unit.T, y[i].numpy(), n_nonzero_coefs=count) @ unit
        assert int(second.atoms[i]) == count
        np.testing.assert_allclose(second.estimate[i].numpy(), fit, atol=1e-8)
    assert (first.atoms < second.atoms).any()
    assert (first.atoms > second.atoms).any()


def test_many_patches_are_their_problems_one_by_one():
    y, atoms, _ = problem(patches=9000, d=6, k=8)
    energy = torch.full((9000,), 2.0, dtype=torch.float64)
    fits = omp_disjoint(y, atoms, energy, 4)
    some = torch.tensor([0, 8191, 8192, 8999])
    torch.testing.assert_close(fits.estimate[some], omp_disjoint(y[some], atoms, energy[some], 4).estimate)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"atoms": torch.zeros(3, 16)}, "atoms must be different from 0"),
        ({"atoms": torch.ones(3, 15)}, "atoms must be a tensor (k, 16)"),
        ({"energy": torch.zeros(3)}, "energy must be a tensor (5,)"),
        ({"mask": torch.zeros(5, 15)}, "mask must be a tensor (5, 16)"),
        ({"most": -1}, "most must be a whole number of at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(change, part):
    arguments = {"patches": torch.ones(5, 16), "atoms": torch.ones(3, 16), "energy": torch.zeros(5), "most": 2}
    with pytest.raises(InputError, match=r".") as error:
        omp_disjoint(**(arguments | change))
    assert part in str(error.value)
