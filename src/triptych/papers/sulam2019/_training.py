"""Networks trained on labels: the loop that both tables of the paper share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EVALUATED = 500  # images at a time
RISING = 100  # steps until the rate is reached, a tenth of all at most
EAGER = 3  # steps on a GPU before one is captured as a graph


@dataclass(frozen=True)
class Effort:
    """Visits to every image, images a minibatch, Adam's rate (it rises over the first steps, and falls to 0 by a cosine), pixels that
    crops move by. Gradients longer than ``clip`` are shortened to it.
    """

    epochs: int
    batch: int
    rate: float
    shift: int = 0
    clip: float = 1.0


def train(net: nn.Module, images: Tensor, labels: Tensor, effort: Effort, seed: int, device: str) -> list[float]:
    """Train on float images ``(n, c, h, w)``; the mean loss of every visit.

    Products in bfloat16 on the CPU, where that is no loss of speed; on a GPU in the library's TF32, and whole minibatches as one
    CUDA graph, as launching hundreds of small kernels takes longer than they do.
    """
    rng, place = torch.Generator().manual_seed(seed), torch.device(device)
    images, labels = images.to(place), labels.to(place)
    step = _Step(net, effort, place)
    per, losses = math.ceil(len(images) / effort.batch), []
    warm = max(1, min(RISING, effort.epochs * per // 10))
    for epoch in range(effort.epochs):
        total = torch.zeros((), dtype=torch.float64, device=place)
        order = torch.randperm(len(images), generator=rng).to(place)
        corners = torch.zeros(len(images), 2)
        if effort.shift:
            corners = torch.randint(2 * effort.shift + 1, corners.shape, generator=rng).to(place)
        for i, (part, corner) in enumerate(zip(order.split(effort.batch), corners.split(effort.batch))):
            done = (epoch * per + i) / (effort.epochs * per)
            rising = min(1.0, (epoch * per + i + 1) / warm)
            x = _cropped(images[part], corner, effort.shift) if effort.shift else images[part]
            loss = step(x, labels[part], effort.rate * rising * 0.5 * (1 + math.cos(math.pi * done)))
            total += loss.double() * len(part)
        losses.append(float(total) / len(images))
    return losses


class _Step:
    """A step of Adam on one minibatch at a rate: (x, y, rate) -> loss. On a GPU a graph for minibatches of the first one's size."""

    def __init__(self, net: nn.Module, effort: Effort, place: torch.device) -> None:
        self.net, self.effort, self.place = net, effort, place
        gpu = place.type == "cuda"
        rate = torch.tensor(effort.rate, device=place) if gpu else effort.rate
        self.optimiser = torch.optim.Adam(net.parameters(), rate, capturable=gpu)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.given: tuple[Tensor, Tensor] | None = None
        self.loss = torch.zeros((), device=place)
        self.done = 0

    def __call__(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        kept = self.optimiser.param_groups[0]["lr"]
        if isinstance(kept, Tensor):
            kept.fill_(rate)
        else:
            self.optimiser.param_groups[0]["lr"] = rate
        if self.place.type != "cuda":
            return self._eager(x, y)
        if self.given is None:
            self.given = x.clone(), y.clone()
        if len(x) != len(self.given[0]):  # the last minibatch of a visit
            return self._eager(x, y)
        self.given[0].copy_(x)
        self.given[1].copy_(y)
        if self.done < EAGER:
            self.done += 1
            return _aside(lambda: self._eager(*self.given))  # pyright: ignore[reportOptionalIterable]
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.loss = self._eager(*self.given)
        self.graph.replay()
        return self.loss

    def _eager(self, x: Tensor, y: Tensor) -> Tensor:
        """The step itself. Gradients stay where they are, as a graph needs them."""
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.place.type == "cpu"):
            scores = self.net(x)
        loss = F.cross_entropy(scores.float(), y)
        self.optimiser.zero_grad(set_to_none=self.place.type == "cpu")
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.effort.clip)
        self.optimiser.step()
        return loss.detach()


def _aside(work: Callable[[], Tensor]) -> Tensor:
    """Work on a stream of its own, as what will be captured must have run on one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = work()
    torch.cuda.current_stream().wait_stream(stream)
    return found


def error_percent(net: nn.Module, images: Tensor, labels: Tensor, device: str) -> float:
    """The share of images read wrong, in percent, in float32 (on a GPU the library's convolutions take TF32)."""
    net.eval()
    with torch.no_grad():
        wrong = sum(
            int((net(x.to(device)).argmax(1).cpu() != y).sum())
            for x, y in zip(images.split(EVALUATED), labels.split(EVALUATED))
        )
    return 100 * wrong / len(images)


def _cropped(x: Tensor, corners: Tensor, most: int) -> Tensor:
    """A crop of every image ``(b, c, h, w)`` with ``most`` zeros around it, at its own corner (b, 2) from 0 to 2 ``most``."""
    b, c, h, w = x.shape
    places = [torch.arange(n, device=x.device) for n in (b, c, h, w)]
    rows, columns = corners[:, :1] + places[2], corners[:, 1:] + places[3]
    which = places[0][:, None, None, None], places[1][None, :, None, None]
    return F.pad(x, (most,) * 4)[*which, rows[:, None, :, None], columns[:, None, None, :]]
