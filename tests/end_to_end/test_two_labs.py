"""What the README tells two labs to type, with real processes, mDNS and mutual TLS."""

import json
import subprocess
import sys


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
    assert "training" in shown or "merging" in shown or "ready" in shown or "evaluating" in shown
    found = json.loads(cli("status", labs.folders["lab-a"], "--json").stdout)
    assert found["name"] == "lab-a"
    assert found["bytes_in"] > 2000 * 4
    assert found["peers"][0]["present"]
    gone = cli("status", labs.root, check=False)
    assert gone.returncode == 1
    assert "no peer runs" in gone.stderr


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
    for lab in labs.folders:
        assert "task.steps" in labs.status(lab)["peers"][0]["problem"]
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
