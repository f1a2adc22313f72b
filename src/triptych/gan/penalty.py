"""Penalties on the critic's gradient by its input, image by image, for any critic."""

from dataclasses import replace

import torch
from torch import Tensor

from triptych.check import wrong
from triptych.gan.draw import Draw
from triptych.gan.game import Batch, Critic


def gradient_penalty(
    critic: Critic, real: Batch, fake: Batch, draw: Draw, *, target: float = 1.0, one_sided: bool = False
) -> Tensor:
    """E (‖∇D(x̂)‖₂ - target)², or E max(0, ‖∇D(x̂)‖₂ - target)² one-sided, at x̂ = real + α (fake - real), α ~ U[0, 1) an image.

    Gulrajani et al., NeurIPS 2017, Algorithm 1. x̂ has the labels of the real images; gradients reach the critic alone.
    """
    alpha = draw.uniform("alpha", (1,) * (real.images.dim() - 1), like=real.images)
    x_hat = real.images + alpha * (fake.images - real.images)
    excess = gradient_norms(critic, Batch(x_hat, real.labels, draw.named("between"))) - target
    return (excess.clamp_min(0) if one_sided else excess).square().mean()


def r1(critic: Critic, batch: Batch) -> Tensor:
    """E ‖∇D(x)‖²: R1 on real images, R2 on generated ones (Mescheder et al., ICML 2018, equation 9)."""
    return input_gradient(critic, batch).flatten(1).square().sum(1).mean()


def gradient_norms(critic: Critic, batch: Batch) -> Tensor:
    """‖∇D(x)‖₂ of each image (n,), with the graph to the critic's parameters; its gradient where it is 0 is 0."""
    return torch.linalg.vector_norm(input_gradient(critic, batch).flatten(1), dim=1)


def input_gradient(critic: Critic, batch: Batch) -> Tensor:
    """∇D(x) of each image (n, ...), in float32 at least, with the graph to the critic's parameters.

    A piecewise linear network gives it by one pass of its own adjoint, which first-order differentiation goes through; any
    other critic is differentiated twice.
    """
    own = getattr(critic, "input_gradient", None)
    with torch.enable_grad():
        gradient = None if own is None else own(batch)
        if gradient is None:
            gradient = differentiated(critic, batch)
    return gradient if gradient.dtype in (torch.float32, torch.float64) else gradient.float()


def differentiated(critic: Critic, batch: Batch) -> Tensor:
    """∇D(x) of each image by automatic differentiation, kept differentiable."""
    x = batch.images.detach().requires_grad_()
    value = critic(replace(batch, images=x)).value
    if value.shape != (len(x),):
        raise wrong("critic", f"a network with one value for each of {len(x)} images", tuple(value.shape))
    (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True)
    return gradient
