"""Sums over codes against the dense dictionary: the objective of any atoms, exactly."""

from itertools import pairwise

import pytest
import torch

from triptych.sparse import ConvDictionary
from triptych.sparse.learning.statistics import Statistics
from triptych.sparse.learning.update import updated

CASES = {
    "line": ((20,), (5,), 1, "valid", 1),
    "line with two channels": ((20,), (5,), 1, "valid", 2),
    "circle with a stride": ((20,), (5,), 2, "circular", 2),
    "picture": ((13, 17), (4, 5), 1, "valid", 1),
    "colour picture": ((11, 12), (4, 3), 1, "valid", 3),
    "torus with a stride": ((12, 12), (5, 4), 2, "circular", 3),
    "torus as small as an atom": ((6, 6), (5, 6), 1, "circular", 2),
    "stride": ((14, 15), (5, 5), 3, "valid", 2),
    "stride as long as an atom": ((12, 12), (4, 4), 4, "valid", 1),
}


def made(shape, size, stride, boundary, c, seed=0, share=0.3):
    """Atoms, other atoms, a signal, and a code with its places and values."""
    rng = torch.Generator().manual_seed(seed)
    atoms = torch.randn(2, 4, c, *size, generator=rng, dtype=torch.float64)
    D, other = (ConvDictionary(a, stride, boundary).normalise() for a in atoms)
    signal = torch.randn(c, *shape, generator=rng, dtype=torch.float64)
    x = torch.randn(4, *D.code_shape(shape), generator=rng, dtype=torch.float64)
    x *= torch.rand(x.shape, generator=rng) < share
    index = x.flatten().nonzero().squeeze(1)
    return D, other, signal, x, index[torch.randperm(len(index), generator=rng)]


def objective(D, signal, x, lam):
    z = D.matrix(signal.shape[1:]) @ x.flatten()
    return float((signal.flatten() - z).square().sum() / 2 + lam * x.abs().sum())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_they_give_the_objective_of_any_atoms(case):
    D, other, signal, x, index = made(*case)
    sums = Statistics.of(D, signal, index, x.flatten()[index], 0.1)
    for atoms in (D, other):
        assert sums.objective(atoms) == pytest.approx(objective(atoms, signal, x, 0.1), rel=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_they_add_up_over_signals(case):
    """And what is taken off again leaves what was there."""
    D, other, signal, x, index = made(*case)
    _, _, second, x2, index2 = made(*case, seed=1)
    one = Statistics.of(D, signal, index, x.flatten()[index], 0.1)
    two = Statistics.of(D, second, index2, x2.flatten()[index2], 0.1)
    both = objective(other, signal, x, 0.1) + objective(other, second, x2, 0.1)
    assert one.plus(two).objective(other) == pytest.approx(both, rel=1e-12)
    assert one.plus(two).plus(two, -1.0).objective(other) == pytest.approx(one.objective(other), rel=1e-12)
    assert one.plus(two).scaled(0.5).objective(other) == pytest.approx(both / 2, rel=1e-12)
    torch.testing.assert_close(Statistics.empty(D).plus(one).pairs, one.pairs, rtol=0, atol=0)


def test_blocks_of_pairs_change_nothing(monkeypatch):
    D, _, signal, x, index = made(*CASES["picture"])
    whole = Statistics.of(D, signal, index, x.flatten()[index], 0.1)
    monkeypatch.setattr("triptych.sparse.learning.statistics.PAIRS", 50)
    blocks = Statistics.of(D, signal, index, x.flatten()[index], 0.1)
    torch.testing.assert_close(whole.pairs, blocks.pairs, rtol=1e-13, atol=1e-13)


def test_atoms_without_a_coefficient_are_named():
    D, _, signal, x, _ = made(*CASES["picture"])
    x[2] = 0
    index = x.flatten().nonzero().squeeze(1)
    assert Statistics.of(D, signal, index, x.flatten()[index], 0.1).used.tolist() == [True, True, False, True]
    none = Statistics.of(D, signal, index[:0], x.flatten()[:0], 0.1)
    assert none.objective(D) == pytest.approx(float(signal.square().sum() / 2))


# the atoms' turn


@pytest.mark.parametrize("rank_one", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_atom_lowers_the_objective_and_stays_unit(case, rank_one, monkeypatch):
    """Watched atom by atom: the step's bound on the curvature is one."""
    D, _, signal, x, index = made(*case, share=0.6)
    sums = Statistics.of(D, signal, index, x.flatten()[index], 0.1)
    seen, last = [], updated(D, sums, 1, rank_one)
    for k in range(4):  # one atom at a time: the others count as not used
        alone = torch.zeros(4, dtype=torch.bool)
        alone[k] = True
        monkeypatch.setattr(Statistics, "used", alone)
        seen.append(sums.objective(last))
        last = updated(last, sums, 1, rank_one)
    seen.append(sums.objective(last))
    assert all(b <= a * (1 + 1e-13) for a, b in pairwise(seen))
    assert seen[-1] < seen[0]
    torch.testing.assert_close(last.norms, torch.ones(4, dtype=torch.float64))
    if rank_one:
        values = torch.linalg.svdvals(last.atoms.flatten(2))
        assert float((values[:, 1:] / values[:, :1]).max() if values.shape[1] > 1 else 0) < 1e-12


def test_many_passes_end_where_no_atom_can_move():
    """With codes far apart, atoms are the means of their patches, made unit: the exact answer."""
    D, _, signal, _, _ = made((60,), (5,), 1, "valid", 2)
    x = torch.zeros(4, 56, dtype=torch.float64)
    for n, place in enumerate(range(0, 56, 7)):
        x[n % 4, place] = 1.0 + n
    index = x.flatten().nonzero().squeeze(1)
    found = updated(D, Statistics.of(D, signal, index, x.flatten()[index], 0.0), 1)
    for k in range(4):
        places = x[k].nonzero().squeeze(1).tolist()
        patches = sum(x[k, p] * signal[:, p : p + 5] for p in places)
        torch.testing.assert_close(found.atoms[k], patches / torch.linalg.vector_norm(patches))


def test_an_atom_that_no_code_uses_stays():
    D, _, signal, x, _ = made(*CASES["picture"])
    x[1] = 0
    index = x.flatten().nonzero().squeeze(1)
    found = updated(D, Statistics.of(D, signal, index, x.flatten()[index], 0.1))
    torch.testing.assert_close(found.atoms[1], D.atoms[1], rtol=0, atol=0)
    assert not torch.equal(found.atoms[0], D.atoms[0])
