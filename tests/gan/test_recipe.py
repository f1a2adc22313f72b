"""What networks see of a byte and what comes back; parts of a recipe that do not fit together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from triptych.check import InputError
from triptych.gan.draw import Draw
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import Auxiliary, Hinge, Regularised, WassersteinGP
from triptych.gan.recipe import SCALES, Recipe
from triptych.images import Images

BYTES = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(3, 2, 1, 1)
DRAW = Draw(5, 0, 0, 3)


def recipe(**changes):
    plain = Recipe("tiny", "no one", WassersteinGP(), MLP((4,), (4,)), MLP((4,), (4,)), (2, 16, 16), batch=3)
    return replace(plain, **changes)


@pytest.mark.parametrize(("scale", "formula"), [("signed", lambda x: x / 127.5 - 1), ("unit", lambda x: x / 255)])
def test_scales_are_their_formulas(scale, formula):
    seen = recipe(scale=scale).scaled(BYTES, DRAW, torch.float64)
    np.testing.assert_allclose(seen.numpy(), formula(BYTES.numpy().astype(float)), rtol=0, atol=1e-15)


def test_dequantised_bytes_have_uniform_noise_of_their_own():
    seen = recipe(scale="dequantised").scaled(BYTES, DRAW, torch.float64)
    noise = (seen.numpy() + 1) * 128 - BYTES.numpy()
    assert noise.min() >= 0
    assert noise.max() < 1
    assert len(np.unique(noise.round(12))) == noise.size
    assert abs(noise.mean() - 0.5) < 4 * np.sqrt(1 / 12 / noise.size)


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale != "none"])
def test_bytes_come_back(scale):
    one = recipe(scale=scale)
    assert torch.equal(one.pixels(one.scaled(BYTES, DRAW)), BYTES)
    outside = torch.tensor([-9.0, 9.0])
    assert one.pixels(outside).tolist() == [0, 255]


def test_half_of_the_images_are_mirrored_each_time_anew():
    pixels = torch.randint(0, 256, (400, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = recipe(shape=(1, 2, 3), mirror=True).batches(Images(pixels))
    plain = recipe(shape=(1, 2, 3)).batches(Images(pixels))
    flipped = []
    for epoch in range(2):
        given, kept = (of(0, 400 * epoch, 400).images.numpy() for of in (source, plain))
        turned = np.array([not np.array_equal(a, b) for a, b in zip(given, kept)])
        np.testing.assert_array_equal(given[turned], kept[turned][..., ::-1])
        assert abs(turned.mean() - 0.5) < 4 * np.sqrt(0.25 / 400)
        flipped.append(turned)
    assert not np.array_equal(*flipped)


def test_a_classifier_needs_a_loss_and_the_loss_a_classifier():
    told = {"classes": 10, "labels": "auxiliary"}
    for objective in (Auxiliary(Hinge()), Regularised(Auxiliary(Hinge()), r1=1.0)):
        assert recipe(objective=objective, **told).classes == 10
        for others in ({}, {"classes": 10}, {"labels": "auxiliary"}):
            with pytest.raises(
                InputError, match="labels must be 'auxiliary', of labelled images, for the objective Auxiliary"
            ):
                recipe(objective=objective, **others)
    for objective in (Hinge(), Regularised(Hinge(), r1=1.0)):
        with pytest.raises(InputError, match="objective must be Auxiliary where labels are 'auxiliary'"):
            recipe(objective=objective, **told)


def test_points_alone_may_be_as_they_are():
    assert recipe(shape=(2,), scale="none").target.output == "linear"
    with pytest.raises(InputError, match="scale must be signed, unit or dequantised for images"):
        recipe(scale="none")
