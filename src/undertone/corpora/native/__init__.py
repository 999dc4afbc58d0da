"""Published corpora in their own layout: one reader a file, what they share in `base`."""

from undertone.corpora.native.base import NativeCorpus
from undertone.corpora.native.crema_d import CremaDCorpus
from undertone.corpora.native.emodb import EmodbCorpus
from undertone.corpora.native.esd import EsdCorpus
from undertone.corpora.native.iemocap import IemocapCorpus
from undertone.corpora.native.meld import MeldCorpus
from undertone.corpora.native.msp_podcast import MspPodcastCorpus
from undertone.corpora.native.nemo import NemoCorpus
from undertone.corpora.native.ravdess import RavdessCorpus
from undertone.corpora.native.tess import TessCorpus

__all__ = [
    "CremaDCorpus",
    "EmodbCorpus",
    "EsdCorpus",
    "IemocapCorpus",
    "MeldCorpus",
    "MspPodcastCorpus",
    "NativeCorpus",
    "NemoCorpus",
    "RavdessCorpus",
    "TessCorpus",
]
