"""What is done to speech each time it is heard in training: masks on frames (SpecAugment), noise and speed on samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from undertone.errors import ConfigError
from undertone.model.config import SpeechLLMConfig
from undertone.train.config import AugmentConfig

Heard = npt.NDArray[np.floating]


def check_augment(config: AugmentConfig, model: SpeechLLMConfig, *, width: int) -> None:
    """Raise ConfigError where samples are to be changed and there are none, or frames and there are samples.

    Args:
        config: What is done.
        model: The model that hears it.
        width: Of a frame, or of an inside encoder's inputs; samples have width 1.
    """
    reads_samples = model.encoder_inside and width == 1
    if reads_samples and (config.time_masks or config.feature_masks):
        raise ConfigError(
            f"train.augment: time_masks={config.time_masks} and feature_masks={config.feature_masks} are of frames, but this model is given "
            "samples, of which each is one feature; leave them out and use noise_db and speed"
        )
    if config.samples and not reads_samples:
        there = f"inputs of width {width}" if model.encoder_inside else "frames that were encoded before"
        raise ConfigError(
            f"train.augment: noise_db={config.noise_db} and speed={config.speed} change samples, but this model is given {there}; leave "
            "them out and use time_masks and feature_masks, or train an encoder that reads samples (leave 'encoder' out of model.frozen)"
        )


def augmented(heard: Heard, config: AugmentConfig, draw: str) -> Heard:
    """Speech as it is heard this time.

    Args:
        heard: Frames (T, D) or (T, layers, D), or samples (T, 1); left as they are.
        config: What is done.
        draw: Seed of what is drawn.
    """
    chance = np.random.default_rng(np.frombuffer(draw.encode(), dtype=np.uint8))
    if config.samples:
        return _samples(heard, config, chance)
    made = heard.copy()
    mean = heard.mean(0, dtype=np.float32).astype(heard.dtype)
    for _ in range(config.time_masks):
        size = int(chance.integers(0, min(config.time_frames, len(made) // 4) + 1))
        start = int(chance.integers(0, len(made) - size + 1))
        made[start : start + size] = mean
    for _ in range(config.feature_masks):
        size = int(chance.integers(0, min(config.feature_width, made.shape[-1]) + 1))
        start = int(chance.integers(0, made.shape[-1] - size + 1))
        made[..., start : start + size] = mean[..., start : start + size]
    return made


def _samples(heard: Heard, config: AugmentConfig, chance: np.random.Generator) -> Heard:
    samples = heard[:, 0].astype(np.float32)
    if config.speed is not None:
        places = np.arange(0, len(samples) - 1, chance.uniform(*config.speed))
        samples = np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
    if config.noise_db is not None:
        power = float(np.square(samples).mean())
        level = np.sqrt(power / 10 ** (chance.uniform(*config.noise_db) / 10))
        samples = samples + level * chance.standard_normal(len(samples), dtype=np.float32)
    return samples.astype(heard.dtype)[:, None]
