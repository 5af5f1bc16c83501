"""The errors that curvlab raises on purpose: what was found, why it cannot be, what to do."""

from __future__ import annotations


class CurvlabError(Exception):
    """A failure that a user can understand and mend.

    Args:
        found: what was met, with the data in it ("'model.pt' has no layer named 'head'").
        why: why this cannot go on; empty when `found` says it all.
        do: what the user can do next; empty when there is nothing to do.

    The message is the three parts joined to one line, so that a command line can print it as it is.
    """

    exit_code = 1

    def __init__(self, found: str, why: str = "", do: str = "") -> None:
        self.found, self.why, self.do = found, why, do
        super().__init__(found, why, do)

    def __str__(self) -> str:
        text = self.found if not self.why else f"{self.found}: {self.why}"
        return text if not self.do else f"{text}; {self.do}"


class RecordingFault(Exception):  # noqa: N818 - a fault of curvlab's, not an answer to a user
    """A fault of curvlab itself while a model was being recorded: never to be told as the model's or the data's."""


class CheckpointError(CurvlabError):
    """A file or folder that is not a model curvlab can read, or is not safe to read."""


class DataError(CurvlabError):
    """Data that is missing, malformed, or does not fit the model."""


class UnsupportedLayer(CurvlabError):  # noqa: N818 - it becomes a line of the coverage report, not a crash
    """A module or parameter that no adapter can express as an affine map; the reason is shown to the user."""


class NumericalError(CurvlabError):
    """A computation that met non-finite numbers or did not converge."""


class MemoryBudgetError(CurvlabError):
    """Work that needs more memory than `--max-memory` allows; the message names both sizes."""


class CommandError(CurvlabError):
    """A wrong command line (exit code 2): an option value that no command can make sense of."""

    exit_code = 2


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch or a device ran out of memory; torch's own type is not imported just to ask."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)
