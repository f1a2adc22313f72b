"""MNIST: digits that a linear classifier on a code of two layers is right about and certified for, beside pixels.

The first layer are filters of 8 x 8 at stride 4, learned on training digits and scaled to ‖D‖ = 1, the code an elastic net with
x >= 0: argmin ½ ‖y - D x‖² + lam Σ x + ridge / 2 ‖x‖². It is Lipschitz with max_s s / (s² + ridge)
(`triptych.sparse.deep.coding_lipschitz`). The second layer and the classifier are those of `certified_radius.py`, trained and certified
on these codes; a radius there over the Lipschitz constant is a radius for pixels. The first code is within
‖the least subgradient‖ / ridge of the exact one, by strong convexity, and the second has a gap; both come off the radius.

    python benchmarks/certified_layers.py [--first 32] [--atoms 400] [--digits 10000] [--attacked 1000]
    python benchmarks/certified_layers.py --smoke          (a few atoms, a few digits)

TRIPTYCH_DATA names the folder that holds mnist. The published bounds ask for a small coherence of both layers; what they say is printed.
"""

import argparse
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from certified_radius import EPSILONS, Model, certified, conjugate_gradients, digits, pixels, shares, solved, trained

SIZE, STRIDE = 8, 4


class First:
    """The first layer: its dictionary as a matrix (784, coefficients), λ, ridge."""

    def __init__(self, images: Tensor, atoms: int, lam: float, ridge: float) -> None:
        from triptych import MultiLayerSparseCoder

        coder = MultiLayerSparseCoder(
            f"{atoms}x{SIZE}s{STRIDE}", reg=0.01, max_iter=3, signal_shape=(1, 28, 28), random_state=0
        )
        coder.fit(images[:10_000].numpy())
        D = coder.dictionary_.layers[0]
        matrix = D.matrix((28, 28))
        top = torch.linalg.matrix_norm(matrix.double(), 2)
        self.matrix, self.dictionary = matrix / top.float(), replace(D, atoms=D.atoms.double() / top)
        self.lam, self.ridge = lam, ridge
        self.gram = self.matrix.T @ self.matrix + ridge * torch.eye(self.matrix.shape[1])
        self.lipschitz = float(torch.linalg.eigvalsh(self.gram.double())[-1])

    def codes(self, images: Tensor, steps: int = 120, start: Tensor | None = None) -> Tensor:
        """(n, coefficients), from a start, or 0."""
        start = images.new_zeros(len(images), len(self.gram)) if start is None else start
        return torch.cat([self._solved(*part, steps) for part in zip(images.split(2000), start.split(2000))])

    def _solved(self, images: Tensor, x: Tensor, steps: int) -> Tensor:
        b = images @ self.matrix - self.lam
        v, t = x, 1.0
        for _ in range(steps):
            new = (v + (b - v @ self.gram) / self.lipschitz).clamp_min_(0)
            following = (1 + (1 + 4 * t * t) ** 0.5) / 2
            v = new + ((t - 1) / following) * (new - x)
            x, t = new, following
        return x

    def off(self, images: Tensor, codes: Tensor) -> Tensor:
        """How far codes are from the exact ones at most, (n,): ‖the least subgradient‖ / ridge, by strong convexity; float64."""
        M, x = self.matrix.double(), codes.double()
        gradient = (x @ M.T - images.double()) @ M + self.lam + self.ridge * x
        least = torch.where(x > 0, gradient, gradient.clamp_max(0))
        return least.norm(dim=1) / self.ridge


def attacked(first: First, model: Model, images: Tensor, labels: Tensor, radius: Tensor, steps: int = 50) -> Tensor:
    """Projected gradient descent on the least lead, through both layers, in balls of radii (n,): the labels at the end."""
    G, v = model.gram(), torch.zeros_like(images)
    radius, one = radius.float()[:, None], first.codes(images, 300)
    x = solved(model, one, torch.zeros(len(one), len(model.atoms)), 300, G)
    for _ in range(steps):
        one = first.codes(images + v, 25, one)
        x = solved(model, one, x, 40, G)
        scores = model.scores(x)
        rival = scores.scatter(1, labels[:, None], -torch.inf).argmax(1)
        a = model.weights[labels] - model.weights[rival]
        through = conjugate_gradients(G, a, (x > 0).float()) @ model.atoms
        gradient = conjugate_gradients(first.gram, through, (one > 0).float(), 30) @ first.matrix.T
        v = v - 0.1 * radius * F.normalize(gradient)
        v = v * (radius / v.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    one = first.codes(images + v, 300, one)
    return model.scores(solved(model, one, torch.zeros(len(one), len(model.atoms)), 400, G)).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=32, help="atoms of the first layer")
    parser.add_argument("--first-lam", type=float, default=0.02)
    parser.add_argument("--first-ridge", type=float, default=0.25)
    parser.add_argument("--atoms", type=int, default=400)
    parser.add_argument("--lam", type=float, default=0.5)
    parser.add_argument("--ridge", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--digits", type=int, default=10_000, help="of the test set")
    parser.add_argument("--attacked", type=int, default=1000, help="digits that are attacked, the first ones")
    parser.add_argument(
        "--library", type=int, default=50, help="digits of which stable_codes says what is promised too"
    )
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    train, test = digits(Path(os.environ.get("TRIPTYCH_DATA", "")) / "mnist")
    if args.smoke:
        args.first, args.atoms, args.epochs, args.digits, args.attacked, args.library = 8, 40, 1, 40, 40, 4
        train = train[0][:2000], train[1][:2000]
    images, labels = test[0][: args.digits], test[1][: args.digits]
    from triptych.sparse.deep import coding_lipschitz

    start = time.process_time()
    first = First(train[0], args.first, args.first_lam, args.first_ridge)
    gain = coding_lipschitz(first.matrix.T, first.ridge)
    codes, seen = first.codes(images, 300), first.codes(train[0])
    rho = first.off(images, codes)
    print(
        f"first layer: {seen.shape[1]} coefficients, {float((codes > 0).sum(1).float().mean()):.0f} not 0, Lipschitz {gain:.3f}; ",
        end="",
    )
    print(
        f"‖code‖ / ‖image‖ {float((codes.norm(dim=1) / images.norm(dim=1)).mean()):.3f}; codes exact to {float(rho.max()):.1e}"
    )
    scale = float(
        images.norm(dim=1).mean() / codes.norm(dim=1).mean()
    )  # so that the second layer's settings serve as for pixels
    model = trained(scale * seen, train[1], args.atoms, args.lam, args.ridge, args.epochs)
    print(f"trained in {time.process_time() - start:.0f} CPU s")
    ours = certified(model, scale * codes, labels)
    radius = ((ours["radius"] / scale - rho) / gain).clamp_min(0)
    print(f"two layers: {shares(ours['right'], radius)}")
    print(f"second layer: {float(ours['nonzeros'].float().mean()):.1f} non-zeros; ", end="")
    print(
        f"the published bound can say something of {float((ours['right'] & ours['babel']).float().mean()):.4f} of the digits"
    )
    for C in (1.0, 1e-2, 1e-3):
        print(f"pixels, C = {C:g}: {shares(*pixels(train, (images, labels), C))}")
    library(first, model, scale, images[: args.library], radius[: args.library])
    wide = Model(model.atoms, model.lam, model.ridge, model.weights, model.bias)
    x, y = images[: args.attacked], ours["label"][: args.attacked]
    scaled = _Scaled(first, scale)
    sure = radius[: args.attacked] > 0
    broken = attacked(scaled, wide, x[sure], y[sure], 0.999 * radius[: args.attacked][sure]) != y[sure]
    print(
        f"50 steps of descent at each digit's own radius: {int(broken.sum())} of {int(sure.sum())} certificates broken"
    )
    for e in EPSILONS:
        moved = attacked(scaled, wide, x, labels[: args.attacked], torch.full((len(x),), e))
        held = (radius[: args.attacked] >= e) & ours["right"][: args.attacked]
        changed = int(((moved != y) & held).sum())
        right = float((moved == labels[: args.attacked]).float().mean())
        print(f"at {e:g}: {right:.4f} right after the attack; certified digits changed: {changed} of {int(held.sum())}")


def library(first: First, model: Model, scale: float, images: Tensor, radius: Tensor) -> None:
    """The same by `stable_codes`: its radii beside those at hand, and the radii of supports. Codes that are not scaled: λ / scale."""
    from triptych.sparse import ConvDictionary
    from triptych.sparse.deep import MultiLayerDictionary, stable_codes

    D = first.dictionary
    places = D.code_shape((28, 28))
    second = ConvDictionary(model.atoms.double().reshape(-1, D.n_atoms, *places))
    layers = MultiLayerDictionary((D, second))
    start = time.process_time()
    found = stable_codes(
        layers, images.double().reshape(-1, 1, 28, 28), (first.lam, model.lam / scale), (first.ridge, model.ridge)
    )
    sure, same = found.certify(scale * model.weights, model.bias), found.support_radius().median(0).values.tolist()
    print(
        f"stable_codes, {len(images)} digits, {time.process_time() - start:.0f} CPU s: median radius {float(sure.radius.median()):.3f} "
        f"({float(radius.median()):.3f} above), of the same support {same[0]:.1e} and {same[1]:.1e}"
    )
    (out, _), (deep, kept) = found.support(0.1)
    shares = [float(m.double().mean()) for m in (out, deep)] + [float(kept.sum() / (found.codes[1] != 0).sum())]
    print(
        "at .1: {:.1%} and {:.1%} of all coefficients stay 0, {:.1%} of the deepest atoms in use stay in".format(
            *shares
        )
    )


class _Scaled(First):
    """The first layer with its codes times a number."""

    def __init__(self, first: First, scale: float) -> None:
        self.__dict__ |= first.__dict__
        self.scale = scale

    def codes(self, images: Tensor, steps: int = 120, start: Tensor | None = None) -> Tensor:
        """(n, coefficients)."""
        return self.scale * super().codes(images, steps, None if start is None else start / self.scale)


if __name__ == "__main__":
    main()
