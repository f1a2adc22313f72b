"""The plain sections that a report is made of; a report shows them in their order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from triptych.check import InputError, wrong


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 (a chapter, listed in the contents) or 3."""

    kind: ClassVar[str] = "heading"
    text: str
    level: int = 2

    def __post_init__(self) -> None:
        if self.level not in (2, 3):
            raise wrong("level", "2 or 3", self.level)


@dataclass(frozen=True)
class Text:
    """Paragraphs, divided by blank lines."""

    kind: ClassVar[str] = "text"
    text: str

    @property
    def paragraphs(self) -> list[str]:
        """The paragraphs, each on one line."""
        return [" ".join(part.split()) for part in self.text.split("\n\n") if part.strip()]


@dataclass(frozen=True)
class Command:
    """A command line to type."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]
    title: str = ""


@dataclass(frozen=True)
class Entry:
    """One entry of a table: the text, a smaller detail beside it, and whether it is the one to look at."""

    text: str
    detail: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``made`` says above it at which scale and on which data it was made. Raises InputError for a ragged row."""

    kind: ClassVar[str] = "table"
    headers: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    title: str = ""
    note: str = ""
    made: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise wrong("a row of the table", f"of {len(self.headers)} entries", [entry.text for entry in row])

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which are set flush right."""
        columns = ([row[i].text for row in self.rows] for i in range(len(self.headers)))
        return [
            any(t[:1].isdigit() or t[:1] in "-−+." for t in texts if t) and i > 0 for i, texts in enumerate(columns)
        ]


@dataclass(frozen=True)
class Picture:
    """A PNG picture with a text that stands for it where it cannot be seen."""

    kind: ClassVar[str] = "picture"
    png: bytes
    alt: str
    title: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise wrong("alt", "a text that says what the picture shows", self.alt)


@dataclass(frozen=True)
class Gallery:
    """Small pictures, each with its caption; ``large`` where each is a grid of pictures itself."""

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]
    title: str = ""
    caption: str = ""
    large: bool = False


@dataclass(frozen=True)
class Series:
    """One curve: y over x; ``marked`` is the index of a point with a dot. Raises InputError where they differ in length or are empty."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    marked: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not len(self.x) or len(self.x) != len(self.y):
            raise InputError(
                f"series {self.name!r} must have as many x as y and at least one, got {len(self.x)} and {len(self.y)}"
            )


@dataclass(frozen=True)
class Curves:
    """Curves in one diagram; a logarithmic axis leaves values that are not positive out."""

    kind: ClassVar[str] = "curves"
    series: Sequence[Series]
    title: str
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.series:
            raise wrong("series", "at least one curve", self.series)

    @property
    def alt(self) -> str:
        """A text that stands for the diagram."""
        return (
            f"{self.title}: {self.y_label} over {self.x_label} for {', '.join(series.name for series in self.series)}"
        )


Section = Heading | Text | Command | Facts | Table | Picture | Gallery | Curves
