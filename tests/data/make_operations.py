"""Writes golden tensors of single network operations, computed by PyTorch on the CPU in f32.

    python make_operations.py operations.safetensors

Every case NAME has NAME/x, NAME/y, NAME/dy (a random upstream gradient), NAME/dx and, where the
operation has them, NAME/weight, NAME/bias, NAME/dweight and NAME/dbias. The settings of all cases
are a JSON list in the safetensors metadata, under the key "cases".
"""

import argparse
import json

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

tensors = {}
cases = []
rng = torch.Generator()


def randn(*shape):
    return torch.randn(*shape, generator=rng)


def uniform(low, high, *shape):
    return low + (high - low) * torch.rand(*shape, generator=rng)


def distinct(*shape):
    """Values of which no two are equal, so that a maximum has no ties."""
    count = torch.Size(shape).numel()
    return torch.linspace(-2, 2, count)[torch.randperm(count, generator=rng)].reshape(shape)


def add(name, settings, function, x, weight=None, bias=None, dy=None, **extra):
    """Runs function(x, weight, bias) forwards and backwards and keeps everything."""
    inputs = {"x": x, "weight": weight, "bias": bias}
    inputs = {k: v.clone().requires_grad_() for k, v in inputs.items() if v is not None}
    y = function(inputs["x"], inputs.get("weight"), inputs.get("bias"))
    dy = randn(*y.shape) if dy is None else dy
    grads = torch.autograd.grad(y, list(inputs.values()), dy)
    found = {**inputs, "y": y, "dy": dy, **extra}
    found.update({"d" + key: grad for key, grad in zip(inputs, grads)})
    assert f"{name}/x" not in tensors, name
    for key, value in found.items():
        tensors[f"{name}/{key}"] = value.detach().clone().contiguous()
    cases.append({"name": name, **settings})


def conv2d(name, x, out, kernel, stride=1, padding=0, dilation=1, groups=1, bias=True):
    fan_in = x[1] // groups * kernel * kernel
    add(
        name,
        {"op": "conv2d", "kernel": kernel, "stride": stride, "padding": padding,
         "dilation": dilation, "groups": groups, "bias": bias},
        lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups),
        randn(*x),
        randn(out, x[1] // groups, kernel, kernel) / fan_in**0.5,
        randn(out) if bias else None,
    )


def linear(name, n, inputs, outputs, bias=True):
    add(name, {"op": "linear", "bias": bias}, F.linear, randn(n, inputs),
        randn(outputs, inputs) / inputs**0.5, randn(outputs) if bias else None)


def max_pool(name, x, kernel, stride, padding):
    add(name, {"op": "max_pool", "kernel": kernel, "stride": stride, "padding": padding},
        lambda x, w, b: F.max_pool2d(x, kernel, stride, padding), distinct(*x))


def avg_pool(name, x, kernel, stride, padding):
    """The padding does not count in the mean."""
    add(name, {"op": "avg_pool", "kernel": kernel, "stride": stride, "padding": padding},
        lambda x, w, b: F.avg_pool2d(x, kernel, stride, padding, count_include_pad=False),
        randn(*x))


def batch_norm(name, x, mode, eps):
    """In batch mode, PyTorch also moves the running values, with momentum 0.1."""
    c = x[1]
    x = randn(*x) * uniform(0.5, 2, 1, c, 1, 1) + randn(1, c, 1, 1)
    mean, var = randn(c), uniform(0.5, 2, c)
    moved_mean, moved_var = mean.clone(), var.clone()
    extra = {"running_mean": mean, "running_var": var}
    if mode == "batch":
        extra["batch_mean"] = x.mean((0, 2, 3))
        extra["batch_var"] = x.var((0, 2, 3), unbiased=False)
        extra["running_mean_after"] = moved_mean
        extra["running_var_after"] = moved_var
    add(name, {"op": "batch_norm", "eps": eps, "mode": mode},
        lambda x, w, b: F.batch_norm(x, moved_mean, moved_var, w, b, mode == "batch", 0.1, eps),
        x, uniform(0.5, 1.5, c), randn(c), **extra)


def instance_norm(name, x, eps):
    n, c = x[:2]
    x = randn(*x) * uniform(0.5, 2, n, c, 1, 1) + randn(n, c, 1, 1)
    add(name, {"op": "instance_norm", "eps": eps},
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=eps),
        x, uniform(0.5, 1.5, c), randn(c))


def activation(kind, function):
    """210 inputs from -8 to 8, none of them exactly at a kink."""
    x = torch.linspace(-8, 8, 210)[torch.randperm(210, generator=rng)].reshape(2, 3, 5, 7)
    add(f"activation_{kind}", {"op": "activation", "kind": kind}, lambda x, w, b: function(x), x)


def cross_entropy(name, n, classes, scale):
    labels = torch.randint(classes, (n,), generator=rng)
    add(name, {"op": "cross_entropy"}, lambda x, w, b: F.cross_entropy(x, labels).reshape(1),
        randn(n, classes) * scale, dy=torch.ones(1), labels=labels)


def main():
    parser = argparse.ArgumentParser(description="Write golden tensors of single operations.")
    parser.add_argument("output", help="path of the safetensors file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng.manual_seed(20251)

    conv2d("conv_7x7_s2_p3", (2, 3, 17, 13), 6, 7, stride=2, padding=3, bias=False)
    conv2d("conv_3x3_p1", (2, 5, 7, 9), 8, 3, padding=1)
    conv2d("conv_3x3_s2_p1_no_bias", (2, 4, 9, 6), 7, 3, stride=2, padding=1, bias=False)
    conv2d("conv_3x3_s3_p0", (2, 4, 11, 8), 5, 3, stride=3)
    conv2d("conv_3x3_s3_p3", (1, 3, 6, 10), 4, 3, stride=3, padding=3)
    conv2d("conv_3x3_d2_p2", (2, 4, 10, 7), 6, 3, padding=2, dilation=2)
    conv2d("conv_5x5_s2_p3_d2", (1, 3, 13, 11), 4, 5, stride=2, padding=3, dilation=2)
    conv2d("conv_4x4_s2_p1", (2, 3, 8, 11), 5, 4, stride=2, padding=1)
    conv2d("conv_1x1", (2, 19, 5, 7), 17, 1)
    conv2d("conv_1x1_s2", (2, 6, 7, 10), 9, 1, stride=2, bias=False)
    conv2d("conv_3x3_p1_groups4", (2, 8, 7, 6), 12, 3, padding=1, groups=4)
    conv2d("conv_1x1_s2_groups3", (2, 9, 6, 5), 6, 1, stride=2, groups=3, bias=False)
    conv2d("depthwise_3x3_p1", (2, 6, 5, 8), 6, 3, padding=1, groups=6, bias=False)
    conv2d("depthwise_5x5_s2_p2", (2, 5, 11, 8), 5, 5, stride=2, padding=2, groups=5)
    conv2d("depthwise_3x3_d2_p2", (2, 6, 9, 7), 6, 3, padding=2, dilation=2, groups=6)
    conv2d("depthwise_3x3_s2_p1_times2", (2, 4, 9, 10), 8, 3, stride=2, padding=1, groups=4)
    conv2d("depthwise_5x5_d2_s3_p3_times2", (1, 3, 14, 12), 6, 5, 3, 3, 2, 3, bias=False)

    linear("linear", 5, 19, 7)
    linear("linear_no_bias", 3, 8, 11, bias=False)

    max_pool("max_pool_3_2_1", (2, 3, 9, 12), 3, 2, 1)
    max_pool("max_pool_2_2_0", (2, 3, 7, 10), 2, 2, 0)
    max_pool("max_pool_3_1_1", (2, 3, 6, 5), 3, 1, 1)
    avg_pool("avg_pool_3_1_1", (2, 3, 6, 5), 3, 1, 1)
    avg_pool("avg_pool_3_2_1", (2, 3, 9, 8), 3, 2, 1)
    avg_pool("avg_pool_2_2_0", (2, 3, 7, 10), 2, 2, 0)
    add("global_avg_pool", {"op": "global_avg_pool"},
        lambda x, w, b: F.adaptive_avg_pool2d(x, 1), randn(3, 5, 7, 4))

    batch_norm("batch_norm_fixed", (2, 5, 4, 6), "fixed", 1e-5)
    batch_norm("batch_norm_fixed_eps3", (3, 4, 5, 3), "fixed", 1e-3)
    batch_norm("batch_norm_batch", (4, 5, 4, 6), "batch", 1e-5)
    batch_norm("batch_norm_batch_eps3", (3, 4, 5, 3), "batch", 1e-3)
    instance_norm("instance_norm", (3, 4, 6, 5), 1e-5)
    instance_norm("instance_norm_eps3", (2, 3, 4, 7), 1e-3)

    activation("relu", F.relu)
    activation("relu6", F.relu6)
    activation("silu", F.silu)
    activation("hard_swish", F.hardswish)
    activation("sigmoid", torch.sigmoid)

    cross_entropy("cross_entropy", 6, 10, 2.0)
    cross_entropy("cross_entropy_large", 4, 7, 60.0)

    save_file(tensors, args.output, metadata={"cases": json.dumps(cases)})
    print(f"{args.output}: {len(cases)} cases, {len(tensors)} tensors")


if __name__ == "__main__":
    main()
