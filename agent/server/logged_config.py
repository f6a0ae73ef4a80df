"""The configuration that a server has of a run: read without its paths, which no server is told.

Anybody may edit it there, and the numbers of one configuration would stand beside another's. So a
run's summary has a hash of the configuration that it was run with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fno_runner.config import N, RunConfig, load_config
from fno_runner.errors import UserError
from fno_runner.identity import ARRAYS, SCANS, decisive_keys, short_hash

CONFIG_HASH = "config_hash"
"""The key of a summary."""
SOMEWHERE = "somewhere"
DATA: tuple[dict[str, str], ...] = (
    {},
    {"scan": SOMEWHERE},
    {"probe_file": SOMEWHERE},
    {"train_npz": SOMEWHERE, "test_npz": SOMEWHERE},
)
"""What the data of a run may have been: some keys are refused without a scan, or with one."""
OF_DATA = {*ARRAYS, *SCANS}


def logged_config(given: Mapping[str, Any]) -> RunConfig:
    """What a server's configuration of a run of this program says; its paths may be inventions.

    Raises:
        UserError: it is none that this program knows.
    """
    if "run_id" in given:  # it has begun; without a size it was version 0.1's
        given = {"patch_size": N, **given}
    given = {key: value for key, value in given.items() if key != "run_id"}
    refused = None
    for paths in DATA[: 1 if given.keys() & OF_DATA else None]:
        try:
            return load_config({**given, **paths})
        except UserError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def config_hash(config: RunConfig, run_id: str) -> str:
    """A hash of the run_id and of the keys that decide it, data files aside (12 hex digits)."""
    return short_hash([run_id, decisive_keys(config)])
