"""Tiny random checkpoints of the architectures that labellers run, written to disk as their releases lie there."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undertone.audio import Wave
from undertone.label.audeering import DIM_ORDER, pooled_regressor
from undertone.label.ecapa import expected_shapes
from undertone.label.protocol import Asked


def asked(wave: Wave, at_ms: int = 0) -> Asked:
    """A wave without context, and where in its recording it is."""
    return Asked(wave, at_ms, (at_ms, at_ms + wave.duration_ms))


# ---- transformers

_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 16, 16, 16, 16, 16, 16],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "mask_time_prob": 0.05,
}


def names(classes: Sequence[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}


def wav2vec2_like(kind: str, classes: Sequence[str], *, norm: str = "layer") -> tuple[Any, Any]:
    import transformers

    classes_of = {
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForSequenceClassification),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMForSequenceClassification),
        "hubert": (transformers.HubertConfig, transformers.HubertForSequenceClassification),
    }
    config_class, model_class = classes_of[kind]
    config = config_class(**_ENCODER, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", **names(classes))
    return model_class(config), transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")


def whisper(classes: Sequence[str]) -> tuple[Any, Any]:
    import transformers

    config = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=20,
        max_source_positions=150,  # of 20 ms
        classifier_proj_size=16,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **names(classes),
    )
    return transformers.WhisperForAudioClassification(config), transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=3)


def ast(classes: Sequence[str]) -> tuple[Any, Any]:
    import transformers

    config = transformers.ASTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=300,  # of 10 ms
        num_mel_bins=32,
        **names(classes),
    )
    return transformers.ASTForAudioClassification(config), transformers.ASTFeatureExtractor(max_length=300, num_mel_bins=32)


def wav2vec2_bert(classes: Sequence[str]) -> tuple[Any, Any]:
    import transformers

    config = transformers.Wav2Vec2BertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        feature_projection_input_dim=40,  # two frames of 20 mel bands
        classifier_proj_size=16,
        vocab_size=16,
        **names(classes),
    )
    net = transformers.Wav2Vec2BertForSequenceClassification(config)
    return net, transformers.SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20)


def regressor(heads: Mapping[str, int], **settings: Any) -> tuple[Any, Any]:
    import transformers

    config = transformers.Wav2Vec2Config(**_ENCODER, feat_extract_norm="layer", do_stable_layer_norm=True, **settings)
    return pooled_regressor(heads)(config), transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def dim() -> tuple[Any, Any]:
    return regressor({"classifier": 3}, problem_type="regression", **names(DIM_ORDER))


def age_gender() -> tuple[Any, Any]:
    return regressor({"age": 1, "gender": 3})


def biased(net: Any, *biases: float) -> Any:
    """Let the last layer say these numbers whatever it hears."""
    import torch

    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor(biases))
    return net


def lively(make: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
    """A random model that hears: fresh weights are so small that every wave would sound alike to it."""
    import torch

    torch.manual_seed(7)
    net, extractor = make()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(20.0 if name.startswith(("classifier", "projector")) else 4.0)
    return net, extractor


def saved(made: tuple[Any, Any], folder: Path) -> Path:
    net, extractor = made
    net.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


# ---- emotion2vec

TOKENS = (
    "生气/angry",
    "厌恶/disgusted",
    "恐惧/fearful",
    "开心/happy",
    "中立/neutral",
    "其他/other",
    "难过/sad",
    "吃惊/surprised",
    "<unk>",
)

EMOTION2VEC_CONFIG = """
model: Emotion2vec
model_conf:
    depth: 2
    start_drop_path_rate: 0.0
    end_drop_path_rate: 0.0
    num_heads: 2
    norm_eps: 1e-05
    norm_affine: true
    encoder_dropout: 0.1
    post_mlp_drop: 0.1
    attention_dropout: 0.1
    activation_dropout: 0.0
    dropout_input: 0.0
    layerdrop: 0.05
    embed_dim: 16
    mlp_ratio: 2.0
    layer_norm_first: false
    average_top_k_layers: 2
    end_of_block_targets: false
    clone_batch: 2
    normalize: true
    modalities:
        audio:
            type: AUDIO
            prenet_depth: 1
            prenet_layerdrop: 0.05
            prenet_dropout: 0.1
            start_drop_path_rate: 0.0
            end_drop_path_rate: 0.0
            num_extra_tokens: 3
            init_extra_token_zero: true
            mask_prob: 0.5
            mask_length: 5
            use_alibi_encoder: true
            alibi_scale: 1.0
            learned_alibi: false
            alibi_max_pos: null
            learned_alibi_scale: true
            learned_alibi_scale_per_head: true
            learned_alibi_scale_per_layer: false
            num_alibi_heads: 2
            model_depth: 2
            local_grad_mult: 1.0
            decoder:
                decoder_dim: 8
                decoder_groups: 2
                decoder_kernel: 3
                decoder_layers: 1
                input_dropout: 0.1
                add_positions_masked: false
                add_positions_all: false
                decoder_residual: true
                projection_layers: 1
                projection_ratio: 2.0
            extractor_mode: layer_norm
            feature_encoder_spec: '[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] + [(8, 2, 2)]'
            conv_pos_width: 15
            conv_pos_groups: 4
            conv_pos_depth: 3
            conv_pos_pre_ln: false
tokenizer: CharTokenizer
"""


def emotion2vec(outputs: int = len(TOKENS)) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model_module = importlib.import_module("funasr.models.emotion2vec.model")
    config = importlib.import_module("omegaconf").OmegaConf.create(EMOTION2VEC_CONFIG)
    torch.manual_seed(0)
    made = model_module.Emotion2vec(model_conf=config.model_conf, vocab_size=outputs)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # off the released initialisation: no zeros, no equal slopes
    return made.eval()


def emotion2vec_release(
    path: Path, state: Mapping[str, Any], tokens: Sequence[str] = TOKENS, config: str = EMOTION2VEC_CONFIG
) -> Path:
    """As the release is: weights under "model", the network's own under "d2v_model.", without the decoder of the pretraining."""
    import torch

    kept = {
        name if name.startswith("proj.") else f"d2v_model.{name}": tensor
        for name, tensor in state.items()
        if ".decoder." not in name
    }
    torch.save({"model": kept, "args": None, "cfg": {"task": "x"}}, path / "model.pt")
    (path / "config.yaml").write_text(config, encoding="utf-8")
    (path / "tokens.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


# ---- MERaLiON-SER

MERALION_WORDS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")

_SER_CONFIGURATION = """
from transformers import PretrainedConfig


class TinySerConfig(PretrainedConfig):
    model_type = "tiny_ser"

    def __init__(self, whisper_name="openai/whisper-medium", num_emotions=7, width=16, **kwargs):
        self.whisper_name = whisper_name
        self.num_emotions = num_emotions
        self.width = width
        super().__init__(**kwargs)
"""

_SER_MODELING = """
import sys

import torch
from torch import nn
from transformers import PreTrainedModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_tiny import TinySerConfig

sys.tiny_ser_code_ran = True


class TinySer(PreTrainedModel):
    config_class = TinySerConfig

    def __init__(self, config):
        super().__init__(config)
        self.encoder = WhisperEncoder(WhisperConfig.from_pretrained(config.whisper_name))
        kernels = [int(k) for k in torch.logspace(0, 1, 3)]  # as the release does, and as fails on tensors without data
        self.convs = nn.ModuleList(nn.Conv1d(config.width, config.width, k, padding=k // 2) for k in kernels)
        self.emotion_head = nn.Linear(config.width, config.num_emotions)
        self.dim_head = nn.Sequential(nn.Linear(config.width, 3), nn.Sigmoid())
        self.post_init()

    def forward(self, input_features, attention_mask=None):
        x = self.encoder(input_features).last_hidden_state
        mask = attention_mask[:, ::2][:, None, : x.shape[1]].float()
        x = x.transpose(1, 2)
        pooled = sum((conv(x)[..., : mask.shape[2]] * mask).sum(2) / mask.sum(2) for conv in self.convs)
        return {"logits": self.emotion_head(pooled / 3), "dims": self.dim_head(pooled / 3)}
"""


def tiny_module(folder: Path) -> Any:
    """The checkpoint's own code as a package, to make its weights with."""
    package = importlib.util.module_from_spec(importlib.util.spec_from_loader("tiny_ser", None, is_package=True))
    package.__path__ = [str(folder)]
    sys.modules["tiny_ser"] = package
    try:
        return importlib.import_module("tiny_ser.modeling_tiny")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tiny_ser"]:
            del sys.modules[name]


def meralion_release(folder: Path, **overrides: object) -> Path:
    import torch
    import transformers

    (folder / "configuration_tiny.py").write_text(_SER_CONFIGURATION)
    (folder / "modeling_tiny.py").write_text(_SER_MODELING)
    shape = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "num_mel_bins": 16}
    whisper = folder / "whisper"
    transformers.WhisperConfig(**shape, max_source_positions=1_500, vocab_size=64).save_pretrained(whisper)
    module = tiny_module(folder)
    torch.manual_seed(0)
    config = module.TinySerConfig(whisper_name=str(whisper), id2label=dict(enumerate(MERALION_WORDS)))
    made = module.TinySer(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=16).save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    told["auto_map"] = {
        "AutoConfig": "configuration_tiny.TinySerConfig",
        "AutoModelForAudioClassification": "modeling_tiny.TinySer",
    }
    told |= overrides
    (folder / "config.json").write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    return folder


@contextlib.contextmanager
def modules_elsewhere(place: Path) -> Iterator[None]:
    """Transformers copies the code of models into a folder of the user; here into one of the test."""
    utils = importlib.import_module("transformers.dynamic_module_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "HF_MODULES_CACHE", str(place))
        patch.setattr(sys, "path", list(sys.path))
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        del sys.modules[name]


# ---- ECAPA

CHANNELS = 16


def ecapa_weights(seed: int = 0) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in expected_shapes(CHANNELS).items():
        if name.endswith("running_var") or (".weight" in name and len(shape) == 1):
            weights[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            fan = int(np.prod(shape[1:])) if len(shape) > 1 else 4
            weights[name] = torch.randn(shape, generator=generator) / fan**0.5
        if name.endswith("running_var"):  # as torch saves a batch norm; not needed
            weights[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return weights


# ---- Whisper under CTranslate2


def make_whisper(folder: Path, *, nan: bool = False, languages: int = 99, mels: int = 80) -> Path:
    """A random Whisper of one encoder and two decoder layers with a tokenizer of Whisper's layout, converted as users convert theirs.

    The text tokens are the 256 bytes, made-up words " w0", " w1", ... in place of the merges, and the empty token that tells
    CTranslate2 that a model is multilingual.
    """
    import torch
    from ctranslate2.converters import TransformersConverter
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = folder / "transformers"
    codes = [f"<|{code}|>" for code in list(LANGUAGES)[:languages]]
    text = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"Ġw{index}" for index in range(50_000)), *([""] if languages else [])]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(text)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens(["<|endoftext|>", "<|startoftranscript|>", *codes, *tasks])
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, unk_token=end).save_pretrained(source)
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size() + 1501,  # times in steps of 20 ms
        num_mel_bins=mels,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        eos_token_id=tokenizer.token_to_id(end),
        bos_token_id=tokenizer.token_to_id(end),
        pad_token_id=tokenizer.token_to_id(end),
        decoder_start_token_id=tokenizer.token_to_id("<|startoftranscript|>"),
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config._from_model_config = False  # or else it is made anew when it is loaded
    model.generation_config.lang_to_id = {code: tokenizer.token_to_id(code) for code in codes}
    model.generation_config.suppress_tokens = model.generation_config.begin_suppress_tokens = None
    if nan:
        with torch.no_grad():
            model.model.encoder.layer_norm.weight.fill_(float("nan"))
    model.save_pretrained(source)
    WhisperFeatureExtractor(feature_size=mels).save_pretrained(source)
    made = folder / "ct2"
    TransformersConverter(str(source), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(str(made))
    shutil.rmtree(source)
    return made


# ---- diarisers


def resemblyzer_weights(path: Path, *, spoil: str | None = None, value: float | None = None) -> Path:
    """The network of resemblyzer with random weights, as its package saves it."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    state = {f"lstm.{key}": item for key, item in torch.nn.LSTM(40, 256, 3, batch_first=True).state_dict().items()}
    state |= {f"linear.{key}": item for key, item in torch.nn.Linear(256, 256).state_dict().items()}
    state |= {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    if spoil is not None:
        state.pop(spoil)
    if value is not None:
        state["linear.bias"] = torch.full((256,), value)
    torch.save({"step": 1, "model_state": state, "optimizer_state": {}}, path)
    return path


def tiny_pipeline(folder: Path) -> Path:
    """A pipeline of pyannote.audio with its own small networks and random weights: config.yaml, two models, a PLDA."""
    import torch
    from pyannote.audio import __version__
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding.xvector import XVectorSincNet
    from pyannote.audio.models.segmentation.PyanNet import PyanNet

    torch.manual_seed(0)
    lstm, linear = {"hidden_size": 8, "num_layers": 1}, {"hidden_size": 8, "num_layers": 1}
    segmentation = PyanNet(lstm=lstm, linear=linear)
    segmentation.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=2.0,
        classes=["one", "two", "three"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    segmentation.build()
    embedding = XVectorSincNet(dimension=16)
    embedding.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=2.0, classes=["one", "two"]
    )
    for name, model in (("segmentation", segmentation), ("embedding", embedding)):
        (folder / name).mkdir(parents=True)
        saved = {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "pytorch-lightning_version": "2.5.0",
            "epoch": 0,
            "global_step": 0,
        }
        model.on_save_checkpoint(saved)
        saved["pyannote.audio"]["versions"]["pyannote.audio"] = __version__
        torch.save(saved, folder / name / "pytorch_model.bin")
    (folder / "plda").mkdir()
    eye, zero = np.eye(16), np.zeros(16)
    np.savez(folder / "plda" / "xvec_transform.npz", mean1=zero, mean2=zero, lda=eye)
    np.savez(folder / "plda" / "plda.npz", mu=zero, tr=eye, psi=np.arange(16, 0, -1.0))
    (folder / "config.yaml").write_text(
        "pipeline:\n  name: pyannote.audio.pipelines.SpeakerDiarization\n  params:\n    clustering: AgglomerativeClustering\n"
        "    segmentation: $model/segmentation\n    embedding: $model/embedding\n    plda: $model/plda\n"
        "params:\n  clustering: {method: centroid, min_cluster_size: 1, threshold: 0.7}\n  segmentation: {min_duration_off: 0.0}\n"
    )
    return folder
