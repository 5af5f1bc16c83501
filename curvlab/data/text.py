"""Text as data: tokenised by the model's own tokenizer.json, in a process of its own, and packed into sequences."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curvlab.data.budget import physical_memory
from curvlab.data.convention import convention_of, is_of_transformers, keywords_of
from curvlab.data.pairs import MAIN_KEYWORDS
from curvlab.data.tokenizing_child import TokenizingRequest
from curvlab.errors import CheckpointError, DataError
from curvlab.formats.paths import regular_file, stays_inside
from curvlab.quoting import escaped

if TYPE_CHECKING:
    from torch import nn

    from curvlab.data.tokens import Tokens

TOKENIZER = "tokenizer.json"
MOST_TOKENIZER = 2**27
"""Bytes of a tokenizer.json; those of large vocabularies have 35 million."""
LENGTH = 128
"""Tokens of a sequence, where the model takes as many."""
TOKENS = 4096
"""Tokens of as many sequences as there are without `--samples`."""
SECONDS, TOKENS_PER_SECOND = 60, 2000
"""Seconds of computing that tokenising may take, and for how many tokens there is one more: real tokenizers are a
hundred times as fast."""
LEAST_MEMORY = 2**31
"""Bytes of address space that a process with the libraries alone needs."""
# -P: a file of the user's that is called like a library must not be imported for it.
COMMAND = (sys.executable, "-P", "-m", "curvlab.data.tokenizing_child")
_LIMITS = ("max_position_embeddings", "n_positions", "max_source_positions", "seq_length", "max_seq_len")


@dataclass(frozen=True)
class TextReading:
    """How text becomes the input of one network.

    Attributes:
        module: the network.
        folders: where a tokenizer.json is looked for.
        sequence_length: tokens of a sequence; None: 128, or as many as the network has positions if it has fewer.
    """

    module: nn.Module
    folders: tuple[Path, ...]
    sequence_length: int | None = None

    @property
    def length(self) -> int:
        """Tokens of a sequence.

        Raises:
            DataError: the network takes no tokens, or not so many.
        """
        name, taken = type(self.module).__name__, keywords_of(self.module)
        if is_of_transformers(self.module) and "input_ids" not in taken:
            other = next((key for key in MAIN_KEYWORDS if key in taken), "other inputs")
            raise DataError(f"{name} takes {other}", "text is no input of it", "give arrays in an .npz instead")
        longest = _longest(self.module)
        if self.sequence_length is None:
            return min(LENGTH, longest or LENGTH)
        if longest is not None and self.sequence_length > longest:
            raise DataError(f"--sequence-length is {self.sequence_length}", f"{name} has {longest} positions")
        return self.sequence_length

    @property
    def around(self) -> bool:
        """Whether every sequence, and not every document, ends with what the tokenizer puts behind a text."""
        convention = convention_of(self.module)
        return convention != "next token" and (convention is not None or is_of_transformers(self.module))

    @property
    def separator(self) -> int | None:
        """The token between documents."""
        found = getattr(getattr(self.module, "config", None), "eos_token_id", None)
        rows = getattr(getattr(self.module, "config", None), "vocab_size", None)
        sound = isinstance(found, int) and (not isinstance(rows, int) or 0 <= found < rows)
        return found if sound else None

    def tokenizer(self) -> Path:
        """The first tokenizer.json of the folders.

        Raises:
            DataError: there is none, or it is a link out of its folder, or too large.
        """
        for folder in self.folders:
            path = folder / TOKENIZER
            if not path.exists() and not path.is_symlink():
                continue
            try:
                stays_inside(regular_file(path), folder)
            except CheckpointError as error:
                raise DataError(error.found, error.why, error.do) from None
            if path.stat().st_size > MOST_TOKENIZER:
                why = f"{path.stat().st_size:,} bytes; at most {MOST_TOKENIZER:,} are read"
                raise DataError(f"'{path}' is too large for a tokenizer", why)
            return path
        where = f"'{self.folders[0]}' has no {TOKENIZER}" if self.folders else "the model has no folder of its own"
        raise DataError(
            where,
            "text must be cut into the tokens that the model was trained on",
            f"put the model's {TOKENIZER} there (AutoTokenizer.from_pretrained(…).save_pretrained(folder) of "
            "transformers writes it), or give token ids as input_ids in an .npz",
        )


def read_text(path: Path, reading: TextReading | None, samples: int | None, max_memory: int | None) -> Tokens:
    """Sequences of tokens from the beginning of a text, as many as asked for; without, of 4,096 tokens together.

    Raises:
        DataError: no tokenizer, a text or a tokenizer that cannot be read, or one that takes too long.
    """
    import numpy as np
    import torch

    from curvlab.data.tokens import tokenised

    if reading is None:
        do = "give token ids as input_ids in an .npz"
        raise DataError(f"'{path}' is text", "it takes a saved model's folder with its tokenizer.json", do)
    length, tokenizer = reading.length, reading.tokenizer()
    if importlib.util.find_spec("tokenizers") is None:
        raise DataError(f"'{tokenizer}' cannot be read", "tokenizers is not installed", "pip install 'curvlab[text]'")
    most = samples or max(2, TOKENS // length)
    allowed = physical_memory() // 2 if max_memory is None else max_memory
    seconds = SECONDS + most * length // TOKENS_PER_SECOND
    request = TokenizingRequest(
        str(tokenizer.absolute()),
        str(path.absolute()),
        length,
        most,
        reading.around,
        reading.separator,
        seconds,
        max(allowed, LEAST_MEMORY),
    )
    facts, stored = _answer(request)
    if not facts["count"]:
        raise DataError(f"'{path}' holds no text", "not one token came of it")
    ids = torch.from_numpy(np.frombuffer(stored, "=i8").copy()).reshape(facts["count"], facts["length"])
    return tokenised(ids, None, {}, path.stem, f"'{path}'", (_sentence(facts, length, tokenizer),))


def _sentence(facts: dict[str, Any], length: int, tokenizer: Path) -> str:
    what = f"{facts['count']} sequence{'s' * (facts['count'] != 1)} of {facts['length']} tokens by {tokenizer.name}"
    if facts["length"] < length and facts["count"] == 1:
        return f"text: {what}; there is no more"
    if facts["more"]:
        return f"text: the first {what} (--samples, --sequence-length)"
    return f"text: {what}" + (f"; {facts['rest']} tokens behind them fill no sequence" if facts["rest"] else "")


def _answer(request: TokenizingRequest) -> tuple[dict[str, Any], bytes]:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            COMMAND,
            input=json.dumps(request._asdict()).encode() + b"\n",
            capture_output=True,
            env=environment,
            timeout=4 * request.seconds + 60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _too_much(request, "it took too long") from None
    head, _, tokens = done.stdout.partition(b"\n")
    if not head:
        raise _too_much(request, _ending(done.returncode, done.stderr, request.seconds, request.memory))
    facts: dict[str, Any] = json.loads(head)
    if "refused" in facts:
        raise DataError(*(escaped(part) for part in facts["refused"]))
    return facts, tokens


def _ending(code: int, errors: bytes, seconds: int, memory: int) -> str:
    if code < 0 and -code in (getattr(signal, "SIGXCPU", None), getattr(signal, "SIGKILL", None)):
        return f"it took more than {seconds} s of computing"
    lines = errors.decode("utf-8", errors="replace").strip().splitlines()
    if any("MemoryError" in line or "memory allocation of" in line for line in lines):
        return f"it asked for more than {memory:,} bytes of memory"
    return f"its process ended with code {code}" + (f": {escaped(lines[-1][:200])}" if lines else "")


def _too_much(request: TokenizingRequest, why: str) -> DataError:
    return DataError(f"'{request.corpus}' cannot be tokenised by '{request.tokenizer}'", why, "use the model's own")


def _longest(module: nn.Module) -> int | None:
    """Positions that the network has, by its configuration; None where it does not say."""
    config: Any = getattr(module, "config", None)
    for one in (getattr(config, "text_config", None), config):
        for name in _LIMITS:
            if isinstance(found := getattr(one, name, None), int) and found > 0:
                return found
    return None
