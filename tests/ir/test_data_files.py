"""External data that is missing, short or outside the model's folder is refused at load, before anything trusts it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from ir_graphs import external_tensor, model_proto, write_external
from onnx import helper

from irc.errors import ModelError
from irc.ir import constant, load


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "'w'" in message
    return message


def test_missing(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "w.bin").unlink()
    assert "'w.bin', which is missing; put it beside the model" in refusal(path)


def test_truncated(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    with (tmp_path / "w.bin").open("rb+") as file:
        file.truncate(8000)
    assert "bytes 0 to 8192 of 'w.bin', which has 8000" in refusal(path)


@pytest.mark.parametrize("offset", [4, 1 << 40])
def test_offset_outside_the_file(tmp_path: Path, offset: int) -> None:
    assert "truncated or belongs to another model" in refusal(write_external(tmp_path, offset=offset))


def test_length_that_does_not_fit_the_shape(tmp_path: Path) -> None:
    assert "has 4096 bytes in 'w.bin', but FLOAT [64, 32] needs 8192" in refusal(write_external(tmp_path, length=4096))


def test_a_file_longer_than_needed_is_fine(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    with (tmp_path / "w.bin").open("ab") as file:
        file.write(b"more")
    load(path)


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "/etc/hostname", ""])
def test_paths_that_leave_the_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_external(folder, location=location)
    (tmp_path / "w.bin").write_bytes((folder / "w.bin").read_bytes())
    message = refusal(path)
    assert "copy the model and its data into one folder" in message or location == ""


def test_subfolder_is_allowed(tmp_path: Path) -> None:
    path = write_external(tmp_path, location="data/w.bin")
    (tmp_path / "data").mkdir()
    (tmp_path / "w.bin").rename(tmp_path / "data" / "w.bin")
    weight = constant(load(path).graph.initializers["w"])
    assert weight is not None
    assert weight.shape == (64, 32)


def test_directory_in_place_of_the_file(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").mkdir()
    assert "not a regular file" in refusal(path)


def test_hugging_face_cache_layout(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    path = write_external(snapshot)
    for name in ("m.onnx", "w.bin"):
        (snapshot / name).rename(blobs / f"sha-{name}")
        (snapshot / name).symlink_to(f"../../blobs/sha-{name}")
    assert "a link to outside the model's folder; copy the model and its data into one folder (cp -L" in refusal(path)


def test_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    (tmp_path / "w.bin").rename(tmp_path / "real.bin")
    (tmp_path / "w.bin").symlink_to("real.bin")
    assert constant(load(path).graph.initializers["w"]) is not None


def test_link_to_the_model_finds_the_data_beside_the_link(tmp_path: Path) -> None:
    store, view = tmp_path / "store", tmp_path / "view"
    store.mkdir()
    view.mkdir()
    path = write_external(view)
    path.rename(store / "m.onnx")
    path.symlink_to(store / "m.onnx")
    assert constant(load(path).graph.initializers["w"]) is not None


def test_hard_link(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    os.link(tmp_path / "w.bin", tmp_path / "other.bin")
    assert "hard-linked" in refusal(path)


def test_constants_and_bodies_are_checked_too(tmp_path: Path) -> None:
    node = helper.make_node(
        "Constant", [], ["w"], value=external_tensor("w", [64, 32], "gone.bin", offset=0, length=8192)
    )
    proto = model_proto([node, helper.make_node("Relu", ["w"], ["y"])], {}, {"y": [64, 32]})
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    assert "gone.bin" in refusal(path)


def test_nothing_is_read_at_load(tmp_path: Path) -> None:
    model = load(write_external(tmp_path))
    tensor = model.graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.raw is None  # type: ignore[attr-defined]


def test_the_data_file_is_not_modified(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    before = (path.read_bytes(), (tmp_path / "w.bin").read_bytes())
    load(path)
    assert (path.read_bytes(), (tmp_path / "w.bin").read_bytes()) == before


def test_bad_numbers_in_external_data(tmp_path: Path) -> None:
    path = write_external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[1].value = "many"
    path.write_bytes(proto.SerializeToString())
    assert "has offset 'many' in 'w.bin', not a number of bytes" in refusal(path)
    proto.graph.initializer[0].external_data[1].value = "-8"
    path.write_bytes(proto.SerializeToString())
    assert "has offset '-8'" in refusal(path)
