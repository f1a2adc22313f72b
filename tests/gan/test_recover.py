"""Latent recovery: the generator's own images are found again, pictures do not depend on each other, and what a fitted generator shows."""

import pytest
import torch
from scipy.stats import mannwhitneyu
from torch import nn

from triptych.check import InputError
from triptych.gan.recipes import RECIPES
from triptych.gan.recover import recover, worse
from triptych.gan.sample import Sampler


class Table(nn.Module):
    """A generator that knows pictures by heart: the softmax of z chooses among them."""

    def __init__(self, pictures):
        super().__init__()
        self.pictures = nn.Parameter(pictures.float() / 127.5 - 1)

    def forward(self, z):
        return torch.einsum("nk,kchw->nchw", torch.softmax(4 * z, 1), self.pictures)


def sampler(name="wgan-gp", shape=(1, 8, 8), classes=0, width=8):
    recipe = RECIPES[name](shape, classes, width)
    generator = recipe.networks(3)[0].eval().requires_grad_(False)
    for parameter in generator.parameters():
        parameter.mul_(2)  # images that differ
    return Sampler(recipe, generator)


@pytest.mark.parametrize(("name", "classes"), [("wgan-gp", 0), ("dcgan", 0), ("wgan-gp", 4)])
def test_images_of_the_generator_are_found_again(name, classes):
    own = sampler(name, classes=classes)
    pictures = torch.cat(list(own.sample(5, 3)))
    labels = own.labels(0, 3)
    other = torch.randint(0, 256, pictures.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found, not_there = (recover(own, x, labels, steps=200) for x in (pictures, other))
    assert found.error.median() < 0.1 * not_there.error.min()
    off = (found.images.double() - pictures.double()).flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(off, found.error, atol=0.6, rtol=0)  # the images are whole numbers
    if own.latent.law == "uniform":
        assert found.z.abs().max() <= own.latent.half_width


def test_a_picture_does_not_depend_on_the_others():
    own = sampler()
    pictures = torch.cat(list(own.sample(5, 4)))
    together, alone = recover(own, pictures, steps=20), recover(own, pictures[:1], steps=20)
    assert torch.equal(together.z[:1], alone.z)
    again = recover(own, pictures, steps=20)
    assert torch.equal(again.z, together.z)


def test_a_generator_that_knows_its_pictures_is_told_from_one_that_does_not():
    g = torch.Generator().manual_seed(0)
    train, held_out = (torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8, generator=g) for _ in range(2))
    recipe = RECIPES["wgan-gp"]((1, 8, 8), 0, 2).changed(scale="signed")
    latent = recipe.rules.latent.__class__(12)
    own = Sampler(recipe.changed(latent=latent), Table(train))
    a, b = (recover(own, x, steps=50).error for x in (train, held_out))
    assert worse(a, b) < 1e-4
    assert worse(a, b) == pytest.approx(mannwhitneyu(a, b, alternative="less").pvalue)
    assert worse(b[:6], b[6:]) > 0.01


def test_wrong_pictures_are_refused():
    own = sampler(classes=4)
    with pytest.raises(InputError, match="must be uint8"):
        recover(own, torch.zeros(2, 1, 7, 8, dtype=torch.uint8), torch.zeros(2).long())
    with pytest.raises(InputError, match="labels must be given"):
        recover(own, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
