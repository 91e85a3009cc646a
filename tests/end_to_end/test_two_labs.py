"""What the README tells two labs to type, with real processes, mDNS and mutual TLS."""

import json
import re
import subprocess
import sys

from braintorrent.protocol.steps import Step


def test_two_labs_by_hand_find_and_merge_each_other(federate, cli):
    labs = federate("lab-a", "lab-b", acquainted=False, stop={"versions": 4})
    line_a = cli("id", labs.folders["lab-a"]).stdout.strip()
    line_b = cli("id", "-C", labs.folders["lab-b"]).stdout.strip()
    name, peer, *_ = line_a.split()
    assert name == "lab-a"
    assert len(peer) == 52
    assert cli("id", labs.folders["lab-a"]).stdout.strip() == line_a
    cli("trust", line_b, "-C", labs.folders["lab-a"])
    cli("trust", line_a, "-C", labs.folders["lab-b"])
    labs.start()
    labs.until(lambda: labs.has_merged("lab-a", "lab-b") and labs.has_merged("lab-b", "lab-a"))
    for lab in labs.folders:
        assert labs.process(lab).wait(30) == 0, labs.words(lab)
    ends = [(labs.folders[lab] / "state/models/merged.safetensors").read_bytes() for lab in labs.folders]
    assert ends[0] == ends[1], "labs that end together end with the same model"


def test_status_tells_a_person_and_a_script(federate, cli):
    labs = federate("lab-a", "lab-b")
    labs.start()
    labs.until(lambda: labs.has_merged("lab-a", "lab-b"))
    shown = cli("status", labs.folders["lab-a"]).stdout
    assert "lab-b" in shown
    doing = re.search(r"^doing +(\w+)", shown, re.MULTILINE)
    assert doing, shown
    assert doing[1] in {*Step, "evaluating"}
    found = json.loads(cli("status", labs.folders["lab-a"], "--json").stdout)
    assert found["name"] == "lab-a"
    assert found["bytes_in"] > 2000 * 4
    assert found["peers"][0]["present"]
    labs.kill("lab-a")
    gone = cli("status", labs.folders["lab-a"], check=False)
    assert gone.returncode == 1
    assert "no peer runs" in gone.stderr
    assert "without a farewell" in gone.stdout
    left = json.loads(cli("status", labs.folders["lab-a"], "--json", check=False).stdout)
    assert left["running"] is False
    assert left["versions"] >= found["versions"]
    assert left["metrics"]["own"]


def test_one_sided_trust_is_told_to_the_one_who_calls(federate, cli):
    labs = federate("lab-a", "lab-b", acquainted=False, listen="127.0.0.1:0")
    line = cli("id", labs.folders["lab-b"]).stdout.strip()
    cli("trust", line, "-C", labs.folders["lab-a"])
    labs.start()
    row = labs.until(lambda: next((p for p in (labs.status("lab-a") or {"peers": []})["peers"] if p["problem"]), None))
    assert row["problem"] == "roster: lab-b does not trust this lab yet"
    assert row["declined"]
    assert "refused" in cli("status", labs.folders["lab-a"]).stdout
    said = next(text for text in labs.words("lab-a").splitlines() if "there: braintorrent trust" in text)
    notes = labs.until(lambda: {k: v for k, v in labs.status("lab-b")["notes"].items() if k.startswith("stranger ")})
    assert list(notes) == [f"stranger {labs.status('lab-a')['id'][:7]}"]
    assert labs.words("lab-b").count("asked and is not on the roster") == 1
    labs.until(lambda: "lab-b in reach, but not agreed with" in labs.status("lab-a")["notes"].get("alone", ""))
    assert f'trust "lab-a {labs.status("lab-a")["id"]} 127.0.0.1:' in said
    cli("trust", said.split('"')[1], "-C", labs.folders["lab-b"])
    labs.until(lambda: labs.has_merged("lab-a", "lab-b"))


def test_trust_while_running_takes_effect(federate, cli):
    labs = federate("lab-a", "lab-b", acquainted=False)
    lines = {lab: cli("id", folder).stdout.strip() for lab, folder in labs.folders.items()}
    labs.start()
    labs.until(lambda: labs.status("lab-a") and labs.status("lab-b"))
    cli("trust", lines["lab-b"], "-C", labs.folders["lab-a"])
    cli("trust", lines["lab-a"], "-C", labs.folders["lab-b"])
    labs.until(lambda: labs.has_merged("lab-a", "lab-b") and labs.has_merged("lab-b", "lab-a"))


def test_a_lab_alone_says_so_trains_and_merges_who_appears(federate):
    labs = federate("lab-a", "lab-b", timing={"ask_every": 0.3, "alone_after": 1.0, "linger": 30.0})
    labs.start("lab-a")
    labs.until(lambda: labs.versions("lab-a") >= 2)
    assert "no other peer in reach: training alone" in labs.words("lab-a")
    labs.start("lab-b")
    labs.until(lambda: labs.has_merged("lab-a", "lab-b") and labs.has_merged("lab-b", "lab-a"))
    with labs.ledger("lab-b") as ledger:
        version, first = ledger.merges()[0]
    assert first.adopt, "a newcomer takes the others' model before it trains"
    assert version.counter == 1


def test_different_agreements_are_named_on_both_sides_and_nobody_ends(federate):
    labs = federate("lab-a", "lab-b")
    other = labs.root / "elsewhere"
    other.mkdir()
    text = (labs.root / "federation.toml").read_text()
    (labs.folders["lab-b"] / "federation.toml").write_text(text.replace("steps = 5", "steps = 6"))
    labs.start()

    def both_say() -> bool:
        found = [labs.status(lab) for lab in labs.folders]
        return all(f and f["peers"][0]["problem"].startswith("agreement: ") for f in found)

    labs.until(both_say)
    for lab, there, here in (("lab-a", 6, 5), ("lab-b", 5, 6)):
        said = f"agreement: task.steps is {there} there, {here} here; compare federation.toml of both labs"
        assert labs.status(lab)["peers"][0]["problem"] == said
        assert labs.words(lab).count(said) == 1  # though both ask
    labs.until(lambda: all(labs.versions(lab) >= 2 for lab in labs.folders), 20)
    assert not labs.has_merged("lab-a", "lab-b")


def test_help_answers_without_loading_the_heavy_packages():
    code = (
        "import sys; sys.argv = ['braintorrent', '--help']\n"
        "from braintorrent.cli import cli\n"
        "try: cli()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'monai', 'aiohttp', 'numpy', 'zeroconf') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("[]")
    assert "braintorrent demo" in shown
