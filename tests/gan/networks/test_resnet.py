"""The residual networks against the paper's, written out plainly here."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from triptych.check import InputError
from triptych.gan.networks.resnet import ClassNorm, ResNet
from triptych.gan.networks.target import LABELS, Target

CIFAR = Target((3, 32, 32))


def plain_generator(network, z, labels=None):
    """gan_cifar_resnet.py's generator, step by step, with a network's weights and the batch's statistics."""

    def norm(x, layer):
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        if isinstance(layer, ClassNorm) and layer.gain is not None:
            return torch.stack([g[:, None, None] * a + b[:, None, None] for a, g, b in zip(x, *told(layer))])
        affine = layer.norm if isinstance(layer, ClassNorm) else layer
        return x * affine.weight[:, None, None] + affine.bias[:, None, None]

    def told(layer):
        return [layer.gain[y] for y in labels], [layer.bias[y] for y in labels]

    def up(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    h, w = network.grid
    x = (z @ network.first.weight.T + network.first.bias).reshape(len(z), h, w, -1).permute(0, 3, 1, 2)
    for b in network.blocks:
        y = F.conv2d(up(norm(x, b.norm1).clamp_min(0)), b.conv1.weight, b.conv1.bias, padding=1)
        y = F.conv2d(norm(y, b.norm2).clamp_min(0), b.conv2.weight, b.conv2.bias, padding=1)
        x = y + F.conv2d(up(x), b.shortcut.weight, b.shortcut.bias)
    return F.conv2d(norm(x, network.norm).clamp_min(0), network.last.weight, network.last.bias, padding=1).tanh()


def plain_critic(network, x):
    """gan_cifar_resnet.py's critic, with PyTorch's own ReLU, pooling after convolutions, and a network's weights."""
    first, *rest = network.blocks
    y = F.conv2d(F.relu(F.conv2d(x, first.conv1.weight, first.conv1.bias, padding=1)), first.conv2.weight, padding=1)
    y = F.avg_pool2d(y + first.conv2.bias[:, None, None], 2)
    x = y + F.conv2d(F.avg_pool2d(x, 2), first.shortcut.weight, first.shortcut.bias)
    for b in rest:
        y = F.conv2d(F.relu(x), b.conv1.weight, b.conv1.bias, padding=1)
        y = F.conv2d(F.relu(y), b.conv2.weight, b.conv2.bias, padding=1)
        x = x + y if b.shortcut is None else F.avg_pool2d(y + F.conv2d(x, b.shortcut.weight, b.shortcut.bias), 2)
    return F.relu(x).mean((2, 3)) @ network.head.value.weight[0] + network.head.value.bias


def shaken(network):
    """A network in float64 with random biases and gains, so that none is 0 or 1."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("n", [1, 40], ids=["small", "fused"])
@pytest.mark.parametrize("classes", [0, 3])
def test_generator_is_the_papers(n, classes):
    network = shaken(ResNet(4).generator(Target((3, 32, 32), classes), 6))
    z, labels = torch.randn(n + 1, 6).double(), torch.arange(n + 1) % 3 if classes else None
    torch.testing.assert_close(network(z, labels), plain_generator(network, z, labels), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [1, 40], ids=["small", "fused"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_critic_is_the_papers_and_so_is_its_penalty(n, precision):
    """Values, input gradients, and the parameters' gradients of the gradient penalty, three ways.

    By the adjoint, by double backward through our layers, and by double backward through PyTorch's own. In float32 a
    ReLU's input may have another sign where it is 0 but for rounding.
    """
    dtype, tolerance = (torch.float64, 1e-10) if precision == "float64" else (torch.float32, 1e-4)
    network = shaken(ResNet(4).critic(CIFAR)).to(dtype)
    x, parameters = torch.randn(n, 3, 32, 32, dtype=dtype), list(network.parameters())
    wanted = plain_critic(network, x)
    assert (network(x).value - wanted).norm() <= tolerance / 10 * wanted.norm()
    *slopes, slope = (differentiated(f, x) for f in ways(network))
    gradients = [penalty_gradients(y, parameters) for y in (*slopes, slope)]
    for y in slopes:
        assert (y - slope).norm() <= tolerance * slope.norm()
    for ours in gradients[:-1]:
        for a, b in zip(ours, gradients[-1]):
            assert (a - b).norm() <= tolerance * max(b.norm(), tolerance)


def ways(network):
    """The input gradient by the adjoint, and the values to differentiate: of the network, and of the plain one."""
    return network.input_gradient, (lambda x: network(x).value), (lambda x: plain_critic(network, x))


def differentiated(f, x):
    if getattr(f, "__name__", "") == "input_gradient":
        return f(x, None, None)
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x, create_graph=True)[0]


def penalty_gradients(slope, parameters):
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return torch.autograd.grad(penalty, parameters, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("way", LABELS)
@pytest.mark.parametrize("size", [(8, 8), (32, 48)], ids=str)
def test_the_adjoint_is_the_input_gradient_with_labels(way, size):
    network = shaken(ResNet(4).critic(Target((2, *size), 3, labels=way)))
    x, labels = torch.randn(5, 2, *size).double().requires_grad_(), torch.tensor([0, 2, 1, 1, 0])
    (wanted,) = torch.autograd.grad(network(x, labels).value.sum(), x)
    torch.testing.assert_close(network.input_gradient(x.detach(), labels, None), wanted, rtol=1e-10, atol=1e-14)


class Convolutions(TorchDispatchMode):
    """Counts convolutions, and the gradients that their backward passes are asked for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.count += 1
        if func is torch.ops.aten.convolution_backward.default:
            self.count += sum(args[-1][:2])
        return func(*args, **(kwargs or {}))


def test_the_penalty_has_no_wasted_pass():
    """A forward, an input gradient, and for that a gradient by what it was given and one by the weight: four a layer.

    Those by what the last layers were given are not needed. Double backward through PyTorch's own ReLUs sends zeros
    back through the network as well.
    """
    network, x = ResNet(4).critic(CIFAR), torch.randn(2, 3, 32, 32)
    layers = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    counts = []
    for f in ways(network):
        with Convolutions() as convolutions:
            penalty_gradients(differentiated(f, x), list(network.parameters()))
        counts.append(convolutions.count)
    assert counts[0] <= 4 * layers
    assert counts[0] < counts[1] < 5 * layers < counts[2]


def test_parameters_are_as_many_as_the_papers():
    """By hand: a 3 x 3 convolution of w to w filters has 9 w² + w, a shortcut w² + w, a norm 2 w."""
    w = 128
    three, one, norm = 9 * w * w + w, w * w + w, 2 * w
    generator = 128 * 16 * w + 16 * w + 3 * (2 * three + one + 2 * norm) + norm + 27 * w + 3
    critic = (27 * w + w + three + 3 * w + w) + (2 * three + one) + 2 * 2 * three + w + 1
    counts = [
        sum(p.numel() for p in net.parameters()) for net in (ResNet().generator(CIFAR, 128), ResNet().critic(CIFAR))
    ]
    assert counts == [generator, critic]
    conditional = Target((3, 32, 32), 10, labels="auxiliary")
    classes = sum(p.numel() for p in ResNet().generator(conditional, 128).parameters()) - generator
    assert classes == 6 * (10 - 1) * norm  # a gain and a bias for each class, but for the last norm
    assert sum(p.numel() for p in ResNet().critic(conditional).parameters()) - critic == 10 * (w + 1)


def test_weights_start_as_in_the_papers_code():
    """Uniform; variance 4 / (in + out) of 3 x 3 convolutions in blocks, 2 / (in + out) elsewhere; biases 0."""
    w = 64
    generator, critic = ResNet(w).generator(CIFAR, 128), ResNet(w).critic(CIFAR)
    wanted = {
        generator.first.weight: 2 / (128 + 16 * w),
        generator.blocks[0].conv1.weight: 4 / (18 * w),
        generator.blocks[2].conv2.weight: 4 / (18 * w),
        generator.blocks[1].shortcut.weight: 2 / (2 * w),
        generator.last.weight: 2 / (9 * w + 27),
        critic.blocks[0].conv1.weight: 4 / (27 + 9 * w),
        critic.blocks[0].shortcut.weight: 2 / (3 + w),
        critic.blocks[1].shortcut.weight: 2 / (2 * w),
        critic.blocks[3].conv2.weight: 4 / (18 * w),
    }
    for weight, variance in wanted.items():
        assert weight.abs().max() <= (3 * variance) ** 0.5
        # the mean of n squares of a uniform law has a relative deviation of 0.9 / sqrt(n)
        assert float(weight.detach().square().mean()) / variance == pytest.approx(1, abs=4.5 * weight.numel() ** -0.5)
    assert all(
        not p.any() for net in (generator, critic) for name, p in net.named_parameters() if name.endswith("conv1.bias")
    )


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (8, 8), (24, 32), (36, 40), (16, 64), (60, 60)], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_any_size_that_halves(size, channels):
    target = Target((channels, *size), 0, "linear")
    images = ResNet(4).generator(target, 5)(torch.randn(2, 5))
    assert images.shape == (2, channels, *size)
    assert ResNet(4).critic(target)(images).value.shape == (2,)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 33, 32), (1, 100, 100), (3, 2, 64), (2,)], ids=str)
def test_other_sizes_are_refused(shape):
    for build in (lambda: ResNet(4).generator(Target(shape), 5), lambda: ResNet(4).critic(Target(shape))):
        with pytest.raises(InputError, match=r"halve evenly|points take an MLP"):
            build()


@pytest.mark.parametrize("way", LABELS)
def test_labels_reach_both_networks(way):
    target = Target((1, 8, 8), 4, labels=way)
    generator, critic = shaken(ResNet(4).generator(target, 5)), shaken(ResNet(4).critic(target))
    z, a, b = torch.randn(6, 5).double(), torch.zeros(6, dtype=torch.long), torch.full((6,), 3)
    images = generator(z, a)
    assert not torch.allclose(images, generator(z, b))
    said = critic(images, a)
    assert torch.allclose(said.value, critic(images, b).value) == (way == "auxiliary")
    assert (None if said.classes is None else said.classes.shape) == ((6, 4) if way == "auxiliary" else None)
    with pytest.raises(InputError, match="labels must be given to a conditional generator"):
        generator(z)


@pytest.mark.parametrize(("output", "low"), [("tanh", -1), ("sigmoid", 0)])
def test_images_are_in_the_outputs_range(output, low):
    images = ResNet(4).generator(Target((1, 8, 8), 0, output), 5)(10 * torch.randn(32, 5))
    assert images.min() >= low
    assert images.max() <= 1
    assert (images < 0).any() == (low < 0)


def test_scores_and_images_are_float32_under_autocast():
    generator, critic = ResNet(8).generator(CIFAR, 5), ResNet(8).critic(CIFAR)
    seen = []
    critic.head.value.register_forward_hook(lambda _, given, said: seen.append((given[0].dtype, said.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(torch.randn(4, 5))
        value = critic(images).value
    assert images.dtype == value.dtype == torch.float32
    assert seen == [(torch.float32, torch.float32)]
    assert (value - critic(images).value).norm() < 0.1 * value.norm()


@pytest.mark.parametrize("width", [0, -1, 2.5, True])
def test_a_wrong_width_is_refused(width):
    with pytest.raises(InputError, match="width must be a whole number"):
        ResNet(width)
