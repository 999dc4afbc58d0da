"""Subjects: models under test, and the controls that could explain what they score.

One mechanism: what is heard (the speech, another clip's, words, nothing), what is shown of labels (nothing, predicted, human), and who
answers (a checkpoint of ours, a native audio LLM of transformers, an endpoint). `config` says these three, `examples` makes them what a model
is asked, `stage` asks. A cascade is an endpoint that hears `recognised_words`; the controls are settings of the first two.

Importing this imports no torch.
"""

from undertone.evaluate.subjects.config import (
    CONTROLS,
    AnySubject,
    Asked,
    ChatSubject,
    EndpointSubject,
    NativeSubject,
    TrainedSubject,
    arms,
    control_names,
)
from undertone.evaluate.subjects.examples import clips_of, examples_of, other_speech, recognised
from undertone.evaluate.subjects.stage import AskStage

__all__ = [
    "CONTROLS",
    "AnySubject",
    "AskStage",
    "Asked",
    "ChatSubject",
    "EndpointSubject",
    "NativeSubject",
    "TrainedSubject",
    "arms",
    "clips_of",
    "control_names",
    "examples_of",
    "other_speech",
    "recognised",
]
