"""The student as a scorer: token ids in, token statistics out. The only code of scoring that runs a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lark_engine.architecture import logit_transform, why_not_packed
from lark_engine.architecture import windows as windows_of
from lark_engine.errors import DeviceError, StudentError, first_line
from lark_engine.models import ModelRef, load_model
from lark_engine.scoring import attention
from lark_engine.scoring.attention import PromptCache, Tree
from lark_engine.scoring.token_stats import TokenStats, concatenate, token_stats

log = logging.getLogger(__name__)

Ids = NDArray[np.int32]

# Vocabulary projections are made for this many response tokens at a time, in a buffer of at most so many bytes.
CHUNK_TOKENS = 512
CHUNK_BYTES = {"cpu": 128 << 20, "cuda": 512 << 20}
# On a CPU, statistics of few tokens at a time stay in its cache; a GPU wants large kernels.
STATISTICS_TOKENS = {"cpu": 16, "cuda": CHUNK_TOKENS}


class Responses(NamedTuple):
    """A prompt and the responses to it, as token ids; every response has at least one token."""

    prompt: Ids
    responses: tuple[Ids, ...]

    @property
    def num_tokens(self) -> int:
        """Unique tokens."""
        return len(self.prompt) + sum(map(len, self.responses))


class Scored(NamedTuple):
    """Statistics of all response tokens end to end, on the CPU, and the number of tokens of each response."""

    stats: TokenStats
    lengths: NDArray[np.int64]


class Hidden(NamedTuple):
    """Last hidden states [S, H], and the places [T] of those that predict the response tokens."""

    states: Tensor
    predictors: Tensor


class Student:
    """A loaded student. Errors of loading: `StudentError`, `DeviceError` (see `models.load_model`).

    `shares_prompts` says whether the prompt of a problem is computed once for all its candidates. Where the
    architecture does not allow it, every trajectory goes alone through the model's own attention: slower, as exact.
    """

    def __init__(self, model: ModelRef, *, dtype: str, device: str, top_k: int, trust_remote_code: bool = False):
        self.name = model.name
        self.device = device
        self.top_k = top_k
        self._model = load_model(model, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        self._decoder: Any = self._model.get_decoder()
        self._head: Any = self._model.get_output_embeddings()
        self._transform = logit_transform(self._model.config)
        vocabulary = int(self._head.weight.shape[0])
        fitting = CHUNK_BYTES[device] // (vocabulary * self._head.weight.element_size())
        self._chunk = max(16, min(CHUNK_TOKENS, fitting))
        self._logits = torch.empty((self._chunk, vocabulary), dtype=self._head.weight.dtype, device=device)
        self._too_many_tokens: float = float("inf")
        self._kept: tuple[bytes, PromptCache, Tensor] | None = None
        self.shares_prompts = False
        self._check()

    @torch.inference_mode()
    def score(self, groups: Sequence[Responses], *, prompt_apart: bool = False, num_alternatives: int = 0) -> Scored:
        """Token statistics of every response of every group, in the order given.

        `prompt_apart`: the prompt of the one group is computed on its own and kept for the next call with the same
        prompt. A batch that does not fit the device is halved until it does, and so are all as large ones from then
        on: how a batch is cut depends on whether it fits, not on what came before it, so that a resumed run cuts it
        in the same places.
        Errors: `DeviceError` when a single trajectory does not fit.
        """
        size = sum(group.num_tokens for group in groups)
        splittable = len(groups) > 1 or len(groups[0].responses) > 1
        if size < self._too_many_tokens or not splittable:
            if not prompt_apart:
                self._kept = None
            try:
                return self._forward(groups, prompt_apart, num_alternatives)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if not splittable:
                    raise DeviceError(
                        f"a trajectory of {size} tokens does not fit on {self.device}; lower --max-length"
                    ) from error
            # After the except block, whose traceback holds the tensors that are to be freed.
            self._kept = None
            self._too_many_tokens = size
            log.warning("%s is out of memory at %d tokens; batches so large are cut in half", self.device, size)
            if self.device == "cuda":
                torch.cuda.empty_cache()
        first, second = _halves(groups)
        apart = prompt_apart or len(groups) == 1
        parts = [self.score(half, prompt_apart=apart, num_alternatives=num_alternatives) for half in (first, second)]
        return Scored(concatenate([p.stats for p in parts]), np.concatenate([p.lengths for p in parts]))

    def _forward(self, groups: Sequence[Responses], prompt_apart: bool, num_alternatives: int) -> Scored:
        responses = [ids for group in groups for ids in group.responses]
        lengths = np.array([len(ids) for ids in responses], dtype=np.int64)
        if self.shares_prompts:
            hidden = self._hidden_of_group_apart(groups[0]) if prompt_apart else self._hidden_of_groups(groups)
            stats = self._stats(hidden, self._ids(np.concatenate(responses)), num_alternatives)
        else:
            alone = ((self._hidden_alone(group.prompt, ids), ids) for group in groups for ids in group.responses)
            stats = concatenate([self._stats(hidden, self._ids(ids), num_alternatives) for hidden, ids in alone])
        return Scored(TokenStats(*(values.cpu() for values in stats)), lengths)

    def _hidden_of_groups(self, groups: Sequence[Responses], **told: Any) -> Hidden:
        """What predicts the response tokens: one packed row, each prompt in it once. `told`: to the attention."""
        ids: list[Ids] = []
        positions: list[NDArray[np.int64]] = []
        trees: list[Tree] = []
        predictors: list[NDArray[np.int64]] = []
        end = 0
        for group in groups:
            start, prompt_end = end, end + len(group.prompt)
            ids.append(group.prompt)
            positions.append(np.arange(len(group.prompt)))
            end = prompt_end
            ends: list[int] = []
            for response in group.responses:
                ids.append(response)
                positions.append(len(group.prompt) + np.arange(len(response)))
                predictors += [np.array([prompt_end - 1]), np.arange(end, end + len(response) - 1)]
                end += len(response)
                ends.append(end)
            trees.append(Tree(start, prompt_end, tuple(ends)) if len(ends) > 1 else Tree(start, end, ()))
        return Hidden(self._decode(ids, positions, trees, **told), self._index(predictors))

    def _hidden_of_group_apart(self, group: Responses) -> Hidden:
        """The same for one group whose prompt is computed on its own, unless the last call has left it."""
        key = group.prompt.tobytes()
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            cache = PromptCache()
            alone = Tree(0, len(group.prompt), (), cache)
            self._kept = (key, cache, self._decode([group.prompt], [np.arange(len(group.prompt))], [alone])[-1:])
        _, cache, last_of_prompt = self._kept
        ends = np.cumsum([len(response) for response in group.responses])
        positions = [len(group.prompt) + np.arange(len(response)) for response in group.responses]
        hidden = self._decode(list(group.responses), positions, [Tree(0, 0, tuple(ends.tolist()), cache)])
        predictors = [
            np.append(len(hidden), np.arange(end - len(response), end - 1))
            for end, response in zip(ends, group.responses, strict=True)
        ]
        return Hidden(torch.cat([hidden, last_of_prompt]), self._index(predictors))

    def _hidden_alone(self, prompt: Ids, response: Ids) -> Hidden:
        ids = self._ids(np.concatenate([prompt, response]))
        hidden: Tensor = self._decoder(input_ids=ids[None], use_cache=False).last_hidden_state[0]
        return Hidden(hidden, torch.arange(len(prompt) - 1, len(hidden) - 1, device=self.device))

    def _decode(self, ids: list[Ids], positions: list[NDArray[np.int64]], trees: list[Tree], **told: Any) -> Tensor:
        """Last hidden states [S, H] of one packed row."""
        ids_1S, positions_1S = (self._ids(np.concatenate(values))[None] for values in (ids, positions))
        hidden: Tensor = self._decoder(
            input_ids=ids_1S, position_ids=positions_1S, use_cache=False, trees=tuple(trees), **told
        ).last_hidden_state[0]
        return hidden

    def _ids(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.device)

    def _index(self, places: list[NDArray[np.int64]]) -> Tensor:
        return self._ids(np.concatenate(places))

    def _stats(self, hidden: Hidden, target: Tensor, num_alternatives: int) -> TokenStats:
        """Statistics of the response tokens `target` [T]. Never holds [T, V] for all T."""
        step = STATISTICS_TOKENS[self.device]
        parts = []
        for start in range(0, len(target), self._chunk):
            logits = self._project(hidden.states[hidden.predictors[start : start + self._chunk]])
            for row in range(0, len(logits), step):
                there = target[start + row : start + row + min(step, len(logits) - row)]
                parts.append(token_stats(logits[row : row + step], there, self.top_k, num_alternatives))
        return concatenate(parts)

    def _project(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, with the final soft cap or scale of the architectures that have one.

        The result lies in a buffer that the next call overwrites: fresh memory would cost a fifth of the time.
        """
        if type(self._head) is nn.Linear and self._head.bias is None:
            logits = torch.mm(hidden, self._head.weight.t(), out=self._logits[: len(hidden)])
        else:
            logits = self._head(hidden)
        if self._transform.scale != 1:
            logits = logits * self._transform.scale
        if cap := self._transform.softcap:
            logits = torch.tanh(logits / cap) * cap
        return logits

    @torch.inference_mode()
    def _check(self) -> None:
        """Compare with the model's own logits on a few tokens, and the windows of its layers with its config.

        Decides `shares_prompts`. Errors: `StudentError` when even trajectories that go alone have other logits.
        """
        draw = np.random.default_rng(0)
        ids = [draw.integers(0, self._logits.shape[1], n).astype(np.int32) for n in (6, 5, 1, 3)]
        group = Responses(ids[0], tuple(ids[1:]))
        alone = [self._hidden_alone(group.prompt, ids) for ids in group.responses]
        each = [self._own_logits(group.prompt, ids) for ids in group.responses]
        own = torch.cat(each)
        if not all(self._agrees(*pair) for pair in zip(alone, each, strict=True)):
            raise StudentError(
                f"student {self.name}: its logits are made in a way that scoring does not know "
                f"(architecture {type(self._model).__name__}); please report it with the model's config.json"
            )
        reason = why_not_packed(self._model.config)
        before = self._model.config._attn_implementation
        if not reason:
            reason = self._why_not_together(group, own)
        self._kept = None
        self.shares_prompts = not reason
        if reason:
            self._model.set_attn_implementation(before)
            log.warning(
                "student %s (%s) %s: its candidates are scored one by one",
                self.name,
                type(self._model).__name__,
                reason,
            )

    def _why_not_together(self, group: Responses, own: Tensor) -> str | None:
        """Turns shared prompts on and tries them; None when the logits are `own`, those of the model itself."""
        windows: dict[int, int | None] = {}
        try:
            self._model.set_attn_implementation(attention.NAME)
            together = self._hidden_of_groups([group, group], windows=windows)
            agrees = self._agrees(together, torch.cat([own, own])) and self._agrees(
                self._hidden_of_group_apart(group), own
            )
            expected = windows_of(self._model.config)
        except Exception as error:  # of any kind: architectures have conventions of their own
            if _is_out_of_memory(error):
                raise
            log.debug("student %s does not take shared prompts", self.name, exc_info=True)
            return f"does not allow shared prompts ({first_line(error)})"
        if windows != expected:
            # A few tokens cannot tell: a window that only the model's own mask knows would be lost.
            log.debug("windows of the layers %s, expected %s", windows, expected)
            return "makes its sliding windows in a way that shared prompts do not know"
        return None if agrees else "does not allow shared prompts"

    def _own_logits(self, prompt: Ids, response: Ids) -> Tensor:
        ids = self._ids(np.concatenate([prompt, response]))
        logits: Tensor = self._model(input_ids=ids[None], use_cache=False).logits[0]
        return logits[len(prompt) - 1 : -1].float()

    def _agrees(self, hidden: Hidden, own: Tensor) -> bool:
        tolerance = 1e-3 if hidden.states.dtype == torch.float32 else 2e-2
        logits = self._project(hidden.states[hidden.predictors])
        return torch.allclose(logits.float(), own, rtol=tolerance, atol=tolerance * float(own.abs().max()))


def _halves(groups: Sequence[Responses]) -> tuple[list[Responses], list[Responses]]:
    """A batch in two: by groups, or the responses of the only one."""
    if len(groups) > 1:
        middle = len(groups) // 2
        return list(groups[:middle]), list(groups[middle:])
    [group] = groups
    middle = len(group.responses) // 2
    return [Responses(group.prompt, group.responses[:middle])], [Responses(group.prompt, group.responses[middle:])]


def _is_out_of_memory(error: Exception) -> bool:
    """The CPU's allocator says it in a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
