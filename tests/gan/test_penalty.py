"""Penalties on the gradient against plain double backward through PyTorch's own activations, and against closed forms."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from triptych.check import InputError
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, Scores, scorer
from triptych.gan.networks import layers
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.target import Target
from triptych.gan.penalty import gradient_norms, gradient_penalty, input_gradient, r1

EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}


def batches(case, n, dtype=torch.float64):
    real, fake = case.images(n, dtype, seed=1), case.images(n, dtype, seed=2)
    return Batch(real, case.labels(n)), Batch(fake, None if case.labels(n) is None else (case.labels(n) + 1) % 3)


def gradients(loss, network):
    """Of all parameters as one vector; a parameter that is not reached has 0."""
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, network.parameters())])


def close(ours, theirs, dtype):
    return float((ours - theirs).norm()) <= EXACT[dtype] * float(theirs.norm()) and float(theirs.norm()) > 0


def plain_penalty(critic, real, fake, draw):
    """Double backward as the textbook has it, through PyTorch's activations (the caller has put them in)."""
    alpha = draw.uniform("alpha", like=real.images).view(-1, *[1] * (real.images.dim() - 1))
    x = (alpha * fake.images + (1 - alpha) * real.images).requires_grad_()
    value = critic(x, real.labels, draw.named("between")).value
    (g,) = torch.autograd.grad(value, x, torch.ones_like(value), create_graph=True)
    return ((g.reshape(len(g), -1).pow(2).sum(1).sqrt() - 1) ** 2).mean()


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_the_penalty_is_plain_double_backward(case, dtype, monkeypatch):
    _, critic = case.networks(dtype)
    (real, fake), draw = batches(case, 5, dtype), Draw(7, 2, 3, 5)
    ours = gradient_penalty(scorer(critic), real, fake, draw)
    found = gradients(ours, critic)
    monkeypatch.setattr(layers, "_Leaky", SimpleNamespace(apply=lambda x, slope, inplace: F.leaky_relu(x, slope)))
    plain = plain_penalty(critic, real, fake, draw)
    assert close(ours.detach(), plain.detach(), dtype)
    assert close(found, gradients(plain, critic), dtype)


def test_a_network_has_the_pass_of_its_own_that_it_should(case):
    _, critic = case.networks()
    real, _ = batches(case, 2)
    assert (scorer(critic).input_gradient(real) is not None) == case.own


def test_the_penalty_of_a_batch_is_the_mean_of_its_images(case):
    _, critic = case.networks()
    (real, fake), draw = batches(case, 6), Draw(1, count=6)
    whole = gradient_penalty(scorer(critic), real, fake, draw)
    single = [gradient_penalty(scorer(critic), one(real, i), one(fake, i), draw.part(i, 1)) for i in range(6)]
    torch.testing.assert_close(whole, torch.stack(single).mean(), rtol=1e-11, atol=0)


def one(batch, i):
    return Batch(batch.images[i : i + 1], None if batch.labels is None else batch.labels[i : i + 1])


def test_the_adjoint_has_no_second_order_pass(case):
    """What is no factor of the gradient, as a bias, is not even given zeros."""
    _, critic = case.networks()
    real, fake = batches(case, 2)
    gradient_penalty(scorer(critic), real, fake, Draw(1, count=2)).backward()
    reached = {name for name, p in critic.named_parameters() if p.grad is not None}
    if case.own:
        assert reached == {name for name, _ in critic.named_parameters() if not name.endswith("bias")} - unused(critic)
    assert reached


def unused(critic):
    """The auxiliary head's weights, which no value depends on."""
    return {name for name, _ in critic.named_parameters() if name.startswith("head.classes")}


def test_perceptrons_have_no_second_order_pass_by_double_backward_either():
    critic = nn.Sequential(nn.Linear(3, 5), layers.LeakyReLU(), nn.Linear(5, 4), layers.LeakyReLU(0.0), nn.Linear(4, 1))
    gradient_penalty(scorer(critic), Batch(torch.randn(2, 3)), Batch(torch.randn(2, 3)), Draw(1, count=2)).backward()
    assert [p.grad is None for p in critic.parameters()] == [False, True] * 3


class Counted(TorchDispatchMode):
    """Counts convolutions, forward ones and gradients."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "convolution_backward":
            self.calls.update({"input": int(args[10][0]), "weight": int(args[10][1])})
        elif name == "convolution":
            self.calls["forward"] += 1
        return function(*args, **(kwargs or {}))


def test_a_penalty_takes_four_convolutions_a_layer():
    """Forward, adjoint, the adjoint's two gradients; no zero pass. Of few channels, one gradient is a plain convolution."""
    critic = DCGAN(5).critic(Target((1, 16, 16)))
    x = Batch(torch.randn(2, 1, 16, 16))
    with Counted() as counted:
        gradient_penalty(scorer(critic), x, Batch(-x.images), Draw(0, count=2)).backward()
    assert counted.calls == {"forward": 2 + 2 + 1, "input": 1, "weight": 2}


class Slope(nn.Module):
    """D(x) = s · x₀ or any shape of it: its gradient has length s everywhere."""

    def __init__(self, s, shape):
        super().__init__()
        self.s, self.shape = nn.Parameter(torch.tensor(float(s))), shape

    def forward(self, x):
        return (self.s * x.flatten(1)[:, 0]).view(self.shape)


@pytest.mark.parametrize("n", [1, 4, 64])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=str)
def test_a_critic_of_slope_1_is_not_punished(n, shape):
    real, fake = torch.randn(2, n, 3, 4, 4)
    assert gradient_penalty(scorer(Slope(1, shape)), Batch(real), Batch(fake), Draw(0, count=n)).item() == 0


@pytest.mark.parametrize(
    ("s", "target", "one_sided", "expected"),
    [(3, 1, False, 4), (0.5, 1, False, 0.25), (0.5, 1, True, 0), (3, 1, True, 4), (3, 5, False, 4), (3, 0, False, 9)],
)
def test_target_and_sides(s, target, one_sided, expected):
    real, fake = torch.randn(2, 4, 5)
    critic = Slope(s, (-1,))
    loss = gradient_penalty(
        scorer(critic), Batch(real), Batch(fake), Draw(0, count=4), target=target, one_sided=one_sided
    )
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert float(critic.s.grad) == pytest.approx(0 if one_sided and s < target else 2 * (s - target))


def half_square(batch):
    """D(x) = ‖x‖² / 2, whose gradient is x."""
    return Scores(batch.images.flatten(1).square().sum(1) / 2)


def test_each_image_has_its_own_place_between():
    real, fake = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    draw = Draw(4, 1, 2, 5)
    alpha = draw.uniform("alpha", like=real)
    places = torch.stack([(1 - a) * r + a * f for a, r, f in zip(alpha, real, fake)])
    expected = ((places.flatten(1).norm(dim=1) - 1) ** 2).mean()
    torch.testing.assert_close(gradient_penalty(half_square, Batch(real), Batch(fake), draw), expected)
    assert len(set(alpha.tolist())) == 5


def test_r1_is_the_mean_squared_length():
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(r1(half_square, Batch(x)), x.square().sum((1, 2)).mean())


def test_true_second_order_terms_are_kept():
    """D(x) = softplus(w · x): ∇D = sigmoid(w · x) w, whose derivative by w has the curvature of softplus."""

    class Soft(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

        def forward(self, x):
            return F.softplus(x @ self.w)

    critic, x = Soft(), torch.randn(7, 2, dtype=torch.float64)
    r1(scorer(critic), Batch(x)).backward()
    w = critic.w.detach().requires_grad_()
    (torch.sigmoid(x @ w) ** 2 * (w @ w)).mean().backward()
    torch.testing.assert_close(critic.w.grad, w.grad)


def test_a_zero_gradient_has_finite_derivatives(case):
    _, critic = case.networks()
    for parameter in critic.parameters():
        nn.init.zeros_(parameter)
    real, fake = batches(case, 3)
    loss = gradient_penalty(scorer(critic), real, fake, Draw(0, count=3))
    loss.backward()
    assert loss.item() == 1
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())


def test_a_critic_that_does_not_look_has_gradient_zero():
    b = nn.Parameter(torch.ones(()))
    norms = gradient_norms(lambda batch: Scores(b.expand(len(batch.images))), Batch(torch.randn(3, 2)))
    assert norms.tolist() == [0, 0, 0]


class Bowl(nn.Module):
    """D(x) = s · ‖x‖² / 2, whose gradient depends on x."""

    def __init__(self):
        super().__init__()
        self.s = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.s * x.square().sum(1) / 2


def test_gradients_reach_the_critic_alone():
    bowl, (real, fake) = Bowl(), torch.randn(2, 4, 3)
    with_graph = [Batch(x.clone().requires_grad_()) for x in (real, fake)]
    (gradient_penalty(scorer(bowl), *with_graph, Draw(0, count=4)) + r1(scorer(bowl), with_graph[1])).backward()
    assert [batch.images.grad for batch in with_graph] == [None, None]
    assert bowl.s.grad is not None
    r1(scorer(bowl), Batch(real))
    assert not real.requires_grad


def test_a_penalty_can_be_read_where_no_gradients_are_kept():
    critic, real = Slope(2, (-1,)), torch.randn(4, 3)
    with torch.no_grad():
        assert r1(scorer(critic), Batch(real)).item() == pytest.approx(4)


def test_the_critic_is_asked_with_the_real_labels_and_a_draw_of_its_own():
    asked = []

    def critic(batch):
        asked.append(batch)
        return half_square(batch)

    draw = Draw(3, 1, 4, 2)
    real, fake = (Batch(torch.randn(2, 3), torch.tensor(labels)) for labels in ([0, 1], [2, 3]))
    gradient_penalty(critic, real, fake, draw)
    assert asked[0].labels.tolist() == [0, 1]
    assert asked[0].draw == draw.named("between")


def test_scores_of_a_wrong_shape_are_refused():
    with pytest.raises(InputError, match=r"critic must be .* one value for each of 4 images, got \(4, 2\)"):
        gradient_norms(scorer(nn.Linear(3, 2)), Batch(torch.randn(4, 3)))


@pytest.mark.parametrize("penalty_first", [True, False])
def test_bfloat16_keeps_the_norm_in_float32_and_every_gradient(case, penalty_first):
    """Whatever autocast's cache of weights holds: a copy that was made without a graph would lose gradients."""
    _, critic = case.networks(torch.float32)
    (real, fake), draw, score = batches(case, 4, torch.float32), Draw(0, count=4), scorer(critic)
    norms = gradient_norms(score, real).detach().double()
    together = gradients(gradient_penalty(score, real, fake, draw) + score(real).value.mean(), critic)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_norms(score, real)
        assert found.dtype == torch.float32
        first = gradient_penalty(score, real, fake, draw) if penalty_first else score(real).value.mean()
        second = score(real).value.mean() if penalty_first else gradient_penalty(score, real, fake, draw)
        loss = first + second
    assert loss.dtype == torch.float32
    torch.testing.assert_close(found.detach().double(), norms, rtol=0.1, atol=0.02 * norms.max().item())
    difference = (gradients(loss, critic) - together).norm() / together.norm()
    assert difference < 0.1
    assert input_gradient(score, real).shape == real.images.shape
