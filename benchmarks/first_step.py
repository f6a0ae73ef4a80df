"""`python -m agent.run`, left at the end of its first training step: when that was, as JSON.

Nothing of the run is changed: PyTorch calls back after an optimiser's step, and that ends it.
"""

from __future__ import annotations

import json
import sys
from time import monotonic
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from agent.run import main


def _leave(optimiser: torch.optim.Optimizer, _args: object, _kwargs: Any) -> None:
    if torch.cuda.is_available():
        if torch.cuda.is_current_stream_capturing():
            return  # recorded, not done
        torch.cuda.synchronize()
    print(json.dumps({"first_step_at": monotonic()}), flush=True)
    raise SystemExit(0)


if __name__ == "__main__":
    register_optimizer_step_post_hook(_leave)
    sys.exit(main())
