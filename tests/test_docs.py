"""The documents: their code runs, their commands parse, the files, names and versions in them are those that exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from cyclopts import CycloptsError, MissingArgumentError

import triptych
from triptych import CCNNClassifier, convex
from triptych.ccnn.estimator import INTERPOLATES
from triptych.ccnn.settings import Layer
from triptych.cli import build
from triptych.convex import LineSearch

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "triptych"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def blocks(text, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """Command lines: those of console blocks, and those between backticks."""
    lines = [line[2:] for block in blocks(text, "console") for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return lines + re.findall(r"`((?:triptych|make|python) [^`]+)`", prose)


def refused(line):
    """Why a command line is none; an empty text where it is one."""
    words = shlex.split(line)
    words = words[1:] if words[0] == "time" else words
    match words:
        case ["triptych", *rest]:
            try:
                build().parse_args(rest, exit_on_error=False, print_error=False)
            except MissingArgumentError:
                return ""  # a command that is only named
            except CycloptsError as error:
                return str(error)
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(STAMPS)", ".venv/stamps")
            return " ".join(one for one in targets if not re.search(rf"^{re.escape(one)}:", makefile, re.MULTILINE))
        case ["python", "-m", "pip", "install", "."]:
            return ""
        case ["python", script, *options]:
            text = (ROOT / script).read_text(encoding="utf-8")
            return " ".join(one for one in options if one.startswith("-") and f'"{one}"' not in text)
        case _:
            return f"{words[0]} is none of the programs that documents call"
    return ""


@every_document
def test_commands_are_commands(document):
    wrong = {line: why for line in commands(document.read_text(encoding="utf-8")) if (why := refused(line))}
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "triptych fits",
        "triptych ccnn fit --out m --size 3",
        "triptych run a --out b --scale huge",
        "make all",
        "python benchmarks/speed.py --fast",
        "curl example.org",
    ],
)
def test_a_wrong_command_would_be_found(line):
    assert refused(line)


@every_document
def test_blocks_fit_the_page(document):
    """A built page shows 90 characters of a block without scrolling."""
    text = document.read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "(?:text|console)") for line in block.splitlines()]
    assert not [line for line in lines if len(line) > 90]


@every_document
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["index.md", "log.md"])
def test_code_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks((ROOT / "docs" / name).read_text(encoding="utf-8"), "python")
    exec(compile(code, name, "exec"), {})
    assert capsys.readouterr().out


def test_the_tree_in_the_architecture_is_the_one_on_the_disk():
    (tree,) = (b for b in blocks((ROOT / "docs/architecture.md").read_text(encoding="utf-8"), "text") if "src/" in b)
    named, folders = set(), {}
    for line in tree.split("\n\ntests/")[0].splitlines()[1:]:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        above = "".join(name for at, name in folders.items() if at < indent)
        words = re.match(r"(?:\S+(?:\.py|/) )*(?:\S+(?:\.py|/))", line.strip())
        assert words, line
        for word in words[0].split():
            if word.endswith("/"):
                folders = {at: name for at, name in folders.items() if at < indent} | {indent: word}
            else:
                named.add(above + word)
    there = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    there = {path for path in there if "/" not in path or not path.endswith("__init__.py")}
    assert named == there


def test_the_api_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    names = [f"`triptych.{name}`" for name in triptych.__all__ if name != "__version__"]
    names += [f":: {name}\n" for name in convex.__all__]
    assert not [name for name in names if name not in page]


def test_how_to_add_names_files_and_lists_that_exist():
    table = CONTRIBUTING.split("<!-- how to add -->")[1].split("<!-- end of how to add -->")[0]
    rows = [row.split("|")[2] for row in table.splitlines() if row.startswith("|")][2:]
    assert len(rows) == 11
    for row in rows:
        files = [SOURCE / path if not path.startswith("tests/") else ROOT / path for path in paths_in(row)]
        assert all(path.exists() for path in files), row
        lists = re.findall(r"`([A-Z]+)`", row)
        assert all(any(re.search(rf"^{one}\b.*=", path.read_text(), re.MULTILINE) for path in files) for one in lists)


def paths_in(row):
    """Paths between backticks that hold no placeholder."""
    return [path for path in re.findall(r"`([a-z0-9_/]+\.py)`", row) if "<" not in path]


def test_the_mathematics_page_has_the_defaults_of_the_code():
    page = " ".join((ROOT / "docs" / "convexified.md").read_text(encoding="utf-8").split())
    layer, search = Layer(), LineSearch()
    assert f"(‖p - mean(p)‖ + {layer.contrast:g})" in page
    assert f"by default {layer.power:g}, is a kernel" in page
    assert f"`tol={CCNNClassifier().tol:g}`, the default" in page
    assert f"above {100 * INTERPOLATES:g} % of the objective" in page
    assert f"grows by {100 * (search.growth - 1):.0f} % an iteration" in page
    assert search.shrink == 0.5
    assert "is halved where" in page


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == triptych.__version__
    assert {"message", "title", "authors", "type", "license", "references"} <= set(citation)
    assert citation["authors"] == [{"name": "The Triptych developers"}]


def test_the_changelog_has_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## .*{re.escape(triptych.__version__)}\b", changelog, re.MULTILINE)


def test_hooks_are_local_and_call_tools_of_the_environment():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")
