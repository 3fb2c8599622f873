"""The Transformer encoder of ELECTRA: post-LN BERT with factorised embeddings and one attention function.

    token, position and type ids -> Embeddings (B, L, E) -> Body: projection to H, then the layers (B, L, H)

`Embeddings` and `Body` are apart because generator and discriminator share the first and own the second
(Clark et al. 2020, section 3.2; google-research/electra model/modeling.py). `Encoder` is the two together,
which is what fine-tuning and export use. Letters: B rows, L tokens, E embedding size, H hidden size, D size of a head,
V vocabulary.

Who attends to whom is a boolean mask, nothing where all do (rows that are one full piece), or the bounds of the pieces,
for the kernel of varlen.py; all give the same numbers.

Matrix products follow autocast; LayerNorm and the residual stream are fp32 whatever the precision, since the
epsilon of 1e-12 does not exist in half precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from electra.dropout import Dropout, dropout
from electra.linear import Linear, linear
from electra.varlen import Pieces, varlen_attention

LAYER_NORM_EPSILON = 1e-12
INITIALIZER_RANGE = 0.02
POSITION_RANGE = 0.06  # of sinusoidal position tables


@dataclass(frozen=True)
class EncoderConfig:
    """The shape of one encoder, as Hugging Face's ElectraConfig names it."""

    vocab_size: int
    embedding_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    vocab_multiple: int = 64  # the table in memory has a multiple of so many rows, which tensor cores want

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding table in memory. Never in a file."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


class LayerNorm(nn.LayerNorm):
    """LayerNorm in fp32 with Google's epsilon."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=LAYER_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class Embeddings(nn.Module):
    """Word + position + type embeddings, LayerNorm, dropout: ids (B, L) -> (B, L, E)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = _table(config.padded_vocab_size, config.embedding_size)
        self.position = _table(config.max_positions, config.embedding_size)
        self.segment = _table(config.type_vocab_size, config.embedding_size)
        self.norm = LayerNorm(config.embedding_size)
        self.dropout = Dropout(config.dropout)

    def forward(self, input_ids: Tensor, segment_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        summed = self.word(input_ids) + self.position(position_ids) + self.segment(segment_ids)
        return self.dropout(self.norm(summed))


def _table(rows: int, size: int) -> nn.Embedding:
    """Vectors of zeros, for `initialize` or weights from a file to fill: on a meta device torch's own draw of normal
    values would import sympy, 70 MB."""
    return nn.Embedding.from_pretrained(torch.zeros(rows, size), freeze=False)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float) -> Tensor:
    """softmax(query key^T / sqrt(D) + bias) value: (B, heads, L, D) -> (B, heads, L, D); bias (B, 1, 1 or L, L).

    `p` is the share of attention weights that are dropped. On a CPU the formula is written out: in bf16 it is 3.5
    times as fast, forward and backward, as the fused kernel of torch 2.13 at 32 x 128 tokens (1.9 times with dropout),
    and in fp32 about equal (benchmarks/attention.py). On a GPU torch chooses among its fused kernels; without a bias
    that is the fastest of them, FlashAttention.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, bias, dropout_p=p)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2))
    weights = torch.softmax(scores if bias is None else scores + bias, -1)
    return torch.matmul(dropout(weights, p) if p else weights, value)


class Layer(nn.Module):
    """One post-LN Transformer layer: x + attention, LayerNorm, + feed-forward (erf GELU), LayerNorm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.num_heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.qkv = Linear(hidden, 3 * hidden)
        self.out = Linear(hidden, hidden)
        self.attention_norm = LayerNorm(hidden)
        self.up = Linear(hidden, config.intermediate_size)
        self.down = Linear(config.intermediate_size, hidden)
        self.output_norm = LayerNorm(hidden)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, attention_bias: Tensor | Pieces | None, first_only: bool = False) -> Tensor:
        """(B, L, H) -> (B, L, H), or with `first_only` the first token's part of that, (B, 1, H)."""
        B, L, H = x.shape
        heads = (self.num_heads, H // self.num_heads)
        p = self.attention_dropout if self.training else 0.0
        if isinstance(attention_bias, Pieces):
            assert not p, "the kernel has no dropout"
            query, key, value = self.qkv(x).view(B * L, 3, *heads).unbind(1)  # each (B * L, heads, D)
            attended = varlen_attention(query, key, value, attention_bias).view(B, L, H)
        else:
            if first_only:
                weights, biases = self.qkv.weight.split([H, 2 * H]), self.qkv.bias.split([H, 2 * H])
                key, value = linear(x, weights[1], biases[1]).view(B, L, 2, *heads).permute(2, 0, 3, 1, 4).unbind(0)
                x = x[:, :1]
                query = linear(x, weights[0], biases[0]).view(B, 1, *heads).transpose(1, 2)
            else:
                query, key, value = self.qkv(x).view(B, L, 3, *heads).permute(2, 0, 3, 1, 4).unbind(0)
            # (B, heads, L, D) each, or (B, heads, 1, D) for the query of the first token
            attended = attention(query, key, value, attention_bias, p).transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(x + self.dropout(self.out(attended)))
        return self.output_norm(x + self.dropout(self.down(F.gelu(self.up(x)))))


class Body(nn.Module):
    """Projection from the embedding to the hidden size, where they differ, and the layers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        project = config.embedding_size != config.hidden_size
        self.project = Linear(config.embedding_size, config.hidden_size) if project else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))

    def forward(
        self,
        embedded: Tensor,
        attention_mask: Tensor | Pieces | None = None,
        every_layer: list[Tensor] | None = None,
        first_only: bool = False,
    ) -> Tensor:
        """(B, L, E) -> (B, L, H), or (B, 1, H) with `first_only`; the mask and that as in `Encoder`.

        `every_layer` collects the input and the output of each layer, for comparisons.
        """
        x = embedded if self.project is None else self.project(embedded).float()
        bias = additive(attention_mask, x) if isinstance(attention_mask, Tensor) else attention_mask
        if every_layer is not None:
            every_layer.append(x)
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, bias, first_only and number == len(self.layers))
            if every_layer is not None:
                every_layer.append(x)
        return x


class Encoder(nn.Module):
    """Embeddings and body: what fine-tuning starts from and what a model folder holds."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.body = Body(config)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | Pieces | None = None,
        first_only: bool = False,
    ) -> Tensor:
        """Ids (B, L) and who attends to whom -> (B, L, H).

        That is a boolean mask that broadcasts to (B, heads, L, L), True = may attend; None, all to all of their row; or
        the pieces of packed rows, each to itself. With `first_only`, and a mask that is the same for all tokens of a
        row, the states of the first tokens, (B, 1, H): the last layer, most of which is for the others, costs a sixth.
        """
        embedded = self.embeddings(input_ids, segment_ids, position_ids)
        return self.body(embedded, attention_mask, first_only=first_only)


def additive(mask: Tensor, like: Tensor) -> Tensor:
    """A boolean mask as 0 and -inf in the precision of matrix products, made once for all layers."""
    device = like.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def key_mask(valid: Tensor) -> Tensor:
    """Padding mask: valid (B, L) bool -> (B, 1, 1, L); nobody attends to padding."""
    return valid[:, None, None, :]


def block_mask(piece_ids: Tensor) -> Tensor:
    """Block-diagonal mask of packed rows: piece ids (B, L) -> (B, 1, L, L); each piece sees itself alone.

    Padding (piece 0) forms a block of its own, so that no row of the softmax is empty.
    """
    return piece_ids[:, None, :, None] == piece_ids[:, None, None, :]


@torch.no_grad()
def initialize(module: nn.Module, position_init: str = "normal") -> None:
    """Google's initialisation: truncated normal .02 (cut at two sigma), zero biases, unit LayerNorms.

    `project` and the last dense of a head (named `classifier`) take TensorFlow's default instead, Glorot uniform,
    because Google's code passes no initialiser there (reference: model/modeling.py, run_pretraining.py).
    With `position_init` sinusoidal the position tables begin as `sinusoids`.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear | nn.Embedding):
            if name.rpartition(".")[2] in ("project", "classifier"):
                nn.init.xavier_uniform_(child.weight)
            else:
                nn.init.trunc_normal_(
                    child.weight, std=INITIALIZER_RANGE, a=-2 * INITIALIZER_RANGE, b=2 * INITIALIZER_RANGE
                )
            if isinstance(child, nn.Linear) and child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm):
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
    if position_init == "sinusoidal":
        for child in module.modules():
            if isinstance(child, Embeddings):
                child.position.weight.copy_(sinusoids(*child.position.weight.shape))


def sinusoids(positions: int, size: int) -> Tensor:
    """Sines and cosines of the positions (Vaswani et al. 2017, section 3.5): (positions, size), rms POSITION_RANGE.

    Two things differ from Google's draw, and in trials either alone did little (benchmarks/plateau.py has all four).
    Neighbours are one rotation apart at every position, so that attention to them is one matrix instead of a table
    learnt by heart. And the vectors are long enough to be heard beside those of words, which reach this length within
    some thousand steps.
    """
    half = -(-size // 2)
    angles = torch.arange(positions)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :size] * (POSITION_RANGE * 2**0.5)
