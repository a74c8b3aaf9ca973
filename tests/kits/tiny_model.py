"""Model files of half a megabyte, quick to write: llama.cpp runs them like any other, and they write nonsense.

One token is one printable ASCII character, or one byte of any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}<s>assistant\n"
)
FOND = {'"': 2.0, ",": 1.0}
"""Prefers to end a string and to continue a list, and does not stop by itself."""
WIDTH, HIDDEN, LAYERS, HEADS, PATCHES = 64, 128, 2, 4, 4


def tiny_model(
    path: Path,
    context: int = 2048,
    fond: Mapping[str, float] = FOND,
    words: Sequence[str] = (),
    space_prefix: bool = False,
) -> Path:
    """A llama of two layers with random weights, trained, as it claims, for `context` tokens.

    `fond` makes it like or dislike some tokens; `words` are tokens besides. `space_prefix` is the habit of older
    vocabularies to put a space before a text.
    """
    control, byte, normal = gguf.TokenType.CONTROL, gguf.TokenType.BYTE, gguf.TokenType.NORMAL
    tokens = {"<unk>": gguf.TokenType.UNKNOWN, "<s>": control, "</s>": control}
    tokens |= {f"<0x{number:02X}>": byte for number in range(256)}
    tokens |= {chr(number): normal for number in range(33, 127)} | dict.fromkeys(("▁", *words), normal)
    names = list(tokens)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(names)
    writer.add_token_scores([0.0] * len(names))
    writer.add_token_types(list(tokens.values()))
    writer.add_bos_token_id(names.index("<s>"))
    writer.add_eos_token_id(names.index("</s>"))
    writer.add_unk_token_id(names.index("<unk>"))
    writer.add_add_space_prefix(space_prefix)
    writer.add_chat_template(TEMPLATE)

    weights = random_weights()
    embedding, output = weights(len(names), WIDTH), weights(len(names), WIDTH)
    embedding[:, 0] = 3.0  # always on, so that its weights act as a bias
    output[:, 0] = [0.0 if kind is normal else -4.0 for kind in tokens.values()]
    for name, much in fond.items():
        output[names.index(name), 0] = much
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    attention = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
    network = {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
    for layer in range(LAYERS):
        for name, shape in (attention | network).items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights(*shape))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
    return written(writer, path)


def tiny_projector(path: Path) -> Path:
    """Write a projector for a tiny model: a picture of any size becomes `PATCHES` squared tokens."""
    width, hidden, side, layers = 32, 64, 8, 2
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_use_gelu(True)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_image_size(side * PATCHES)
    writer.add_vision_patch_size(side)
    writer.add_vision_embedding_length(width)
    writer.add_vision_feed_forward_length(hidden)
    writer.add_vision_block_count(layers)
    writer.add_vision_head_count(2)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)

    weights = random_weights()
    writer.add_tensor("v.patch_embd.weight", weights(width, 3, side, side))
    writer.add_tensor("v.position_embd.weight", weights(PATCHES**2, width))
    layer = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (width, width))
    layer |= {"ffn_up": (hidden, width), "ffn_down": (width, hidden), "ln1": (width,), "ln2": (width,)}
    named = {f"v.blk.{number}.{name}": shape for number in range(layers) for name, shape in layer.items()}
    for name, shape in (named | {"mm.0": (WIDTH, width), "mm.2": (WIDTH, WIDTH)}).items():
        writer.add_tensor(f"{name}.weight", weights(*shape))
        writer.add_tensor(f"{name}.bias", weights(shape[0]))
    return written(writer, path)


def random_weights() -> Callable[..., np.ndarray]:
    """Return a function that makes arrays of given shapes, with the same numbers every time."""
    random = np.random.default_rng(7)
    return lambda *shape: random.normal(0, 0.1, shape).astype(np.float32)


def written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
