"""Models that are small but real, for tests."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from models.clip.model import ContrastiveModel
from models.text.tokenizer import train_tokenizer
from models.vlm.model import VisionLanguageConfig, VisionLanguageModel

TEXT = [
    "Answer from the picture. How large is the nodule? The nodule measures 12.4 mm.",
    "Is there an effusion? No, there is no effusion. Where is it? It is on the left. found",
]
CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 128},
    "text_cfg": {"context_length": 32, "width": 16, "heads": 2, "layers": 1},
}
DECODERS: dict[str, dict[str, Any]] = {
    "lfm2": {
        "model_type": "lfm2", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 2, "num_key_value_heads": 2, "block_auto_adjust_ff_dim": False,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"], "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True,
    },
}  # fmt: skip


@cache
def tokenizer() -> Any:
    return train_tokenizer(TEXT * 20, 420)


def tiny_clip() -> ContrastiveModel:
    torch.manual_seed(0)
    return ContrastiveModel.build(CLIP, tokenizer()).eval()


def tiny_model(kind: str = "lfm2") -> VisionLanguageModel:
    with tempfile.TemporaryDirectory() as folder:
        tiny_clip().save(Path(folder))
        torch.manual_seed(1)
        config = VisionLanguageConfig(tower=f"openclip:{folder}", decoder=DECODERS[kind])
        return VisionLanguageModel.build(config, tokenizer()).eval()
