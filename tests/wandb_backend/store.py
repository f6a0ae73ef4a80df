"""All that the server remembers, and the rules by which it changes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .runs import Run, wire
from .sweeps import Agent, Sweep, next_point

COLUMNS = {
    "displayName": "display_name",
    "display_name": "display_name",
    "groupName": "group",
    "jobType": "job_type",
    "notes": "notes",
    "host": "host",
    "program": "program",
    "commit": "commit",
    "tags": "tags",
    "sweep": "sweep_id",
}
"""Variables of `UpsertBucket` that are stored as they are, and where."""


@dataclass
class Store:
    """Projects, sweeps, agents, runs and saved views. Every method holds the lock."""

    entity: str
    """The default entity of the only user."""
    runs: dict[str, Run] = field(default_factory=dict)
    """By `Run.path`, in the order of creation."""
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    """By `Sweep.path`."""
    agents: dict[str, Agent] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Saved workspaces, by id."""
    projects: set[str] = field(default_factory=set)
    """entity/project of every project that exists."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, kind: str) -> int:
        """The next number of a series of its own for each `kind`."""
        with self.lock:
            self._numbers[kind] = self._numbers.get(kind, -1) + 1
            return self._numbers[kind]

    # --- runs --------------------------------------------------------------------------------

    def new_run(self, entity: str, project: str, run_id: str, **values: Any) -> Run:
        """Make a run; the project with it, if need be."""
        with self.lock:
            run = Run(entity, project, run_id, self.number("run"), **values)
            self.projects.add(f"{entity}/{project}")
            self.runs[run.path] = run
            return run

    def project_runs(self, entity: str, project: str) -> list[Run]:
        """The runs of a project, oldest first."""
        with self.lock:
            of_entity = [run for run in self.runs.values() if run.entity == entity]
            return [run for run in of_entity if run.project == project]

    def find_run(self, entity: str | None, project: str | None, run_id: str) -> Run | None:
        """The run of that name, or None."""
        return self.runs.get(f"{entity or self.entity}/{project}/{run_id}")

    def run_by_storage_id(self, storage_id: str) -> Run | None:
        """The run with the server's own name, or None."""
        with self.lock:
            return next((r for r in self.runs.values() if r.storage_id == storage_id), None)

    def upsert_run(self, variables: Mapping[str, Any]) -> tuple[Run, bool] | None:
        """Make or change a run; None if it is to be changed and does not exist.

        By name it is a program that begins to report; by storage id it is an edit from outside,
        which leaves the state alone.
        """
        with self.lock:
            inserted = False
            if variables.get("id"):
                run = self.run_by_storage_id(variables["id"])
                if run is None:
                    return None
            else:
                entity = variables.get("entity") or self.entity
                project = variables.get("project") or "uncategorized"
                known = self.find_run(entity, project, variables["name"])
                inserted = known is None
                run = known or self.new_run(entity, project, variables["name"])
                run.revive()
                run.state = variables.get("state") or run.state
            for name, column in COLUMNS.items():
                if variables.get(name) is not None:
                    setattr(run, column, variables[name])
            if variables.get("config"):
                run.raw_config = wire(json.loads(variables["config"]))
            if variables.get("summaryMetrics"):
                run.summary = wire(json.loads(variables["summaryMetrics"]))
            return run, inserted

    def receive(self, entity: str, project: str, run_id: str, message: Mapping[str, Any]) -> Run:
        """Apply a file-stream message to a run; a preempted run goes to its sweep's queue."""
        with self.lock:
            run = self.find_run(entity, project, run_id)
            if run is None:
                raise KeyError(f"{entity}/{project}/{run_id}")
            run.receive(message)
            self.requeue(run)
            return run

    def requeue(self, run: Run) -> None:
        """Give a preempted run of a sweep out again."""
        sweep = self.sweeps.get(f"{run.entity}/{run.project}/{run.sweep_id}")
        if run.state == "preempted" and sweep is not None and run.id not in sweep.requeued:
            sweep.requeued.append(run.id)

    def fall_silent(self, runs: Iterable[Run]) -> None:
        """What the server does to runs it has not heard of for five minutes."""
        with self.lock:
            for run in runs:
                run.fall_silent()
                self.requeue(run)

    def delete_run(self, run: Run) -> None:
        """Delete a run; its point of the sweep is free again."""
        with self.lock:
            del self.runs[run.path]

    # --- sweeps and agents ---------------------------------------------------------------------

    def sweep_runs(self, sweep: Sweep) -> list[Run]:
        """The runs of a sweep, oldest first."""
        of_project = self.project_runs(sweep.entity, sweep.project)
        return [run for run in of_project if run.sweep_id == sweep.id]

    def find_sweep(self, entity: str | None, project: str | None, sweep_id: str) -> Sweep | None:
        """The sweep of that name, or None."""
        return self.sweeps.get(f"{entity or self.entity}/{project}/{sweep_id}")

    def upsert_sweep(self, variables: Mapping[str, Any]) -> Sweep | None:
        """Make a sweep, or change its file or state; None if it is not there to be changed."""
        with self.lock:
            sweep: Sweep | None
            if variables.get("id"):
                known = self.sweeps.values()
                sweep = next((s for s in known if s.storage_id == variables["id"]), None)
                if sweep is None:
                    return None
            else:
                entity = variables.get("entityName") or self.entity
                project = variables.get("projectName") or "uncategorized"
                number = self.number("sweep")
                sweep = Sweep(entity, project, f"sweep{number:03d}", number, "")
                self.projects.add(f"{entity}/{project}")
                self.sweeps[sweep.path] = sweep
            sweep.config_yaml = variables.get("config") or sweep.config_yaml
            sweep.state = variables.get("state") or sweep.state
            return sweep

    def new_agent(self, sweep: Sweep, host: str) -> Agent:
        """Register an agent."""
        with self.lock:
            agent = Agent(f"agent{self.number('agent'):03d}", sweep.id, host)
            self.agents[agent.id] = agent
            return agent

    def sweep_of(self, agent: Agent) -> Sweep:
        """The sweep an agent works for."""
        return next(sweep for sweep in self.sweeps.values() if sweep.id == agent.sweep_id)

    def heartbeat(self, agent: Agent, alive: Mapping[str, bool]) -> list[dict[str, Any]]:
        """What an agent is to do, given which of its runs are `alive`.

        An agent without work gets a preempted run, else the next point, else it is told to exit.
        """
        with self.lock:
            sweep = self.sweep_of(agent)
            mine = [r for r in self.sweep_runs(sweep) if r.id in agent.given]
            # Its process is gone and never reported: no such run will.
            self.fall_silent(r for r in mine if r.state == "pending" and not alive.get(r.id))
            running = [r for r in mine if alive.get(r.id)]
            unwanted = [r for r in running if r.stop_asked or sweep.state == "CANCELED"]
            if unwanted:
                return [{"type": "stop", "run_id": run.id} for run in unwanted]
            if running or sweep.state == "PAUSED":
                return []
            return [self.next_command(sweep, agent)]

    def next_command(self, sweep: Sweep, agent: Agent) -> dict[str, Any]:
        """The next run of a sweep for an agent without work."""
        runs = self.sweep_runs(sweep)
        if sweep.state != "CANCELED":
            while sweep.requeued:
                run = self.find_run(sweep.entity, sweep.project, sweep.requeued.pop(0))
                if run is not None and run.state == "preempted":
                    run.state = "pending"
                    return self.command("resume", sweep, agent, run)
        point = next_point(sweep, runs) if sweep.state == "RUNNING" else None
        if point is None:
            sweep.state = "FINISHED" if sweep.state == "RUNNING" else sweep.state
            return {"type": "exit"}
        run_id = f"{sweep.id}r{self.number(sweep.path):03d}"
        run = self.new_run(sweep.entity, sweep.project, run_id, sweep_id=sweep.id)
        run.raw_config = {name: {"value": value} for name, value in point.items()}
        return self.command("run", sweep, agent, run)

    def command(self, kind: str, sweep: Sweep, agent: Agent, run: Run) -> dict[str, Any]:
        """The order to start a run; its arguments are the sweep's keys only."""
        agent.given.append(run.id)
        names = sweep.config.get("parameters") or {}
        args = {name: {"value": run.config[name]} for name in sorted(names) if name in run.config}
        program = sweep.config.get("program")
        return {"type": kind, "run_id": run.id, "program": program, "args": args}
