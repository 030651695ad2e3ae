"""Figures as all sections give them, and progress beside them."""

import statistics
import sys
import time
from collections.abc import Callable

from scripts.benchmark.wire import Json


def say(text: str) -> None:
    """Progress, beside the figures."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def spread(seconds: list[float]) -> Json:
    """Median and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50": round(statistics.median(ordered) * 1e3, 3), "p99": round(last * 1e3, 3)}


def timed(act: Callable[[], object]) -> float:
    """Seconds that `act` takes."""
    before = time.perf_counter()
    act()
    return time.perf_counter() - before


def beside(ours: Json, peer: Json) -> Json:
    """Our figure with the peer's and their ratio."""
    return {**ours, "vs_peer": round(ours["p50"] / peer["p50"], 2) if peer["p50"] else None}
