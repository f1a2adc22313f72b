"""Weights of the DCGAN of pytorch/examples, which many have trained, as a generator of this package."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from triptych.check import InputError
from triptych.gan.draw import Latent
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.objectives import NonSaturating
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipe import Recipe
from triptych.gan.train import Rules
from triptych.store import read_tensors

NAME = re.compile(r"(?:module\.)?main\.(\d+)\.(weight|bias|running_mean|running_var|num_batches_tracked)")
ADAM = Optimiser("adam", 2e-4, beta1=0.5)


def import_dcgan(file: str | Path) -> tuple[Recipe, nn.Module]:
    """The recipe and the generator of a ``netG_epoch_N.pth`` of pytorch/examples' dcgan/main.py, or of the same tensors as safetensors.

    A transposed convolution from one pixel to 4 x 4, then transposed convolutions of kernel 4 and stride 2, each but the last with BatchNorm
    and ReLU; tanh. Any side that is a power of 2 from 16 on, any widths that halve. The file is read by torch's loader for tensors alone, which
    runs no code. Raises InputError for anything else.
    """
    state = _state(Path(file))
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        match = NAME.fullmatch(name)
        if match is None:
            raise _not(file, f"it has a tensor {name!r}")
        layers.setdefault(int(match[1]), {})[match[2]] = tensor
    blocks = [layers[number] for number in sorted(layers)]
    convolutions, norms = blocks[::2], blocks[1::2]
    recipe = _recipe(file, convolutions, norms)
    generator, _ = recipe.networks(0)
    given = {"first.weight": convolutions[0]["weight"].permute(2, 3, 1, 0).flatten(0, 2)}
    given |= {f"layers.{i}.weight": block["weight"] for i, block in enumerate(convolutions[1:])}
    given |= {f"norms.{i}.{name}": tensor for i, block in enumerate(norms) for name, tensor in block.items()}
    live = generator.state_dict()
    for name, tensor in live.items():
        if name not in given and not name.endswith("num_batches_tracked"):
            raise _not(file, f"nothing in it is the {name} of such a network")
        if name in given and given[name].shape != tensor.shape:
            raise _not(file, f"its {name} is of {tuple(given[name].shape)}, not {tuple(tensor.shape)}")
    generator.load_state_dict({name: given.get(name, tensor) for name, tensor in live.items()})
    return recipe, generator.eval()


def _recipe(
    file: str | Path, convolutions: Sequence[Mapping[str, Tensor]], norms: Sequence[Mapping[str, Tensor]]
) -> Recipe:
    """What the shapes say."""
    if len(convolutions) < 3 or len(norms) != len(convolutions) - 1:
        raise _not(file, f"it has {len(convolutions)} convolutions and {len(norms)} normalisations")
    for block in convolutions:
        if set(block) != {"weight"} or block["weight"].ndim != 4 or tuple(block["weight"].shape[2:]) != (4, 4):
            raise _not(file, "a layer is no transposed convolution of kernel 4 without bias")
    latent, most = convolutions[0]["weight"].shape[:2]
    channels, doublings = convolutions[-1]["weight"].shape[1], len(convolutions) - 1
    width, side = convolutions[-1]["weight"].shape[0], 4 * 2**doublings
    nets = DCGAN(width, kernel=4, critic_norm="batch", bias=False, doublings=doublings, most=max(1, most // width))
    return Recipe(
        "dcgan", "pytorch/examples, dcgan/main.py", NonSaturating(), nets, nets, (int(channels), side, side), batch=64,
        rules=Rules(Latent(int(latent)), ADAM, ADAM, reuse_noise=True),
    )  # fmt: skip


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file."""
    if not path.is_file():
        raise InputError(f"file must be a .pth or .safetensors file of weights, but there is no file {path}")
    if path.suffix.lower() == ".safetensors":
        return read_tensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a loader that is fed broken bytes may raise anything
        kind = "" if zipfile.is_zipfile(path) else " (it is no file that torch.save writes)"
        raise InputError(f"{path} must hold tensors alone, but torch's safe loader refuses it{kind}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{path} must hold a state dict, names and tensors, but it holds something else")
    return {str(name): tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _not(file: str | Path, why: str) -> InputError:
    return InputError(f"{file} must hold the generator of pytorch/examples' DCGAN, but {why}")
