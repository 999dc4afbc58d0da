from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from undertone.errors import ConfigError, DataError, DependencyError, ModelError
from undertone.evaluate import epitome
from undertone.evaluate.empathy import EmpathyJudge, RobertaEmpathy, mechanism_of
from undertone.evaluate.empathy_table import EmpathyTable, build, sentences
from undertone.evaluate.epitome import MECHANISMS, EpitomeSmall, Mechanism
from undertone.evaluate.judges import Item
from undertone.evaluate.stage import JudgeStage
from undertone.records import Answer, Clip, QAPair, Segment, Verdict
from undertone.report.empathy import block, draw, write_page
from undertone.stages import Context, Dropped, Kept

SEEKER = "My dog died this morning."
REPLIES = ["I'm so sorry for your loss.", "Dogs live ten to thirteen years.", "What was your dog's name?"]


@pytest.fixture(scope="module")
def small() -> EpitomeSmall:
    return EpitomeSmall()


def test_plain_cases_have_their_mechanism_and_no_other(small: EpitomeSmall) -> None:
    found = small.score([SEEKER] * 3, REPLIES)
    sorry, fact, question = found.levels.tolist()
    assert sorry[0] > 0
    assert sorry[2] == 0
    assert (fact[0], fact[2]) == (0, 0)  # its interpretation is not to be trusted on such replies, as the card says
    assert question[2] == 2


def test_expected_levels_lie_on_the_scale_and_follow_the_levels(small: EpitomeSmall) -> None:
    found = small.score([SEEKER] * 3, REPLIES)
    assert found.levels.shape == found.expected.shape == (3, 3)
    assert ((found.expected >= 0) & (found.expected <= 2)).all()
    assert found.expected[0, 0] > found.expected[1, 0]
    assert found.expected[2, 2] > found.expected[1, 2]


@pytest.mark.parametrize("empty", ["", "   ", "...", ":( !", "\n"])
def test_a_reply_without_words_is_unscored_and_never_zero(small: EpitomeSmall, empty: str) -> None:
    found = small.score([SEEKER, SEEKER], [REPLIES[0], empty])
    assert found.unscored == (None, "unreadable")
    assert found.levels[1].tolist() == [-1, -1, -1]
    assert np.isnan(found.expected[1]).all()
    assert small.score([SEEKER], [empty]).unscored == ("unreadable",)


def test_a_score_does_not_depend_on_the_rest_of_the_call(small: EpitomeSmall) -> None:
    together = small.score([SEEKER] * 3, REPLIES)
    for index, reply in enumerate(REPLIES):
        alone = small.score([SEEKER], [reply])
        assert np.array_equal(alone.expected[0], together.expected[index])


def test_nothing_to_score_gives_nothing(small: EpitomeSmall) -> None:
    found = small.score([], [])
    assert (found.levels.shape, found.unscored) == ((0, 3), ())


def test_the_sentence_that_carries_a_mechanism_is_named(small: EpitomeSmall) -> None:
    found = small.carrying(SEEKER, "I am so sorry to hear that. The shop opens at nine. What happened to him?")
    assert found["emotional_reaction"] == "I am so sorry to hear that."
    assert found["exploration"] == "What happened to him?"


def test_one_strong_sentence_is_not_drowned_by_many_others(small: EpitomeSmall) -> None:
    filler = " The shop opens at nine and closes at five on every day of the week." * 12
    found = small.score([SEEKER], ["I am so sorry for your loss." + filler])
    assert found.expected[0, 0] > small.score([SEEKER], [filler.strip()]).expected[0, 0] + 0.2


def test_web_escapes_and_curly_quotes_do_not_change_a_score(small: EpitomeSmall) -> None:
    plain = small.score([SEEKER], ["I'm so sorry, that's awful & sad."]).expected
    assert np.array_equal(plain, small.score([SEEKER], ["I’m so sorry, that&amp;#39;s awful &amp; sad."]).expected)


def test_pairs_are_needed(small: EpitomeSmall) -> None:
    with pytest.raises(DataError, match="got 1 texts of seekers and 2 responses"):
        small.score([SEEKER], REPLIES[:2])


def test_pickles_without_its_weights(small: EpitomeSmall) -> None:
    small.score([SEEKER], REPLIES[:1])
    packed = pickle.dumps(small)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed).score([SEEKER], REPLIES[:1]).expected, small.score([SEEKER], REPLIES[:1]).expected)


def test_the_weights_are_those_of_the_card_and_small(small: EpitomeSmall) -> None:
    import hashlib

    file = epitome.find_model() / "model.npz"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == small.card.sha256
    assert file.stat().st_size < 5_000_000


def test_absent_weights_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERTONE_MODELS", str(tmp_path))
    with pytest.raises(DependencyError, match=r"looked in .*epitome-small.*UNDERTONE_MODELS.*recipes/epitome"):
        EpitomeSmall().score([SEEKER], ["Hello."])


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not the weights of epitome-small"):
        EpitomeSmall(tmp_path).score([SEEKER], ["Hello."])
    np.savez(tmp_path / "model.npz", idf=np.ones(3), coefficients=np.ones((3, 3, 8)), biases=np.ones((3, 3)))
    with pytest.raises(ModelError, match=r"arrays of shape \(3,\).*expected \(\(65536,\)"):
        EpitomeSmall(tmp_path).score([SEEKER], ["Hello."])
    with pytest.raises(ModelError, match="not a model card"):
        _ = EpitomeSmall(tmp_path).revision


# Checkpoints of the RoBERTa type


def tiny(folder: Path, *, labels: int = 3, head: bool = True, seed: int = 0) -> str:
    """A random RoBERTa with a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForSequenceClassification

    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted({word for text in (SEEKER, *REPLIES) for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=140,
        num_labels=labels, initializer_range=1.0,
    )  # fmt: skip
    network = RobertaForSequenceClassification(config)
    (network if head else network.roberta).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[Mechanism, str]:
    return {one: tiny(tmp_path_factory.mktemp(one), seed=index) for index, one in enumerate(MECHANISMS)}


def test_a_checkpoint_reads_seeker_and_response_as_a_pair(checkpoints: dict[Mechanism, str]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    found = RobertaEmpathy(checkpoints).score([SEEKER] * 3, REPLIES)
    for column, one in enumerate(MECHANISMS):
        network = AutoModelForSequenceClassification.from_pretrained(checkpoints[one]).eval()
        tokenizer = AutoTokenizer.from_pretrained(checkpoints[one])
        for row, reply in enumerate(REPLIES):
            with torch.no_grad():
                shares = network(**tokenizer(SEEKER, reply, return_tensors="pt")).logits[0].softmax(-1)
            assert found.levels[row, column] == int(shares.argmax())
            assert found.expected[row, column] == pytest.approx(float(shares @ torch.arange(3.0)), abs=1e-5)
    other = RobertaEmpathy(checkpoints).score([REPLIES[1]] * 3, REPLIES)
    assert not np.allclose(other.expected, found.expected)


def test_batches_and_empty_replies_change_nothing_for_the_others(checkpoints: dict[Mechanism, str]) -> None:
    whole = RobertaEmpathy(checkpoints).score([SEEKER] * 3, REPLIES)
    replies = [REPLIES[0], "", *REPLIES[1:]]
    found = RobertaEmpathy(checkpoints, batch=1).score([SEEKER] * 4, replies)
    assert found.unscored == (None, "unreadable", None, None)
    assert np.allclose(found.expected[[0, 2, 3]], whole.expected, atol=1e-5)


def test_a_mechanism_without_a_checkpoint_has_no_levels(checkpoints: dict[Mechanism, str]) -> None:
    scorer = RobertaEmpathy({"exploration": checkpoints["exploration"]})
    found = scorer.score([SEEKER], REPLIES[:1])
    assert scorer.mechanisms == ("exploration",)
    assert found.levels[0, :2].tolist() == [-1, -1]
    assert found.levels[0, 2] >= 0


def test_long_pairs_are_cut_and_still_scored(checkpoints: dict[Mechanism, str]) -> None:
    found = RobertaEmpathy(checkpoints, max_length=16).score([SEEKER * 40], [REPLIES[0] * 40])
    assert found.unscored == (None,)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"labels": 2}, "tells 2 classes apart, expected the levels 0 none, 1 weak, 2 strong"),
        ({"head": False}, "an encoder without one"),
    ],
)
def test_a_checkpoint_that_cannot_tell_levels_is_refused(tmp_path: Path, made: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        RobertaEmpathy({"exploration": tiny(tmp_path, **made)}).score([SEEKER], REPLIES[:1])


def test_a_checkpoint_that_is_nowhere_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"exploration: '.*gone': nothing is there"):
        RobertaEmpathy({"exploration": str(tmp_path / "gone")})
    with pytest.raises(ConfigError, match="a model of a hub needs a revision"):
        RobertaEmpathy({"exploration": "someone/empathy"})
    with pytest.raises(ConfigError, match="models: got none, expected some of emotional_reaction"):
        RobertaEmpathy({})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not load"):
        RobertaEmpathy({"exploration": str(tmp_path)}).score([SEEKER], REPLIES[:1])


# The judge


def reply_pair(index: int, *, kind: str = "REPLY") -> QAPair:
    return QAPair(
        clip_id=f"r{index}@0-1", recording_id=f"r{index}", source="benchmark", kind=kind, question="" if kind == "REPLY" else "Feels?",  # type: ignore[arg-type]
        answer="A reference.", label="sad" if kind == "DE" else None, label_attribute="emotion" if kind == "DE" else None, generator="t@1",
    )  # fmt: skip


def item(text: str, transcript: str | None = SEEKER) -> Item:
    pair = reply_pair(0)
    return Item(pair=pair, answer=Answer(subject="S", pair_id=pair.id, text=text, raw=text), transcript=transcript)


def test_a_reply_that_never_came_has_no_level(small: EpitomeSmall) -> None:
    silent = Answer(subject="S", pair_id=reply_pair(0).id, text="", raw="", unanswered="timed_out")
    found = EmpathyJudge(mechanism="exploration").score(Item(pair=reply_pair(0), answer=silent, transcript=SEEKER))
    assert (found.score, found.unscored) == (None, "timed_out")


def test_a_verdict_is_fifty_points_a_level(small: EpitomeSmall) -> None:
    judge = EmpathyJudge(mechanism="exploration")
    for index, reply in enumerate(REPLIES):
        verdict = judge.score(item(reply))
        found = small.score([SEEKER], [reply])
        assert verdict.score == 50 * found.levels[0, 2], index
        assert json.loads(verdict.raw or "")["expected_level"] == pytest.approx(found.expected[0, 2], abs=1e-4)
        assert (verdict.judge, verdict.subject, verdict.mapped_label) == (judge.name, "S", None)


@pytest.mark.parametrize(
    ("text", "transcript", "reason"),
    [("...", SEEKER, "unreadable"), ("I'm sorry, but I can't assist with that.", SEEKER, "refused"), ("I see.", None, "no_reference"),
     ("I see.", " ", "no_reference")],
)  # fmt: skip
def test_what_cannot_be_scored_has_a_reason_and_no_score(text: str, transcript: str | None, reason: str) -> None:
    verdict = EmpathyJudge(mechanism="emotional_reaction").score(item(text, transcript))
    assert (verdict.score, verdict.unscored) == (None, reason)


def test_sympathy_is_no_refusal() -> None:
    assert EmpathyJudge(mechanism="emotional_reaction").score(item("I'm so sorry to hear that.")).score is not None


def test_many_verdicts_are_those_of_each_alone() -> None:
    judge = EmpathyJudge(mechanism="interpretation")
    items = [item(one) for one in ("I know how lonely that feels.", "", "Ok.")]
    assert judge.score_many(items, run=2) == [judge.score(one, run=2) for one in items]


def test_the_name_says_mechanism_and_weights(checkpoints: dict[Mechanism, str]) -> None:
    names = {EmpathyJudge(mechanism=one, model=model).name for one in MECHANISMS for model in ("epitome-small", checkpoints[one])}
    assert len(names) == 6
    assert [mechanism_of(EmpathyJudge(mechanism=one).name) for one in MECHANISMS] == list(MECHANISMS)
    assert mechanism_of("llm:gpt:graded@1") is None


def test_a_judge_round_trips_and_scores_with_a_checkpoint(checkpoints: dict[Mechanism, str]) -> None:
    judge = EmpathyJudge(mechanism="exploration", model=checkpoints["exploration"])
    assert EmpathyJudge.model_validate_json(judge.model_dump_json()) == judge
    wanted = RobertaEmpathy({"exploration": checkpoints["exploration"]}).score([SEEKER], [REPLIES[0]])
    assert judge.score(item(REPLIES[0])).score == 50 * wanted.levels[0, 2]
    assert judge.needs_clips
    assert judge.kinds == {"REPLY"}


def test_the_stage_gives_the_judge_the_words_of_the_clip(tmp_path: Path) -> None:
    """Kept + dropped (another kind of question) = input, and a clip without words is no level 0."""

    pairs = [reply_pair(0), reply_pair(1), reply_pair(0, kind="DE")]
    clips = [
        Clip(recording_id=f"r{index}", uri="x.wav", source="s", start_ms=0, end_ms=1, segments=segments)
        for index, segments in enumerate([(Segment(recording_id="r0", start_ms=0, end_ms=1, transcript=SEEKER),), ()])
    ]
    answers = [Answer(subject="S", pair_id=pair.id, text=REPLIES[2], raw="") for pair in pairs]
    stage = JudgeStage(judge=EmpathyJudge(mechanism="exploration"))
    sides = {name: SimpleNamespace(rows=lambda rows=rows: iter(rows)) for name, rows in (("pairs", pairs), ("clips", clips))}
    stage.open(Context(out_dir=tmp_path, seed=0, sides=sides))  # type: ignore[arg-type]
    first, second, third = stage.process(answers)
    assert isinstance(first, Kept)
    assert [one.score for one in first.rows] == [100.0]
    assert isinstance(second, Kept)
    assert [one.unscored for one in second.rows] == ["no_reference"]
    assert isinstance(third, Dropped)
    assert third.reason == "other_kind"


# The table

REPLY_PAIRS = [reply_pair(index) for index in range(12)]
DIRECT_PAIRS = [reply_pair(index, kind="DE") for index in range(4)]


def verdicts(subject: str, mechanism: Mechanism, levels: list[int | None]) -> list[Verdict]:
    common: dict[str, Any] = {"judge": f"epitome:{mechanism}:epitome-small@0f", "subject": subject}
    return [
        Verdict(
            **common,
            pair_id=pair.id,
            score=None if level is None else 50.0 * level,
            unscored="unreadable" if level is None else None,
        )
        for pair, level in zip(REPLY_PAIRS, levels, strict=True)
    ]


def named(subject: str, labels: list[str | None], judge: str = "reference") -> list[Verdict]:
    return [
        Verdict(judge=judge, subject=subject, pair_id=pair.id, score=0.0, mapped_label=label)
        for pair, label in zip(DIRECT_PAIRS, labels, strict=False)
    ]


ALL = [
    *verdicts("text", "exploration", [0, 1] * 6),
    *verdicts("ours", "exploration", [1, 2] * 5 + [2, None]),
    *verdicts("text", "emotional_reaction", [0] * 12),
    *verdicts("ours", "emotional_reaction", [1] * 12),
    *named("ours", ["sad", "sad", "sad"]),
]


@pytest.fixture(scope="module")
def table() -> EmpathyTable:
    return build(ALL, [*REPLY_PAIRS, *DIRECT_PAIRS], baselines={"text only": "text"}, resamples=200)


def test_means_shares_and_gains(table: EmpathyTable) -> None:
    ours, text = table.row("ours"), table.row("text")
    assert ours is not None
    assert text is not None
    cell = ours.levels["exploration"]
    assert cell.mean.mean == pytest.approx(17 / 11)
    assert cell.shares == pytest.approx((0, 5 / 11, 6 / 11))
    assert cell.unscored == 1
    assert cell.gains["text only"].mean == pytest.approx(100 * (17 / 11 / 0.5 - 1))
    assert (cell.mean.low or 0) <= 17 / 11 <= (cell.mean.high or 0)
    assert not text.levels["exploration"].gains
    assert list(table.judges) == ["emotional_reaction", "exploration"]


def test_tests_are_paired_and_corrected_over_the_table(table: EmpathyTable) -> None:
    row = table.row("ours")
    assert row is not None
    tests = [cell.tests["text only"] for cell in row.levels.values()]
    assert [(one.n, one.higher, one.effect) for one in tests] == [(12, 12, 1), (11, 11, 1)]
    assert min(one.holm_p for one in tests if one.holm_p) == pytest.approx(2 * min(one.p for one in tests if one.p))


def test_a_baseline_of_zero_has_no_gain_but_a_test(table: EmpathyTable) -> None:
    row = table.row("ours")
    assert row is not None
    assert row.levels["emotional_reaction"].gains["text only"].missing == "zero_baseline"
    assert any("baseline's mean is 0" in one and "differs" in one for one in sentences(table))


def test_a_question_without_an_answer_is_wrong(table: EmpathyTable) -> None:
    row = table.row("ours")
    assert row is not None
    assert row.named is not None
    assert (row.named.ua, row.named.n) == (0.75, 4)
    other = table.row("text")
    assert other is not None
    assert other.named is None


def test_round_trip_and_text(table: EmpathyTable) -> None:
    assert EmpathyTable.from_json(table.to_json()) == table
    text = table.plain_text()
    assert "ours" in text
    assert "1.545" in text
    assert "75.0 %" in text
    assert "Replies without a level, of 12 each: ours 1." in text


def test_replies_to_one_recording_are_averaged_for_the_tests() -> None:
    pairs = [pair.model_copy(update={"recording_id": f"r{index // 6}"}) for index, pair in enumerate(REPLY_PAIRS)]
    found = build(ALL, pairs, baselines={"text only": "text"}, resamples=50)
    row = found.row("ours")
    assert row is not None
    assert found.grouped
    assert row.levels["exploration"].tests["text only"].n == 2
    apart = build(ALL, pairs, baselines={"text only": "text"}, resamples=50, grouped=False).row("ours")
    assert apart is not None
    assert apart.levels["exploration"].tests["text only"].n == 11


@pytest.mark.parametrize(
    ("given", "baselines", "said"),
    [
        (named("ours", ["sad"]), {}, "no verdicts of an empathy judge"),
        (ALL, {"speech": "gone"}, "baselines gone gave no replies; those that did: ours, text"),
        ([*ALL, *named("text", ["sad"], judge="llm:x")], {}, "verdicts by llm:x, reference"),
        ([*ALL, ALL[0].model_copy(update={"judge": "epitome:exploration:other@1"})], {}, "one judge for each measure"),
    ],
)
def test_what_makes_no_table(given: list[Verdict], baselines: dict[str, str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        build(given, [*REPLY_PAIRS, *DIRECT_PAIRS], baselines=baselines, resamples=10)


def test_the_page_shows_the_table_and_escapes_names(table: EmpathyTable, tmp_path: Path) -> None:
    rows = tuple(row.model_copy(update={"subject": "<b>ours"}) if row.subject == "ours" else row for row in table.rows)
    page = write_page(table.model_copy(update={"rows": rows}), tmp_path, name="try")
    html = Path(str(page)).read_text()
    assert "<b>ours" not in html
    assert "&lt;b&gt;ours" in html
    assert "1.545" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert block(table) == block(EmpathyTable.from_json(table.to_json()))
    assert "no level" in draw(build(verdicts("mute", "exploration", [None] * 12), REPLY_PAIRS, resamples=10))
