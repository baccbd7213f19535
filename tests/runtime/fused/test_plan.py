"""From ONNX file to plan: read as the onnx package does, compiled to what the graph computes, refused with a reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fused_kit import TrunkGraph, noise, painter_trunk
from kit import SIGNED_ZERO, upscaler_graph
from onnx import TensorProto, helper, numpy_helper

from limner import bundle
from limner.runtime.backends import open_engine
from limner.runtime.fused import compiler, reader, reference
from limner.runtime.fused.plan import Plan, Unsupported

SHIPPED = ["photo-x2", "photo-x4", "photo-x4-hq"]


def compiled(model: onnx.ModelProto) -> Plan:
    return compiler.compile_graph(reader.parse(model.SerializeToString()))


def refused(model: onnx.ModelProto) -> str:
    with pytest.raises(Unsupported) as caught:
        compiled(model)
    return str(caught.value)


def agree(model: onnx.ModelProto, folder: Path, height: int = 12, width: int = 16, colours: int = 3) -> None:
    """Plan and ONNX Runtime paint the same, but for sums that fall on a rounding step."""
    path = folder / "graph.onnx"
    onnx.save(model, path)
    picture = noise(height, width, 0, colours)
    ours = reference.run(compiler.load(path), picture)
    theirs = open_engine("onnxruntime", path, 1).session(height, width)(picture[None])[0]
    gap = np.abs(ours.astype(int) - theirs)
    assert gap.max() <= 2 and gap.mean() < 0.02
    assert np.abs(ours.astype(int) - picture.repeat(2, 0).repeat(2, 1)).mean() > 0.5, "the network does something"


@pytest.mark.parametrize("precision", ["int8", "float"])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_reader_reads_as_the_onnx_package_does(name: str, precision: str) -> None:
    path = bundle.ZOO / name / f"{precision}.onnx"
    graph, true = reader.read(path), onnx.load(path).graph
    assert [(n.kind, n.inputs, n.outputs) for n in graph.nodes] == [
        (n.op_type, tuple(n.input), tuple(n.output)) for n in true.node
    ]
    for ours, theirs in zip(graph.nodes, true.node, strict=True):
        values = {a.name: helper.get_attribute_value(a) for a in theirs.attribute}
        assert ours.attributes == {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    assert graph.constants.keys() == {t.name for t in true.initializer}
    for tensor in true.initializer:
        array = numpy_helper.to_array(tensor)
        assert graph.constants[tensor.name].dtype == array.dtype
        assert np.array_equal(graph.constants[tensor.name], array)
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.FLOAT, [1.5, -2.0]),
        (TensorProto.INT64, [-1, 2**40]),
        (TensorProto.INT32, [-7, 7]),
        (TensorProto.INT8, [-128, 127]),
        (TensorProto.UINT8, [0, 255]),
    ],
)
def test_values_written_one_by_one(kind: int, values: list[float]) -> None:
    """Without raw_data, as some writers leave small constants."""
    tensor = helper.make_tensor("t", kind, [2, 1], values)
    assert not tensor.raw_data
    node = helper.make_node("Odd", ["t"], ["y"], alpha=0.5, name="n", mode="CRD", sides=[-1, 2], domain="my.own")
    model = helper.make_model(helper.make_graph([node], "g", [], [], [tensor]))
    graph = reader.parse(model.SerializeToString())
    assert np.array_equal(graph.constants["t"], numpy_helper.to_array(tensor))
    assert graph.nodes[0].kind == "my.own.Odd"
    assert graph.nodes[0].attributes == {"alpha": 0.5, "mode": "CRD", "sides": (-1, 2)}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_bundles_are_planned(name: str) -> None:
    opened = bundle.read(name)
    plan = compiler.load(opened.graph("int8"))
    assert (plan.scale, plan.unshuffle) == (opened.manifest.scale, opened.manifest.multiple)
    assert plan.macs_per_pixel == opened.manifest.macs_per_pixel
    kinds = [stage.kind for stage in plan.stages]
    assert kinds[:3] == ["dense", "depthwise", "pointwise"] and kinds[-1] == "pointwise"
    assert [layer.source for layer in plan.stages] == list(range(len(plan.stages)))
    assert {layer.zero_out for layer in plan.layers if layer.kind == "depthwise"} == {128}
    assert {layer.zero_out for layer in plan.layers if layer.kind != "depthwise"} == {0}


def test_planning_takes_milliseconds() -> None:
    """Processor time, so that a busy machine does not decide."""
    path = bundle.ZOO / "photo-x4-hq" / "int8.onnx"
    times = []
    for _ in range(5):
        start = time.process_time()
        compiler.load(path)
        times.append(time.process_time() - start)
    assert min(times) < 0.1


def dense(g: TrunkGraph) -> onnx.ModelProto:
    return g.finish(g.activation(g.op("Relu", g.conv(g.head, 16, 16, 3))))


def grouped(g: TrunkGraph) -> onnx.ModelProto:
    wide = g.activation(g.op("Relu", g.conv(g.head, 16, 32, 1)))
    mixed = g.activation(g.conv(wide, 32, 32, 5, groups=2), zero=SIGNED_ZERO)
    return g.finish(g.activation(g.op("Relu", g.conv(mixed, 32, 16, 1))))


def residual(g: TrunkGraph) -> onnx.ModelProto:
    y = g.activation(g.conv(g.head, 16, 16, 5, groups=16), 0.03, zero=SIGNED_ZERO)
    y = g.op("Relu", g.op("Add", g.head, g.conv(y, 16, 16, 1)))
    return g.finish(g.activation(y, 0.04))


def clipped(g: TrunkGraph) -> onnx.ModelProto:
    """A grid of four bits is a Clip before eight."""
    y = g.conv(g.head, 16, 16, 3, groups=16)
    y = g.op("Clip", y, g.constant(np.float32(-0.16)), g.constant(np.float32(0.14)))
    return g.finish(g.activation(y, 0.02, zero=SIGNED_ZERO))


def shifted(g: TrunkGraph) -> onnx.ModelProto:
    """Two grids on one sum: the convolution runs twice, the picture is the same."""
    y = g.conv(g.head, 16, 16, 1)
    one, other = g.activation(y, 0.03, zero=SIGNED_ZERO), g.activation(y, 0.02, zero=SIGNED_ZERO)
    return g.finish(g.activation(g.op("Relu", g.op("Add", g.conv(one, 16, 16, 3), other))))


@pytest.mark.parametrize("write", [dense, grouped, residual, clipped, shifted])
def test_other_trunks(write: Callable[[TrunkGraph], onnx.ModelProto], tmp_path: Path) -> None:
    agree(write(TrunkGraph(16)), tmp_path)


def film_values(model: onnx.ModelProto, seed: int = 0) -> np.ndarray:
    """What a FiLM network might give: (1, values, 1, 1) float32."""
    count = model.graph.input[1].type.tensor_type.shape.dim[1].dim_value
    return np.random.default_rng(seed).normal(0, 0.2, (1, count, 1, 1)).astype(np.float32)


def test_film() -> None:
    """Scales and shifts per picture, expansion, residuals on their own grids: as ONNX Runtime computes it."""
    model, picture = painter_trunk(TrunkGraph(16)), noise(12, 16)
    plan, session = compiled(model), onnxruntime.InferenceSession(model.SerializeToString())
    assert [layer.film for layer in plan.layers] == [False, True, False, True, True, False, True]
    assert [layer.residual is not None for layer in plan.layers] == [False, False, False, True, False, False, True]
    paintings = []
    for seed in range(2):
        values = film_values(model, seed)
        theirs = session.run(None, {"x": picture[None], "film": values})[0][0]
        paintings.append(reference.run(plan, picture, plan.film(values.reshape(-1))))
        gap = np.abs(paintings[-1].astype(int) - theirs)
        assert gap.max() <= 2 and gap.mean() < 0.05
    assert (paintings[0] != paintings[1]).mean() > 0.2, "the values do something"


def unshifted(g: TrunkGraph) -> onnx.ModelProto:
    ((scale, _),) = g.films(16)
    return g.finish(g.activation(g.op("Mul", g.conv(g.head, 16, 16, 1), scale)))


def unscaled(g: TrunkGraph) -> onnx.ModelProto:
    ((_, shift),) = g.films(16)
    return g.finish(g.activation(g.op("Add", g.conv(g.head, 16, 16, 1), shift)))


def modulated_late(g: TrunkGraph) -> onnx.ModelProto:
    """FiLM would act on the residual too."""
    (film,) = g.films(16)
    y = g.op("Add", g.conv(g.head, 16, 16, 1), g.head)
    return g.finish(g.activation(g.modulated(y, film)))


def modulated_narrowly(g: TrunkGraph) -> onnx.ModelProto:
    (film,) = g.films(1)
    return g.finish(g.activation(g.modulated(g.conv(g.head, 16, 16, 1), film)))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (unshifted, "a FiLM scale without its shift"),
        (unscaled, "a FiLM shift without its scale"),
        (modulated_late, "FiLM elsewhere than right behind a convolution"),
        (modulated_narrowly, "of another number of channels"),
    ],
)
def test_film_it_does_not_run(write: Callable[[TrunkGraph], onnx.ModelProto], reason: str) -> None:
    assert reason in refused(write(TrunkGraph(16)))


def test_a_second_input_of_another_shape() -> None:
    model = painter_trunk(TrunkGraph(16))
    model.graph.input[1].type.tensor_type.shape.dim[3].dim_value = 2
    assert "which is no FiLM" in refused(model)


def test_the_painter_is_refused_by_its_operators() -> None:
    with pytest.raises(Unsupported, match=r"^operators MatMul, ReduceMean, Resize, Softmax, Sub, Unsqueeze$"):
        compiler.load(bundle.ZOO / "icons" / "int8.onnx")


def test_what_the_steps_become() -> None:
    added = compiled(residual(TrunkGraph(16))).layers[-1]
    assert added.residual is not None
    assert (added.residual.source, added.residual.zero) == (1, 0)
    assert added.residual.multiplier == np.float32(np.float64(np.float32(0.02)) / np.float64(np.float32(0.04)))
    narrow = compiled(clipped(TrunkGraph(16))).layers[-1]
    assert (narrow.zero_out, narrow.low, narrow.high) == (128, 120, 135)
    assert [layer.source for layer in compiled(shifted(TrunkGraph(16))).layers] == [0, 1, 1, 2]


def test_channels_without_weights(tmp_path: Path) -> None:
    """A scale of 1e-8 and a bias in the hundred millions: small multipliers must not be rounded."""
    g = TrunkGraph(16)
    model = g.finish(g.activation(g.op("Relu", g.conv(g.head, 16, 16, 1))))
    arrays = {t.name: t for t in model.graph.initializer}
    weight = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.attribute][1]
    codes, step = (numpy_helper.to_array(arrays[name]).copy() for name in weight.input[:2])
    codes[:5], step[:5] = 0, 1e-8
    for name, array in zip(weight.input[:2], (codes, step), strict=True):
        arrays[name].CopyFrom(numpy_helper.from_array(array, name))
    (bias,) = [n.input[2] for n in model.graph.node if n.op_type == "Conv" and n.input[1] == weight.output[0]]
    arrays[bias].CopyFrom(numpy_helper.from_array(np.full(16, 0.1, np.float32), bias))
    agree(model, tmp_path)
    dead = compiled(model).layers[1]
    assert np.allclose(dead.bias[:5] * dead.multiplier[:5].astype(float), 0.1 / 0.02, rtol=1e-6)


def test_multipliers_are_where_the_kernels_round_fast() -> None:
    for layer in compiler.load(bundle.ZOO / "photo-x4" / "int8.onnx").layers:
        steps = layer.multiplier.astype(float) * 2**22
        assert (steps == np.rint(steps)).all()


def test_cells_of_pixels(tmp_path: Path) -> None:
    model = upscaler_graph(int8=True, scale=2, multiple=2, width=16)
    agree(model, tmp_path)
    plan = compiled(model)
    assert (plan.unshuffle, plan.scale, plan.layers[0].inputs, plan.tail.outputs) == (2, 2, 12, 48)
    assert plan.macs_per_pixel == sum(stage.weight.size for stage in plan.stages) / 4


@pytest.mark.parametrize(("mode", "planes"), [("DCR", [0, 1, 2] * 4), ("CRD", [0] * 4 + [1] * 4 + [2] * 4)])
def test_other_ends(mode: str, planes: list[int], tmp_path: Path) -> None:
    """Channels (row, column, colour), or (colour, row, column), which the plan puts in the former order."""
    g = TrunkGraph(16)
    agree(g.by_depth_to_space(g.conv(g.head, 16, 12, 1, gain=0.06), planes, mode), tmp_path)


def test_four_channels(tmp_path: Path) -> None:
    """Colours and alpha."""
    g = TrunkGraph(16, colours=4)
    model = g.by_depth_to_space(g.conv(g.head, 16, 16, 1, gain=0.06), [0, 1, 2, 3] * 4, "DCR")
    agree(model, tmp_path, colours=4)
    plan = compiled(model)
    assert (plan.colours, plan.layers[0].inputs, plan.tail.outputs) == (4, 4, 16)


@pytest.mark.parametrize("side", [1, 2, 5, None])
def test_other_numbers_of_channels(side: int | None) -> None:
    model = dense(TrunkGraph(16))
    last = model.graph.input[0].type.tensor_type.shape.dim[3]
    last.Clear()
    if side:
        last.dim_value = side
    assert "which is no picture of 3 or 4 channels" in refused(model)


def test_an_end_that_mixes_up_its_channels() -> None:
    g = TrunkGraph(16)
    model = g.by_depth_to_space(g.conv(g.head, 16, 12, 1), [0, 1, 2] * 4, "CRD")
    assert refused(model) == "a residual other than the nearest pixel of the picture"


def changed(kind: str, which: int = 0, **attributes: object) -> onnx.ModelProto:
    """A good graph with other attributes on one node."""
    model = dense(TrunkGraph(16))
    node = [n for n in model.graph.node if n.op_type == kind][which]
    kept = {a.name: helper.get_attribute_value(a) for a in node.attribute} | attributes
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in kept.items())
    return model


def test_the_good_graph_is_good() -> None:
    assert len(compiled(dense(TrunkGraph(16))).layers) == 2


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"strides": [2, 2]}, "stride, dilation or uneven padding"),
        ({"dilations": [2, 2]}, "stride, dilation or uneven padding"),
        ({"pads": [0, 0, 0, 0]}, "stride, dilation or uneven padding"),
        ({"group": 2}, "16 to 16 channels in 2 groups"),
        ({"group": 0}, "in 0 groups"),
        ({"group": "two"}, "operator Conv with inputs or attributes of another kind"),
        ({"auto_pad": "SAME_UPPER"}, "unknown attributes"),
    ],
)
def test_convolutions_it_does_not_run(attributes: dict[str, object], reason: str) -> None:
    assert reason in refused(changed("Conv", 1, **attributes))


def with_step(kind: str, *constants: float) -> Callable[[TrunkGraph], onnx.ModelProto]:
    def write(g: TrunkGraph) -> onnx.ModelProto:
        y = g.conv(g.head, 16, 16, 1)
        return g.finish(g.activation(g.op(kind, y, *(g.constant(np.float32(c)) for c in constants))))

    return write


def narrow(g: TrunkGraph) -> onnx.ModelProto:
    return g.finish(g.activation(g.conv(g.head, 16, 20, 1)), 20)


def thin_groups(g: TrunkGraph) -> onnx.ModelProto:
    return g.finish(g.activation(g.conv(g.head, 16, 16, 3, groups=2)))


def wide_kernel(g: TrunkGraph) -> onnx.ModelProto:
    return g.finish(g.activation(g.conv(g.head, 16, 16, 7, groups=16)))


def odd_zero(g: TrunkGraph) -> onnx.ModelProto:
    return g.finish(g.activation(g.conv(g.head, 16, 16, 1), zero=37))


def wide_tail(g: TrunkGraph) -> onnx.ModelProto:
    return g.by_depth_to_space(g.conv(g.head, 16, 12, 3), [0, 1, 2] * 4, "DCR")


def two_ends(g: TrunkGraph) -> onnx.ModelProto:
    g.finish(g.head)
    return g.finish(g.head)


def no_shuffle(g: TrunkGraph) -> onnx.ModelProto:
    y = g.op("Add", g.conv(g.head, 16, 12, 1), g.op("Gather", g.planes, g.constant(np.array([0, 1, 2] * 4)), axis=1))
    g.op("Transpose", g.op("Cast", g.end(y), to=TensorProto.UINT8), perm=[0, 2, 3, 1])
    return g.model(1)


def rounded_end(g: TrunkGraph) -> onnx.ModelProto:
    y = g.op("Mul", g.conv(g.head, 16, 3, 1), g.constant(np.float32(255)))
    g.op("Transpose", g.op("Cast", y, to=TensorProto.UINT8), perm=[0, 2, 3, 1])
    return g.model(1)


def other_residual(g: TrunkGraph) -> onnx.ModelProto:
    g.planes = g.op("Gather", g.planes, g.constant(np.array([2, 1, 0])), axis=1)
    return g.finish(g.head)


def float_convolution(g: TrunkGraph) -> onnx.ModelProto:
    g.quantize = False
    return g.finish(g.head)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (with_step("Sigmoid"), "operator Sigmoid"),
        (with_step("Mul", -2.0), "by no positive number"),
        (with_step("Add", 1.0), "a number added in the middle"),
        (with_step("Clip", 3.0, 1.0), "limits exchanged"),
        (narrow, "a width of 20 channels, which is no multiple of 16"),
        (thin_groups, "a width of 8 channels, which is no multiple of 16"),
        (wide_kernel, "a kernel of 7 x 7"),
        (odd_zero, "a zero point of 37"),
        (wide_tail, "a tail that is no 1 x 1"),
        (two_ends, "two ends"),
        (no_shuffle, "an end that makes"),
        (rounded_end, "an end other than + 0.5"),
        (other_residual, "a residual other than the nearest pixel"),
        (float_convolution, "a convolution that is not integer"),
    ],
)
def test_graphs_it_does_not_run(write: Callable[[TrunkGraph], onnx.ModelProto], reason: str) -> None:
    assert reason in refused(write(TrunkGraph(16)))


def test_float_graphs_are_not_its_business() -> None:
    assert refused(upscaler_graph(int8=False)) == "a convolution that is not integer"


@pytest.mark.parametrize(
    ("scale", "reason"), [(0.0, "no positive number"), (float("nan"), "no positive number"), (1e-38, "too far apart")]
)
def test_impossible_scales(scale: float, reason: str) -> None:
    g = TrunkGraph(16)
    assert reason in refused(g.finish(g.activation(g.conv(g.head, 16, 16, 1), scale)))


def test_sums_that_overflow() -> None:
    g = TrunkGraph(16)
    model = g.finish(g.activation(g.conv(g.head, 16, 16, 1)))
    biases = [t for t in model.graph.initializer if t.dims == [16] and t.data_type == TensorProto.FLOAT]
    biases[-2].CopyFrom(numpy_helper.from_array(np.full(16, 2.0**40, np.float32), biases[-2].name))
    assert "32 bits" in refused(model)


def test_files_that_are_no_graph(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "text": b"hello, world" * 9, "noise": bytes(range(256)), "group": b"\x3b"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Unsupported, match="cannot be planned"):
            compiler.load(tmp_path / name)
    with pytest.raises(Unsupported, match="cannot be read: No such file"):
        compiler.load(tmp_path / "absent")


def test_weights_in_another_file(tmp_path: Path) -> None:
    onnx.save(dense(TrunkGraph(16)), tmp_path / "g.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(Unsupported, match="weights in another file"):
        compiler.load(tmp_path / "g.onnx")


def test_requests_for_terabytes() -> None:
    """A hundred bytes that ask for 2**60 values are refused before anything is allocated."""
    g = TrunkGraph(16)
    y = g.planes
    for _ in range(40):
        y = g.op("Concat", y, y, axis=1)
    assert "more values than a picture could need" in refused(g.finish(g.head))
    tensor = helper.make_tensor("t", TensorProto.INT8, [2], b"ab", raw=True)
    tensor.dims[:] = [2**40, 2**20]
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    with pytest.raises(reader.Unreadable, match="not as many values"):
        reader.parse(model.SerializeToString())
