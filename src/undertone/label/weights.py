"""The base of labellers that run somebody else's weights: where these are, which ones exactly, on what device, how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from undertone.audio import Wave
from undertone.errors import ConfigError, ModelError
from undertone.label.hub import fetching, is_local, needs, revision_of
from undertone.label.protocol import Labeller, Value

if TYPE_CHECKING:
    import torch


class Weights(Labeller):
    """Base of labellers with weights: a subclass declares what it needs, and implements `load` and `judge_many` (or `listen`).

    Attributes:
        packages, extra: What it runs on, and the extra of undertone that installs it.
        instead: A labeller that does without, for the message where they are absent.
        files: What the weights consist of, in a folder as on a hub; of each group one file is enough. The first group is small.
        expected: What a folder should hold, for the message where it lacks some of them.
        revisions: The fixed revision of models that we know, by name.
        model: A folder (or file), or a name on the Hugging Face hub.
        pin: Commit or tag of a hub's model.
        device: Of torch.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = "label"
    instead: ClassVar[str | None] = None
    files: ClassVar[tuple[tuple[str, ...], ...]] = ()
    expected: ClassVar[str] = "the files of the model as its hub has them"
    revisions: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, model: str, revision: str | None = None, device: str = "cpu", batch: int = 1) -> None:
        """Store the configuration; nothing is loaded before `open` or the first wave.

        Args:
            model: A folder, or a name on the hub.
            revision: Commit or tag of a hub's model; None takes the one of `revisions`.
            device: Of torch: "cpu", "cuda", "cuda:1".
            batch: How many waves run at once.
        """
        if batch < 1:
            raise ConfigError(f"labeller {self.name!r}: batch: got {batch}, expected at least 1")
        self.model = model
        self.pin = self.revisions.get(model) if revision is None else revision
        self.device = device
        self.batch = batch

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded model: a worker loads its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_loaded"}

    @property
    def local(self) -> bool:
        """Whether the weights are given as a path."""
        return is_local(self.model)

    @property
    def place(self) -> str:
        """The model as its loader takes it: a whole path, or the name on the hub."""
        return str(Path(self.model).expanduser().absolute()) if self.local else self.model

    @cached_property
    def revision(self) -> str:
        """The digest of the local files, or "name@revision"; found once, for it reads all of them."""
        return revision_of(self.name, self.place, self.pin)

    def check(self) -> None:
        """Raise at once if packages or weights are not there or not allowed; the hub is asked about one file at most.

        Raises:
            DependencyError: A package is absent, or the weights are neither here nor on a hub within reach.
            ConfigError: A hub's model without a fixed revision, or a path where nothing is.
            ModelError: A folder lacks files.
        """
        needs(self.name, *self.packages, extra=self.extra, instead=self.instead)
        self.found(*self.files)

    def found(self, *groups: tuple[str, ...]) -> None:
        """Raise as `check` does unless one file of each group is here, or the hub says that it has the model."""
        _ = self.revision
        folder = Path(self.place)
        if not self.local:
            self._within_reach(groups)
        elif folder.is_dir():
            lacking = [" or ".join(group) for group in groups if not any((folder / name).exists() for name in group)]
            if lacking:
                raise ModelError(f"labeller {self.name!r}: {folder} lacks {', '.join(lacking)}; expected {self.expected}")

    def _within_reach(self, groups: Sequence[tuple[str, ...]]) -> None:
        """Without a network a download tries for half a minute, and tells the terminal; this tries once."""
        needs(self.name, "huggingface_hub", extra=self.extra)
        import huggingface_hub as hub

        with self.fetching():
            cached = [
                any(isinstance(hub.try_to_load_from_cache(self.model, name, revision=self.pin), str) for name in group)
                for group in groups
            ]
            if not all(cached):
                hub.get_hf_file_metadata(hub.hf_hub_url(self.model, self.files[0][0], revision=self.pin))

    def fetching(self) -> AbstractContextManager[None]:
        """What goes wrong within becomes an error that names the model and the way out."""
        return fetching(self.name, self.place, self.pin, use=type(self).name)

    def open(self) -> None:
        _ = self._loaded

    @cached_property
    def _loaded(self) -> Any:
        self.check()
        return self.load()

    def load(self) -> Any:
        """The model, ready to judge; `_loaded` holds it from then on."""
        raise NotImplementedError(f"labeller {self.name} does not implement load")

    def judge(self, wave: Wave) -> Sequence[Value]:
        return self.judge_many([wave])[0]

    def judge_many(self, waves: Sequence[Wave]) -> Sequence[Sequence[Value]]:
        raise NotImplementedError(f"labeller {self.name} does not implement judge_many")

    def torch_device(self) -> torch.device:
        """The device, looked for before weights are loaded.

        Raises:
            ConfigError: It is none that torch knows.
            ModelError: It is not in this machine.
        """
        import torch

        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise ConfigError(f"labeller {self.name!r}: device: got {self.device!r}, expected cpu, cuda or cuda:N") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            seen = f"{torch.cuda.device_count()} of them" if torch.cuda.device_count() else "no CUDA device"
            raise ModelError(
                f"labeller {self.name!r}: device: got {self.device!r}, but torch sees {seen}; expected cpu, or another index"
            )
        return device
