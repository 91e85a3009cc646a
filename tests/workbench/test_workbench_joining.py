"""Join: what an inviter may offer, and that a hostile offer is refused before anything is written."""

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest
import tomli_w

from braintorrent.errors import BadMessage, ConfigError, RemoteError
from braintorrent.network import limits
from braintorrent.network.joining import Welcome, encode_welcome
from braintorrent.network.server import Server
from braintorrent.node.roster import BY_CODE, Roster
from braintorrent.records import Identity, Invite
from braintorrent.records.canonical import pack
from braintorrent.records.invite import new_secret
from braintorrent.storage import StatePaths
from braintorrent.workbench.joining import look, settle
from braintorrent.workbench.joining_terms import terms

ID, START = "testing-0001", "ab" * 32
SEGMENTATION = {"kind": "segmentation", "labels": ["background", "lesion"], "patch": [16, 16, 16]}
STANDIN = {"kind": "standin", "size": 100}


def toml(task=None, **more) -> str:
    return tomli_w.dumps({"format": 1, "id": ID, "task": task or STANDIN, **more})


def seg(**options) -> str:
    return toml({**SEGMENTATION, **options})


@pytest.mark.parametrize(
    "text",
    [
        toml(), toml(start={"seed": 3}), toml(start={"weights": "start.safetensors"}), toml(start={"digest": START}),
        toml(method={"name": "braintorrent"}), seg(), seg(network="SegResNet", loss="DiceLoss", optimiser="AdamW"),
        seg(network_args={"channels": [8, 16], "strides": [2]}),
        toml({"kind": "classification", "labels": ["a", "b"], "size": [32, 32], "loss": "CrossEntropyLoss"}),
    ],
)  # fmt: skip
def test_what_is_installed_here_and_plain_may_be_offered(text):
    assert terms(text, ID, START, "offer")["start"]["digest"] == START


HOSTILE = {
    "a plug-in that is not installed": (toml({"kind": "my_task"}), "task.kind: my_task is not installed here"),
    "a plug-in by a path": (toml({"kind": "../../tmp/x"}), "task.kind: not the name of a plug-in"),
    "a plug-in by a module": (toml({"kind": "os.path"}), "task.kind: not the name of a plug-in"),
    "a private module": (toml({"kind": "_vetting"}), "task.kind: _vetting is not installed here"),
    "a package of layouts": (toml({"kind": "layouts"}), "task.kind: layouts is not installed here"),
    "a kind that is no text": (toml({"kind": 7}), "task.kind: not the name of a plug-in"),
    "a method that is not installed": (toml(method={"name": "steal"}), "method.name: steal is not installed here"),
    "a method by a path": (toml(method={"name": "/tmp/x.py"}), "method.name: not the name of a plug-in"),
    "an option that no method has": (toml(method={"name": "braintorrent", "options": {"x": 1}}), "method.options"),
    "code in a method's options": (
        toml(method={"name": "braintorrent", "options": {"x": "$import os"}}), "would be run as code"
    ),
    "a bundle": (toml({"kind": "bundle", "bundle": "b"}), "a bundle is code"),
    "a bundle by its digest": (toml({"kind": "bundle", "bundle": "/b", "digest": "0" * 64}), "a bundle is code"),
    "a network that MONAI does not have": (seg(network="Popen"), "network: no class 'Popen' in monai.networks.nets"),
    "a network by its module": (seg(network="torch.hub.load"), "network: 'torch.hub.load' is not the name of a class"),
    "a network by inner names": (seg(network="__builtins__"), "is not the name of a class"),
    "a network that is a function": (seg(network="resnet50"), "network: no class"),
    "a loss from elsewhere": (seg(loss="Adam"), "loss: no class"),
    "an optimiser from elsewhere": (seg(optimiser="UNet"), "optimiser: no class"),
    "text that MONAI runs": (seg(labels=["background", "$__import__('os')"]), "a name begins with none of"),
    "text that MONAI follows": (seg(network_args={"act": "@x::y"}), "would be run as code"),
    "text that MONAI reads files by": (seg(network_args={"act": "%/etc/passwd"}), "would be run as code"),
    "a key by which MONAI makes things": (seg(network_args={"_target_": "os.system"}), "would choose code"),
    "weights to download": (seg(network_args={"pretrained": True}), "would load a file"),
    "weights from a URL": (seg(network_args={"x": "http://a.test/w.pt"}), "leads to files outside"),
    "weights to unpickle": (seg(network_args={"checkpoint_path": "w.pt"}), "would load a file"),
    "a path out of the folder": (seg(network_args={"x": "../../secret"}), "leads to files outside"),
    "a start by an absolute path": (toml(start={"weights": "/etc/passwd"}), "start.weights: not the plain name"),
    "a start out of the folder": (toml(start={"weights": "../key"}), "start.weights: not the plain name"),
    "a start that is the key": (toml(start={"weights": "state/key"}), "start.weights: not the plain name"),
    "a hidden start": (toml(start={"weights": ".bashrc"}), "start.weights: not the plain name"),
    "another start than it began from": (toml(start={"digest": "0" * 64}), "start.digest"),
    "a key that no federation has": (toml(hooks={"run": "x"}), "hooks: unknown key"),
    "a key that no task has": (seg(command="rm"), "command: unknown key"),
    "a key of peer.toml": (toml(data="/"), "data: unknown key"),
    "another federation": (toml().replace(ID, "another-0001"), "but the code is for testing-0001"),
    "another format": (toml().replace("format = 1", "format = 2"), "format"),
    "a date": (toml() + "\nx = 1979-05-27", "x: unknown key"),
    "text that reads backwards": (seg(labels=["background", "\u202enoisel"]), "hides or reorders text"),
    "no TOML": ("format = ", "not TOML"),
    "a control character": (toml() + "# \x1b[2J", "not TOML"),
    "lists without end": ("x = " + "[" * 50000, "not TOML"),
    "a number without end": ("x = " + "9" * 5000, "not TOML"),
    "escape sequences in a name": (toml({"kind": "standin", "\x1b]0;x\x07": 1}), "unknown key"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "complaint"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_federation_is_refused_in_one_printable_line(text, complaint):
    with pytest.raises(ConfigError) as caught:
        terms(text, ID, START, "offer")
    assert complaint in str(caught.value)
    assert str(caught.value).isprintable()


class Inviter:
    """The handlers of a server that answers every join with the same bytes, whatever a node would do."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.identity = answer, Identity.create()

    def trusted(self, peer: str) -> bool:
        return False

    async def join(self, body: bytes) -> bytes:
        return self.answer


@contextmanager
def inviter(answer: bytes):
    """A live inviter with that answer, and a code for it."""
    handlers, loop, started, ends = Inviter(answer), asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    where: list[str] = []

    async def serve() -> None:
        async with Server(handlers.identity, handlers, "127.0.0.1:0") as server:
            where.append(str(server.address))
            started.set()
            await ends.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield Invite(handlers.identity.id, ID, new_secret(), int(time.time()) + 600, tuple(where), "lab-c")
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(20)
        loop.close()


def welcome(text: str | None = None, **more) -> Welcome:
    fields = {"name": "lab-a", "federation": text or toml(), "start": START, "members": ()}
    return Welcome(**{**fields, "clock_ms": int(time.time() * 1000), **more})


def raw(**changed) -> bytes:
    """A welcome with fields that its honest encoder would not let pass."""
    w = welcome()
    fields = {"protocol": 1, "name": w.name, "federation": w.federation, "start": START, "members": [], "clock": 1}
    return pack(list({**fields, **changed}.values()))


PEER = "a" * 52
ODD = {
    "nothing": b"", "no message": b"\xff" * 40, "another protocol": raw(protocol=2),
    "a name with escape sequences": raw(name="\x1b[2Jlab-a"), "a name that is a path": raw(name="../lab-a"),
    "a federation.toml over its cap": raw(federation="#" * (limits.FEDERATION_CHARS + 1)),
    "a member whose name is a path": raw(members=[[PEER, "../../x", []]]),
    "a member at no address": raw(members=[[PEER, "x", ["/etc/passwd"]]]),
    "a member twice": raw(members=[[PEER, "x", []], [PEER, "y", []]]),
    "more members than allowed": raw(members=[[PEER, "x", []]] * (limits.MEMBERS + 1)),
    "a start that is no digest": raw(start="../../key"),
    "more bytes than allowed": pack(b"x" * limits.WELCOME_BYTES * 2),
}  # fmt: skip


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_an_odd_welcome_is_refused_and_nothing_is_written(tmp_path, answer):
    with inviter(answer) as invite, pytest.raises(BadMessage) as caught:
        look(invite, tmp_path / "lab-c")
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "said",
    [welcome(HOSTILE["a bundle"][0]), welcome(HOSTILE["a plug-in by a path"][0]), welcome(clock_ms=10**12)],
    ids=["a bundle", "a plug-in by a path", "a clock far off"],
)
def test_a_hostile_offer_is_refused_and_nothing_is_written(tmp_path, said):
    with inviter(encode_welcome(said)) as invite, pytest.raises(ConfigError):
        look(invite, tmp_path / "lab-c")
    assert list(tmp_path.iterdir()) == []


def test_a_server_with_another_key_than_the_codes_gets_not_a_byte(tmp_path):
    with inviter(encode_welcome(welcome())) as invite:
        other = Invite(Identity.create().id, *(getattr(invite, n) for n in Invite.__slots__[1:]))
        with pytest.raises(RemoteError, match="another peer than") as caught:
            look(other, tmp_path / "lab-c")
    assert "127.0.0.1" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_listens_every_address_is_named(tmp_path):
    peer = Identity.create().id
    nowhere = Invite(peer, ID, new_secret(), int(time.time()) + 600, ("127.0.0.1:1", "127.0.0.1:2"), "lab-c")
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2|127\.0\.0\.1:2.*127\.0\.0\.1:1"):
        look(nowhere, tmp_path / "lab-c")


def test_members_are_trusted_only_if_a_person_says_so_and_no_two_under_one_name(tmp_path):
    others = sorted((Identity.create().id, name, ("192.0.2.9:1",)) for name in ("lab-a", "lab-c", "lab-d"))
    with inviter(encode_welcome(welcome(members=tuple(others)))) as invite:
        offer = look(invite, tmp_path / "lab-c")
        alone = settle(offer, tmp_path / "alone", tmp_path, listen="127.0.0.1:0", others=False)
        joined = settle(offer, tmp_path / "lab-c", tmp_path, listen="127.0.0.1:0")
    assert alone.trusted == ("lab-a",)
    roster = Roster(StatePaths(joined.folder).roster)
    assert roster.ids == {invite.peer, *(peer for peer, *_ in others)}
    assert roster.members[invite.peer].vouched == BY_CODE
    assert {roster.members[peer].vouched for peer, *_ in others} == {invite.peer}
    names = [member.name for member in roster.members.values()]
    assert len(set(names)) == len(names)
    assert "lab-c" not in names, "this lab itself"


def test_everything_agreed_is_shown(tmp_path):
    others = ((Identity.create().id, "lab-b", ()),)
    with inviter(encode_welcome(welcome(seg(lr=0.5), members=others))) as invite:
        offer = look(invite, tmp_path / "lab-c")
    shown = {what.strip(): value for what, value in offer.rows()}
    assert shown["task"] == "segmentation"
    assert shown["labels"] == '["background", "lesion"]'
    assert shown["lr"] == "0.5"
    assert shown["invited by"] == f"lab-a  {invite.peer}"
    assert shown["also in it"] == f"lab-b {others[0][0][:7]}"


def test_a_start_from_a_file_says_which_to_copy(tmp_path):
    with inviter(encode_welcome(welcome(toml(start={"weights": "start.safetensors"})))) as invite:
        joined = settle(look(invite, tmp_path / "lab-c"), tmp_path / "lab-c", tmp_path, listen="127.0.0.1:0")
    assert joined.next_steps[0] == f"copy start.safetensors (BLAKE3 {START}), from lab-a, into {tmp_path / 'lab-c'}"


def test_an_offer_that_changed_meanwhile_makes_no_peer_folder(tmp_path):
    with inviter(encode_welcome(welcome())) as invite:
        offer = look(invite, tmp_path / "lab-c")
    with inviter(encode_welcome(welcome(toml({"kind": "standin", "size": 7})))) as again:
        moved = type(offer)(again, offer.welcome, offer.table, offer.where)
        with pytest.raises(ConfigError, match="changed its federation meanwhile"):
            settle(moved, tmp_path / "lab-c", tmp_path, listen="127.0.0.1:0")
    assert not (tmp_path / "lab-c" / "peer.toml").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    invite = Invite(Identity.create().id, ID, new_secret(), int(time.time()) + 600, ("127.0.0.1:1",), "lab-c")
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="has files in it"):
        look(invite, tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        look(invite, tmp_path / "thesis.tex")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "peer.toml").write_text('name = "lab-x"')
    with pytest.raises(ConfigError, match="is lab-x's peer folder"):
        look(invite, tmp_path / "lab")
