"""The sections of a run's report: samples over time, curves of what was logged, speed, settings, provenance."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.bench.sections import (
    Command,
    Curves,
    Entry,
    Facts,
    Heading,
    Picture,
    Section,
    Series,
    Table,
    Text,
)
from triptych.cli.gan_dry import duration
from triptych.cli.gan_judged import best_marked, judged_sections
from triptych.gan.folder import Run
from triptych.gan.pictures import course_png, first_row
from triptych.gan.verdict import verdict

MOMENTS = 8  # rows of the picture that shows the course of a run
MOST_POINTS = 1000  # a curve on the page
COUNTERS = ("step", "seen", "critic_updates", "rollbacks")
LOSSES = ("critic_loss", "generator_loss")
RATES = ("generator_rate", "critic_rate")
SCORES = {"kid": True, "precision": False, "recall": False}  # whether less is better
GAPS, ERROR = ("train_gap", "held_out_gap"), "gap_error"
SPEED = "time_images_per_second"


def run_sections(folder: Path) -> list[Section]:
    """The sections of a run's report. Raises InputError where the folder is damaged or of a newer version."""
    run = Run.open(folder)
    lines = run.metrics()
    steps, rollbacks = [x for x in lines if "step" in x], [x for x in lines if "rollback" in x]
    return [
        *_summary(run, steps),
        *_verdict(lines),
        *_samples(run),
        *judged_sections(run.folder),
        *_scored(run, steps),
        Heading("Curves"),
        *_curves(steps),
        *_rollbacks(rollbacks),
        Heading("Settings"),
        Facts(_flat({name: value for name, value in run.config.items() if name != "data"})),
        Heading("Data"),
        Facts(_flat(run.config.get("data", {}))),
        Heading("How it was made"),
        *_made(run),
    ]


def _summary(run: Run, steps: Sequence[Mapping[str, Any]]) -> list[Section]:
    recipe = run.config["recipe"]
    told = f"Recipe {recipe['name']}: {recipe['follows']}. "
    if not steps:
        return [Text(f"{told}No step has been logged yet.")]
    last, seconds = steps[-1], _seconds(steps)
    told += (
        f"{last['step']:,} of {recipe['rules']['steps']:,} steps, in which the critic saw {last['seen']:,} images; "
        f"{duration(seconds)} of training, {last['seen'] / max(seconds, 1e-9):.0f} images/s."
    )
    return [Text(told)]


def _seconds(steps: Sequence[Mapping[str, Any]]) -> float:
    """The time of all sittings: each counts its own from 0."""
    times = [float(line.get("time_seconds", 0.0)) for line in steps]
    ends = [now for now, after in zip(times, [*times[1:], -1.0]) if after < now]
    return sum(ends)


def _samples(run: Run) -> list[Section]:
    shape: tuple[int, int, int] = tuple(run.config["recipe"]["shape"])
    grids = _whole(run, shape)
    if not grids:
        return []
    last = grids[-1]
    row = "; one row a class" if run.config["recipe"].get("classes") else ""
    sections: list[Section] = [
        Heading("Samples"),
        Picture(
            last.read_bytes(),
            f"Generated images after step {int(last.stem):,}",
            caption=f"The generator's average after step {int(last.stem):,}{row}.",
        ),
    ]
    if len(grids) > 1:
        chosen = list(dict.fromkeys(grids[round(i * (len(grids) - 1) / (MOMENTS - 1))] for i in range(MOMENTS)))
        png = course_png([path.read_bytes() for path in chosen], shape)
        steps = ", ".join(f"{int(path.stem):,}" for path in chosen)
        caption = f"The same noise, row by row after step {steps}."
        sections.append(Picture(png, f"Images of the same noise after step {steps}", "The course of the run", caption))
    return sections


def _verdict(lines: Sequence[Mapping[str, Any]]) -> list[Section]:
    """What the run's own measurements say of it."""
    found = verdict(lines)
    return [Heading("Verdict"), Text(found.text)]


def _whole(run: Run, shape: tuple[int, int, int]) -> list[Path]:
    """The grids that can be read and are as wide as the newest; of the others a warning tells."""
    grids = run.samples
    forms = {path: None if (row := first_row(path.read_bytes(), shape)) is None else row.shape for path in grids}
    newest = next((form for path in reversed(grids) if (form := forms[path])), None)
    whole = [path for path in grids if forms[path] and forms[path] == newest]
    for path in grids:
        if path not in whole:
            what = "is damaged" if forms[path] is None else "has another size than the newest grid"
            warnings.warn(f"{path} {what} and is left out of the report", stacklevel=2)
    return whole


def _curves(steps: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The losses in one diagram, every other part in one of its own, the rates where they change, the speed."""
    if not steps:
        return [Text("There is nothing to draw yet.")]
    names = list(dict.fromkeys(name for line in steps for name in line))
    apart = (*COUNTERS, *LOSSES, *RATES, *GAPS, ERROR, *SCORES)
    parts = [n for n in names if n not in apart and not n.startswith("time_")]
    sections: list[Section] = []
    losses = [n for n in LOSSES if n in names]
    if losses:
        sections.append(Curves([_series(steps, n) for n in losses], "Losses", "generator step", "loss"))
    if set(GAPS) <= set(names):
        title = "The critic's gap on images that it was trained on, and on others"
        sections.append(Curves([_series(steps, n) for n in GAPS], title, "generator step", "gap"))
    sections += [Curves([_series(steps, n)], _words(n), "generator step", _words(n)) for n in parts]
    rates = [n for n in RATES if len({line.get(n) for line in steps}) > 1]
    if rates:
        sections.append(
            Curves([_series(steps, n) for n in rates], "Learning rates", "generator step", "rate", log_y=True)
        )
    if SPEED in names:
        sections.append(Curves([_series(steps, SPEED)], "Speed", "generator step", "images/s"))
    if len(steps) > MOST_POINTS:
        sections.append(Text(f"The curves show {MOST_POINTS:,} of {len(steps):,} logged steps; metrics.jsonl has all."))
    return sections


def _scored(run: Run, steps: Sequence[Mapping[str, Any]]) -> list[Section]:
    """The scores that were logged on the way, the best of each marked."""
    sections: list[Section] = []
    for name, less in SCORES.items():
        lines = [line for line in steps if name in line]
        if lines:
            x, y = ([e[key] for e in lines] for key in ("step", name))
            series, told = best_marked(name, x, y, less=less, most=MOST_POINTS)
            sections.append(Curves([series], f"{name} while it trained", "generator step", name, caption=told))
    if not sections:
        return []
    by = run.config.get("scored") or {"extractor": "not known", "n": 0}
    note = f"Features: {by['extractor']}; {by['n']:,} images of each kind, always the same noise."
    return [Heading("Scores on the way"), *sections, Text(note)]


def _series(steps: Sequence[Mapping[str, Any]], name: str) -> Series:
    lines = [line for line in steps if name in line]
    if len(lines) > MOST_POINTS:
        lines = [lines[round(i * (len(lines) - 1) / (MOST_POINTS - 1))] for i in range(MOST_POINTS)]
    return Series(_words(name), [line["step"] for line in lines], [line[name] for line in lines])


def _rollbacks(rollbacks: Sequence[Mapping[str, Any]]) -> list[Section]:
    if not rollbacks:
        return []
    names = ("rollback", "from", "to", "reason", "rate_scale", "noise_seed")
    rows = [[Entry(str(line.get(name, ""))) for name in names] for line in rollbacks]
    headers = ["rollback", "from step", "back to step", "reason", "rates times", "noise seed"]
    return [
        Heading("Rollbacks"),
        Table(headers, rows, note="The run diverged and went back to its last good checkpoint."),
    ]


def _made(run: Run) -> list[Section]:
    """The command, and what each sitting ran on."""
    made = run.environments()
    sections: list[Section] = []
    for number, env in enumerate(made, start=1):
        title = f"Sitting {number}" if len(made) > 1 else ""
        if "command" in env:
            sections.append(Command(str(env["command"])))
        pairs = [
            (
                name.replace("_", " "),
                ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value),
            )
            for name, value in env.items()
            if value is not None and name != "command"
        ]
        sections.append(Facts(pairs, title))
    return sections


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and a text."""
    pairs: list[tuple[str, str]] = []
    for name, one in value.items():
        if isinstance(one, Mapping):
            pairs += _flat(one, f"{prefix}{name}.")
        elif one is not None and one != []:
            text = (
                ", ".join(map(str, one[:20])) + (", ..." if len(one) > 20 else "")
                if isinstance(one, list)
                else str(one)
            )
            pairs.append((f"{prefix}{name}", text))
    return pairs


def _words(name: str) -> str:
    return name.removeprefix("time_").replace("_", " ")
