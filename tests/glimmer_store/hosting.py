"""A running ``glimmer-store serve``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from glimmer_store.tenants import Tenants

SECONDS = 120


class Server:
    """A running ``glimmer-store serve``, and its state beside it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.tenants = folder, Tenants(folder)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "glimmer_store.cli.app", "serve", str(folder), "--plain-http"),
                *("--http", "127.0.0.1:0", "--ssh", "127.0.0.1:0", "--durability", "fast", *options),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        said = [self.process.stderr.readline(), self.process.stderr.readline()]
        self.http = next(found[0] for line in said if (found := re.search(r"http://\S+", line)))
        self.ssh = next(found[0] for line in said if (found := re.search(r"ssh://\S+", line)))

    def ask(self, method: str, path: str, secret: str = "", body: object = None) -> tuple[int, object]:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(self.http + path, data, headers, method=method), timeout=SECONDS) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=SECONDS)[1]
        assert self.process.returncode == 0, said
        assert "Traceback" not in said, said
