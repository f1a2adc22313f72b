"""The noise of a given picture: which z a generator makes most like it, and whether it does so better for pictures it was trained on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.check import InputError, whole
from triptych.gan.draw import Draw
from triptych.gan.sample import Sampler
from triptych.gan.train import generate

STEPS, STARTS = 100, 4


@dataclass(frozen=True, eq=False)
class Recovered:
    """z (n, size), what the generator makes of it, uint8 (n, c, h, w), and its error: root mean square in grey levels of 255, (n,)."""

    z: Tensor
    images: Tensor
    error: Tensor


def recover(
    sampler: Sampler,
    pictures: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = STEPS,
    starts: int = STARTS,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Recovered:
    """Minimise ‖G(z) - x‖² over z by L-BFGS from several starts, picture by picture; the best is kept. Pictures are uint8 (n, c, h, w).

    Webster, Rabin, Simon & Jurie, CVPR 2019, section 3. z of a uniform law stay in its cube, by a penalty and then by cutting. ``progress``
    is called with 1 after each picture. Raises InputError for pictures of another shape than the run's.
    """
    recipe = sampler.recipe
    if pictures.dtype != torch.uint8 or pictures.shape[1:] != recipe.shape or not len(pictures):
        expected = " x ".join(map(str, recipe.shape))
        raise InputError(f"pictures must be uint8 (n, {expected}), got {pictures.dtype} {tuple(pictures.shape)}")
    if recipe.classes and labels is None:
        raise InputError("labels must be given, as the run is conditional")
    whole("steps", steps)
    found = []
    for i, picture in enumerate(pictures):
        label = None if labels is None else labels[i : i + 1]
        draw = Draw(seed, 0, i * whole("starts", starts), starts, "recover/")
        found.append(_best(_Search(sampler, picture, label, steps), draw))
        if progress is not None:
            progress(1)
    z = torch.stack([z for z, _ in found])
    return Recovered(z, sampler.images(z, labels), torch.tensor([error for _, error in found], dtype=torch.float64))


@dataclass(frozen=True)
class _Search:
    """One picture that is looked for."""

    sampler: Sampler
    picture: Tensor
    label: Tensor | None
    steps: int

    def error(self, z: Tensor) -> Tensor:
        """Mean squared difference to the picture, of numbers in [0, 1]."""
        label = None if self.label is None else self.label.to(z.device)
        made = _unit(self.sampler, generate(self.sampler.generator, z[None], label))
        return (made[0] - self.picture.to(z) / 255).square().mean()

    def outside(self, z: Tensor) -> Tensor:
        """How far z is outside the cube of a uniform law, squared."""
        latent = self.sampler.latent
        return (z.abs() - latent.half_width).clamp_min(0).square().sum() if latent.law == "uniform" else z.new_zeros(())

    def kept(self, z: Tensor) -> Tensor:
        """z, within the cube."""
        latent = self.sampler.latent
        return z.clamp(-latent.half_width, latent.half_width) if latent.law == "uniform" else z

    def from_start(self, z: Tensor) -> Tensor:
        """Where L-BFGS ends."""
        z = z.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([z], max_iter=self.steps, history_size=20, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            total = self.error(z) + self.outside(z)
            total.backward()
            return total

        optimiser.step(loss)  # pyright: ignore[reportArgumentType]
        return self.kept(z.detach())


def _best(search: _Search, draw: Draw) -> tuple[Tensor, float]:
    """The best z of all starts, and its error in grey levels."""
    like = next(search.sampler.generator.parameters()).detach()
    ends = [search.from_start(z) for z in search.sampler.latent.sample(draw, like=like)]
    with torch.no_grad():
        errors = torch.stack([search.error(z) for z in ends])
    best = int(errors.nan_to_num(nan=torch.inf).argmin())
    return ends[best].double().cpu(), 255 * float(errors[best]) ** 0.5


def _unit(sampler: Sampler, x: Tensor) -> Tensor:
    """What a generator makes as numbers in [0, 1], differentiable."""
    scale = sampler.recipe.scale
    if scale == "unit":
        return x
    return (x + 1) / 2 if scale == "signed" else (x + 1) * (128 / 255)


def worse(train: Tensor, held_out: Tensor) -> float:
    """How likely it is by chance that errors of training pictures (n,) are as much below those of held-out ones (m,).

    One-sided Mann-Whitney test; for a random split of one set, small says that the generator was fitted to its training pictures.
    """
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(train.numpy(), held_out.numpy(), alternative="less").pvalue)
