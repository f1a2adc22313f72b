"""A run's verdict in words, from what it logged: collapse, overfitting, divergence, or none of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

LAST = 5  # measurements that speak for the end of a run
COLLAPSED = 0.15  # of the variety of real images
LEARNED = 0.3  # of the training gap that held-out images do not show
SURE = 4.0  # standard errors
NEEDED = {"variety", "train_gap", "held_out_gap", "gap_error"}


@dataclass(frozen=True)
class Verdict:
    """``kind``: 'collapse', 'overfitting', 'divergence', 'none', or 'unknown' where nothing was measured; ``text`` says why."""

    kind: str
    text: str


def verdict(lines: Sequence[Mapping[str, Any]]) -> Verdict:
    """The verdict on the lines of metrics.jsonl, by the last measurements on held-out images. The worst that holds is said.

    Divergence: the guard rolled the run back, and fewer than five measurements were made since. Collapse: the median ``variety`` of the
    last five is below 0.15: generated images are so much nearer to each other than real ones. Overfitting: the critic's gap on training
    images exceeds that on held-out ones by more than 0.3 of itself and by four standard errors, in the median of the last five (Gulrajani
    et al., NeurIPS 2017, Figure 5 b).
    """
    last = max((i for i, line in enumerate(lines) if "rollback" in line), default=-1)
    seen = [line for line in lines[last + 1 :] if line.keys() >= NEEDED][-LAST:]
    back = "" if last < 0 else _rolled_back(lines[last])
    if back and len(seen) < LAST:
        return Verdict("divergence", f"{back} Try smaller rates.")
    found = _measured(seen)
    return Verdict(found.kind, f"{back} It has gone on since. {found.text}") if back else found


def _rolled_back(last: Mapping[str, Any]) -> str:
    times = f"{last['rollback']} time{'s' if last['rollback'] > 1 else ''}"
    return f"The run diverged {times}, last at step {last['from']:,}: {last['reason']}."


def _measured(seen: Sequence[Mapping[str, Any]]) -> Verdict:
    """The verdict on the last measurements."""
    if not seen:
        return Verdict("unknown", "Nothing was measured on held-out images, so that nothing can be said of the run.")
    spread = median(line["variety"] for line in seen)
    if spread < COLLAPSED:
        return Verdict(
            "collapse",
            f"Collapse: a generated image is {spread:.2g} times as far from the nearest other one as a real image is. Try a gradient "
            "penalty, another seed, or a stronger critic.",
        )
    over = [line["train_gap"] - line["held_out_gap"] for line in seen]
    share = median(d / max(abs(line["train_gap"]), 1e-12) for d, line in zip(over, seen))
    sure = median(d / max(line["gap_error"], 1e-12) for d, line in zip(over, seen))
    if share > LEARNED and sure > SURE:
        return Verdict(
            "overfitting",
            f"Overfitting: {share:.0%} of the critic's gap is on training images alone. Take more images, mirror them, or stop earlier.",
        )
    return Verdict(
        "none",
        f"No collapse, overfitting or divergence: variety {spread:.2f} of that of real images, {max(share, 0.0):.0%} of the critic's gap on "
        "training images alone.",
    )
