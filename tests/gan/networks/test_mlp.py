"""Perceptrons: Goodfellow's pair, the start at the pixels' means, dropout as its code has it, wrong numbers."""

import math

import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.gan.draw import Draw
from triptych.gan.networks.mlp import MLP, start_at_means
from triptych.gan.networks.target import Target

DIGITS = Target((1, 28, 28), output="sigmoid")
GOODFELLOW = MLP(
    (1200, 1200), (240, 240), "relu", "maxout", 5,
    dropout_input=0.2, dropout_hidden=0.5, init="uniform", generator_scale=0.05, critic_scale=0.005,
)  # fmt: skip


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_goodfellows_pair():
    generator, critic = GOODFELLOW.generator(DIGITS, 100), GOODFELLOW.critic(DIGITS)
    assert count(generator) == 101 * 1200 + 1201 * 1200 + 1201 * 784
    assert count(critic) == 785 * 1200 + 241 * 1200 + 241
    for network, half_width in ((generator, 0.05), (critic, 0.005)):
        weights = [p for name, p in network.named_parameters() if name.endswith("weight")]
        assert all(0.98 * half_width < w.abs().max() <= half_width for w in weights)


def test_he_is_larger_before_a_relu():
    """√(2 / in) in hidden layers, √(2 / (in + out)) in the last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = MLP().generator(Target((300,)), 200)
    stds = [float(m.weight.detach().std()) for m in generator.modules() if isinstance(m, nn.Linear)]
    expected = [math.sqrt(2 / n) for n in (200, 512, 512)] + [math.sqrt(2 / 812)]
    assert stds == pytest.approx(expected, rel=0.02)


def test_start_at_means():
    generator = MLP((4,), (4,)).generator(DIGITS, 3)
    means = torch.linspace(0, 1, 784)
    start_at_means(generator, means)
    nn.init.zeros_(generator.last.weight)
    torch.testing.assert_close(generator(torch.randn(2, 3))[1].flatten(), means.clamp(1e-3, 1 - 1e-3))
    with pytest.raises(InputError, match=r"means must be 784 numbers, one a pixel, got \(3,\)"):
        start_at_means(generator, [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="generator must be a perceptron with sigmoid output"):
        start_at_means(MLP().generator(Target((2,), output="linear"), 3), [0.1, 0.2])


def test_dropout_is_of_the_input_and_of_what_layers_give():
    """A critic whose layers copy its input: what is left is x over the shares kept, or 0."""
    critic = MLP((1,), (3, 3), dropout_input=0.2, dropout_hidden=0.5).critic(Target((3,)))
    with torch.no_grad():
        for layer in critic.layers:
            layer.weight.copy_(torch.eye(3)), layer.bias.zero_()
        critic.head.value.weight.copy_(torch.tensor([[1.0, 10.0, 100.0]])), critic.head.value.bias.zero_()
    values = critic(torch.ones(4000, 3), None, Draw(0, count=4000)).value.detach() * 0.8 * 0.25
    digits = torch.stack([values.round().long() // 10**k % 10 for k in range(3)])
    assert set(digits.unique().tolist()) == {0, 1}
    share = digits.double().mean()
    assert abs(float(share) - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 12_000)
    torch.testing.assert_close(values, values.round(), atol=1e-4, rtol=0)


def test_batch_norm_is_the_generators_and_before_the_activation():
    """It takes out the scale and the shift of every hidden layer, and no more."""
    settings = MLP((6, 5), (4,), norm="batch")
    generator, z = settings.generator(Target((2,), output="linear"), 3).double(), torch.randn(9, 3, dtype=torch.float64)
    before = generator(z)
    with torch.no_grad():
        for layer in generator.hidden:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(50), layer.bias.add_(3)
    torch.testing.assert_close(generator(z), before, rtol=1e-2, atol=1e-3)  # eps beside the variance
    assert before.std(0).min() > 0.1
    assert not any("batch" in type(m).__name__.lower() for m in settings.critic(Target((2,))).modules())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"generator_widths": (8, 0)}, "generator_widths must be a whole number of at least 1, got 0"),
        ({"activation": "rellu"}, r"activation must be one of .*\(did you mean relu\?\)"),
        ({"critic_activation": "gated"}, "critic_activation must be one of"),
        ({"pieces": 0}, "pieces must be"),
        ({"norm": "layer"}, "norm must be one of none, batch"),
        ({"dropout_hidden": 1}, "dropout_hidden must be a finite number of at least 0 and at most 0.99"),
        ({"critic_scale": 0}, "critic_scale must be a finite number above 0"),
        ({"init": "xavier"}, "init must be one of"),
    ],
    ids=str,
)
def test_wrong_numbers_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        MLP(**wrong)
