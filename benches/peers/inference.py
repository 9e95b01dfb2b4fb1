"""Inference of the model that `benches/speed` writes to a folder, by PyTorch and ONNX Runtime.

    python inference.py FOLDER --program PROGRAM [--seconds 1] [--threads 2]

`export` writes `model.onnx` and runs nothing; ONNX Runtime then needs no PyTorch in its process. The
others run the batch in the folder and print one line of JSON: times of passes in seconds, the peak of
the process in bytes, and the logits.

`onnxruntime` is a session with all its optimizations, which are the default. The others are PyTorch, with
weights and images channel by channel in each pixel (`channels_last`), as its documentation advises for
convolutions on CPUs. `eager` is a module as one would write it, in eval mode without gradients. `frozen`
is that module traced and frozen, which folds batch norms. `optimized` is the frozen one prepared by
`torch.jit.optimize_for_inference`. None of these is the fastest for all networks.
"""

import argparse
import json
import time

PROGRAMS = ["eager", "export", "frozen", "onnxruntime", "optimized"]
# Passes that do not count, and those that do at least.
WARM, LEAST = 3, 5


def memory(name):
    """Bytes that /proc says this process has."""
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) * 1024


def module(folder):
    """The network of `model.safetensors`, whose graph stands in its metadata."""
    import torch
    from safetensors import safe_open

    from search_step import Graph

    def arranged(tensor):
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        network = json.loads(file.metadata()["archrepair"])
        tensors = {name: arranged(file.get_tensor(name).float()) for name in file.keys()}

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.graphs = [Graph(part["graph"], tensors) for part in network["parts"]]

        def forward(self, x):
            for graph in self.graphs:
                x = graph.forward(x, graph.eager())
            return x

    return Network().eval()


def onnx_session(folder, x, threads):
    """A function that runs the batch once and returns logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    path, providers = f"{folder}/model.onnx", ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    return lambda: session.run(None, {"x": x})[0]


def pytorch(program, folder, x, threads):
    """As `onnx_session`."""
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.set_grad_enabled(False)
    net, x = module(folder), torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
    if program != "eager":
        net = torch.jit.freeze(torch.jit.trace(net, x))
    if program == "optimized":
        net = torch.jit.optimize_for_inference(net)
    return lambda: net(x).numpy()


def export(folder, x):
    import torch

    with torch.no_grad():
        torch.onnx.export(
            module(folder),
            torch.from_numpy(x),
            f"{folder}/model.onnx",
            input_names=["x"],
            opset_version=17,
            dynamo=False,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--program", required=True, choices=PROGRAMS)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long passes are repeated")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    from safetensors.numpy import load_file

    x = load_file(f"{arguments.folder}/batch.safetensors")["x"]
    if arguments.program == "export":
        export(arguments.folder, x)
        return
    if arguments.program == "onnxruntime":
        run = onnx_session(arguments.folder, x, arguments.threads)
    else:
        run = pytorch(arguments.program, arguments.folder, x, arguments.threads)
    logits = [run() for _ in range(WARM)][-1]
    times, begun = [], time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - begun < arguments.seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    measured = {"times": times, "vm_hwm": memory("VmHWM"), "logits": logits.ravel().tolist()}
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
