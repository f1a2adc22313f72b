"""Perceptrons: Goodfellow's pair for MNIST, and the small ones that toy laws are learnt with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from triptych.check import choice, real, whole, wrong
from triptych.gan.draw import Draw
from triptych.gan.game import Scores
from triptych.gan.networks.layers import (
    INITS,
    Dropout,
    Head,
    LeakyReLU,
    activation,
    concatenated,
    finish,
    initialise,
    norm,
    spread,
)
from triptych.gan.networks.target import Target

ACTIVATIONS = ("relu", "leaky", "tanh", "maxout")


@dataclass(frozen=True)
class MLP:
    """Fully connected networks for images or points.

    Widths count what an activation gives: ``pieces`` times as many units for 'maxout'. ``norm`` is the generator's,
    'batch' or 'none'. Dropout is the critic's, of its input and of its hidden layers. ``scale``: half the width of a
    'uniform' start, the deviation of a 'normal' one; 'he' needs none. Labels join z and the critic's input.
    """

    generator_widths: tuple[int, ...] = (512, 512, 512)
    critic_widths: tuple[int, ...] = (512, 512, 512)
    activation: str = "relu"
    critic_activation: str = "relu"
    pieces: int = 5
    norm: str = "none"
    dropout_input: float = 0.0
    dropout_hidden: float = 0.0
    init: str = "he"
    generator_scale: float = 0.05
    critic_scale: float = 0.05

    def __post_init__(self) -> None:
        for name in ("generator_widths", "critic_widths"):
            object.__setattr__(self, name, tuple(whole(name, width) for width in getattr(self, name)))
        for name in ("activation", "critic_activation"):
            choice(name, getattr(self, name), ACTIVATIONS)
        whole("pieces", self.pieces)
        choice("norm", self.norm, ("none", "batch"))
        choice("init", self.init, INITS)
        for name in ("dropout_input", "dropout_hidden"):
            real(name, getattr(self, name), low=0, high=0.99)
        for name in ("generator_scale", "critic_scale"):
            real(name, getattr(self, name), above=0)

    def generator(self, target: Target, latent: int) -> nn.Module:
        """Build the network from z (n, latent) to images."""
        network = MLPGenerator(self, target, whole("latent", latent))
        _start(network, self.init, self.generator_scale)
        return network

    def critic(self, target: Target) -> nn.Module:
        """Build the network from images to scores."""
        network = MLPCritic(self, target)
        _start(network, self.init, self.critic_scale)
        return network


class MLPGenerator(nn.Module):
    """z (n, latent) and labels (n,) -> images ``(n, *shape)``."""

    takes_draw = True

    def __init__(self, settings: MLP, target: Target, latent: int) -> None:
        super().__init__()
        self.target = target
        layers: list[nn.Module] = []
        width = latent + target.classes
        for out in settings.generator_widths:
            act, pieces = activation(settings.activation, settings.pieces)
            layers += [nn.Linear(width, out * pieces), norm(settings.norm, out * pieces, points=True), act]
            width = out
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(width, math.prod(target.shape))

    def forward(self, z: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Tensor:
        """Images; ``draw`` is not used."""
        del draw
        x = self.last(self.hidden(concatenated(z, labels, self.target.classes)))
        return finish(x, self.target.output).view(-1, *self.target.shape)


class MLPCritic(nn.Module):
    """Images ``(n, *shape)`` and labels (n,) -> ``Scores``."""

    takes_draw = True

    def __init__(self, settings: MLP, target: Target) -> None:
        super().__init__()
        self.target, self.dimensions = target, math.prod(target.shape)
        self.told = target.classes if target.labels == "concatenate" else 0
        self.dropout = Dropout(settings.dropout_input, "input")
        self.layers, self.activations, self.dropouts = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = self.dimensions + self.told
        for k, out in enumerate(settings.critic_widths):
            act, pieces = activation(settings.critic_activation, settings.pieces)
            self.layers.append(nn.Linear(width, out * pieces))
            self.activations.append(act)
            self.dropouts.append(Dropout(settings.dropout_hidden, f"hidden {k}"))
            width = out
        self.head = Head(width, target)

    def forward(self, images: Tensor, labels: Tensor | None = None, draw: Draw | None = None) -> Scores:
        """Scores; the draw has the numbers of dropout."""
        return self.head(self._hidden(images, labels, draw)[-1], labels)

    def input_gradient(self, images: Tensor, labels: Tensor | None, draw: Draw | None) -> Tensor | None:
        """The value's gradient by the images, where all activations are (leaky) ReLUs; None for others.

        u <- Wᵀ (mask · u), from the last layer to the first, with the masks of a forward pass.
        """
        layers = cast("list[nn.Linear]", list(self.layers))
        acts = [act for act in self.activations if isinstance(act, LeakyReLU)]
        if len(acts) < len(layers):
            return None
        hidden = [h.detach() for h in self._hidden(images, labels, draw)]
        u = self.head.adjoint(hidden[-1], labels)
        for k in reversed(range(len(layers))):
            # what dropout left has the sign that it was given; where it left 0, u is 0 as well
            u = acts[k].adjoint(self.dropouts[k](u, draw), hidden[k + 1])
            u = nn.functional.linear(u, layers[k].weight.T)
        return self.dropout(u[:, : self.dimensions], draw).view_as(images)

    def _hidden(self, images: Tensor, labels: Tensor | None, draw: Draw | None) -> list[Tensor]:
        """The input and what each layer gives."""
        x = [concatenated(self.dropout(images.flatten(1), draw), labels, self.told)]
        for layer, act, dropout in zip(self.layers, self.activations, self.dropouts):
            x.append(dropout(act(layer(x[-1])), draw))
        return x


def start_at_means(generator: nn.Module, means: Sequence[float] | Tensor) -> None:
    """Set the last bias of a generator with sigmoid output so that zero weights give the means of the pixels (d,), in (0, 1).

    b = log m / (1 - m), m kept off 0 and 1 by 1e-3; Goodfellow et al., NeurIPS 2014, in the code. Raises InputError.
    """
    if not isinstance(generator, MLPGenerator) or generator.target.output != "sigmoid":
        raise wrong("generator", "a perceptron with sigmoid output", type(generator).__name__)
    m = torch.as_tensor(means).flatten().to(generator.last.bias)
    if m.shape != generator.last.bias.shape:
        raise wrong("means", f"{len(generator.last.bias)} numbers, one a pixel", tuple(m.shape))
    with torch.no_grad():
        generator.last.bias.copy_(m.clamp(1e-3, 1 - 1e-3).logit())


@torch.no_grad()
def _start(network: MLPGenerator | MLPCritic, init: str, scale: float) -> None:
    """Draw the weights; 'he' knows which layers a ReLU follows."""
    initialise(network, init, scale)
    if init == "he":
        for layer in network.hidden if isinstance(network, MLPGenerator) else network.layers:
            if isinstance(layer, nn.Linear):
                half_width = math.sqrt(3) * spread(layer, hidden=True)
                layer.weight.uniform_(-half_width, half_width)
