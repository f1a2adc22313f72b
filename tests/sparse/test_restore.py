import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import orthogonal_mp

from triptych.check import InputError
from triptych.sparse import restore, shifts
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.restore import GAIN, MEETS, denoise, inpaint, split
from triptych.sparse.shipped import SHIPPED, load_dictionary, save_dictionary
from triptych.sparse.unfolding import Unfolding

needs_photographs = pytest.mark.skipif("TRIPTYCH_DATA" not in os.environ, reason="TRIPTYCH_DATA is not set")


def random_dictionary(k=12, c=1, n=4, dtype=torch.float64):
    atoms = torch.randn(k, c, n, n, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return ConvDictionary(atoms, n)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def photograph(side=96, number=22):
    path = sorted((Path(os.environ["TRIPTYCH_DATA"]) / "photos/kodak").glob("*.png"))[number]
    grey = np.array(Image.open(path).convert("L"), np.float32)
    return torch.from_numpy(grey[150 : 150 + side, 300 : 300 + side])[None, None]


def psnr(image, truth):
    return float(10 * torch.log10(255**2 / (image - truth).square().mean()))


def test_split_is_the_minimiser_of_its_quadratic():
    """(I + smoothing ∇*∇) low = image, with ∇ as a dense matrix of differences that do not cross the edges."""
    image = noise(1, 1, 7, 9)

    def differences(n):
        return np.diff(np.eye(n), axis=0)

    down = np.kron(differences(7), np.eye(9))
    across = np.kron(np.eye(7), differences(9))
    matrix = np.eye(63) + 3.5 * (down.T @ down + across.T @ across)
    low, high = split(image, 3.5)
    np.testing.assert_allclose(low.flatten().numpy(), np.linalg.solve(matrix, image.flatten().numpy()), atol=1e-12)
    torch.testing.assert_close(low + high, image)


@pytest.mark.parametrize("c", [1, 2])
def test_denoise_is_the_weighted_mean_of_every_shift(c):
    """Against a loop over places that codes with scikit-learn and adds up."""
    n, sigma = 4, 0.8
    D, image = random_dictionary(k=40, c=c), 1.6 * noise(1, c, 9, 10, seed=2)
    atoms = D.atoms - D.atoms.mean((2, 3), keepdim=True)
    atoms = (atoms.flatten(1) / atoms.flatten(1).norm(dim=1, keepdim=True)).numpy()
    total, weight = np.zeros((2, c, 9, 10)), np.zeros((2, c, 9, 10))
    for i in range(9 - n + 1):
        for j in range(10 - n + 1):
            patch = image[0, :, i : i + n, j : j + n].numpy()
            low = patch.mean((1, 2), keepdims=True)
            high, bound = (patch - low).ravel(), GAIN**2 * sigma**2 * c * n * n
            code = np.zeros(len(atoms))
            if high @ high > bound:
                code = orthogonal_mp(atoms.T, high, tol=bound)
            quiet, count = np.zeros(len(atoms)), 0
            while abs(atoms @ (high - quiet @ atoms)).max() > MEETS * sigma and count < c * n * n // 2:
                count += 1
                quiet = orthogonal_mp(atoms.T, high, n_nonzero_coefs=count)
            for rule, x in enumerate((code, quiet)):
                fit = low + (x @ atoms).reshape(c, n, n)
                if np.count_nonzero(x) >= c * n * n // 2:
                    fit = patch
                trust = 1 / (1 + np.count_nonzero(x))
                total[rule, :, i : i + n, j : j + n] += trust * fit
                weight[rule, :, i : i + n, j : j + n] += trust
    found = denoise(image, sigma, D)
    np.testing.assert_allclose(found.image[0].numpy(), (total / weight).mean(0), atol=1e-8)
    assert found.sigma.tolist() == [[sigma] * c]


def test_bands_have_no_seams(monkeypatch):
    D, image = random_dictionary(), noise(2, 1, 23, 17)
    mask = (noise(2, 1, 23, 17, seed=3) > 0).double()
    once = denoise(image, 0.7, D).image, inpaint(image, mask, D).image
    monkeypatch.setattr(shifts, "BAND", 20)
    torch.testing.assert_close(denoise(image, 0.7, D).image, once[0])
    torch.testing.assert_close(inpaint(image, mask, D).image, once[1])


def test_plain_tiles_agree_with_the_whole(monkeypatch):
    """At an accurate gap a tile with margins is the whole problem, nearly."""
    monkeypatch.setattr(restore, "PLAIN_TOL", 1e-5)
    D = random_dictionary(dtype=torch.float32)
    image = 20 * noise(1, 1, 40, 36, dtype=torch.float32)
    whole = denoise(image, 12.0, D, method="plain").image
    monkeypatch.setattr(restore, "TILE", 20)
    tiles = denoise(image, 12.0, D, method="plain").image
    assert float((whole - tiles).abs().max()) < 0.05 * 12
    assert float((whole - image).abs().max()) > 12


def test_the_unfolding_is_the_network_on_its_own_scale(monkeypatch):
    net = Unfolding(9, 3, 2, 1)
    monkeypatch.setattr(Unfolding, "load", classmethod(lambda cls: net))
    image = 255 * torch.rand(1, 1, 12, 13, generator=torch.Generator().manual_seed(0))
    found = denoise(image, 20.0, method="unfolding").image
    torch.testing.assert_close(found, 255 * net(image / 255, 20 / 255).detach())
    with pytest.raises(InputError, match="dictionary must be left away"):
        denoise(image, 20.0, random_dictionary(), method="unfolding")


def test_images_of_a_batch_are_restored_one_by_one():
    D, image = random_dictionary(), noise(2, 3, 12, 13)
    sigma = torch.tensor([0.5, 0.9])
    both = denoise(image, sigma, D).image
    torch.testing.assert_close(both[1:], denoise(image[1:], 0.9, D).image)
    torch.testing.assert_close(both[:1], denoise(image[:1], 0.5, D).image)


def test_grey_pictures_in_three_channels_stay_grey():
    D = random_dictionary()
    image = noise(1, 1, 14, 14).expand(1, 3, 14, 14).contiguous()
    found = denoise(image, 0.6, D)
    torch.testing.assert_close(found.image, found.image[:, :1].expand(1, 3, 14, 14))
    assert float((found.image - image).abs().max()) > 0.1


def test_units_do_not_matter():
    D, image = random_dictionary(), noise(1, 1, 12, 12)
    torch.testing.assert_close(denoise(255 * image, 255 * 0.6, D).image, 255 * denoise(image, 0.6, D).image)


def test_no_noise_changes_nothing():
    image = noise(1, 1, 12, 12)
    assert torch.equal(denoise(image, 0.0, random_dictionary()).image, image)


def test_known_samples_stay_and_unknown_ones_are_not_read():
    D, image = random_dictionary(), noise(1, 3, 14, 15)
    mask = (noise(1, 1, 14, 15, seed=4) > 0).double()
    known = mask.bool().expand_as(image)
    filled = inpaint(torch.where(known, image, torch.nan), mask, D).image
    assert torch.equal(filled[known], image[known])
    assert bool(filled.isfinite().all())
    assert torch.equal(filled, inpaint(torch.where(known, image, 1e6), mask, D).image)


def test_a_sparse_image_is_filled_in_exactly():
    """One atom tiles the image: what is missing follows from what is known, at every patch of the grid and between."""
    wave = torch.cos(torch.arange(16, dtype=torch.float64) * torch.pi / 2 + 0.3)
    image = (wave[:, None] * wave)[None, None]
    shifts = [image[0, 0, i : i + 4, j : j + 4] for i in range(4) for j in range(4)]
    D = ConvDictionary(torch.stack(shifts)[:, None], 4)
    mask = (noise(1, 1, 16, 16, seed=5) > -0.5).double()
    filled = inpaint(image, mask, D, tol=1e-6).image
    torch.testing.assert_close(filled, image, atol=1e-6, rtol=0)


def test_holes_larger_than_an_atom_are_filled():
    D, image = random_dictionary(), torch.full((1, 1, 30, 30), 7.0, dtype=torch.float64)
    image[..., 22:] = 9.0
    mask = torch.ones(1, 1, 30, 30)
    mask[..., 8:20, 3:14] = 0
    filled = inpaint(image, mask, D).image
    assert float((filled - image).abs().max()) < 0.5
    mask[:] = 0
    mask[..., 0, 0] = 1
    torch.testing.assert_close(inpaint(image, mask, D).image, torch.full_like(image, 7.0))


def test_noise_of_known_samples_is_taken_off():
    truth = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    mask = (noise(1, 1, 40, 40, seed=6) > 0).double()
    noisy = truth + noise(1, 1, 40, 40, seed=7)
    kept, cleaned = (inpaint(noisy, mask, random_dictionary(), noise=s).image for s in (0.0, 1.0))
    assert float(cleaned.square().mean()) < 0.15
    assert torch.equal(kept[mask > 0], noisy[mask > 0])


@needs_photographs
def test_a_textured_photograph_gains_by_shifts_over_one_plain_code():
    truth = photograph(128, number=20)
    noisy = truth + 25 * noise(*truth.shape, dtype=torch.float32)
    shifts, plain = denoise(noisy, 25.0).image, denoise(noisy, 25.0, method="plain").image
    assert psnr(shifts, truth) > psnr(plain, truth) + 0.5
    assert psnr(plain, truth) > psnr(noisy, truth) + 5


@needs_photographs
def test_a_photograph_is_filled_in_better_than_by_interpolation():
    from scipy.interpolate import griddata

    truth = photograph()
    mask = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    rows, columns = np.nonzero(mask[0, 0].numpy())
    grid = tuple(np.mgrid[:96, :96])
    values = truth[mask].numpy()
    cubic = griddata((rows, columns), values, grid, "cubic")
    nearest = griddata((rows, columns), values, grid, "nearest")
    cubic = torch.from_numpy(np.where(np.isnan(cubic), nearest, cubic))[None, None]
    assert psnr(inpaint(truth, mask.float()).image, truth) > psnr(cubic, truth) + 0.5


def test_the_shipped_dictionary_is_small_and_learned():
    D = load_dictionary()
    assert SHIPPED.stat().st_size < 100_000
    assert D.stride == D.size[0] == D.size[1] == 8
    assert D.atoms.dtype == torch.float32
    torch.testing.assert_close(D.norms, torch.ones(D.n_atoms), atol=1e-2, rtol=0)


def test_dictionaries_come_back_from_files(tmp_path):
    D = random_dictionary(dtype=torch.float32)
    again = load_dictionary(save_dictionary(tmp_path / "d.safetensors", D))
    torch.testing.assert_close(again.atoms, D.atoms, rtol=1e-3, atol=1e-4)
    assert again.stride == 4


BAD = {
    "no image": (lambda: denoise(torch.zeros(4, 4), 1.0), "images must be a floating-point tensor (b, c, h, w)"),
    "whole numbers": (lambda: denoise(torch.zeros(1, 1, 9, 9, dtype=torch.uint8), 1.0), "images must be a floating-point"),
    "NaN": (lambda: denoise(torch.full((1, 1, 9, 9), torch.nan), 1.0), "images must be finite"),
    "too small": (lambda: denoise(torch.zeros(1, 1, 7, 9), 1.0), "at least as large as the atoms (8 x 8), got 7 x 9"),
    "negative sigma": (lambda: denoise(torch.zeros(1, 1, 9, 9), -1.0), "sigma must be a finite number of at least 0"),
    "sigma of others": (lambda: denoise(torch.zeros(1, 1, 9, 9), torch.ones(2)), "sigma must be a finite number"),
    "no such method": (lambda: denoise(torch.zeros(1, 1, 9, 9), 1.0, method="best"), "method must be one of shifts, plain, unfolding"),
    "channels": (lambda: denoise(torch.zeros(1, 3, 9, 9), 1.0, random_dictionary(c=2)), "pictures of 1 or 3 channels"),
    "lines": (
        lambda: denoise(torch.zeros(1, 1, 9, 9), 1.0, ConvDictionary(torch.ones(2, 1, 4))), "pictures of 1 or 1 channels",
    ),
    "flat atoms": (
        lambda: denoise(noise(1, 1, 9, 9), 1.0, ConvDictionary(torch.ones(2, 1, 4, 4), 4)), "an atom that is not flat",
    ),
    "no mask": (lambda: inpaint(torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 9, 9)), "mask must know at least one sample"),
    "mask of another size": (
        lambda: inpaint(torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 8)), "mask must be a tensor (1 or 1, 1, 9, 9)",
    ),
    "grey mask": (lambda: inpaint(torch.zeros(1, 1, 9, 9), torch.full((1, 1, 9, 9), 0.5)), "mask must be of 0 (missing)"),
    "NaN where known": (
        lambda: inpaint(torch.full((1, 1, 9, 9), torch.nan), torch.ones(1, 1, 9, 9)), "images must be finite where the mask",
    ),
    "no tolerance": (lambda: inpaint(torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9), tol=0.0), "tol must be"),
    "negative noise": (lambda: inpaint(torch.zeros(1, 1, 9, 9), torch.ones(1, 1, 9, 9), noise=-1), "noise must be"),
    "negative smoothing": (lambda: split(torch.zeros(1, 1, 9, 9), -1), "smoothing must be"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "part"), BAD.values(), ids=BAD)
def test_wrong_arguments_are_refused(call, part):
    with pytest.raises(InputError) as error:
        call()
    assert part in str(error.value)
