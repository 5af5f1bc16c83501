"""The state of a run on disk: whether it is one of this version, and whether it is of the run that is to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from curvlab.errors import CheckpointError
from curvlab.training.optimizer_fit import optimizer_misfit
from curvlab.training.run_folder import RunFolder
from curvlab.training.state_file import read_state
from curvlab.training.state_schema import alike, misfit

if TYPE_CHECKING:
    from curvlab.training.run import Run

VERSION = "curvlab.state/2"


def saved_state(folder: RunFolder) -> dict[str, Any]:
    """The state in a folder, all of its parts there and of their types.

    Raises:
        CurvlabError: there is none, or it is not one of this version.
    """
    state, again = read_state(folder.state), "start again with --force"
    why = "" if state.get("version") != VERSION else misfit(state)
    if why is not None:
        raise CheckpointError(f"'{folder.state}' is not a training state of this version of curvlab", why, again)
    return state


def run_misfit(run: Run, state: dict[str, Any]) -> str | None:
    """What of a state cannot be of this optimizer, schedule and budget, as a clause; nothing has been loaded or written
    before that is known."""
    saved, schedule = state["settings"], run.scheduler.state_dict()
    most = saved["steps"] or (saved["epochs"] or run.task.problem.epochs) * run.per_epoch
    if state["step"] > most:
        return f"it is after step {state['step']:,} of {most:,}"
    if not alike(state["scheduler"], schedule) or state["scheduler"]["last_epoch"] != state["step"]:
        return "its schedule is not the run's"
    if not alike(state["generators"]["cpu"], torch.get_rng_state()):
        return "its random generator is another one"
    if not alike(state["optimizer"].get("param_groups"), run.optimizer.state_dict()["param_groups"]):
        return "its optimizer has other groups of parameters"
    return optimizer_misfit(run, state)
