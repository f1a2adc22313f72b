"""Unrolled networks: every kind against its formula written out, gradients, saving."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from triptych.check import InputError
from triptych.sparse.deep.learning import LayerShape, parsed
from triptych.sparse.deep.networks import KINDS, MultiLayerNet, NetSpec

LAYERS = parsed("5x4s2,6x3,7x2")
F64 = torch.float64


def made(kind, rounds=2, padding=None):
    torch.manual_seed(0)
    net = MultiLayerNet(
        NetSpec(kind, LAYERS, channels=2, rounds=rounds, classes=4, padding=padding), scale=1.0
    ).double()
    with torch.no_grad():
        for p in [*net.bias, *(net.step or [])]:
            p.add_(0.1 * torch.randn_like(p))
    return net


def image(seed=1):
    return torch.randn(3, 2, 14, 14, dtype=F64, generator=torch.Generator().manual_seed(seed))


def ops(weights, strides=(2, 1, 1), paddings=(0, 0, 0)):
    up = [lambda x, w=w, s=s, p=p: F.conv2d(x, w, stride=s, padding=p) for w, s, p in zip(weights, strides, paddings)]
    down = [
        lambda g, w=w, s=s, p=p: F.conv_transpose2d(g, w, stride=s, padding=p)
        for w, s, p in zip(weights, strides, paddings)
    ]
    return up, down


def reference(net, x):
    """The formulas of the module's docstring, in torch's own functions."""
    kind, T, n = net.spec.kind, net.spec.rounds, 3
    W, b = list(net.weight), [v.reshape(1, -1, 1, 1) for v in net.bias]
    c = [1.0] * n if net.step is None else list(net.step)
    paddings = net.spec.around
    up, down = ops(W[:n], paddings=paddings)
    ups, downs = ops(list(net.back), paddings=paddings) if net.back is not None else (up, down)
    g, below = [], x
    for i in range(n):
        below = F.relu(c[i] * ups[i](below) + b[i])
        g.append(below)
        if kind == "layered":
            source = x if i == 0 else g[i - 1]
            for _ in range(T):
                g[i] = F.relu(g[i] - c[i] * up[i](down[i](g[i]) - source) + b[i])
            below = g[i]
    if kind in ("feed-forward", "layered"):
        return g
    t, old = 1.0, g[2]
    for k in range(1, T + 1):
        before, t = t, (1 + (1 + 4 * t * t) ** 0.5) / 2
        v = g[2] + (before - 1) / t * (g[2] - old) if kind == "ml-fista" else g[2]
        old, below, new = g[2], x, []
        hats = [None, None, v]
        hats[1] = downs[2](v)
        hats[0] = downs[1](hats[1])
        for i in range(n):
            if kind == "free":
                now, last = ops(W[k * n : k * n + n])[0], ops(W[(k - 1) * n : k * n])[1]
                below = F.relu(g[i] - now[i](last[i](g[i]) - below) + b[k * n + i])
            elif kind == "ml-lista":
                below = F.relu(hats[i] - up[i](down[i](hats[i])) + ups[i](below) + b[i])
            else:
                below = F.relu(hats[i] - c[i] * up[i](down[i](hats[i]) - below) + b[i])
            new.append(below)
        g = new
    return g


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_the_formulas(kind):
    net, x = made(kind), image()
    for code, expected in zip(net.codes(x), reference(net, x)):
        torch.testing.assert_close(code, expected)
    torch.testing.assert_close(net(x), net.head(net.codes(x)[-1].mean((2, 3))))


@pytest.mark.parametrize("kind", ["feed-forward", "layered", "ml-ista", "ml-fista", "ml-lista"])
def test_padding_is_that_of_convolutions(kind):
    net = made(kind, padding=(2, 1, 0))
    x = image()[..., :12, :12]  # shapes that a transposed convolution gives back
    for code, expected in zip(net.codes(x), reference(net, x)):
        torch.testing.assert_close(code, expected)


@pytest.mark.parametrize("kind", ["layered", "ml-ista", "ml-fista"])
def test_without_rounds_all_are_the_feed_forward_network(kind):
    net, plain, x = made(kind, rounds=0), made("feed-forward"), image()
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net(x), plain(x))


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_learn(kind):
    net = made(kind)
    F.cross_entropy(net(image()), torch.tensor([0, 1, 2])).backward()
    unused = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    last_free = [name for name in unused if kind == "free"]
    assert unused == last_free == []


def test_gradients_are_right():
    net = MultiLayerNet(NetSpec("ml-fista", parsed("3x3,3x2"), rounds=2, classes=2, ndim=1), scale=1.0).double()
    x = torch.randn(2, 1, 8, dtype=F64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,))


def test_first_steps_keep_rounds_from_going_uphill():
    """From 0 on, the reconstruction error of the first layer falls."""
    torch.manual_seed(3)
    net, x = MultiLayerNet(NetSpec("layered", parsed("20x5"), rounds=20), scale=3.0), torch.randn(4, 1, 16, 16)
    model = net.model((16, 16))
    errors = []
    for rounds in (0, 1, 5, 20):
        object.__setattr__(net.spec, "rounds", rounds)
        errors.append(float((x - model.down(1, net.codes(x)[0], (16, 16))).norm().detach()))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_unit_dictionaries_have_norm_one_and_the_weights_length_does_not_matter(kind, tmp_path):
    torch.manual_seed(0)
    net = MultiLayerNet(NetSpec(kind, LAYERS, channels=2, rounds=2, unit=True), scale=1.0)
    x = image().float()
    for training in (True, False):
        net.train(training)
        shapes = ((14, 14), *net.model((14, 14)).code_shapes((14, 14)))
        model = net.model((14, 14))
        for i in range(1, 4):
            assert float(torch.linalg.matrix_norm(model._matrix(i, shapes[i - 1]), 2).detach()) == pytest.approx(
                1, abs=0.02
            )
    before = net(x)
    other = MultiLayerNet.load(net.save(tmp_path / "net"))
    torch.testing.assert_close(other(x), before)
    with torch.no_grad():
        for w in net.weight:
            w.mul_(3.0)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)
    F.cross_entropy(net(x), torch.tensor([0, 1, 2])).backward()
    assert all(bool(w.grad.any()) for w in net.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_networks_come_back(kind, tmp_path):
    net, x = made(kind).float(), image().float()
    other = MultiLayerNet.load(net.save(tmp_path / "net"))
    assert other.spec == net.spec
    assert torch.equal(other(x), net.eval()(x))


def test_a_network_without_a_head_gives_the_deepest_code(tmp_path):
    net = MultiLayerNet(NetSpec("ml-ista", LAYERS, channels=2), head=False)
    x = image().float()
    assert torch.equal(net(x), net.codes(x)[-1])
    assert isinstance(MultiLayerNet.load(net.save(tmp_path / "n")).head, nn.Identity)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "lista"}, "kind must be one of"),
        ({"layers": ()}, "layers must be a tuple"),
        ({"rounds": -1}, "rounds"),
        ({"ndim": 3}, "ndim"),
        ({"classes": 0}, "classes"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        NetSpec(**{"kind": "ml-ista", "layers": LAYERS, **change})


def test_damaged_networks_are_refused(tmp_path):
    net = made("ml-ista").float()
    with torch.no_grad():
        net.weight[0][0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="must hold finite weights"):
        MultiLayerNet.load(net.save(tmp_path / "nan"))
    (tmp_path / "nan" / "config.json").unlink(missing_ok=True)
    with pytest.raises(InputError):
        MultiLayerNet.load(tmp_path / "nothing")


def test_layers_are_read_from_a_text():
    assert parsed("32x7s2, 128x5,64x3d0.1") == (LayerShape(32, 7, 2), LayerShape(128, 5), LayerShape(64, 3, 1, 0.1))
    for text in ("", "32", "32x7s", "ax3", "32x7;64x3"):
        with pytest.raises(InputError, match="layers must be like"):
            parsed(text)
    with pytest.raises(InputError, match="atoms"):
        parsed("0x3")
