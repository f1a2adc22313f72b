"""What the report of a run shows of its scores, its neighbours and its audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.bench.sections import Curves, Entry, Heading, Picture, Section, Series, Table, Text
from triptych.check import InputError
from triptych.store import read_json

SCORES, NEIGHBOURS, AUDIT, RECOVERED = "scores.json", "neighbours.json", "audit.json", "recovered.json"


def judged_sections(folder: Path) -> list[Section]:
    """Sections on all that was judged of a run; none where nothing was. Raises InputError where a file is damaged."""
    return [*_scores(_read(folder, SCORES)), *_neighbours(folder), *_audits(folder), *_recovered(folder)]


def _read(folder: Path, name: str) -> list[Mapping[str, Any]]:
    path = folder / name
    if not path.is_file():
        return []
    found = read_json(path)
    if not isinstance(found, list) or not all(isinstance(one, dict) and "step" in one for one in found):
        raise InputError(
            f"{path} must be what `triptych gan` wrote, but it is something else; remove it and make it again"
        )
    return found


def _scores(entries: Sequence[Mapping[str, Any]]) -> list[Section]:
    """A table for each extractor, n and set of images, a row a step, the best of every column marked."""
    sections: list[Section] = []
    kinds = list(dict.fromkeys(map(_kind, entries)))
    for kind in kinds:
        extractor, n, data, _ = kind
        those = [e for e in entries if _kind(e) == kind]
        those.sort(key=lambda e: e["step"])
        names = list(dict.fromkeys(name for e in those for name in e["scores"]))
        rows = [
            [Entry(f"{e['step']:,}"), *(_score(name, e["scores"].get(name), those) for name in names)] for e in those
        ]
        note = (
            f"Features: {extractor}; {n:,} images of each kind. Scores of other features or numbers are not comparable."
        )
        sections.append(Table(["step", *names], rows, f"Against {data}", note))
        sections += _courses(those, names)
    return [Heading("Scores"), *sections] if sections else []


def _courses(those: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Section]:
    """A curve of every score of several steps that is better one way, the best step marked; one for each seed."""
    sections: list[Section] = []
    for name in names:
        found: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
        for e in those:
            if name in e["scores"] and e["scores"][name]["less"] is not None:
                found.setdefault((e["seed"], e.get("labels")), {})[e["step"]] = e["scores"][name]
        found = {key: scores for key, scores in found.items() if len(scores) > 1}
        shown = []
        for (seed, labels), scores in found.items():
            told = f"{name}, seed {seed}, labels {labels}" if len(found) > 1 else name
            less = next(iter(scores.values()))["less"]
            shown.append(best_marked(told, list(scores), [score["value"] for score in scores.values()], less=less))
        if shown:
            caption = " ".join(text for _, text in shown)
            series = [series for series, _ in shown]
            sections.append(Curves(series, f"{name} over the run", "generator step", name, caption=caption))
    return sections


def best_marked(
    name: str, steps: Sequence[int], values: Sequence[float], *, less: bool, most: int | None = None
) -> tuple[Series, str]:
    """A curve with its best point marked, and a sentence that says where that is; nothing is marked where all are alike.

    It shows ``most`` points at most, the best one among them.
    """
    best = (min if less else max)(range(len(values)), key=lambda i: values[i])
    chosen = range(len(values))
    if most is not None and len(values) > most:
        chosen = sorted({best, *(round(i * (len(values) - 1) / (most - 2)) for i in range(most - 1))})
    x, y = [steps[i] for i in chosen], [values[i] for i in chosen]
    if len(set(values)) < 2:
        return Series(name, x, y), ""
    said = f"The dot: the {'lowest' if less else 'highest'}, {values[best]:.4g}, at step {steps[best]:,}."
    return Series(name, x, y, marked=list(chosen).index(best)), said


def _kind(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """What scores must share to stand in one table: extractor, number of images, and the real ones by name and checksum."""
    return entry["extractor"], entry["n"], entry["data"], entry.get("real")


def _score(name: str, score: Mapping[str, Any] | None, those: Sequence[Mapping[str, Any]]) -> Entry:
    if score is None:
        return Entry("")
    values = [e["scores"][name]["value"] for e in those if name in e["scores"]]
    best = {True: min, False: max}.get(score["less"])
    detail = "" if score["spread"] is None else f"± {score['spread']:.2g}"
    return Entry(f"{score['value']:.4g}", detail, strong=best is not None and score["value"] == best(values))


def _neighbours(folder: Path) -> list[Section]:
    entries, picture = _read(folder, NEIGHBOURS), folder / "neighbours.png"
    last = next((e for e in reversed(entries) if e.get("picture") == picture.name), None)
    if last is None or not picture.is_file():
        return []
    spaces = " and by ".join(last["by"])
    caption = f"Step {last['step']:,}: generated images in the first row; below them their nearest of {last['data']}, by {spaces}."
    return [
        Heading("Neighbours"),
        Picture(picture.read_bytes(), "Generated images and their neighbours", caption=caption),
    ]


def _audits(folder: Path) -> list[Section]:
    entries, picture = _read(folder, AUDIT), folder / "audit.png"
    if not entries:
        return []
    rows = []
    for e in entries:
        for space, told in e["by"].items():
            texts = [
                f"{e['step']:,}", f"{e['samples']:,}", space, f"{told['nearer']:.1%}", f"{told['expected']:.1%}",
                f"{told['p_value']:.3f}", str(len(told["suspicious"])),
            ]  # fmt: skip
            rows.append([Entry(text) for text in texts])
    headers = ["step", "samples", "compared by", "nearer to training", "expected", "p", "suspicious"]
    newest = max(e["step"] for e in entries)
    note = "Labels of training and held-out images are drawn anew; p is how often samples are then as much nearer to training."
    sections: list[Section] = [
        Heading("Memorisation"),
        *(Text(_verdict(e)) for e in entries if e["step"] == newest),
        Table(headers, rows, note=note),
    ]
    if picture.is_file() and (last := next((e for e in reversed(entries) if e.get("picture") == picture.name), None)):
        caption = (
            f"Step {last['step']:,}, seed {last['seed']}. Rows: a generated image, its nearest training image, its nearest held-out image; "
            "most suspicious first."
        )
        sections.append(Picture(picture.read_bytes(), "Suspicious images beside their neighbours", caption=caption))
    return sections


def _verdict(entry: Mapping[str, Any]) -> str:
    """What an audit said, and what it compared with."""
    told = f"{entry['train']:,} training and {entry['held_out']:,} held-out images of {entry['data']}"
    return f"{entry['verdict'].capitalize()}. Against {told}, by {' and by '.join(entry['by'])}."


def _recovered(folder: Path) -> list[Section]:
    entries, picture = _read(folder, RECOVERED), folder / "recovered.png"
    if not entries:
        return []
    rows = [
        [
            Entry(text)
            for text in (
                f"{e['step']:,}",
                f"{e['n']:,}",
                f"{e['train_error']:.1f}",
                f"{e['held_out_error']:.1f}",
                f"{e['p_value']:.3g}",
            )
        ]
        for e in entries
    ]
    headers = ["step", "pictures of each", "median error, training", "held out", "p"]
    note = "Root mean square in grey levels of the best z that was found; p by a one-sided Mann-Whitney test, small says fitted to training."
    sections: list[Section] = [Heading("Pictures found again"), Table(headers, rows, note=note)]
    if picture.is_file() and (last := next((e for e in reversed(entries) if e.get("picture") == picture.name), None)):
        caption = f"Step {last['step']:,}. "
        caption += "Rows: training pictures, what the generator makes most like them, held-out pictures, what it makes of those."
        sections.append(Picture(picture.read_bytes(), "Pictures and what the generator makes of them", caption=caption))
    return sections
