"""list, run, report: the experiments of the papers, their rows, and reports of rows, models or runs."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triptych.bench.experiment import CellFailed, Context, Experiment, Row, Scale, Source, select
from triptych.bench.row import read_rows
from triptych.bench.run import run as run_experiment
from triptych.check import InputError, nearest, wrong
from triptych.cli.console import Console, Json, Whole, console
from triptych.gan.catalogue import CATALOGUE
from triptych.papers import find, names
from triptych.store import kind_of

EMBEDDED = "digits"


def list_(*, json: Json = False) -> None:
    """List the experiments, and the recipes of `triptych gan train`."""
    out = console(json)
    found = [find(name) for name in names()]
    if not json:
        out.table(["name", "shows", "paper"], [[e.name, e.shows, e.paper] for e in found])
        out.say("")
        out.table(["recipe", "trains", "paper"], [[e.name, e.shows, e.paper] for e in CATALOGUE])
    experiments = [{"name": e.name, "shows": e.shows, "paper": e.paper, "data": e.data} for e in found]
    out.finish({"experiments": experiments, "recipes": [vars(entry) for entry in CATALOGUE]})


def run(
    name: str,
    *,
    out: Path,
    scale: Scale = Scale.SMOKE,
    seed: Whole = 0,
    data: str | None = None,
    where: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    force: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    device: str = "cpu",
    workers: Whole = 1,
    scheduler: str | None = None,
    json: Json = False,
) -> int:
    """Run an experiment cell by cell; rows that are there already are kept.

    Parameters
    ----------
    name
        The experiment, as `triptych list` names it.
    out
        The folder of the rows; a second call goes on where the first stopped.
    scale
        smoke takes seconds, laptop minutes to hours, paper the paper's own sizes.
    seed
        The seed; run several and the report gives their mean.
    data
        A file or folder of images, a fetched set, or digits; smoke takes digits where none is given. Not for experiments
        that make their own points or images.
    where
        Only the cells with field=value; may be given again.
    force
        Measure again what is there already.
    device
        cpu, cuda or cuda:N.
    workers
        Cells that are measured side by side, each with its share of the cores; times are then those of a busy machine.
    scheduler
        The address of a Dask scheduler whose workers measure the cells; they must see `--data` and `--out` under the same paths. Its
        wires are not encrypted: use it within one network of your own.
    """
    voice = console(json)
    experiment = find(name)
    cells = select(experiment, scale, where)
    context = Context(scale, seed, _source(experiment, scale, data), _device(device))
    try:
        with voice.progress(f"{name} at scale {scale.value}", len(cells)) as progress:

            def told(row: Row, fresh: bool) -> None:
                voice.say(_line(row, fresh))
                progress.advance()

            several = {"workers": workers, "scheduler": scheduler}
            rows = run_experiment(experiment, context, out, where=where, force=force, on_row=told, **several)
    except CellFailed as error:
        voice.warn(f"{error}\n{error.text}".rstrip())
        return 1
    voice.finish(
        {"experiment": name, "folder": str(out), "rows": [row.to_json() for row in rows]},
        f"{len(rows)} {'row' if len(rows) == 1 else 'rows'} in {out}; `triptych report {out}` shows them",
    )
    return 0


def report(folder: Path, *, out: Path | None = None, json: Json = False) -> None:
    """Write report.html and report.md from saved rows, a saved model or a run.

    Parameters
    ----------
    folder
        What `triptych run`, `triptych ccnn fit`, `triptych sparse learn --layers` or `triptych gan train` wrote as --out.
    out
        The folder of the report; the same one where none is given.
    """
    from triptych.bench.report import row_sections, write_report

    voice = console(json)
    if not folder.is_dir():
        raise InputError(f"folder must be one of saved rows, a saved model or a run, but there is no folder {folder}")
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"out must be a folder, but {out} is a file; choose another name")
    if (kind := kind_of(folder)) is not None:
        if kind == "sparse-deep":
            from triptych.cli.sparse_report import model_sections
        else:
            from triptych.cli.ccnn import model_sections

        sections, title = model_sections(folder), folder.resolve().name
    elif (folder / "config.json").is_file():
        from triptych.cli.gan_report import run_sections

        sections, title = run_sections(folder), folder.resolve().name
    else:
        rows = read_rows(folder)
        if not rows:
            raise InputError(
                f"folder must hold saved rows, a model or a run, but {folder} holds none of them; `triptych run` makes rows"
            )
        sections, title = row_sections(rows, find), ", ".join(sorted({row.experiment for row in rows}))
    written = write_report(sections, out or folder, title=title)
    _told(voice, written.html, written.markdown)


def _told(voice: Console, html: Path, markdown: Path) -> None:
    voice.finish({"html": str(html), "markdown": str(markdown)}, f"wrote {html} and {markdown}")


def _source(experiment: Experiment, scale: Scale, data: str | None) -> Source:
    """Say which data a run takes: a path, a fetched set, or the embedded digits, which are also what smoke is given.

    Raises InputError where nothing of that name is to be had.
    """
    from triptych.data.fetch import SETS, fetched

    if experiment.data is None:
        if data is not None:
            raise wrong("data", f"left away, as {experiment.name} makes its own and reads none", data)
        return Source()
    if data is None and scale is Scale.SMOKE:
        return Source()
    name = experiment.data if data is None else data
    if name == EMBEDDED:
        return Source()
    if data is not None and Path(data).exists():
        return Source.of(data)
    there = fetched(name) if name in SETS else None
    if there is not None:
        return replace(Source.of(there), name=name)
    fetch = f"; `triptych data fetch {name}` gets it" if name in SETS else ""
    if data is None:
        raise InputError(f"{experiment.name} at scale {scale.value} needs --data, the path of {name}{fetch}")
    known = [EMBEDDED, *SETS]
    hint = fetch or nearest(data, known)
    raise InputError(f"data must be one of {', '.join(known)} or a file or folder that exists, got {data!r}{hint}")


def _device(name: str) -> str:
    """The name of a device that is there. Raises InputError."""
    if name == "cpu":  # the engine would load torch
        return name
    from triptych.engine import start

    return str(start(name).device)


def _line(row: Row, fresh: bool) -> str:
    """Say what a row measured, on one line."""
    cell = " ".join(f"{name}={value}" for name, value in row.cell.items())
    numbers = " ".join(
        f"{name}={value if value is None else format(value, '.4g')}" for name, value in row.metrics.items()
    )
    return f"{cell}: {numbers} ({f'{row.seconds:.1f} s' if fresh else 'kept'})"
