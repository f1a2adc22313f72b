"""A trained generator as a folder that others can use: safetensors, config.json, and a model card that says what it was trained on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

import triptych
from triptych.check import InputError
from triptych.gan.recipe import Recipe
from triptych.gan.settings import from_json, to_json
from triptych.store import filled, read_json, read_tensors, write_json, write_tensors, write_text_atomic

KIND, VERSION = "gan-generator", 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def save_pretrained(
    folder: str | Path, recipe: Recipe, generator: nn.Module, *, card: str = "", about: Mapping[str, Any] | None = None
) -> Path:
    """Write a generator as a new folder of model.safetensors, config.json and, where there is a text, README.md.

    ``about`` is what config.json says beside the recipe. The files are written beside and renamed as one. Raises InputError where something
    is there already.
    """
    check_new(folder)
    path = Path(os.path.realpath(folder))
    if path.is_dir():
        path.rmdir()
    with filled(path) as beside:
        write_tensors(beside / WEIGHTS, generator.state_dict())
        head = {"format": "triptych", "kind": KIND, "version": VERSION, "triptych": triptych.__version__}
        write_json(beside / CONFIG, {**head, "recipe": to_json(recipe), "about": dict(about or {})})
        if card:
            write_text_atomic(beside / CARD, card)
    return path


def check_new(folder: str | Path) -> None:
    """Raise InputError unless a folder is new or empty."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{folder} must be a new or empty folder, but it is not; choose another")


def is_pretrained(folder: str | Path) -> bool:
    """Whether a folder is one that ``save_pretrained`` wrote."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return False
    head = read_json(path)
    return isinstance(head, dict) and head.get("kind") == KIND


def from_pretrained(folder: str | Path) -> tuple[Recipe, nn.Module]:
    """The recipe and the generator of a folder that ``save_pretrained`` wrote, for evaluation.

    Raises InputError for anything else, a newer version, and any damage.
    """
    if not is_pretrained(folder):
        raise InputError(f"{folder} must be a folder that `triptych gan export --folder` wrote, but it is not")
    head = read_json(Path(folder) / CONFIG)
    if not isinstance(head.get("version"), int) or head["version"] > VERSION:
        raise InputError(f"{folder} was written by a newer triptych; update triptych")
    recipe = from_json(head.get("recipe"), f"{Path(folder) / CONFIG}")
    generator, _ = recipe.networks(0)
    tensors, live = read_tensors(Path(folder) / WEIGHTS), generator.state_dict()
    bad = next((n for n in live if n not in tensors or tensors[n].shape != live[n].shape), None)
    bad = bad or next((name for name in tensors if name not in live), None)
    if bad is not None:
        raise InputError(
            f"{Path(folder) / WEIGHTS} must hold the networks of its config.json, but its {bad} is not theirs"
        )
    generator.load_state_dict(tensors)
    return recipe, generator.requires_grad_(False).eval()
