"""An in-memory stand-in for the Weights & Biases server, on a loopback port.

It exists so that the *unmodified* `wandb` command line and client can run in real processes
without a network: sweeps, agents, runs, files, `wandb sync` and the public API. It answers only
the operations those need; any other is refused and remembered in `WandbBackend.unknown`.

    with WandbBackend() as backend:
        env = backend.environment(tmp_path)
        subprocess.run(["wandb", "sweep", "sweep.yaml"], env=env, cwd=tmp_path, check=True)
        sweep = backend.sweep()
        subprocess.run(["wandb", "agent", sweep.path], env=env, cwd=tmp_path, check=True)
        assert all(run.state == "finished" for run in backend.sweep_runs(sweep))

Faults (`backend.faults.add`) and `backend.stop()` / `backend.start()` make it misbehave on
request, so that "nothing is lost" can be tested instead of hoped for.
"""

from .faults import Fault, Faults, Request
from .runs import Run, wire
from .server import API_KEY, WandbBackend
from .sweeps import Agent, Sweep

__all__ = ["API_KEY", "Agent", "Fault", "Faults", "Request", "Run", "Sweep", "WandbBackend", "wire"]
