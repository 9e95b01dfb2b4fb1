"""A network that archrepair exported, as a module of PyTorch.

    import model
    network = model.load("model.safetensors")        # a torch.nn.Module in eval mode
    logits = network(network.normalize(pixels))      # pixels [n, c, h, w] in 0 to 1

The file of weights carries the network as JSON: parts in order, each a graph of nodes of one output.
A node takes values by number, 0 for the part's input and i + 1 for what node i gave. Parameters and
statistics have the names of the file's tensors, so `state_dict` and `load_state_dict` work as usual.
Needs torch and safetensors.
"""

import json

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

# Statistics are measured, not trained.
STATISTICS = ("running_mean", "running_var")

ACTIVATIONS = {
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


class Network(nn.Module):
    """The network of the text `description` with these tensors, by name."""

    def __init__(self, description, tensors):
        super().__init__()
        self.description = description
        self.class_names = description.get("class_names", [])
        for name, tensor in tensors.items():
            self.add(name.split("."), tensor)
        for name in ("mean", "std"):
            values = torch.tensor(description["input"][name]).reshape(1, -1, 1, 1)
            self.register_buffer(f"input_{name}", values, persistent=False)

    def add(self, path, tensor):
        """Registers a tensor under a dotted name, in modules that hold nothing else."""
        module = self
        for part in path[:-1]:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        if path[-1] in STATISTICS:
            module.register_buffer(path[-1], tensor)
        else:
            module.register_parameter(path[-1], nn.Parameter(tensor))

    def normalize(self, pixels):
        """Pixels in 0 to 1 as the network takes them."""
        return (pixels - self.input_mean) / self.input_std

    def forward(self, x):
        """Logits [n, classes] of normalized images [n, c, h, w]."""
        for part in self.description["parts"]:
            values = [x]
            for node in part["graph"]:
                values.append(self.compute(node, [values[v] for v in node["of"]]))
            x = values[-1]
        return x

    def compute(self, node, xs):
        do, x = node["do"], xs[0]

        def own(suffix):
            module = self.get_submodule(node["name"])
            return getattr(module, suffix)

        match do["op"]:
            case "activation":
                return ACTIVATIONS[do["kind"]](x)
            case "add":
                return x + xs[1]
            case "avg_pool":
                return F.avg_pool2d(x, do["k"], do["stride"], do.get("padding", 0), count_include_pad=False)
            case "batch_norm":
                statistics = own("running_mean"), own("running_var")
                return F.batch_norm(x, *statistics, own("weight"), own("bias"), self.training, 0.1, do["eps"])
            case "concat":
                return torch.cat(xs, 1)
            case "conv2d":
                bias = own("bias") if do.get("bias") else None
                settings = do.get("stride", 1), do.get("padding", 0), do.get("dilation", 1), do.get("groups", 1)
                y = F.conv2d(x, own("weight"), bias, *settings)
                y = y + xs[1] if do.get("residual") else y
                return ACTIVATIONS[do["activation"]](y) if do.get("activation") else y
            case "flatten":
                return x.flatten(1)
            case "gate":
                gate = own("gate").reshape(-1, *[1] * (x.dim() - 2))
                return x + gate * (xs[1] - x)
            case "global_avg_pool":
                return x.mean((2, 3), keepdim=True)
            case "global_std_pool":
                return (x.var((2, 3), correction=0, keepdim=True) + do["eps"]).sqrt()
            case "identity":
                return x
            case "instance_norm":
                return F.instance_norm(x, weight=own("weight"), bias=own("bias"), eps=do["eps"])
            case "linear":
                return F.linear(x, own("weight"), own("bias") if do.get("bias") else None)
            case "max_pool":
                return F.max_pool2d(x, do["k"], do["stride"], do.get("padding", 0))
            case "mul":
                return x * xs[1]
            case "pad":
                return F.pad(x, [do.get(side, 0) for side in ("left", "right", "top", "bottom")])
            case "zero":
                rows, columns = (-(-side // do["stride"]) for side in x.shape[2:])
                return x.new_zeros(x.shape[0], do["outputs"], rows, columns)
            case other:
                raise ValueError(f"node {node['name']}: unknown operation {other}")


def load(path, dtype=torch.float32):
    """The network of a merged file, in eval mode, its weights in `dtype`."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["archrepair"])
        tensors = {name: file.get_tensor(name).to(dtype) for name in file.keys()}
    return Network(description, tensors).eval()
