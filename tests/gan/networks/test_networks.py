"""Laws of every architecture: shapes, ranges, labels, seeds, precision, and images that do not touch each other."""

import copy
import json
from dataclasses import asdict, fields

import pytest
import torch

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan.draw import Draw

N = 5


@pytest.fixture
def pair(case):
    return case.networks()


def noise(n=N, dtype=torch.float64):
    return torch.randn(n, 6, dtype=dtype, generator=torch.Generator().manual_seed(5))


def test_shapes_and_ranges(case, pair):
    generator, critic = pair
    x = generator(noise(), case.labels(N))
    assert x.shape == (N, *case.target.shape)
    low, high = {"tanh": (-1, 1), "sigmoid": (0, 1), "linear": (-torch.inf, torch.inf)}[case.target.output]
    assert low <= x.detach().min() < x.detach().max() <= high
    scores = critic(x, case.labels(N))
    assert scores.value.shape == (N,)
    auxiliary = case.target.classes and case.target.labels == "auxiliary"
    assert (scores.classes is not None) == bool(auxiliary)
    assert scores.classes is None or scores.classes.shape == (N, case.target.classes)
    assert generator.takes_draw
    assert critic.takes_draw


def test_every_parameter_matters(case, pair):
    generator, critic = pair
    scores = critic(generator(noise(), case.labels(N)), case.labels(N))
    loss = scores.value.square().sum() + (0 if scores.classes is None else scores.classes.square().sum())
    loss.backward()
    for network in pair:
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_labels_change_what_networks_say(told):
    case, (generator, critic) = told, told.networks()
    y, z = case.labels(N), noise()
    other = (y + 1) % case.target.classes
    generator.eval()
    assert (generator(z, y) - generator(z, other)).abs().flatten(1).amax(1).min() > 1e-6
    x = case.images(N)
    moved = (critic(x, y).value - critic(x, other).value).abs().min() > 1e-6
    assert moved == (case.target.labels != "auxiliary")


def test_missing_labels_are_refused(told):
    case, (generator, critic) = told, told.networks()
    with pytest.raises(InputError, match="labels must be given"):
        generator(noise())
    if case.target.labels != "auxiliary":
        with pytest.raises(InputError, match="labels must be given"):
            critic(case.images(N))


def test_a_critic_scores_each_image_alone(case, pair):
    x, y = case.images(N), case.labels(N)
    together = pair[1](x, y).value
    single = [pair[1](x[i : i + 1], None if y is None else y[i : i + 1]).value for i in range(N)]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-10, atol=1e-12)


def test_a_sampling_generator_makes_each_image_alone(case, pair):
    generator, z, y = pair[0].eval(), noise(), case.labels(N)
    single = [generator(z[i : i + 1], None if y is None else y[i : i + 1]) for i in range(N)]
    torch.testing.assert_close(generator(z, y), torch.cat(single), rtol=1e-10, atol=1e-12)


def test_a_draw_is_each_images_own(case, pair):
    """Dropout: the same draw has the same mask, slices of a batch agree with the whole, and without a draw there is none."""
    x, y, draw = case.images(N), case.labels(N), Draw(1, 2, 3, N)
    critic = pair[1]
    whole = critic(x, y, draw).value
    assert torch.equal(whole, critic(x, y, draw).value)
    part = critic(x[2:4], None if y is None else y[2:4], draw.part(2, 2)).value
    torch.testing.assert_close(part, whole[2:4], rtol=1e-10, atol=1e-12)
    drops = any(getattr(case.architecture, name, 0) for name in ("dropout_input", "dropout_hidden"))
    assert torch.equal(whole, critic(x, y).value) != drops


def test_a_seed_gives_the_weights(case):
    def weights(seed):
        torch.manual_seed(seed)
        pair = case.architecture.generator(case.target, 6), case.architecture.critic(case.target)
        return torch.cat([p.flatten() for network in pair for p in network.parameters()])

    with torch.random.fork_rng(devices=[]):
        assert torch.equal(weights(1), weights(1))
        assert not torch.equal(weights(1), weights(2))


def test_bfloat16_ends_in_float32(case):
    generator, critic = case.networks(torch.float32)
    x, y = case.images(N, torch.float32), case.labels(N)
    exact = critic(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert generator(noise(dtype=torch.float32), y).dtype == torch.float32
        scores = critic(x, y)
    assert scores.value.dtype == torch.float32
    assert scores.classes is None or scores.classes.dtype == torch.float32
    assert (scores.value - exact.value).norm() < 0.1 * exact.value.norm()


def test_the_last_layer_is_not_rounded(case):
    """Equal features up to bfloat16, two values that bfloat16 cannot tell apart: the bias of the last layer moves them."""
    _, critic = case.networks(torch.float32)
    x, y = case.images(N, torch.float32), case.labels(N)
    head = critic.head
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        before = critic(x, y).value
        head.value.weight.mul_(1 + 2.0**-12)
        after = critic(x, y).value
    assert (before != after).any()


def test_memory_layout_changes_nothing(case):
    engine = Engine(precision="float64")
    x, y, z = case.images(N), case.labels(N), noise()
    plain = case.networks()
    placed = [engine.place(copy.deepcopy(network)) for network in plain]
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(placed[1](x, y).value, plain[1](x, y).value, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(placed[0](z, y), plain[0](z, y), rtol=1e-10, atol=1e-12)


def test_a_state_dict_carries_all(case):
    ours = case.networks()
    torch.manual_seed(9)
    others = case.architecture.generator(case.target, 6), case.architecture.critic(case.target)
    for network, other, given in zip(ours, others, (noise(), case.images(N))):
        other.to(torch.float64).load_state_dict(network.state_dict())
        network.eval(), other.eval()
        mine, theirs = network(given, case.labels(N)), other(given, case.labels(N))
        assert torch.equal(getattr(mine, "value", mine), getattr(theirs, "value", theirs))


def test_numbers_are_json(case):
    a = case.architecture
    again = type(a)(**json.loads(json.dumps(asdict(a))))
    assert again == a
    assert all(isinstance(getattr(again, f.name), int | float | str | tuple | None) for f in fields(a))
