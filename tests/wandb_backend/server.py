"""The stand-in on a loopback port: HTTP, faults, going away and coming back."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import unquote

from .faults import Fault, Faults, Request
from .graphql import Operations, RefusedError
from .runs import Run
from .store import Store
from .sweeps import Sweep

API_KEY = "0123456789abcdef0123456789abcdef01234567"
"""Forty characters, as the client demands; worth nothing anywhere."""

NAME = re.compile(r"(?:query|mutation)\s+(\w+)")


class Listener(ThreadingHTTPServer):
    """The socket. It knows its open connections, so that stopping really cuts them."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, backend: WandbBackend, port: int) -> None:
        self.backend = backend
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        self.connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread of its own."""
        with self.connections_lock:
            self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection and close it."""
        with self.connections_lock:
            self.connections.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Close every connection under its reader."""
        self.stopping.set()
        with self.connections_lock:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the client closed it first
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news; anything else is kept for the test to see."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError) and not self.stopping.is_set():
            self.backend.errors.append(repr(error))


class Handler(BaseHTTPRequestHandler):
    """One connection: reads a request, lets a fault have its way, answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout: ClassVar[float] = 300.0
    server: Listener

    def log_message(self, format: str, *args: Any) -> None:
        """The log of a test run is not the place for requests."""

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/graphql":
            asked = json.loads(body)
            query, variables = asked.get("query") or "", asked.get("variables") or {}
            named = NAME.search(query)
            operation = named.group(1) if named else "unnamed"
            self.serve(operation, variables, lambda: self.graphql(operation, query, variables))
        elif self.path.endswith("/file_stream"):
            self.serve("file_stream", {}, lambda: self.file_stream(json.loads(body)))
        else:
            self.serve("unknown", {}, lambda: (404, b"{}"))

    def do_PUT(self) -> None:
        body = self.body()
        self.serve("upload", {}, lambda: self.upload(body))

    def do_GET(self) -> None:
        self.serve("download", {}, self.download)

    def body(self) -> bytes:
        """The request's body."""
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") else content

    def serve(self, operation: str, variables: Mapping[str, Any], act: Any) -> None:
        """Log the request, apply its fault if there is one, do it and answer."""
        backend = self.server.backend
        fault = backend.note(operation, self.command, self.path, variables)
        cut_short = fault is not None and fault.delay and self.server.stopping.wait(fault.delay)
        if cut_short or (fault is not None and fault.drop):
            self.hang_up()
        elif fault is not None and fault.status is not None:
            wait = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            self.reply(fault.status, b'{"errors": [{"message": "injected"}]}', **wait)
        elif fault is not None and fault.html:
            page = b"<!DOCTYPE html><html><body>Please log in to the network</body></html>"
            self.reply(200, page, **{"Content-Type": "text/html"})
        else:
            status, answer = act()
            if fault is not None and fault.lose_reply:
                self.hang_up()
            else:
                self.reply(status, answer)

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        """Answer in one packet: a client that waits for the second one waits 40 ms."""
        headers = {"Content-Type": "application/json", **headers}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.headers_to_send().append(b"\r\n" + body)
        self.flush_headers()

    def headers_to_send(self) -> list[bytes]:
        """The standard library's buffer of the reply."""
        buffer: list[bytes] = self._headers_buffer  # type: ignore[attr-defined]
        return buffer

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True

    # --- what is asked for -----------------------------------------------------------------------

    def graphql(
        self, operation: str, query: str, variables: Mapping[str, Any]
    ) -> tuple[int, bytes]:
        """Answer an operation; the status is 200 for most errors, as is GraphQL's way."""
        if not self.authorized():
            return 401, b'{"errors": [{"message": "user is not logged in"}]}'
        backend = self.server.backend
        try:
            answer: dict[str, Any] = {
                "data": backend.operations.answer(operation, query, variables)
            }
            status = 200
        except RefusedError as error:
            if error.status == 400:
                backend.unknown.append(operation)
            answer = {"data": None, "errors": [{"message": str(error)}]}
            status = error.status
        return status, json.dumps(answer).encode()

    def file_stream(self, message: Mapping[str, Any]) -> tuple[int, bytes]:
        """Lines of history, summary, system metrics and console, and the end of a run."""
        if not self.authorized():
            return 401, b"{}"
        _, _, entity, project, run_id, _ = self.path.split("/")
        store = self.server.backend.store
        try:
            run = store.receive(unquote(entity), unquote(project), unquote(run_id), message)
        except KeyError:
            return 404, b'{"error": "run not found"}'
        return 200, json.dumps({"exitcode": None, "limits": {}, "stopped": run.stop_asked}).encode()

    def stored(self) -> tuple[Run | None, str]:
        """The run and the file name of a storage path."""
        entity, project, run_id, name = unquote(self.path).split("/", 5)[2:]
        return self.server.backend.store.find_run(entity, project, run_id), name

    def upload(self, content: bytes) -> tuple[int, bytes]:
        """Keep a file of a run. Its address is the secret: it needs no key, as in the cloud."""
        run, name = self.stored()
        if run is None:
            return 404, b""
        run.files[name] = content
        return 200, b""

    def download(self) -> tuple[int, bytes]:
        """Give a file of a run back."""
        if not self.path.startswith("/storage/"):
            return 404, b"{}"
        run, name = self.stored()
        if run is None or name not in run.files:
            return 404, b""
        return 200, run.files[name]

    def authorized(self) -> bool:
        """Whether the request carries the API key."""
        expected = base64.b64encode(f"api:{API_KEY}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"


class WandbBackend:
    """The server: start it with `with`, look at what it holds, make it fail."""

    def __init__(self, entity: str = "team") -> None:
        self.store = Store(entity)
        self.operations = Operations(self.store, self.address)
        self.faults = Faults()
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        """Operations that were asked for and that the stand-in does not know."""
        self.errors: list[str] = []
        """Exceptions of the stand-in itself."""
        self.port = 0
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._made = time.monotonic()
        self._lock = threading.Lock()

    # --- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if kind is None and (self.unknown or self.errors):
            raise AssertionError(f"the stand-in was at a loss: {self.unknown} {self.errors}")

    def start(self) -> None:
        """Listen; after `stop`, on the same port and with all that was known."""
        if self._listener is not None:
            return
        self._listener = Listener(self, self.port)
        self.port = self._listener.server_address[1]
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Be gone: connections are cut and new ones refused."""
        if self._listener is None or self._thread is None:
            return
        self._listener.shutdown()
        self._listener.server_close()
        self._listener.cut()
        self._thread.join()
        self._listener = self._thread = None

    def address(self, path: str = "") -> str:
        """URL of a path on this server."""
        return f"http://127.0.0.1:{self.port}{path}"

    def environment(self, home: Path) -> dict[str, str]:
        """Environment of a process that is to speak with this server and with nothing else.

        All that the client writes goes below `home`. Settings of the calling environment do not
        reach it. `wandb` and `python` are those of the calling interpreter.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("WANDB_", "FNO_")) and not name.lower().endswith("_proxy")
        }
        folders = {
            "HOME": home / "home",
            "WANDB_DIR": home,
            "WANDB_CACHE_DIR": home / "cache",
            "WANDB_CONFIG_DIR": home / "settings",
            "WANDB_DATA_DIR": home / "data",
            "WANDB_ARTIFACT_DIR": home / "artifacts",
        }
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return {
            **kept,
            **{name: str(folder) for name, folder in folders.items()},
            "WANDB_BASE_URL": self.address(),
            # Of the data that tests share, which is not where their agents are started.
            "FNO_DATA_PATHS": tempfile.gettempdir(),
            "WANDB_API_KEY": API_KEY,
            "WANDB_ERROR_REPORTING": "false",
            "NO_PROXY": "127.0.0.1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]),
            # In a new home matplotlib would build its font cache again, in every process.
            "MPLCONFIGDIR": kept.get("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib")),
        }

    # --- what happened ---------------------------------------------------------------------------

    def note(
        self, operation: str, method: str, path: str, variables: Mapping[str, Any]
    ) -> Fault | None:
        """Log a request and tell its fault."""
        fault = self.faults.take(operation, path, variables)
        at = time.monotonic() - self._made
        with self._lock:
            self.requests.append(Request(operation, method, path, dict(variables), at, fault))
        return fault

    def count(self, operation: str) -> int:
        """How many requests of an operation came, the failed ones included."""
        with self._lock:
            return sum(1 for request in self.requests if request.operation == operation)

    # --- what is there ---------------------------------------------------------------------------

    @property
    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        with self.store.lock:
            return list(self.store.runs.values())

    @property
    def sweeps(self) -> list[Sweep]:
        """All sweeps, oldest first."""
        with self.store.lock:
            return list(self.store.sweeps.values())

    def run(self, run_id: str | None = None) -> Run:
        """The run of that id; without one, the only run."""
        runs = [run for run in self.runs if run_id in (None, run.id)]
        if len(runs) != 1:
            raise LookupError(f"{len(runs)} runs, not one: {[run.path for run in runs]}")
        return runs[0]

    def sweep(self, sweep_id: str | None = None) -> Sweep:
        """The sweep of that id; without one, the only sweep."""
        sweeps = [sweep for sweep in self.sweeps if sweep_id in (None, sweep.id)]
        if len(sweeps) != 1:
            raise LookupError(f"{len(sweeps)} sweeps, not one: {[s.path for s in sweeps]}")
        return sweeps[0]

    def sweep_runs(self, sweep: Sweep) -> list[Run]:
        """The runs of a sweep, oldest first."""
        return self.store.sweep_runs(sweep)

    # --- what a test puts there ------------------------------------------------------------------

    def add_sweep(
        self, config: Mapping[str, Any], project: str, entity: str | None = None
    ) -> Sweep:
        """Make a sweep, as `wandb sweep` does."""
        text = json.dumps(config)  # JSON is YAML
        variables = {"config": text, "projectName": project, "entityName": entity}
        sweep = self.store.upsert_sweep(variables)
        assert sweep is not None  # it is made, not looked for
        return sweep

    def add_run(
        self,
        project: str,
        *,
        entity: str | None = None,
        run_id: str | None = None,
        sweep: Sweep | None = None,
        config: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
        history: Iterable[Mapping[str, Any]] = (),
        state: str = "finished",
        **values: Any,
    ) -> Run:
        """Put a run there that no client sent; `values` are further fields of `Run`."""
        name = run_id or f"run{self.store.number('synthetic'):05d}"
        run = self.store.new_run(entity or self.store.entity, project, name, state=state, **values)
        run.sweep_id = sweep.id if sweep else None
        run.raw_config = {key: {"value": value} for key, value in (config or {}).items()}
        run.summary = dict(summary or {})
        run.history_lines = [json.dumps({"_step": n, **row}) for n, row in enumerate(history)]
        return run

    def repeat_across_pages(self, runs: int) -> None:
        """Let each page of runs repeat that many of the page before, as if runs moved."""
        self.operations.page_overlap = runs

    def give_up_silent(self, *runs: Run) -> None:
        """What five minutes of silence do to runs (default: all): crashed, or preempted."""
        self.store.fall_silent(runs or self.runs)
