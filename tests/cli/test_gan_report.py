"""The report of a run, and the list of recipes."""

import json

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
