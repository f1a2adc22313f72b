"""gan score, neighbours, audit against the metrics themselves; what is kept, and what the report shows of it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from triptych.bench.sections import Curves
from triptych.check import InputError
from triptych.cli import main
from triptych.cli.console import console
from triptych.cli.gan_judge import Judged, features, keep
from triptych.cli.gan_judged import judged_sections
from triptych.data import load
from triptych.gan.folder import Run
from triptych.gan.held_out import HeldOut
from triptych.gan.recover import recover, worse
from triptych.images import Images
from triptych.metrics.audit import InFeatures, UpToShifts, audit
from triptych.metrics.features import Moments, Pixels
from triptych.metrics.frechet import frechet_distance
from triptych.metrics.parzen import parzen
from triptych.store import read_json, write_json

pytestmark = pytest.mark.xdist_group("gan judged")
GAN = ["gan", "train", "wgan-gp", "--width", "2", "--batch", "8", "--steps", "2", "--limit", "200", "--out"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run on 200 digits, of which 20 are held out, in a folder of its own."""
    folder = tmp_path_factory.mktemp("judged") / "run"
    assert main([*GAN, str(folder)]) == 0
    return folder


@pytest.fixture
def run(judged, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    shutil.copytree(judged, tmp_path / "run")
    return tmp_path / "run"


def made(run, n, seed=0):
    return torch.cat(list(Judged.open(run, None).sampler.sample(seed, n)))


def test_scores_are_the_metrics_and_are_kept(run, said):
    data, err = said("gan", "score", run, "--features", "pixels", "--metrics", "fid,pr", "--n", "150", "--seed", "1")
    assert list(data["scores"]) == ["fid", "precision", "recall"]
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))[:150].sort().values
    real = load("digits", limit=200).pixels[order]
    a, b = (Moments.of(Pixels(32)(x).features) for x in (real, made(run, 150, 1)))
    assert data["scores"]["fid"]["value"] == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert (data["extractor"], data["n"], data["step"], data["data"]) == ("pixels at 32", 150, 2, "digits")
    words = ["gan", "score", run, "--features", "pixels", "--n", "150", "--seed", "1"]
    _, err = said(*words)
    assert "is is left out: " in err
    assert "swd is left out: " in err
    kept = read_json(run / "scores.json")
    assert len(kept) == 1
    assert kept[0]["scores"].keys() == {"fid", "precision", "recall", "kid", "ms-ssim", "ms-ssim of real images"}
    said(*words[:-2], "--metrics", "fid")
    assert len(read_json(run / "scores.json")) == 2


def test_scores_against_other_images_of_one_name_are_apart(run, said, tmp_path):
    """The same number of images in folders of one name: two entries, and none for a second time."""
    from triptych.gan.pictures import pngs

    images = load("digits").pixels
    for number, name in enumerate(("a", "b")):
        (tmp_path / name / "photos").mkdir(parents=True)
        for i, png in enumerate(pngs(images[20 * number : 20 * number + 20])):
            (tmp_path / name / "photos" / f"{i}.png").write_bytes(png)
    for name, metric in (("a", "fid"), ("b", "kid"), ("a", "pr")):
        said("gan", "score", run, "--features", "pixels", "--metrics", metric, "--data", tmp_path / name / "photos")
    kept = [set(entry["scores"]) for entry in read_json(run / "scores.json")]
    assert sorted(kept, key=len) == [{"kid"}, {"fid", "precision", "recall"}]
    said("report", run, "--out", tmp_path / "page")
    assert (tmp_path / "page" / "report.md").read_text().count("**Against photos**") == 2


def test_a_conditional_run_is_not_scored_with_more_classes_than_it_has(gan_runs):
    judged = Judged.open(gan_runs / "classed", None)
    data = {key: value for key, value in judged.run.config["data"].items() if key != "classes"}
    run = replace(judged.run, config={**judged.run.config, "data": data})
    few = replace(judged, run=run, recipe=judged.recipe.changed(classes=5))
    with pytest.raises(InputError, match="must have the run's 5 classes, got 10"):
        few.images("digits")


def test_the_default_features_are_a_certified_networks_and_are_kept(run, said, tmp_path):
    data, err = said("gan", "score", run, "--metrics", "kid,is")
    assert data["extractor"].startswith("CCNN of 10 classes, 200 images of 8 x 8 (")
    assert 1 <= data["scores"]["is"]["value"] <= 10
    assert data["scores"]["is of real images"]["value"] > 5
    assert "a certified network for features" in err
    assert list((tmp_path / "cache" / "features").iterdir())
    again, err = said("gan", "score", run, "--metrics", "kid,is")
    assert again == data
    assert len(list((tmp_path / "cache" / "extractors").iterdir())) == 1
    assert err.count("features by") == 1  # of the generated ones alone


def test_a_conditional_run_is_scored_with_the_labels_of_the_images(gan_runs):
    judged = Judged.open(gan_runs / "classed", None)
    sampler, pixels = judged.sampler, torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    of = [torch.cat(list(sampler.sample(5, 40, labels=[label]))) for label in (1, 3)]
    found = judged.generated(console(True), 40, 5, Images(pixels, torch.tensor([3, 1, 3, 3]), tuple("0123456789")))
    each = [(found == images).flatten(1).all(1) for images in of]
    assert [int(same.sum()) for same in each] == [10, 30]
    few = judged.generated(console(True), 3, 5, Images(pixels, torch.tensor([3, 1, 3, 3]), tuple("0123456789")))
    assert torch.equal(few, found[:3])
    in_turn = judged.generated(console(True), 40, 5)
    assert torch.equal(in_turn, torch.cat(list(sampler.sample(5, 40))))


def test_neighbours_are_drawn_below_their_samples(run, said, tmp_path):
    words = ["gan", "neighbours", run, "--features", "pixels", "--n", "5", "--k", "2"]
    data, _ = said(*words)
    found = data["by"]["pixels"]
    images = load("digits", limit=200).pixels
    d = torch.cdist(made(run, 5).flatten(1).double(), images.flatten(1).double())
    assert np.array_equal(found["images"], d.argsort(1)[:, :2])
    with Image.open(run / "neighbours.png") as file:
        picture = np.asarray(file)
    assert picture.shape == (7 * 66 - 2, 5 * 66 - 2)
    first, nearest = picture[:64:8, :64:8], picture[2 * 66 : 2 * 66 + 64 : 8, :64:8]
    assert (first == made(run, 5)[0, 0].numpy()).all()
    assert (nearest == images[found["images"][0][0], 0].numpy()).all()
    cropped, _ = said(*words, "--crop", "2,0,4,8", "--out", tmp_path / "c.png")
    d = torch.cdist(made(run, 5)[..., 2:6].flatten(1).double(), images[..., 2:6].flatten(1).double())
    assert np.array_equal(cropped["by"]["pixels"]["images"], d.argsort(1)[:, :2])


def test_the_audit_is_of_what_was_trained_on_and_what_was_held_out(run, said):
    data, _ = said("gan", "audit", run, "--features", "pixels", "--n", "40", "--shift", "1")
    images = load("digits", limit=200)
    held = HeldOut.tenth(images, 8)
    assert (data["samples"], data["train"], data["held_out"]) == (40, 180, 20)
    parts = [images.pixels[i] for i in (held.train_index, held.index)]
    expected = audit(made(run, 40), *parts, [UpToShifts(shift=1), InFeatures(Pixels(32))])
    assert data["p_value"] == expected.p_value
    assert data["verdict"] == expected.verdict()
    with Image.open(run / "audit.png") as picture:
        assert picture.size[0] == 3 * 66 - 2


def test_held_out_images_may_be_named(run, said, tmp_path):
    from triptych.gan.pictures import pngs

    (tmp_path / "other").mkdir()
    for i, png in enumerate(pngs(load("digits").pixels[300:340])):
        (tmp_path / "other" / f"{i:03}.png").write_bytes(png)
    words = ["gan", "audit", run, "--features", "pixels", "--n", "20", "--held-out", tmp_path / "other"]
    data, _ = said(*words)
    assert (data["train"], data["held_out"]) == (180, 40)
    (tmp_path / "more").mkdir()
    for i, png in enumerate(pngs(load("digits").pixels[400:460])):
        (tmp_path / "more" / f"{i:03}.png").write_bytes(png)
    data, _ = said(*words, "--data", tmp_path / "more")
    assert (data["train"], data["held_out"]) == (60, 40)
    new = tmp_path / "new"
    said(*GAN, new, "--held-out", tmp_path / "other")
    assert Run.open(new).config["held_out"]["images"] == 40
    data, _ = said("gan", "audit", new, "--features", "pixels", "--n", "20")
    assert (data["train"], data["held_out"]) == (200, 40)


def test_pictures_are_found_again_and_compared(run, said):
    data, _ = said("gan", "recover", run, "--n", "6", "--steps", "5")
    judged = Judged.open(run, None)
    train, held = judged.apart(None, None)
    errors = []
    for images in (train, held):
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:6]
        errors.append(recover(judged.sampler, images.pixels[chosen], steps=5).error)
    assert data["train_error"] == pytest.approx(float(errors[0].median()))
    assert data["p_value"] == pytest.approx(worse(*errors))
    with Image.open(run / "recovered.png") as picture:
        assert picture.size == (6 * 66 - 2, 4 * 66 - 2)


def test_images_that_changed_since_cannot_be_audited(run, tmp_path, capsys, said):
    """A tenth of another set is another tenth."""
    from triptych.gan.pictures import pngs

    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, png in enumerate(pngs(load("digits").pixels[:100])):
        (folder / f"{i:03}.png").write_bytes(png)
    new = tmp_path / "new"
    said(*GAN, new, "--data", folder)
    said("gan", "audit", new, "--features", "pixels", "--n", "10")
    (folder / "000.png").rename(folder / "zzz.png")
    (tmp_path / "other").mkdir()
    for i, png in enumerate(pngs(load("digits").pixels[300:340])):
        (tmp_path / "other" / f"{i:03}.png").write_bytes(png)
    capsys.readouterr()
    of_all = (["audit"], ["audit", "--held-out", str(tmp_path / "other")], ["score"], ["neighbours"])
    for words in of_all:
        assert main(["gan", words[0], str(new), "--features", "pixels", "--n", "10", *words[1:]]) == 2
        assert "must hold the images that the run had, but it holds others now" in capsys.readouterr().err
    said("gan", "score", new, "--features", "pixels", "--metrics", "fid", "--n", "10", "--data", folder)


def test_kept_features_are_those_of_their_network(run, monkeypatch):
    """Two networks of one name: the second does not find the first's."""

    class Named(Pixels):
        name, digest, times = "a network", "", 1

        def __call__(self, images):
            return replace(found := super().__call__(images), features=found.features * self.times)

    images, first, second = load("digits", limit=5).pixels, Named(), Named()
    for one, times in ((first, 1), (second, 2)):
        object.__setattr__(one, "times", times)
        object.__setattr__(one, "digest", str(times))
    found = [features(console(True), one, images, True).features for one in (first, second, first)]
    assert torch.equal(2 * found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_kept_extractor_tells_its_weights(run):
    from triptych.ccnn.extractor import kept_extractor

    a, b, again = (kept_extractor(load("digits", limit=n)) for n in (120, 140, 120))
    assert len(a.digest) == 64
    assert a.digest == again.digest != b.digest


def test_parzen_is_scored_where_it_is_asked_for(run, said):
    data, _ = said("gan", "score", run, "--features", "pixels", "--metrics", "parzen", "--n", "60")
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:60].sort().values
    real, images = (x.flatten(1).double() / 255 for x in (load("digits", limit=200).pixels[order], made(run, 60)))
    half = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    expected = parzen(images, real[half[:30]], validation=real[half[30:]])
    assert data["scores"]["parzen"] == {"value": expected.mean, "spread": expected.standard_error, "less": False}
    assert "parzen" not in said("gan", "score", run, "--features", "pixels", "--n", "60", "--seed", "2")[0]["scores"]


def test_audits_of_other_settings_stand_beside_each_other(run, said, tmp_path):
    words = ["gan", "audit", run, "--n", "20"]
    said(*words, "--features", "pixels", "--shift", "1")
    said(*words, "--features", "pixels", "--shift", "2")
    said(*words, "--features", "ccnn", "--shift", "2", "--out", tmp_path / "audit.png")
    said(*words, "--features", "pixels", "--shift", "1")
    kept = read_json(run / "audit.json")
    assert [(entry["shift"], entry["features"][:6]) for entry in kept] == [(2, "pixels"), (2, "CCNN o"), (1, "pixels")]
    assert [entry["picture"] for entry in kept] == [None, None, "audit.png"]
    kept[0] |= {"p_value": 0.001, "verdict": "memorised: so it is"}
    write_json(run / "audit.json", kept)
    said("report", run, "--out", tmp_path / "page")
    page = (tmp_path / "page" / "report.md").read_text()
    assert page.count("of memorisation among 20 samples") == 2
    assert "Memorised: so it is. Against 180 training and 20 held-out images of digits, by pixels" in page
    said("gan", "export", run, "--folder", tmp_path / "card")
    card = (tmp_path / "card" / "README.md").read_text()
    assert card.count("20 samples, 180 training and 20 held-out images of digits, by ") == 3


def test_the_reports_picture_is_of_the_entry_that_wrote_it_last(run):
    """Whatever entries without one came since."""
    same = ("step",)
    for step, picture in ((1, "p.png"), (2, "p.png"), (1, None), (3, None), (2, None)):
        keep(run, "kept.json", {"step": step, "picture": picture}, same)
    told = {entry["step"]: entry["picture"] for entry in read_json(run / "kept.json")}
    assert told == {1: None, 2: "p.png", 3: None}


def test_a_picture_that_was_written_elsewhere_is_not_the_reports(run, said, tmp_path):
    words = ["gan", "neighbours", run, "--features", "pixels", "--n", "4"]
    said(*words)
    said("report", run, "--out", tmp_path / "one")
    said(*words, "--seed", "5", "--out", tmp_path / "neighbours.png")
    said("report", run, "--out", tmp_path / "two")
    said(*words, "--out", tmp_path / "again.png")
    said("report", run, "--out", tmp_path / "three")
    pages = [(tmp_path / name / "report.md").read_text() for name in ("one", "two", "three")]
    assert ["## Neighbours" in page for page in pages] == [True, True, True]
    (run / "neighbours.png").unlink()
    write_json(run / "neighbours.json", read_json(run / "neighbours.json")[:1])
    said(*words, "--seed", "7", "--out", tmp_path / "neighbours.png")
    said("report", run, "--out", tmp_path / "four")
    assert "## Neighbours" not in (tmp_path / "four" / "report.md").read_text()


def test_scores_of_several_steps_are_curves_with_the_best_marked(run, said, tmp_path):
    said("gan", "score", run, "--features", "pixels", "--metrics", "fid,pr", "--n", "50")
    entries = read_json(run / "scores.json")
    other = {**entries[0], "step": 1, "scores": {name: dict(s) for name, s in entries[0]["scores"].items()}}
    other["scores"]["fid"]["value"] /= 2
    write_json(run / "scores.json", [*entries, other])
    curves = [section for section in judged_sections(run) if isinstance(section, Curves)]
    assert [curve.title for curve in curves] == [f"{name} over the run" for name in ("fid", "precision", "recall")]
    assert list(curves[0].series[0].x) == [1, 2]
    assert curves[0].series[0].marked == 0
    assert "the lowest" in curves[0].caption
    assert "at step 1." in curves[0].caption
    assert (curves[1].series[0].marked, curves[1].caption) == (None, "")
    other["scores"]["precision"]["value"] += 0.125
    write_json(run / "scores.json", [*entries, other])
    higher = [section for section in judged_sections(run) if isinstance(section, Curves)][1]
    assert higher.series[0].marked == 0
    assert "the highest" in higher.caption
    third = {
        **other,
        "seed": 1,
        "scores": {name: {**s, "value": s["value"] - 1} for name, s in other["scores"].items()},
    }
    write_json(run / "scores.json", [*entries, other, third, {**third, "step": 2}])
    (fid, *_) = [section for section in judged_sections(run) if isinstance(section, Curves)]
    assert [series.name for series in fid.series] == ["fid, seed 0, labels none", "fid, seed 1, labels none"]
    assert [series.marked for series in fid.series] == [0, None]
    said("gan", "export", run, "--folder", tmp_path / "card")
    assert f"| {entries[0]['real'][:8]}" not in (tmp_path / "card" / "README.md").read_text()
    assert f"| digits ({entries[0]['real'][:8]}) | 50 | pixels at 32 |" in (tmp_path / "card" / "README.md").read_text()


def test_damaged_scores_are_refused_before_anything_is_computed(run, capsys):
    write_json(run / "scores.json", ["a"])
    assert main(["gan", "score", str(run)]) == 2
    assert "scores.json must be what `triptych gan` wrote" in capsys.readouterr().err


def test_the_report_shows_what_was_judged(run, said):
    said("gan", "score", run, "--features", "pixels", "--metrics", "fid")
    said("gan", "neighbours", run, "--features", "pixels")
    said("gan", "audit", run, "--features", "pixels", "--n", "20")
    said("gan", "recover", run, "--n", "4", "--steps", "2")
    assert main(["report", str(run)]) == 0
    text = (run / "report.md").read_text()
    for word in (
        "## Verdict",
        "## Scores",
        "## Neighbours",
        "## Memorisation",
        "fid",
        "pixels at 32",
        "o sign of memor",
    ):
        assert word in text
    assert "The critic's gap on images that it was trained on" in text
    write_json(run / "scores.json", [{"no": 1}])
    assert main(["report", str(run)]) == 2


REFUSED = {
    "an unknown metric": (
        ["score", "--metrics", "fid,kids"],
        "metrics must be of fid, kid, is, pr, swd, ms-ssim, parzen",
    ),
    "is of pixels": (["score", "--features", "pixels", "--metrics", "is"], "metrics must leave is away"),
    "swd of small images": (["score", "--features", "pixels", "--metrics", "swd"], "at least 16"),
    "unknown features": (["score", "--features", "vg"], "features must be one of ccnn, pixels, inception, vgg"),
    "no weights": (["score", "--features", "vgg"], "`triptych data fetch vgg16`"),
    "weights of nothing": (["score", "--features", "pixels", "--weights", "f.pth"], "weights must be left away"),
    "missing weights": (["score", "--features", "inception", "--weights", "f.pth"], "f.pth"),
    "one image": (["score", "--n", "1"], "n must be a whole number from 2 to 200"),
    "too many": (["score", "--n", "201"], "n must be a whole number from 2 to 200"),
    "no data": (["score", "--data", "nowhere"], "nowhere"),
    "other images": (["score", "--data", "stacked_digits"], "must be of 1 x 8 x 8, as the run's are, got 3 x 8 x 8"),
    "a split of the run's own": (["score", "--split", "test"], "split must be left away where --data is"),
    "a torn crop": (["neighbours", "--crop", "1,2,3"], "crop must be x,y,w,h"),
    "a crop outside": (["neighbours", "--crop", "5,0,4,8"], "crop must lie within the images, 8 wide and 8 high"),
    "no neighbour": (["neighbours", "--features", "pixels", "--k", "201"], "k must be at most the 200 images"),
    "a folder to draw in": (["neighbours", "--out", "."], "out must be a file named *.png"),
    "no such device": (["score", "--device", "tpu"], "device must be"),
    "a split of one's own": (["audit", "--split", "test"], "split must be left away where --data is"),
    "an unknown split": (["audit", "--data", "digits", "--split", "x", "--held-out", "digits"], "split"),
    "a split to recover": (["recover", "--split", "test"], "split must be left away where --data is"),
    "features to recover by": (["recover", "--features", "pixels"], "--features"),
    "held out of what was trained on": (
        ["audit", "--data", "digits", "--held-out", "digits"],
        "1,797 of 1,797 are in both",
    ),
    "other data": (["audit", "--data", "digits"], "held-out must be named"),
    "a wide shift": (["audit", "--features", "pixels", "--shift", "4"], "less than half"),
    "no steps": (["recover", "--steps", "0"], "steps must be a whole number of at least 1"),
    "more pictures than are held out": (["recover", "--n", "21"], "n must be a whole number from 2 to 20"),
    "no run": (["audit"], "must be a run"),
}


@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_wrong_use_is_refused_in_one_sentence(run, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in run.iterdir())
    place = "." if says == "must be a run" else "run"
    assert main(["gan", words[0], place, *words[1:]]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("triptych: ")
    if says != "must be a run":
        assert says in last
    assert sorted(path.name for path in run.iterdir()) == before
