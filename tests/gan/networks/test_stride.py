"""Convolutions of stride 2 against the library's, and as each other's adjoints."""

import pytest
import torch
import torch.nn.functional as F

from triptych.gan.networks.stride import Down, Up, up


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(2)


def randn(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("out", [1, 3, 9])  # by phases, and by the library
@pytest.mark.parametrize(
    ("kernel", "size"), [(4, (6, 10)), (5, (6, 10)), (5, (5, 9)), (5, (5, 10)), (5, (6, 9))], ids=str
)
def test_up_is_the_transposed_convolution_cut_to_size(rng, out, kernel, size):
    x = randn(rng, 2, 4, 3, 5)
    layer = Up(4, out, kernel, size).double()
    padding = (kernel - 1) // 2
    full = F.conv_transpose2d(x, layer.weight, layer.bias, 2, padding, 1 if kernel == 5 else 0)
    torch.testing.assert_close(layer(x), full[:, :, : size[0], : size[1]])
    torch.testing.assert_close(up(x, layer.weight, None, size), layer(x) - layer.bias.view(-1, 1, 1))


@pytest.mark.parametrize("out", [1, 4, 5])  # by phases, and by the library
@pytest.mark.parametrize(("kernel", "size"), [(4, (6, 8)), (5, (6, 8)), (5, (5, 7))], ids=str)
def test_up_is_differentiable_twice(rng, out, kernel, size):
    x, weight, bias = randn(rng, 2, 3, 3, 4), randn(rng, 3, out, kernel, kernel), randn(rng, out)
    given = [t.requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *t: up(*t, size), given, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *t: up(*t, size), given, fast_mode=True)


@pytest.mark.parametrize("out", [3, 5])
def test_up_under_autocast_is_bfloat16_forth_and_float32_to_the_weights(rng, out):
    x, weight = (t.float().requires_grad_() for t in (randn(rng, 2, 3, 3, 4), randn(rng, 3, out, 5, 5)))
    bias = torch.ones(out, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = up(x, weight, bias, (6, 8))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    exact = torch.autograd.grad(up(x, weight, bias, (6, 8)).sum(), (x, weight, bias))
    for given, expected in zip((x, weight, bias), exact):
        assert given.grad.dtype == torch.float32
        assert (given.grad - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("channels", [3, 10])
@pytest.mark.parametrize(("kernel", "shape"), [(4, (8, 6)), (5, (8, 6)), (5, (7, 6)), (5, (7, 9))], ids=str)
def test_down_and_its_adjoint(rng, kernel, shape, channels):
    """Half the side, rounded up; <D x, u> = <x, D* u>, and the first channels alone on demand."""
    layer = Down(channels, 4, kernel, bias=False).double()
    x = randn(rng, 2, channels, *shape)
    y = layer(x)
    assert y.shape == (2, 4, -(-shape[0] // 2), -(-shape[1] // 2))
    u = randn(rng, *y.shape)
    back = layer.adjoint(u, x.shape)
    torch.testing.assert_close((y * u).sum(), (x * back).sum())
    torch.testing.assert_close(layer.adjoint(u, (2, 2, *shape)), back[:, :2])
