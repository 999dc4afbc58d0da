"""MSP-Podcast: Test Set 1 or 2 of the published partition, four or more emotions, valence, arousal and dominance from 1 to 7.

A row of Labels/labels_consensus.csv (columns as its readme has them, read by `corpora.native.msp_podcast`; the values here are made up, the
corpus may not be passed on):

    FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
    MSP-PODCAST_0001_0001.wav,N,4.0,4.0,4.0,12,Female,Test1

2508.07273 reports on Test2; how the two sets were drawn is told in the readme. Labels of Test3 are not published. Four
classes are angry, happy, neutral, sad; the five of BLSP-Emo and RE-LLM add surprised; up to seven can be asked for. Contempt counts as
disgusted or as none of ours (`contempt`). Turns without agreement (X) and "other" (O) are left out.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from undertone.corpora.native import MspPodcastCorpus
from undertone.corpora.native.msp_podcast import HIGHEST, LOWEST
from undertone.evaluate.benchmarks.speech_emotion import SpeechEmotion


class MspPodcast(SpeechEmotion):
    """One test set of MSP-Podcast.

    Attributes:
        contempt: "disgusted" counts it so; "other" leaves it out.
    """

    name: Literal["msp-podcast-test1", "msp-podcast-test2"]
    contempt: Literal["disgusted", "other"] = "disgusted"

    ABOUT: ClassVar[str] = (
        "MSP-Podcast (Lotfian & Busso 2019): Test1 or Test2 of the published partition; angry, happy, neutral, sad, or more; ratings from 1 to "
        "7 become 0..1."
    )
    LICENCE: ClassVar[str | None] = "MSP-Podcast licence (University of Texas at Dallas), not to be passed on"
    SCALE: ClassVar[tuple[float, float] | None] = (LOWEST, HIGHEST)

    def corpus(self) -> MspPodcastCorpus:
        return MspPodcastCorpus(
            path=self.path,
            votes=False,
            test_sets=("Test1",) if self.name.endswith("1") else ("Test2",),
            emotions={} if self.contempt == "disgusted" else {"contempt": "other"},
        )
