"""A MONAI bundle's configuration, understood without running any of it.

Only classes of a fixed list are made, with literals as arguments. `@key` and `@key#inner` are looked up; of `$…` only
literals, references, `… if … else …` of these and the call of a listed network with such arguments are understood. All
else is a ModelError that names the key, unless the person's `leave_out` names it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import nn

from experts.foreign.settings import tree
from fovea.errors import ModelError

NETWORKS = frozenset({
    "AttentionUnet", "BasicUNet", "DynUNet", "HighResNet", "SegResNet", "SegResNetDS", "SegResNetDS2", "SwinUNETR",
    "UNETR", "UNet", "VNet", "vista3d132",
})  # fmt: skip
"""Networks of `monai.networks.nets` that a bundle may name."""
LOADING = ("LoadImage", "EnsureChannelFirst", "EnsureType", "CastToType", "ToDevice", "VistaPreTransform")
"""Transforms whose work is done when a study is read, or by the class prompts."""
CHANGING = (
    "Orientation", "Spacing", "ScaleIntensityRange", "ScaleIntensityRangePercentiles", "ScaleIntensity",
    "NormalizeIntensity", "CropForeground", "SpatialPad", "DivisiblePad",
)  # fmt: skip
"""Transforms of the image that are made from MONAI's own classes."""
ENDING = ("Invert", "SaveImage", "EnsureType", "CastToType", "ToDevice", "DeleteItems", "VistaPostTransform")
"""Transforms of the answer whose work is done here: it is always brought back to the study's grid."""
_OPTIONS: Mapping[str, frozenset[str]] = {
    "Orientation": frozenset({"axcodes", "as_closest_canonical"}),
    "Spacing": frozenset({"pixdim", "diagonal", "mode", "padding_mode", "align_corners", "recompute_affine",
                          "min_pixdim", "max_pixdim", "scale_extent", "ensure_same_shape"}),
    "ScaleIntensityRange": frozenset({"a_min", "a_max", "b_min", "b_max", "clip"}),
    "ScaleIntensityRangePercentiles": frozenset({"lower", "upper", "b_min", "b_max", "clip", "relative",
                                                 "channel_wise"}),
    "ScaleIntensity": frozenset({"minv", "maxv", "factor", "channel_wise"}),
    "NormalizeIntensity": frozenset({"subtrahend", "divisor", "nonzero", "channel_wise"}),
    "CropForeground": frozenset({"margin", "allow_smaller", "k_divisible", "mode", "channel_indices"}),
    "SpatialPad": frozenset({"spatial_size", "method", "mode"}),
    "DivisiblePad": frozenset({"k", "method", "mode"}),
    "SlidingWindowInferer": frozenset({"roi_size", "overlap", "mode", "sigma_scale", "padding_mode", "cval"}),
}  # fmt: skip
_SET_HERE = frozenset({
    "_target_", "keys", "source_key", "allow_missing_keys", "dtype", "meta_keys", "meta_key_postfix", "device",
    "sw_batch_size", "sw_device", "progress", "cache_roi_weight_map", "use_point_window", "buffer_steps",
    "buffer_dim", "with_coord", "cpu_thresh", "start_coord_key", "end_coord_key",
})  # fmt: skip
"""Arguments that say how the work is done, not what comes out: they are set here."""
_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:#|::)\w+)*)")
_LARGEST = 4096
"""The largest number in the definition of a network."""


@dataclass(frozen=True)
class Plan:
    """What a bundle says: its network, what is done with the image in order, how windows lie, and how the answer reads.

    `answer` is "softmax" (one label a pixel) or "sigmoid" (labels may overlap); `largest` holds the numbers of output
    channels of which the largest piece is kept; `channels` names the output channels.
    """

    network: str
    options: Mapping[str, Any]
    transforms: tuple[tuple[str, Mapping[str, Any]], ...]
    inferer: Mapping[str, Any] | None
    answer: str
    threshold: float
    largest: frozenset[int]
    channels: Mapping[int, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompted(self) -> bool:
        """Whether the network is told the classes to draw (VISTA3D)."""
        return self.network == "vista3d132"

    def build(self) -> nn.Module:
        """The network without its weights; raises ModelError where its class does not take the options."""
        from monai.networks import nets

        try:
            return cast("nn.Module", getattr(nets, self.network)(**self.options))
        except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
            raise ModelError(f"network_def: {self.network} cannot be made so ({type(error).__name__})") from error


def read(folder: Path, leave_out: Collection[str] = ()) -> Plan:
    """The plan of the bundle in a folder; raises ModelError naming the key that is not understood."""
    configs = folder / "configs"
    found = [
        file for name in ("inference.json", "inference.yaml", "inference.yml") if (file := configs / name).is_file()
    ]
    if not found:
        raise ModelError("a bundle without configs/inference.json or .yaml", "a MONAI bundle as it was published")
    metadata = tree(configs / "metadata.json")
    bundle = _Bundle(tree(found[0]), frozenset(leave_out))
    network, options = bundle.network()
    answer, threshold, largest = bundle.postprocessing()
    return Plan(
        network,
        options,
        bundle.preprocessing(),
        bundle.inferer(),
        answer,
        threshold,
        largest,
        _channels(metadata),
        metadata,
    )


def _channels(metadata: Mapping[str, Any]) -> dict[int, str]:
    """The names of the output channels by number."""
    try:
        outputs = metadata["network_data_format"]["outputs"]
        table = outputs.get("pred", next(iter(outputs.values())))["channel_def"]
        return {int(number): str(name) for number, name in table.items()}
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ModelError(
            "metadata.json names no output channels", "network_data_format.outputs.pred.channel_def, numbers to names"
        ) from error


class _Bundle:
    """One configuration, and what is left out of it."""

    def __init__(self, data: Mapping[str, Any], leave_out: frozenset[str]) -> None:
        self.data, self.leave_out = data, leave_out

    def network(self) -> tuple[str, dict[str, Any]]:
        """The class of the network and its options."""
        given = self.data.get("network_def", self.data.get("network"))
        if isinstance(given, str) and given.startswith("$"):
            name, options = self._call(given[1:], "network_def")
        elif isinstance(given, dict):
            name = str(given.get("_target_"))
            options = {key: self.value(item, f"network_def#{key}") for key, item in given.items() if key[0] != "_"}
        else:
            raise ModelError("a bundle without network_def", "the class of a network and its arguments")
        short = name.removeprefix("monai.networks.nets.").rpartition(".")[2]
        if short not in NETWORKS or not (name == short or name.startswith("monai.networks.nets.")):
            raise ModelError(f"network_def: {name!r}", f"one of {', '.join(sorted(NETWORKS))}")
        if any(number > _LARGEST for number in _numbers(options)) or options.get("spatial_dims", 3) != 3:
            raise ModelError(f"network_def: {short} of another size", f"three dimensions, numbers up to {_LARGEST}")
        return short, options

    def preprocessing(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """What is done with the image, in order."""
        steps: list[tuple[str, Mapping[str, Any]]] = []
        for place, name, given in self._transforms("preprocessing"):
            if name in LOADING:
                continue
            if name not in CHANGING:
                raise _strange(place, name, (*LOADING, *CHANGING))
            steps.append((name, self._options(place, name, given)))
        return tuple(steps)

    def postprocessing(self) -> tuple[str, float, frozenset[int]]:
        """How the answer reads: its activation, the threshold, and the channels of which the largest piece is kept."""
        answer, threshold, largest = "", 0.5, frozenset[int]()
        for place, name, given in self._transforms("postprocessing"):
            if name == "Activations":
                said = [key for key in ("softmax", "sigmoid") if self.value(given.get(key, False), place) is True]
                if len(said) != 1 or given.get("other") is not None:
                    raise ModelError(f"{place}: another activation", "softmax or sigmoid")
                answer = said[0]
            elif name == "AsDiscrete":
                if self.value(given.get("argmax", False), place) is True:
                    answer = answer or "softmax"
                elif given.get("threshold") is not None:
                    threshold = float(self.value(given["threshold"], place))
            elif name == "VistaPostTransform":
                answer = "sigmoid"
            elif name == "KeepLargestConnectedComponent":
                largest |= self._largest(place, given)
            elif name not in ENDING:
                known = (*ENDING, "Activations", "AsDiscrete", "KeepLargestConnectedComponent")
                raise _strange(place, name, known)
        if not answer:
            raise ModelError("postprocessing does not tell how the answer reads", "Activationsd or AsDiscreted")
        return answer, threshold, largest

    def inferer(self) -> Mapping[str, Any] | None:
        """The options of the sliding window, or None for the whole image at once."""
        given = self.data.get("inferer")
        if given is None:
            return None
        if not isinstance(given, dict):
            raise ModelError("inferer: no class", "SimpleInferer or SlidingWindowInferer")
        name = str(given.get("_target_")).rpartition(".")[2]
        if name == "SimpleInferer":
            return None
        if name not in ("SlidingWindowInferer", "Vista3dInferer"):
            raise _strange("inferer", name, ("SimpleInferer", "SlidingWindowInferer"))
        return self._options("inferer", "SlidingWindowInferer", given)

    def value(self, given: Any, place: str, depth: int = 0) -> Any:
        """A literal, with references looked up."""
        if depth > 16:
            raise ModelError(f"{place}: references in a circle", "a literal in the end")
        if isinstance(given, dict):
            if "_target_" in given:
                raise ModelError(f"{place}: a class as an argument", "a literal")
            return {key: self.value(item, f"{place}#{key}", depth + 1) for key, item in given.items()}
        if isinstance(given, list):
            return [self.value(item, f"{place}#{number}", depth + 1) for number, item in enumerate(given)]
        if not isinstance(given, str) or given[:1] not in ("@", "$", "%"):
            return given
        whole = _REFERENCE.fullmatch(given.lstrip("$").strip())
        if whole:
            return self.value(self._find(whole[1], place), place, depth + 1)
        if given.startswith("$"):
            return self._evaluate(self._parse(given[1:], place, depth), place)
        raise ModelError(f"{place}: a reference that is not understood", "@key, or a literal")

    def _transforms(self, key: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Place, class without "d", and arguments of the transforms of a chain that are not left out."""
        given = self._chain(self.data.get(key), key)
        out = []
        for number, item in enumerate(given):
            place = f"{key}#{number}"
            if not isinstance(item, dict) or not isinstance(item.get("_target_"), str):
                raise ModelError(f"{place}: no class", "a transform")
            if place in self.leave_out or self.value(item.get("_disabled_", False), place) is True:
                continue
            name = item["_target_"].rpartition(".")[2]
            short = re.sub(r"(d|D|Dict)$", "", name)
            out.append((place, short, {k: v for k, v in item.items() if k not in ("_disabled_", "_desc_")}))
        return out

    def _chain(self, given: Any, key: str) -> list[Any]:
        for _ in range(8):
            if isinstance(given, dict) and given.get("_target_", "").rpartition(".")[2] == "Compose":
                given = given.get("transforms")
            elif isinstance(given, str) and (whole := _REFERENCE.fullmatch(given.lstrip("$").strip())):
                given = self._find(whole[1], key)
        if not isinstance(given, list):
            raise ModelError(f"a bundle whose {key} is not understood", "Compose with a list of transforms")
        return given

    def _options(self, place: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        strange = [key for key in given if key not in _OPTIONS[name] | _SET_HERE]
        if strange:
            raise ModelError(f"{place}#{strange[0]}", f"one of {', '.join(sorted(_OPTIONS[name]))}")
        return {key: self.value(given[key], f"{place}#{key}") for key in given if key in _OPTIONS[name]}

    def _largest(self, place: str, given: Mapping[str, Any]) -> frozenset[int]:
        labels = self.value(given.get("applied_labels"), place)
        numbers = [labels] if isinstance(labels, int) else labels
        together = self.value(given.get("independent", True), place) is not True and len(numbers or []) != 1
        if not isinstance(numbers, list) or together or self.value(given.get("num_components", 1), place) != 1:
            raise ModelError(f"{place}: another way to keep pieces", "applied_labels, each for itself, one piece")
        return frozenset(int(number) for number in numbers)

    def _find(self, key: str, place: str) -> Any:
        found: Any = self.data
        for step in re.split(r"#|::", key):
            if isinstance(found, dict) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdigit() and int(step) < len(found):
                found = found[int(step)]
            else:
                raise ModelError(f"{place}: @{key} is not there", "a key of the configuration")
        return found

    def _parse(self, text: str, place: str, depth: int = 0) -> ast.expr:
        def literal(match: re.Match[str]) -> str:
            return repr(self.value(self._find(match[1], place), place, depth + 1))

        try:
            return ast.parse(_REFERENCE.sub(literal, text).strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise _expression(place) from error

    def _evaluate(self, node: ast.expr, place: str) -> Any:
        try:
            if isinstance(node, ast.IfExp):
                return self._evaluate(node.body if ast.literal_eval(node.test) else node.orelse, place)
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise _expression(place) from error

    def _call(self, text: str, place: str) -> tuple[str, dict[str, Any]]:
        node = self._parse(text, place)
        if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
            raise _expression(place)
        options = {str(word.arg): self._evaluate(word.value, f"{place}#{word.arg}") for word in node.keywords}
        return ast.unparse(node.func), options


def _numbers(value: Any) -> list[float]:
    inner: Callable[[Any], list[float]] = _numbers
    if isinstance(value, dict):
        return [number for item in value.values() for number in inner(item)]
    if isinstance(value, (list, tuple)):
        return [number for item in value for number in inner(item)] + [len(value) * 64.0]
    return [abs(value)] if isinstance(value, (int, float)) else []


def _strange(place: str, name: str, known: Collection[str]) -> ModelError:
    return ModelError(
        f"{place}: {name!r}",
        f"one of {', '.join(dict.fromkeys(known))}",
        f"Where the answer is right without it, write leave_out: [{place!r}] in expert.json.",
    )


def _expression(place: str) -> ModelError:
    return ModelError(f"{place}: an expression, which is never run", "a literal or a reference to one")
