"""`python -m benchmarks [NAME ...]`: every figure the README claims, side by side in one run, as JSON.

Ratios are between two things measured in turn in the same run, medians of at least 5; bare seconds of a
shared machine say little. Writes benchmarks/results.json; exit code 1 if a figure misses its bound.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

FILES = {"merge": "bench_merge", "fetch": "bench_fetch", "exchange": "bench_exchange", "training": "bench_training"}
BOUNDS: dict[str, tuple[str, float]] = {
    "fetch_over_tls_socket": (">=", 0.5),
    "merge_over_memcpy": ("<=", 2.5),
    "peak_mib_8_peers": ("<=", 164.0),
    "ask_p99_ms_training": ("<=", 25.0),
    "idle_share": ("<=", 0.05),
    "exchange_over_bare": ("<=", 4.0),
}
RESULTS = Path(__file__).with_name("results.json")


def main(wanted: list[str]) -> int:
    console, found = Console(), json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in wanted or FILES:
        console.print(f"{name} ...", style="dim")
        module = importlib.import_module(f"benchmarks.{FILES[name]}")
        found.update({key: round(value, 4) for key, value in module.measure().items()})
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    table = Table("figure", "measured", "bound")
    missed = 0
    for key, value in sorted(found.items()):
        sign, bound = BOUNDS.get(key, ("", 0.0))
        good = not sign or (value >= bound if sign == ">=" else value <= bound)
        missed += not good
        table.add_row(key, f"{value:.4g}", f"{sign} {bound:g}" if sign else "", style=None if good else "bold red")
    console.print(table)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
