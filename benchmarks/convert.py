"""Trained networks read as multi-layer models: equality of the forward pass in float32, the report, and what the penalty costs.

Four networks are trained on 10,000 digits of MNIST for some epochs: a plain one (32 and 64 filters of 5 x 5, stride 2), the network of
pytorch/examples' MNIST example, one with BatchNorm and strides, and the plain one with `model_penalty` at some weights, whose atoms
become unit and whose biases become thresholds.

    python benchmarks/convert.py [--epochs 4] [--weights .01 .1]

TRIPTYCH_DATA names the folder that holds mnist.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Example(nn.Module):
    """The layers of the MNIST example of pytorch/examples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (b, 10)."""
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.dropout1(torch.flatten(F.max_pool2d(x, 2), 1))
        return self.fc2(self.dropout2(F.relu(self.fc1(x))))


def plain() -> nn.Module:
    """Two strided convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )


def batchnormed() -> nn.Module:
    """Three convolutions with BatchNorm, strides and padding."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3136, 10),
    )


def trained(net: nn.Module, x: Tensor, y: Tensor, epochs: int, weight: float) -> nn.Module:
    """Adam, minibatches of 128, the penalty with a weight."""
    from triptych.sparse.deep import model_penalty

    rng, optimiser = torch.Generator().manual_seed(0), torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * (len(x) // 128 + 1))
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=rng).split(128):
            loss = F.cross_entropy(net(x[part]), y[part])
            if weight:
                loss = loss + weight * model_penalty(net)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def activations(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What torch's own ReLUs behind convolutions give, by hooks on the modules that come before."""
    if isinstance(net, Example):
        one = F.relu(net.conv1(x))
        return [one, F.relu(net.conv2(one))]
    found = []
    for layer in net:  # pyright: ignore[reportGeneralTypeIssues]
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            found.append(x)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.01, 0.1], help="of the penalty")
    args = parser.parse_args()

    from triptych import load
    from triptych.sparse.deep import from_torch

    folder = Path(os.environ["TRIPTYCH_DATA"]) / "mnist"
    train, test = load(folder, split="train"), load(folder, split="test")
    x, y = train.floats()[:10_000], train.labels[:10_000].long()  # pyright: ignore[reportOptionalSubscript]
    x_test, y_test = test.floats(), test.labels.long()  # pyright: ignore[reportOptionalMemberAccess]
    makers = [("plain", plain, 0.0), ("example", Example, 0.0), ("BatchNorm", batchnormed, 0.0)]
    makers += [(f"plain, penalty times {weight:g}", plain, weight) for weight in args.weights]
    for name, make, weight in makers:
        torch.manual_seed(0)
        start = time.process_time()
        net = trained(make(), x, y, args.epochs, weight)
        with torch.no_grad():
            wrong = sum(int((net(a).argmax(1) != b).sum()) for a, b in zip(x_test.split(1000), y_test.split(1000)))
            own = activations(net, x_test[:200])
        found = from_torch(net)
        off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found.forward(x_test[:200]), own))
        print(f"\n{name}: error {wrong / 100:.2f} %, {time.process_time() - start:.0f} CPU s; ", end="")
        print(f"{len(found.model)} layers, {found.ended}; forward pass equal to {off:.1e}")
        for scaled in (False, True):
            reports = (found.rescale() if scaled else found).report(x_test[:32], 300)
            for i, one in enumerate(reports, 1):
                bound = "none" if one.lower_bound == -float("inf") else f"{one.lower_bound:.4g}"
                print(
                    f"  {'rescaled, ' if scaled else ''}layer {i}: norm² {one.lipschitz:.2f}, coherence {one.coherence:.3f}, stripe "
                    f"{one.stripe} (theory below {one.bound:.2f}), biases above 0: {100 * one.positive:.0f} %, objective 0: "
                    f"{one.at_zero:.4g}, forward: {one.forward:.4g}, pursuit: {one.best:.4g}, bound: {bound}"
                )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
