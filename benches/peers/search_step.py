"""The search step that `benches/footprint` writes to a folder, by PyTorch.

    python search_step.py FOLDER [--checkpoint] [--micro-batch N] [--steps 5] [--threads 2]

The last line printed is JSON: peaks in bytes, median seconds a step, the loss of each
step, and the norm of each trained tensor's gradient in the first one.

A step is written as one would write it with care in PyTorch: frozen tensors need no gradient, a
value is let go once nothing reads it, a sum over alternatives is taken term by term, and a ReLU
works in place where torchvision's does. With `--checkpoint` the relaxed block is cut behind each
of its mixtures, every alternative of a mixture is a checkpoint of its own inside its segment, and
the suffix is cut by block.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

# Operations whose output no backward pass of PyTorch reads, so that a ReLU may overwrite it.
OVERWRITABLE = {"add", "batch_norm", "conv2d", "mix"}


def memory(name):
    """Bytes that /proc says this process has."""
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) * 1024


def activate(kind, x, inplace):
    if kind == "sigmoid":
        return torch.sigmoid(x)
    of = {"relu": F.relu, "relu6": F.relu6, "silu": F.silu, "hard_swish": F.hardswish}
    return of[kind](x, inplace=inplace)


def spread(t):
    """One value a channel, as [1, c, 1, 1]."""
    return t.view(1, -1, 1, 1)


class Graph:
    """A graph of archrepair: value 0 is the input, value i + 1 the output of node i.

    A unit is what runs as one: a node, or one term of a mixture, `(node, term or None)`.
    """

    def __init__(self, nodes, tensors):
        self.nodes, self.tensors, self.output = nodes, tensors, len(nodes)
        self.units = self.make_units()
        self.readers = [set() for _ in range(len(nodes) + 1)]
        for at, unit in enumerate(self.units):
            for value in self.reads(unit):
                self.readers[value].add(at)
        self.last = [max(readers, default=-1) for readers in self.readers]
        self.last[self.output] = len(self.units)

    def make_units(self):
        """Nodes in order; each term of a mixture right behind its value."""
        behind = [[] for _ in range(len(self.nodes) + 1)]
        for i, node in enumerate(self.nodes):
            if node["do"]["op"] == "mix":
                at = 0
                for term, value in enumerate(node["of"]):
                    at = max(at, value)
                    behind[at].append((i, term))
        units = list(behind[0])
        for i, node in enumerate(self.nodes):
            if node["do"]["op"] != "mix":
                units.append((i, None))
            units.extend(behind[i + 1])
        return units

    def reads(self, unit):
        node, term = unit
        values = self.nodes[node]["of"]
        return values if term is None else values[term : term + 1]

    def forward(self, x, plan):
        values = {0: x}
        self.run(plan, values)
        return values[self.output]

    def run(self, plan, values):
        """Runs a plan: units by number, and `(start, end, plan)` for what is a checkpoint."""
        inside = set()
        for item in plan:
            if isinstance(item, tuple):
                end = item[1]
                self.run_checkpoint(item, values)
            else:
                end = item + 1
                self.run_unit(item, values, inside)
            for value in [v for v in values if self.last[v] < end]:
                del values[value]

    def run_checkpoint(self, item, values):
        start, end, plan = item
        made = {self.units[at][0] + 1 for at in range(start, end)}
        read = {v for at in range(start, end) for v in self.reads(self.units[at])}
        inputs = sorted(read - made)
        outputs = sorted(v for v in made if self.last[v] >= end)

        def body(*xs):
            own = dict(zip(inputs, xs))
            self.run(plan, own)
            return tuple(own[v] for v in outputs)

        given = [values[v] for v in inputs]
        values.update(zip(outputs, checkpoint(body, *given, use_reentrant=False)))

    def run_unit(self, at, values, inside):
        """`inside` are the values made by this plan, which no checkpoint has saved."""
        i, term = self.units[at]
        node, y = self.nodes[i], i + 1
        xs = [values[v] for v in self.reads(self.units[at])]
        inside.add(y)
        if term is None:
            values[y] = self.compute(node, xs, inside)
            return
        alpha = self.tensors[node["name"] + ".alpha"]
        share = torch.softmax(alpha, 0)[term]
        if alpha.requires_grad:
            values[y] = xs[0] * share if term == 0 else values[y].add_(xs[0] * share)
            return
        share = share.item()
        values[y] = xs[0] * share if term == 0 else values[y].add_(xs[0], alpha=share)

    def may_overwrite(self, value, inside):
        """Whether only one unit reads this value, which was made here."""
        made = value > 0 and self.nodes[value - 1]["do"]["op"] in OVERWRITABLE
        return made and value in inside and len(self.readers[value]) == 1

    def compute(self, node, xs, inside):
        do, x = node["do"], xs[0]
        op = do["op"]

        def own(suffix):
            return self.tensors[f"{node['name']}.{suffix}"]

        if op == "activation":
            return activate(do["kind"], x, self.may_overwrite(node["of"][0], inside))
        if op == "add":
            return x + xs[1]
        if op == "avg_pool":
            padding = do.get("padding", 0)
            return F.avg_pool2d(x, do["k"], do["stride"], padding, count_include_pad=False)
        if op == "batch_norm":
            mean, var = own("running_mean"), own("running_var")
            return F.batch_norm(x, mean, var, own("weight"), own("bias"), False, 0.0, do["eps"])
        if op == "concat":
            return torch.cat(xs, 1)
        if op == "conv2d":
            bias = own("bias") if do.get("bias") else None
            window = [do.get("stride", 1), do.get("padding", 0), do.get("dilation", 1), do.get("groups", 1)]
            y = F.conv2d(x, own("weight"), bias, *window)
            return activate(do["activation"], y, True) if do.get("activation") else y
        if op == "flatten":
            return x.flatten(1)
        if op == "gate":
            return x + spread(own("gate")) * (xs[1] - x)
        if op == "global_avg_pool":
            return x.mean((2, 3), keepdim=True)
        if op == "global_std_pool":
            return (x.var((2, 3), correction=0, keepdim=True) + do["eps"]).sqrt()
        if op == "identity":
            return x
        if op == "instance_norm":
            return F.instance_norm(x, weight=own("weight"), bias=own("bias"), eps=do["eps"])
        if op == "linear":
            return F.linear(x, own("weight"), own("bias") if do["bias"] else None)
        if op == "max_pool":
            return F.max_pool2d(x, do["k"], do["stride"], do.get("padding", 0))
        if op == "mul":
            return x * xs[1]
        if op == "zero":
            h, w = (-(-pixels // do["stride"]) for pixels in x.shape[2:])
            return x.new_zeros(len(x), do["outputs"], h, w)
        raise ValueError(f"no operation {op} here")

    def eager(self):
        """The plan that keeps everything."""
        return list(range(len(self.units)))

    def whole(self):
        """The plan in which all of this graph is one checkpoint."""
        return [(0, len(self.units), self.eager())]

    def segments(self):
        """The plan with a checkpoint up to each mixture, and one for each alternative in it."""
        terms = [at for at, (_, term) in enumerate(self.units) if term is not None]
        ends = [at + 1 for at in terms if self.last_term(at)]
        # What stands behind the last mixture belongs to its segment.
        ends = ends[:-1] + [len(self.units)]
        starts = [0] + ends[:-1]
        return [(start, end, self.alternatives(start, end)) for start, end in zip(starts, ends)]

    def last_term(self, at):
        node, term = self.units[at]
        return term == len(self.nodes[node]["of"]) - 1

    def alternatives(self, start, end):
        """Units `start..end` with the nodes that only one term reads as a checkpoint."""
        plan, at = [], end
        while at > start:
            at -= 1
            plan.append(at)
            node, term = self.units[at]
            if not term:
                continue
            first = at
            while first > start and self.is_own(first - 1, at):
                first -= 1
            if first < at:
                plan.append((first, at, list(range(first, at))))
                at = first
        return plan[::-1]

    def is_own(self, at, end):
        """Whether a unit is a node that only the units up to `end` read."""
        node, term = self.units[at]
        value = node + 1
        return term is None and value != self.output and all(at < r <= end for r in self.readers[value])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--micro-batch", type=int, help="images whose gradients are taken at once")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    with open(f"{arguments.folder}/step.json") as file:
        step = json.load(file)
    with open(f"{arguments.folder}/suffix.json") as file:
        behind = json.load(file)
    tensors = {}
    for name in ("block", "suffix"):
        tensors.update(load_file(f"{arguments.folder}/{name}.safetensors"))
    x = load_file(f"{arguments.folder}/batch.safetensors")["x"]
    labels = torch.tensor(step["labels"])
    micro_batch = arguments.micro_batch or len(x)
    trained = [tensors[name].requires_grad_() for name in step["trained"]]
    block = Graph(step["graph"], tensors)
    graphs = [block] + [Graph(part["graph"], tensors) for part in behind]
    plans = [graph.whole() if arguments.checkpoint else graph.eager() for graph in graphs]
    if arguments.checkpoint:
        plans[0] = block.segments()
    optimizer = torch.optim.Adam(trained, lr=step["rate"])

    loaded = memory("VmHWM")
    times, losses = [], []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        total = 0.0
        for images, wanted in zip(x.split(micro_batch), labels.split(micro_batch)):
            y = images
            for graph, plan in zip(graphs, plans):
                y = graph.forward(y, plan)
            loss = F.cross_entropy(y, wanted, reduction="sum") / len(x)
            del y
            loss.backward()
            total += loss.item()
        if not losses:
            gradients = {name: tensors[name].grad for name in step["trained"]}
            norms = {name: g.norm().item() for name, g in gradients.items() if g is not None}
            del gradients
        optimizer.step()
        times.append(time.perf_counter() - start)
        losses.append(total)
    measured = {
        "loaded": loaded,
        "vm_hwm": memory("VmHWM"),
        "said": None,
        "engine_peak": None,
        "rule": "adam",
        "seconds": statistics.median(times),
        "losses": losses,
        "norms": norms,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
