"""The cost of a Python loop over time steps, in multiples of torch's own forward and backward (README.md)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from curvlab.capture.survey import survey
from curvlab.capture.tape import Tape
from curvlab.curvature import kfac_factors

SIZES = ((32, 64, 50, 32), (128, 256, 50, 64))
ROUNDS = 15


class Last(nn.Module):
    """Class scores from the last step."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x `(N, T, in)`."""
        z: Tensor = self.head(self.rnn(x)[0][:, -1])
        return z


def medians(work: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each piece of work, run in turn so that all meet the same disturbances."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds[2:]) for name, seconds in times.items()}


def measure(base: type[nn.LSTM | nn.GRU | nn.RNN], size: tuple[int, int, int, int]) -> str:
    """One row of the table."""
    width, hidden, steps, examples = size
    torch.manual_seed(0)
    model = Last(base(width, hidden, batch_first=True))
    x, y = torch.randn(examples, steps, width), torch.randint(0, 10, (examples,))
    found = survey(model, x[:2])

    def own() -> None:
        torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))

    def recorded() -> None:
        with Tape(model, found.modules, lambda *_: None, lambda *_: None, lambda *_: None) as tape:
            z = tape.run(x)
            tape.pull(z, torch.ones_like(z))

    def factors() -> None:
        kfac_factors(model, x, y, likelihood="categorical", fisher_type="empirical")

    seconds = medians({"own": own, "recorded": recorded, "factors": factors})
    cells = [base.__name__, *map(str, size), f"{seconds['own'] * 1e3:.0f} ms"]
    cells += [f"{seconds[name] / seconds['own']:.1f}" for name in ("recorded", "factors")]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("| module | in | hidden | T | N | torch | recorded | K-FAC |\n|---|---|---|---|---|---|---|---|")
    for base in (nn.LSTM, nn.GRU, nn.RNN):
        for size in SIZES:
            print(measure(base, size))
