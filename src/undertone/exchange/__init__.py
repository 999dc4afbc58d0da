"""Other tools' formats, out and in: Hugging Face datasets, audiofolder, NeMo, lhotse, WebDataset, RTTM, Label Studio; out: trainers'.

`export` writes a table of clips, recordings or segments in one of them; the `...Corpus` settings read one as a corpus, `trainers.dialogues`
reads the questions that were written for another trainer. No format needs
the other tool to be installed. docs/exchange.md says what each holds.
"""

from undertone.exchange.audiofolder import AudiofolderCorpus
from undertone.exchange.export import FORMATS, ExportReport, Format, export
from undertone.exchange.hf_dataset import HfDatasetCorpus
from undertone.exchange.incoming import ExchangeCorpus, PackedSpec
from undertone.exchange.label_studio import LabelStudioCorpus
from undertone.exchange.lhotse_cuts import LhotseCorpus
from undertone.exchange.nemo_manifest import NemoManifestCorpus
from undertone.exchange.rttm import RttmCorpus
from undertone.exchange.webdataset_tar import WebDatasetCorpus

__all__ = [
    "FORMATS",
    "AudiofolderCorpus",
    "ExchangeCorpus",
    "ExportReport",
    "Format",
    "HfDatasetCorpus",
    "LabelStudioCorpus",
    "LhotseCorpus",
    "NemoManifestCorpus",
    "PackedSpec",
    "RttmCorpus",
    "WebDatasetCorpus",
    "export",
]
