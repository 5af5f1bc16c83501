"""Sharded safetensors: an index and its files read as one model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from curvlab.formats.load import load

TENSORS = {
    "layers.0.weight": torch.randn(5, 3),
    "layers.0.bias": torch.randn(5),
    "layers.1.weight": torch.randn(2, 5),
    "layers.1.bias": torch.randn(2),
}


def sharded(folder: Path, **changes: object) -> Path:
    """A model of two shards and its index; `changes` replace keys of the index."""
    places = {name: f"model-0000{1 + int(name[7])}-of-00002.safetensors" for name in TENSORS}
    for shard in set(places.values()):
        save_file({name: TENSORS[name] for name in TENSORS if places[name] == shard}, folder / shard)
    total = sum(tensor.nbytes for tensor in TENSORS.values())
    index = {"metadata": {"total_size": total}, "weight_map": places, **changes}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_index_and_folder_give_the_same_model(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    for path in (index, tmp_path):
        checkpoint = load(path)
        assert checkpoint.format == "safetensors-sharded"
        assert [(layer.name, layer.kind) for layer in checkpoint.layers] == [
            ("layers.0", "Linear"),
            ("layers.1", "Linear"),
        ]
        assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in TENSORS.items())
        assert checkpoint.files[0] == index
        assert len(checkpoint.files) == 3


def test_an_index_without_metadata_or_with_a_float_total_loads(tmp_path: Path) -> None:
    assert load(sharded(tmp_path, metadata=None)).layers
    assert load(sharded(tmp_path, metadata={})).layers
    total = float(sum(tensor.nbytes for tensor in TENSORS.values()))
    assert load(sharded(tmp_path, metadata={"total_size": total, "format": "pt"})).layers


def test_the_hash_covers_every_shard(tmp_path: Path) -> None:
    index = sharded(tmp_path)
    before = load(index).sha256
    shard = tmp_path / "model-00002-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    after = load(index).sha256
    assert before is not None
    assert before != after


def test_tensors_that_the_index_does_not_list_are_left_out_with_a_note(tmp_path: Path) -> None:
    places = {name: f"model-0000{1 + int(name[7])}-of-00002.safetensors" for name in TENSORS if name != "layers.1.bias"}
    checkpoint = load(sharded(tmp_path, weight_map=places, metadata={}))
    assert "layers.1.bias" not in checkpoint.tensors
    assert any("layers.1.bias" in note for note in checkpoint.notes)


def test_shards_may_be_links_into_the_cache_of_the_hub(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    sharded(snapshot)
    for number, shard in enumerate(sorted(snapshot.glob("*.safetensors"))):
        shard.rename(blobs / f"{number}")
        shard.symlink_to(Path("../../blobs") / f"{number}")
    assert len(load(snapshot).layers) == 2


def test_a_safetensors_index_is_preferred_to_an_older_one(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    assert load(tmp_path).format == "safetensors-sharded"
