import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from triptych.check import InputError
from triptych.sparse.noise import estimate_sigma


def test_the_wavelet_sees_noise_and_no_planes():
    """White noise keeps its deviation; a slope has none."""
    generator = torch.Generator().manual_seed(0)
    slope = torch.linspace(0, 900, 256, dtype=torch.float64)
    plane = (slope[:, None] + 2 * slope)[None, None]
    assert estimate_sigma(plane).item() < 1e-9
    noise = torch.randn(2, 3, 256, 256, generator=generator, dtype=torch.float64)
    found = estimate_sigma(plane + 7 * noise)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, torch.full((2, 3), 7.0, dtype=torch.float64), rtol=0.05, atol=0)


@pytest.mark.skipif("TRIPTYCH_DATA" not in os.environ, reason="TRIPTYCH_DATA is not set")
@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_photographs(sigma):
    path = sorted((Path(os.environ["TRIPTYCH_DATA"]) / "photos/kodak").glob("*.png"))[0]
    clean = torch.from_numpy(np.array(Image.open(path).convert("L"), np.float32))[None, None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert abs(estimate_sigma(clean + sigma * noise).item() - sigma) < 3


@pytest.mark.parametrize(
    ("images", "part"),
    [
        (torch.zeros(1, 1, 7, 9), "at least 8 x 8"),
        (torch.zeros(1, 9, 9), "a floating-point tensor (b, c, h, w)"),
        (torch.zeros(1, 1, 9, 9, dtype=torch.int64), "a floating-point tensor (b, c, h, w)"),
        (torch.full((1, 1, 9, 9), torch.nan), "finite"),
    ],
)
def test_what_is_no_image_is_refused(images, part):
    with pytest.raises(InputError) as error:
        estimate_sigma(images)
    assert part in str(error.value)
