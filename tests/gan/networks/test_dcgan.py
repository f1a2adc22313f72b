"""DCGAN against the 4 x 4 networks that are commonly written, published sizes, and the sides that it takes or refuses."""

import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.target import Target

COMMON = DCGAN(kernel=4, critic_norm="batch", bias=False)


def plain_gains(network):
    """BatchNorm's gains start at 1 elsewhere."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return network


def count(network):
    return sum(p.numel() for p in network.parameters())


def common_generator(width):
    """Transposed 4 x 4 convolutions from one pixel to 64."""
    layers, channels = [nn.ConvTranspose2d(100, 8 * width, 4, 1, 0, bias=False)], 8 * width
    while channels > width:
        layers += [
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False),
        ]
        channels //= 2
    return nn.Sequential(
        *layers, nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()
    )


def common_critic(width):
    """4 x 4 convolutions from 64 pixels to one, without the sigmoid."""
    layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for k in (1, 2, 4):
        layers += [
            nn.Conv2d(k * width, 2 * k * width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * k * width),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False))


def test_the_first_and_last_layers_are_the_common_ones():
    target, settings = Target((3, 64, 64)), DCGAN(2, kernel=4, critic_norm="batch", bias=False)
    ours, theirs = plain_gains(settings.generator(target, 100)), common_generator(2)
    with torch.no_grad():
        first = theirs[0].weight  # (100, c, 4, 4), ours has rows in the order height, width, channel
        ours.first.weight.copy_(first.permute(2, 3, 1, 0).reshape(ours.first.weight.shape))
        for mine, other in zip(ours.layers, [m for m in theirs if isinstance(m, nn.ConvTranspose2d)][1:], strict=True):
            mine.weight.copy_(other.weight)
    z = torch.randn(3, 100)
    torch.testing.assert_close(ours(z), theirs(z[:, :, None, None]), atol=1e-5, rtol=1e-4)
    ours, theirs = plain_gains(settings.critic(target)), common_critic(2)
    *convs, last = [m for m in theirs if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        ours.head.value.weight.copy_(last.weight.flatten(1))
        for mine, other in zip(ours.layers, convs, strict=True):
            mine.weight.copy_(other.weight)
    x = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(ours(x).value, theirs(x).flatten(), atol=1e-5, rtol=1e-4)


def test_published_sizes():
    """The tutorials' 64 px networks, and the CIFAR pair of WGAN-GP's code, dim 128, counted by hand."""
    target = Target((3, 64, 64))
    assert count(COMMON.generator(target, 100)) == 3_576_704
    assert count(COMMON.critic(target)) == 2_765_568
    cifar, settings = Target((3, 32, 32)), DCGAN(128, init="he")
    critic = 25 * (3 * 128 + 128 * 256 + 256 * 512) + 128 + 256 + 512 + 4 * 4 * 512 + 1
    assert count(settings.critic(cifar)) == critic
    generator = 129 * 8192 + 25 * (512 * 256 + 256 * 128 + 128 * 3) + 256 + 128 + 3 + 2 * (512 + 256 + 128)
    assert count(settings.generator(cifar, 128)) == generator


def test_mnists_conditional_pair():
    """Radford's: y joins [z, 1024, 128 x 7 x 7, 64] and [x, 64, 128 x 7 x 7, 1024]."""
    settings = DCGAN(64, critic_norm="batch", dense=1024, bias=False)
    target = Target((1, 28, 28), 10, "sigmoid")
    assert settings.sizes(target) == [(28, 28), (14, 14), (7, 7)]
    generator, critic = settings.generator(target, 100), settings.critic(target)
    weights = [tuple(p.shape) for p in generator.parameters() if p.dim() > 1]
    assert weights == [(1024, 110), (6272, 1034), (138, 64, 5, 5), (74, 1, 5, 5)]
    weights = [tuple(p.shape) for p in critic.parameters() if p.dim() > 1]
    assert weights == [(64, 11, 5, 5), (128, 74, 5, 5), (1024, 6282), (1, 1034)]


def test_variants_of_figure_2():
    target = Target((3, 64, 64))
    constant = DCGAN(norm="none", constant=True).generator(target, 128)
    assert [tuple(layer.weight.shape[:2]) for layer in constant.layers] == [(64, 64)] * 3 + [(64, 3)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in constant.modules())
    gated = DCGAN(activation="gated", critic_norm="layer")
    critic = gated.critic(target)
    assert [tuple(layer.weight.shape[:2]) for layer in critic.layers] == [(128, 3), (256, 64), (512, 128), (1024, 256)]
    assert [isinstance(m, nn.GroupNorm) for m in critic.norms] == [False, True, True, True]
    assert [tuple(layer.weight.shape[:2]) for layer in gated.generator(target, 128).layers] == [(512, 512), (256, 256), (128, 128), (64, 3)]  # fmt: skip
    wide = Target((3, 256, 256))
    assert DCGAN(16).widths(len(DCGAN(16).sizes(wide)) - 1) == [16, 32, 64, 128, 128, 128]


@pytest.mark.parametrize(
    ("settings", "side", "grid"),
    [
        (DCGAN(2), (64, 64), (4, 4)),
        (DCGAN(2), (32, 32), (4, 4)),
        (DCGAN(2), (28, 28), (7, 7)),
        (DCGAN(2, doublings=3), (28, 28), (4, 4)),  # 28 -> 14 -> 7 -> 4, as the code of WGAN-GP
        (DCGAN(2), (8, 8), (4, 4)),
        (DCGAN(2), (96, 128), (6, 8)),
        (DCGAN(2), (48, 80), (6, 10)),
        (DCGAN(2), (45, 33), (6, 5)),
        (DCGAN(2), (8, 100), (4, 50)),
        (DCGAN(2, kernel=4), (48, 80), (6, 10)),
        (DCGAN(2, kernel=4, doublings=4), (48, 80), (3, 5)),
        (DCGAN(2, doublings=1), (3, 2), (2, 1)),
    ],
    ids=str,
)
def test_sides(settings, side, grid):
    target = Target((2, *side))
    assert settings.sizes(target)[-1] == grid
    generator, critic = settings.generator(target, 3), settings.critic(target)
    x = generator(torch.randn(2, 3))
    assert x.shape == (2, 2, *side)
    assert critic(x).value.shape == (2,)
    assert critic.maps(x)[-1].shape[2:] == grid


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        (DCGAN(), (3, 7, 64), "height and width must be at least 8 and halve until the smaller is below 8, got 7 x 64"),
        (DCGAN(doublings=2), (3, 2, 9), "height and width must halve 2 times, got 2 x 9"),
        (DCGAN(kernel=4), (3, 30, 30), "halve without a rest for kernel 4 until the smaller is below 8, got 30 x 30"),
        (DCGAN(), (2,), r"shape must be \(channels, height, width\) for a DCGAN, got \(2,\); points take an MLP"),
    ],
    ids=str,
)
def test_sides_that_are_refused(settings, shape, message):
    with pytest.raises(InputError, match=message):
        settings.generator(Target(shape), 3)
    with pytest.raises(InputError, match=message):
        settings.critic(Target(shape))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "width must be"),
        ({"kernel": 3}, "kernel must be 4 or 5, got 3"),
        ({"norm": "instance"}, "norm must be one of none, batch, layer"),
        ({"critic_norm": "bach"}, r"critic_norm must be .*\(did you mean batch\?\)"),
        ({"activation": "maxout"}, "activation must be one of relu, tanh, gated"),
        ({"doublings": 0}, "doublings must be"),
        ({"dense": -1}, "dense must be"),
        ({"scale": 0}, "scale must be"),
        ({"most": 0.5}, "most must be"),
    ],
    ids=str,
)
def test_wrong_numbers_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        DCGAN(**wrong)
