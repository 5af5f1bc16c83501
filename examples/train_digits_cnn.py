"""Train a small convolutional network on the embedded digits and save it with its architecture and data.

    python examples/train_digits_cnn.py            # writes examples/digits-cnn.safetensors
    curvlab analyze examples/digits-cnn.safetensors

The file holds a description of the network (not code), so the second command needs no option.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

import curvlab
from curvlab.data.load import load


def network() -> nn.Module:
    """1×8×8 → 10: three convolutions, one of them depthwise, and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.Tanh(),
        nn.Linear(64, 10),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("digits-cnn.safetensors"))
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    digits = load("digits")
    assert digits.y is not None
    order = torch.randperm(len(digits))
    train, test = order[:1500], order[1500:]
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(arguments.epochs):
        model.train()
        for rows in train[torch.randperm(len(train))].split(100):
            loss = nn.functional.cross_entropy(model(digits.x[rows]), digits.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(digits.x[test]).argmax(1) == digits.y[test]).float().mean().item()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, test accuracy {accuracy:.4f}")
    curvlab.save(arguments.out, model, data="digits", likelihood="categorical")
    print(f"saved to {arguments.out} ({arguments.out.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    main()
