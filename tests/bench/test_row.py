import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from triptych.bench import child, machine
from triptych.bench.row import (
    Context,
    Row,
    Scale,
    Source,
    checked_metrics,
    key,
    read_row,
    read_rows,
    write_artefact,
    write_row,
)
from triptych.check import InputError


def row(**changes) -> Row:
    values = {
        "experiment": "toy2020.table1",
        "scale": Scale.SMOKE,
        "seed": 0,
        "cell": {"system": "a"},
        "metrics": {"error_percent": 1.5, "rank": None},
        "published": None,
        "seconds": 1.0,
        "cpu_seconds": 2.0,
        "peak_rss_mb": 100.0,
        "artefacts": {},
        "provenance": {"data": {"name": "digits", "checksum": "embedded"}, "experiment_version": 3},
    }
    return Row(**{**values, **changes})


def test_the_key_depends_on_everything_that_a_row_depends_on():
    """Nine keys that differ in one thing each are nine keys; where the data lie is not one of these things."""
    base, digits = Context(), Source("digits", "embedded")
    keys = [
        key("e", 1, {"a": 1}, base),
        key("f", 1, {"a": 1}, base),
        key("e", 2, {"a": 1}, base),
        key("e", 1, {"a": 2}, base),
        key("e", 1, {"a": "1"}, base),
        key("e", 1, {"a": 1}, replace(base, scale=Scale.PAPER)),
        key("e", 1, {"a": 1}, replace(base, seed=1)),
        key("e", 1, {"a": 1}, replace(base, data=replace(digits, name="mnist"))),
        key("e", 1, {"a": 1}, replace(base, data=replace(digits, checksum="0"))),
    ]
    assert all(a != b for a, b in combinations(keys, 2))
    assert key("e", 1, {"a": 1}, replace(base, data=replace(digits, path=Path("/elsewhere")))) == keys[0]
    assert key("e", 1, {"b": 1, "a": 2}, base) == key("e", 1, {"a": 2, "b": 1}, base)


def test_data_are_identified_by_their_bytes_and_names(tmp_path):
    """A moved copy is the same; one changed byte or name is another; hidden files and their order on disk do not count."""
    for number, folder in enumerate(("one/set", "two/set", "three/set", "four/set")):
        base = tmp_path / folder
        (base / "sub").mkdir(parents=True)
        for name in ("x", "sub/y") if number % 2 else ("sub/y", "x"):
            (base / name).write_text(name)
    (tmp_path / "two/set/.cache").write_text("hidden")
    (tmp_path / "two/set/.git").mkdir()
    (tmp_path / "two/set/.git/config").write_text("hidden")
    (tmp_path / "three/set/x").write_text("z")
    (tmp_path / "four/set/x").rename(tmp_path / "four/set/w")
    one, two, three, four = (Source.of(tmp_path / f"{name}/set") for name in ("one", "two", "three", "four"))
    assert (one.name, one.checksum) == (two.name, two.checksum)
    assert len({one.checksum, three.checksum, four.checksum}) == 3
    assert Source.of(tmp_path / "one/set/x").checksum != Source.of(tmp_path / "three/set/x").checksum
    (tmp_path / "one/set/loop").symlink_to(tmp_path / "one")
    assert Source.of(tmp_path / "one/set").checksum == one.checksum


def test_a_row_survives_its_file(tmp_path):
    name = "0123456789abcdef.json"
    write_row(tmp_path / name, row())
    assert read_row(tmp_path / name) == row()
    saved = json.loads((tmp_path / name).read_text())
    assert {
        "experiment",
        "scale",
        "seed",
        "cell",
        "metrics",
        "published",
        "seconds",
        "peak_rss_mb",
        "artefacts",
    } <= set(saved)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub").mkdir()
    write_row(tmp_path / "sub" / name, row(seed=1))
    assert [found.seed for found in read_rows(tmp_path)] == [0, 1]
    assert read_rows(tmp_path / "sub")[0].folder == tmp_path / "sub"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"scale": "huge"}', "7"])
def test_a_damaged_row_is_one_sentence(tmp_path, text):
    path = tmp_path / "0123456789abcdef.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"0123456789abcdef\.json must be a"):
        read_rows(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "1", [1], np.float32("nan")], ids=repr)
def test_metrics_are_finite_numbers_or_none(value):
    with pytest.raises(InputError, match="metric 'm' must be a finite number or None"):
        checked_metrics({"m": value})
    with pytest.raises(InputError):
        row(metrics={"m": value})


def test_metrics_become_plain_numbers():
    plain = checked_metrics({"a": np.float32(0.5), "b": torch.tensor(3), "c": 2, "d": None})
    assert plain == {"a": 0.5, "b": 3, "c": 2, "d": None}
    assert json.loads(json.dumps(plain)) == plain


def test_artefacts_are_tensors_or_json(tmp_path):
    assert write_artefact(tmp_path, "w", {"a": torch.ones(2), "b": np.zeros(3)}) == "w.safetensors"
    assert write_artefact(tmp_path, "c", {"a": [1, 2]}) == "c.json"
    assert write_artefact(tmp_path, "e", {}) == "e.json"
    with pytest.raises(InputError, match="JSON"):
        write_artefact(tmp_path, "n", [float("nan")])


def test_the_child_in_this_process(toy, tmp_path):
    """The same law as in a process of its own: a job file in, a result file out."""
    context = child.described(Context(Scale.LAPTOP, 4, Source("x", "y", tmp_path)))
    job = {"measure": ["triptych_toy", "measure"], "cell": ["triptych_toy", "Cell"], "context": context}
    (tmp_path / "job.json").write_text(json.dumps({**job, "fields": {"system": "a", "size": 2}}))
    assert child.main(tmp_path) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["error_percent"] == 24
    assert result["artefacts"] == {"curve": "curve.json", "filters": "filters.safetensors"}
    (tmp_path / "job.json").write_text(json.dumps({**job, "fields": {"system": "fails"}}))
    assert child.main(tmp_path) == 1
    assert json.loads((tmp_path / "error.json").read_text())["message"] == "the sky fell"


def test_the_peak_of_this_process_is_at_least_what_it_holds():
    before = machine.peak_rss_mb()
    block = np.ones(20_000_000)
    assert machine.peak_rss_mb() >= max(block.nbytes / 1e6, before)
