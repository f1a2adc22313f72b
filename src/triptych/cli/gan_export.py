"""gan export and gan import: a run's generator for others, and others' weights as a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.bench.machine import provenance
from triptych.check import InputError
from triptych.cli.console import console
from triptych.cli.gan_judge import known
from triptych.cli.gan_judged import AUDIT, SCORES
from triptych.cli.gan_options import Drawn
from triptych.cli.place import check_place
from triptych.gan import checkpoint
from triptych.gan.folder import Run
from triptych.gan.imported import import_dcgan
from triptych.gan.pretrained import check_new, save_pretrained
from triptych.gan.recipe import Recipe
from triptych.gan.run import load_generator
from triptych.gan.settings import to_json
from triptych.gan.verdict import verdict


def exported(folder: Path, onnx: Path | None, out: Path | None, drawn: Drawn, json: bool) -> None:
    """Write a run's generator as an ONNX file, a folder, or both. Raises InputError."""
    voice = console(json)
    if onnx is None and out is None:
        raise InputError(
            "onnx must be a file to write, or folder a folder, got neither; give --onnx FILE or --folder FOLDER"
        )
    if onnx is not None:
        check_place("onnx", onnx, suffixes=(".onnx",))
    if out is not None:
        check_place("folder", out)
        check_new(out)
    recipe, generator = load_generator(folder, drawn.checkpoint)
    said, facts = [], {"run": str(folder), "onnx": None, "folder": None, "difference": None}
    if onnx is not None:
        from triptych.gan.onnx import export_onnx

        with voice.progress("ONNX", 1) as progress:
            facts["difference"] = export_onnx(recipe, generator, onnx)
            progress.advance()
        said.append(
            f"wrote {onnx}: images in [0, 1]; onnxruntime and torch differ by at most {facts['difference']:.1g}"
        )
        facts["onnx"] = str(onnx)
    if out is not None:
        about = _about(Run.open(folder), drawn.checkpoint)
        save_pretrained(out, recipe, generator, card=card(recipe, about), about=about)
        said.append(f"wrote {out}: model.safetensors, config.json and a model card")
        facts["folder"] = str(out)
    voice.finish(facts, "\n".join(said))


def taken_in(file: Path, out: Path, json: bool) -> None:
    """Make a run of another's weights. Raises InputError."""
    voice = console(json)
    check_place("out", out)
    recipe, generator = import_dcgan(file)
    players = recipe.players(0)
    for network in (players.generator, players.average):
        network.load_state_dict(generator.state_dict())
    config = {
        "recipe": to_json(recipe),
        "seed": 0,
        "precision": "float32",
        "data": {"name": "not known", "checksum": "not known"},
        "imported": file.name,
    }
    run = Run.create(out, config, {**provenance("cpu"), "command": f"triptych gan import {file.name} --out RUN"})
    meta = {"guard": {}, "rollbacks": [], "config": config}
    checkpoint.write(run.folder / "checkpoints" / checkpoint.name_of(0, 0), checkpoint.taken(players, meta))
    shape = " x ".join(map(str, recipe.shape))
    voice.finish(
        {"file": str(file), "run": str(run.folder), "shape": list(recipe.shape), "latent": recipe.rules.latent.size},
        f"{run.folder}: a generator of {shape} images from {recipe.rules.latent.size} numbers; its critic is new",
    )


def _about(run: Run, step: int | None) -> dict[str, Any]:
    """What is told of a run: its data, its verdict, its scores and its audits."""
    data = {k: v for k, v in run.config.get("data", {}).items() if k != "path"}
    return {
        "step": checkpoint.step_of(run.checkpoint(step)),
        "seed": run.config["seed"],
        "data": data,
        "verdict": verdict(run.metrics()).text,
        "held_out": (run.config.get("held_out") or {}).get("images"),
        "imported": run.config.get("imported"),
        "scores": known(run.folder, SCORES),
        "audits": known(run.folder, AUDIT),
        "versions": (run.environments() or [{}])[-1].get("libraries", {}),
    }


def card(recipe: Recipe, about: Mapping[str, Any]) -> str:
    """A model card in Markdown."""
    shape = " x ".join(map(str, recipe.shape))
    data = about["data"]
    lines = [
        f"# {recipe.name}: images of {shape}",
        "",
        _origin(recipe, about),
        "",
        "## Data",
        "",
        f"{data.get('name', 'not known')}, {data.get('images', 'an unknown number of')} images"
        + (f", {len(data['classes'])} classes" if data.get("classes") else "")
        + f"; checksum {data.get('checksum', 'not known')}."
        + (f" {about['held_out']:,} images were held out." if about["held_out"] else ""),
        "",
        "## Use",
        "",
        "```python",
        "from triptych.gan.pretrained import from_pretrained",
        "from triptych.gan.sample import Sampler",
        "",
        "images = next(Sampler(*from_pretrained(FOLDER)).sample(seed=0, count=16))  # uint8 (16, c, h, w)",
        "```",
        "",
        "## How good it is",
        "",
        about["verdict"],
        "",
        *_scores(about["scores"]),
        "## Memorisation",
        "",
        *_audits(about["audits"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _origin(recipe: Recipe, about: Mapping[str, Any]) -> str:
    if about["imported"]:
        return f"A generator of {recipe.follows}, imported from {about['imported']}; how it was trained is not known."
    return (
        f"A generator trained by Triptych's recipe `{recipe.name}` ({recipe.follows}), {about['step']:,} generator steps, seed "
        f"{about['seed']}."
    )


def _scores(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return ["Not scored; `triptych gan score RUN` does that.", ""]
    lines = ["| score | value | against | n | features | step |", "| :--- | ---: | :--- | ---: | :--- | ---: |"]
    for e in entries:
        against = f"{e['data']} ({e['real'][:8]})" if e.get("real") else e["data"]
        lines += [
            f"| {name} | {_value(score)} | {against} | {e['n']:,} | {e['extractor']} | {e['step']:,} |"
            for name, score in e["scores"].items()
        ]
    return [*lines, ""]


def _value(score: Mapping[str, Any]) -> str:
    spread = score.get("spread")
    return f"{score['value']:.4g}" + ("" if spread is None else f" ± {spread:.2g}")


def _audits(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    if not entries:
        return ["Not audited; `triptych gan audit RUN` does that."]
    return [
        f"- Step {e['step']:,}, {e['samples']:,} samples, {e['train']:,} training and {e['held_out']:,} held-out images of {e['data']}, by "
        f"{' and by '.join(e['by'])}: {e['verdict']}."
        for e in entries
    ]
