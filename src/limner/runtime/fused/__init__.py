"""Our own integer engine: a bundle's int8 graph, compiled to a plan of fused stages, run by a small C++ extension.

reader (ONNX file) -> compiler (graph -> plan) -> plan -> native (the extension) or reference (the same in numpy);
engine is what the runtime opens. The extension is optional: without it, or where it cannot run a graph, the default
engine runs the bundle.
"""
