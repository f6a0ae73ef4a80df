"""The page beside a growing object: one HTML file that reloads itself, and a server for browsers
that cannot open a file of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from fno_runner.apply.outputs import OBJECT, PICTURE, RECONSTRUCTION
from fno_runner.errors import UserError
from fno_runner.files import write_text_atomically

PAGE = "watch.html"
RELOAD_S = 2
"""The page loads itself anew so often [s]."""
SERVED = {"/": PAGE, **{f"/{name}": name for name in (PAGE, OBJECT, PICTURE, RECONSTRUCTION)}}
"""A path that is asked for -> the file that is sent; nothing else is."""
LOOPBACK = "127.0.0.1"


def write_page(
    folder: Path,
    title: str,
    state: str,
    *,
    frames: int = 0,
    declared: int | None = None,
    r_own: float | None = None,
    arriving: bool = True,
    remarks: Sequence[str] = (),
) -> None:
    """Write watch.html, which needs nothing but the picture beside it.

    Raises:
        MachineError: the disk refuses.
    """
    now = datetime.now().astimezone()
    reload = f'<meta http-equiv="refresh" content="{RELOAD_S}">' if arriving else ""
    of = "" if declared is None else f" of {declared:,}"
    rows = {
        "State": state,
        "Frames": f"{frames:,}{of}",
        "R of each frame’s own answer": "–" if r_own is None else f"{r_own:.4f}",
        "Written": now.strftime("%Y-%m-%d %H:%M:%S"),
    }
    table = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
    # A name of its own for each, so that no browser shows an old one.
    picture = f"{PICTURE}?{frames}{'' if arriving else '-all'}"
    figure = f"""<figure><img src="{picture}" alt="Amplitude and phase">
<figcaption>Amplitude, left, and phase without its offset and its plane, after {frames:,}
frames.</figcaption></figure>"""
    listed = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{reload}
<meta name="viewport" content="width=device-width">
<title>{frames:,} frames · {escape(title)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #222; background: #fff }}
h1 {{ font-size: 1.3rem }} th {{ text-align: left; padding-right: 2rem; font-weight: 600 }}
td {{ font-variant-numeric: tabular-nums }} img {{ max-width: 100% }} figure {{ margin: 1rem 0 }}
#late {{ color: #a33; font-weight: 600 }}
</style></head><body>
<h1>{escape(title)}</h1>
<table>{table}</table>
<p id="late"></p>
{figure if frames else ""}
<ul>{listed}</ul>
{_late(now) if arriving else ""}
</body></html>
"""
    write_text_atomically(folder / PAGE, text)


def _late(written: datetime) -> str:
    """A script that says when the page has not been written for long: the watch was killed then."""
    return f"""<script>
const seconds = Math.round(Date.now() / 1000 - {written.timestamp():.0f});
if (seconds > 10) document.getElementById("late").textContent =
  "Nothing was written for " + seconds + " s: no frames come, or the watch does not run any more.";
</script>"""


class _Handler(SimpleHTTPRequestHandler):
    """Sends the files of `SERVED`, to those who ask this machine under its own name."""

    def send_head(self) -> Any:
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        name = SERVED.get(self.path.split("?")[0])
        if host not in (LOOPBACK, "localhost") or name is None:
            self.send_error(404)
            return None
        self.path = f"/{name}"
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not told."""


@contextmanager
def served(folder: Path, port: int | None) -> Iterator[str | None]:
    """Serve the page on this machine's loopback while entered; its address. Nothing without a port.

    Raises:
        UserError: the port is in use, or not allowed.
    """
    if port is None:
        yield None
        return

    try:
        handler = partial(_Handler, directory=str(folder))
        server = ThreadingHTTPServer((LOOPBACK, port), handler)
    except OSError as error:
        raise UserError(f"--serve {port}: {error.strerror or error}") from error
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
