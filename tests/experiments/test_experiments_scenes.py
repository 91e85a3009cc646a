"""Every scenario runs; a sweep of them keeps what is done; a report shows it, and nothing it is told can act there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import psutil
import pytest

from braintorrent.errors import ConfigError
from braintorrent.experiments import pages
from braintorrent.experiments.charts import CHARTS
from braintorrent.experiments.scenes import Script, play
from braintorrent.experiments.sweep import ENGINES, Job

pytestmark = pytest.mark.usefixtures("demo_extra")  # reports are drawn

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SCRIPTS = sorted(SCENARIOS.glob("*.py"))
FIGURES = {
    "scenario", "seed", "peers", "virtual_seconds", "wall_seconds", "events", "peak_rss_mib", "versions_published",
    "versions_lost", "intervals_to_99", "bytes_per_peer_per_version", "distance_to_optimum", "trace_digest",
}  # fmt: skip
STORY = '''"""{teaches}"""
from braintorrent.simulation.scenario import Happening, Scenario
import os, time
def scenario(peers=3):
    {first}
    kill = Happening(20.0, "kill", (0,), until=25.0)
    return Scenario({name!r}, __doc__, peers, 60.0, version_seconds=5.0, happenings=(kill,))
'''


def script(folder: Path, name: str = "tale", teaches: str = "", first: str = "pass") -> Script:
    path = folder / f"{name}.py"
    path.write_text(STORY.format(name=name, teaches=teaches, first=first))
    return Script.read(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_scenario_teaches_something_in_few_lines_and_loses_nothing(path):
    assert len(path.read_text().splitlines()) < 80
    scenario = Script.read(path).build()
    assert scenario.name == path.stem
    assert scenario.teaches.startswith(path.stem.replace("_", " ").capitalize().replace("Nat", "NAT"))
    small = Script.read(path).build(8)
    assert small.peers == 8
    shorter = replace(small, seconds=min(small.seconds, 20 * small.version_seconds))
    figures = play(shorter, seed=1)["figures"]
    assert figures.keys() >= FIGURES
    assert figures["versions_published"] > 8
    assert figures["versions_lost"] == 0


def test_the_asked_for_scenarios_are_there():
    wanted = """steady paper late_join flash_crowd daily_hours kill_and_return leave_for_good partition_and_heal
                straggler thin_link nat lying_peer rolling_upgrade"""
    assert {path.stem for path in SCRIPTS} >= set(wanted.split())


def test_a_script_that_is_none_is_refused_in_words(tmp_path):
    for text, words in (("x = 1", "no scenario"), ("import nothing_such", "nothing_such"), ("def (", "SyntaxError")):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(ConfigError, match=words):
            Script.read(tmp_path / "bad.py")
    with pytest.raises(ConfigError, match="cannot be read"):
        Script.read(tmp_path / "none.py")
    (tmp_path / "bad.py").write_text("def scenario(peers=2): return peers")
    with pytest.raises(ConfigError, match="must be a Scenario"):
        Script.read(tmp_path / "bad.py").build()


# ----------------------------------------------------------------- sweeps


def test_a_sweep_brings_what_a_run_here_brings_and_bears_scripts_that_fail(tmp_path):
    good = script(tmp_path)
    raises, dies = script(tmp_path, "raises", first="1 / 0"), script(tmp_path, "dies", first="os._exit(3)")
    jobs = [Job(raises, 0), Job(good, 0), Job(dies, 0), Job(good, 1, peers=4)]
    done = {(one.job.script.path, one.job.seed): one for one in ENGINES["processes"](jobs, 2)}
    assert len(done) == 4
    assert "ZeroDivisionError" in done[raises.path, 0].trouble
    assert "ended with 3" in done[dies.path, 0].trouble
    for job in (jobs[1], jobs[3]):
        run = done[job.script.path, job.seed].run
        assert run["figures"]["trace_digest"] == play(good.build(job.peers), job.seed)["figures"]["trace_digest"]


def test_whoever_stops_a_sweep_leaves_no_process_behind(tmp_path):
    jobs = [Job(script(tmp_path), 0), Job(script(tmp_path, "slow", first="time.sleep(600)"), 0)]
    with closing(ENGINES["processes"](jobs, 2)) as results:
        assert next(results).run is not None
        assert psutil.Process().children()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_ray_brings_the_same(tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    good, raises = script(tmp_path), script(tmp_path, "raises", first="1 / 0")
    done = {one.job.script.path: one for one in ENGINES["ray"]([Job(good, 0), Job(raises, 0)], 2)}
    assert "ZeroDivisionError" in done[raises.path].trouble
    assert done[good.path].run["figures"]["trace_digest"] == play(good.build(), 0)["figures"]["trace_digest"]


# ----------------------------------------------------------------- pages


class Read(HTMLParser):
    """What a browser makes of a page: its elements, and whatever they refer to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.text, self.tags, self.links, self.red = page.read_text(), Counter(), [], 0
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.red += ("class", "bad") in attrs
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]


def test_a_report_is_whole_and_nothing_it_is_told_can_act_in_it(tmp_path):
    evil, out = "<script src=http://x>$\\alpha</script>'\"&", tmp_path / "out"
    run = play(replace(script(tmp_path).build(), name=f"../{evil}", teaches=evil), 0)
    run["happened"].append([1.0, evil])
    run["figures"] |= {evil: evil, "versions_lost": 2}
    page = pages.write(run, out)
    assert page.parent == out
    plain = pages.write(play(script(tmp_path).build(), 1), out)
    index = pages.index(out)
    for read in map(Read, (page, plain, index)):
        assert not read.tags["script"]
        assert all(link.startswith(("#", "data:image/png")) or (out / link).exists() for link in read.links)
        for part in re.findall(r"url\(#(.*?)\)", read.text):
            assert read.text.count(f'id="{part}"') == 1  # each picture finds its own parts
    assert Read(page).tags["svg"] == len(CHARTS)
    assert [Read(one).red for one in (page, plain, index)] == [1, 0, 1]  # what is lost
    assert {page.name, plain.name} <= set(Read(index).links)
    assert len(json.loads(page.with_suffix(".json").read_text())["series"]["times"]) > 10


def test_foreign_json_is_named(tmp_path):
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"other\.json"):
        pages.index(tmp_path)


# ----------------------------------------------------------------- the command line


def command(*words: str | Path, **named):
    return subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **named
    )


def test_a_script_runs_by_itself_from_anywhere(tmp_path):
    steady = command(SCENARIOS / "steady.py", "--peers", "3", "--json", "--out", "here", cwd=tmp_path)
    told = command(SCENARIOS / "nat.py", "--help", cwd=tmp_path)
    unreal = command(SCENARIOS / "lying_peer.py", "--real", cwd=tmp_path)
    assert "can only dial out" in told.communicate(timeout=60)[0]
    out, _ = steady.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1]).keys() >= FIGURES
    assert (tmp_path / "here" / "steady-3-seed-0.html").exists()
    assert (tmp_path / "here" / "index.html").exists()
    _, words = unreal.communicate(timeout=60)
    assert unreal.returncode == 2
    assert "lying_peer" in words.splitlines()[-1]


def test_ctrl_c_keeps_what_is_done(tmp_path):
    quick, slow = script(tmp_path, "quick"), script(tmp_path, "slow", first="time.sleep(600)")
    sweep = command("-m", "braintorrent", "simulate", quick.path, slow.path, "--workers", "2", "--json", "--out",
                    tmp_path / "out", start_new_session=True)  # fmt: skip
    assert json.loads(sweep.stdout.readline())["scenario"] == "quick"
    time.sleep(0.5)
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does it: all of them
    _, words = sweep.communicate(timeout=30)
    assert sweep.returncode == 130
    assert "Traceback" not in words
    assert "quick-3-seed-0.html" in (tmp_path / "out" / "index.html").read_text()


def test_simulate_prints_one_object_per_run_and_says_which_failed(tmp_path):
    good, bad = script(tmp_path), script(tmp_path, "bad", first="1 / 0")
    process = command("-m", "braintorrent", "simulate", good.path, bad.path, "--seeds", "2", "--seed", "5", "--json")
    out, words = process.communicate(timeout=60)
    assert sorted(json.loads(line)["seed"] for line in out.splitlines()) == [5, 6]
    assert process.returncode == 1
    assert words.count("ZeroDivisionError") == 2
