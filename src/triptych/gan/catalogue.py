"""The recipes by name, with what each is, for a list that answers without loading a network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A line of the catalogue: the recipe's name, what it does, where it is from."""

    name: str
    shows: str
    paper: str


CATALOGUE = (
    Entry(
        "goodfellow",
        "Perceptrons, a maxout critic with dropout, both players at once; logistic losses",
        "Goodfellow et al., Generative Adversarial Nets, NeurIPS 2014",
    ),
    Entry(
        "dcgan",
        "Strided convolutions with batch normalisation; the non-saturating loss",
        "Radford, Metz & Chintala, Unsupervised Representation Learning with DCGANs, ICLR 2016",
    ),
    Entry(
        "lsgan",
        "The same networks; squared errors",
        "Mao et al., Least Squares Generative Adversarial Networks, ICCV 2017",
    ),
    Entry(
        "wgan",
        "The same networks; the Wasserstein distance, weights clipped",
        "Arjovsky, Chintala & Bottou, Wasserstein GAN, ICML 2017",
    ),
    Entry(
        "wgan-gp",
        "Strided convolutions, no normalisation in the critic; the Wasserstein distance, a gradient penalty",
        "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017",
    ),
    Entry(
        "wgan-gp-resnet",
        "Residual networks; the Wasserstein distance, a gradient penalty; with labels an auxiliary classifier",
        "Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017",
    ),
)
NAMES = tuple(entry.name for entry in CATALOGUE)
