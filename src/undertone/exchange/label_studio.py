"""Label Studio: tasks for people to listen to, with what is known already, and their answers back.

    FOLDER/tasks.json     [{"data": {"audio": URL, ...}, "annotations": [{"result": [...]}], "predictions": [...]}, ...]
    FOLDER/config.xml     the labelling interface that these tasks are for
    FOLDER/audio/KEY.flac

Layout: "Label Studio JSON format of annotated tasks" and "Import pre-annotated data" of the Label Studio guide, and its tag reference
(Audio, Labels, TextArea, Choices, Number with perRegion): a region is a result of type labels with start and end in seconds; further
results of the same id speak about that region. What people said goes to `annotations`, what a labeller said to `predictions` under its
name as `model_version`. Questions and word times are in `data`, which Label Studio hands through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from undertone.errors import DataError
from undertone.exchange.incoming import PLAIN, ExchangeCorpus, Found, Said, Skip, to_ms
from undertone.exchange.items import Item, Placed, Tally
from undertone.exchange.rows import pair_row
from undertone.paths import Location, is_address, join, location
from undertone.records import DIMENSIONS, HUMAN, Label, Segment

NOBODY = "(unknown)"
"""The speaker's label of a region whose speaker is not known."""

UNLABELLED = "undertone"
"""`model_version` of regions that nobody and nothing has labelled yet."""

WINDOW = "window"
"""The control and the label of a region that is about a part of a segment."""


class LabelStudioWriter:
    """Writes tasks one by one, and at the end the interface with all names that went by."""

    def __init__(self, folder: Path, url_prefix: str, tally: Tally) -> None:
        self._folder, self._prefix, self._tally = folder, url_prefix, tally
        self._file: IO[str] = (folder / "tasks.json").open("w", encoding="utf-8")
        self._between = "[\n"
        self._speakers: dict[str, None] = {}
        self._choices: dict[str, dict[str, None]] = {"emotion": {}}
        self._numbers: dict[str, None] = {}

    def add(self, item: Item, placed: Placed, segments: tuple[Segment, ...]) -> None:
        name = str(placed.inside(self._folder) or placed.file)
        data = {
            "audio": self._prefix + quote(name) if self._prefix and not is_address(name) else name,
            "id": item.key,
            "source": item.source,
            "language": item.language,
            "licence": item.licence,
            "split": item.split,
            "words": {f"s{number}": _words(one) for number, one in enumerate(segments) if one.words},
            "qa": [pair_row(one) for one in item.pairs],
        }
        labellers = {HUMAN: None} if item.by_people and segments else {}
        labellers |= {label.labeller: None for one in segments for label in one.labels}
        task: dict[str, Any] = {"data": data, "annotations": [], "predictions": []}
        for labeller in labellers or {UNLABELLED: None}:
            result = self._result(segments, labeller, placed)
            if labeller == HUMAN:
                task["annotations"].append({"result": result})
            else:
                task["predictions"].append({"model_version": labeller, "result": result})
        self._file.write(self._between + json.dumps(task, ensure_ascii=False))
        self._between = ",\n"

    def _result(self, segments: Sequence[Segment], labeller: str, placed: Placed) -> list[dict[str, Any]]:
        """The regions of all segments, and what one labeller says about them."""
        made = []
        for number, segment in enumerate(segments):
            speaker = segment.speaker or NOBODY
            self._speakers[speaker] = None
            key = f"s{number}"
            region = _place(key, segment, placed)
            made.append(_said(region, "speaker", "labels", [speaker]))
            if segment.transcript:
                made.append(_said(region, "transcript", "textarea", [segment.transcript], value="text"))
            for index, label in enumerate(one for one in segment.labels if one.labeller == labeller):
                about = region
                if (label.start_ms, label.end_ms) != (segment.start_ms, segment.end_ms):
                    about = _place(f"{key}.{index}", label, placed)
                    made.append({**_said(about, WINDOW, "labels", [WINDOW]), "parentID": key})
                made += self._label(about, label)
        return made

    def _label(self, region: Mapping[str, Any], label: Label) -> list[dict[str, Any]]:
        self._tally.lost["distributions"] += label.distribution is not None
        self._tally.lost["revisions"] += label.revision is not None
        if label.category is not None:
            self._choices.setdefault(label.attribute, {})[label.category] = None
            return [_said(region, label.attribute, "choices", [label.category])]
        if label.number is not None:
            self._numbers[label.attribute] = None
            return [_said(region, label.attribute, "number", label.number)]
        self._tally.lost.update(("abstentions", "labels"))
        return []

    def close(self) -> None:
        self._file.write("\n]\n" if self._between != "[\n" else "[]\n")
        self._file.close()
        (self._folder / "config.xml").write_text(self._config(), encoding="utf-8")

    def _config(self) -> str:
        """The labelling interface."""
        lines = ["<View>", '  <Audio name="audio" value="$audio"/>', '  <Labels name="speaker" toName="audio">']
        lines += [f"    <Label value={quoteattr(one)}/>" for one in self._speakers or {NOBODY: None}]
        lines += ["  </Labels>", f'  <Labels name="{WINDOW}" toName="audio">', f'    <Label value="{WINDOW}"/>', "  </Labels>"]
        lines += ['  <TextArea name="transcript" toName="audio" perRegion="true" editable="true"/>']
        for attribute, values in self._choices.items():
            lines += [f'  <Choices name={quoteattr(attribute)} toName="audio" perRegion="true">']
            lines += [f"    <Choice value={quoteattr(one)}/>" for one in values or {"neutral": None}]
            lines += ["  </Choices>"]
        for attribute in self._numbers:
            bounds = ' min="0" max="1"' if attribute in DIMENSIONS else ""
            lines += [f'  <Number name={quoteattr(attribute)} toName="audio" perRegion="true"{bounds}/>']
        return "\n".join([*lines, "</View>", ""])


def _words(segment: Segment) -> list[dict[str, Any]]:
    return [one.model_dump(include={"text", "start_ms", "end_ms", "confidence"}) for one in segment.words]


def _place(key: str, one: Segment | Label, placed: Placed) -> dict[str, Any]:
    return {
        "id": key,
        "original_length": placed.samples / placed.rate_hz,
        "value": {"start": one.start_ms / 1000, "end": one.end_ms / 1000, "channel": 0},
    }


def _said(region: Mapping[str, Any], control: str, kind: str, content: Any, *, value: str | None = None) -> dict[str, Any]:
    """A result: what a control says about a region."""
    return {**region, "from_name": control, "to_name": "audio", "type": kind, "value": {**region["value"], value or kind: content}}


# ---- in ------------------------------------------------------------------------------------------------------------------------


class LabelStudioCorpus(ExchangeCorpus):
    """Settings of Label Studio tasks as its JSON export has them: a .json file, or a folder with tasks.json.

    `columns` maps our names to the names of controls ({emotion: sentiment}); without it, a text area is the text, labels are the speaker
    and every other control is an attribute of its own name. `audio_root` is where the files are whose URLs the tasks name. Of several
    annotations the one marked as ground truth is taken, else the last.
    """

    kind: Literal["label-studio"] = "label-studio"
    audio_root: Location | None = None

    def _found(self) -> Iterator[Found | Skip]:
        file = self.path / "tasks.json" if self.path.is_dir() else self.path
        try:
            tasks = json.loads(file.read_bytes())
        except FileNotFoundError as error:
            raise DataError(f"{file} does not exist; name the JSON export of the project as path") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file} is not JSON: {error}; export the project as JSON (not JSON-MIN)") from error
        if not isinstance(tasks, list):
            raise DataError(f"{file} holds a {type(tasks).__name__}, expected a list of tasks; export the project as JSON")
        for number, task in enumerate(tasks):
            where = f"{file.name} task {number}"
            try:
                yield from self._of_task(where, file.parent, task)
            except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
                yield Skip(where, "bad_row", f"{type(error).__name__}: {error}")

    def _of_task(self, where: str, folder: Location, task: dict[str, Any]) -> Iterator[Found | Skip]:
        data = task["data"]
        audio = data.get(self.columns.get("audio", "audio"))
        if not isinstance(audio, str) or not audio:
            yield Skip(where, "no_audio", f"data has {', '.join(data)}; expected audio, or columns: {{audio: NAME}}")
            return
        name = _file_of(audio)
        root = self.audio_root or folder
        chosen, others = _annotation(task.get("annotations") or ())
        if others:
            yield Skip(where, "other_annotation", f"{others} further annotations of the same task")
        accepted = [one for one in task.get("predictions") or () if one.get("model_version") in self.labellers]
        if chosen is None and not accepted:
            yield Skip(where, "not_annotated", "no annotation that was finished, and no prediction of an accepted labeller")
            return
        results = [one for source in (chosen, *accepted) if source is not None for one in source["result"]]
        words = data.get("words") if isinstance(data.get("words"), dict) else {}
        yield Found(
            where=where,
            key=name,
            path=_on_disk(root, name),
            row=dict.fromkeys([*data, *(str(one["from_name"]) for one in results)]),
            said=self._said(chosen, accepted, words or {}),
            split=data.get("split"),
            language=data.get("language"),
            licence=data.get("licence"),
        )

    def _said(
        self, annotation: Mapping[str, Any] | None, predictions: Sequence[Mapping[str, Any]], words: Mapping[str, Any]
    ) -> list[Said]:
        sources = [(HUMAN, annotation)] if annotation is not None else []
        sources += [(str(one["model_version"]), one) for one in predictions]
        regions: dict[str, _Region] = {}
        for number, (labeller, source) in enumerate(sources):
            for result in source["result"]:
                self._read(result, labeller, regions, first=number == 0)
        made = [one for one in regions.values() if one.parent not in regions]
        return [
            one.said(words.get(one.key) or (), (inner for inner in regions.values() if inner.parent == one.key)) for one in made
        ]

    def _read(self, result: Mapping[str, Any], labeller: str, regions: dict[str, _Region], *, first: bool) -> None:
        """Put one result to its region; regions themselves, speakers and texts are those of the first source."""
        value = result["value"]
        if "start" not in value:
            return
        key = str(result["id"])
        if first and key not in regions:
            regions[key] = _Region(key, to_ms(value["start"]), to_ms(value["end"]))
        elif key not in regions:
            regions[key] = _Region(key, to_ms(value["start"]), to_ms(value["end"]), extra=True)
        region = regions[key]
        region.parent = result.get("parentID") or region.parent
        ours = {theirs: name for name, theirs in self.columns.items()}
        name = ours.get(result["from_name"], result["from_name"])
        match result["type"]:
            case "textarea":
                text = value["text"]
                if not region.plain.get("text"):
                    region.plain["text"] = " ".join(text) if isinstance(text, list) else text
            case "labels" if name == WINDOW or value["labels"] == [NOBODY]:
                pass
            case "labels" if name in ("emotion", "gender"):
                region.label(name, value["labels"][0], labeller)
            case "labels":
                region.plain["speaker"] = value["labels"][0]
            case "choices":
                for one in value["choices"]:
                    region.label(name, one, labeller)
            case "number" | "rating":
                region.label(name, float(value[result["type"]]), labeller)


class _Region:
    """One region of a task while its results go by."""

    def __init__(self, key: str, start_ms: int, end_ms: int, *, extra: bool = False) -> None:
        self.key, self.start_ms, self.end_ms, self.extra = key, start_ms, end_ms, extra
        self.parent: str | None = None
        self.plain: dict[str, Any] = {}
        self.labels: list[dict[str, Any]] = []

    def label(self, attribute: str, value: str | float, labeller: str) -> None:
        if labeller == HUMAN and attribute in PLAIN and attribute not in self.plain and self.parent is None:
            self.plain[attribute] = value
            return
        kind = "number" if isinstance(value, float) else "category"
        self.labels.append(
            {"attribute": attribute, kind: value, "start_ms": self.start_ms, "end_ms": self.end_ms, "labeller": labeller}
        )

    def said(self, words: Any, inner: Iterable[_Region]) -> Said:
        text = str(self.plain.get("text") or "")
        # Times of words hold as long as the words do.
        timed = words if " ".join(str(one["text"]) for one in words).split() == text.split() else ()
        labels = [*self.labels, *(label for one in inner for label in one.labels)]
        return Said(plain=self.plain, start_ms=self.start_ms, end_ms=self.end_ms, words=timed, labels=labels, kept=True)


def _annotation(annotations: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, int]:
    """The annotation to take, and how many others there are."""
    done = [one for one in annotations if not one.get("was_cancelled")]
    if not done:
        return None, 0
    chosen = next((one for one in done if one.get("ground_truth")), done[-1])
    return chosen, len(done) - 1


def _file_of(url: str) -> str:
    """The path in a task's URL: that of local storage (?d=PATH), or the URL's own."""
    if is_address(url):
        return url
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else parts.path if parts.scheme else url


def _on_disk(root: Location, name: str) -> Location:
    """A task's file below the root: by its path, any end of its path, or its name as an upload has it (a code and a dash before)."""
    if is_address(name):
        return location(name)
    parts = PurePosixPath(unquote(name).lstrip("/")).parts
    tries: list[Location] = [join(root, name), *(root / PurePosixPath(*parts[index:]) for index in range(len(parts)))]
    tries += [folder / re.sub(r"^[0-9a-f]{8}-", "", parts[-1]) for folder in (root, root / "audio")]
    return next((one for one in tries if one.is_file()), join(root, name))
