"""What a pair of networks is built for, and what builds them."""

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from triptych.check import choice, whole, wrong

OUTPUTS = ("tanh", "sigmoid", "linear")
LABELS = ("concatenate", "project", "auxiliary")


@dataclass(frozen=True)
class Target:
    """The data: the shape of one image (c, h, w), or (d,) for points, the number of classes (0: none), the output's range.

    ``output``: 'tanh' for [-1, 1], 'sigmoid' for [0, 1], 'linear'. ``labels`` says how a critic is told them: its input
    'concatenate'd with them, a 'project'ion of its features on the class's vector, or an 'auxiliary' classifier beside
    its value; a generator is always given them.
    """

    shape: tuple[int, ...]
    classes: int = 0
    output: str = "tanh"
    labels: str = "concatenate"

    def __post_init__(self) -> None:
        if len(self.shape) not in (1, 3):
            raise wrong("shape", "(channels, height, width) or (dimensions,)", self.shape)
        for size in self.shape:
            whole("shape", size)
        whole("classes", self.classes, low=0)
        choice("output", self.output, OUTPUTS)
        choice("labels", self.labels, LABELS)


class Architecture(Protocol):
    """A family of networks with its numbers. Both raise InputError where the shape does not suit it.

    The networks have ``takes_draw = True``: ``generator(z, labels, draw)`` gives images ``(n, *shape)``, ``critic(images,
    labels, draw)`` gives ``Scores``; ``draw`` may be None, and dropout then does nothing.
    """

    def generator(self, target: Target, latent: int) -> nn.Module:
        """Build the network from z (n, latent) to images."""
        ...

    def critic(self, target: Target) -> nn.Module:
        """Build the network from images to scores."""
        ...
