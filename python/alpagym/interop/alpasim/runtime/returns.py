"""What a rollout comes to, as `RuntimeService` returns it."""

from __future__ import annotations

from typing import Any

from alpagym import sim
from alpagym.interop.alpasim.rollouts import drive_from_first_plan, since
from alpagym.interop.alpasim.session import Order, Played
from alpagym.interop.alpasim.wire.messages import runtime
from alpagym.metrics import alpasim
from alpagym.metrics.alpasim.metric import REDUCTION, Metric, metric

CODES = runtime.RolloutErrorCode
AGGREGATIONS = {
    how: runtime.TimeAggregation.Value(f"TIME_AGGREGATION_{how.upper()}")
    for how in ("mean", "max", "min", "last")
}
FRAME_SIZE = 25 * 17
"""Of what is returned of one frame [bytes]: metrics, of which each has a time, a number and whether
it is valid."""
ROLLOUT_SIZE = 4096
"""Of what else is returned of one rollout, its spec included [bytes]."""


def answer_size(frames: int) -> int:
    """Of a `RolloutReturn` about, rather more than less [bytes]."""
    return ROLLOUT_SIZE + FRAME_SIZE * frames


def failed(spec: Any, uuid: str, sentence: str, *, scene: bool = False) -> Any:
    """The `RolloutReturn` of a rollout that was not driven to its end.

    Args:
        spec: the `RolloutSpec` that asked for it.
        uuid: of its session.
        sentence: why.
        scene: whether the scenario is the reason.
    """
    code = "INVALID_SCENE" if scene else "UNSPECIFIED"
    return runtime.SimulationReturn.RolloutReturn(
        rollout_spec=spec,
        rollout_uuid=uuid,
        error=sentence,
        error_code=CODES.Value(f"ROLLOUT_ERROR_CODE_{code}"),
    )


def succeeded(spec: Any, order: Order, played: Played) -> Any:
    """The `RolloutReturn` of a driven rollout, with AlpaSim's metrics by its names.

    Where the map lets AlpaSim's `offroad` know nothing, it is ours: trainers want it always.

    Raises:
        ValueError: it cannot be scored.
    """
    time, scenario = order.timeline, order.stage.scenario
    drive = drive_from_first_plan(scenario, time, played)
    score = alpasim.score(drive, since(time.first, time, played))
    metrics, aggregated = dict(score.metrics), dict(score.returned)
    if "offroad" not in metrics:
        metrics["offroad"] = _own_offroad(metrics["collision_any"], order, played)
        aggregated["offroad"] = metrics["offroad"].reduced(REDUCTION["offroad"])
    answer = runtime.SimulationReturn.RolloutReturn(
        rollout_spec=spec, rollout_uuid=order.uuid, success=True, aggregated_metrics=aggregated
    )
    for name, found in metrics.items():
        answer.timestep_metrics.add(
            name=name,
            timestamps_us=(found.times_us + time.time_us(time.first)).tolist(),
            values=found.values.tolist(),
            valid=found.valid.tolist(),
            time_aggregation=AGGREGATIONS[REDUCTION[name]],
        )
    return answer


def _own_offroad(like: Metric, order: Order, played: Played) -> Metric:
    """Our simulator's, 0 while the record drives."""
    values = 0.0 * like.values
    before = order.timeline.engaged - order.timeline.first + 1
    own = [float(state.terms[sim.RewardTerm.OFFROAD] > 0) for state in played.states[1:]]
    values[before:] = own[: len(values) - before]
    return metric(like.times_us, values)
