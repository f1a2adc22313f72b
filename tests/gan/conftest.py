"""The architectures that laws of networks and penalties are tested on."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from triptych.gan.networks.bottleneck import Bottleneck
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.deep import Deep
from triptych.gan.networks.mlp import MLP
from triptych.gan.networks.resnet import ResNet
from triptych.gan.networks.target import Architecture, Target

LATENT = 6


@dataclass(frozen=True)
class Case:
    """An architecture for a target; ``own`` says that its critic has a pass of its own for the gradient by its input."""

    name: str
    architecture: Architecture
    target: Target
    own: bool = False

    def networks(self, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
        """A generator and a critic with weights large enough for kinks to matter, biases too."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            pair = self.architecture.generator(self.target, LATENT), self.architecture.critic(self.target)
            with torch.no_grad():
                for parameter in (p for network in pair for p in network.parameters()):
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return pair[0].to(dtype), pair[1].to(dtype)

    def images(self, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        """Random images (n, *shape)."""
        return torch.randn(n, *self.target.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))

    def labels(self, n: int) -> Tensor | None:
        """Labels that repeat, or None."""
        return torch.arange(n) * 2 % self.target.classes if self.target.classes else None


def _told(labels: str, shape: tuple[int, ...] = (2, 8, 12)) -> Target:
    return Target(shape, 3, "tanh", labels)


PLAIN, POINTS = Target((3, 8, 8)), Target((2,), output="linear")
SMALL = {"generator_widths": (12, 12), "critic_widths": (12, 10)}
CASES = [
    Case("mlp", MLP(**SMALL), POINTS, own=True),
    Case(
        "mlp-leaky-dropout", MLP(**SMALL, critic_activation="leaky", dropout_input=0.2, dropout_hidden=0.5), PLAIN, True
    ),
    Case("mlp-tanh", MLP(**SMALL, activation="tanh", critic_activation="tanh"), POINTS),
    Case("mlp-maxout", MLP(**SMALL, activation="maxout", critic_activation="maxout", pieces=3), _told("concatenate")),
    Case("mlp-batch-told", MLP(**SMALL, norm="batch"), Target((4,), 3, "linear"), own=True),
    Case("mlp-project", MLP(**SMALL, critic_activation="leaky"), Target((4,), 3, "linear", "project"), own=True),
    Case("dcgan", DCGAN(4), PLAIN, own=True),
    Case("dcgan-4", DCGAN(4, kernel=4, bias=False), Target((1, 8, 16), output="sigmoid"), own=True),
    Case("dcgan-odd", DCGAN(4, doublings=2), Target((1, 7, 9)), own=True),
    Case("dcgan-wide", DCGAN(4, doublings=1, norm="layer"), Target((10, 6, 4)), own=True),
    Case("dcgan-told", DCGAN(4), _told("concatenate"), own=True),
    Case("dcgan-told-dense", DCGAN(4, dense=7), _told("concatenate"), own=True),
    Case("dcgan-project", DCGAN(4), _told("project"), own=True),
    Case("dcgan-auxiliary", DCGAN(4, kernel=4), _told("auxiliary"), own=True),
    Case("dcgan-layer", DCGAN(4, critic_norm="layer"), Target((3, 16, 8), output="tanh"), own=False),
    Case("dcgan-layer-dense", DCGAN(4, critic_norm="layer", dense=5), _told("concatenate")),
    Case("dcgan-none-constant", DCGAN(4, norm="none", constant=True, init="he"), Target((3, 16, 16)), own=True),
    Case("dcgan-gated", DCGAN(4, activation="gated", critic_norm="layer"), Target((3, 16, 16))),
    Case("dcgan-tanh", DCGAN(4, activation="tanh", critic_norm="layer", dense=5), PLAIN),
    Case("resnet", ResNet(4), Target((3, 32, 16)), own=True),
    Case("resnet-told", ResNet(4), _told("concatenate"), own=True),
    Case("resnet-project", ResNet(4), _told("project"), own=True),
    Case("resnet-auxiliary", ResNet(4), _told("auxiliary"), own=True),
    Case("deep", Deep(4, 5, "layer"), PLAIN),
    Case("deep-softplus", Deep(4, 8, "layer", "softplus"), Target((3, 16, 8))),
    Case("deep-leaky-told", Deep(4, 7, "none", "leaky"), _told("concatenate")),
    Case("deep-tanh-project", Deep(4, 4, "none", "tanh"), _told("project")),
    Case("bottleneck", Bottleneck(8, 1, 1), PLAIN),
    Case("bottleneck-none", Bottleneck(4, 1, 0, norm="none", critic_norm="none"), _told("concatenate")),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Each architecture in turn."""
    return request.param


@pytest.fixture(params=[case for case in CASES if case.target.classes], ids=lambda case: case.name)
def told(request: pytest.FixtureRequest) -> Case:
    """Each architecture with labels."""
    return request.param
