"""Inception-v3 (Szegedy et al., CVPR 2016) as an extractor of features: the FID's network, and torchvision's.

Parameters have torchvision's names, so that its weights and those of pytorch-fid load as they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych import store
from triptych.check import InputError, choice, wrong
from triptych.metrics.features import Seen, as_pixels
from triptych.metrics.weights import fitting, read_state

FORMS = {"fid": 1008, "torchvision": 1000}  # the published networks and how many classes they tell apart
SCALES = ("symmetric", "imagenet")
SIDE = 299
BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue

Link = tuple[int, int, int]  # channels out, height and width of the kernel
Branches = Mapping[str, Sequence[Link | list[Link]]]  # a list: a fork into several, whose channels are joined
FORK: list[Link] = [(384, 1, 3), (384, 3, 1)]


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU; keeps the size unless ``stride`` or ``padding`` differs."""

    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], stride: int = 1, padding: bool = True):
        super().__init__()
        pad = (kernel[0] // 2, kernel[1] // 2) if padding and stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, (kernel[0], kernel[1]), stride, pad, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h', w')."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Branches side by side whose channels are joined; each is a chain of units, ``branch_pool`` one that pools first.

    A branch of one unit has the unit under its own name, others have ``name_1``, ``name_2``, ...; where a chain forks,
    ``name_2a`` and ``name_2b``. ``stride`` is that of the last units.
    """

    def __init__(self, inputs: int, branches: Branches, pool: Callable[[Tensor], Tensor], stride: int = 1):
        super().__init__()
        self.pool = pool
        self.chains: dict[str, list[tuple[str, ...]]] = {}
        for branch, links in branches.items():
            width, self.chains[branch] = inputs, []
            for place, link in enumerate(links, 1):
                name = branch if len(links) == 1 else f"{branch}_{place}"
                ends = {name: link} if isinstance(link, tuple) else {name + x: end for x, end in zip("ab", link)}
                for end, (outputs, *kernel) in ends.items():
                    self.add_module(end, Unit(width, outputs, kernel, stride if place == len(links) else 1))
                width = sum(outputs for outputs, _, _ in ends.values())
                self.chains[branch].append(tuple(ends))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, the sum of the branches' channels, h', w')."""
        joined = []
        for branch, chain in self.chains.items():
            y = self.pool(x) if branch == "branch_pool" else x
            for ends in chain:
                y = torch.cat([self.get_submodule(end)(y) for end in ends], 1)
            joined.append(y)
        return torch.cat(joined, 1)


def _fine(pooled: int) -> Branches:
    """Branches at 35 x 35."""
    return {
        "branch1x1": [(64, 1, 1)],
        "branch5x5": [(48, 1, 1), (64, 5, 5)],
        "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
        "branch_pool": [(pooled, 1, 1)],
    }


def _middle(c: int) -> Branches:
    """Branches at 17 x 17."""
    return {
        "branch1x1": [(192, 1, 1)],
        "branch7x7": [(c, 1, 1), (c, 1, 7), (192, 7, 1)],
        "branch7x7dbl": [(c, 1, 1), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)],
        "branch_pool": [(192, 1, 1)],
    }


COARSE: Branches = {  # at 8 x 8
    "branch1x1": [(320, 1, 1)],
    "branch3x3": [(384, 1, 1), FORK],
    "branch3x3dbl": [(448, 1, 1), (384, 3, 3), FORK],
    "branch_pool": [(192, 1, 1)],
}
TO_MIDDLE: Branches = {
    "branch3x3": [(384, 3, 3)],
    "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
    "branch_pool": [],
}
TO_COARSE: Branches = {
    "branch3x3": [(192, 1, 1), (320, 3, 3)],
    "branch7x7x3": [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)],
    "branch_pool": [],
}


class Inception(nn.Module):
    """Inception-v3 without its second classifier and without dropout: for evaluation.

    ``form``: in "torchvision", averages over 3 x 3 places count the zeros that pad the border; in "fid" (the TensorFlow
    network of Heusel et al., NeurIPS 2017, as in pytorch-fid) they do not, and the last block takes maxima instead.
    ``classes``: 1000 and 1008 by default.
    """

    def __init__(self, form: str = "fid", classes: int | None = None):
        super().__init__()
        choice("form", form, FORMS)
        average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=form == "torchvision")
        maxima = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
        halved = partial(F.max_pool2d, kernel_size=3, stride=2)
        self.Conv2d_1a_3x3 = Unit(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, (3, 3), padding=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = Unit(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = Unit(80, 192, (3, 3), padding=False)
        self.Mixed_5b = Mixed(192, _fine(32), average)
        self.Mixed_5c = Mixed(256, _fine(64), average)
        self.Mixed_5d = Mixed(288, _fine(64), average)
        self.Mixed_6a = Mixed(288, TO_MIDDLE, halved, stride=2)
        self.Mixed_6b = Mixed(768, _middle(128), average)
        self.Mixed_6c = Mixed(768, _middle(160), average)
        self.Mixed_6d = Mixed(768, _middle(160), average)
        self.Mixed_6e = Mixed(768, _middle(192), average)
        self.Mixed_7a = Mixed(768, TO_COARSE, halved, stride=2)
        self.Mixed_7b = Mixed(1280, COARSE, average)
        self.Mixed_7c = Mixed(2048, COARSE, maxima if form == "fid" else average)
        self.fc = nn.Linear(2048, FORMS[form] if classes is None else classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled images (n, 3, h, w), of 75 x 75 pixels or more, to features (n, 2048) and logits (n, classes)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{name}")(x)
        features = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return features, self.fc(features)


class InceptionExtractor:
    """Features (n, 2048) and logits of Inception-v3 with weights from a file: an extractor for FID, KID and IS.

    ``form``: "fid", "torchvision", or "auto": by the number of classes, 1008 or 1000. Images uint8 (n, 1 or 3, h, w)
    are resized to 299 x 299 bilinearly without antialiasing (align_corners=False, as pytorch-fid does). Scores from
    another resizing differ: TensorFlow 1's places pixels otherwise, clean-fid antialiases (Parmar et al., CVPR 2022).

    ``scale``: "symmetric" is [-1, 1], which the published weights of both forms were trained on (torchvision's model
    turns ImageNet's scale back into it, ``transform_input``); "imagenet" is ImageNet's mean and deviation, for
    weights trained on that.

    Logits of the fid form are without the bias, as the Inception Score was defined by its authors' program (Salimans et
    al., NeurIPS 2016) and as torchmetrics and torch-fidelity compute it. Raises InputError where the file does not fit.
    """

    def __init__(
        self,
        weights: str | Path,
        form: str = "auto",
        *,
        scale: str = "symmetric",
        device: str | torch.device = "cpu",
    ):
        choice("form", form, ("auto", *FORMS))
        self.scale = choice("scale", scale, SCALES)
        state = read_state(weights)
        classes = _classes(state, weights)
        self.form = _form(classes, weights) if form == "auto" else form
        with torch.device("meta"):  # neither memory nor random numbers for what is replaced
            network = Inception(self.form, classes)
        network.load_state_dict(fitting(state, network.state_dict(), weights), assign=True)
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        trained = "" if scale == "symmetric" else ", ImageNet's scale"
        self.name = f"Inception-v3, form {self.form}{trained}, weights {store.sha256(Path(weights))[:8]}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Seen:
        """Features and logits of images uint8 (n, 1 or 3, h, w), on their device. Raises InputError for any others."""
        parts = [self._seen(x, images.device) for x in resized(images, SIDE, BATCH, self.device)]
        features, logits = (torch.cat(part) for part in zip(*parts))
        return Seen(features, logits)

    def _seen(self, x: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        features, logits = self.network(2 * x - 1 if self.scale == "symmetric" else normalised(x))
        if self.form == "fid":
            logits = F.linear(features, self.network.fc.weight)
        return features.to(device), logits.to(device)


def resized(images: Tensor, side: int, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Batches (b, 3, side, side) of images uint8 (n, 1 or 3, h, w), as floats in [0, 1]; grey is repeated.

    Bilinear without antialiasing, align_corners=False. Raises InputError for anything else than such images.
    """
    as_pixels(images[:1] if isinstance(images, Tensor) and images.ndim == 4 else images)
    if images.shape[1] not in (1, 3):
        found = f"{images.shape[1]} channels"
        raise wrong("images", "uint8 of 1 or 3 channels", found, "images[:, :3] leaves transparency out")
    for some in images.split(batch):
        x = as_pixels(some.to(device)).expand(-1, 3, -1, -1)
        yield F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def normalised(x: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] less ImageNet's mean, divided by its standard deviation, channel by channel."""
    mean, std = (x.new_tensor(numbers)[:, None, None] for numbers in (MEAN, STD))
    return (x - mean) / std


def _classes(state: Mapping[str, Tensor], path: str | Path) -> int:
    """How many classes the weights tell apart. Raises InputError where they are not those of an Inception-v3."""
    weight = state.get("fc.weight")
    if weight is None or weight.ndim != 2:
        raise InputError(f"{path} must hold fc.weight (classes, 2048), but it does not; is it another network's file?")
    return len(weight)


def _form(classes: int, path: str | Path) -> str:
    """The published form of so many classes. Raises InputError where there is none."""
    for form, published in FORMS.items():
        if classes == published:
            return form
    raise InputError(
        f"{path} tells {classes:,} classes apart, which neither published form does (fid 1008, torchvision 1000); "
        'say form="fid" or form="torchvision"'
    )
