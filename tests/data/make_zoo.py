"""Writes a small network of each family, with its tensors' names, and golden logits.

    python make_zoo.py DIRECTORY

torchvision, timm and the package efficientnet-lite-pytorch build the networks, narrow ones with few classes.
Weights are drawn; norms have the statistics of images that ran through. The file zoo.safetensors holds two
images and for each network the logits PyTorch gets for them, on the CPU in f32.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet as Lite
from efficientnet_lite_pytorch.utils import efficientnet_lite
from safetensors.torch import save_file
from timm.models import efficientnet as timm_efficientnet
from timm.models import mobilenetv3 as timm_mobilenetv3
from timm.models import vgg as timm_vgg
from torch import nn
from torchvision.models import densenet, efficientnet, mobilenetv2, mobilenetv3, resnet, vgg

CLASSES = 5
WIDTH = 0.1
VGG = [4, "M", 6, "M", 6, 8, "M", 8, 8, "M", 8, 8, "M"]


def densenets(stem_k=7, blocks=(2, 1, 2, 1)):
    net = densenet.DenseNet(4, blocks, 8, 2, num_classes=CLASSES)
    if stem_k == 3:
        net.features.conv0 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        net.features.pool0 = nn.Identity()
    return net


def vggs():
    net = vgg.VGG(vgg.make_layers(VGG, batch_norm=True), CLASSES, init_weights=False)
    net.avgpool = nn.AdaptiveAvgPool2d(2)
    drop = nn.Dropout()
    first, second, last = nn.Linear(32, 12), nn.Linear(12, 10), nn.Linear(10, CLASSES)
    net.classifier = nn.Sequential(first, nn.ReLU(), drop, second, nn.ReLU(), drop, last)
    return net


def timm_vggs():
    net = timm_vgg.VGG(VGG, num_classes=CLASSES, norm_layer=nn.BatchNorm2d)
    net.pre_logits = timm_vgg.ConvMlp(8, 12, 2)
    net.head.fc = nn.Linear(12, CLASSES)
    return net


def mobilenets_v2():
    widths = [[1, 8, 1, 1], [3, 8, 2, 2], [3, 8, 3, 2], [3, 16, 4, 2], [3, 16, 3, 1], [2, 24, 3, 2], [2, 32, 1, 1]]
    return mobilenetv2.MobileNetV2(CLASSES, inverted_residual_setting=widths)


def mobilenets_v3(arch):
    settings, last = mobilenetv3._mobilenet_v3_conf(arch, width_mult=WIDTH)
    return mobilenetv3.MobileNetV3(settings, last, num_classes=CLASSES)


def efficientnets():
    settings, _ = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=WIDTH, depth_mult=1.0)
    return efficientnet.EfficientNet(settings, 0.2, num_classes=CLASSES)


def lites(size):
    blocks, settings = efficientnet_lite(WIDTH, 1.0, image_size=size, num_classes=CLASSES)
    return Lite(blocks, settings)


def resnets(layers, groups, width_per_group, width=4):
    net = resnet.ResNet(resnet.Bottleneck, layers, CLASSES, groups=groups, width_per_group=width_per_group)
    net.inplanes = width
    net.conv1, net.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
    for i, count in enumerate(layers):
        made = net._make_layer(resnet.Bottleneck, width << i, count, stride=1 if i == 0 else 2)
        setattr(net, f"layer{i + 1}", made)
    net.fc = nn.Linear((width << 3) * 4, CLASSES)
    return net


def timm_mobile(make, variant, **settings):
    return make(variant, channel_multiplier=WIDTH, num_classes=CLASSES, **settings)


SAME = {"pad_type": "same", "bn_eps": 1e-3}
ODD, EVEN = (63, 64), (64, 64)

# name: what makes the network, height and width of the images
NETWORKS = {
    "densenet": (densenets, EVEN),
    "densenet_cifar": (partial(densenets, 3, (2, 1, 2)), (16, 24)),
    "vgg": (vggs, EVEN),
    "vgg_timm": (timm_vggs, EVEN),
    "mobilenet_v2": (mobilenets_v2, EVEN),
    "mobilenet_v2_timm": (partial(timm_mobile, timm_efficientnet._gen_mobilenet_v2, "mobilenetv2_100"), ODD),
    "mobilenet_v3_small": (partial(mobilenets_v3, "mobilenet_v3_small"), EVEN),
    "mobilenet_v3_large": (partial(mobilenets_v3, "mobilenet_v3_large"), ODD),
    "mobilenet_v3_small_timm": (
        partial(timm_mobile, timm_mobilenetv3._gen_mobilenet_v3, "mobilenetv3_small_100"), EVEN),
    "efficientnet_b0": (efficientnets, EVEN),
    "efficientnet_b0_timm": (
        partial(timm_mobile, timm_efficientnet._gen_efficientnet, "efficientnet_b0"), ODD),
    "efficientnet_lite0_tf": (
        partial(timm_mobile, timm_efficientnet._gen_efficientnet_lite, "tf_efficientnet_lite0", **SAME), ODD),
    "efficientnet_lite0": (partial(lites, ODD), ODD),
    "resnext": (partial(resnets, [1, 2, 1, 1], 4, 32), EVEN),
    "wide_resnet": (partial(resnets, [1, 1, 1, 1], 1, 128), EVEN),
}


def scenes(count, size, rng):
    """Images of 3 channels: patches and noise, each image and channel with a brightness and contrast of its own."""
    draw = partial(torch.randn, generator=rng)
    patches = nn.functional.interpolate(draw(count, 3, 4, 4), size=size, mode="bilinear")
    contrast = 0.5 + torch.rand(count, 3, 1, 1, generator=rng)
    return (patches + 0.3 * draw(count, 3, *size)) * contrast + 0.5 * draw(count, 3, 1, 1)


def fill(net, size, rng):
    """Draws the weights, and measures the statistics of norms on scenes of this size."""
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
        elif isinstance(module, nn.Linear):
            module.weight.data.normal_(0, module.in_features**-0.5, generator=rng)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=rng)
            module.reset_running_stats()
            module.momentum = None  # the mean of all batches
            module.train()
        if getattr(module, "bias", None) is not None:
            module.bias.data.normal_(0, 0.2, generator=rng)
    with torch.no_grad():
        net(scenes(8, size, rng))
    return net.eval()


def halved(net):
    """The tensors of a network with f16 weights, which the network has from then on too."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return state


def main():
    parser = argparse.ArgumentParser(description="Write a small network of each family and golden logits.")
    parser.add_argument("directory", type=Path, help="where to write the files")
    directory = parser.parse_args().directory
    torch.set_num_threads(1)
    x = scenes(2, EVEN, torch.Generator().manual_seed(1)).half()
    golden = {"x": x}
    for seed, (name, (make, (h, w))) in enumerate(NETWORKS.items()):
        torch.manual_seed(seed)
        net = fill(make(), (h, w), torch.Generator().manual_seed(seed))
        state = halved(net)
        save_file({k: v.contiguous() for k, v in state.items()}, directory / f"{name}.safetensors")
        with torch.no_grad():
            golden[f"{name}/logits"] = net(x[..., :h, :w].float())
    save_file(golden, directory / "zoo.safetensors")
    side = {"architecture": "tf_efficientnet_lite0"}
    (directory / "efficientnet_lite0_tf.archrepair.json").write_text(json.dumps(side) + "\n")


if __name__ == "__main__":
    main()
