"""Every format curvlab can name: which it reads, what reading gives, and what it answers for the others."""

from __future__ import annotations

from typing import Literal, NamedTuple

Support = Literal["runnable", "weights-only", "recognised only"]


class Format(NamedTuple):
    """One line of `curvlab list formats`.

    Attributes:
        name: as in `Checkpoint.format`.
        what: what the format is, in words that complete "is …".
        support: "runnable" when the file alone gives a network; "weights-only" when it gives named tensors and layers,
            and a network with `--architecture`; "recognised only" when curvlab knows what it is and says so.
        needs: what gives more than the file alone (or, for a format only recognised, what to do instead).
    """

    name: str
    what: str
    support: Support
    needs: str


_EXPORT = "export its weights with safetensors.torch.save_file(model.state_dict(), path)"
_RESAVE = "save the weights with torch.save(model.state_dict(), path)"

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("curvlab", "a curvlab model (safetensors with its architecture)", "runnable", ""),
        Format("safetensors", "a safetensors file", "weights-only", "--architecture to run it"),
        Format(
            "safetensors-sharded",
            "a sharded safetensors model (*.index.json)",
            "weights-only",
            "--architecture to run it",
        ),
        Format(
            "torch-zip", "a PyTorch checkpoint (.pt, .pth, .bin, .ckpt)", "weights-only", "--architecture to run it"
        ),
        Format(
            "torch-legacy", "a PyTorch checkpoint of before version 1.6", "weights-only", "--architecture to run it"
        ),
        Format("torchscript", "a TorchScript archive", "recognised only", _EXPORT),
        Format("pt2", "a torch.export archive (.pt2)", "recognised only", _EXPORT),
        Format("torch-package", "a torch.package archive", "recognised only", _EXPORT),
        Format("torch-tar", "a PyTorch checkpoint of before version 0.4 (tar)", "recognised only", _RESAVE),
        Format("pickle", "a bare pickle", "recognised only", _RESAVE),
        Format("onnx", "an ONNX model", "recognised only", "export the weights of the original model as safetensors"),
        Format("keras", "a Keras 3 model (.keras)", "recognised only", "export its weights as safetensors"),
        Format("hdf5", "an HDF5 file (.h5, .hdf5)", "recognised only", "export its weights as safetensors"),
        Format("huggingface", "a Hugging Face model directory", "recognised only", "give the weights file inside it"),
        Format("timm", "a timm model directory", "recognised only", "give the weights file inside it"),
        Format("gguf", "a GGUF model of llama.cpp", "recognised only", "give the original safetensors weights"),
        Format("tflite", "a TensorFlow Lite model", "recognised only", "export the original model's weights"),
        Format("numpy", "a NumPy array file", "recognised only", "save the arrays with safetensors.numpy.save_file"),
    )
}
