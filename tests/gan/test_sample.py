"""Images of a generator: the same bits however many are asked for; truncation against scipy; labels; grids."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from triptych.check import InputError
from triptych.gan.draw import Draw, Latent
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import Hinge
from triptych.gan.pictures import GAP, course_png, gif, grid, grid_png, in_rows, pngs
from triptych.gan.recipe import Recipe
from triptych.gan.sample import Sampler, fixed_grid, truncated
from triptych.gan.train import Rules


def recipe(law="normal", classes=0, shape=(1, 8, 8), nets=None, size=6):
    nets = nets or DCGAN(width=4)
    return Recipe("t", "t", Hinge(), nets, nets, shape, classes, rules=Rules(Latent(size, law)))


def sampler(seed=1, **options):
    one = recipe(**options)
    return Sampler(one, one.networks(seed)[0])


def together(blocks):
    return torch.cat(list(blocks))


NETS = {"dcgan": DCGAN(width=4), "mlp": MLP((7,), (7,))}


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("nets", NETS.values(), ids=NETS)
def test_image_i_is_the_same_whatever_else_is_asked_for(nets, classes):
    s = sampler(nets=nets, classes=classes)
    whole = together(s.sample(5, 50))
    assert whole.shape == (50, 1, 8, 8)
    assert whole.dtype == torch.uint8
    assert len(whole.unique(dim=0)) > 45
    for first, count in ((0, 1), (17, 1), (15, 2), (16, 16), (3, 40), (49, 1)):
        assert torch.equal(together(s.sample(5, count, first=first)), whole[first : first + count])
    assert not torch.equal(together(s.sample(6, 50)), whole)


def test_the_network_is_evaluated_on_its_own_z_in_evaluation_mode_and_put_back():
    """Against one forward pass of all z at once; a batch's own statistics would give other images."""
    s = sampler()
    z = s.z(3, 0, 20)
    s.generator(z.float())  # moves the running statistics
    assert s.generator.training
    said = s.images(z)
    assert s.generator.training
    s.generator.eval()
    with torch.no_grad():
        expected = s.recipe.pixels(s.generator(z.float()))
    torch.testing.assert_close(
        said.int(), expected.int(), atol=1, rtol=0
    )  # a block of 16 rounds otherwise than one of 20
    s.images(z)
    assert not s.generator.training


def test_nothing_global_is_drawn_from():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    together(sampler().sample(0, 3))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_labels_come_in_turn_and_reach_the_network():
    s = sampler(classes=3)
    assert s.labels(0, 7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert s.labels(2, 3, [2, 0]).tolist() == [2, 0, 2]
    every = s.each_class(4, 5)
    for label in range(3):
        assert torch.equal(every[5 * label : 5 * label + 5], s.images(s.z(4, 0, 5), torch.full((5,), label)))
    assert not torch.equal(every[:5], every[5:10])
    chosen = together(s.sample(4, 5, labels=[2]))
    assert torch.equal(chosen, every[10:])
    for wrong in ([3], [-1], []):
        with pytest.raises(InputError, match="labels must"):
            s.labels(0, 1, wrong)


def test_classes_are_not_asked_of_a_run_without_them():
    s = sampler()
    assert s.labels(0, 3) is None
    for call in (lambda: s.labels(0, 3, [1]), lambda: s.each_class(0, 2)):
        with pytest.raises(InputError, match="trained without --labels"):
            call()


@pytest.mark.parametrize("threshold", [0.3, 1.0, 2.5])
def test_truncation_is_the_truncated_normal(threshold):
    z = Latent(50).sample(Draw(3, 0, 0, 200), torch.empty(0).double())
    cut = truncated(z, Latent(50), threshold)
    assert cut.abs().max() <= threshold
    assert stats.kstest(cut.flatten().numpy(), stats.truncnorm(-threshold, threshold).cdf).pvalue > 0.01
    assert (cut.flatten()[z.flatten().argsort()].diff() >= 0).all()  # the same image, more typical
    assert torch.equal(
        sampler(size=5).z(0, 0, 3, threshold), truncated(sampler(size=5).z(0, 0, 3), Latent(5), threshold)
    )


def test_a_large_threshold_truncates_nothing():
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)[None]
    torch.testing.assert_close(truncated(z, Latent(41), 30.0), z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("law", "why"), [("uniform", "density"), ("sphere", "length")])
def test_truncation_is_refused_where_it_makes_no_sense(law, why):
    with pytest.raises(InputError, match=f"truncation must be left away, .* {law!r}, whose {why}"):
        together(sampler(law=law).sample(0, 1, truncation=0.5))


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "a"])
def test_a_truncation_that_is_none_is_refused(value):
    with pytest.raises(InputError, match="truncation must be a finite number above 0"):
        together(sampler().sample(0, 1, truncation=value))


def test_points_are_no_pictures():
    one = recipe(shape=(2,), nets=MLP((4,), (4,)))
    with pytest.raises(InputError, match="points of 2 dimensions"):
        Sampler(one, nn.Identity())
    assert fixed_grid(one, 0) is None
    assert fixed_grid(recipe(shape=(2, 8, 8)), 0) is None


@pytest.mark.parametrize(("classes", "rows"), [(0, 8), (3, 3), (12, 10)])
def test_the_fixed_grid_shows_the_same_z_of_whatever_network(classes, rows):
    one = recipe(classes=classes)
    networks = [one.networks(seed)[0] for seed in (0, 1)]
    draw = fixed_grid(one, 7)
    first, again, other = draw(1, networks[0]), draw(2, networks[0]), draw(3, networks[1])
    assert first == again != other
    picture = Image.open(io.BytesIO(first))
    assert picture.size == (8 * 64 + 7 * GAP, rows * 64 + (rows - 1) * GAP)
    s = Sampler(one, networks[0])
    z = s.z(7, 0, 64 if not classes else 8)
    tile = s.images(z[:1], torch.tensor([0]) if classes else None)[0, 0].numpy()
    assert (np.asarray(picture)[:64, :64] == tile.repeat(8, 0).repeat(8, 1)).all()


def test_a_grid_has_every_image_in_its_place_on_white():
    images = torch.arange(3 * 3 * 70 * 5, dtype=torch.int64).remainder(200).to(torch.uint8).reshape(3, 3, 70, 5)
    laid = grid(images, 2)
    assert laid.shape == (2 * 70 + GAP, 2 * 5 + GAP, 3)
    for i, (top, left) in enumerate(((0, 0), (0, 5 + GAP), (70 + GAP, 0))):
        assert (laid[top : top + 70, left : left + 5] == images[i].permute(1, 2, 0).numpy()).all()
    assert (laid[70 + GAP :, 5:] == 255).all()
    assert (laid[70 : 70 + GAP] == 255).all()
    assert grid(images[:, :1, :8]).shape == (2 * 64 + GAP, 2 * 40 + GAP, 1)
    assert grid(images, 9).shape == (70, 3 * 5 + 2 * GAP, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_come_back_from_their_files(channels):
    images = torch.randint(256, (2, channels, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, data in zip(images, pngs(images)):
        back = np.asarray(Image.open(io.BytesIO(data))).reshape(6, 5, channels)
        assert (back == image.permute(1, 2, 0).numpy()).all()
    assert Image.open(io.BytesIO(grid_png(images))).mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]


def test_two_channels_are_no_picture():
    with pytest.raises(InputError, match="pictures must have 1, 3 or 4 channels, got 2"):
        grid(torch.zeros(1, 2, 8, 8, dtype=torch.uint8))


def test_a_gif_has_all_frames_and_its_time():
    frames = torch.stack([torch.full((1, 8, 8), 20 * i, dtype=torch.uint8) for i in range(7)])
    with Image.open(io.BytesIO(gif(frames, 30))) as film:
        assert film.n_frames == 7
        assert film.info["loop"] == 0
        times, shades = [], []
        for i in range(7):
            film.seek(i)
            times.append(film.info["duration"])
            shades.append(film.convert("L").getpixel((3, 3)))
    assert shades == [20 * i for i in range(7)]
    assert sum(times) == 230  # 7 frames at 30 a second are 233 ms; GIF counts in tens
    assert film.size == (64, 64)


def test_the_course_is_the_first_row_of_each_grid():
    """Against rows that are drawn apart."""
    moments = torch.randint(256, (3, 6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    course = np.asarray(Image.open(io.BytesIO(course_png([grid_png(m, 3) for m in moments], (3, 8, 8)))))
    assert (course == grid(moments[:, :3].flatten(0, 1), 3)).all()


def test_short_rows_are_filled_with_white():
    rows = [torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.ones(3, 1, 4, 4, dtype=torch.uint8)]
    images, columns = in_rows(rows)
    assert columns == 3
    assert images.amax((1, 2, 3)).tolist() == [0, 0, 255, 1, 1, 1]
