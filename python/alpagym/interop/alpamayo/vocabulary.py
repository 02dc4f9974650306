"""Alpamayo's tokens: what it adds to Qwen's vocabulary, and which number each gets.

4000 bins of trajectories come first, the future's (0 to 2999) and then the history's (3000 to
3999), and after them the tokens of `SPECIAL` that Qwen does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alpagym.interop.alpamayo.tokens import FUTURE_BINS

if TYPE_CHECKING:
    from alpagym.interop.alpamayo.settings import Settings

SPECIAL = (
    *("prompt_start", "prompt_end", "image_start", "image_pre_tkn", "image_end"),
    *("traj_history_start", "traj_history_pre_tkn", "traj_history_end"),
    *("cot_start", "cot_end", "meta_action_start", "meta_action_end"),
    *("traj_future_start", "traj_future_pre_tkn", "traj_future_end"),
    *("traj_history", "traj_future", "image_pad"),
    *("vectorized_wm", "vectorized_wm_start", "vectorized_wm_end", "vectorized_wm_pre_tkn"),
    *("route_start", "route_pad", "route_end"),
    *("question_start", "question_end", "answer_start", "answer_end"),
)
"""Names of tokens written <|name|>, in the order in which they are added."""
TRAJECTORY = {
    "history": "traj_history",
    "future": "traj_future",
    "history_start": "traj_history_start",
    "future_start": "traj_future_start",
    "history_end": "traj_history_end",
    "future_end": "traj_future_end",
}
"""Those that configurations list (`traj_token_ids`), by their names there."""
HISTORY_OFFSET = FUTURE_BINS
"""Bins of the history come after those of the future."""


def written(name: str) -> str:
    """A token of `SPECIAL` as text."""
    return f"<|{name}|>"


def extend(tokenizer: Any, settings: Settings) -> Any:
    """Add Alpamayo's tokens to Qwen's tokenizer, in place, unless they are there already.

    Raises:
        ValueError: a token gets another number than the model's configuration says.
    """
    tokenizer.add_tokens([f"<i{bin}>" for bin in range(settings.trajectory_tokens)])
    names = SPECIAL if settings.special_tokens else tuple(TRAJECTORY.values())
    tokenizer.add_tokens([written(name) for name in names], special_tokens=True)
    expected = {"<i0>": settings.trajectory_start} | {
        written(TRAJECTORY[name]): number for name, number in settings.trajectory_ids.items()
    }
    for token, number in expected.items():
        got = tokenizer.convert_tokens_to_ids(token)
        if got != number:
            raise ValueError(
                f"tokenizer: expected {token} as number {number}, as config.json has it, got {got}:"
                " it is not that of the model's VLM"
            )
    return tokenizer
