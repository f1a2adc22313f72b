"""Networks trained on labels: the loop that both tables of the paper share."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EVALUATED = 500  # images at a time
RISING = 100  # steps until the rate is reached, a tenth of all at most


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
    """Train on float images ``(n, c, h, w)``; the mean loss of every visit. Products in bfloat16 where that is no loss of speed."""
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), effort.rate)
    per, losses = math.ceil(len(images) / effort.batch), []
    warm = max(1, min(RISING, effort.epochs * per // 10))
    for epoch in range(effort.epochs):
        total = 0.0
        for i, part in enumerate(torch.randperm(len(images), generator=rng).split(effort.batch)):
            done = (epoch * per + i) / (effort.epochs * per)
            rising = min(1.0, (epoch * per + i + 1) / warm)
            optimiser.param_groups[0]["lr"] = effort.rate * rising * 0.5 * (1 + math.cos(math.pi * done))
            x = _shifted(images[part], effort.shift, rng) if effort.shift else images[part]
            with torch.autocast(device, torch.bfloat16):
                scores = net(x.to(device))
            loss = F.cross_entropy(scores.float(), labels[part].to(device))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), effort.clip)
            optimiser.step()
            total += float(loss.detach()) * len(part)
        losses.append(total / len(images))
    return losses


def error_percent(net: nn.Module, images: Tensor, labels: Tensor, device: str) -> float:
    """The share of images read wrong, in percent, in float32."""
    net.eval()
    with torch.no_grad():
        wrong = sum(
            int((net(x.to(device)).argmax(1).cpu() != y).sum())
            for x, y in zip(images.split(EVALUATED), labels.split(EVALUATED))
        )
    return 100 * wrong / len(images)


def _shifted(x: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """A crop of every image, zeros around it, up to ``most`` pixels off the middle; each image's own."""
    padded = F.pad(x, (most,) * 4)
    h, w = x.shape[2:]
    at = torch.randint(2 * most + 1, (len(x), 2), generator=rng).tolist()
    return torch.stack([image[:, top : top + h, left : left + w] for image, (top, left) in zip(padded, at)])
