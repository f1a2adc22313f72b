"""Each paper's own settings: what a run is unless a file or a flag says otherwise.

A number in a recipe is the paper's or its code's; the docstring says whose, and after 'Differs:' what is not. ``width``
is the number of filters of the critic's first layer (of hidden units for ``goodfellow``), None for the paper's own;
``images``, how many there are to train on, turns the papers' epochs into steps. All recipes keep a running average of
the generator beside it, which none of the papers has.
"""

import math
from dataclasses import replace
from typing import Protocol

from triptych.check import choice, whole
from triptych.gan.draw import Latent
from triptych.gan.game import Objective
from triptych.gan.networks.bottleneck import Bottleneck
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.resnet import ResNet
from triptych.gan.networks.target import Architecture
from triptych.gan.objectives import Auxiliary, LeastSquares, NonSaturating, Wasserstein, WassersteinGP
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipe import Recipe
from triptych.gan.train import Rules

Shape = tuple[int, ...]
NORMAL_128 = Latent(128)
GULRAJANI = "Gulrajani et al., NeurIPS 2017"
TF_RMSPROP = Optimiser("rmsprop", lr=5e-5, alpha=0.9, eps=1e-5)  # TensorFlow's defaults: 0.9, and 1e-10 within the root


class Preset(Protocol):
    """What a recipe is made by."""

    def __call__(self, shape: Shape, classes: int = 0, width: int | None = None, images: int = 50_000) -> Recipe:
        """The recipe for images (c, h, w) of so many classes, 0 where labels are not used. Raises InputError."""
        ...


def goodfellow(shape: Shape, classes: int = 0, width: int | None = None, images: int = 50_000) -> Recipe:
    """Goodfellow's perceptrons: non-saturating, both players at once, maxout and dropout in the critic.

    Goodfellow et al., NeurIPS 2014, by its code's mnist.yaml, where the paper's Algorithm 1 lets the generator see the
    critic's new weights (``objective.simultaneous`` false). 250 epochs, over which the momentum rises.
    Differs: the rate multiplies the velocity as a whole, where the code's velocity contains the rates of its steps (which
    differ by 4e-6 from one to the next); the momentum rises with every image rather than every epoch; output biases start
    at 0 (``start_at_means`` sets them to the pixels' means).
    """
    units, images = _width(width, 1200), whole("images", images)
    optimiser = Optimiser(
        "sgd", lr=0.1, momentum=0.5, momentum_end=0.7, momentum_from=images, momentum_until=250 * images,
        fall="exponential", factor=1.000004, floor=1e-6,
    )  # fmt: skip
    nets = MLP(
        generator_widths=(units, units), critic_widths=(max(1, units // 5),) * 2, critic_activation="maxout", pieces=5,
        dropout_input=0.2, dropout_hidden=0.5, init="uniform", generator_scale=0.05, critic_scale=0.005,
    )  # fmt: skip
    return Recipe(
        "goodfellow", "Goodfellow et al., NeurIPS 2014, mnist.yaml",
        NonSaturating(simultaneous=True, halved=True), nets, nets, shape, classes, scale="unit", batch=100,
        rules=Rules(
            Latent(100, "uniform", math.sqrt(3)), optimiser, optimiser, _epochs(250, images, 100), reuse_noise=True
        ),
    )  # fmt: skip


def dcgan(shape: Shape, classes: int = 0, width: int | None = None, images: int = 50_000) -> Recipe:
    """DCGAN: strided convolutions with BatchNorm, non-saturating loss, Adam with beta1 0.5.

    Radford et al., ICLR 2016, by its code: faces/train_uncond_dcgan.py, and where the smaller side is below 32
    mnist/train_cond_dcgan.py. Each player's step has noise of its own; ``rules.reuse_noise`` takes the critic's, as
    dcgan.torch does.
    Differs: BatchNorm of the small ones has gains and biases, and that of a linear layer to a grid is by channel; its epsilon
    is 1e-5, the code's 1e-8.
    """
    small = min(shape[1:], default=0) < 32
    width = _width(width, 64 if small else 128)
    nets = DCGAN(width, critic_norm="batch", bias=False, dense=16 * width if small else 0)
    adam = Optimiser(
        "adam", 2e-4, beta1=0.5, weight_decay=2.5e-5 if small else 1e-5, fall="late" if small else "constant"
    )
    script, epochs = ("mnist/train_cond_dcgan.py", 200) if small else ("faces/train_uncond_dcgan.py", 25)
    return Recipe(
        "dcgan", f"Radford et al., ICLR 2016, {script}",
        NonSaturating(), nets, nets, shape, classes, scale="unit" if small else "signed", batch=128,
        rules=Rules(Latent(100, "uniform"), adam, adam, _epochs(epochs, images, 2 * 128)),  # a batch a player
    )  # fmt: skip


def lsgan(shape: Shape, classes: int = 0, width: int | None = None, images: int = 50_000) -> Recipe:
    """Least squares: DCGAN's networks, targets 1 and 0, RMSProp.

    Mao et al., ICCV 2017, with the numbers of gan_64x64.py of Gulrajani et al., NeurIPS 2017, where MODE is 'lsgan'.
    Differs: as ``figure2``.
    """
    del images  # its length is in steps
    return replace(figure2(1, "lsgan", shape, classes, width), name="lsgan")


def wgan(shape: Shape, classes: int = 0, width: int | None = None, images: int = 50_000) -> Recipe:
    """Wasserstein with clipped weights: DCGAN's networks, five critic steps, at times a hundred, RMSProp.

    Arjovsky et al., ICML 2017, by its code's main.py: 100 critic steps before generator steps 0 to 24 and every 500th,
    weights clipped before a critic step, where the paper's Algorithm 1 has 5 throughout (``objective.long_until`` and
    ``long_every`` 0) and clips after it (``clip_when``). 25 epochs, at 5 critic steps.
    """
    nets = DCGAN(_width(width, 64), kernel=4, critic_norm="batch", bias=False)
    rmsprop = Optimiser("rmsprop", 5e-5, alpha=0.99)
    return Recipe(
        "wgan", "Arjovsky et al., ICML 2017, main.py",
        Wasserstein(clip=0.01, steps=5, long_steps=100, long_until=25, long_every=500, clip_when="before"),
        nets, nets, shape, classes, batch=64,
        rules=Rules(Latent(100), rmsprop, rmsprop, _epochs(25, images, 5 * 64)),
    )  # fmt: skip


def wgan_gp(shape: Shape, classes: int = 0, width: int | None = None, images: int = 50_000) -> Recipe:
    """Wasserstein with gradient penalty: DCGAN's networks, five critic steps, Adam.

    Gulrajani et al., NeurIPS 2017, by its code: gan_mnist.py where the smaller side is below 32, gan_cifar.py (whose
    comment prefers a width of 64 to its 128) below 64, else gan_64x64.py with row 1 of Figure 2. Algorithm 1 of the
    paper has beta1 0, as gan_64x64.py; the other two have 0.5.
    Differs: BatchNorm of a linear layer to a grid is by channel; paddings are the mirror image of the code's.
    """
    del images  # its length is in steps
    side = min(shape[1:], default=0)
    if side >= 64:
        return replace(figure2(1, "wgan-gp", shape, classes, width), name="wgan-gp")
    if side >= 32:
        nets, script, batch = DCGAN(_width(width, 128), init="he"), "gan_cifar.py", 64
    else:  # 28 pixels are halved three times, to 4
        nets = DCGAN(_width(width, 64), norm="none", init="he", doublings=3 if side > 24 else None)
        script, batch = "gan_mnist.py", 50
    adam = Optimiser("adam", 1e-4, beta1=0.5, beta2=0.9)
    return Recipe(
        "wgan-gp", f"{GULRAJANI}, {script}", WassersteinGP(weight=10.0, steps=5), nets, nets, shape, classes,
        scale="signed" if side >= 32 else "unit", batch=batch, rules=Rules(NORMAL_128, adam, adam, 200_000),
    )  # fmt: skip


def wgan_gp_resnet(shape: Shape, classes: int = 0, width: int | None = None, images: int = 50_000) -> Recipe:
    """Wasserstein with gradient penalty: residual networks, and a classifier where there are labels.

    Gulrajani et al., NeurIPS 2017, by its code's gan_cifar_resnet.py.
    Differs: labels of generated images are those of the batch's real ones, where the code draws new ones for the
    generator.
    """
    del images  # its length is in steps
    nets = ResNet(_width(width, 128))
    adam = Optimiser("adam", 2e-4, beta1=0.0, beta2=0.9, fall="linear")
    game: Objective = WassersteinGP(weight=10.0, steps=5)
    return Recipe(
        "wgan-gp-resnet", f"{GULRAJANI}, gan_cifar_resnet.py",
        Auxiliary(game, critic_weight=1.0, generator_weight=0.1) if classes else game,
        nets, nets, shape, classes, labels="auxiliary", scale="dequantised", batch=64,
        rules=Rules(NORMAL_128, adam, adam, 100_000, generator_factor=2),
    )  # fmt: skip


RECIPES: dict[str, Preset] = {
    "goodfellow": goodfellow,
    "dcgan": dcgan,
    "lsgan": lsgan,
    "wgan": wgan,
    "wgan-gp": wgan_gp,
    "wgan-gp-resnet": wgan_gp_resnet,
}
METHODS: dict[str, tuple[Objective, Optimiser]] = {
    "wgan-gp": (WassersteinGP(weight=10.0, steps=5), Optimiser("adam", 1e-4, beta1=0.0, beta2=0.9)),
    "wgan": (Wasserstein(clip=0.01, steps=5, long_until=0, long_every=0, clip_when="after"), TF_RMSPROP),
    "dcgan": (NonSaturating(halved=True), Optimiser("adam", 2e-4, beta1=0.5)),
    "lsgan": (LeastSquares(halved=True), replace(TF_RMSPROP, lr=1e-4)),
}
ROWS = {
    1: "baseline DCGANs",
    2: "generator without BatchNorm, of constant width",
    3: "generator a perceptron of four layers",
    4: "no normalisation in either",
    5: "gated in both",
    6: "tanh in both",
    7: "101-layer residual networks",
}


def figure2(row: int, method: str, shape: Shape = (3, 64, 64), classes: int = 0, width: int | None = None) -> Recipe:
    """A pair of Figure 2's seven rows under 'wgan-gp', 'wgan', 'dcgan' or 'lsgan'.

    Gulrajani et al., NeurIPS 2017, by its code's gan_64x64.py; its Appendix E says beta1 0.5 for WGAN-GP, the code 0.
    Under WGAN-GP the critic's BatchNorm is replaced by LayerNorm. ``width`` is 64 by default; the perceptron has 8
    times as much.
    Differs: RMSProp starts from a mean square of 0, where TensorFlow's starts from 1, and adds 1e-5 to the root rather
    than 1e-10 within it; paddings are the mirror image of the code's; BatchNorm of a linear layer to a grid is by
    channel.
    """
    whole("row", row, high=len(ROWS))
    objective, optimiser = METHODS[choice("method", method, METHODS)]
    generator, critic = _pair(row, _width(width, 64), "layer" if method == "wgan-gp" else "batch")
    return Recipe(
        f"figure2-{row}-{method}", f"{GULRAJANI}, gan_64x64.py, Figure 2 row {row}: {ROWS[row]}", objective,
        generator, critic, shape, classes, batch=64, rules=Rules(NORMAL_128, optimiser, optimiser, 200_000),
    )  # fmt: skip


def _pair(row: int, width: int, critic_norm: str) -> tuple[Architecture, Architecture]:
    """Generator and critic of a row of Figure 2."""
    if row == 7:
        return (nets := Bottleneck(width, critic_norm=critic_norm)), nets
    baseline = DCGAN(width, critic_norm=critic_norm, init="uniform", scale=0.02 * math.sqrt(3))
    if row == 2:
        return DCGAN(width, norm="none", constant=True, init="he"), baseline
    if row == 3:
        return MLP(generator_widths=(8 * width,) * 4), baseline
    both = {
        1: baseline,
        4: replace(baseline, norm="none", critic_norm="none"),
        5: replace(baseline, activation="gated", init="he"),
        6: replace(baseline, activation="tanh"),
    }
    return both[row], both[row]


def _width(width: int | None, published: int) -> int:
    return published if width is None else whole("width", width)


def _epochs(epochs: int, images: int, images_a_step: int) -> int:
    """Generator steps in so many passes over the images, at least one."""
    return max(1, epochs * whole("images", images) // images_a_step)
