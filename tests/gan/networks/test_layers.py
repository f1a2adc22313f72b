"""Layers against loops and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from triptych.check import InputError
from triptych.gan.draw import Draw
from triptych.gan.networks import layers
from triptych.gan.networks.layers import (
    Dropout,
    Gated,
    Head,
    LeakyReLU,
    Maxout,
    activation,
    concatenated,
    finish,
    gate,
    initialise,
    leaky_relu,
    norm,
    one_hot,
    relu,
    spread,
)
from triptych.gan.networks.target import Target


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(2)


def randn(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_leaky_relu_and_its_derivative_at_every_sign(slope):
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0], requires_grad=True)
    theirs = nn.LeakyReLU(slope) if slope else nn.ReLU()
    y = leaky_relu(x, slope)
    assert torch.equal(y, theirs(x))
    (ours,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(theirs(x).sum(), x)
    assert torch.equal(ours, expected)
    assert torch.equal(gate(torch.ones(5), y, slope), expected)
    assert torch.equal(LeakyReLU(slope)(x), y)
    assert torch.equal(relu(x), F.relu(x))


def test_leaky_relu_is_differentiable_twice_in_what_flows_back(rng):
    """d/dv of (d/dx v · f(x)) is f'(x), and nothing by x."""
    x, v = randn(rng, 7).requires_grad_(), randn(rng, 7).requires_grad_()
    (g,) = torch.autograd.grad(leaky_relu(x), x, v, create_graph=True)
    by_v, by_x = torch.autograd.grad(g.sum(), (v, x), allow_unused=True)
    assert torch.equal(by_v, torch.where(x > 0, 1.0, torch.tensor(0.2, dtype=x.dtype)))
    assert by_x is None


def test_gates_do_not_mind_memory_layouts(rng):
    y = randn(rng, 2, 3, 4, 5)
    u = randn(rng, 2, 3, 4, 5)
    expected = torch.where(y > 0, u, 0.2 * u)
    for a in (u, u.contiguous(memory_format=torch.channels_last)):
        for b in (y, y.contiguous(memory_format=torch.channels_last)):
            assert torch.equal(gate(a, b, 0.2), expected)
    assert torch.equal(
        gate(u[:1, :1, :1, :1].expand_as(y), y, 0.2), torch.where(y > 0, u[0, 0, 0, 0], 0.2 * u[0, 0, 0, 0])
    )


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)])
def test_maxout_and_gates_are_over_neighbours(rng, shape):
    x = randn(rng, *shape)
    for i in range(shape[0]):
        for unit in range(2):
            largest = torch.stack([x[i, 3 * unit + piece] for piece in range(3)]).amax(0)
            assert torch.equal(Maxout(3)(x)[i, unit], largest)
        for unit in range(3):
            a, b = x[i, 2 * unit], x[i, 2 * unit + 1]
            torch.testing.assert_close(Gated()(x)[i, unit], torch.tanh(b) / (1 + torch.exp(-a)))


@pytest.mark.parametrize("name", layers.ACTIVATIONS)
def test_activations_need_as_many_channels_as_they_say(rng, name):
    act, pieces = activation(name, 4)
    assert act(randn(rng, 2, 3 * pieces, 5, 5)).shape == (2, 3, 5, 5)


def test_layer_norm_is_over_an_image_with_gain_and_bias_a_channel(rng):
    x = randn(rng, 3, 4, 5, 6)
    layer = norm("layer", 4).double()
    with torch.no_grad():
        layer.weight.copy_(randn(rng, 4)), layer.bias.copy_(randn(rng, 4))
    for i in range(3):
        z = (x[i] - x[i].mean()) / (x[i].var(unbiased=False) + 1e-5).sqrt()
        for c in range(4):
            torch.testing.assert_close(layer(x)[i, c], z[c] * layer.weight[c] + layer.bias[c])
    assert isinstance(norm("batch", 4), nn.BatchNorm2d)
    assert isinstance(norm("batch", 4, points=True), nn.BatchNorm1d)
    assert torch.equal(norm("none", 4)(x), x)


def test_dropout_keeps_the_mean_and_the_share(rng):
    x, draw = torch.ones(50, 40, 5), Draw(3, 1, 0, 50)
    y = Dropout(0.2, "a")(x, draw)
    assert set(y.unique().tolist()) == {0, 1.25}
    kept = float((y > 0).double().mean())  # binomial: 10,000 entries
    assert abs(kept - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 10_000)
    assert not torch.equal(y[0], y[1])
    assert torch.equal(y, Dropout(0.2, "a")(x, draw))
    assert not torch.equal(y, Dropout(0.2, "b")(x, draw))
    assert torch.equal(y[10:20], Dropout(0.2, "a")(x[10:20], draw.part(10, 10)))
    assert Dropout(0.2, "a")(x, None) is x
    assert Dropout(0.0, "a")(x, draw) is x
    with pytest.raises(InputError, match="rate must be a finite number of at least 0"):
        Dropout(1, "a")


def test_labels_become_constant_channels(rng):
    x, labels = randn(rng, 3, 2, 4, 5), torch.tensor([2, 0, 3])
    y = concatenated(x, labels, 4)
    assert torch.equal(y[:, :2], x)
    for i in range(3):
        for c in range(4):
            assert (y[i, 2 + c] == float(labels[i] == c)).all()
    assert torch.equal(concatenated(x[:, :, 0, 0], labels, 4), y[:, :, 0, 0])
    assert concatenated(x, labels, 0) is x
    assert torch.equal(one_hot(labels, 4, x), torch.eye(4, dtype=x.dtype)[labels])


def test_heads_against_loops(rng):
    f, labels = randn(rng, 3, 5), torch.tensor([1, 0, 1])
    for kind in ("concatenate", "project", "auxiliary"):
        head = Head(5, Target((2,), 2, labels=kind)).double()
        w, b = head.value.weight[0], head.value.bias[0]
        said, u = head(f, labels), head.adjoint(f, labels)
        for i in range(3):
            slope = w + head.project.weight[labels[i]] if kind == "project" else w
            torch.testing.assert_close(said.value[i], slope @ f[i] + b)
            torch.testing.assert_close(u[i], slope)
            if kind == "auxiliary":
                torch.testing.assert_close(said.classes[i], head.classes.weight @ f[i] + head.classes.bias)


def test_the_head_computes_in_float32_at_least(rng):
    head, f = Head(5, Target((2,))), randn(rng, 3, 5)
    full = head(f.float(), None).value
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(f.float(), None).value, full)
        assert head(f.bfloat16(), None).value.dtype == torch.float32
    assert head.double()(f, None).value.dtype == torch.float64


def test_last_activations(rng):
    x = randn(rng, 4, 3)
    torch.testing.assert_close(finish(x, "tanh"), (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()))
    torch.testing.assert_close(finish(x, "sigmoid"), 1 / (1 + (-x).exp()))
    assert finish(x, "linear") is x
    assert finish(x.bfloat16(), "linear").dtype == torch.float32


@pytest.mark.parametrize(
    ("module", "variance", "hidden"),
    [  # of the formulas in the docstring, worked out by hand
        (nn.Linear(100, 300), 2 / 400, 2 / 100),
        (nn.Conv2d(30, 40, 5, 2), 4 / (750 + 250), None),  # 30 · 25 in, 40 · 25 / 4 out
        (nn.ConvTranspose2d(40, 30, 5, 2), 4 / (250 + 750), None),
        (nn.Conv2d(30, 20, 3), 4 / (270 + 180), None),
    ],
    ids=repr,
)
def test_spread(module, variance, hidden):
    assert spread(module) == pytest.approx(math.sqrt(variance))
    if hidden:
        assert spread(module, hidden=True) == pytest.approx(math.sqrt(hidden))


@pytest.mark.parametrize("kind", layers.INITS)
def test_starts(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Linear(200, 300), nn.Conv2d(30, 40, 5, 2), nn.ConvTranspose2d(40, 30, 5, 2), nn.BatchNorm2d(500)
        )
        initialise(network, kind, 0.05)
    for module in list(network)[:3]:
        w = module.weight.detach()
        expected = {"normal": 0.05, "uniform": 0.05 / math.sqrt(3), "he": spread(module)}[kind]
        assert abs(float(w.std()) / expected - 1) < 4 / math.sqrt(w.numel())  # kurtosis at most 3: 4 errors at least
        assert abs(float(w.mean())) < 4 * expected / math.sqrt(w.numel())
        if kind != "normal":
            assert w.abs().max() <= math.sqrt(3) * expected
        else:
            assert w.abs().max() > 3 * expected
        assert not module.bias.any()
    gain = network[3].weight.detach()
    assert (gain == 1).all() if kind != "normal" else abs(float(gain.std()) / 0.05 - 1) < 4 / math.sqrt(500)
    with pytest.raises(InputError, match="init must be one of normal, uniform, he, got 'hee'"):
        initialise(network, "hee", 1)
