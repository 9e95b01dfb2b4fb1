"""Writes small residual networks with torchvision's tensor names, and their golden logits.

    python make_resnets.py DIRECTORY

The weights are random but sane. The model files have no safetensors metadata. The file
resnets.safetensors holds input images and the logits PyTorch gets for them, on the CPU in f32.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

# name: block, blocks per layer, width of layer1, small stem, classes, shape of one image
NETWORKS = {
    "resnet18_small": (BasicBlock, [2, 2, 2, 2], 4, False, 7, (3, 64, 48)),
    "resnet50_small": (Bottleneck, [3, 4, 6, 3], 4, False, 5, (3, 64, 64)),
    "resnet18_cifar": (BasicBlock, [2, 2, 2, 2], 8, True, 10, (1, 28, 28)),
}
ALSO_F32 = "resnet18_small"


def build(block, layers, width, small_stem, classes, image):
    """torchvision's ResNet with other widths, and with another stem if asked for."""
    net = ResNet(block, layers, num_classes=classes)
    net.inplanes = width
    if small_stem:
        net.conv1 = nn.Conv2d(image[0], width, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    else:
        net.conv1 = nn.Conv2d(image[0], width, 7, 2, 3, bias=False)
    net.bn1 = nn.BatchNorm2d(width)
    for i, count in enumerate(layers):
        made = net._make_layer(block, width << i, count, stride=1 if i == 0 else 2)
        setattr(net, f"layer{i + 1}", made)
    net.fc = nn.Linear((width << 3) * block.expansion, classes)
    return net.eval()


def fill(net, rng):
    """Random weights; the last norm of each block is small, so that the logits stay moderate."""
    last_norms = {
        f"{name}.bn{3 if isinstance(module, Bottleneck) else 2}"
        for name, module in net.named_modules()
        if isinstance(module, (BasicBlock, Bottleneck))
    }
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
        elif isinstance(module, nn.BatchNorm2d):
            low, high = (0.2, 0.5) if name in last_norms else (0.5, 1.5)
            module.weight.data.uniform_(low, high, generator=rng)
            module.bias.data.normal_(0, 0.2, generator=rng)
            module.running_mean.normal_(0, 0.2, generator=rng)
            module.running_var.uniform_(0.5, 2, generator=rng)
            module.num_batches_tracked.fill_(1000)
        elif isinstance(module, nn.Linear):
            module.weight.data.normal_(0, module.in_features**-0.5, generator=rng)
            module.bias.data.normal_(0, 0.2, generator=rng)


def images(count, shape, rng):
    """Noise with a brightness and a contrast of its own in each channel of each image."""
    x = torch.randn(count, *shape, generator=rng)
    contrast = 0.3 + torch.rand(count, shape[0], 1, 1, generator=rng)
    return x * contrast + torch.randn(count, shape[0], 1, 1, generator=rng)


def logits(spec, path, x):
    """The logits of the network stored at path, its weights widened to f32."""
    net = build(*spec)
    stored = load_file(path)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    with torch.no_grad():
        return net(x)


def main():
    parser = argparse.ArgumentParser(description="Write small ResNets and their golden logits.")
    parser.add_argument("directory", type=Path, help="where to write the files")
    directory = parser.parse_args().directory
    torch.set_num_threads(1)

    golden = {}
    for seed, (name, spec) in enumerate(NETWORKS.items(), start=20252):
        rng = torch.Generator().manual_seed(seed)
        net = build(*spec)
        fill(net, rng)
        x = images(4, spec[-1], rng)
        full = net.state_dict()
        half = {k: v.half() if v.is_floating_point() else v for k, v in full.items()}
        path = directory / f"{name}.safetensors"
        save_file(half, path)
        golden[f"{name}/x"] = x
        golden[f"{name}/logits"] = logits(spec, path, x)
        if name == ALSO_F32:
            path = directory / f"{name}_f32.safetensors"
            save_file(dict(full), path)
            golden[f"{name}/logits_from_f32"] = logits(spec, path, x)
    save_file(golden, directory / "resnets.safetensors")


if __name__ == "__main__":
    main()
