"""How much noise an image has, from the image alone."""

import torch
from torch import Tensor
from torch.nn import functional as F

from triptych.check import InputError, wrong

# Daubechies' wavelet of two vanishing moments: what is linear in space has no coefficient.
_HIGH = (-0.12940952255126037, -0.22414386804201339, 0.8365163037378079, -0.48296291314453416)
MEDIAN_OF_NORMAL = 0.6744897501960817  # the median of |a standard normal number|


def estimate_sigma(images: Tensor) -> Tensor:
    """The standard deviation of white noise in images ``(b, c, h, w)``, (b, c), in their units.

    median |w| / 0.6745 over the finest diagonal coefficients w of an orthonormal wavelet, which smooth images and straight edges
    hardly reach (Donoho & Johnstone, Biometrika 1994). Fine texture is taken for noise, and noise that is correlated from
    sample to sample for less than it is. Raises InputError for other shapes, for images under 8 x 8, and for NaN.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not len(images):
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else images
        raise wrong("images", "a floating-point tensor (b, c, h, w)", found)
    b, c, *space = images.shape
    if min(space) < 8:
        raise InputError(
            f"images must be at least 8 x 8 for their noise to be estimated, got {' x '.join(map(str, space))}"
        )
    if not bool(images.isfinite().all()):
        raise InputError("images must be finite, got NaN or infinity; inpaint what is not known")
    high = images.new_tensor(_HIGH)
    w = F.conv2d(images.flatten(0, 1).unsqueeze(1), torch.outer(high, high)[None, None], stride=2)
    return (w.abs().flatten(1).median(1).values / MEDIAN_OF_NORMAL).reshape(b, c)
