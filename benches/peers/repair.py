"""The whole repair that `benches/repair` writes to a folder, by PyTorch.

    python repair.py FOLDER [--form cached|full|everything] [--channels-last] [--threads 2]

`cached` runs what stands before the block once and keeps its features. `full` runs the whole network forward
in each step, with gradients of the block alone. `everything` takes those of all weights in each step, as one
gets by telling only the optimizer what is trained. All are in eval mode, with Adam in its fused form, and ask
for the deployed network's opinion of the replay images once.

The last line printed is JSON: seconds from opening the files to the repaired weights, the peak of the process
then, the loss of each step of weights, and the shares of held-back images that are right.
"""

import argparse
import gzip
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

from search_step import Graph, memory

# Images that run together where nothing is trained.
INFER_BATCH = 64


class Repair:
    def __init__(self, arguments):
        self.folder, self.form = arguments.folder, arguments.form
        self.format = torch.channels_last if arguments.channels_last else torch.contiguous_format
        with open(f"{self.folder}/work.json") as file:
            self.work = json.load(file)
        with safe_open(f"{self.folder}/model.safetensors", "pt") as file:
            network = json.loads(file.metadata()["archrepair"])
            self.tensors = {name: self.arranged(file.get_tensor(name)) for name in file.keys()}
        self.deployed = set(self.tensors)
        self.mean, self.std = (torch.tensor(network["input"][of]).view(1, -1, 1, 1) for of in ("mean", "std"))
        parts = network["parts"]
        at = next(i for i, part in enumerate(parts) if part["name"] == self.work["block"])
        graphs = [Graph(part["graph"], self.tensors) for part in parts]
        self.prefix, self.block, self.suffix = graphs[:at], graphs[at], graphs[at + 1 :]
        self.losses = []
        with torch.no_grad():
            names = ("failures", "replay", "held-failures", "held-replay")
            self.sets = [self.samples(name, name.endswith("replay")) for name in names]
        # The tensors as they are deployed stay as they are.
        relaxed = load_file(f"{self.folder}/relaxed.safetensors")
        self.tensors.update({name: self.arranged(tensor) for name, tensor in relaxed.items()})

    def arranged(self, tensor):
        return tensor.contiguous(memory_format=self.format) if tensor.dim() == 4 else tensor

    def samples(self, name, taught):
        """What enters a step, classes, and the deployed network's opinion if it is asked."""
        files = (f"{self.folder}/{name}/{of}-ubyte.gz" for of in ("images-idx3", "labels-idx1"))
        images, labels = (gzip.open(file).read() for file in files)
        labels = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
        side = int.from_bytes(images[8:12], "big")
        images = torch.from_numpy(np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, side, side).copy())
        seen, opinions = [], []
        for batch in images.split(INFER_BATCH):
            x = self.features(batch)
            seen.append(x)
            if taught:
                opinions.append(torch.softmax(self.behind(self.block, x), 1))
        x = torch.cat(seen) if self.form == "cached" else images
        return x, torch.from_numpy(labels), torch.cat(opinions) if taught else None

    def features(self, images):
        x = self.arranged((images.float() / 255 - self.mean) / self.std)
        for graph in self.prefix:
            x = graph.forward(x, graph.eager())
        return x

    def behind(self, block, x):
        """Logits for features `x`."""
        for graph in [block] + self.suffix:
            x = graph.forward(x, graph.eager())
        return x

    def logits(self, x):
        x = self.arranged(x) if self.form == "cached" else self.features(x)
        return self.behind(self.block, x)

    def loss(self, sets, batch):
        """Replay counts for its label and for the deployed network's opinion, `distill` times."""
        distill = self.work["distill"]
        indices = [torch.tensor(numbers) for numbers in batch]
        x = torch.cat([of[0][index] for of, index in zip(sets, indices)])
        labels = [F.one_hot(of[1][index], self.work["classes"]).float() for of, index in zip(sets, indices)]
        targets = torch.cat([labels[0], labels[1] + distill * sets[1][2][indices[1]]])
        # Rows of targets sum to 1 and to 1 + distill, which is how much each counts.
        return F.cross_entropy(self.logits(x), targets, reduction="sum") / len(x)

    def adam(self):
        old = [self.tensors[name] for name in self.trained if name in self.deployed]
        new = [self.tensors[name] for name in self.trained if name not in self.deployed]
        self.groups = list(zip((old, new), self.work["rates"]))
        given = [{"params": of, "lr": rate} for of, rate in self.groups if of]
        self.rates = [group["lr"] for group in given]
        return torch.optim.Adam(given, fused=True)

    def step(self, optimizer, step):
        for group, rate in zip(optimizer.param_groups, self.rates):
            group["lr"] = step["factor"] * rate
        for tensor in self.wanted:
            tensor.grad = None
        loss = self.loss(self.sets[:2], step["batch"])
        loss.backward()
        optimizer.step()
        self.losses.append(loss.item())

    def train(self, trained, steps, choices=()):
        """Steps of the tensors named `trained`, and of `choices` where the steps say so."""
        self.trained = trained
        own = [self.tensors[name] for name in trained]
        others = self.tensors.items() if self.form == "everything" else ()
        frozen = [t for name, t in others if name not in choices and not name.endswith(STATISTICS)]
        self.wanted = own + frozen
        optimizer = self.adam()
        choose = torch.optim.Adam(choices.values(), lr=self.work["rates"][2]) if choices else None
        want(self.wanted)
        for step in steps:
            self.step(optimizer, step)
            if step["choice"]:
                want(self.wanted, False)
                want(choices.values())
                choose.zero_grad()
                self.loss(self.sets[2:], step["choice"]).backward()
                choose.step()
                want(choices.values(), False)
                want(self.wanted)
        want(self.wanted, False)

    def search(self):
        """The relaxed block: its steps, the worth of every alternative, and what was chosen."""
        self.block = Graph(self.work["graph"], self.tensors)
        mixtures = [node for node in self.block.nodes if node["do"]["op"] == "mix" and len(node["of"]) > 1]
        choices = {node["name"] + ".alpha": self.tensors[node["name"] + ".alpha"] for node in mixtures}
        self.train(self.work["trained"], self.work["search"], choices)
        gates = [(node, term, self.gate(node, term)) for node in mixtures for term in range(1, len(node["of"]))]
        with torch.no_grad():
            whole = self.held_back()
            worth = [self.held_back(without=gate) - whole for _, _, gate in gates]
        # What it would choose by its worth may differ by rounding; both train the same block.
        assert np.isfinite(worth).all()
        with open(f"{self.folder}/chosen.json") as file:
            chosen = json.load(file)
        names = {node["name"] for node in chosen}
        for node, term, gate in gates:
            if gate.removesuffix(".gate") in names:
                share = torch.softmax(choices[node["name"] + ".alpha"], 0)[term]
                self.tensors[gate] = self.tensors[gate] * share
        self.block = Graph(chosen, self.tensors)
        own = tuple(name + "." for name in names)
        return [name for name in self.work["trained"] if name.startswith(own)]

    def gate(self, mixture, term):
        return self.block.nodes[mixture["of"][term] - 1]["name"] + ".gate"

    def held_back(self, without=None):
        """The loss on held-back images, half for failures and half for replay."""
        kept = self.tensors.get(without)
        if without:
            self.tensors[without] = torch.zeros_like(kept)
        losses = []
        for x, labels, _ in self.sets[2:]:
            pairs = zip(x.split(INFER_BATCH), labels.split(INFER_BATCH))
            losses.append(sum(F.cross_entropy(self.logits(a), b, reduction="sum").item() for a, b in pairs) / len(x))
        if without:
            self.tensors[without] = kept
        return sum(losses) / 2

    def run(self):
        trained = self.search() if self.work["search"] else self.work["trained"]
        self.train(trained, self.work["fit"])

    def right(self):
        """Shares of held-back failures and of held-back replay."""
        with torch.no_grad():
            answers = [(self.logits(x).argmax(1) == labels).float().mean() for x, labels, _ in self.sets[2:]]
        return [share.item() for share in answers]


STATISTICS = ("running_mean", "running_var")


def want(tensors, wanted=True):
    """Whether gradients by these are wanted."""
    for tensor in tensors:
        tensor.grad = None
        tensor.requires_grad_(wanted)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--form", choices=["cached", "everything", "full"], default="cached")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    start = time.perf_counter()
    repair = Repair(arguments)
    repair.run()
    measured = {
        "seconds": time.perf_counter() - start,
        "vm_hwm": memory("VmHWM"),
        "engine_bytes": None,
        "losses": repair.losses,
        "right": repair.right(),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
