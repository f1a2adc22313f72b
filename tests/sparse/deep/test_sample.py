"""Signals drawn from a model have the sparsity that is told."""

import pytest
import torch

from triptych.check import InputError
from triptych.papers.papyan2017._deep import made
from triptych.sparse.deep.sample import sample
from triptych.sparse.norms import l0_stripe


def test_samples_are_what_they_say():
    model = made(0)
    found = sample(model, 5, (20,), nonzeros=4, stripe=2, least=1.0, most=1.5, rng=torch.Generator().manual_seed(1))
    assert found.nonzeros[:, 1].tolist() == [4] * 5
    deep = found.codes[1]
    assert float(deep[deep != 0].min()) >= 1.0
    assert float(deep.max()) <= 1.5
    torch.testing.assert_close(found.signals, model.synthesise(deep))
    for i, (D, code) in enumerate(zip(model.layers, found.codes)):
        assert found.nonzeros[:, i].tolist() == (code != 0).flatten(1).sum(1).tolist()
        assert found.stripes[:, i].tolist() == l0_stripe(D, code).tolist()
    assert int(found.stripes[:, 1].max()) <= 2
    again = sample(model, 5, (20,), nonzeros=4, stripe=2, least=1.0, most=1.5, rng=torch.Generator().manual_seed(1))
    assert torch.equal(again.signals, found.signals)


def test_signs_are_random_where_asked_for():
    found = sample(made(0), 3, (20,), nonzeros=30, nonnegative=False, rng=torch.Generator().manual_seed(1))
    assert float(found.codes[1].min()) < 0 < float(found.codes[1].max())


def test_no_room_is_said():
    with pytest.raises(InputError, match="there is room for about"):
        sample(made(0), 1, (20,), nonzeros=60, stripe=1, rng=torch.Generator())
    with pytest.raises(InputError, match="nonzeros"):
        sample(made(0), 1, (2,), nonzeros=60, rng=torch.Generator())


def test_a_learned_model_draws_signals_like_its_own_in_number_and_size():
    from sklearn.datasets import load_digits

    from triptych import MultiLayerSparseCoder

    X = load_digits().images[:60] / 16
    coder = MultiLayerSparseCoder("6x3s2,8x3", density=0.3, max_iter=2, random_state=0).fit(X)
    found = coder.sample(5, random_state=1)
    assert found.signals.shape == (5, 1, 8, 8)  # also where the smallest signals with such codes are smaller: 7 x 7
    sizes = coder.codes(X[:8])[-1]
    used = sizes[sizes != 0].abs()
    assert found.nonzeros[:, 1].tolist() == [round(len(used) / 8)] * 5
    drawn = found.codes[1][found.codes[1] != 0]
    low, high = torch.quantile(used, torch.tensor([0.1, 0.9], dtype=used.dtype))
    assert float(low) <= float(drawn.min())
    assert float(drawn.max()) <= float(high)
    torch.testing.assert_close(found.signals, coder.dictionary_.synthesise(found.codes[1], (8, 8)))
    assert torch.equal(coder.sample(5, random_state=1).signals, found.signals)
    assert not torch.equal(coder.sample(5, random_state=2).signals, found.signals)
    assert coder.sample(2, nonzeros=3).nonzeros[:, 1].tolist() == [3, 3]
