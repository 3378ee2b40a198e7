"""Figures of a server for Prometheus, in its text format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

__all__ = ["METRICS_TYPE", "Metrics"]

METRICS_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)


class Metrics:
    """Counts what a server does. Labels are verbs and statuses: nothing of repositories, keys or users."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._seconds: dict[str, tuple[list[int], list[float]]] = {}
        self._bytes = [0, 0]
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show ``annexpy_NAME``, asked for whenever somebody looks."""
        self._gauges[name] = meaning, value

    def request(self, verb: str, status: int, seconds: float, received: int, sent: int) -> None:
        """One more request was answered."""
        self._requests[verb, status] = self._requests.get((verb, status), 0) + 1
        if verb not in self._seconds:
            self._seconds[verb] = [0] * (len(_BOUNDS) + 1), [0.0]
        buckets, total = self._seconds[verb]
        buckets[bisect_left(_BOUNDS, seconds)] += 1
        total[0] += seconds
        self._bytes[0] += received
        self._bytes[1] += sent

    def text(self) -> bytes:
        """All of them."""
        lines = [
            "# HELP annexpy_requests_total Requests answered.",
            "# TYPE annexpy_requests_total counter",
            *(
                f'annexpy_requests_total{{verb="{verb}",status="{status}"}} {count}'
                for (verb, status), count in sorted(self._requests.items())
            ),
            "# HELP annexpy_request_seconds Time from the head of a request to the end of its answer.",
            "# TYPE annexpy_request_seconds histogram",
        ]
        for verb, (buckets, (total,)) in sorted(self._seconds.items()):
            count = 0
            for bound, more in zip((*map(str, _BOUNDS), "+Inf"), buckets, strict=True):
                count += more
                lines.append(f'annexpy_request_seconds_bucket{{verb="{verb}",le="{bound}"}} {count}')
            lines.append(f'annexpy_request_seconds_sum{{verb="{verb}"}} {total:.6f}')
            lines.append(f'annexpy_request_seconds_count{{verb="{verb}"}} {count}')
        for at, (direction, meaning) in enumerate((("received", "from"), ("sent", "to"))):
            name = f"annexpy_{direction}_bytes_total"
            lines += [f"# HELP {name} Bytes of bodies {meaning} clients.", f"# TYPE {name} counter"]
            lines.append(f"{name} {self._bytes[at]}")
        for gauge, (meaning, value) in sorted(self._gauges.items()):
            lines += [f"# HELP annexpy_{gauge} {meaning}", f"# TYPE annexpy_{gauge} gauge"]
            lines.append(f"annexpy_{gauge} {value():g}")
        return ("\n".join(lines) + "\n").encode()
