"""The report of a run, and the list of recipes."""

import json

import pytest
from PIL import Image

from triptych import load
from triptych.cli import main
from triptych.cli.gan_report import run_sections
from triptych.gan.folder import Run


def test_a_report_of_a_run_shows_it(gan_run, tmp_path, said):
    lines = (gan_run / "metrics.jsonl").read_text()
    back = {"rollback": 1, "from": 3, "to": 2, "reason": "gap is nan", "rate_scale": 0.5, "noise_seed": 9}
    (gan_run / "metrics.jsonl").write_text(json.dumps(back) + "\n" + lines)
    said("report", gan_run, "--out", tmp_path / "page")
    text = (tmp_path / "page" / "report.md").read_text()
    assert "4 of 4 steps, in which the critic saw 80 images" in text
    for word in (
        "## Samples",
        "after step 4",
        "The course of the run",
        "**Losses**",
        "**gap**",
        "**penalty**",
        "**Speed**",
        "gap is nan",
    ):
        assert word in text
    assert "- recipe.objective.kind: WassersteinGP" in text
    assert "triptych gan train wgan-gp --out RUN" in text
    assert f"sha256:{load('digits', limit=40).checksum()}" in text
    page = (tmp_path / "page" / "report.html").read_text()
    assert "critic loss" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_reports_curves_are_the_logged_numbers_and_times_of_all_sittings(gan_run):
    metrics = [json.loads(line) for line in (gan_run / "metrics.jsonl").read_text().splitlines()]
    for line, seconds in zip(metrics, (1.0, 2.5, 0.5, 1.5)):  # a second sitting begins at the third line
        line["time_seconds"] = seconds
    (gan_run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    sections = run_sections(gan_run)
    curves = {section.title: section for section in sections if section.kind == "curves"}
    (gap,) = curves["gap"].series
    assert (list(gap.x), list(gap.y)) == ([1, 2, 3, 4], [line["gap"] for line in metrics])
    assert [series.name for series in curves["Losses"].series] == ["critic loss", "generator loss"]
    assert "4.0 seconds of training, 20 images/s" in sections[0].text
    (gan_run / "metrics.jsonl").unlink()
    assert any("No step has been logged" in getattr(section, "text", "") for section in run_sections(gan_run))


def test_a_long_run_has_thinned_curves(gan_run):
    line = Run.open(gan_run).metrics()[-1]
    (gan_run / "metrics.jsonl").write_text(
        "".join(json.dumps({**line, "step": i, "gap": i}) + "\n" for i in range(1, 3001))
    )
    (curve,) = [s for s in run_sections(gan_run) if s.kind == "curves" and s.title == "gap"]
    (series,) = curve.series
    assert len(series.x) == 1000
    assert (series.x[0], series.x[-1]) == (1, 3000)
    assert list(series.x) == list(series.y)


def test_the_best_score_of_a_long_run_is_not_thinned_away(gan_run):
    line = Run.open(gan_run).metrics()[-1]
    kids = {i: 0.001 if i == 5 else 1 + i for i in range(1, 3001)}
    text = "".join(json.dumps({**line, "step": i, "kid": kid}) + "\n" for i, kid in kids.items())
    (gan_run / "metrics.jsonl").write_text(text)
    (curve,) = [s for s in run_sections(gan_run) if s.kind == "curves" and s.title == "kid while it trained"]
    (series,) = curve.series
    assert (series.x[series.marked], series.y[series.marked]) == (5, 0.001)
    assert (series.x[0], series.x[-1]) == (1, 3000)
    assert 999 <= len(series.x) <= 1000
    assert "lowest, 0.001, at step 5." in curve.caption


@pytest.mark.filterwarnings("default")
def test_damaged_and_foreign_pictures_are_left_out(gan_run, capsys):
    """Torn, empty and of another size: a warning each; under another name: none."""
    samples = gan_run / "samples"
    whole = (samples / "00000004.png").read_bytes()
    torn = {"00000005.png": whole[: len(whole) // 2], "00000006.png": b""}
    for name, data in torn.items():
        (samples / name).write_bytes(data)
    for name, size in (("00000003.png", (9, 9)), ("2024-mine.png", (3, 3)), ("7.png", (3, 3))):
        Image.new("L", size).save(samples / name)
    assert main(["report", str(gan_run)]) == 0
    lines = capsys.readouterr().err.splitlines()
    folder = gan_run.resolve() / "samples"
    told = {f"triptych: warning: {folder / name} is damaged and is left out of the report" for name in torn}
    told.add(
        f"triptych: warning: {folder}/00000003.png has another size than the newest grid and is left out of the report"
    )
    assert set(lines) == told
    text = (gan_run / "report.md").read_text()
    assert "after step 4" in text
    assert "row by row after step 2, 4" in text


@pytest.mark.filterwarnings("default")
def test_a_run_whose_grids_are_all_damaged_has_a_report_without(gan_run):
    for path in (gan_run / "samples").iterdir():
        path.write_bytes(b"torn")
    assert main(["report", str(gan_run)]) == 0
    assert "## Samples" not in (gan_run / "report.md").read_text()


def test_the_list_has_the_recipes(capsys, said):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "wgan-gp-resnet  Residual networks; " in out
    data, _ = said("list")
    assert [one["name"] for one in data["recipes"]] == [
        "goodfellow",
        "dcgan",
        "lsgan",
        "wgan",
        "wgan-gp",
        "wgan-gp-resnet",
    ]
