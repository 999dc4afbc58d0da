"""Native audio LLMs of transformers (Qwen2-Audio, Qwen-Omni, Voxtral, Granite Speech, Gemma 3n) behind one adapter.

    llm = NativeAudioLLM.load("Qwen/Qwen2-Audio-7B-Instruct", revision="...", dtype="bfloat16", device_map="auto")
    llm.answer(["How does she feel?"], [wave])[0].text

`chats` says who speaks and where sound is heard, `families` what differs between the models, `llm` does the rest.
"""

from undertone.model.native.chats import Message, dialogue, without_marker
from undertone.model.native.families import FAMILIES, Family
from undertone.model.native.llm import NativeAudioLLM, NativeBatch, NativeItem

__all__ = ["FAMILIES", "Family", "Message", "NativeAudioLLM", "NativeBatch", "NativeItem", "dialogue", "without_marker"]
