"""The fused convolutions are the plain ones, in value and in both orders of gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from triptych.gan.networks import fused
from triptych.gan.networks.fused import ConvPool, UpsampleConv


def pooled(x, w, b):
    return F.avg_pool2d(F.conv2d(x, w, b, padding=1), 2)


def upsampled(x, w, b):
    return F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), w, b, padding=1)


WAYS = [(ConvPool, pooled, "POOL_FROM"), (UpsampleConv, upsampled, "UPSAMPLE_FROM")]
NAMES = ["pool", "upsample"]


def derivatives(function, layer, x):
    """The output, first-order gradients of its cube, and those of the input gradient's length."""
    x = x.clone().requires_grad_()
    given = [x, *layer.parameters()]
    y = function(x)
    first = torch.autograd.grad(y.pow(3).sum(), given, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum().sqrt(), given)
    return [y, *first, *second]


@pytest.mark.parametrize(("layer", "plain", "threshold"), WAYS, ids=NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["64", "32"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (2, 2), (16, 4)], ids=str)
def test_is_the_plain_way(layer, plain, threshold, dtype, tolerance, memory, size, monkeypatch):
    monkeypatch.setattr(fused, threshold, 0)
    torch.manual_seed(0)
    module = layer(3, 5, bias=size != (16, 4)).to(dtype, memory_format=memory)
    x = torch.randn(2, 3, *size, dtype=dtype).to(memory_format=memory)
    got = derivatives(module, module, x)
    wanted = derivatives(lambda x: plain(x, module.weight, module.bias), module, x)
    for ours, theirs in zip(got, wanted):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(("layer", "plain", "threshold"), WAYS, ids=NAMES)
def test_small_calls_take_the_plain_way_and_large_ones_the_fused(layer, plain, threshold, monkeypatch):
    """By images times positions of the smaller side, whatever the channels."""
    taken = []
    monkeypatch.setattr(fused, "_four_shifts", lambda w, four=fused._four_shifts: taken.append(1) or four(w))
    side = 8 if layer is ConvPool else 4  # 16 positions on the smaller side
    images = getattr(fused, threshold) // 16
    module = layer(1, 1)
    for n in (images - 1, images):
        x = torch.randn(n, 1, side, side)
        torch.testing.assert_close(module(x), plain(x, module.weight, module.bias))
        assert len(taken) == (n == images)


@pytest.mark.parametrize(("layer", "plain", "threshold"), WAYS, ids=NAMES)
def test_parameters_are_those_of_a_plain_convolution(layer, plain, threshold):
    module, convolution = layer(3, 5), nn.Conv2d(3, 5, 3)
    module.load_state_dict(convolution.state_dict())
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(module(x), plain(x, convolution.weight, convolution.bias))


@pytest.mark.parametrize(("layer", "plain", "threshold"), WAYS, ids=NAMES)
def test_kernels_are_summed_in_float32_under_autocast(layer, plain, threshold, monkeypatch):
    """The output is bfloat16's, of a kernel that is rounded once: bit for bit that of the kernel summed beforehand."""
    monkeypatch.setattr(fused, threshold, 0)
    torch.manual_seed(0)
    module, x = layer(64, 8), torch.randn(8, 64, 8, 8)
    weight = module.weight.detach()
    if layer is UpsampleConv:
        weight = weight.flip(2, 3)
    four = sum(F.pad(weight, (i, 1 - i, j, 1 - j)) for i in (0, 1) for j in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
        if layer is UpsampleConv:
            once = F.conv_transpose2d(x, four.transpose(0, 1), module.bias, stride=2, padding=1)
        else:
            once = F.conv2d(x, four / 4, module.bias, stride=2, padding=1)
    exact = plain(x, module.weight, module.bias)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), once.float(), rtol=2**-7, atol=1e-6)
    assert (y.float() - once.float()).norm() < 2**-12 * exact.norm()
    assert (y.float() - exact).norm() < 2**-6 * exact.norm()
