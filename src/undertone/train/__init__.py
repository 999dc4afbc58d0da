"""Training of the speech-LLM: mixing, the loop, the decoder's text-only pre-training."""
