"""Deep networks against layers counted and written out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from triptych.check import InputError
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.deep import Activation, Deep
from triptych.gan.networks.target import Target

TARGET = Target((3, 32, 32))


def weights(network):
    return [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize(("depth", "more"), [(4, (0, 0, 0)), (8, (2, 1, 1)), (12, (3, 3, 2)), (20, (6, 5, 5))])
def test_the_depth_is_the_number_of_layers_with_weights_and_they_are_dealt_evenly(depth, more):
    for network in (Deep(2, depth).generator(TARGET, 5), Deep(2, depth).critic(TARGET)):
        assert len(weights(network)) == depth
    sizes = []

    def note(module, inputs, output):
        sizes.append(output.shape[-1])

    critic = Deep(2, depth, "none").critic(TARGET)
    for layer in weights(critic)[:-1]:
        layer.register_forward_hook(note)
    critic(torch.zeros(1, 3, 32, 32))
    assert [sizes.count(size) - 1 for size in (4, 8, 16)] == list(more)


def test_the_shallowest_pair_is_a_dcgan():
    deep, shallow = Deep(4, 4, "batch", "relu"), DCGAN(4, critic_norm="batch", init="he")
    ours, theirs = deep.generator(TARGET, 5), shallow.generator(TARGET, 5)
    for mine, other in zip(weights(ours), weights(theirs), strict=True):
        mine.load_state_dict(other.state_dict())
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(z), theirs(z), atol=1e-5, rtol=1e-4)
    ours, theirs = Deep(4, 4, "batch", "leaky").critic(TARGET), shallow.critic(TARGET)
    for mine, other in zip(weights(ours), weights(theirs), strict=True):
        mine.load_state_dict(other.state_dict())
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(x).value, theirs(x).value, atol=1e-5, rtol=1e-4)


def test_the_four_activations_are_the_papers():
    x = torch.linspace(-30, 30, 601, dtype=torch.float64)
    torch.testing.assert_close(Activation("softplus")(x), (1 + (2 * x + 2).exp()).log() / 2 - 1)
    assert torch.equal(Activation("relu")(x), x.clamp_min(0))
    assert torch.equal(Activation("leaky")(x), F.leaky_relu(x, 0.2))
    assert torch.equal(Activation("tanh")(x), x.tanh())


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="depth must be at least 5 for images of 64 x 64, got 4"):
        Deep(2, 4).critic(Target((3, 64, 64)))
    with pytest.raises(InputError, match="activation must be"):
        Deep(activation="gated")
    with pytest.raises(InputError, match="height and width must"):
        Deep().generator(Target((1, 5, 5)), 3)
