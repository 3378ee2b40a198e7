"""A real headless Chromium, driven over its debugging pipe, and a report that is large enough for it."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import annexpy as annex
from glimmer_store.graph import GlimmerNode
from glimmer_store.policy import NUMCOPIES, StorageClass
from glimmer_store.record import Location, StorageRecord
from glimmer_store.report import Known, assemble
from glimmer_store.status import Event, Place, Proof, Report, Tier

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60
MADE = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Page:
    """One page. Every call waits for the browser's answer."""

    def __init__(self, orders: int, answers: int) -> None:
        self._orders, self._answers, self._read, self._last = orders, answers, b"", 0
        self.requested: list[str] = []
        self._loaded = False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        return self._call(method, session=self._session, **parameters)

    def _call(self, method: str, *, session: str | None = None, **parameters: object) -> dict[str, Any]:
        self._last += 1
        order = {"id": self._last, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while (message := self._next()).get("id") != self._last:
            self._note(message)
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            more = os.read(self._answers, 1 << 20)
            assert more, "the browser went away"
            self._read += more
        line, _, self._read = self._read.partition(b"\0")
        return json.loads(line)

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])
        self._loaded |= message.get("method") == "Page.loadEventFired"

    def open(self, path: Path) -> None:
        self._loaded = False
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._note(self._next())

    def look(self, *, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def ask(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
            code = {"Enter": 13, " ": 32, "Tab": 9}.get(key, 0)
            told = {"key": key, "text": text, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", **told)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"])

    def printed(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with one page; its profile is below *folder*."""
    program = chromium()
    assert program is not None
    pipes = [*os.pipe(), *os.pipe()]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 60) for fd in pipes]
    for fd in pipes:
        os.close(fd)
    theirs_in, ours_out, ours_in, theirs_out = high

    def place() -> None:  # the browser expects orders at 3 and answers at 4
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    words += ["--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "--force-color-profile=srgb"]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=place, pass_fds=(3, 4)
        )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(ours_out, ours_in)
    finally:
        os.close(ours_out)
        os.close(ours_in)
        running.terminate()
        running.wait(SECONDS)


def large_report(objects: int = 10_000, *, trouble: float = 0.03, seed: int = 7) -> Report:
    """A study with five bares, two adjuncts and a laptop; a share of its objects is not as it should be."""
    dice = random.Random(seed)
    uuids = [annex.UUID(f"{n}{n}{n}{n}0000-0000-4000-8000-00000000000{n}") for n in range(8)]
    names = (
        "vault-basement",
        "vault-library",
        "vault-campus",
        "vault-partner",
        "vault-tape",
        "s3-cold",
        "usb-shelf",
        "ada's laptop",
    )
    tiers = [Tier.BARE] * 5 + [Tier.ADJUNCT] * 2
    size = 4_000_000_000_000
    places = [
        Place(name, uuid, tier, f"ssh://store/{name}.git", used=dice.randrange(size), free=dice.randrange(size))
        for name, uuid, tier in zip(names, uuids, tiers, strict=False)
    ]
    known = ("quota", "maxsize", "quota", "", "disk", "", "")  # by whom what is free is known, where it is
    places = [
        replace(p, free=p.free if by else None, free_by=by, maxsize=size if by == "maxsize" else None)
        for p, by in zip(places, known, strict=True)
    ]
    places[3] = Place("vault-partner", uuids[3], Tier.BARE, "ssh://partner/lab.git", error="ssh: no route to host")
    places.append(Place("ada's laptop", uuids[7], Tier.OTHER, used=dice.randrange(size // 10), maxsize=size // 8))
    nodes, where, history, proofs = [], {}, {}, {}
    present: dict[str, dict[annex.Key, bool] | None] = {place.name: {} for place in places[:7]}
    present["vault-partner"] = None
    for n in range(objects):
        subject, session, run = n // 40, n // 20 % 2, n % 20
        task = ("rest", "motor", "faces", "story")[run % 4]
        stem = f"sub-{subject:03}_ses-{session + 1:02}_task-{task}_run-{run // 4 + 1}"
        derived = run % 5 > 0
        path = Path(
            f"derivatives/fmriprep/sub-{subject:03}/ses-{session + 1:02}/func/{stem}_desc-preproc_bold.nii.gz"
            if derived
            else f"sub-{subject:03}/ses-{session + 1:02}/func/{stem}_bold.nii.gz"
        )
        digest = hashlib.sha256(f"{seed} {n}".encode()).hexdigest()
        key = annex.Key.parse(f"SHA256E-s{dice.randrange(10**6, 10**9)}--{digest}.nii.gz")
        kind = StorageClass.GENERATED if derived else StorageClass.IRREPLACEABLE
        holders = sorted(dice.sample(range(3), NUMCOPIES[kind]) + ([3] if dice.random() < 0.3 else []))
        record = StorageRecord(
            tuple(Location(names[at], uuids[at]) for at in holders), NUMCOPIES[kind], dice.random() > 0.02, kind
        )
        type_ = "derivative" if derived else "dataset"
        node_id = f"{type_}-{stem}-bold".replace("_", "-")
        nodes.append(GlimmerNode(node_id, type_, Path(f"rokb/{type_}s/{node_id}.md"), path, key, record))
        logged = [annex.Location(uuids[at], names[at]) for at in [*holders, *([7] if n % 9 == 0 else [])]]
        stored = MADE - timedelta(minutes=dice.randrange(40_000))
        proof = Proof(stored, "read again by hash", "vault key 3f9c")
        for at in holders:
            if at != 3:
                present[names[at]][key] = dice.random() >= trouble / 2  # type: ignore[index]
        if dice.random() < 0.4:
            present["s3-cold"][key] = True  # type: ignore[index]
            logged.append(annex.Location(uuids[5], "s3-cold"))
        where[key] = annex.Whereis(key, tuple(logged))
        proofs[key] = {names[at]: proof for at in holders}
        history[key] = (Event(stored, tuple(names[at] for at in holders), ()),)
    return assemble(Path("/data/studies/ds000114"), NUMCOPIES, nodes, places, Known(present, where, history, proofs))
