"""The GraphQL operations of the client, by name: variables in, `data` out.

A reply may hold more fields than its query names, as the client ignores them. Runs are the
exception (`select`): whether a list comes with configurations and summaries or not decides how
many requests a reader needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from .filters import matches, ordered, page
from .runs import Run
from .store import Store
from .sweeps import Sweep

Json = dict[str, Any]


class RefusedError(Exception):
    """The server's error for a request; `status` is that of its reply."""

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.status = status


class Operations:
    """What the server can answer. A method is an operation: its name in snake case."""

    def __init__(self, store: Store, url: Callable[[str], str]) -> None:
        self.store = store
        self.url = url
        """Absolute URL of a path on this server."""
        self.page_overlap = 0
        """Runs that each page of `Runs` repeats from the page before."""

    def answer(self, operation: str, query: str, variables: Mapping[str, Any]) -> Json:
        """`data` of the reply to an operation."""
        handler = getattr(self, "on_" + snake(operation), None)
        if handler is None:
            raise RefusedError(f"the stand-in does not know the operation {operation!r}", 400)
        with self.store.lock:
            data: Json = handler(query, variables)
        return data

    # --- who is asking -----------------------------------------------------------------------

    def on_viewer(self, query: str, v: Mapping[str, Any]) -> Json:
        user = {"id": "VXNlcjox", "name": "Tester", "username": "tester", "admin": False}
        teams = {"edges": [{"node": {"name": self.store.entity}}]}
        more = {"entity": self.store.entity, "email": "tester@example.org", "flags": "{}"}
        return {"viewer": {**user, **more, "teams": teams, "apiKeys": {"edges": []}}}

    on_get_viewer = on_viewer
    on_get_default_entity = on_viewer

    def on_server_features_query(self, query: str, v: Mapping[str, Any]) -> Json:
        return {"serverInfo": {"features": []}}

    def on_organization_core_weave_organization_id(self, query: str, v: Mapping[str, Any]) -> Json:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    # --- runs ----------------------------------------------------------------------------------

    def on_upsert_bucket(self, query: str, v: Mapping[str, Any]) -> Json:
        changed = self.store.upsert_run(v)
        if changed is None:
            raise RefusedError("run not found", 404)
        run, inserted = changed
        project = {"id": "UHJvamVjdDox", "name": run.project}
        project["entity"] = {"id": "RW50aXR5OjE=", "name": run.entity}  # type: ignore[assignment]
        bucket = {**run.node(), "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_run_resume_status(self, query: str, v: Mapping[str, Any]) -> Json:
        entity = v.get("entity") or self.store.entity
        if f"{entity}/{v['project']}" not in self.store.projects:
            return {"model": None}
        run = self.store.find_run(entity, v["project"], v["name"])
        model = {"id": "UHJvamVjdDox", "name": v["project"]}
        owner = {"id": "RW50aXR5OjE=", "name": entity}
        return {"model": {**model, "entity": owner, "bucket": run and run.resume_status()}}

    def on_create_run_files(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.the_run(v, "run")
        files = [
            {"name": name, "uploadUrl": self.url(f"/storage/{run.path}/{name}")}
            for name in v["files"]
        ]
        return {"createRunFiles": {"runID": run.storage_id, "uploadHeaders": [], "files": files}}

    def on_runs(self, query: str, v: Mapping[str, Any]) -> Json:
        entity, project = v["entity"], v["project"]
        if f"{entity}/{project}" not in self.store.projects:
            return {"project": None}
        filters = json.loads(v.get("filters") or "{}")
        matching = [r for r in self.store.project_runs(entity, project) if matches(r, filters)]
        matching = ordered(matching, v.get("order"))
        first = v.get("perPage") or 50
        runs = page(matching, v.get("cursor"), first, self.page_overlap)
        for edge in runs["edges"]:
            edge["node"] = select(edge["node"].node(), query)
        head = {"internalId": "1", "readOnly": False, "runCount": len(matching)}
        return {"project": {**head, "runs": runs}}

    def on_run(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.store.find_run(v["entity"], v["project"], v["name"])
        return {"project": {"run": run and select(run.node(), query)}}

    on_run_state = on_run
    on_run_history_keys = on_run
    on_query_run_info = on_run

    def on_stop_run(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.store.run_by_storage_id(v["id"])
        if run is not None:
            run.stop_asked = True
        return {"stopRun": {"success": run is not None}}

    def on_run_stopped_status(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.store.find_run(v["entityName"], v["projectName"], v["runId"])
        return {"project": {"run": run and select(run.node(), query)}}

    def on_delete_run(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.store.run_by_storage_id(v["id"])
        if run is None:
            raise RefusedError("run not found", 404)
        self.store.delete_run(run)
        return {"deleteRun": {"clientMutationId": None}}

    def on_run_files(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.the_run(v, "name")
        wanted = v.get("fileNames") or list(run.files)
        nodes = [self.file_node(run, name) for name in wanted if name in run.files]
        files = page(nodes, v.get("fileCursor"), v.get("fileLimit") or 50)
        listing = {"fileCount": len(nodes), "files": files}
        return {"project": {"internalId": "1", "run": listing}}

    def file_node(self, run: Run, name: str) -> Json:
        url = self.url(f"/storage/{run.path}/{name}")
        size = str(len(run.files[name]))
        more = {"mimetype": "application/octet-stream", "updatedAt": None, "md5": ""}
        return {"id": name, "name": name, "url": url, "directUrl": url, "sizeBytes": size, **more}

    # --- history -------------------------------------------------------------------------------

    def on_run_full_history(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.the_run(v, "name")
        rows = run.history if "history(" in query else [json.loads(x) for x in run.event_lines]
        lines = [json.dumps(row) for row in rows[: v.get("samples") or 500]]
        return {"project": {"run": {"history": lines, "events": lines}}}

    def on_run_sampled_history(self, query: str, v: Mapping[str, Any]) -> Json:
        run = self.the_run(v, "name")
        samples = [with_keys(run.history, json.loads(spec)) for spec in v["specs"]]
        return {"project": {"run": {"sampledHistory": samples}}}

    def on_sampled_history_page(self, query: str, v: Mapping[str, Any]) -> Json:
        return self.on_run_sampled_history(query, {**v, "name": v["run"], "specs": [v["spec"]]})

    def on_history_page(self, query: str, v: Mapping[str, Any]) -> Json:
        steps = range(int(v["minStep"]), int(v["maxStep"]))
        rows = [row for row in self.the_run(v, "run").history if row.get("_step") in steps]
        return {"project": {"run": {"history": [json.dumps(row) for row in rows]}}}

    def on_run_parquet_history(self, query: str, v: Mapping[str, Any]) -> Json:
        rows = with_keys(self.the_run(v, "runName").history, {"keys": v.get("liveKeys") or []})
        return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": rows}}}}

    # --- sweeps --------------------------------------------------------------------------------

    def on_upsert_sweep(self, query: str, v: Mapping[str, Any]) -> Json:
        sweep = self.store.upsert_sweep(v)
        if sweep is None:
            raise RefusedError("sweep not found", 404)
        entity = {"id": "RW50aXR5OjE=", "name": sweep.entity}
        project = {"id": "UHJvamVjdDox", "name": sweep.project, "entity": entity}
        answer = {"name": sweep.id, "state": sweep.state, "project": project}
        return {"upsertSweep": {"sweep": answer, "configValidationWarnings": []}}

    def on_upsert_sweep_state(self, query: str, v: Mapping[str, Any]) -> Json:
        return self.on_upsert_sweep(query, v)

    def on_sweep_with_runs(self, query: str, v: Mapping[str, Any]) -> Json:
        sweep = self.the_sweep(v, "sweep")
        if f"{v.get('entity') or self.store.entity}/{v.get('project')}" not in self.store.projects:
            return {"project": None}
        return {"project": {"sweep": sweep and sweep.node(self.store.sweep_runs(sweep))}}

    on_get_sweep_state = on_sweep_with_runs
    on_sweep_config = on_sweep_with_runs

    def on_get_sweep(self, query: str, v: Mapping[str, Any]) -> Json:
        return self.on_sweep_with_runs(query, {**v, "sweep": v["name"]})

    on_get_sweep_legacy = on_get_sweep

    def on_create_agent(self, query: str, v: Mapping[str, Any]) -> Json:
        sweep = self.store.find_sweep(v.get("entityName"), v.get("projectName"), v["sweep"])
        if sweep is None:
            raise RefusedError("sweep not found", 404)
        agent = self.store.new_agent(sweep, v.get("host") or "")
        return {"createAgent": {"agent": {"id": agent.id}}}

    def on_heartbeat(self, query: str, v: Mapping[str, Any]) -> Json:
        agent = self.store.agents.get(v["id"])
        if agent is None:
            raise RefusedError("agent not found", 404)
        commands = self.store.heartbeat(agent, json.loads(v.get("runState") or "{}"))
        return {"agentHeartbeat": {"agent": {"id": agent.id}, "commands": json.dumps(commands)}}

    # --- saved workspaces ------------------------------------------------------------------------

    def on_upsert_view2(self, query: str, v: Mapping[str, Any]) -> Json:
        inserted = v.get("id") not in self.store.views
        view_id = f"view{self.store.number('view'):03d}" if inserted else v["id"]
        view = self.store.views.setdefault(view_id, {"id": view_id})
        view.update({key: value for key, value in v.items() if key != "id" and value is not None})
        return {"upsertView": {"view": dict(view), "inserted": inserted}}

    def on_view(self, query: str, v: Mapping[str, Any]) -> Json:
        views = self.store.views.values()
        named = [view for view in views if view.get("name") == v.get("viewName")]
        return {"project": {"allViews": {"edges": [{"node": view} for view in named]}}}

    def on_project_internal_id(self, query: str, v: Mapping[str, Any]) -> Json:
        return {"project": {"id": "UHJvamVjdDox", "internalId": "1"}}

    # --- helpers -------------------------------------------------------------------------------

    def the_run(self, v: Mapping[str, Any], name: str) -> Run:
        """The run that variables speak of, or the server's refusal."""
        run = self.store.find_run(v.get("entity"), v.get("project"), v[name])
        if run is None:
            raise RefusedError(f"run {v[name]!r} not found", 404)
        return run

    def the_sweep(self, v: Mapping[str, Any], name: str) -> Sweep | None:
        """The sweep that variables speak of, or None."""
        return self.store.find_sweep(v.get("entity"), v.get("project"), v[name])


def snake(name: str) -> str:
    """RunResumeStatus -> run_resume_status."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def select(node: Json, query: str) -> Json:
    """The fields of a node that the query names."""
    words = set(re.findall(r"\w+", query))
    return {key: value for key, value in node.items() if key in words}


def with_keys(rows: list[Json], spec: Mapping[str, Any]) -> list[Json]:
    """The rows that have all the keys of a history spec, cut down to them."""
    keys = spec.get("keys") or []
    first, last = spec.get("minStep", 0), spec.get("maxStep", float("inf"))
    rows = [row for row in rows if first <= row.get("_step", 0) <= last]
    if not keys:
        return rows
    return [{key: row[key] for key in keys} for row in rows if all(key in row for key in keys)]
