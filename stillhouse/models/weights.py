"""Weights: read from files that are not trusted, fitted into a network, written, and their digest.

``torch.load`` runs with ``weights_only=True``, so a pickle can't run code; safetensors never can. The digest is the
SHA-256 of a canonical safetensors file (sorted keys, contiguous, on the CPU): equal weights have equal digests,
whatever device or memory format they live in. Writing and hashing each cost two copies of the weights in memory.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import nn

from stillhouse.foundation.errors import ModelError
from stillhouse.foundation.files import sha256
from stillhouse.models.network import Network
from stillhouse.recipe.architectures import Normalisation

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile
_PREPROCESS = ("preprocess.mean", "preprocess.std")
_NAMED_MAX = 3


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a ``.safetensors`` file, or in any other file written by ``torch.save``.

    Unwraps ``{"state_dict": ...}`` and ``{"model": ...}`` and strips the prefixes ``module.`` and ``_orig_mod.``.

    Raises:
        ModelError: no such file; damaged or cut short; holds more than tensors, which is never loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} is not a file: weights are one .safetensors file, or one written by torch.save")
    state: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    while isinstance(state, Mapping) and (wrapper := _wrapper(state)):
        state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise ModelError(f"{path} holds no state dict (it holds {type(state).__name__}): save model.state_dict()")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(f"{path}: '{name}' is {type(value).__name__}, not a tensor: save model.state_dict() alone")
    names = list(state)
    while prefix := next((each for each in _PREFIXES if all(name.startswith(each) for name in names)), None):
        names = [name.removeprefix(prefix) for name in names]
    return {name: value.detach() for name, value in zip(names, state.values(), strict=True)}


def split_network(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Normalisation | None]:
    """The body's part of a state dict, and the normalisation that a full network's state dict holds beside it.

    A dict is a full network's if it holds ``preprocess.mean`` and ``preprocess.std``, and else ``body.*`` only.

    Raises:
        ModelError: the normalisation is not finite, or a deviation is not above zero.
    """
    if not _is_network(state):
        return dict(state), None
    body = {name.removeprefix("body."): value for name, value in state.items() if name not in _PREPROCESS}
    mean, std = (tuple(state[name].double().flatten().tolist()) for name in _PREPROCESS)
    try:
        return body, Normalisation(mean=mean, std=std)
    except ValidationError as error:
        raise ModelError(f"the weights hold the normalisation mean {mean}, std {std}, which makes no sense") from error


def load_into(network: Network, state: Mapping[str, torch.Tensor], source_name: str) -> None:
    """Copy weights into a network, all or nothing.

    Args:
        state: of a full network (its normalisation is taken over too) or of a body alone.
        source_name: says in messages where ``state`` came from.

    Raises:
        ModelError: missing or unexpected tensors, other shapes, NaN or infinite values; nothing is copied then.
    """
    target: torch.nn.Module = network if _is_network(state) else network.body
    expected = target.state_dict()
    _check_names(expected, state, source_name)
    _check_shapes(expected, state, source_name)
    check_finite(state, source_name)
    target.load_state_dict(state)


def weights_bytes(network: nn.Module) -> bytes:
    """A canonical safetensors file of the whole network: equal weights give equal bytes."""
    state = network.state_dict()
    # Cloned, because safetensors refuses tied tensors.
    return safetensors.torch.save({name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)})


def weights_digest(network: Network) -> str:
    """Hex SHA-256 of :func:`weights_bytes`."""
    return sha256(weights_bytes(network))


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # the library's own errors, OSError, ValueError: all say that the file is damaged
        raise ModelError(f"{path} is not a whole safetensors file ({error}): copy or download it again") from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything: EOFError, KeyError, RuntimeError
        text = str(error)
        if refused := re.search(r"GLOBAL (\S+)", text):
            reason = f"holds Python objects ({refused[1]}), not only tensors; loading those could run any code"
        elif "TorchScript" in text:
            reason = "is a TorchScript program, not only tensors"
        else:
            first_line = text.partition("\n")[0][:200]
            raise ModelError(
                f"{path} is damaged, cut short or was not written by torch.save: copy or download it again "
                f"({type(error).__name__}: {first_line})"
            ) from error
        raise ModelError(
            f"{path} {reason}, so it was not loaded. Where you trust it, convert it once: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error


def _is_network(state: Mapping[str, torch.Tensor]) -> bool:
    others = state.keys() - set(_PREPROCESS)
    return len(others) == len(state) - len(_PREPROCESS) and all(name.startswith("body.") for name in others)


def _wrapper(state: Mapping[Any, Any]) -> str | None:
    return next((name for name in _WRAPPERS if isinstance(state.get(name), Mapping)), None)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more


def _check_names(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source_name: str) -> None:
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    parts = [f"lacks {_first(missing)}"] if missing else []
    parts += [f"has {_first(unexpected)}, which the model does not know"] if unexpected else []
    if parts:
        raise ModelError(
            f"{source_name} does not fit the model: it {' and '.join(parts)}: "
            "arch and options must be those the weights were trained with"
        )


def _check_shapes(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source_name: str) -> None:
    wrong = [name for name in expected if expected[name].shape != state[name].shape]
    if not wrong:
        return
    stories = [f"{name} is {list(state[name].shape)}, the model's {list(expected[name].shape)}" for name in wrong]
    hint = "arch and options must be those the weights were trained with"
    # One layer alone, and only its number of outputs: the classifier.
    owners = {name.rpartition(".")[0] for name in wrong}
    pairs = {(state[name].shape[:1], expected[name].shape[:1]) for name in wrong}
    same_inputs = all(state[name].shape[1:] == expected[name].shape[1:] for name in wrong)
    if len(owners) == 1 and len(pairs) == 1 and same_inputs and state[wrong[0]].ndim:
        theirs, ours = state[wrong[0]].shape[0], expected[wrong[0]].shape[0]
        hint = (
            f"the weights were trained for {theirs} classes, here they are {ours}: "
            "take weights for the same classes, or train the classifier anew"
        )
    raise ModelError(f"{source_name} does not fit the model: {_first(stories)}: {hint}")


def check_finite(state: Mapping[str, torch.Tensor], source_name: str) -> None:
    """Refuse weights that hold NaN or infinite values.

    Raises:
        ModelError: names the first such tensor.
    """
    for name, value in state.items():
        inexact = value.is_floating_point() or value.is_complex()
        if inexact and not torch.isfinite(value.float() if value.is_floating_point() else value).all():
            raise ModelError(f"{source_name}: '{name}' holds NaN or infinite values: these weights are of no use")
