"""The report from made-up inputs: tones for speech, answers drawn by chance, one answer that tries to be a script."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from undertone import tables
from undertone.audio import Wave, write
from undertone.condense.funnel import Funnel, Source, Step
from undertone.evaluate import study_table
from undertone.evaluate.labeller_report import GroupReport, LabellerReport
from undertone.evaluate.metrics import class_metrics
from undertone.execute import write_rows
from undertone.records import HUMAN, Answer, Clip, Kind, Label, QAPair, Record, Segment, Verdict
from undertone.report import figures
from undertone.report.build import build, render
from undertone.report.choose import choose_clips
from undertone.report.gather import _clips as gathered_clips
from undertone.report.inputs import SYSTEMS, AnswerView, ClipView, LossCurve, ReportInputs, RunFacts, SourceRow
from undertone.report.listen import listen
from undertone.report.scores import study_view
from undertone.tables import Fingerprint

ATTACK = '<script>alert("heard")</script>'
RATES = {
    "S10": 0.42,
    "S20": 0.5,
    "S30": 0.58,
    "S31": 0.55,
    "S32": 0.66,
    "words only": 0.4,
    "metadata only": 0.47,
    "majority answer": 0.25,
}
EMOTIONS = ("neutral", "happy", "angry", "sad", "surprised")
LINES = (
    "I thought the train left at nine, so I ran the whole way to the station.",
    "Nobody told me that the meeting had been moved again.",
    "Well, that is the best news I have had all week.",
    "Put the boxes down by the door and come inside.",
    "I do not know what else I could have said to her.",
    "Did you see how high the river came up last night?",
)
QUESTIONS: tuple[tuple[Kind, str, str, str | None], ...] = (
    (
        "CE",
        "How does the speaker feel while talking about what happened at the station?",
        "The speaker sounds {emotion}.",
        "emotion",
    ),
    ("CG", "Is the person who mentions the door a man or a woman?", "A woman.", "gender"),
    ("C", "What did the speaker do after hearing about the train?", "The speaker ran the whole way to the station.", None),
    ("DE", "Which emotion is heard?", "{emotion}", "emotion"),
    ("DG", "What is the gender of the speaker?", "Female.", "gender"),
)


def tone(seconds: float, pitch_hz: float) -> Wave:
    """A gliding tone with a syllable-like envelope, as a stand-in for speech."""
    at = np.arange(int(16_000 * seconds)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * pitch_hz * at + 2 * np.sin(2 * np.pi * 0.7 * at)) * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * at))
    return Wave(wave.astype(np.float32), 16_000)


def emotion(name: str, start_ms: int, end_ms: int, *, by: str) -> Label:
    return Label(attribute="emotion", category=name, start_ms=start_ms, end_ms=end_ms, labeller=by)


def make_clip(index: int, folder: Path, rng: np.random.Generator) -> tuple[Clip, list[Segment]]:
    """A clip of four to six lines cut from a recording, and what a labeller with errors heard in it."""
    recording, offset = f"{index:016x}", 1000
    lines, heard, at = [], [], offset
    for turn in range(int(rng.integers(3, 6))):
        length = int(rng.integers(2400, 5200))
        felt = EMOTIONS[int(rng.integers(len(EMOTIONS)))]
        span = {"recording_id": recording, "start_ms": at, "end_ms": at + length}
        speaker = f"demo/voice-{(index + turn % 2) % 4 + 1}"
        text = LINES[(index + turn) % len(LINES)]
        lines.append(Segment(**span, speaker=speaker, transcript=text, labels=(emotion(felt, at, at + length, by=HUMAN),)))
        windows = []
        for start in range(at, at + length - 400, 2000):
            end = min(start + 2000, at + length)
            guess = felt if rng.random() < 0.7 else EMOTIONS[int(rng.integers(len(EMOTIONS)))]
            if rng.random() < 0.08:
                windows.append(
                    Label(attribute="emotion", reason="too_little_speech", start_ms=start, end_ms=end, labeller="affect-small@1")
                )
            else:
                windows.append(emotion(guess, start, end, by="affect-small@1"))
        heard.append(Segment(**span, speaker=speaker, transcript=text, labels=tuple(windows)))
        at += length + 350
    path = folder / f"clip-{index}.wav"
    write(path, tone((at + 500) / 1000, 140 + 25 * index))
    clip = Clip(
        recording_id=recording,
        uri=str(path),
        source=("demo", "tones")[index % 2],
        language="en",
        licence="CC0-1.0",
        split="test",
        start_ms=offset,
        end_ms=at,
        segments=tuple(lines),
    )
    return clip, heard


def make_pairs(clip: Clip) -> list[QAPair]:
    felt = clip.segments[0].category("emotion") or "neutral"
    return [
        QAPair(
            clip_id=clip.id,
            recording_id=clip.recording_id,
            split="test",
            source="benchmark",
            kind=kind,
            question=question,
            answer=answer.format(emotion=felt),
            label_attribute=attribute,
            label={"emotion": felt, "gender": "female"}.get(attribute or ""),
            generator="grammar@1",
        )
        for kind, question, answer, attribute in QUESTIONS
    ]


def make_answers(pairs: list[QAPair], rng: np.random.Generator) -> tuple[list[Answer], list[Verdict]]:
    answers, verdicts = [], []
    for system, rate in RATES.items():
        for pair in pairs:
            right = rng.random() < rate
            wrong = f"The speaker sounds {EMOTIONS[int(rng.integers(5))]}, I think." if pair.kind in ("CE", "DE") else "A man."
            text = pair.answer if right else wrong
            base = {"judge": "reference@1", "subject": system, "pair_id": pair.id}
            if rng.random() < 0.02:
                text = "I cannot tell from this recording."
                verdicts.append(Verdict(**base, unscored="refused"))
            elif pair.kind == "C":
                score = 100.0 if right else float(np.round(rng.uniform(0, 60)))
                text = text if right else "The speaker waited for the train at the station."
                verdicts.append(Verdict(**base, score=score))
            else:
                verdicts.append(Verdict(**base, score=100.0 if right else 0.0, mapped_label=pair.label if right else None))
            answers.append(Answer(subject=system, pair_id=pair.id, text=text, raw=text))
    return answers, verdicts


def make_labeller(rng: np.random.Generator) -> LabellerReport:
    def group(utterances: int, speakers: int, rate: float) -> GroupReport:
        known = [EMOTIONS[int(rng.integers(5))] for _ in range(utterances)]
        heard = [one if rng.random() < rate else None if rng.random() < 0.1 else EMOTIONS[int(rng.integers(5))] for one in known]
        sexes = [("female", "male")[int(rng.integers(2))] for _ in range(utterances)]
        told = [one if rng.random() < 0.93 else "male" for one in sexes]
        return GroupReport(
            utterances=utterances,
            speakers=speakers,
            without_class=3,
            emotion=class_metrics(known, heard),
            gender=class_metrics(sexes, told),
        )

    return LabellerReport(
        labellers=("affect-small@1",), everything=group(800, 8, 0.62), heard=group(500, 5, 0.7), unheard=group(300, 3, 0.5)
    )


def make_funnel() -> Funnel:
    """Steps that lose by several reasons and hold several emotions; the numbers add up."""
    kinds = dict(zip(EMOTIONS, (2.1, 0.7, 0.55, 0.5, 0.35), strict=True))
    path = (
        ("label", "recordings", "segments", 1.0, {}),
        ("quality", "segments", "segments", 0.9, {"too_noisy": 0.06, "clipped": 0.04}),
        ("consistency", "segments", "segments", 0.7, {"category_and_valence_disagree": 0.17, "no_emotion": 0.03}),
        ("clips", "segments", "clips", 0.66, {"clip_too_short": 0.04}),
        ("occurrence", "clips", "clips", 0.4, {"emotion_too_rare": 0.26}),
    )
    made, before, unlabelled = [], 96, 0.3
    for name, unit_in, unit, share, lost in path:
        segments, hours = round(4800 * share), (sum(kinds.values()) + unlabelled) * share
        rows = segments if unit == "segments" else segments // 5
        dropped = {reason: round(before * part / (share + sum(lost.values()))) for reason, part in lost.items()}
        made.append(
            Step(
                name=name,
                unit_in=unit_in,
                unit=unit,
                rows_in=before,
                kept=before - sum(dropped.values()),
                dropped=dropped,
                failed=0,
                lost_hours={reason: hours / share * part for reason, part in lost.items()},
                rows=rows,
                row_hours=hours,
                segments=segments,
                hours=hours,
                emotion_segments={one: round(900 * part * share) for one, part in kinds.items()},
                emotion_hours={one: part * share for one, part in kinds.items()},
            )
        )
        before = rows
    sources = (
        Source(name="demo", licence="Apache-2.0", recordings_in=60, hours_in=3.4, recordings=40, hours=1.2),
        Source(name="tones", licence="CC0-1.0", recordings_in=36, hours_in=2.2, recordings=20, hours=0.6),
    )
    return Funnel(recordings=96, recording_hours=5.6, steps=tuple(made), sources=sources)


def example(folder: Path, *, clips: int = 12) -> ReportInputs:
    """Made-up inputs for every part of the page; the sound files are written to `folder`."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    made = [make_clip(index, folder, rng) for index in range(clips)]
    pairs = [pair for clip, _ in made for pair in make_pairs(clip)]
    answers, verdicts = make_answers(pairs, rng)
    answers[0] = answers[0].model_copy(update={"text": ATTACK})
    return ReportInputs(
        run=RunFacts(
            name="demo",
            created="2026-11-20 10:12 UTC",
            seed=7,
            code_version="0.1.0",
            command="undertone run demo.yaml --seed 7 --workers 2",
            machine="2 cores x86-64, 7.6 GiB, Linux",
            packages={"numpy": "2.3.1", "torch": "2.13.0", "transformers": "5.23.0", "onnxruntime": "1.26.0"},
        ),
        study=study_table.build(verdicts, pairs, resamples=200, seed=7),
        labeller=make_labeller(rng),
        labeller_card="https://example.org/models/affect-small",
        funnel=make_funnel(),
        losses=tuple(
            LossCurve(
                system=system,
                points=tuple((step, 0.6 + 5 * np.exp(-step / 250) + 0.15 * float(rng.normal())) for step in range(0, 1500, 10)),
            )
            for system in ("S10", "S20", "S30", "S32", "words only", "metadata only")
        ),
        clips=choose_clips(
            pairs=pairs,
            clips=[clip for clip, _ in made],
            predicted=[segment for _, heard in made for segment in heard],
            answers=answers,
            verdicts=verdicts,
        ),
        notes=("This page was made from made-up inputs, to look at the page and not at a result.",),
        sources=(
            SourceRow(name="demonstration corpus", licence="Apache-2.0", used_for="training and test", recordings=96, hours=4.2),
            SourceRow(name="espeak-ng", licence="GPL-3.0-or-later", used_for="synthesis at run time, not shipped"),
            SourceRow(
                name="affect-small",
                licence="CC BY-NC-SA 4.0",
                used_for="labels and metadata",
                link="https://example.org/affect-small",
            ),
        ),
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return example(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def page(inputs: ReportInputs) -> str:
    return render(inputs)


class Page(HTMLParser):
    """Collects the tags of a page, the text of its scripts, and complains about tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_one_file_that_refers_to_nothing_outside(inputs: ReportInputs, tmp_path: Path) -> None:
    path = build(inputs, tmp_path / "report")
    assert [one.name for one in (tmp_path / "report").iterdir()] == ["index.html"]
    assert path.stat().st_size < 5_000_000
    parsed = Page(path.read_text(encoding="utf-8"))
    assert parsed.open == []
    loaded = [
        value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "srcset", "data", "poster")
    ]
    assert len(loaded) == 12
    assert all(one and one.startswith("data:audio/mpeg;base64,") for one in loaded)
    assert [one["href"] for one in parsed.of("link")] == ["data:,"]
    assert "@import" not in path.read_text(encoding="utf-8")
    assert "url(http" not in path.read_text(encoding="utf-8")


def test_answers_and_transcripts_are_data_and_never_markup(inputs: ReportInputs) -> None:
    view = inputs.clips[0]
    line = view.clip.segments[0].model_copy(update={"transcript": ATTACK})
    pair = view.questions[0].pair.model_copy(update={"question": ATTACK, "answer": ATTACK})
    answer = AnswerView(answer=Answer(subject=ATTACK, pair_id=pair.id, text=ATTACK, raw=ATTACK))
    clip = view.clip.model_copy(update={"segments": (line,), "source": ATTACK})
    hostile = view.model_copy(
        update={"clip": clip, "questions": (view.questions[0].model_copy(update={"pair": pair, "answers": (answer,)}),)}
    )
    run = inputs.run.model_copy(update={"name": ATTACK, "command": ATTACK})
    curve = LossCurve(system=ATTACK, points=((0, 1.0), (1, 0.5)))
    assert inputs.funnel is not None
    step = inputs.funnel.steps[0].model_copy(update={"name": ATTACK, "dropped": {ATTACK: 1}})
    source = inputs.funnel.sources[0].model_copy(update={"name": ATTACK, "licence": ATTACK})
    funnel = inputs.funnel.model_copy(update={"steps": (step,), "sources": (source,)})
    text = render(
        inputs.model_copy(update={"clips": (hostile,), "run": run, "losses": (curve,), "funnel": funnel, "notes": (ATTACK,)})
    )
    assert ATTACK not in text
    assert text.count("&lt;script&gt;alert(") >= 10
    assert len(Page(text).of("script")) == 1


def test_other_pages_of_the_run_are_linked_where_they_are(inputs: ReportInputs, page: str) -> None:
    links = {"pairs_page": "pairs.html", "sweep_page": "../sweep/index.html"}
    linked = render(inputs.model_copy(update=links))
    for link in links.values():
        assert f'<a href="{link}">' in linked
        assert link not in page


def test_only_the_shipped_script_may_run(page: str) -> None:
    from hashlib import sha256

    parsed = Page(page)
    policy = next(one["content"] or "" for one in parsed.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(sha256("".join(parsed.scripts).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]


def test_equal_inputs_give_equal_pages(inputs: ReportInputs) -> None:
    few = inputs.model_copy(update={"clips": inputs.clips[:2]})
    assert render(few) == render(few)


@pytest.mark.parametrize(
    ("update", "sentence"),
    [
        ({"study": None}, "No study table"),
        ({"clips": ()}, "No clips"),
        ({"labeller": None}, "No labeller report"),
        ({"funnel": None}, "No condensation steps"),
        ({"losses": ()}, "No training curves"),
        ({"sources": ()}, "No sources were named"),
    ],
)
def test_an_empty_part_says_so(inputs: ReportInputs, page: str, update: dict[str, object], sentence: str) -> None:
    assert sentence not in page
    assert sentence in render(inputs.model_copy(update={"clips": inputs.clips[:1], **update}))


def test_a_page_of_nothing_still_has_every_section(inputs: ReportInputs) -> None:
    text = render(ReportInputs(run=inputs.run))
    ids = [attributes.get("id") for attributes in Page(text).of("section")]
    assert ids == ["result", "clips", "labeller", "condensation", "training", "method", "sources", "run"]
    assert text.count('class="nothing"') == 6


def test_the_table_shows_the_study_and_the_published_numbers_apart(inputs: ReportInputs, page: str) -> None:
    assert inputs.study is not None
    view = study_view(inputs.study)
    assert [[row.name for row in group] for group in view.groups] == [
        ["S10", "S20", "S30", "S31", "S32"],
        ["words only", "metadata only", "majority answer"],
    ]
    row = inputs.study.row("S30")
    assert row is not None
    assert f"<b>{row.overall.score.mean:.1f}</b>" in page
    assert sum(row.overall.unscored.values()) == int(view.groups[0][2].unscored)
    assert "as published, other data and models" in page
    assert '<td class="published">56.75</td><td class="published">+38.41 %</td>' in page
    assert view.verdict
    assert all(str(re.sub("'", "&#39;", one)) in page for one in view.verdict)


def test_a_cell_without_a_score_gives_its_reason_and_never_a_number(inputs: ReportInputs) -> None:
    pairs = [question.pair for view in inputs.clips for question in view.questions]
    verdicts = [Verdict(judge="j", subject="S10", pair_id=one.id, unscored="timed_out") for one in pairs]
    view = study_view(study_table.build(verdicts, pairs, resamples=20))
    cell = view.groups[0][0].cells[0]
    assert cell is not None
    assert (cell.mean, cell.why) == (None, "no scored answer")
    assert f"timed out {len(pairs)}" in cell.title
    text = render(inputs.model_copy(update={"study": study_table.build(verdicts, pairs, resamples=20)}))
    assert "no scored answer" in text
    assert "The study compares no two systems" in text
    assert "no score</text>" in text


def test_marks_follow_the_scores() -> None:
    def mark(*scores: float | None) -> tuple[str, str]:
        answer = Answer(subject="S10", pair_id="p", text="t", raw="t")
        verdicts = tuple(
            Verdict(judge="j", subject="S10", pair_id="p", run=run, score=one, unscored=None if one is not None else "timed_out")
            for run, one in enumerate(scores)
        )
        view = AnswerView(answer=answer, verdicts=verdicts)
        return view.mark, view.why

    assert mark(100.0)[0] == "right"
    assert mark(0.0)[0] == "wrong"
    assert mark(100.0, 0.0)[0] == "partly"
    assert mark(100.0, None)[0] == "right"
    assert mark(None) == ("unscored", "timed out")
    assert mark() == ("unscored", "not judged")


def test_strips_are_cut_to_the_clip_joined_and_keep_abstentions() -> None:
    labels = (
        emotion("sad", 0, 2000, by="l@1"),
        emotion("sad", 2000, 4000, by="l@1"),
        Label(attribute="emotion", reason="too_little_speech", start_ms=4000, end_ms=5000, labeller="l@1"),
        emotion("happy", 5000, 9000, by="l@1"),
        emotion("angry", 20_000, 21_000, by="l@1"),
    )
    segment = Segment(recording_id="r", start_ms=0, end_ms=21_000, labels=labels)
    clip = Clip(recording_id="r", uri="missing.wav", source="s", start_ms=1000, end_ms=6000, segments=(segment,))
    (view,) = listen([ClipView(clip=clip, predicted=(segment,))], systems=())
    assert [(one.left, one.width, one.text, one.css) for one in view.predicted] == [
        ("0.000", "60.000", "sad", "e-sad"),
        ("60.000", "20.000", "no label", "abstained"),
        ("80.000", "20.000", "happy", "e-happy"),
    ]
    assert view.predicted[1].title == "no label: too little speech, 3.0–4.0 s"
    assert view.sound is None
    assert "missing.wav" in view.silent


def test_the_sound_is_the_clip_and_stays_within_the_budget(inputs: ReportInputs) -> None:
    views = listen(inputs.clips, systems=("S10",))
    for view in views:
        raw = base64.b64decode((view.sound or "").partition(",")[2])
        samples, rate_hz = sf.read(io.BytesIO(raw))
        assert samples.ndim == 1
        assert len(samples) / rate_hz == pytest.approx(view.seconds, abs=0.1)
        assert len(raw) * 8 / view.seconds < 48_000
    first = len(views[0].sound or "")
    silent = listen(inputs.clips, systems=(), budget=first)
    assert silent[0].sound is not None
    assert all(one.sound is None and "keep the page small" in one.silent for one in silent[1:])


def test_clips_are_chosen_without_looking_at_the_answers(inputs: ReportInputs) -> None:
    shown = [view.clip for view in inputs.clips]
    pairs = [pair for clip in shown for pair in make_pairs(clip)]
    base = {"pairs": pairs, "clips": shown, "predicted": [], "limit": 4}
    bare = choose_clips(**base, answers=[], verdicts=[])
    answers, verdicts = make_answers(pairs, np.random.default_rng(1))
    full = choose_clips(**base, answers=answers, verdicts=verdicts)
    assert [one.clip.id for one in bare] == [one.clip.id for one in full]
    assert [one.clip.source for one in full] == ["demo", "tones", "demo", "tones"]
    assert [[one.pair.kind for one in view.questions] for view in full] == [["CE", "CG", "DE"]] * 4
    assert all(len(question.answers) == len(RATES) for view in full for question in view.questions)
    assert all(one.verdicts for view in full for question in view.questions for one in question.answers)
    reordered = choose_clips(**{**base, "clips": shown[::-1], "pairs": pairs[::-1]}, answers=answers, verdicts=verdicts)
    assert [one.clip.id for one in reordered] == [one.clip.id for one in full]


def written(folder: Path, rows: Sequence[Record]) -> None:
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(folder, rows, record=type(rows[0]), fingerprint=made, parts=3, smallest=1)


def test_of_a_run_the_page_shows_what_all_of_its_rows_would_give(inputs: ReportInputs, tmp_path: Path) -> None:
    """Only the rows that are shown are read as records, and that shows the same."""
    shown = [view.clip for view in inputs.clips]
    pairs = [pair for clip in shown for pair in make_pairs(clip)]
    answers, verdicts = make_answers(pairs, np.random.default_rng(1))
    predicted = [segment for view in inputs.clips for segment in view.predicted]
    for name, rows in (("references", shown), ("evaluate/benchmark", pairs), ("label", predicted), ("evaluate/verdicts", verdicts)):
        written(tmp_path / name, rows)
    for system in RATES:
        written(tmp_path / "evaluate" / "answers" / system.replace(" ", "-"), [one for one in answers if one.subject == system])
    label = tables.open_table(tmp_path / "label", Segment)
    everything = choose_clips(pairs=pairs, clips=shown, predicted=predicted, answers=answers, verdicts=verdicts, seed=3)

    def told(views: Sequence[ClipView]) -> list[object]:
        return [
            (
                view.clip,
                view.predicted,
                question.pair,
                {one.answer.subject: (one.answer.text, one.score) for one in question.answers},
            )
            for view in views
            for question in view.questions
        ]

    assert told(gathered_clips(tmp_path, label, 3)) == told(everything)
    assert told(gathered_clips(tmp_path, None, 3)) == told([view.model_copy(update={"predicted": ()}) for view in everything])
    assert gathered_clips(tmp_path / "nothing", None, 3) == ()


def drawings() -> list[Callable[[], str]]:
    rows = [
        figures.BarRow(name="S10", bars={"overall": figures.Bar(mean=40, low=35, high=46)}),
        figures.BarRow(name="cost $x$ <b>", control=True, bars={}),
    ]
    return [
        lambda: figures.study_bars(rows, ("overall", "C"), title='a "study" <i>'),
        lambda: figures.funnel(
            [
                figures.Stacked(name="all", hours=3.0),
                figures.Stacked(
                    name="kept", hours=1.0, emotion_hours={"sad": 0.4, "happy": 0.6}, segments=1_234, emotion_segments={"sad": 900}
                ),
            ],
            title="funnel",
        ),
        lambda: figures.lost(
            [
                figures.Lost(name="quality: too noisy", rows=7, unit="segments", hours=0.5),
                figures.Lost(name="<i>", rows=1, unit="recordings"),
            ],
            title="lost",
        ),
        lambda: figures.loss_curves([("S10", [(0, 3.0), (10, 1.0)])], title="loss"),
    ]


@pytest.mark.parametrize("draw", drawings())
def test_figures_have_text_variables_for_colours_and_no_clashing_ids(draw: Callable[[], str]) -> None:
    from xml.etree import ElementTree

    svg = draw()
    tree = ElementTree.fromstring(svg.replace("xlink:", ""))
    assert [one for one in tree.iter() if one.tag.endswith("text")]
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "var(--" in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert all(re.match(r"(study|funnel|lost|loss)-", one) for one in ids)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(ids)
    assert draw() == svg


def test_a_figure_draws_the_numbers_it_is_given() -> None:
    svg = drawings()[0]()
    assert ">40.0</text>" in svg
    assert "cost $x$ &lt;b&gt;" in svg
    assert svg.count("no score") == 3


def test_the_figures_of_the_funnel_draw_the_numbers_they_are_given() -> None:
    _, kept, lost, _ = (draw() for draw in drawings())
    for text in ("3.000", "1.000", "1,234"):
        assert f">{text}</text>" in kept
    for emotion, bars in (("sad", 2), ("happy", 1), ("angry", 0)):
        assert kept.count(f"fill: var(--e-{emotion})") == bars, emotion
    assert kept.count("stroke: var(--control)") == 2  # all the hours of a step without labels, and the segments that have none
    assert ">0.500 h, 7 segments</text>" in lost
    assert ">1 recordings</text>" in lost


def test_every_system_of_the_first_study_is_described() -> None:
    assert {*study_table.SYSTEMS, *study_table.CONTROLS} == set(SYSTEMS)


def test_a_long_name_in_the_figure_of_scores_is_not_cut_off() -> None:
    def end(name: str) -> float:
        drawn = figures.study_bars([figures.BarRow(name=name, bars={"overall": figures.Bar(mean=40)})], ("overall",), title="t")
        return float(re.findall(rf'x="([\d.]+)"[^>]*>{name}<', drawn)[0])

    assert end("S30") == end("majority answer")
    assert end("remote model with other audio") > 1.5 * end("S30")
