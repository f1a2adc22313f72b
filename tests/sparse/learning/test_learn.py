"""Learning: the objective falls and is what it is said to be; planted atoms come back; masks, streams, idle atoms."""

from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from triptych.sparse import ConvDictionary, pursue
from triptych.sparse.learning.learn import Effort, Signals, State, begun, epochs, streamed


def planted(n=12, k=4, shape=(24, 24), c=1, noise=0.0, seed=0):
    """Signals of four smooth atoms laid at random, and the atoms."""
    rng = torch.Generator().manual_seed(seed)
    atoms = torch.randn(k, c, *(5,) * len(shape), generator=rng, dtype=torch.float64)
    D = ConvDictionary(atoms).normalise()
    x = torch.randn(n, k, *D.code_shape(shape), generator=rng, dtype=torch.float64)
    x *= torch.rand(x.shape, generator=rng) < 0.02
    signals = D.synthesise(x.sign() + x, shape)
    return D, signals + noise * torch.randn(signals.shape, generator=rng, dtype=torch.float64)


def noise_start(k, c, size, seed=3):
    rng = torch.Generator().manual_seed(seed)
    return ConvDictionary(torch.randn(k, c, *size, generator=rng, dtype=torch.float64)).normalise()


def run(data, D, visits, **options):
    return list(islice(epochs(data, begun(D, data), **options), visits))


def objective(data: Signals, state: State):
    return float(data.coding(state.dictionary).objective(state.codes.dense()).sum())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_objective_is_that_of_atoms_and_codes_and_falls(masked, nonnegative, batch):
    _, signals = planted(noise=0.1)
    mask = None
    if masked:
        mask = (torch.rand(signals.shape, generator=torch.Generator().manual_seed(1)) < 0.7).double()
        signals = signals.where(mask > 0, torch.nan)
    data = Signals(signals, 0.2, mask, nonnegative)
    states = run(data, noise_start(4, 1, (5, 5)), 4, effort=Effort(batch=batch))
    true = [objective(data, state) for state in states]
    assert all(b < a for a, b in pairwise(true))
    for state, value in zip(states, true):
        if masked:  # the sums are of signals filled in from codes and atoms of the last visit: they lie above
            assert state.objective >= value * (1 - 1e-12)
        else:
            assert state.objective == pytest.approx(value, rel=1e-10)
        assert not nonnegative or all(bool((v >= 0).all()) for v in state.codes.value)


@pytest.mark.parametrize(("shape", "c"), [((24, 24), 1), ((120,), 3), ((20, 20), 2)])
def test_planted_atoms_come_back(shape, c):
    """Up to their sign, and to where they lie within their frame: from atoms a little off, all four."""
    D, signals = planted(shape=shape, c=c, n=20)
    rng = torch.Generator().manual_seed(5)
    off = D.atoms
    start = ConvDictionary(off + 0.15 * torch.randn(off.shape, generator=rng, dtype=torch.float64)).normalise()
    found = run(Signals(signals, 0.02), start, 12)[-1].dictionary
    like = (found.atoms.flatten(1) @ D.atoms.flatten(1).T).abs()
    before = (start.atoms.flatten(1) @ D.atoms.flatten(1).T).abs()
    assert float(before.diagonal().max()) < 0.96
    assert float(like.diagonal().min()) > 0.995


def test_a_stopped_learner_goes_on_to_the_same_bits():
    _, signals = planted(noise=0.1)
    data, D = Signals(signals.float(), 0.2), noise_start(4, 1, (5, 5)).to(torch.float32)
    whole = run(data, D, 4)
    again = next(epochs(data, run(data, D, 3)[-1]))
    assert torch.equal(whole[-1].dictionary.atoms, again.dictionary.atoms)
    assert whole[-1].objective == again.objective
    for a, b in zip(whole[-1].codes.value, again.codes.value):
        assert torch.equal(a, b)


def test_other_orders_are_other_numbers():
    _, signals = planted(noise=0.1)
    data, D = Signals(signals, 0.2), noise_start(4, 1, (5, 5))
    assert not torch.equal(run(data, D, 1)[-1].dictionary.atoms, run(data, D, 1, seed=1)[-1].dictionary.atoms)


def test_an_idle_atom_becomes_what_is_explained_worst():
    """An atom no signal resembles, at a λ above all its correlations, is replaced by the patch left over."""
    signals = torch.zeros(2, 1, 30, dtype=torch.float64)
    bump = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    other = torch.tensor([1.0, -2.0, 0.0, 2.0, -1.0], dtype=torch.float64)
    signals[0, 0, 4:9], signals[1, 0, 20:25] = bump, other
    atoms = torch.stack([bump, torch.tensor([0.0, 1.0, -2.0, 1.0, 0.0], dtype=torch.float64)])[:, None]
    data = Signals(signals, 2.5)
    state = run(data, ConvDictionary(atoms).normalise(), 1)[-1]
    assert state.codes.nonzeros.tolist() == [1, 0]
    torch.testing.assert_close(state.dictionary.atoms[1, 0], other / other.norm())
    assert state.objective == pytest.approx(objective(data, state))


@pytest.mark.parametrize(("boundary", "stride"), [("valid", 2), ("circular", 1), ("circular", 3)])
def test_strides_and_circles_learn(boundary, stride):
    _, signals = planted(noise=0.1)
    D = noise_start(4, 1, (5, 5))
    data = Signals(signals, 0.2)
    states = run(data, ConvDictionary(D.atoms, stride, boundary), 3)
    assert states[2].objective < states[1].objective < states[0].objective
    assert states[2].objective == pytest.approx(objective(data, states[2]), rel=1e-10)


def test_a_stream_is_learned_from_without_its_codes():
    """Later parts are coded better than by the first atoms, and nothing is kept of them but sums."""
    _, signals = planted(n=70)
    start = noise_start(4, 1, (5, 5))
    state = begun(start, Signals(signals[:1], 0.1))
    for part in signals[:60].split(10):
        state = streamed(Signals(part, 0.1), state)
        assert int(state.codes.nonzeros.sum()) == 0
    assert state.epoch == 60
    fresh = Signals(signals[60:], 0.1)
    before, after = (
        float(pursue(fresh.coding(atoms), "working_set", tol=1e-4).solution.objective.sum())
        for atoms in (start, state.dictionary)
    )
    assert after < 0.85 * before


def test_what_a_stream_forgets():
    """With forget 0 the sums are of all signals alike; with 1 the t-th of T counts t / T."""
    _, signals = planted(n=3)
    start = noise_start(4, 1, (5, 5))
    data = Signals(signals, 0.1)
    energies = signals.double().square().flatten(1).sum(1).numpy() / 2
    alike = streamed(data, begun(start, data), forget=0.0)
    assert alike.statistics.energy == pytest.approx(energies.sum())
    later = streamed(data, begun(start, data), forget=1.0)
    assert later.statistics.energy == pytest.approx(energies @ (np.arange(1, 4) / 3))
