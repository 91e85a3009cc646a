"""federation.toml (what all labs agree on) and peer.toml (what is this machine's own).

An unknown or wrong key is a ConfigError that names file, key and what is allowed.
"""

from __future__ import annotations

import json
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from blake3 import blake3
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from braintorrent.errors import ConfigError
from braintorrent.protocol.messages import MAX_PROTOCOL, PROTOCOLS, Protocols

FORMAT = 1
SHOWN_CHARS, SHOWN_ITEMS = 64, 64  # of an agreed value, and of a list taken apart; beyond that only a digest is told
DIGESTED = "blake3:"  # begins what stands for a longer value; no JSON begins so


class Section(BaseModel):
    """A TOML table: no key beyond those named, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MethodSection(Section):
    """[method]"""

    name: str = Field("braintorrent", description="file in methods/ or an installed entry point")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the method")


class StartSection(Section):
    """[start] All peers begin from the same weights; merging different starts destroys both."""

    seed: int = Field(0, ge=0, description="seed of the initial weights")
    digest: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="BLAKE3 of the initial weights; checked if given")
    weights: str = Field("", description="safetensors file beside federation.toml, instead of the seed")


class Federation(Section):
    """federation.toml. Every value here is part of the agreement compared in hello."""

    format: Literal[1] = Field(description="format of this file")
    id: str = Field(pattern=r"^[a-z0-9-]{8,64}$", description="random, made once; tells federations apart")
    task: dict[str, Any] = Field(description="kind and the options of that task plug-in")
    method: MethodSection = MethodSection()
    start: StartSection = StartSection()

    @property
    def kind(self) -> str:
        """The task plug-in's name."""
        return str(self.task["kind"])


class TimingSection(Section):
    """[timing] When to ask, fetch, merge and train."""

    ask_every: float = Field(5.0, gt=0, le=86400, description="seconds between asks to one peer; lower spreads sooner")
    ask_deadline: float = Field(10.0, gt=0, le=600, description="seconds until an unanswered ask counts as absent")
    fanout: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description='peers asked per round: "all" as in the paper, or k random ones: constant cost as labs grow'
    )
    max_merge: int = Field(32, ge=1, le=255, description="models in one merge at most; bounds disk and time")
    cadence: Literal["continuous", "poisson"] = Field(
        "continuous", description="train on at once, or wake on an exponential clock (a random lab initiates)"
    )
    interval: float = Field(60.0, gt=0, description="mean seconds of rest after each version under the poisson cadence")
    quorum: int = Field(0, ge=0, description="least number of other labs with something newer before a merge")
    patience: float = Field(60.0, ge=0, description="seconds to wait for the quorum, then train on below it")
    alone_after: float = Field(30.0, ge=0, description="seconds a newcomer looks for a model before it trains alone")
    linger: float = Field(600.0, ge=0, description="seconds a finished peer waits for the others, at most")
    checkpoint_every: float = Field(120.0, gt=0, description="seconds of training a kill can cost, at most")

    @model_validator(mode="after")
    def _reachable(self) -> TimingSection:
        if self.quorum > self.max_merge:
            raise ValueError(f"quorum {self.quorum} can never be met with max_merge {self.max_merge}")
        return self


class StopSection(Section):
    """[stop] The first rule met ends local training. None given: train until told to stop."""

    versions: int | None = Field(None, ge=1, description="versions trained by this lab")
    minutes: float | None = Field(None, gt=0, description="minutes of running, over all starts")
    target: float | None = Field(None, description="score on own validation cases")
    patience: int | None = Field(None, ge=1, description="versions without a better score on own validation cases")


class GatesSection(Section):
    """[gates] What another lab's model must pass before it is merged here, beyond being signed, whole and finite."""

    norm: float = Field(
        10.0, ge=0, le=1e6, description="refuse an update so many times larger than the recent median; 0: any size"
    )
    gate: Literal["none", "validation"] = Field(
        "none", description='"validation": score each model on own validation cases before it is merged'
    )
    drop: float = Field(0.1, ge=0, description="how much worse than the own model it may score there")
    max_share: float = Field(
        1.0, gt=0, le=1, description="weight of any one other lab in a merge at most: sample counts are only claims"
    )
    lineage: Literal["allow", "refuse"] = Field(
        "allow", description='"refuse": leave out models known to contain a lab that is revoked here'
    )


def _ordered(protocols: Protocols) -> Protocols:
    if protocols[0] > protocols[1]:
        raise ValueError(f"the lowest comes first: [{protocols[1]}, {protocols[0]}]")
    return protocols


_Protocol = Annotated[int, Field(ge=1, le=MAX_PROTOCOL)]


class Peer(Section):
    """peer.toml. Nothing here needs to agree with anyone."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", description="shown to people; never trusted")
    data: str = Field("", description="this lab's data, relative to the peer folder; never leaves it")
    listen: str = Field("0.0.0.0:0", description='"host:port" or "[v6]:port"; port 0 takes a free one')
    advertise: list[str] = Field(
        default_factory=list, max_length=8, description="addresses others should dial; default: each interface's"
    )
    peers: list[str] = Field(default_factory=list, description='static addresses "host:port" of other labs')
    discovery: bool = Field(True, description="announce and look for peers by mDNS on the local network")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the arithmetic; weights stay float32. auto: bfloat16 on CUDA that has it, else float32"
    )
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="torch threads; auto: cores divided by peers on this host"
    )
    after_merge: Literal["reset", "keep"] = Field("reset", description="optimiser state after a merge")
    introductions: Literal["accept", "ask", "refuse"] = Field(
        "ask", description="labs that a trusted lab introduces: trust them, ask a person, or never"
    )
    revocations: Literal["accept", "ask", "refuse"] = Field(
        "ask", description="labs that a trusted lab revokes: trust them no more, ask a person, or go on"
    )
    rollback: bool = Field(False, description="undo a merge that scores worse than before on own validation cases")
    share_metrics: bool = Field(False, description="put own validation scores into the published record")
    disk_gib: float = Field(
        20.0, gt=0, description="bound on stored blobs; superseded ones go first, sooner if the disk is full"
    )
    serve_mib_per_second: float | None = Field(
        None, gt=0, description="most that one other lab is sent; default: all the line gives, to be done soon"
    )
    protocols: Annotated[tuple[_Protocol, _Protocol], Field(strict=False), AfterValidator(_ordered)] = Field(
        PROTOCOLS, description="lowest and highest spoken; 2 is 1 by another number, to rehearse an upgrade"
    )
    timing: TimingSection = TimingSection()
    stop: StopSection = StopSection()
    gates: GatesSection = GatesSection()


M = TypeVar("M", bound=BaseModel)
_ALTERNATIVE = re.compile(r"constrained-|function-|literal\[")  # in pydantic's paths: which of a key's types, no key


def validate(model: type[M], data: Any, where: str) -> M:
    """`data` as `model`, or a ConfigError that names the place, the key and what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError:
        found = faults(model, data, where)
        first, *others = found
        also = f" (also wrong: {', '.join(others[:8])})" if others else ""
        raise ConfigError(found[first] + also) from None


def faults(model: type[BaseModel], data: Any, where: str) -> dict[str, str]:
    """Everything that keeps `data` from being a `model`, by key, a line each: place, key, what is allowed."""
    found: dict[str, str] = {}
    try:
        model.model_validate(data)
    except ValidationError as error:
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"] if not _ALTERNATIVE.match(str(part)))
            found.setdefault(key, f"{where}: {_in_words(model, key, dict(fault))}")
    return found


def _in_words(model: type[BaseModel], key: str, fault: dict[str, Any]) -> str:
    if fault["type"] != "extra_forbidden":
        return f"{key}: {fault['msg']}" if key else str(fault["msg"])
    owner, name = _owner(model, fault["loc"][:-1]), str(fault["loc"][-1])
    return f"{key}: unknown key; allowed: {', '.join(owner.model_fields)}{_meant(model, owner, name)}"


def _meant(model: type[BaseModel], owner: type[BaseModel], name: str) -> str:
    """Where such a key stands, or what it is called."""
    if name in model.model_fields:
        return "; it stands above all sections"
    for section in model.model_fields:
        inner = _owner(model, (section,))
        if inner is not model and name in inner.model_fields:
            return f"; it stands under [{section}]"
    near = get_close_matches(name, owner.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _owner(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return model


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dict, or a ConfigError."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def load_peer(folder: Path) -> Peer:
    """peer.toml of a peer folder."""
    path = folder / "peer.toml"
    return validate(Peer, read_toml(path), str(path))


def federation_path(folder: Path) -> Path:
    """federation.toml of a peer folder, or else of its parent."""
    for place in (folder, folder.resolve().parent):
        if (place / "federation.toml").is_file():
            return place / "federation.toml"
    raise ConfigError(f"no federation.toml in {folder} or its parent; copy the one your federation agreed on")


def load_federation(path: Path) -> Federation:
    """federation.toml at `path`."""
    federation = validate(Federation, read_toml(path), str(path))
    if not isinstance(federation.task.get("kind"), str):
        raise ConfigError(f"{path}: task.kind: needed, the name of a task plug-in")
    return federation


def agreement(federation: Federation, extra: dict[str, str]) -> dict[str, str]:
    """Dotted key -> its value as canonical JSON, printable ASCII; a long one as "blake3:" and 16 hex digits.

    Exchanged in hello: where two labs differ, both can say in what. A list of at most SHOWN_ITEMS scalars is taken
    apart (task.labels.2). extra: facts found at start; each replaces the configured value of its key.
    """
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        parts = _parts(value)
        if not parts:
            flat[prefix] = value
        for key, item in parts.items():
            walk(f"{prefix}.{key}" if prefix else key, item)

    walk("", federation.model_dump())
    local = ("start.weights", "start.digest")  # a path here, and what it should hold; `extra` says what it does hold
    for key in (*local, *extra):
        flat = {k: v for k, v in flat.items() if k != key and not k.startswith(f"{key}.")}
    return {key: _shown(value) for key, value in sorted((flat | extra).items())}


def _parts(value: Any) -> dict[str, Any]:
    """What a value is taken apart into; nothing if it is compared as a whole."""
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, list) and len(value) <= SHOWN_ITEMS and not any(isinstance(v, dict | list) for v in value):
        return {str(index): item for index, item in enumerate(value)}
    return {}


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= SHOWN_CHARS else DIGESTED + blake3(text.encode()).hexdigest()[:16]
