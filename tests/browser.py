"""Chromium without a window, asked over a pipe by its own protocol; nothing but the browser is needed."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One tab. What the browser says by itself is in `events`."""

    def __init__(self, process):
        self.process, self.events, self.number, self.rest = process, [], 0, b""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def message(self):
        while b"\0" not in self.rest:
            piece = self.process.stdout.read1(1 << 20)
            assert piece, "the browser has ended"
            self.rest += piece
        first, self.rest = self.rest.split(b"\0", 1)
        return json.loads(first)

    def ask(self, method, **params):
        self.number += 1
        asked = {"id": self.number, "method": method, "params": params, **getattr(self, "session", {})}
        self.process.stdin.write(json.dumps(asked).encode() + b"\0")
        self.process.stdin.flush()
        while (answer := self.message()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path, width):
        """Load a file in a window of this width, and wait until it is all there."""
        self.events.clear()
        mobile = {"deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, **mobile)
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not self.said("Page.loadEventFired"):
            self.events.append(self.message())

    def said(self, *methods):
        return [event["params"] for event in self.events if event["method"] in methods]

    def value(self, expression):
        """Evaluate an expression in the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")


@contextlib.contextmanager
def browser():
    """The protocol is on the files 3 and 4 of the browser: its standard input and output, moved by a shell."""
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
    moved = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1'
    process = subprocess.Popen(
        ["sh", "-c", moved, PROGRAM, *flags, "about:blank"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Browser(process)
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(20)
        process.stdout.close()
