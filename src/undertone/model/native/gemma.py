"""Gemma 3n without its vision tower, which needs timm and torchvision and hears nothing."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from torch import nn


@functools.cache
def hearing_gemma() -> Any:
    """`Gemma3nForConditionalGeneration` with an empty vision tower; names and shapes of all other weights are the released ones."""
    import transformers
    from transformers.models.gemma3n import modeling_gemma3n

    library: Any = transformers
    released: Any = modeling_gemma3n
    auto, base, embedder = library.AutoModel, library.Gemma3nPreTrainedModel, released.Gemma3nMultimodalEmbedder

    class HearingGemma3nModel(library.Gemma3nModel):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            # The parent's would build the vision tower.
            base.__init__(self, config)
            self.vision_tower = nn.Identity()
            self.vocab_size = config.text_config.vocab_size
            self.vocab_size_per_layer_input = config.text_config.vocab_size_per_layer_input
            self.language_model = auto.from_config(config.text_config)
            self.audio_tower = auto.from_config(config.audio_config)
            self.embed_vision = embedder(config.vision_config, config.text_config)
            self.embed_audio = embedder(config.audio_config, config.text_config)
            self.post_init()

    class HearingGemma3n(library.Gemma3nForConditionalGeneration):  # type: ignore[misc]
        _keys_to_ignore_on_load_unexpected: ClassVar[list[str]] = [r"vision_tower\."]

        def __init__(self, config: Any) -> None:
            base.__init__(self, config)
            self.model = HearingGemma3nModel(config)
            self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
            self.post_init()

    return HearingGemma3n
