"""How weights begin, where torch's own draw, uniform in ±1/√fan_in, is too small for signals to get through."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def glorot(module: nn.Module) -> None:
    """W ~ U(−a, a), a = √(6 / (fan_in + fan_out)), b = 0 (Glorot & Bengio 2010, eq. 16)."""
    from torch import nn

    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
        else:
            nn.init.zeros_(parameter)


def glorot_normal(module: nn.Module) -> None:
    """W ~ N(0, 2 / (fan_in + fan_out)), b = 0 (Glorot & Bengio 2010)."""
    from torch import nn

    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
        else:
            nn.init.zeros_(parameter)


def he(module: nn.Module) -> None:
    """W ~ N(0, 2 / fan_in), b = 0: keeps the size of signals through ReLU (He et al. 2015, eq. 10)."""
    from torch import nn

    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.zeros_(parameter)


def fan_in_normal(module: nn.Module) -> None:
    """W ~ N(0, 1 / fan_in), b = 0: keeps the size of signals through linear layers (LeCun et al. 1998, eq. 16)."""
    from torch import nn

    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="linear")
        else:
            nn.init.zeros_(parameter)
