"""The speech-LLM: frozen encoder, adapter, decoder-only LLM, and what it is shown (metadata, prompts, examples)."""
