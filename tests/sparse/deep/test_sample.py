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
