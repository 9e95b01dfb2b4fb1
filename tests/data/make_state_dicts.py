"""Writes small files as torch.save writes them: state dicts that open, and files that must not.

    python make_state_dicts.py DIRECTORY
"""

import argparse
from pathlib import Path

import torch
from torch import nn


def tensors():
    """One tensor of each kind that weights come in; `c` is the end of a longer storage."""
    return {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "b": torch.tensor(1.5, dtype=torch.float16),
        "c": torch.arange(10, 14, dtype=torch.float64)[2:],
        "d": torch.tensor([[-2.0, 0.25]], dtype=torch.bfloat16),
        "n": torch.tensor(7),
    }


def main():
    parser = argparse.ArgumentParser(description="Write small files of torch.save.")
    parser.add_argument("directory", type=Path, help="where to write the files")
    directory = parser.parse_args().directory
    state = nn.ParameterDict({"a": tensors()["a"]}).state_dict()  # an OrderedDict with attributes
    state.update(tensors())
    torch.save(state, directory / "state_dict.pth")
    torch.save(state, directory / "state_dict_old.pth", _use_new_zipfile_serialization=False)
    parallel = {f"module.{name}": nn.Parameter(t, t.is_floating_point() and name == "a") for name, t in tensors().items()}
    torch.save({"epoch": 3, "loss": 0.5, "done": True, "state_dict": parallel}, directory / "checkpoint.pth")
    torch.save(nn.Linear(1, 1), directory / "whole_model.pth")
    numbers = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    torch.save({"a": numbers.permute(1, 2, 0)}, directory / "transposed.pth")
    torch.save({"a": torch.zeros(1).expand(3)}, directory / "repeated.pth")
    torch.save({"epoch": 3}, directory / "no_tensors.pth")


if __name__ == "__main__":
    main()
