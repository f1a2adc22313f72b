"""Every objective against the formula of its paper, written again in NumPy, and against finite differences."""

import ast
import dataclasses
import inspect
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from triptych.check import InputError
from triptych.gan import composed, objectives
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, Scores, scorer
from triptych.gan.objectives import (
    OBJECTIVES,
    Auxiliary,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Regularised,
    Relativistic,
    Wasserstein,
    WassersteinGP,
)

W = np.array([1.2, -0.5, 0.7])  # of a critic D(x) = w · x
V = np.array([[0.3, -1.0, 0.2], [1.1, 0.4, -0.6]])  # of its class head
LABELS = np.array([0, 1, 1, 0, 1])


def s(t):
    return np.log1p(np.exp(-np.abs(t))) + np.maximum(t, 0)


def norm(w=W):
    return math.sqrt((w**2).sum())


def entropy(x, y=LABELS):
    logits = x @ V.T
    return (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]).mean()


def averaged(r, f):
    return s(f.mean() - r).mean() + s(f - r.mean()).mean()


# Each: the objective, and as functions of (D(x), D(x̃), x, x̃) what the critic and what the generator minimise.
FORMULAS = {
    "minimax": (Minimax(), lambda r, f, x, y: s(-r).mean() + s(f).mean(), lambda r, f, x, y: -s(f).mean()),
    "minimax halved": (
        Minimax(halved=True),
        lambda r, f, x, y: 0.5 * (s(-r).mean() + s(f).mean()),
        lambda r, f, x, y: np.log(1 - 1 / (1 + np.exp(-f))).mean(),
    ),
    "non-saturating": (
        NonSaturating(),
        lambda r, f, x, y: -np.log(1 / (1 + np.exp(-r))).mean() - np.log(1 - 1 / (1 + np.exp(-f))).mean(),
        lambda r, f, x, y: -np.log(1 / (1 + np.exp(-f))).mean(),
    ),
    "non-saturating halved": (
        NonSaturating(halved=True),
        lambda r, f, x, y: (s(-r).mean() + s(f).mean()) / 2,
        lambda r, f, x, y: s(-f).mean(),
    ),
    "least squares": (
        LeastSquares(),
        lambda r, f, x, y: ((r - 1) ** 2).mean() + (f**2).mean(),
        lambda r, f, x, y: ((f - 1) ** 2).mean(),
    ),
    "least squares, other targets": (
        LeastSquares(real=2, fake=-1.5, generator=0.5, halved=True),
        lambda r, f, x, y: (((r - 2) ** 2).mean() + ((f + 1.5) ** 2).mean()) / 2,
        lambda r, f, x, y: ((f - 0.5) ** 2).mean(),
    ),
    "wasserstein": (Wasserstein(), lambda r, f, x, y: f.mean() - r.mean(), lambda r, f, x, y: -f.mean()),
    "wasserstein gp": (
        WassersteinGP(),
        lambda r, f, x, y: f.mean() - r.mean() + 10 * (norm() - 1) ** 2,
        lambda r, f, x, y: -f.mean(),
    ),
    "wasserstein gp, target, drift": (
        WassersteinGP(weight=3, target=4, drift=0.25),
        lambda r, f, x, y: f.mean() - r.mean() + 3 * (norm() - 4) ** 2 + 0.25 * (r**2).mean(),
        lambda r, f, x, y: -f.mean(),
    ),
    "wasserstein gp, one-sided": (
        WassersteinGP(weight=3, target=4, one_sided=True),
        lambda r, f, x, y: f.mean() - r.mean(),
        lambda r, f, x, y: -f.mean(),
    ),
    "hinge": (
        Hinge(),
        lambda r, f, x, y: np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean(),
        lambda r, f, x, y: -f.mean(),
    ),
    "relativistic": (Relativistic(), lambda r, f, x, y: s(f - r).mean(), lambda r, f, x, y: s(r - f).mean()),
    "relativistic, averaged": (
        Relativistic(averaged=True),
        lambda r, f, x, y: averaged(r, f),
        lambda r, f, x, y: averaged(f, r),
    ),
    "r1": (
        Regularised(Hinge(), r1=0.8),
        lambda r, f, x, y: np.maximum(0, 1 - r).mean() + np.maximum(0, 1 + f).mean() + 0.4 * norm() ** 2,
        lambda r, f, x, y: -f.mean(),
    ),
    "r1 and r2": (
        Regularised(Wasserstein(), r1=0.8, r2=0.6),
        lambda r, f, x, y: f.mean() - r.mean() + 0.7 * norm() ** 2,
        lambda r, f, x, y: -f.mean(),
    ),
    "auxiliary": (
        Auxiliary(Wasserstein(), critic_weight=0.7, generator_weight=0.3),
        lambda r, f, x, y: f.mean() - r.mean() + 0.7 * entropy(x),
        lambda r, f, x, y: -f.mean() + 0.3 * entropy(y),
    ),
    "auxiliary on both": (
        Auxiliary(WassersteinGP(), on_fake=True),
        lambda r, f, x, y: f.mean() - r.mean() + 10 * (norm() - 1) ** 2 + entropy(x) + entropy(y),
        lambda r, f, x, y: -f.mean() + 0.1 * entropy(y),
    ),
}
KINDS = [kind for kind, _, _ in FORMULAS.values()]
ALL = pytest.mark.parametrize("objective", KINDS, ids=FORMULAS)


class Linear(nn.Module):
    """D(x) = w · x with a class head, or a curved critic."""

    takes_draw = True

    def __init__(self, curved=False):
        super().__init__()
        self.w, self.v = (nn.Parameter(torch.from_numpy(a.copy())) for a in (W, V))
        self.curved, self.calls = curved, 0

    def forward(self, x, labels=None, draw=None):
        self.calls += 1
        x = torch.sin(x) + 0.3 * x**2 if self.curved else x
        return Scores((x @ self.w).tanh() * 2 if self.curved else x @ self.w, x @ self.v.T)


def points(seed, n=5):
    return np.random.default_rng(seed).normal(size=(n, 3))


def batches(x, y):
    labels = torch.from_numpy(LABELS)
    return Batch(torch.from_numpy(x), labels), Batch(torch.from_numpy(y), labels)


def both(objective, critic, real, fake):
    critic = scorer(critic)
    draw = Draw(1, count=len(real.images))
    return objective.critic_loss(critic, real, fake, draw), objective.generator_loss(critic, fake, real)


@pytest.mark.parametrize(("objective", "critic", "generator"), FORMULAS.values(), ids=FORMULAS)
def test_the_losses_are_those_of_the_papers(objective, critic, generator):
    x, y = points(0) + 0.4, points(1) - 0.4
    r, f = x @ W, y @ W
    assert (r > 1).any()  # both sides of the hinges
    assert (f < -1).any()
    ours = both(objective, Linear(), *batches(x, y))
    assert ours[0].total.item() == pytest.approx(critic(r, f, x, y), rel=1e-12)
    assert ours[1].total.item() == pytest.approx(generator(r, f, x, y), rel=1e-12)


@ALL
def test_gradients_are_those_of_finite_differences(objective):
    """By the critic's weights, and by generated images, at a curved critic whose gradient differs from image to image."""
    critic, (real, fake) = Linear(curved=True), batches(points(0), points(1))
    images = fake.images.requires_grad_()
    fake = dataclasses.replace(fake, images=images)
    losses = both(objective, critic, real, dataclasses.replace(fake, images=images.detach()))
    by_weights = torch.autograd.grad(losses[0].total, [critic.w, critic.v], allow_unused=True, materialize_grads=True)
    (by_images,) = torch.autograd.grad(objective.generator_loss(scorer(critic), fake, real).total, images)
    rng, small = np.random.default_rng(2), 1e-6
    along_w, along_v, along_x = (torch.from_numpy(rng.normal(size=t.shape)) for t in (critic.w, critic.v, images))

    def moved(size):
        with torch.no_grad():
            other, there = Linear(curved=True), images.detach() + size * along_x
            other.w.add_(size * along_w)
            other.v.add_(size * along_v)
        loss, _ = both(objective, other, real, dataclasses.replace(fake, images=images.detach()))
        asked = objective.generator_loss(scorer(critic), dataclasses.replace(fake, images=there), real)
        return np.array([loss.total.item(), asked.total.item()])

    theory = (moved(small) - moved(-small)) / (2 * small)
    ours = [(by_weights[0] * along_w).sum() + (by_weights[1] * along_v).sum(), (by_images * along_x).sum()]
    np.testing.assert_allclose([v.item() for v in ours], theory, rtol=1e-6, atol=1e-8)


@ALL
def test_parts_are_named_once_and_measured(objective):
    x, y = points(0), points(1)
    loss, asked = both(objective, Linear(), *batches(x, y))
    parts = {name: value.item() for name, value in loss.parts.items()}
    assert parts["critic_real"] == pytest.approx((x @ W).mean())
    assert parts["critic_fake"] == pytest.approx((y @ W).mean())
    assert not set(parts) & set(asked.parts)
    assert not {"critic_loss", "generator_loss"} & {*parts, *asked.parts}  # which the loop adds
    theory = {
        "gap": (x @ W).mean() - (y @ W).mean(),
        "penalty": (norm() - 1) ** 2,
        "r1": norm() ** 2,
        "r2": norm() ** 2,
        "class_loss": entropy(x),
        "class_loss_fake": entropy(y),
    }
    known = {"critic_real", "critic_fake", *theory}
    assert set(parts) <= known
    for name in set(parts) - {"critic_real", "critic_fake"}:
        if name != "penalty" or objective.__class__ is Auxiliary or objective == WassersteinGP():
            assert parts[name] == pytest.approx(theory[name], rel=1e-12)
    for name, value in asked.parts.items():
        assert name == "generator_class_loss"
        assert value.item() == pytest.approx(entropy(y))


def test_parts_of_each_kind():
    names = {
        name: set(both(kind, Linear(), *batches(points(0), points(1)))[0].parts) - {"critic_real", "critic_fake"}
        for name, (kind, _, _) in FORMULAS.items()
    }
    assert names["non-saturating"] == names["hinge"] == set()
    assert names["wasserstein"] == {"gap"}
    assert names["wasserstein gp"] == {"gap", "penalty"}
    assert names["r1"] == {"r1"}
    assert names["r1 and r2"] == {"gap", "r1", "r2"}
    assert names["auxiliary on both"] == {"gap", "penalty", "class_loss", "class_loss_fake"}


@ALL
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_logits_of_any_size_give_finite_losses_and_gradients(objective, size):
    critic = Linear().float()
    real, fake = (Batch(b.images.float() * size, b.labels) for b in batches(points(0), points(1)))
    fake = dataclasses.replace(fake, images=fake.images.requires_grad_())
    losses = both(objective, critic, real, fake)
    for loss in losses:
        numbers = [loss.total, *loss.parts.values()]
        numbers += torch.autograd.grad(loss.total, [critic.w, fake.images], retain_graph=True, allow_unused=True)
        assert all(bool(n.isfinite().all()) for n in numbers if n is not None)


def test_a_generator_that_is_found_out_is_pulled_by_one_loss_and_not_by_the_other():
    """Goodfellow et al. 2014, section 3: log(1 - D(G(z))) saturates early in learning."""
    nothing, pulls = Batch(torch.zeros(2, 1)), {}
    for objective in (Minimax(), NonSaturating()):
        d = torch.full((2,), -20.0).requires_grad_()
        objective.generator_loss(lambda _, d=d: Scores(d), nothing, nothing).total.backward()
        pulls[objective] = d.grad.sum().item()
    assert pulls[Minimax()] == pytest.approx(-math.exp(-20), rel=1e-6)
    assert pulls[NonSaturating()] == pytest.approx(-1)


@ALL
def test_scores_of_a_short_type_are_widened(objective):
    critic = Linear().bfloat16()
    real, fake = (Batch(b.images.bfloat16(), b.labels) for b in batches(points(0), points(1)))
    for loss in both(objective, critic, real, fake):
        assert {v.dtype for v in (loss.total, *loss.parts.values())} == {torch.float32}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_fields_are_plain_and_names_are_the_papers(kind):
    objective = next(one for one in KINDS if type(one) is kind)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    plain = {field.name: getattr(objective, field.name) for field in dataclasses.fields(kind)}
    plain.pop("objective", None)
    assert all(isinstance(v, bool | int | float | str) for v in plain.values())
    assert json.loads(json.dumps(plain)) == plain
    assert hash(objective) == hash(dataclasses.replace(objective))


def test_the_list_has_every_objective_of_the_package():
    found = set()
    for module in (objectives, composed):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef) and any(
                isinstance(m, ast.FunctionDef) and m.name == "critic_loss" for m in node.body
            ):
                found.add(node.name)
    assert found | {"NonSaturating"} == {kind.__name__ for kind in OBJECTIVES}
    assert len(set(OBJECTIVES)) == len(OBJECTIVES)
    assert {type(objective) for objective in KINDS} == set(OBJECTIVES)


def test_wasserstein_takes_long_turns_as_its_code_does():
    """main.py: ``gen_iterations < 25 or gen_iterations % 500 == 0`` -> 100, else 5."""
    steps = [Wasserstein().critic_steps(step) for step in range(2001)]
    long = [step for step, count in enumerate(steps) if count == 100]
    assert long == [*range(25), 500, 1000, 1500, 2000]
    assert {count for step, count in enumerate(steps) if step not in long} == {5}
    short = Wasserstein(steps=2, long_until=0, long_every=0)
    assert {short.critic_steps(step) for step in range(1001)} == {2}
    paper = Wasserstein(long_steps=7, long_until=1, long_every=3)
    assert [paper.critic_steps(step) for step in range(7)] == [7, 5, 5, 7, 5, 5, 7]


@pytest.mark.parametrize(
    "objective", [o for o in KINDS if hasattr(o, "steps") and not isinstance(o, Wasserstein)], ids=repr
)
def test_steps_are_the_same_everywhere(objective):
    more = dataclasses.replace(objective, steps=3)
    assert {more.critic_steps(step) for step in (0, 1, 24, 25, 500)} == {3}


@pytest.mark.parametrize("when", ["before", "after"])
def test_clipping_reaches_every_parameter_when_it_should(when):
    critic = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    before = {name: p.detach().clone() for name, p in critic.named_parameters()}
    objective = Wasserstein(clip=0.2, clip_when=when)
    objective.constrain(critic, "after" if when == "before" else "before")
    assert all(torch.equal(p, before[name]) for name, p in critic.named_parameters())
    objective.constrain(critic, when)
    for name, p in critic.named_parameters():
        torch.testing.assert_close(p.detach(), before[name].clip(-0.2, 0.2), rtol=0, atol=0)
    assert critic[1].weight.max().item() == pytest.approx(0.2)


@pytest.mark.parametrize("objective", [o for o in KINDS if "Wasserstein(" not in repr(o)], ids=repr)
def test_other_critics_are_free(objective):
    critic = nn.Linear(3, 1)
    before = critic.weight.detach().clone()
    for when in ("before", "after"):
        objective.constrain(critic, when)
    assert torch.equal(critic.weight, before)


@pytest.mark.parametrize("wrap", [lambda o: Regularised(o, r1=1), lambda o: Auxiliary(o)], ids=["r1", "auxiliary"])
def test_what_is_added_leaves_the_inner_game_as_it_is(wrap):
    inner = Wasserstein(clip=0.3, steps=2, long_steps=9, long_until=1, long_every=0)
    outer, critic = wrap(inner), nn.Linear(3, 1)
    assert [outer.critic_steps(step) for step in range(3)] == [9, 2, 2]
    nn.init.constant_(critic.weight, 1.0)
    outer.constrain(critic, "after")
    assert critic.weight.min().item() == 1.0
    outer.constrain(critic, "before")
    assert critic.weight.max().item() == pytest.approx(0.3)
    assert [wrap(Minimax(simultaneous=flag)).simultaneous for flag in (True, False)] == [True, False]


def test_r1_is_of_real_images_and_r2_of_generated_ones():
    class Square(nn.Module):
        def forward(self, x, labels):
            return x.square().sum(1) / 2

    x, y = points(0), points(1)
    real, fake = batches(x, y)
    loss, _ = both(Regularised(Wasserstein(), r1=2, r2=3), Square(), real, fake)
    assert loss.parts["r1"].item() == pytest.approx((x**2).sum(1).mean())
    assert loss.parts["r2"].item() == pytest.approx((y**2).sum(1).mean())
    assert loss.total.item() == pytest.approx(
        -loss.parts["gap"].item() + (x**2).sum(1).mean() + 1.5 * (y**2).sum(1).mean()
    )


def test_an_auxiliary_head_costs_no_second_pass():
    for inner, passes in ((NonSaturating(), 2), (WassersteinGP(), 3)):
        critic = Linear()
        scored, (real, fake) = scorer(critic), batches(points(0), points(1))
        Auxiliary(inner, on_fake=True).critic_loss(scored, real, fake, Draw(0, count=5))
        assert critic.calls == passes
        Auxiliary(inner).generator_loss(scored, fake, real)
        assert critic.calls == passes + 1


def test_an_auxiliary_head_keeps_the_critics_own_input_gradient():
    class Own(Linear):
        asked = 0

        def input_gradient(self, x, labels=None, draw=None):
            self.asked += 1
            return self.w.expand(len(x), -1)

    critic, (real, fake) = Own(), batches(points(0), points(1))
    loss = Auxiliary(WassersteinGP()).critic_loss(scorer(critic), real, fake, Draw(0, count=5))
    assert critic.asked == 1
    assert loss.parts["penalty"].item() == pytest.approx((norm() - 1) ** 2)


def test_labels_reach_the_critic():
    seen = []

    def critic(batch):
        seen.append(batch.labels)
        return Scores(batch.images @ torch.from_numpy(W), batch.images @ torch.from_numpy(V).T)

    real, fake = batches(points(0), points(1))
    for objective in KINDS:
        seen.clear()
        objective.critic_loss(critic, real, fake, Draw(0, count=5))
        objective.generator_loss(critic, fake, real)
        assert len(seen) >= 3
        assert all(labels is not None and torch.equal(labels, torch.from_numpy(LABELS)) for labels in seen)


WRONG = {
    "no steps": (lambda: Minimax(steps=0), "steps must be a whole number of at least 1, got 0"),
    "half a step": (lambda: Hinge(steps=1.5), "steps must be a whole number"),
    "steps of least squares": (lambda: LeastSquares(steps=-1), "steps must be"),
    "relativistic steps": (lambda: Relativistic(steps=True), "steps must be"),
    "a word for a flag": (lambda: NonSaturating(halved="yes"), "halved must be true or false, got 'yes'"),
    "one for a flag": (lambda: Relativistic(averaged=1), "averaged must be true or false"),
    "simultaneous": (lambda: Minimax(simultaneous=0), "simultaneous must be true or false"),
    "a target of NaN": (lambda: LeastSquares(real=math.nan), "real must be a finite number"),
    "a target that is a word": (lambda: LeastSquares(generator="1"), "generator must be a finite number"),
    "clip 0": (lambda: Wasserstein(clip=0), "clip must be a finite number above 0"),
    "clip at noon": (lambda: Wasserstein(clip_when="noon"), "clip_when must be one of before, after, got 'noon'"),
    "long steps": (lambda: Wasserstein(long_steps=0), "long_steps must be"),
    "long until": (lambda: Wasserstein(long_until=-1), "long_until must be"),
    "negative weight": (lambda: WassersteinGP(weight=-1), "weight must be a finite number of at least 0"),
    "negative drift": (lambda: WassersteinGP(drift=-1), "drift must be"),
    "negative target": (lambda: WassersteinGP(target=-1), "target must be"),
    "one-sided": (lambda: WassersteinGP(one_sided=None), "one_sided must be true or false"),
    "no penalty": (lambda: Regularised(Hinge()), "r1 or r2 must be above 0"),
    "negative r2": (lambda: Regularised(Hinge(), r2=-1), "r2 must be"),
    "a class": (lambda: Regularised(Hinge, r1=1), "objective must be an objective, not the class of one"),
    "a word": (lambda: Auxiliary("hinge"), "objective must be an objective, got 'hinge'; it lacks simultaneous"),
    "auxiliary weight": (lambda: Auxiliary(Hinge(), critic_weight=-1), "critic_weight must be"),
    "on fake": (lambda: Auxiliary(Hinge(), on_fake="no"), "on_fake must be true or false"),
}


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_named(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert words in str(caught.value)


def test_an_auxiliary_objective_wants_labels_and_a_head():
    real, fake = batches(points(0), points(1))
    objective, bare = Auxiliary(Hinge()), Batch(real.images)
    with pytest.raises(InputError, match="images must be labelled"):
        objective.critic_loss(scorer(Linear()), bare, Batch(fake.images), Draw(0, count=5))
    with pytest.raises(InputError, match="the critic must have a class head"):
        objective.generator_loss(lambda batch: Scores(batch.images.sum(1)), fake, real)
