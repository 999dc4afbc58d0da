"""Each corpus' own emotion words, mapped into ours in one visible table."""

from __future__ import annotations

from undertone.errors import DataError
from undertone.records import EMOTIONS, Emotion

FROM_CORPUS: dict[Emotion, tuple[str, ...]] = {
    "angry": ("angry", "anger", "ang", "rage"),
    "disgusted": ("disgusted", "disgust", "dis", "contempt"),
    "fearful": ("fearful", "fear", "fea", "afraid", "anxious", "anxiety"),
    "happy": ("happy", "happiness", "hap", "joy", "excited", "exc", "amused", "pleased"),
    # RAVDESS' "calm" is acted as a second kind of neutral; listeners confuse the two (Livingstone & Russo 2018).
    "neutral": ("neutral", "neu", "neutral state", "calm"),
    "sad": ("sad", "sadness", "sorrow"),
    "surprised": ("surprised", "surprise", "sur", "ps", "pleasant surprise"),
    "other": ("other", "oth", "frustrated", "fru", "frustration", "bored", "boredom", "mixed"),
    "unknown": ("unknown", "xxx", "no agreement", ""),
}
"""Our emotions and the words of corpora for them.

"contempt" (MSP-Podcast) goes to its neighbour disgust; "frustrated" (IEMOCAP) and "boredom" (EmoDB) are near none of ours and so "other";
"xxx" and "no agreement" say that the raters did not agree. Letters and numbers in file names are turned into these words by each reader.
"""

_LOOKUP = {word: emotion for emotion, words in FROM_CORPUS.items() for word in words}


def to_emotion(word: str) -> Emotion:
    """Our name for a corpus' emotion word.

    >>> to_emotion("Happiness"), to_emotion("calm")
    ('happy', 'neutral')

    Raises:
        DataError: The word is in no row of the table.
    """
    found = _LOOKUP.get(word.strip().lower())
    if found is None:
        raise DataError(
            f"emotion {word!r} is not one that Undertone knows; expected one of {', '.join(EMOTIONS)} or a corpus' word for them "
            "(undertone.corpora.emotions.FROM_CORPUS). Map it in the manifest, or pass emotions: {word: ours} in the corpus' settings"
        )
    return found
