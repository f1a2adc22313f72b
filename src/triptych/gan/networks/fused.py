"""A 3 x 3 convolution and a change of side by 2 as one of 4 x 4: the same numbers for 4/9 of the multiplications.

The fused kernel is made of the plain one at every call, so that a plain 3 x 3 is trained, saved and initialised. That
has a cost, whatever the number of images, and is lost on small calls; so a call is fused where images times positions
of the smaller side reach a number. Channels hardly matter. Measured on one thread of a CPU with AVX-512 and bfloat16:
forward, backward and second order (the last row of upsampling without it), 32 to 128 channels, batches of 1 to 64, sides
of 8 to 64 pixels; time of the plain way over that of the fused one:

    images x positions   pool, float32    pool, bf16    upsample, float32    upsample, bf16
          16              0.5 - 0.7       0.5 - 0.9        0.2 - 0.6           0.3 - 0.8
          64              1.0 - 1.2       0.9 - 1.0        0.4 - 0.9           0.4 - 0.9
         128              1.2 - 1.6       1.1 - 1.2        0.7 - 1.1           0.6 - 1.0
         256              1.4 - 1.9       1.3 - 1.7        1.0 - 1.3           0.9 - 1.2
         512              1.9 - 2.0       1.4 - 1.7        1.5 - 1.6           1.2
       1,024              2.0 - 2.7       1.7 - 2.3        1.7 - 2.0           1.3 - 1.7
      16,384              2.4 - 3.2       2.5 - 2.7        2.1 - 2.3           1.9
"""

import torch.nn.functional as F
from torch import Tensor, nn

POOL_FROM = 128  # images x positions of the smaller side from which on the fused convolution is the faster one
UPSAMPLE_FROM = 512


def conv_pool(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The mean over 2 x 2 of a 3 x 3 convolution, (n, c, h, w) -> (n, k, h // 2, w // 2).

    mean₄ (w * x) = (mean₄ of w's four shifts) * x at every second position.
    """
    if x.shape[0] * (x.shape[2] // 2) * (x.shape[3] // 2) < POOL_FROM:
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=1), 2)
    return F.conv2d(x, _four_shifts(weight) / 4, bias, stride=2, padding=1)


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3 x 3 convolution of x with every pixel repeated 2 x 2, (n, c, h, w) -> (n, k, 2 h, 2 w).

    Each repeated pixel reaches 4 x 4 outputs, by the sum of the kernel's four shifts: a transposed convolution of
    stride 2.
    """
    if x.shape[0] * x.shape[2] * x.shape[3] < UPSAMPLE_FROM:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    return F.conv_transpose2d(x, _four_shifts(weight.flip(2, 3)).transpose(0, 1), bias, stride=2, padding=1)


def spread(u: Tensor) -> Tensor:
    """A quarter of u on each of the 2 x 2 pixels that it is the mean of: the adjoint of mean-pooling."""
    return F.interpolate(u / 4, scale_factor=2, mode="nearest")


class ConvPool(nn.Conv2d):
    """A convolution of 3 x 3 and the mean over 2 x 2: (n, c, h, w) -> (n, k, h // 2, w // 2)."""

    def __init__(self, channels: int, filters: int, bias: bool = True) -> None:
        super().__init__(channels, filters, 3, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """See ``conv_pool``."""
        return conv_pool(input, self.weight, self.bias)

    def adjoint(self, u: Tensor) -> Tensor:
        """The gradient by the input, of even height and width, of u by the output."""
        if u.shape[0] * u.shape[2] * u.shape[3] < POOL_FROM:
            return F.conv_transpose2d(spread(u), self.weight, padding=1)
        return F.conv_transpose2d(u, _four_shifts(self.weight) / 4, stride=2, padding=1)


class UpsampleConv(nn.Conv2d):
    """Every pixel repeated 2 x 2 and a convolution of 3 x 3: (n, c, h, w) -> (n, k, 2 h, 2 w)."""

    def __init__(self, channels: int, filters: int, bias: bool = True) -> None:
        super().__init__(channels, filters, 3, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """See ``upsample_conv``."""
        return upsample_conv(input, self.weight, self.bias)


def _four_shifts(weight: Tensor) -> Tensor:
    """The sum of a kernel's shifts by 0 and 1 down and right: (k, c, 3, 3) -> (k, c, 4, 4)."""
    wide = F.pad(weight, (0, 1)) + F.pad(weight, (1, 0))
    return F.pad(wide, (0, 0, 0, 1)) + F.pad(wide, (0, 0, 1, 0))
