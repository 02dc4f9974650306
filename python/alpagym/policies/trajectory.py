"""Policies that plan: accelerations and curvatures over the next seconds, of which k steps count.

A plan is P steps of 0.1 s in Alpamayo's action space (`SimConfig.plan_steps`, 64 as in Alpamayo).
What is drawn are its values at a few knots, in units of order 1, between which it is linear in
time: noise at a knot bends a whole stretch of the plan, and with as many knots as steps it is
Alpamayo's. `SimConfig.action` says how plans are carried out: `unicycle` drives the first k
controls, `trajectory` gives all waypoints to the controller.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from alpagym.config import ActionType, SimConfig
from alpagym.policies.flow_matching import Schedule, draw, integrate, path_log_prob
from alpagym.policies.gaussian import gaussian_entropy, gaussian_log_prob, unit
from alpagym.policies.policy import Policy, Sizes
from alpagym.policies.scene_network import SceneNetwork
from alpagym.reward_ranges import Ranges
from alpagym.timed_plans import STEP
from alpagym.training_config import PolicyConfig
from alpagym.types import Observation

URGENT_S = 1.0
"""In imitation, errors of a plan count less by 1/e for every so much later that they are [s]."""
LOOK_AHEAD = 20
"""Waypoints ahead that the controller follows a plan by, at most."""


def hat_functions(steps: int, knots: int) -> Tensor:
    """Values at the steps of functions that are 1 at a knot and 0 at all others, [steps, knots]."""
    cpu = torch.device("cpu")  # numbers, even where a network is made on no device
    at = torch.linspace(0.0, steps - 1.0, knots, dtype=torch.float64, device=cpu)
    step = torch.arange(steps, dtype=torch.float64, device=cpu)
    spacing = (steps - 1.0) / (knots - 1.0) if knots > 1 else float("inf")
    return (1.0 - (step[:, None] - at).abs() / spacing).clamp(min=0.0).float()


def waypoints(control: Tensor, speed: Tensor) -> Tensor:
    """Poses that a unicycle reaches from the origin, as the simulator moves it.

    Args:
        control: acceleration [m/s^2] and curvature [1/m] of each step, [..., P, 2].
        speed: at first [m/s], [...].

    Returns:
        x, y [m] and yaw [rad] after each step, [..., P, 3].
    """
    accel, curvature = control.unbind(-1)
    gained = speed[..., None] + (STEP * accel).cumsum(-1)
    # Braking ends at standstill: what it would take below 0 is given back from there on.
    reverse = gained.cummin(-1).values.clamp(max=0.0)
    speeds = torch.cat([speed[..., None].clamp(min=0.0), gained - reverse], -1)
    way = 0.5 * STEP * (speeds[..., :-1] + speeds[..., 1:])
    yaw = nn.functional.pad((curvature * way).cumsum(-1), (1, 0))
    velocity = torch.stack([speeds * yaw.cos(), speeds * yaw.sin()], -1)
    xy = (0.5 * STEP * (velocity[..., :-1, :] + velocity[..., 1:, :])).cumsum(-2)
    return torch.cat([xy, yaw[..., 1:, None]], -1)


class TrajectoryPolicy(SceneNetwork, Policy):
    """What all policies with plans have in common: knots into plans, and plans into actions."""

    def __init__(
        self,
        config: PolicyConfig,
        sim_config: SimConfig,
        ranges: Ranges | None,
        outputs: int,
    ) -> None:
        steps = sim_config.plan_steps
        self.follows = sim_config.action is ActionType.trajectory
        if not self.follows and sim_config.action is not ActionType.unicycle:
            raise ValueError(
                "a trajectory policy drives with unicycle or trajectory actions, "
                f"got sim.action={sim_config.action.name}"
            )
        if abs(sim_config.dt - STEP) > 1e-9:
            raise ValueError(
                f"a trajectory policy plans in steps of {STEP} s, got sim.dt={sim_config.dt}"
            )
        for name, low in (
            ("policy.knots", config.knots),
            ("sim.replan_every", sim_config.replan_every),
        ):
            if low > steps:
                raise ValueError(f"{name}: expected at most sim.plan_steps, {steps}, got {low}")
        super().__init__(config, sim_config, outputs, ranges)
        self.executed = sim_config.replan_every
        self.imitates = steps
        self.knots = config.knots
        self.hats: Tensor
        self.fit: Tensor
        hats = hat_functions(steps, config.knots)
        fit = torch.linalg.pinv(hats.double()).float()
        self.register_buffer("hats", hats, persistent=False)
        self.register_buffer("fit", fit, persistent=False)
        urgency = torch.exp(-0.5 * STEP / URGENT_S * torch.arange(steps, dtype=torch.float64))
        urgency = (urgency / urgency.square().mean().sqrt()).float().unsqueeze(-1)
        self.urgency: Tensor
        self.register_buffer("urgency", urgency, persistent=False)
        reach = min(self.executed + (LOOK_AHEAD if self.follows else 0), steps)
        self.deciding = 2 * (int((hats[:reach] > 0.0).any(0).nonzero().max()) + 1)

    @abstractmethod
    def most_likely(self, observation: Observation) -> Tensor:
        """Knots to drive with when nothing is to be explored, normalized, [..., 2 knots]."""

    def drawn(self, decision: Tensor) -> Tensor:
        """The knots of a decision, normalized, [..., 2 knots]."""
        return decision

    def plan(self, observation: Observation, knots: Tensor) -> Tensor:
        """Acceleration [m/s^2] and curvature [1/m] of each step, [..., 2 knots] -> [..., P, 2]."""
        with torch.autocast(knots.device.type, enabled=False):
            return self._along(self.hats, knots) * unit(observation).unsqueeze(-2)

    def mean(self, observation: Observation) -> Tensor:
        return self._carried_out(observation, self.most_likely(observation))

    def action_of(self, observation: Observation, decision: Tensor) -> Tensor:
        return self._carried_out(observation, self.drawn(decision))

    def _carried_out(self, observation: Observation, knots: Tensor) -> Tensor:
        plan = self.plan(observation, knots)
        if not self.follows:
            return plan[..., : self.executed, :].flatten(-2)
        return waypoints(plan, observation.ego[..., 0]).flatten(-2)

    def _along(self, matrix: Tensor, values: Tensor) -> Tensor:
        """Pairs [..., 2 m], each column times a matrix [n, m]: [..., n, 2]."""
        return matrix @ values.to(matrix.dtype).unflatten(-1, (-1, 2))

    def _recorded(self, observation: Observation, recorded: Tensor) -> Tensor:
        """Recorded controls [..., 2 P] in units of order 1, [..., P, 2]."""
        return recorded.unflatten(-1, (-1, 2)) / unit(observation).unsqueeze(-2)


class GaussianTrajectory(TrajectoryPolicy):
    """Knots are normal, each of its own constant spread.

    The log-probability is that of the knots that the steps until the next decision depend on; what
    is planned beyond them is never carried out.
    """

    def __init__(
        self, config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None = None
    ) -> None:
        size = 2 * config.knots
        super().__init__(config, sim_config, ranges, size)
        self.log_std = nn.Parameter(torch.full((size,), config.log_std))
        self.sizes = Sizes(size, size, self.deciding, self.memory_size)

    def most_likely(self, observation: Observation) -> Tensor:
        return self.forward(observation)

    def sample(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.forward(observation)
        knots = mean + self.log_std.exp() * noise
        return knots, self._density(knots, mean)

    def log_prob(self, observation: Observation, decision: Tensor) -> Tensor:
        return self._density(decision, self.forward(observation))

    def deviation(
        self, observation: Observation, recorded: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        planned = self._along(self.hats, self.forward(observation))
        apart = planned - self._recorded(observation, recorded)
        return (self.urgency * apart).flatten(-2)

    def entropy(self) -> Tensor:
        return gaussian_entropy(self.log_std[: self.deciding])

    def _density(self, knots: Tensor, mean: Tensor) -> Tensor:
        n = self.deciding
        return gaussian_log_prob(knots[..., :n], mean[..., :n], self.log_std[:n])


class FlowMatchingTrajectory(TrajectoryPolicy):
    """Knots are carried from noise by a velocity field that depends on what is seen.

    A decision is the path of a draw, whose every step is a Gaussian: N + 1 points of 2 knots.
    """

    def __init__(
        self, config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None = None
    ) -> None:
        super().__init__(config, sim_config, ranges, config.hidden)
        last = self.trunk[-1]
        assert isinstance(last, nn.Linear)
        last.reset_parameters()
        size, steps = 2 * config.knots, config.flow_steps
        self.field: nn.Module = nn.Sequential(
            nn.Linear(config.hidden + size + 3, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, size),
        )
        self.flow_times: Tensor
        self.flow_std: Tensor
        for name, values in vars(Schedule.even(steps, config.flow_noise)).items():
            self.register_buffer(f"flow_{name}", values, persistent=False)
        self.imitation_noise, self.imitation_knee = 1 + size, 1e4
        self.sizes = Sizes((steps + 1) * size, (steps + 1) * size, steps * size, self.memory_size)

    @property
    def schedule(self) -> Schedule:
        """Of the steps from noise to knots."""
        names = ("times", "noise", "keep", "push", "std")
        return Schedule(**{name: getattr(self, f"flow_{name}") for name in names})

    def drawn(self, decision: Tensor) -> Tensor:
        return self._points(decision)[..., -1, :]

    def most_likely(self, observation: Observation) -> Tensor:
        """Where the field carries the middle of the noise."""
        context = self._context(observation)
        start = context.new_zeros(*context.shape[:-1], 2 * self.knots)
        return integrate(
            lambda x, t: self._velocity(context, x, t.expand(x.shape[:-1])), start, self.flow_times
        )

    def sample(self, observation: Observation, noise: Tensor) -> tuple[Tensor, Tensor]:
        context, schedule = self._context(observation), self.schedule
        velocities: list[Tensor] = []

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            velocities.append(self._velocity(context, x, t.expand(x.shape[:-1])))
            return velocities[-1]

        start, *normals = self._points(noise).unbind(-2)
        path = draw(velocity, start, torch.stack(normals), schedule)
        log_prob = path_log_prob(path, torch.stack(velocities), schedule)
        return _in_rows(path), _in_rows(log_prob)

    def log_prob(self, observation: Observation, decision: Tensor) -> Tensor:
        points, schedule = self._points(decision), self.schedule
        start = points[..., :-1, :]
        context = self._context(observation).unsqueeze(-2).expand(*start.shape[:-1], -1)
        times = schedule.times[:-1].expand(start.shape[:-1])
        velocity = self._velocity(context, start, times)
        log_prob = path_log_prob(points.movedim(-2, 0), velocity.movedim(-2, 0), schedule)
        return _in_rows(log_prob)

    def deviation(
        self, observation: Observation, recorded: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Of the field from the straight way between noise and what was recorded, at some time."""
        assert noise is not None
        wanted = self._along(self.fit, self._recorded(observation, recorded).flatten(-2)).flatten(
            -2
        )
        t = torch.special.ndtr(noise[..., :1])
        away = noise[..., 1:]
        x = t * wanted + (1.0 - t) * away
        velocity = self._velocity(self._context(observation), x, t.squeeze(-1))
        apart = self._along(self.hats, velocity - (wanted - away))
        return (self.urgency * apart).flatten(-2)

    def entropy(self) -> Tensor:
        return gaussian_entropy(self.flow_std.log()) * (2 * self.knots)

    def _context(self, observation: Observation) -> Tensor:
        return torch.relu(self.forward(observation))

    def _velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """[..., hidden], [..., 2 knots], [...] -> [..., 2 knots]."""
        turn = torch.pi * t
        when = torch.stack([t, turn.sin(), turn.cos()], -1)
        velocity: Tensor = self.field(torch.cat([context, x, when], -1))
        return velocity.to(x.dtype)

    def _points(self, row: Tensor) -> Tensor:
        """[..., (N + 1) 2 knots] -> [..., N + 1, 2 knots]."""
        return row.unflatten(-1, (-1, 2 * self.knots))


def _in_rows(points: Tensor) -> Tensor:
    """[n, ..., D] -> [..., n D]."""
    return points.movedim(0, -2).flatten(-2)


def make_trajectory(
    config: PolicyConfig, sim_config: SimConfig, ranges: Ranges | None = None
) -> TrajectoryPolicy:
    """A policy with plans and the head of `config.head`."""
    heads = {"gaussian": GaussianTrajectory, "flow_matching": FlowMatchingTrajectory}
    return heads[config.head](config, sim_config, ranges)
