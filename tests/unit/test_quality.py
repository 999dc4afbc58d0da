"""The filters of what is heard at all: quality, duplicates, language; and the two labellers that measure for them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from undertone import audio, tables
from undertone.audio import Wave
from undertone.condense.duplicates import Duplicates, candidates, duplicates, shared_hashes
from undertone.condense.language import Language
from undertone.condense.quality import Quality, measured
from undertone.execute import run_stage, write_rows
from undertone.label import fingerprint as prints
from undertone.label import quality as measure
from undertone.label.protocol import LABELLERS
from undertone.records import Label, Recording, Segment, to_arrow
from undertone.stages import Context, Dropped, Kept, Stage
from undertone.tables import Fingerprint

RATE_HZ = 16_000
FIRST = "0" * 16


def voice(seconds: float = 2.0, *, seed: int = 0) -> Wave:
    """Something like speech: gliding harmonics in syllables, each with its own two formants."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    hz = 120 + 40 * np.interp(at, np.linspace(0, seconds, 6), rng.uniform(-1, 1, 6))
    phase = 2 * np.pi * np.cumsum(hz) / RATE_HZ
    made = np.zeros(len(at))
    for start in np.arange(0, seconds, 0.22):
        near = np.clip(1 - np.abs(at - start - 0.08) / rng.uniform(0.06, 0.1), 0, 1)
        formants = rng.uniform((300, 900), (800, 2400))
        weights = [sum(np.exp(-(((k * 120 - one) / 120) ** 2)) for one in formants) for k in range(1, 25)]
        made += near * sum(weight * np.sin(k * phase) for k, weight in enumerate(weights, start=1))
    return Wave((0.3 * made / np.abs(made).max()).astype(np.float32), RATE_HZ)


def noise(seconds: float = 2.0, *, rms: float = 0.05) -> Wave:
    rng = np.random.default_rng(1)
    return Wave((rms * rng.standard_normal(int(seconds * RATE_HZ))).astype(np.float32), RATE_HZ)


def louder(wave: Wave, db: float) -> Wave:
    return Wave((wave.samples * np.float32(10 ** (db / 20))).astype(np.float32), wave.rate_hz)


def segment(number: int = 0, *, start_ms: int = 0, recording: str = FIRST, **values: float | str) -> Segment:
    about = {"start_ms": start_ms, "end_ms": start_ms + 2_000}
    labels = [
        Label(attribute=name, labeller="t@1", **about, **({"category": value} if isinstance(value, str) else {"number": value}))
        for name, value in values.items()
    ]
    return Segment(recording_id=recording, labels=tuple(labels), **about)


def fates(stage: Stage[Segment, Segment], rows: list[Segment]) -> list[str | None]:
    return [one.reason if isinstance(one, Dropped) else None for one in stage.process(rows)]


# ---- the labeller quality ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("db", [-30.0, -6.0, 0.0])
def test_the_level_follows_the_sound_and_nothing_else_does(db: float) -> None:
    wave, moved = voice(), louder(voice(), db)
    assert measure.active_level_db(moved) - measure.active_level_db(wave) == pytest.approx(db, abs=0.01)
    assert measure.snr_db(moved) == pytest.approx(measure.snr_db(wave), abs=0.01)
    assert measure.clipped_share(moved) == measure.clipped_share(wave)
    assert measure.speech_share(moved) == pytest.approx(measure.speech_share(wave), abs=0.02)


def test_pauses_do_not_lower_the_level() -> None:
    paused = audio.join([voice(), Wave(np.zeros(3 * RATE_HZ, np.float32), RATE_HZ)])
    assert measure.active_level_db(paused) == pytest.approx(measure.active_level_db(voice()), abs=0.5)


def test_the_table_of_wada_is_that_of_gamma_speech_in_gaussian_noise() -> None:
    rng = np.random.default_rng(3)
    speech = rng.gamma(0.4, size=400_000) * rng.choice([-1, 1], size=400_000)
    speech /= np.sqrt(np.mean(speech**2))
    for snr in (-5, 0, 10, 20):
        wave = Wave((0.01 * (speech + 10 ** (-snr / 20) * rng.standard_normal(len(speech)))).astype(np.float32), RATE_HZ)
        assert measure.snr_db(wave) == pytest.approx(snr, abs=0.5)


def test_more_noise_is_a_lower_ratio() -> None:
    found = [measure.snr_db(audio.mix(voice(4), noise(4), snr)) for snr in (0, 5, 10, 20)]
    assert found == sorted(found)
    assert found[0] < 6 < found[-1]
    assert measure.snr_db(noise()) < -5


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_clipping_is_found_at_any_level_and_whole_waves_have_none(share: float) -> None:
    wave = voice()
    top = np.quantile(np.abs(wave.samples), 1 - share)
    clipped = Wave(np.clip(wave.samples, -top, top), RATE_HZ)
    assert measure.clipped_share(wave) < 0.001
    assert measure.clipped_share(clipped) == pytest.approx(share, rel=0.2)
    assert measure.clipped_share(louder(clipped, -20)) == pytest.approx(share, rel=0.2)


def test_speech_is_told_from_noise_and_from_silence() -> None:
    assert measure.speech_share(voice()) > 0.8
    assert measure.speech_share(noise()) < 0.1
    assert measure.speech_share(Wave(np.zeros(800, np.float32), RATE_HZ)) == 0
    half = audio.join([voice(2), noise(2, rms=0.001)])
    assert measure.speech_share(half) == pytest.approx(0.5, abs=0.1)


def test_the_labeller_abstains_from_silence_and_from_what_is_too_short() -> None:
    one = LABELLERS.get("quality")
    silent = {label.attribute: label for label in one.label(Wave(np.zeros(RATE_HZ, np.float32), RATE_HZ), start_ms=500)}
    assert silent["level_db"].number == -120
    assert {silent[name].reason for name in ("snr_db", "clipped_share", "speech_share")} == {"silence"}
    assert (silent["level_db"].start_ms, silent["level_db"].end_ms) == (500, 1_500)
    short = one.label(Wave(np.ones(160, np.float32), RATE_HZ), start_ms=0)
    assert {label.reason for label in short} == {"too_short"}
    assert len(short) == 4


# ---- the filter quality ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"level_db": -60.0}, None),
        ({"level_db": -60.1}, "too_quiet"),
        ({"snr_db": 4.9}, "too_noisy"),
        ({"snr_db": 5.0}, None),
        ({"clipped_share": 0.006}, "clipped"),
        ({"clipped_share": 0.005}, None),
        ({"speech_share": 0.39}, "too_little_speech"),
        ({"level_db": -70.0, "snr_db": 0.0, "speech_share": 0.0}, "too_quiet"),
        ({"snr_db": 0.0, "speech_share": 0.0}, "too_noisy"),
        ({}, None),
    ],
)
def test_each_bound_has_its_reason(values: dict[str, float], reason: str | None) -> None:
    assert fates(Quality(), [segment(**values)]) == [reason]


def test_a_bound_that_is_off_drops_nothing() -> None:
    bad = segment(level_db=-100.0, snr_db=-10.0, clipped_share=0.5, speech_share=0.0)
    off = Quality(min_level_db=None, min_snr_db=None, max_clipped_share=None, min_speech_share=None)
    assert fates(off, [bad]) == [None]
    assert fates(off.model_copy(update={"unmeasured": "drop"}), [bad, segment()]) == [None, None]
    assert fates(Quality(min_level_db=None), [bad]) == ["too_noisy"]


def test_what_was_not_measured_goes_only_where_the_study_says_so() -> None:
    known = {"level_db": -20.0, "snr_db": 20.0, "clipped_share": 0.0, "speech_share": 1.0}
    rows = [segment(), segment(snr_db=20.0), segment(**known), segment(snr_db=0.0)]
    assert fates(Quality(), rows) == [None, None, None, "too_noisy"]
    assert fates(Quality(unmeasured="drop"), rows) == ["not_measured", "not_measured", None, "too_noisy"]


def test_the_detail_tells_every_offence_and_kept_rows_stay_as_they_are() -> None:
    rows = [segment(level_db=-70.0, snr_db=1.25), segment(snr_db=20.0)]
    lost, kept = Quality().process(rows)
    assert isinstance(lost, Dropped)
    assert lost.detail == "level_db -70.0, snr_db 1.25"
    assert kept == Kept((rows[1],))


def test_of_several_measurements_the_mean_by_duration_counts() -> None:
    labels = [
        Label(attribute="snr_db", number=number, start_ms=start, end_ms=end, labeller="t@1")
        for number, start, end in ((0.0, 0, 1_000), (12.0, 1_000, 4_000))
    ]
    row = Segment(recording_id=FIRST, start_ms=0, end_ms=4_000, labels=tuple(labels))
    frame = measured(to_arrow([segment(), row], Segment))
    assert frame["snr_db"].to_list() == [None, 9.0]
    assert frame["level_db"].to_list() == [None, None]


# ---- fingerprints and duplicates ---------------------------------------------------------------------------------------------


def shared(a: Wave, b: Wave) -> int:
    return len(np.intersect1d(prints.hashes(a), prints.hashes(b)))


def test_a_copy_shares_its_fingerprint_whatever_its_level_codec_or_beginning(tmp_path: Path) -> None:
    wave = voice(3)
    assert shared(wave, louder(wave, -14)) == prints.SIZE
    assert shared(wave, wave.cut(207)) >= 5
    assert shared(wave, audio.mix(wave, noise(3), 25)) >= 5
    audio.write(tmp_path / "copy.ogg", wave)
    assert shared(wave, audio.load(tmp_path / "copy.ogg", rate_hz=RATE_HZ)) >= 5


def test_other_sounds_share_no_fingerprint() -> None:
    found = [prints.hashes(voice(3, seed=seed)) for seed in range(8)]
    assert all(len(one) == prints.SIZE for one in found)
    assert max(len(np.intersect1d(a, b)) for index, a in enumerate(found) for b in found[:index]) <= 2


def test_the_labeller_writes_text_of_one_length_and_abstains_without_structure() -> None:
    one = LABELLERS.get("fingerprint")
    (label,) = one.label(voice(3), start_ms=0)
    assert len(label.category or "") == 8 * prints.SIZE
    assert bytes.fromhex(label.category or "") == prints.hashes(voice(3)).astype(">u4").tobytes()
    (silent,) = one.label(Wave(np.zeros(RATE_HZ, np.float32), RATE_HZ), start_ms=0)
    assert silent.reason == "too_little_structure"


def text_of(wave: Wave) -> str:
    (label,) = LABELLERS.get("fingerprint").label(wave, start_ms=0)
    assert label.category is not None
    return label.category


def test_the_first_by_id_stays_and_a_recording_is_not_compared_with_itself() -> None:
    same, other = text_of(voice(3)), text_of(voice(3, seed=5))
    rows = [
        segment(recording="b" * 16, fingerprint=same),
        segment(recording="a" * 16, fingerprint=same, start_ms=4_000),
        segment(recording="a" * 16, fingerprint=same, start_ms=9_000),
        segment(recording="c" * 16, fingerprint=other),
        segment(recording="d" * 16),
    ]
    for order in ([0, 1, 2, 3, 4], [4, 2, 3, 0, 1]):
        made = dict(zip(order, fates(Duplicates(), [rows[index] for index in order]), strict=True))
        assert made == {0: "duplicate_sound", 1: None, 2: None, 3: None, 4: None}
    lost = Duplicates().process(rows)[0]
    assert isinstance(lost, Dropped)
    assert lost.detail == f"of {'a' * 16}@4000-6000"
    assert fates(Duplicates(on=False), rows) == [None] * 5


def test_what_resembles_only_a_dropped_row_stays() -> None:
    base = np.arange(72, dtype=np.uint32)
    rows = np.stack([base[:32], base[20:52], base[40:72]])
    assert shared_hashes(rows, np.array([[1, 0], [2, 1], [2, 0]])).tolist() == [12, 12, 0]
    assert duplicates(rows, np.arange(3), min_shared=10) == {1: 0}
    assert duplicates(rows, np.arange(3), min_shared=13) == {}


def test_duplicates_are_found_in_every_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, 2**32, (400, 32), dtype=np.uint32), axis=1)
    rows[300:] = rows[:100]
    whole = duplicates(rows, np.arange(400), min_shared=20)
    assert whole == {300 + index: index for index in range(100)}
    monkeypatch.setattr("undertone.condense.duplicates._BUCKET_KEYS", 500)
    monkeypatch.setattr("undertone.condense.duplicates._AT_ONCE", 7)
    assert duplicates(rows, np.arange(400), min_shared=20) == whole
    assert max(len(pairs) for pairs in candidates(rows, np.arange(400))) < 400


def table(folder: Path, rows: list[Segment], parts: int) -> Path:
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(folder, rows, record=Segment, fingerprint=made, parts=parts, smallest=1)
    return folder


def test_filters_do_not_depend_on_order_or_parts_and_a_second_pass_drops_nothing(tmp_path: Path) -> None:
    rng = random.Random(2)
    texts = [text_of(voice(3, seed=seed)) for seed in range(6)]
    rows = [
        segment(start_ms=3_000 * number, recording=f"{number % 7:016x}", fingerprint=rng.choice(texts), snr_db=rng.uniform(0, 20))
        for number in range(40)
    ]
    for stage in (Duplicates(), Quality()):
        kept: list[set[str]] = []
        for name, order, parts in (("a", rows, 1), ("b", rng.sample(rows, len(rows)), 7)):
            source = table(tmp_path / f"{stage.name}-{name}", order, parts)
            report = run_stage(stage, [source], tmp_path / f"{stage.name}-out-{name}")
            assert 0 < report.counts.dropped < len(rows)
            kept.append({row.id for row in tables.open_table(report.folder, Segment).rows()})
        assert kept[0] == kept[1]
        again = run_stage(stage, [tmp_path / f"{stage.name}-out-a"], tmp_path / f"{stage.name}-again")
        assert again.counts.dropped == 0


# ---- language ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "reason"),
    [
        ("en", None),
        ("en-GB", None),
        ("EN_us", None),
        ("zh-Hans", None),
        ("en, zh", None),
        ("pl", "other_language"),
        ("pl, de", "other_language"),
        ("english", "other_language"),
        ("en, pl", "unknown_language"),
        ("unknown", "unknown_language"),
        (None, "unknown_language"),
    ],
)
def test_languages_are_compared_by_their_first_subtag(language: str | None, reason: str | None) -> None:
    assert Language(wanted=("en-US", "zh"), unknown="drop").refusal(language) == reason
    assert Language(wanted=("en-US", "zh")).refusal(language) == (None if reason == "unknown_language" else reason)
    assert Language().refusal(language) is None


def test_codes_are_asked_for() -> None:
    with pytest.raises(ValidationError, match="expected language codes such as 'en'"):
        Language(wanted=("en", " "))


def test_what_a_recogniser_heard_counts_before_what_the_corpus_says(tmp_path: Path) -> None:
    recordings = [
        Recording(uri=f"{n}.wav", sha256=f"{n:016x}{n:048x}", rate_hz=16_000, samples=1, source="t", language=language)
        for n, language in enumerate(["en", "pl", None])
    ]
    made = Fingerprint(stage="t", version="1", seed=0, config={}, inputs={})
    write_rows(tmp_path / "corpus", recordings, record=Recording, fingerprint=made, parts=2, smallest=1)
    rows = [
        segment(recording=recordings[0].id),
        segment(recording=recordings[0].id, start_ms=3_000, language="pl"),
        segment(recording=recordings[1].id),
        segment(recording=recordings[1].id, start_ms=3_000, language="en"),
        segment(recording=recordings[2].id),
    ]
    expected = [None, "other_language", "other_language", None, "unknown_language"]
    stage = Language(wanted=("en",), unknown="drop")
    stage.open(Context(out_dir=tmp_path, seed=0, sides={"recordings": tables.open_table(tmp_path / "corpus", Recording)}))
    assert fates(stage, rows) == expected
    lost = stage.process(rows)[2]
    assert isinstance(lost, Dropped)
    assert lost.detail == "pl"
    source = table(tmp_path / "label", rows, 2)
    report = run_stage(stage, [source], tmp_path / "out", sides={"recordings": tmp_path / "corpus"})
    assert report.counts.reasons == {"other_language": 2, "unknown_language": 1}
    assert report.counts.kept == 2
    assert isinstance(tables.open_table(tmp_path / "out", Segment).arrow(columns=["id"]), pa.Table)
