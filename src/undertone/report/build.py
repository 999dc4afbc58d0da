"""The report: one HTML page that holds everything it shows and loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup

from undertone import tables
from undertone.paths import Location
from undertone.records import EMOTIONS
from undertone.report import figures
from undertone.report.empathy import block
from undertone.report.funnel import ABOUT, funnel_figures, funnel_sheets, tuning_figure, unlabelled
from undertone.report.inputs import ReportInputs
from undertone.report.listen import listen
from undertone.report.scores import labeller_view, study_view
from undertone.report.shipped import rendered, shipped

_SECTIONS = (
    ("result", "Result"),
    ("empathy", "Empathy"),
    ("clips", "Listen"),
    ("labeller", "Labeller"),
    ("condensation", "Condensation"),
    ("training", "Training"),
    ("method", "Method"),
    ("sources", "What went in"),
    ("run", "This run"),
)


def build(inputs: ReportInputs, out: Location) -> Location:
    """Write the report as `index.html` and return its path.

    The page is written beside its place and renamed, so that a page that exists is whole. Equal inputs give equal pages. Clips whose
    audio cannot be read say why; nothing else is read from disk.

    Args:
        inputs: What the page shows.
        out: The folder; made if it is not there.
    """
    page = out / "index.html"
    tables.write_bytes(page, render(inputs).encode())
    return page


def render(inputs: ReportInputs) -> str:
    """The page as text. Everything that came from data is escaped by the template; only our own figures, style and script are not."""
    script = shipped("page.js")
    values = {
        "run": inputs.run,
        "sections": [one for one in _SECTIONS if one[0] != "empathy" or inputs.empathy is not None],
        "css": Markup(shipped("page.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        "study": study_view(inputs.study) if inputs.study else None,
        "empathy": block(inputs.empathy) if inputs.empathy is not None else "",
        "clips": listen(inputs.clips, systems=tuple(inputs.systems)),
        "emotions": _emotions(inputs),
        "labeller": labeller_view(inputs.labeller) if inputs.labeller else None,
        "labeller_card": inputs.labeller_card,
        **_funnel(inputs),
        **_losses(inputs),
        "systems": _systems(inputs),
        "notes": inputs.notes,
        "sources": inputs.sources,
        "pairs_page": inputs.pairs_page,
        "sweep_page": inputs.sweep_page,
    }
    return rendered("page.html.jinja", values, filters={"signed": _signed})


def _systems(inputs: ReportInputs) -> dict[str, str]:
    """What each system of this study is; all that are described where there is no study table."""
    if inputs.study is None:
        return inputs.systems
    return {row.subject: inputs.systems.get(row.subject, "Not described in this run.") for row in inputs.study.rows}


def _emotions(inputs: ReportInputs) -> list[str]:
    """The emotions that the strips of the clips show, for their key."""
    segments = (one for view in inputs.clips for one in (*view.clip.segments, *view.predicted))
    seen = {label.category for segment in segments for label in segment.of("emotion")}
    return [one for one in EMOTIONS if one in seen]


def _funnel(inputs: ReportInputs) -> dict[str, object]:
    found = inputs.funnel if inputs.funnel and inputs.funnel.steps else None
    drawn = funnel_figures(found) if found else ("", "")
    return {
        "funnel": funnel_sheets(found) if found else (),
        "funnel_about": ABOUT,
        "funnel_figure": Markup(drawn[0]),
        "lost_figure": Markup(drawn[1]),
        "funnel_emotions": [one for one in EMOTIONS if found and one in found.emotions],
        "funnel_unlabelled": found is not None and unlabelled(found),
        "tuning_figure": Markup(tuning_figure(inputs.tuning)) if inputs.tuning else "",
        "tuning_line": inputs.tuning.line() if inputs.tuning else "",
    }


def _losses(inputs: ReportInputs) -> dict[str, object]:
    curves = [(one.system, one.points) for one in inputs.losses if one.points]
    drawn = figures.loss_curves(curves, title="Training loss by step, one panel per system") if curves else ""
    return {"loss_figure": Markup(drawn), "losses_empty": [one.system for one in inputs.losses if not one.points]}


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
