"""Laws of losses, over the list of all of them: value, gradient and conjugate against each other and autograd."""

import math

import pytest
import torch

from triptych.check import InputError
from triptych.convex import BinaryLogistic, LeastSquares, Logistic, SquaredHinge, inner

SEED = torch.Generator().manual_seed(1)
Y = torch.randn(2, 7, 3, generator=SEED, dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 2])
LOSSES = [
    LeastSquares(Y),
    LeastSquares(Y[:1], 0.3),
    Logistic(LABELS, 3),
    BinaryLogistic(Y.sign()),
    SquaredHinge(Y.sign()),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


@pytest.fixture
def z(rng):
    return 2 * torch.randn(2, 7, 3, generator=rng, dtype=torch.float64)


@every_loss
def test_grad_is_the_gradient(loss, z):
    z.requires_grad_()
    (expected,) = torch.autograd.grad(loss.value(z).sum(), z)
    torch.testing.assert_close(loss.grad(z.detach()), expected, rtol=1e-10, atol=1e-13)


@every_loss
def test_fenchel_young_is_an_equality_at_the_gradient(loss, z):
    theta = loss.grad(z)
    torch.testing.assert_close(loss.value(z) + loss.conjugate(theta), inner(theta, z), rtol=1e-10, atol=1e-12)


@every_loss
def test_fenchel_young_holds_for_any_pair(loss, z, rng):
    for scale in (0.1, 1.0, 10.0):
        theta = loss.grad(scale * torch.randn(2, 7, 3, generator=rng, dtype=torch.float64))
        excess = loss.value(z) + loss.conjugate(theta) - inner(theta, z)
        assert excess.isfinite().all()
        assert (excess > 1e-6).all()


@every_loss
def test_the_gradient_is_lipschitz_by_the_smoothness_and_no_less_somewhere(loss, rng):
    ratios = []
    for scale in (1e-3, 1e-1, 1.0, 10.0):
        for _ in range(30):
            a, b = scale * torch.randn(2, 2, 7, 3, generator=rng, dtype=torch.float64)
            change = loss.grad(a) - loss.grad(b)
            ratios.append((inner(change, change) / inner(a - b, a - b)).sqrt().amax().item())
    assert max(ratios) <= loss.smoothness * (1 + 1e-9)
    assert max(ratios) >= loss.smoothness / 4


@every_loss
def test_the_conjugate_at_zero_is_minus_the_least_loss(loss, z):
    assert (loss.conjugate(torch.zeros_like(z)) == 0).all()
    minimiser = {"LeastSquares": lambda: loss.y.expand(2, -1, -1), "Logistic": lambda: 99.0 * one_hot()}
    best = minimiser.get(type(loss).__name__, lambda: 99 * loss.y)()
    assert loss.value(best).amax().item() < 1e-12


def one_hot():
    return torch.nn.functional.one_hot(LABELS, 3).double().expand(2, -1, -1)


@pytest.mark.parametrize("loss", LOSSES[2:], ids=lambda loss: type(loss).__name__)
def test_outside_its_domain_the_conjugate_is_infinite(loss, z):
    assert loss.conjugate(-loss.grad(z)).isinf().all()


def test_a_logistic_dual_point_must_sum_to_zero_over_the_classes(z):
    loss = LOSSES[2]
    theta = loss.grad(z)
    torch.testing.assert_close(theta.sum(2), torch.zeros(2, 7, dtype=z.dtype), rtol=0, atol=1e-16)
    assert loss.conjugate(theta * (1 - 1e-4)).isfinite().all()
    theta[1, 3, 0] += 1e-6
    assert loss.conjugate(theta).isinf().tolist() == [False, True]


def test_multinomial_logistic_is_the_mean_cross_entropy(z):
    expected = torch.stack([torch.nn.functional.cross_entropy(one, LABELS) for one in z])
    torch.testing.assert_close(LOSSES[2].value(z), expected)
    torch.testing.assert_close(LOSSES[2].value(torch.zeros(1, 7, 3)), torch.tensor([math.log(3)]))


def test_two_classes_are_the_binary_loss(z):
    signs = torch.tensor([1.0, -1, 1, 1, -1, -1, 1], dtype=torch.float64)
    two = torch.stack([z[:, :, 0], torch.zeros(2, 7, dtype=torch.float64)], 2)
    binary, multinomial = BinaryLogistic(signs.reshape(1, 7)), Logistic((signs < 0).long(), 2)
    torch.testing.assert_close(binary.value(z[:, :, 0]), multinomial.value(two))
    torch.testing.assert_close(binary.grad(z[:, :, 0]), multinomial.grad(two)[:, :, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_losses_keep_their_digits(dtype):
    """log(1 + 2 exp(-40)) = 2 exp(-40) to rounding; computed as log Σ exp - z it would be 0."""
    z = torch.tensor([[[60.0, 20.0, 20.0]]], dtype=dtype)
    loss = Logistic(torch.tensor([0]), 3)
    exact = 2 * math.exp(-40)
    assert loss.value(z).item() == pytest.approx(exact, rel=1e-6)
    assert loss.grad(z)[0, 0, 0].item() == pytest.approx(-exact, rel=1e-5)
    assert BinaryLogistic(torch.ones(1, 1, dtype=dtype)).value(z[:, :, 1] * 2).item() == pytest.approx(
        exact / 2, rel=1e-5
    )


@every_loss
def test_huge_predictions_stay_finite(loss):
    z = torch.full((2, 7, 3), 1e4, dtype=torch.float64)
    z[:, :, 0] = -1e4
    assert loss.value(z).isfinite().all()
    assert loss.conjugate(loss.grad(z)).isfinite().all()


@every_loss
def test_the_mean_over_minibatches_is_the_whole(loss, z):
    """Seven minibatches of one row, and all rows as one."""
    parts = [loss.rows(torch.tensor([i])) for i in range(7)]
    mean = torch.stack([part.value(z[:, i : i + 1]) for i, part in enumerate(parts)]).mean(0)
    torch.testing.assert_close(mean, loss.value(z))
    grad = torch.cat([part.grad(z[:, i : i + 1]) for i, part in enumerate(parts)], 1)
    torch.testing.assert_close(grad / 7, loss.grad(z))


@every_loss
def test_two_problems_are_their_problems_one_by_one(loss, z):
    for i in range(2):
        mask = torch.arange(2) == i
        one = loss.take(mask) if hasattr(loss, "take") else loss
        torch.testing.assert_close(one.value(z[mask]), loss.value(z)[mask])
        torch.testing.assert_close(one.grad(z[mask]), loss.grad(z)[mask])
        torch.testing.assert_close(one.conjugate(one.grad(z[mask])), loss.conjugate(loss.grad(z))[mask])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeastSquares(Y, 0.0), "weight must be a finite number above 0"),
        (lambda: Logistic(LABELS, 1), "classes must be a whole number of at least 2"),
        (lambda: Logistic(LABELS, 2), "labels must be from 0 to 1"),
        (lambda: Logistic(LABELS - 1, 3), "number the classes from 0"),
        (lambda: Logistic(LABELS.int(), 3), "labels must be an int64 tensor"),
        (lambda: Logistic(LABELS[:0], 3), "labels must be an int64 tensor"),
        (lambda: BinaryLogistic(torch.tensor([[0.0, 1.0]])), "y must be a tensor .* of [+]1 and -1"),
        (lambda: SquaredHinge(torch.tensor([1.0, -1.0])), "y must be a tensor"),
    ],
)
def test_wrong_targets_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
