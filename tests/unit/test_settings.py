"""Study files: all problems at once, with suggestions; settings of the command line; shipped studies load."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from undertone import settings
from undertone.errors import ConfigError
from undertone.study import Study, load_study, shipped_studies, shipped_text, study_of_folder

BASE = {"name": "s", "corpora": [{"kind": "demo"}]}


def load(content: dict[str, object]) -> Study:
    return settings.validated(Study, content, where="study.yaml")


def test_every_shipped_study_loads_and_survives_its_own_yaml() -> None:
    names = shipped_studies()
    assert names == ["acted", "adapters", "demo", "re-llm"]
    for name in names:
        study = load_study(name)
        assert load(yaml.safe_load(yaml.safe_dump(study.model_dump(mode="json")))) == study
        assert load(yaml.safe_load(shipped_text(name))) == study
    for name in ("acted", "demo"):
        assert [system.name for system in load_study(name).systems][:5] == ["S10", "S20", "S30", "S31", "S32"]


def test_what_differs_for_one_system_is_laid_over_the_study() -> None:
    study = load_study("adapters")
    mlp, conv, *_, bare, queries = study.systems
    assert study.model_of(mlp) == study.model
    assert study.model_of(conv).adapter.kind == "conv"
    assert study.model_of(conv).encoder == study.model.encoder
    assert study.train_of(bare).align.steps == 0
    assert study.train_of(bare).align.lr == study.train.align.lr
    assert study.train_of(mlp).seed == study.seed
    assert "model" not in mlp.model_dump()  # what does not differ is not written, so that finished runs stay valid
    with pytest.raises(ConfigError, match=r"systems\.1 \(conv\).*adapter.*did you mean 'layers'"):
        load_study("adapters", ["systems.1.model.adapter.layer=2"])
    with pytest.raises(ConfigError, match=r"weights_of='mlp' means no training"):
        load_study("adapters", ["systems.1.weights_of=mlp"])
    assert queries.train == {"align": {"steps": 0}}


def test_all_problems_at_once_with_suggestions() -> None:
    content = {
        **BASE,
        "sed": 3,
        "condense": {"consistency": {"positive_mim": 0.6}},
        "label": {"max_segment_ms": -5},
        "train": {"steps": 0, "batchsize": 3},
        "generate": {"sources": {"cpqa": {"pair_per_kind": 1}}},
    }
    with pytest.raises(ConfigError) as caught:
        load(content)
    text = str(caught.value)
    assert text.startswith("study.yaml has 6 problems: ")
    for part in (
        "sed: unknown key, did you mean 'seed'?",
        "condense.consistency.positive_mim: unknown key, did you mean 'positive_min'?",
        "label.max_segment_ms: got -5, expected greater than or equal to 1000",
        "train.steps: got 0, expected greater than or equal to 1",
        "train.batchsize: unknown key, did you mean 'batch_size'?",
        "generate.sources.cpqa.pair_per_kind: unknown key, did you mean 'pairs_per_kind'?",
    ):
        assert part in text


LLM = {"endpoint": "http://127.0.0.1:8000/v1", "model": "m"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpora": []}, "corpora: "),
        ({"corpora": [{"kind": "folders", "path": "x"}]}, "corpora.0"),
        ({"corpora": [{"kind": "folder"}]}, "corpora.0.path: missing"),
        (
            {"corpora": [{"kind": "folder", "path": "x", "manifst": "m"}]},
            "corpora.0.manifst: unknown key, did you mean 'manifest'?",
        ),
        ({"corpora": [{"kind": "demo"}, {"kind": "demo"}]}, "the name 'demo' stands twice"),
        ({"name": "a/b"}, "name: got 'a/b'"),
        ({"systems": [{"name": "S31", "data": ["asr"], "weights_of": "S30"}]}, "S31 uses the weights of 'S30'; trained are"),
        ({"systems": [{"name": "S10", "data": ["asr", "tts"]}]}, "S10 is trained on tts, but generate.sources has asr, pqa"),
        ({"model": {"encoder": {"name": "a", "config": {"model_type": "whisper"}}}}, "give either name or config"),
        ({"generate": {"llm": {"endpoint": "http://127.0.0.1:8000/v1"}}}, "generate.llm.model: missing"),
        ({"generate": {"sources": {"multi_turn": {}}}}, "source multi_turn: strategy 'multi_turn' needs an LLM: give llm:"),
        (
            {"generate": {"sources": {"speak_on": {"strategy": "continuation", "settings": {"mode": "continue"}}}}},
            "source speak_on: mode: continue needs an LLM: give llm:",
        ),
        (
            {"generate": {"sources": {"replies": {"strategy": "continuation", "settings": {"frames": "test"}}}}},
            "source replies: settings.frames: whose wordings are used stands beside settings",
        ),
        ({"generate": {"sources": {"asr": {"settings": {"a": 1}}}}}, "settings (a) are an LLM's"),
        ({"generate": {"sources": {"cpqa": {"settings": {"pairs_per_clip": 7}}}}}, "or take them out"),
        ({"generate": {"sources": {"cpqa": {"kinds": ["REPLY"]}}}}, "kinds: the grammar cannot ask REPLY"),
        (
            {"generate": {"llm": LLM, "sources": {"cpqa": {"kinds": ["REPLY"]}}}},
            "source cpqa: strategy cpqa has 1 problem: kinds: got ('REPLY',), an LLM cannot be asked for REPLY",
        ),
        (
            {"generate": {"llm": LLM, "sources": {"cpqa": {"settings": {"kinds": ["C"], "proportions": {"CE": 1}}}}}},
            "source cpqa: strategy cpqa has 1 problem: proportions: got CE, expected some of kinds: C",
        ),
        (
            {"generate": {"llm": LLM, "sources": {"continuation": {"settings": {"evidence_form": "plan"}}}}},
            "evidence_form: got 'plan', did you mean 'plain'? expected one of dimensional, metadata, plain, seed, words",
        ),
        ({"generate": {"llm": {**LLM, "endpoint": "localhost:8000"}}}, "got 'localhost:8000', expected http://localhost:8000/v1"),
        ({"generate": {"llm": {**LLM, "api_key": "secret"}}}, "take it out and type: export UNDERTONE_API_KEY=..."),
        ({"evaluate": {"direct": {"settings": {"pairs_per_clip": 7}}}}, "settings (pairs_per_clip) are an LLM's"),
        ({"generate": {"sources": {"cqpa": {}}}}, "strategy: got 'cqpa', did you mean 'cpqa'? expected one of asr, "),
        ({"generate": {"sources": {"cpqa": {"frames": "test"}}}}, "generate.sources.cpqa may use neither test wordings nor"),
        ({"generate": {"sources": {"Mine": {"strategy": "cpqa"}}}}, "'Mine' cannot name a source; expected small letters"),
        ({"generate": {"sources": {"asr": None}}}, "S10 is trained on asr, but generate.sources has pqa, pqa_star, cpqa"),
        (
            {"train": {"stages": [{"sources": ["arr"], "share": 1.0}]}},
            "train.stages names arr; expected some of generate.sources: asr",
        ),
        ({"train": {"mix": {"pqa*": 1.0}}}, "train.mix names pqa*; expected some of generate.sources: asr, pqa"),
        ({"evaluate": {"direct": {"frames": "train"}}}, "evaluate.direct asks clips of split test in test wordings"),
        ({"evaluate": {"context": {"splits": ["train"]}}}, "evaluate.context asks clips of split test in test wordings"),
        ({"systems": [{"name": "../x", "data": ["asr"]}]}, "systems.0.name: got '../x'"),
        ({"systems": [{"name": "start", "data": ["asr"]}]}, "the name 'start' is a folder of the run itself"),
        ({"systems": [{"name": "a b", "data": ["asr"]}, {"name": "a-b", "data": ["asr"]}]}, "the name 'a-b' stands twice"),
        ({"generate": {"checks": {"off": ["leak"]}}}, "no check 'leak'; expected some of"),
    ],
)
def test_wrong_values_say_where_and_what(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({**BASE, **change})
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_settings_of_the_command_line_are_yaml_and_reach_into_lists() -> None:
    made = settings.override(BASE, ["train.steps=7", "corpora.0.train=3", "label.labellers=[prosody]", "label.vad=silero"])
    study = load(made)
    assert (study.train.steps, study.corpora[0].train) == (7, 3)  # type: ignore[union-attr]
    assert [one.title for one in study.label.labellers] == ["prosody"]
    assert BASE == {"name": "s", "corpora": [{"kind": "demo"}]}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.steps", "expected key=value"),
        ("=3", "expected key=value"),
        ("name.first=3", "name has no key 'first'"),
        ("corpora.4.train=1", "corpora has no key '4'"),
        ("train.steps=[", "the value is not YAML"),
    ],
)
def test_bad_settings_say_what_is_wrong(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        settings.override(BASE, [setting])


def test_missing_broken_and_odd_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist\. Start from a shipped one: undertone run --show demo"):
        load_study(str(tmp_path / "none.yaml"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_study(str(tmp_path / "broken.yaml"))
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="holds a list, expected keys and values"):
        load_study(str(tmp_path / "list.yaml"))


def test_a_folder_is_a_study(tmp_path: Path) -> None:
    folder = tmp_path / "my speech!"
    folder.mkdir()
    study = study_of_folder(folder, ["seed=5"])
    assert (study.name, study.seed, study.corpora[0].path) == ("my-speech-", 5, folder)  # type: ignore[union-attr]
