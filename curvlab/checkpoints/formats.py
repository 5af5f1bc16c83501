"""Every format curvlab can name: what the file alone gives, what gives more, and what it answers for the others."""

from __future__ import annotations

from typing import Literal, NamedTuple

Support = Literal["runnable", "weights-only", "recognised only"]


class Format(NamedTuple):
    """One line of `curvlab list formats`.

    Attributes:
        name: as in `Checkpoint.format`.
        what: what the format is, in words that complete "is …".
        support: "runnable" when the file alone can give a network; "weights-only" when it gives named tensors and
            layers, and a network with `--architecture`; "recognised only" when curvlab knows what it is and says so.
        needs: what the support, or more than it, asks for (of a format only recognised: what to do instead).
        extra: the optional packages that make the network, as in `pip install 'curvlab[extra]'`; empty for none.
        trust: whether the network is code in the file, run with `--trust` only.
    """

    name: str
    what: str
    support: Support
    needs: str = ""
    extra: str = ""
    trust: bool = False


_EXPORT = "export its weights with safetensors.torch.save_file(model.state_dict(), path)"
_RESAVE = "save the weights with torch.save(model.state_dict(), path)"
_ARCHITECTURE = "--architecture SPEC to run it"
_CODE = "its network is code in the file; its weights are read without running any"

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("curvlab", "a curvlab model (safetensors with its architecture)", "runnable"),
        Format("safetensors", "a safetensors file", "weights-only", _ARCHITECTURE),
        Format("safetensors-sharded", "a sharded safetensors model (*.index.json)", "weights-only", _ARCHITECTURE),
        Format(
            "huggingface", "a Hugging Face model directory", "runnable", "transformers; --data of tokenised text", "hf"
        ),
        Format("timm", "a timm model directory", "runnable", "timm, and a torchvision built for this torch", "timm"),
        Format("onnx", "an ONNX model", "runnable", "onnxruntime, to check the imported network against it", "onnx"),
        Format("keras", "a Keras 3 model (.keras)", "runnable", "keras, on its torch backend", "keras"),
        Format("hdf5", "an HDF5 file (.h5, .hdf5)", "runnable", "keras, where the file holds the whole model", "keras"),
        Format("torchscript", "a TorchScript archive", "runnable", _CODE, trust=True),
        Format("pt2", "a torch.export archive (.pt2)", "runnable", _CODE, trust=True),
        Format("torch-zip", "a PyTorch checkpoint (.pt, .pth, .bin, .ckpt)", "weights-only", _ARCHITECTURE),
        Format("torch-legacy", "a PyTorch checkpoint of before version 1.6", "weights-only", _ARCHITECTURE),
        Format("pickle", "a bare pickle", "weights-only", f"{_ARCHITECTURE}; it is never opened"),
        Format("torch-package", "a torch.package archive", "recognised only", _EXPORT),
        Format("torch-tar", "a PyTorch checkpoint of before version 0.4 (tar)", "recognised only", _RESAVE),
        Format("gguf", "a GGUF model of llama.cpp", "recognised only", "give the original safetensors weights"),
        Format("tflite", "a TensorFlow Lite model", "recognised only", "export the original model's weights"),
        Format("numpy", "a NumPy array file", "recognised only", "save the arrays with safetensors.numpy.save_file"),
    )
}
