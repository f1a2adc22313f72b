"""VGG-16 (Simonyan & Zisserman, ICLR 2015) as an extractor of features and of what its convolutions see.

Parameters have torchvision's names, so that its weights load as they are.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych import store
from triptych.check import choice, wrong
from triptych.metrics.features import Seen
from triptych.metrics.inception import normalised, resized
from triptych.metrics.weights import read_weights

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions; then the size is halved
LAYERS = ("fc1", "fc2")
PERCEPTUAL = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")
SIDE = 224
BATCH = 16


def _places() -> dict[str, int]:
    """Where in ``features`` each convolution's ReLU is: conv1_1 to conv5_3."""
    places, place = {}, -1
    for block, (_, convolutions) in enumerate(BLOCKS, 1):
        for number in range(1, convolutions + 1):
            places[f"conv{block}_{number}"] = place = place + 2
        place += 1
    return places


PLACES = _places()


class VGG16(nn.Module):
    """VGG-16 without batch normalisation: 13 convolutions ``features``, 3 layers ``classifier``, 1000 classes."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for channels, convolutions in BLOCKS:
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            nn.Linear(4096, 1000),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images (n, 3, h, w), of 32 x 32 pixels or more, to fc1, fc2 (n, 4096) and logits (n, 1000)."""
        x = F.adaptive_avg_pool2d(self.features(x), 7).flatten(1)
        fc1 = self.classifier[:3](x)
        fc2 = self.classifier[3:6](fc1)
        return fc1, fc2, self.classifier[6](fc2)

    def activations(self, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """What convolutions of these names see in normalised images (n, 3, h, w), after ReLU: (n, channels, h', w')."""
        found, last = {}, max(PLACES[name] for name in names)
        for place, layer in enumerate(list(self.features)[: last + 1]):
            x = layer(x)
            found[place] = x
        return {name: found[PLACES[name]] for name in names}


class VGG16Extractor:
    """Features (n, 4096) and logits (n, 1000) of VGG-16 with weights from a file.

    ``layer``: "fc2", the second fully connected layer after ReLU, by which Kynkäänniemi et al. (NeurIPS 2019) measure
    precision and recall; "fc1", the first. Images uint8 (n, 1 or 3, h, w) are resized to 224 x 224 bilinearly without
    antialiasing (align_corners=False) and normalised by ImageNet's mean and deviation; scores from another resizing or
    from other weights, such as those that the authors converted, differ. Raises InputError where the file does not fit.
    """

    def __init__(self, weights: str | Path, layer: str = "fc2", *, device: str | torch.device = "cpu"):
        self.layer = choice("layer", layer, LAYERS)
        with torch.device("meta"):  # neither memory nor random numbers for what is replaced
            network = VGG16()
        network.load_state_dict(read_weights(weights, network.state_dict()), assign=True)
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.name = f"VGG-16, layer {layer}, weights {store.sha256(Path(weights))[:8]}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Seen:
        """Features and logits of images uint8 (n, 1 or 3, h, w), on their device. Raises InputError for any others."""
        parts = []
        for x in resized(images, SIDE, BATCH, self.device):
            fc1, fc2, logits = self.network(normalised(x))
            parts.append(((fc1 if self.layer == "fc1" else fc2).to(images.device), logits.to(images.device)))
        features, logits = (torch.cat(part) for part in zip(*parts))
        return Seen(features, logits)

    @torch.no_grad()
    def activations(self, images: Tensor, names: Sequence[str] = PERCEPTUAL) -> dict[str, Tensor]:
        """What convolutions conv1_1 ... conv5_3 see in images uint8 (n, 1 or 3, h, w), after ReLU: (n, c, h', w') each.

        By default the five layers in which Chen & Koltun (ICCV 2017) compare pictures, in VGG-19 there; Karras et al.
        (ICLR 2018) look for nearest neighbours by them. They are 6.1 million numbers an image: give few images at a
        time. Raises InputError for an unknown layer or other images.
        """
        if isinstance(names, str) or not names:
            raise wrong("names", "at least one name of a convolution in a list", names)
        for name in names:
            choice("names", name, PLACES)
        parts = [self.network.activations(normalised(x), names) for x in resized(images, SIDE, BATCH, self.device)]
        return {name: torch.cat([part[name].to(images.device) for part in parts]) for name in names}
