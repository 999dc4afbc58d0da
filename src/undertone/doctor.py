"""What is installed, what is missing, the command that gets it, and under which licence it comes."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

from undertone import __version__
from undertone.errors import UndertoneError


class Part(NamedTuple):
    """An optional part: the module to look for, its distribution, what it is for, its licence, and how to get it."""

    module: str
    distribution: str
    purpose: str
    licence: str
    install: str


_TRAIN = 'pip install "undertone[train]"'
_ASR = 'pip install "undertone[asr]"'
_SPEAKERS = 'pip install "undertone[speakers]"'
PARTS: tuple[Part, ...] = (
    Part("torch", "torch", "train and ask speech-LLMs", "BSD-3-Clause", _TRAIN),
    Part("transformers", "transformers", "encoders and decoders of Hugging Face", "Apache-2.0", _TRAIN),
    Part("peft", "peft", "LoRA", "Apache-2.0", _TRAIN),
    Part(
        "espeakng_loader",
        "espeakng-loader",
        "the demonstration corpus",
        "wheel MIT, the library in it GPL-3.0-or-later",
        'pip install "undertone[demo]"',
    ),
    Part("silero_vad", "silero-vad", "label.vad: silero", "MIT", "pip install --no-deps silero-vad"),
    Part("pocketsphinx", "pocketsphinx", "English words offline, and label.align: pocketsphinx", "BSD-2-Clause", _ASR),
    Part("faster_whisper", "faster-whisper", "words in 99 languages", "MIT", _ASR),
    Part("funasr", "funasr", "emotion2vec", "MIT, its weights FunASR's model licence", 'pip install "undertone[emotion2vec]"'),
    Part("resemblyzer", "resemblyzer", "speakers without pyannote", "Apache-2.0", _SPEAKERS),
    Part("pyannote.audio", "pyannote.audio", "speakers", "MIT, its weights CC-BY-4.0 and gated", _SPEAKERS),
    Part("ray", "ray", "a cluster: --executor ray", "Apache-2.0", 'pip install "undertone[ray]"'),
)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def lines() -> Iterator[str]:
    """The report of `undertone doctor`, line by line."""
    yield f"undertone {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield ""
    for part in PARTS:
        if not _is_there(part.module):
            yield f"  missing  {part.distribution}: {part.purpose} ({part.licence}). {part.install}"
        else:
            yield f"  ok       {part.distribution} {metadata.version(part.distribution)}: {part.purpose} ({part.licence})"
    yield _executable("ffmpeg", "m4a, mp4, webm and video", "apt-get install ffmpeg, or brew install ffmpeg")
    yield ""
    yield from _labellers()
    yield ""
    yield from _accelerators()


def _executable(name: str, purpose: str, install: str) -> str:
    found = shutil.which(name)
    return f"  ok       {name}: {purpose}" if found else f"  missing  {name}: {purpose}. {install}"


def _labellers() -> Iterator[str]:
    from undertone.label.catalogue import overview
    from undertone.label.protocol import LABELLERS

    yield "labellers (undertone labellers NAME describes one)"
    yield from (f"  {line}" for line in overview())
    affect = LABELLERS.get("affect-small")
    try:
        yield f"  ok       weights of affect-small, version {affect.version} ({affect.licence})"
    except UndertoneError as error:
        yield f"  missing  weights of affect-small: {error}"


def _accelerators() -> Iterator[str]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch  # seconds to import, but a person who asks the doctor can wait

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield f"  ok       GPU {index}: {torch.cuda.get_device_name(index)}"
    else:
        yield "  no GPU that torch can use; training runs on the CPU"
