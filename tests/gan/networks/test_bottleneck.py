"""The 101-layer networks against their blocks, written out plainly here."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from triptych.check import InputError
from triptych.gan.networks.bottleneck import Bottleneck
from triptych.gan.networks.target import LABELS, Target

TARGET = Target((3, 16, 24))
SMALL = Bottleneck(8, outer=1, inner=1)


def plain_block(block, x, kind):
    """x or its shortcut, plus 0.3 times the normalised convolutions, with PyTorch's own ReLU and a block's weights."""

    def norm(y):
        axes = (0, 2, 3) if kind == "batch" else (1, 2, 3)
        y = (y - y.mean(axes, keepdim=True)) / (y.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return y * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]

    y = F.conv2d(F.relu(x), block.conv1.weight, block.conv1.bias)
    if isinstance(block.conv2, nn.ConvTranspose2d):
        n, c, h, w = y.shape
        spread = y.new_zeros(n, c, 2 * h, 2 * w)  # zeros between the pixels, then the flipped kernel
        spread[:, :, ::2, ::2] = F.relu(y)
        y = F.conv2d(spread, block.conv2.weight.transpose(0, 1).flip(2, 3), block.conv2.bias, padding=1)
        four = F.conv2d(x, block.shortcut.weight, block.shortcut.bias).reshape(n, -1, 2, 2, h, w)
        x = four.permute(0, 1, 4, 2, 5, 3).reshape(n, -1, 2 * h, 2 * w)
    else:
        y = F.conv2d(F.relu(y), block.conv2.weight, block.conv2.bias, block.conv2.stride, padding=1)
        if isinstance(block.shortcut, nn.Conv2d):
            x = F.conv2d(x, block.shortcut.weight, block.shortcut.bias)[:, :, ::2, ::2]
    return x + 0.3 * norm(F.conv2d(F.relu(y), block.conv3.weight))


def plain_generator(network, z):
    h, w = network.grid
    x = F.linear(z, network.first.weight, network.first.bias).reshape(len(z), h, w, -1).permute(0, 3, 1, 2)
    for block in network.blocks:
        x = plain_block(block, x, "batch")
    return (F.conv2d(x, network.last.weight, network.last.bias) / 5).tanh()


def plain_critic(network, x):
    x = F.conv2d(x, network.first.weight, network.first.bias)
    for block in network.blocks:
        x = plain_block(block, x, "layer")
    return (x.flatten(1) @ network.head.value.weight[0] + network.head.value.bias) / 5


def shaken(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_generator_is_the_papers():
    network, z = shaken(SMALL.generator(TARGET, 6)), torch.randn(3, 6).double()
    torch.testing.assert_close(network(z), plain_generator(network, z), rtol=1e-10, atol=1e-10)


def test_critic_is_the_papers_and_so_is_its_penalty():
    """LayerNorm keeps its true second order: double backward, as through PyTorch's own layers."""
    network, x = shaken(SMALL.critic(TARGET)), torch.randn(2, 3, 16, 24).double()
    gradients = []
    for value in (lambda x: network(x).value, lambda x: plain_critic(network, x)):
        x_hat = x.clone().requires_grad_()
        said = value(x_hat)
        (slope,) = torch.autograd.grad(said.sum(), x_hat, create_graph=True)
        loss = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, materialize_grads=True)
        gradients.append([said, *found])
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_both_have_101_layers():
    """33 blocks of three convolutions, a first layer and a last; shortcuts do not count. 16 x 16 pixels have 19 blocks."""
    for shape, blocks in (((3, 64, 64), 33), ((3, 16, 16), 19)):
        for network in (Bottleneck(8).generator(Target(shape), 6), Bottleneck(8).critic(Target(shape))):
            layers = [m for name, m in network.named_modules() if "shortcut" not in name and hasattr(m, "weight")]
            assert sum(not isinstance(m, nn.BatchNorm2d | nn.GroupNorm) for m in layers) == 3 * blocks + 2


def test_parameters_are_as_many_as_by_hand():
    """A block of c to o filters has (c + 1) c/2 + (9 c/2 + 1) o/2 + o/2 o + 2 o, a shortcut (c + 1) o or 4 times that."""

    def block(c, o, shortcut=0):
        return (c + 1) * c // 2 + (9 * c // 2 + 1) * o // 2 + o // 2 * o + 2 * o + shortcut * (c + 1) * o

    widths = [32, 64, 128, 256, 512]
    same = 5 * block(32, 32) + sum(6 * block(w, w) for w in widths[1:])
    ups = sum(block(2 * w, w, shortcut=4) for w in widths[:-1])
    downs = sum(block(w, 2 * w, shortcut=1) for w in widths[:-1])
    target = Target((3, 64, 64))
    generator, critic = (
        sum(p.numel() for p in net.parameters())
        for net in (Bottleneck().generator(target, 128), Bottleneck().critic(target))
    )
    assert generator == 129 * 512 * 16 + same + ups + 33 * 3
    assert critic == 4 * 32 + same + downs + 512 * 16 + 1


@pytest.mark.parametrize("way", LABELS)
def test_labels_reach_both_networks(way):
    target = Target((1, 8, 8), 4, labels=way)
    generator, critic = shaken(SMALL.generator(target, 5)), shaken(SMALL.critic(target))
    z, a, b = torch.randn(6, 5).double(), torch.zeros(6, dtype=torch.long), torch.full((6,), 3)
    images = generator(z, a)
    assert images.shape == (6, 1, 8, 8)
    assert not torch.allclose(images, generator(z, b))
    said = critic(images, a)
    assert torch.allclose(said.value, critic(images, b).value) == (way == "auxiliary")
    assert (said.classes is not None) == (way == "auxiliary")


@pytest.mark.parametrize("kind", ["batch", "layer", "none"])
def test_norms_are_where_they_are_asked_for(kind):
    wanted = {"batch": nn.BatchNorm2d, "layer": nn.GroupNorm, "none": nn.Identity}[kind]
    made = Bottleneck(8, 1, 1, norm=kind).generator(TARGET, 5), Bottleneck(8, 1, 1, critic_norm=kind).critic(TARGET)
    for network in made:
        assert all(isinstance(block.norm, wanted) for block in network.blocks)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 6}, "a multiple of 4"),
        ({"width": 0}, "width must be a whole number"),
        ({"outer": -1}, "outer must be a whole number"),
        ({"inner": 0.5}, "inner must be a whole number"),
        ({"norm": "instance"}, "norm must be one of"),
        ({"critic_norm": "lager"}, "did you mean layer"),
    ],
)
def test_wrong_settings_are_refused(fields, says):
    with pytest.raises(InputError, match=says):
        Bottleneck(**fields)


def test_wrong_sides_are_refused():
    with pytest.raises(InputError, match="halve evenly"):
        SMALL.critic(Target((3, 33, 32)))
