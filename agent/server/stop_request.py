"""Whether a server wants the run of this process to end early, on purpose.

Somebody presses *Stop run* on its page, or its Hyperband ends a run that does badly. The client
hears of it within half a minute and calls the `stop_fn` of its settings. In a sweep the agent is
told as well, and sends its run SIGTERM. So do schedulers: only the server knows which it was.
"""

from __future__ import annotations

import os
import signal
import threading

SWEEP_ID = "WANDB_SWEEP_ID"
"""Set by `wandb agent` for the runs that it starts."""
ANSWER_S = 10
"""How long the server may take to say whose a signal is [s]; a scheduler does not wait for long."""


def is_from_the_server(number: int) -> bool:
    """Whether a signal means that the server wants this run to end early.

    One that it knows nothing of, or that it cannot be asked about in `ANSWER_S`, is a scheduler's.
    """
    if number != signal.SIGTERM or not is_of_a_sweep():
        return False
    answers: list[bool] = []
    # In a thread: the main one may have been interrupted anywhere in the client.
    asking = threading.Thread(target=lambda: answers.append(_ask()), daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    return any(answers)


def be_ready_to_ask() -> None:
    """Import what asks the server, if it may have to: half a second that a local run is spared.

    Once a signal has interrupted another import, the thread that asks could wait for it for ever.
    """
    if is_of_a_sweep():
        import wandb.sdk.launch.api  # noqa: F401


def is_of_a_sweep() -> bool:
    """Whether an agent, which is online, gave this process its run."""
    online = os.environ.get("WANDB_MODE") not in ("offline", "dryrun", "disabled")
    return SWEEP_ID in os.environ and "WANDB_RUN_ID" in os.environ and online


def _ask() -> bool:
    """What the server says of the run; False where it does not answer."""
    from wandb.sdk.launch.api import LaunchApi

    run, project, entity = (os.environ.get(f"WANDB_{x}") for x in ("RUN_ID", "PROJECT", "ENTITY"))
    try:
        api = LaunchApi(timeout=ANSWER_S)
        entity = entity or api.default_entity
        return bool(api.check_stop_requested(str(project), str(entity), str(run)))
    except Exception:  # whatever the client meets: the signal is taken for what it mostly is
        return False
