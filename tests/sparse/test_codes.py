"""Sparse codes against dense ones."""

import pytest
import torch

from triptych.check import InputError
from triptych.sparse.codes import Codes


def dense():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, 6, generator=rng)
    return x * (torch.rand(x.shape, generator=rng) < 0.1)


def test_dense_codes_come_back():
    x = dense()
    codes = Codes.of(x)
    assert torch.equal(codes.dense(), x)
    assert codes.dense(torch.float64).dtype == torch.float64
    assert codes.nonzeros.tolist() == [int((one != 0).sum()) for one in x]


def test_problems_are_taken_and_put_and_a_clone_keeps_its_own():
    x = dense()
    codes = Codes.of(x)
    mask = torch.tensor([True, False, True])
    assert torch.equal(codes[mask].dense(), x[mask])
    copy = codes.clone()
    copy[torch.tensor([1, 2])] = codes[torch.tensor([True, True, False])]
    assert torch.equal(copy.dense(), x[[0, 0, 1]])
    assert torch.equal(codes.dense(), x)


def test_a_tensor_of_another_shape_is_refused():
    with pytest.raises(InputError, match="codes must be"):
        Codes.of(torch.ones(2, 3))
