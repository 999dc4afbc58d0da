"""Similarity as the fallback: only where no keyword was found, only above its threshold, and never against a negation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from undertone.errors import ConfigError, ModelError
from undertone.evaluate.mapping import Characters, Checkpoint, Nearest, to_label
from undertone.evaluate.mapping.embedders import Vectors


class Topics:
    """Embeds a text by which of a few stems it holds: paraphrases that share no letters with the keyword are alike."""

    unit: Literal["word", "text"] = "text"
    stems = (("sad", "blue", "lump in"), ("angry", "boil"), ("happy", "sunshine"))

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.array([[any(one in text.lower() for one in some) for some in self.stems] for text in texts], dtype=np.float32)


SPELT = Nearest(Characters(), threshold=0.6)
MEANT = Nearest(Topics(), threshold=0.8, margin=0.1)


def test_a_misspelt_class_is_found_with_its_evidence() -> None:
    assert to_label("The speaker is agressive.", "emotion").how == "unmapped"
    found = to_label("The speaker is agressive.", "emotion", nearest=SPELT)
    assert (found.label, found.how) == ("angry", "embedding")
    assert [(one.text, one.role) for one in found.matches] == [("agressive", "claimed")]
    assert found.nearest[0].label == "angry"
    assert found.nearest[0].similarity > found.nearest[1].similarity


def test_the_words_found_have_roles() -> None:
    found = to_label("The speaker is not agressive.", "emotion", nearest=SPELT)
    assert (found.label, found.reason) == (None, "rejected")
    assert to_label("not agressive but depresed", "emotion", nearest=SPELT).label == "sad"
    assert to_label("agressive, depresed", "emotion", nearest=SPELT).reason == "several"


def test_a_paraphrase_is_found_by_the_whole_text() -> None:
    found = to_label("He has a lump in his throat.", "emotion", nearest=MEANT)
    assert (found.label, found.how, found.matches) == ("sad", "embedding", ())
    assert to_label("Her blood is boiling; sunshine", "emotion", nearest=MEANT).reason == "below_threshold"
    assert to_label("She is not boiling over.", "emotion", nearest=MEANT).reason == "negated"


def test_two_classes_as_near_are_none() -> None:
    level = Nearest(Topics(), threshold=0.5, margin=0.1)
    assert to_label("Her blood is boiling; sunshine", "emotion", nearest=level).reason == "no_margin"


@pytest.mark.parametrize("text", ["Angry or sad.", "Not happy, boiling.", "I cannot tell what the boiling means."])
def test_what_the_keywords_read_is_not_undone(text: str) -> None:
    assert to_label(text, "emotion", nearest=MEANT) == to_label(text, "emotion")
    assert to_label(text, "emotion", nearest=MEANT).label is None


def test_only_offered_classes_are_compared() -> None:
    found = to_label("He has a lump in his throat.", "emotion", among=("angry", "happy"), nearest=MEANT)
    assert (found.label, found.reason) == (None, "below_threshold")


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"-1\.\.1.*got 7 and 0\.05"):
        Nearest(Characters(), threshold=7)


def test_letters_do_not_depend_on_the_process() -> None:
    first, again = Characters().embed(["angry"]), Characters().embed(["angry"])
    assert (first == again).all()
    assert first.sum() == 2 * len("<angry>") - 3  # its pairs and triples


def test_a_checkpoint_is_pooled_over_its_words(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "speaker", "sounds", "sad", "angry"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    embedder = Checkpoint(model=str(tmp_path), batch=2)
    made = embedder.embed(["sad", "the speaker sounds angry", "angry"])
    assert made.shape == (3, 16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        alone = model(**tokenizer("sad", return_tensors="pt")).last_hidden_state[0].mean(dim=0)
    np.testing.assert_allclose(made[0], alone.numpy(), atol=1e-5)  # padding beside the longer text left out


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match=r"cannot load .*absent"):
        Checkpoint(model=str(tmp_path / "absent")).embed(["sad"])
