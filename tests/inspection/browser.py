"""Headless Chromium over a pipe: open a page, run scripts in it, look at it."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
READY = "return document.documentElement?.dataset.ready === 'yes'"


class Browser:
    """One page in a browser of its own, by the DevTools protocol. Use as a context manager."""

    def __init__(self, page: Path, profile: Path, width: int = 1280, height: int = 900):
        self.page, self.profile, self.size = page, profile, (width, height)
        self.count, self.session, self.requests = 0, None, []

    def __enter__(self) -> "Browser":
        read, self.writing = os.pipe()
        self.reading, write = os.pipe()
        options = "--headless --hide-scrollbars --no-sandbox --disable-gpu --remote-debugging-pipe"
        command = f'exec "$0" {options} --user-data-dir="$1" about:blank 3<&{read} 4>&{write}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, str(CHROMIUM), str(self.profile)],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        self.call("Network.enable")
        self.resize(*self.size)
        self.call("Page.navigate", url=self.page.as_uri())
        start = time.monotonic()
        while not self.run(READY):
            assert time.monotonic() - start < 60, "the page never became ready"
            time.sleep(0.02)
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.reading)
        os.close(self.writing)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self.next_message())
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def next_message(self) -> bytes:
        parts = bytearray()
        while not parts.endswith(b"\0"):
            byte = os.read(self.reading, 1)
            assert byte, "the browser has ended"
            parts += byte
        return bytes(parts[:-1])

    def run(self, script: str) -> Any:
        """The value of an async function's body, as JSON has it."""
        body = f"(async () => {{ {script} }})()"
        found = self.call(
            "Runtime.evaluate", expression=body, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def picture(self) -> bytes:
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(found["data"])
