"""What a saved run names and only the user may ask for: code to import, a path to read.

Names of problems, optimizers and datasets are looked up among what is installed. A module's name is imported, which
runs it, and a path is opened: a folder that was received must decide neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curvlab.data.load import is_name
from curvlab.errors import CurvlabError
from curvlab.quoting import quoted
from curvlab.training.run_folder import RunFolder


def check_trusted(values: Mapping[str, Any], saved: Mapping[str, Any], folder: RunFolder) -> None:
    """Do nothing when code and path of the saved settings are given now, too (`continued` finds whether they differ).

    Args:
        values: what the user gave now.
        saved: the settings in the state.
        folder: of the run, for the message.

    Raises:
        CurvlabError: the state names code or a path, and the user does not.
    """
    run = f"the saved run in {quoted(folder.path)}"
    if saved["architecture"] is not None and "architecture" not in values:
        found = f"{run} names code, {quoted(saved['architecture'])}, which going on would import"
        do = f"add --trust if you know where the run comes from, or --architecture {quoted(saved['architecture'])}"
        raise CurvlabError(found, "a file does not decide what is executed", do)
    data = saved["data"]
    if data is not None and "data" not in values and not is_name(data):
        do = f"give it again with --data {quoted(data)}, or add --trust if you know where the run comes from"
        raise CurvlabError(
            f"{run} names a path to read, {quoted(data)}", "a file does not decide which files are opened", do
        )
