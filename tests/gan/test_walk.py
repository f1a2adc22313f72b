"""Walks and arithmetic: great circles against rotations, smoothed noise against its covariance, sums against numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from triptych.check import InputError
from triptych.gan.draw import Draw, Latent
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import Hinge
from triptych.gan.recipe import Recipe
from triptych.gan.sample import Sampler
from triptych.gan.train import Rules
from triptych.gan.walk import KINDS, arithmetic, lerp, path, slerp, smoothed

LAWS = ("normal", "sphere", "uniform")


def sampler(law="normal", size=6):
    nets = MLP((4,), (4,))
    recipe = Recipe("t", "t", Hinge(), nets, nets, (1, 4, 4), rules=Rules(Latent(size, law, half_width=2.0)))
    return Sampler(recipe, recipe.networks(0)[0])


def test_slerp_turns_at_an_even_rate_in_the_plane_of_both():
    """Against a rotation matrix of the plane that a and b span, and lengths that go over evenly."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5))
    u = a / np.linalg.norm(a)
    v = b - (b @ u) * u
    v /= np.linalg.norm(v)
    omega = math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        length = (1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b)
        expected = length * (math.cos(t * omega) * u + math.sin(t * omega) * v)
        said = slerp(torch.from_numpy(a), torch.from_numpy(b), t)
        np.testing.assert_allclose(said.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 3.0, -1.0])
def test_slerp_of_parallel_and_opposite_z_is_the_straight_line(scale):
    a = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(slerp(a, scale * a, 0.3), lerp(a, scale * a, 0.3))
    nearly = a + 1e-7 * torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(slerp(a, nearly, 0.5), (a + nearly) / 2, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["lerp", "slerp"])
def test_a_walk_goes_through_the_seeds_images_and_closes(kind):
    s = sampler()
    z, keys = path(s, kind, frames=20, seed=3, points=4), s.z(3, 0, 4)
    assert z.shape == (20, 6)
    torch.testing.assert_close(z[::5], keys)
    steps = torch.cat([z, z[:1]]).diff(dim=0).norm(dim=1).reshape(4, 5)
    if kind == "lerp":  # even steps on each straight piece
        torch.testing.assert_close(steps, steps[:, :1].expand(4, 5))
    assert steps.max() < 0.7 * (keys - keys.roll(-1, 0)).norm(dim=1).max()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_has_a_z_that_may_be(kind, law):
    s = sampler(law, size=300)
    if (kind, law) == ("slerp", "uniform"):
        with pytest.raises(InputError, match="kind must be lerp or smooth, as the run's z is uniform"):
            path(s, kind, frames=9, seed=0)
        return
    z = path(s, kind, frames=24, seed=0, points=4)
    if law == "uniform":
        assert z.abs().max() <= 2
    elif kind != "lerp":
        torch.testing.assert_close(z.norm(dim=1) / 300**0.5, torch.ones(24).double(), rtol=0.15, atol=0)
    if law == "sphere" and kind != "lerp":
        torch.testing.assert_close(z.norm(dim=1), torch.full((24,), 300**0.5).double())


def test_smoothed_noise_has_the_covariance_of_blurred_noise_at_every_frame():
    """Frames k apart have the correlation exp(-k^2 / (4 sigma^2)), around the closed time."""
    frames, sigma = 40, 3.0
    z = smoothed(sampler(size=20_000), frames=frames, seed=1, sigma=sigma)
    covariance = (z @ z.T / 20_000).numpy()
    apart = np.abs(np.arange(frames)[:, None] - np.arange(frames))
    apart = np.minimum(apart, frames - apart)
    expected = np.exp(-(apart**2) / (4 * sigma**2))
    assert np.abs(covariance - expected).max() < 5 / math.sqrt(20_000)


@pytest.mark.parametrize(("frames", "sigma"), [(1, 0.5), (2, 1.0), (7, 0.3), (24, 3.0), (31, 20.0)])
def test_smoothed_noise_is_a_weighted_sum_of_every_frames(frames, sigma):
    """Against the Gaussian of every frame that is some rounds of the closed time away, summed one by one."""
    noise = Draw(5).named("walk").part(0, frames).normal("z", (6,), like=torch.zeros(0, dtype=torch.float64)).numpy()
    reach = math.ceil(4 * sigma)
    expected, weights = np.zeros((frames, 6)), np.zeros(frames)
    for k in range(-reach, reach + 1):
        weights[k % frames] += math.exp(-0.5 * float(np.float32(k) / np.float32(sigma)) ** 2)
    for frame in range(frames):
        for other in range(frames):
            expected[frame] += weights[(other - frame) % frames] * noise[other]
    z = smoothed(sampler(), frames=frames, seed=5, sigma=sigma)
    np.testing.assert_allclose(z.numpy(), expected / np.sqrt((weights**2).sum()), rtol=0, atol=1e-12)


def test_a_long_film_needs_memory_for_its_frames_alone():
    """A matrix of frames times frames would take 80 GB."""
    z = smoothed(sampler(size=2), frames=100_000, seed=0, sigma=50.0)
    assert abs(float(z.square().mean()) - 1) < 0.2


def test_smoothed_uniform_noise_is_uniform():
    z = smoothed(sampler("uniform", size=2000), frames=8, seed=0, sigma=1.5)
    for frame in z[::4]:
        assert stats.kstest(frame.numpy(), stats.uniform(-2, 4).cdf).pvalue > 0.01
    assert (z[0] - z[1]).abs().mean() < 0.5 * (z[0] - z[4]).abs().mean()


def test_a_blur_longer_than_the_film_still_has_the_law():
    z = smoothed(sampler(size=4000), frames=3, seed=0, sigma=10.0)
    assert abs(float(z.square().mean()) - 1) < 0.1
    torch.testing.assert_close(z[0], z[1], rtol=0, atol=1e-2)


def test_a_sum_of_means_is_that_of_numpy():
    s = sampler()
    z = {i: s.z(4, i, 1)[0].numpy() for i in range(10)}
    rows = arithmetic(s, [[1, 2, 3], [7]], [[4, 5]], 4)
    assert [len(row) for row in rows] == [4, 2, 3, 9]
    np.testing.assert_allclose(rows[0].numpy(), [z[1], z[2], z[3], (z[1] + z[2] + z[3]) / 3])
    np.testing.assert_allclose(rows[2].numpy(), [z[4], z[5], (z[4] + z[5]) / 2])
    total = (z[1] + z[2] + z[3]) / 3 + z[7] - (z[4] + z[5]) / 2
    np.testing.assert_allclose(rows[-1][0].numpy(), total)
    noise = rows[-1][1:].numpy() - total
    assert 0.2 < np.abs(noise).max() <= 0.25
    assert abs(noise.mean()) < 5 * 0.25 / math.sqrt(3 * noise.size)


WRONG = {
    "a kind": (lambda s: path(s, "slrp", frames=4, seed=0), "kind must be one of smooth, slerp, lerp, .*did you mean"),
    "frames": (lambda s: path(s, "lerp", frames=1, seed=0), "frames must be a whole number of at least 2"),
    "points": (lambda s: path(s, "lerp", frames=4, seed=0, points=1), "points must be a whole number of at least 2"),
    "nothing added": (lambda s: arithmetic(s, [], [[1]], 0), "plus must name at least one"),
    "an empty term": (lambda s: arithmetic(s, [[1], []], [], 0), "no term may be empty"),
    "a negative number": (lambda s: arithmetic(s, [[-1]], [], 0), "image numbers must be a whole number of at least 0"),
}


@pytest.mark.parametrize(("call", "text"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_walked_is_refused(call, text):
    with pytest.raises(InputError, match=text):
        call(sampler())
