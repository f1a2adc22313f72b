"""Trained networks read as models: the forward pass is theirs, and the report is true."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from triptych.check import InputError
from triptych.sparse.coherence import mutual_coherence
from triptych.sparse.deep.from_torch import Tilted, from_torch, model_penalty
from triptych.sparse.norms import l0_stripe


class Example(nn.Module):
    """The form of pytorch/examples' MNIST network: functions between modules, pooling, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 12, 3)
        self.dropout1, self.fc = nn.Dropout(0.25), nn.Linear(12 * 36, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.max_pool2d(x, 2)
        return F.log_softmax(self.fc(torch.flatten(self.dropout1(x), 1)), 1)


def batchnormed():
    """BatchNorm with statistics and scales of its own, strides, padding, a method's ReLU, dropout in between."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.3),
        nn.Conv2d(6, 9, 4, stride=2, padding=1),
        nn.BatchNorm2d(9),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
    )
    for m in net:
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 2.0)
            nn.init.normal_(m.bias)
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2.0)
    return net


def test_the_example_network_is_read_up_to_its_pooling():
    torch.manual_seed(0)
    net, x = Example(), torch.randn(3, 1, 16, 16)
    found = from_torch(net)
    assert len(found.model) == 2
    assert found.names == ("conv1 (Conv2d)", "conv2 (Conv2d)")
    assert "max_pool2d" in found.ended
    with torch.no_grad():
        one = F.relu(net.conv1(x))
        two = F.relu(net.conv2(one))
    for code, own in zip(found.forward(x), (one, two)):
        torch.testing.assert_close(code, own, rtol=0, atol=1e-6)


def test_batchnorm_padding_and_strides_are_folded_and_the_network_stays_as_it_was():
    net, x = batchnormed().train(), torch.randn(4, 2, 13, 14)
    before = copy.deepcopy(net.state_dict())
    found = from_torch(net)
    assert net.training
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values()))
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(found.forward(x)[0], net[:3](x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.forward(x)[1], net[:7](x), rtol=1e-4, atol=1e-4)
    assert found.model.around == (1, 1)
    assert "AvgPool2d" in found.ended


def test_rescaling_keeps_the_network_and_makes_the_step_safe():
    net, x = batchnormed().eval(), torch.randn(4, 2, 13, 14)
    found = from_torch(net)
    scaled = found.rescale()
    for a, b, s in zip(scaled.forward(x), found.forward(x), scaled.scale):
        torch.testing.assert_close(a * s, b, rtol=1e-4, atol=1e-4)
    shapes = ((13, 14), *scaled.model.code_shapes((13, 14)))
    for i in (1, 2):
        assert scaled.model.lipschitz(i, shapes[i - 1]) <= 1.05
    for one in scaled.report(x, steps=5):
        assert one.forward <= one.at_zero + 1e-6 * abs(one.at_zero)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_rescaled_layers_are_safe_on_images_of_any_size(size):
    """A cosine filter whose spectrum peaks between the frequencies of small images."""
    n = torch.arange(size).float()
    wave = torch.cos(1.9 * n)[:, None] * torch.cos(1.1 * n)[None]
    net = nn.Sequential(nn.Conv2d(1, 2, size), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([wave, wave.T])[:, None])
    scaled = from_torch(net).rescale()
    for side in (size + 3, 64, 101):
        x = torch.randn(1, 2, *scaled.model.code_shapes((side, side))[0], generator=torch.Generator().manual_seed(0))
        for _ in range(60):
            x = scaled.model.up(1, scaled.model.down(1, x, (side, side)))
            norm, x = float(x.norm()), x / x.norm()
        assert norm <= 1 + 1e-5


class Dropping(nn.Module):
    """Dropout as a function, which drops in evaluation too unless it is told."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.told = nn.Conv1d(1, 2, 3), nn.Conv1d(2, 2, 3), told

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.dropout(x, 0.5, training=False) if self.told else F.dropout(x, 0.5)
        return F.relu(self.conv2(x))


def test_dropout_as_a_function_counts_where_it_drops():
    assert len(from_torch(Dropping(told=True)).model) == 2
    found = from_torch(Dropping(told=False))
    assert len(found.model) == 1
    assert "dropout" in found.ended


def test_a_dead_filter_is_no_obstacle():
    net = thresholding_net()
    with torch.no_grad():
        net[0].weight[3] = 0
    (first, _) = from_torch(net).report(torch.randn(2, 1, 12, 12), steps=5)
    assert 0 < first.coherence < 1


def test_batchnorms_of_all_kinds_in_the_penalty():
    plain = nn.Sequential(nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3, affine=False), nn.ReLU())
    assert float(model_penalty(plain).detach()) > 0
    without = nn.Sequential(nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.ReLU())
    with pytest.raises(InputError, match="must have running statistics"):
        model_penalty(without)


def thresholding_net(k=10):
    """A network that is such a model: unit atoms, all biases thresholds."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(1, k, 4), nn.ReLU(), nn.Conv2d(k, 12, 3), nn.ReLU())
    with torch.no_grad():
        for m in (net[0], net[2]):
            m.weight.copy_(m.weight / m.weight.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1))
            m.bias.fill_(-0.2)
    return net


def test_the_report_counts_what_it_says():
    net, x = thresholding_net(), torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        net[2].bias[:3] = 0.5
    found = from_torch(net)
    codes, below = found.forward(x), x
    for i, (one, code) in enumerate(zip(found.report(x, steps=400), codes)):
        D, b = found.model.layers[i], found.bias[i]
        assert one.coherence == mutual_coherence(D)
        assert one.bound == pytest.approx((1 + 1 / one.coherence) / 2)
        assert one.stripe == int(l0_stripe(D, code).max())
        assert one.positive == pytest.approx((0.0, 0.25)[i])
        off = below - D.synthesise(code, below.shape[2:])
        value = off.square().flatten(1).sum(1) / 2 - (b.reshape(-1, 1, 1) * code).flatten(1).sum(1)
        assert one.forward == pytest.approx(float(value.mean()), rel=1e-5)
        assert one.at_zero == pytest.approx(float(below.square().flatten(1).sum(1).mean() / 2), rel=1e-5)
        assert one.best < one.forward
        below = code
    first, second = found.report(x, steps=400)
    assert first.settled
    assert first.best - first.lower_bound <= 1e-3 * first.best * 1.001
    assert second.lower_bound == -float("inf")  # positive biases


def test_the_pursuit_solves_each_layer_on_the_code_before():
    net, x = thresholding_net(), torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    found = from_torch(net)
    codes = found.pursue(x, steps=2000, tol=1e-5)
    D = found.model.layers[1]
    z = codes[0].double()
    gradient = D.to(torch.float64).analyse(z - D.to(torch.float64).synthesise(codes[1].double(), z.shape[2:])) - 0.2
    on = codes[1] > 1e-4
    assert float(gradient[on].abs().max()) < 0.02
    assert float(gradient.max()) < 0.02


def test_the_penalty_vanishes_for_such_models_alone_and_has_gradients():
    assert float(model_penalty(thresholding_net()).detach()) < 1e-10
    net = batchnormed().eval()
    penalty = model_penalty(net)
    assert float(penalty.detach()) > 0.1
    penalty.backward()
    assert all(p.grad is not None for p in net[1].parameters())
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU())
    optimiser = torch.optim.Adam(plain.parameters(), 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    for _ in range(300):
        optimiser.zero_grad()
        model_penalty(plain).backward()
        optimiser.step()
        schedule.step()
    assert float(model_penalty(plain).detach()) < 1e-3
    assert float(plain[0].bias.detach().max()) < 0


def test_the_tilted_term_is_its_definition():
    term, v = (
        Tilted(torch.tensor([0.5, -0.3]).double().reshape(1, 2, 1)),
        torch.tensor([[[0.2], [0.1]], [[2.0], [-1.0]]]).double(),
    )
    torch.testing.assert_close(term.prox(v, 2.0), torch.relu(v - 2.0 * term.cost))
    assert term.value(torch.relu(v)).tolist() == pytest.approx([0.07, 1.0])
    assert term.value(v).tolist()[1] == float("inf")
    assert term.conjugate(torch.tensor([[[0.5], [-0.3]], [[0.5], [-0.2]]]).double()).tolist() == [0.0, float("inf")]


class Branching(nn.Module):
    """A residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        y = F.relu(self.conv1(x))
        return y + F.relu(self.conv2(y))


class Untraceable(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_is_no_such_stack_ends_it_or_is_refused():
    found = from_torch(Branching())
    assert len(found.model) == 1
    assert "branch" in found.ended
    assert "to the end" in from_torch(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU())).ended
    assert "no ReLU of its own" in from_torch(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Conv1d(2, 2, 3))).ended
    for net, message in (
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU()), "must begin with a convolution"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU()), "which has no ReLU of its own"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.ReLU()), "groups=1"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=(1, 0)), nn.ReLU()), "same padding on both axes"),
        (Untraceable(), r"traceable by torch\.fx"),
    ):
        with pytest.raises(InputError, match=message):
            from_torch(net)
    with pytest.raises(InputError, match=r"net must be a torch\.nn\.Module"):
        from_torch(lambda x: x)
    with pytest.raises(InputError, match="x must be"):
        from_torch(Branching()).report(torch.zeros(1, 3, 8, 8))
