"""An open_clip model: from a config of our own, or pretrained from a folder or hub name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from torch import Tensor, nn

from fovea.errors import ModelError
from models.text.tokenizer import load_tokenizer
from models.weights import load_into, read_json, save_tensors, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG, TENSORS = "open_clip_config.json", "open_clip_model.safetensors"


class ContrastiveModel(nn.Module):
    """An open_clip model with its tokenizer and preprocessing in one record (CLIP, Radford et al. 2021)."""

    def __init__(self, clip: nn.Module, config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.clip: Any = clip
        self.config, self.tokenizer = dict(config), tokenizer

    @classmethod
    def build(cls, model_cfg: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> ContrastiveModel:
        """A new model from open_clip's config keys; the vocabulary is the tokenizer's."""
        text = {
            **model_cfg["text_cfg"],
            "vocab_size": len(tokenizer),
            "pad_id": tokenizer.pad_token_id,
            "eos_id": tokenizer.eos_token_id,
            "pool_type": "eos",
            "hf_tokenizer_name": ".",
        }
        config = {"model_cfg": {**model_cfg, "text_cfg": text}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
        return cls(_construct(config), config, tokenizer)

    @classmethod
    def open(cls, reference: str) -> ContrastiveModel:
        """A folder in open_clip's layout (saved by `save` or exported from a hub), or an open_clip hub name."""
        folder = Path(reference)
        if not folder.is_dir():
            return cls._from_hub(reference)
        config = read_json(folder / CONFIG)
        model = cls(_construct(config), config, load_tokenizer(folder))
        load_into(model.clip, folder / TENSORS)
        return model

    @classmethod
    def _from_hub(cls, name: str) -> ContrastiveModel:
        try:
            clip = open_clip.create_model(name)
            tokenizer = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{name!r} cannot be opened ({error})", "a folder, or a name such as hf-hub:ORG/REPO"
            ) from None
        preprocess = {"mean": list(clip.visual.image_mean), "std": list(clip.visual.image_std)}
        config = {"model_cfg": open_clip.get_model_config(name) or {}, "preprocess_cfg": preprocess}
        return cls(clip, config, getattr(tokenizer, "tokenizer", tokenizer))

    def save(self, folder: Path) -> None:
        """Write open_clip's own layout: config, tokenizer, safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        write_json(folder / CONFIG, self.config)
        save_tensors(self.clip.state_dict(), folder / TENSORS)

    @property
    def image_size(self) -> int:
        size = self.clip.visual.image_size
        return int(size[0] if isinstance(size, Sequence) else size)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (batch, token), cut to the context length, ending in the end token and trimmed to the longest."""
        length = int(self.clip.context_length)
        rows = self.tokenizer([*texts], add_special_tokens=False, truncation=True, max_length=length - 2)["input_ids"]
        rows = [[self.tokenizer.bos_token_id, *row, self.tokenizer.eos_token_id] for row in rows]
        return torch.tensor([row + [self.tokenizer.pad_token_id] * (length - len(row)) for row in rows])

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit image and text features (batch, embedding) and the logit scale, at most 100."""
        image = self.clip.encode_image(pixels, normalize=True)
        text = self.clip.encode_text(tokens, normalize=True)
        return image, text, self.clip.logit_scale.clamp(max=4.6052).exp()


def _construct(config: Mapping[str, Any]) -> nn.Module:
    model_cfg = dict(config["model_cfg"])
    custom = model_cfg.pop("custom_text", False)
    try:
        clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**model_cfg)
    except TypeError as error:
        raise ModelError(f"config that open_clip refuses: {error}", "open_clip's model config keys") from None
    preprocess = PreprocessCfg(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in config["preprocess_cfg"].items()}
    )
    clip.visual.image_mean, clip.visual.image_std = preprocess.mean, preprocess.std
    built: nn.Module = clip
    return built
