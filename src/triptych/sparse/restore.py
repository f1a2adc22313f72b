"""Images restored by sparse codes: noise taken off, missing samples filled in.

A dictionary whose stride is its atoms' size cuts the image into patches that do not overlap. Coded at every shift of that
grid, and the answers averaged, it restores far better than a dictionary at stride 1 whose overlapping atoms explain the
noise together (Simon & Elad, Rethinking the CSC model for natural images, NeurIPS 2019).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from scipy import fft
from torch import Tensor

from triptych.check import InputError, choice, real, wrong
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.noise import estimate_sigma
from triptych.sparse.pursue import pursue
from triptych.sparse.shifts import centred, filled, shifts
from triptych.sparse.shipped import load_dictionary
from triptych.sparse.unfolding import Unfolding

METHODS = ("shifts", "plain", "unfolding")
GAIN = 1.06  # an estimate may leave so many standard deviations a sample
MEETS = 3.6  # or so many standard deviations of what an atom meets
LAMBDA, POWER = 3.2, 0.6  # plain: the weight of the l1 norm is LAMBDA sigma (sigma / std)^POWER, std of what is coded
NOISE = 0.9  # plain: no std below so many sigma, a little less than white noise leaves there
TILE = 256  # plain: samples that are coded together an axis, and beside them two atoms' size on every side
PLAIN_TOL = 1e-2
SMOOTH = 5.0

# Grey and two differences of colours, orthonormal: white noise stays white and as strong.
OPPONENT = ((3**-0.5,) * 3, (0.5**0.5, 0.0, -(0.5**0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))


@dataclass(frozen=True, eq=False)
class Restored:
    """What was made of b images.

    Attributes
    ----------
    image : ``(b, c, h, w)``.
    sigma : (b, c), the noise level that was given or estimated, in the units of the image. Of colour pictures whose channels
        are coded one by one: of the grey image and of the two differences of colours.
    atoms : mean number of atoms a patch; with ``method="plain"``, an n-th part of the image's, n the samples of an atom; NaN for
        "unfolding", whose codes are not sparse to the last.
    """

    image: Tensor
    sigma: Tensor
    atoms: float


def split(images: Tensor, smoothing: float = SMOOTH) -> tuple[Tensor, Tensor]:
    """The low frequencies of images ``(b, c, h, w)``, and what is left: images = low + high.

    low = argmin ½ ‖low - image‖² + ½ smoothing ‖∇ low‖², edges reflected: division by a number for every frequency of the
    cosine transform. Raises InputError for other shapes and a negative ``smoothing``.
    """
    _checked(images)
    smoothing = real("smoothing", smoothing, low=0.0)
    h, w = images.shape[2:]
    down, across = (2 - 2 * torch.cos(torch.pi * torch.arange(n, dtype=torch.float64) / n) for n in (h, w))
    spectrum = fft.dctn(images.double().cpu().numpy(), axes=(2, 3), norm="ortho")
    spectrum /= (1 + smoothing * (down[:, None] + across)).numpy()
    low = torch.from_numpy(fft.idctn(spectrum, axes=(2, 3), norm="ortho")).to(images)
    return low, images - low


def denoise(
    images: Tensor,
    sigma: float | Tensor | None = None,
    dictionary: ConvDictionary | None = None,
    *,
    method: str = "shifts",
) -> Restored:
    """Take white Gaussian noise off images ``(b, c, h, w)``.

    Parameters
    ----------
    images : floating-point tensor, in any units.
    sigma : the noise's standard deviation in those units, a number or (b,); None: estimated, see `estimate_sigma`.
    dictionary : of c channels, or of one: then channel by channel, colours as grey and two differences. None: the one that
        ships with the package.
    method : "shifts": every shift of the strided dictionary's grid is coded and the answers are averaged, those of fewer
        atoms with more weight. The mean of each patch, its lowest frequency, is split off before coding and put back; OMP
        takes atoms until sigma is left (Elad & Aharon, IEEE TIP 2006); beside it, until no atom meets more than noise; the
        mean of both estimates counts. "plain": basis pursuit at stride 1 of `split`'s high frequencies, put back after. It denoises
        badly, and is there to compare. "unfolding": the trained network of the same strided codes, `Unfolding`; it has atoms
        of its own, and wants images on the scale 0 to 255.

    Works through the image in bands, "shifts" with the same result as at once, so memory is bounded. Raises InputError for
    wrong arguments, and for images smaller than the atoms.
    """
    choice("method", method, METHODS)
    if method == "unfolding" and dictionary is not None:
        raise InputError('dictionary must be left away with method "unfolding", which has atoms of its own')
    dictionary = _fitting(images, dictionary)
    if not bool(images.isfinite().all()):
        raise InputError("images must be finite, got NaN or infinity; inpaint what is not known")
    turned, back = _turned(images, dictionary)
    level = estimate_sigma(turned) if sigma is None else _sigmas(sigma, turned)
    out, atoms = torch.empty_like(turned), []
    for i, j in _parts(turned, dictionary):
        part, s = turned[i, j], level[i, j]
        found, used = _one(part, s, dictionary, method) if bool((s > 0).any()) else (part, 0.0)
        out[i, j] = found
        atoms.append(used)
    return Restored(back(out), level, sum(atoms) / len(atoms))


def inpaint(
    images: Tensor,
    mask: Tensor,
    dictionary: ConvDictionary | None = None,
    *,
    noise: float = 0.0,
    tol: float = 0.012,
) -> Restored:
    """Fill in the missing samples of images ``(b, c, h, w)``.

    Parameters
    ----------
    images : floating-point tensor; where the mask is 0 it is not read, and may be NaN.
    mask : ``(b or 1, 1, h, w)`` of 0 and 1, 1 (white) where the image is known.
    dictionary : as in `denoise`.
    noise : standard deviation of the known samples, in the units of the images; 0 keeps them as they are.
    tol : standard deviation that patches' codes may leave where they are known, as a fraction of the range of what is known.

    Every patch is coded at every shift by what is known of it, and the answers are averaged, those of more known samples and
    fewer atoms with more weight. Holes larger than an atom are filled from their rims inwards. Raises InputError for wrong
    arguments.
    """
    dictionary = _fitting(images, dictionary)
    noise, tol = real("noise", noise, low=0.0), real("tol", tol, above=0.0)
    known = _known(mask, images)
    given = torch.where(known, images, torch.zeros_like(images))
    if not bool(given.isfinite().all()):
        raise InputError("images must be finite where the mask is 1, got NaN or infinity; set the mask to 0 there")
    turned, back = _turned(given, dictionary)
    out, atoms = torch.empty_like(turned), []
    for i, j in _parts(turned, dictionary):
        seen, here = turned[i, j], known[i, 0]
        levels = seen[:, here]
        level = max(GAIN * noise, tol * float(levels.max() - levels.min()))
        found, used = filled(seen, here, level, dictionary)
        out[i, j] = found
        atoms.append(used)
    image = back(out)
    image = image if noise else torch.where(known, images, image)
    return Restored(image, images.new_full(images.shape[:2], noise), sum(atoms) / len(atoms))


def _one(part: Tensor, sigma: Tensor, dictionary: ConvDictionary, method: str) -> tuple[Tensor, float]:
    """An image (c, h, w) without noise of (c,), and the atoms used."""
    if method == "unfolding":
        with torch.no_grad():
            return 255 * Unfolding.load().to(part)(part[None] / 255, float(sigma) / 255)[0], float("nan")
    if method == "plain":
        return _plain(part, float(sigma.square().mean().sqrt()), dictionary)
    energy = GAIN**2 * float(sigma.square().sum()) * prod(dictionary.size)
    found, _, used = shifts(part, dictionary, energy, MEETS * float(sigma.square().mean().sqrt()))
    return found, used


def _plain(part: Tensor, sigma: float, dictionary: ConvDictionary) -> tuple[Tensor, float]:
    """Basis pursuit of an image's (c, h, w) high frequencies, tile by tile."""
    D = ConvDictionary(centred(dictionary).reshape(-1, *dictionary.atoms.shape[1:]))
    low, high = split(part[None])
    lam = LAMBDA * sigma * (sigma / max(float(high.std()), NOISE * sigma)) ** POWER
    found, used = torch.empty_like(high), 0
    h, w = part.shape[1:]
    for top in range(0, h, TILE):
        for left in range(0, w, TILE):
            (rows, inner_rows), (columns, inner_columns) = (
                _tile(start, stop, n) for start, stop, n in zip((top, left), (h, w), D.size)
            )
            coding = Coding(D, high[..., rows, columns].contiguous(), lam, "absolute")
            codes = pursue(coding, tol=PLAIN_TOL).codes
            tile = coding.reconstruct(codes.dense())[..., inner_rows, inner_columns]
            found[..., top : top + TILE, left : left + TILE] = tile
            used += int(codes.nonzeros.sum())
    return (low + found)[0], used / (h * w / prod(D.size))


def _tile(start: int, end: int, n: int) -> tuple[slice, slice]:
    """A tile with its margins along an axis that ends somewhere, and where in it the tile itself is."""
    stop = min(start + TILE, end)
    outer = slice(max(0, min(start, end - n) - 2 * n), min(end, stop + 2 * n))
    return outer, slice(start - outer.start, stop - outer.start)


def _parts(turned: Tensor, dictionary: ConvDictionary) -> list[tuple[int, slice]]:
    """What is coded together: whole images, or their channels one by one."""
    b, c = turned.shape[:2]
    if dictionary.channels == c:
        return [(i, slice(0, c)) for i in range(b)]
    return [(i, slice(j, j + 1)) for i in range(b) for j in range(c)]


def _turned(images: Tensor, dictionary: ConvDictionary) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Colours as grey and two differences where channels are coded one by one, and the way back."""
    if dictionary.channels == 3 or images.shape[1] != 3:
        return images, lambda x: x
    turn = images.new_tensor(OPPONENT)
    return torch.einsum("ij,bjhw->bihw", turn, images), lambda x: torch.einsum("ji,bjhw->bihw", turn, x)


def _checked(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not images.numel():
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else images
        raise wrong("images", "a floating-point tensor (b, c, h, w)", found)


def _fitting(images: Tensor, dictionary: ConvDictionary | None) -> ConvDictionary:
    """The dictionary for some images. Raises InputError where it does not fit them."""
    _checked(images)
    dictionary = load_dictionary() if dictionary is None else dictionary
    if len(dictionary.size) != 2 or dictionary.channels not in (1, images.shape[1]):
        raise InputError(
            f"dictionary must hold pictures of 1 or {images.shape[1]} channels, those of the images, got atoms "
            f"{tuple(dictionary.atoms.shape)}; learn another, or take other images"
        )
    dictionary = replace(dictionary, boundary="valid")  # a picture's edges do not meet
    dictionary.code_shape(images.shape[2:])
    return dictionary.to(images.dtype, images.device)


def _sigmas(sigma: float | Tensor, turned: Tensor) -> Tensor:
    b, c = turned.shape[:2]
    if not isinstance(sigma, Tensor):
        return turned.new_full((b, c), real("sigma", sigma, low=0.0))
    if sigma.shape != (b,) or not bool((sigma.isfinite() & (sigma >= 0)).all()):
        raise wrong("sigma", f"a finite number of at least 0, or a tensor ({b},) of them", sigma)
    return sigma.to(turned)[:, None].expand(b, c)


def _known(mask: Tensor, images: Tensor) -> Tensor:
    """The mask as (b, 1, h, w), true where the images are known."""
    b, _, h, w = images.shape
    if not isinstance(mask, Tensor) or mask.ndim != 4 or len(mask) not in (1, b) or mask.shape[1:] != (1, h, w):
        found = tuple(mask.shape) if isinstance(mask, Tensor) else mask
        raise wrong("mask", f"a tensor ({b} or 1, 1, {h}, {w})", found)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(
            "mask must be of 0 (missing) and 1 (known), it holds other values; compare it with a level first"
        )
    known = mask.bool().expand(b, 1, h, w)
    if not bool(known.flatten(1).any(1).all()):
        raise InputError("mask must know at least one sample of every image, one is missing whole; 1 stands for known")
    return known
