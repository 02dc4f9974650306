"""Alpamayo's action space, tokens and open-loop scores."""

import math

import pytest
import torch

from alpagym.interop.alpamayo import action_space, tokens
from alpagym.metrics import open_loop

ZERO = (-0.042621, -0.010296)  # no acceleration, no curvature


def ride(speed, accel=0.0, curvature=0.0, times=None, dtype=torch.float64):
    """Exact poses of a steady arc, xyz [T, 3] and (cos, sin) [T, 2]."""
    s = speed * times + 0.5 * accel * times**2
    yaw = curvature * s
    if curvature:
        x, y = yaw.sin() / curvature, (1 - yaw.cos()) / curvature
    else:
        x, y = s, torch.zeros_like(s)
    xyz = torch.stack([x, y, torch.zeros_like(s)], -1)
    return xyz.to(dtype), torch.stack([yaw.cos(), yaw.sin()], -1).to(dtype)


def history_and_future(speed, accel=0.0, curvature=0.0, dtype=torch.float32):
    past = torch.arange(-15, 1, dtype=torch.float64) * 0.1
    ahead = torch.arange(1, 65, dtype=torch.float64) * 0.1
    return (
        *ride(speed, accel, curvature, past, dtype),
        *ride(speed, accel, curvature, ahead, dtype),
    )


def random_batch(seed, count, device="cpu", dtype=torch.float32):
    """Histories of steady arcs and actions of a driver's size."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    rides = [
        history_and_future(2 + 20 * a, 4 * b - 2, 0.04 * c - 0.02, dtype)[:2]
        for a, b, c in draws.tolist()
    ]
    xyz, heading = (torch.stack(parts).to(device) for parts in zip(*rides, strict=True))
    walk = torch.randn(count, 64, 2, generator=generator, dtype=torch.float64).cumsum(1) * 0.1
    return walk.to(device, dtype), xyz, heading


# speed, accel, curvature; v0; action at 0, 31, 63; error of decode after encode, mean and max [m].
# Numbers of the released code in float32 on a CPU.
GOLDEN = {
    "straight": (
        (10, 0, 0),
        9.999409,
        ((-0.038612, -0.010296), (-0.042657, -0.010296), (-0.046593, -0.010296)),
        (0.0008, 0.0016),
    ),
    "arc of 50 m": (
        (10, 0, 1 / 50),
        9.999742,
        ((-0.038602, 0.754500), (-0.042628, 0.754486), (-0.046765, 0.754536)),
        (0.0015, 0.0039),
    ),
    "arc of 5 m": (
        (3, 0, 1 / 5),
        3.000723,
        ((-0.041431, 7.627860), (-0.042621, 7.627751), (-0.043916, 7.628265)),
        (0.0108, 0.0267),
    ),
    "braking": (
        (15, -2, 0),
        14.999117,
        ((-2.972953, ZERO[1]), (-2.978932, ZERO[1]), (-2.979880, ZERO[1])),
        (0.0007, 0.0027),
    ),
    "standing": ((0, 0, 0), 0.0, (ZERO, ZERO, ZERO), (0.0, 0.0)),
}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_released_numbers(name, dtype, device, tol):
    motion, speed, actions, errors = GOLDEN[name]
    # Rounded to float32 as upstream's inputs were.
    poses = [part.to(device, dtype) for part in history_and_future(*motion)]
    assert action_space.estimate_speed(*poses[:2]).item() == pytest.approx(speed, abs=tol(2e-5))
    action = action_space.encode(*poses)
    assert action.dtype == dtype
    error = (action[[0, 31, 63]] - torch.tensor(actions, dtype=dtype, device=device)).abs().amax(0)
    # The last acceleration of an arc moves by up to 6e-4 with how its positions are rounded, and
    # upstream's float32 by 3e-4; curvatures by 4e-4.
    assert error[0] < tol(8e-4)
    assert error[1] < tol(5e-4)

    xyz, _ = action_space.decode(action, *poses[:2])
    error = open_loop.displacement(xyz, poses[2])
    assert error.mean().item() == pytest.approx(errors[0], abs=tol(1.5e-4))
    assert error.max().item() == pytest.approx(errors[1], abs=tol(1.5e-4))


def test_released_decodes(device, tol):
    history = [part.to(device) for part in history_and_future(10)[:2]]
    zeros, _ = action_space.decode(torch.zeros(64, 2, device=device), *history)
    want = torch.tensor([[32.1463, 0.1391, 0], [64.5874, 0.5616, 0]], device=device)
    torch.testing.assert_close(zeros[[31, 63]], want, atol=tol(2e-4), rtol=0)
    ones, heading = action_space.decode(torch.ones(64, 2, device=device), *history)
    want = [[1.00331, 0.01335, 0], [30.5963, 15.5696, 0], [33.1421, 56.1303, 0]]
    want = torch.tensor(want, device=device)
    torch.testing.assert_close(ones[[0, 31, 63]], want, atol=tol(2e-4), rtol=0)
    assert action_space.yaw_of(heading)[-1].item() == pytest.approx(2.074789, abs=tol(5e-5))


def test_released_tokens(device):
    def history_tokens(speed):
        return tokens.encode_history(history_and_future(speed)[0].to(device)).tolist()

    assert history_tokens(10) == [0, 500, 500] + 15 * [624, 500, 500]
    assert history_tokens(2) == [125, 500, 500] + 15 * [524, 500, 500]
    poses = [part.to(device) for part in history_and_future(10, 0, 1 / 50)]
    assert tokens.encode_future(*poses)[:4].tolist() == [1494, 1613, 1493, 1613]


@pytest.mark.parametrize("seed", range(5))
def test_drives_are_straight_lines_and_arcs(seed, device, tol):
    """Closed forms: constant acceleration on a line, and a circle at constant speed.

    The trapezoid of a circle of turn w per step is short by the factor (w/2) / tan(w/2).
    """
    _, xyz, heading = random_batch(seed, 8, device, torch.float64)
    speed = action_space.estimate_speed(xyz, heading)
    time = torch.arange(1, 65, device=device, dtype=torch.float64) * 0.1
    accel = torch.linspace(-3, 3, 8, device=device, dtype=torch.float64)[:, None]
    line = torch.stack([accel, torch.zeros_like(accel)], -1).expand(8, 64, 2)
    path, direction = action_space.decode(action_space.normalize(line), xyz, heading)
    want = speed[:, None] * time + 0.5 * accel * time**2
    torch.testing.assert_close(path[..., 0], want, atol=tol(1e-10), rtol=0)
    torch.testing.assert_close(path[..., 1], torch.zeros_like(want), atol=tol(1e-10), rtol=0)

    curvature = torch.linspace(-0.1, 0.1, 8, device=device, dtype=torch.float64)[:, None]
    arc = torch.stack([torch.zeros_like(curvature), curvature], -1).expand(8, 64, 2)
    path, direction = action_space.decode(action_space.normalize(arc), xyz, heading)
    yaw = curvature * speed[:, None] * time
    half = 0.05 * curvature * speed[:, None]
    short = half / half.tan()
    want = torch.stack([yaw.sin(), 1 - yaw.cos()], -1) * (short / curvature)[..., None]
    torch.testing.assert_close(path[..., :2], want, atol=tol(1e-10), rtol=0)
    torch.testing.assert_close(direction[..., 0], yaw.cos(), atol=tol(1e-10), rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_encoding_keeps_the_path(seed, device, tol):
    """What drives smoothly is found again within centimeters."""
    action, *history = random_batch(seed, 16, device)
    xyz, heading = action_space.decode(action, *history)
    again, _ = action_space.decode(action_space.encode(*history, xyz, heading), *history)
    assert open_loop.displacement(again, xyz).max() < tol(0.05)
    assert open_loop.ade(again, xyz).max() < tol(0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_its_members(dtype, device, tol):
    action, xyz, heading = random_batch(7, 12, device, dtype)
    future = action_space.decode(action, xyz, heading)
    whole = action_space.encode(xyz, heading, *future)
    for i in range(12):
        alone = action_space.decode(action[i], xyz[i], heading[i])
        torch.testing.assert_close(future[0][i], alone[0], atol=tol(6e-5), rtol=0)
        one = action_space.encode(xyz[i], heading[i], *alone)
        torch.testing.assert_close(whole[i], one, atol=tol(6e-5), rtol=0)
    grid = action_space.encode(*(part.unflatten(0, (3, 4)) for part in (xyz, heading, *future)))
    torch.testing.assert_close(grid.flatten(0, 1), whole, atol=tol(6e-5), rtol=0)


def test_samples_share_a_history(device):
    action, xyz, heading = random_batch(1, 6, device)
    shared = action_space.decode(action.unflatten(0, (2, 3)), xyz[:2, None], heading[:2, None])
    for i in range(6):
        alone = action_space.decode(action[i], xyz[i // 3], heading[i // 3])
        torch.testing.assert_close(shared[0][i // 3, i % 3], alone[0])
        torch.testing.assert_close(shared[1][i // 3, i % 3], alone[1])


def test_an_empty_batch_is_no_error():
    action, xyz, heading = (part[:0] for part in random_batch(1, 2))
    future = action_space.decode(action, xyz, heading)
    assert [len(part) for part in future] == [0, 0]
    assert action_space.encode(xyz, heading, *future).shape == (0, 64, 2)


def test_matrices_are_headings(device):
    action, xyz, heading = random_batch(3, 4, device)
    future_xyz, future_heading = action_space.decode(action, xyz, heading)
    matrices = [action_space.matrix_of(part) for part in (heading, future_heading)]
    torch.testing.assert_close(
        action_space.encode(xyz, matrices[0], future_xyz, matrices[1]),
        action_space.encode(xyz, heading, future_xyz, future_heading),
        atol=0,
        rtol=0,
    )
    want = tokens.encode_history(xyz, heading)
    assert torch.equal(tokens.encode_history(xyz, matrices[0]), want)


def test_autocast_changes_nothing(device):
    action, xyz, heading = random_batch(4, 4, device)
    future = action_space.decode(action, xyz, heading)
    want = action_space.encode(xyz, heading, *future)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(action_space.decode(action, xyz, heading)[0], future[0])
        assert torch.equal(action_space.encode(xyz, heading, *future), want)


def test_decoding_has_gradients(device):
    action, xyz, heading = random_batch(5, 2, device, torch.float64)
    action.requires_grad_()

    def last(action):
        return action_space.decode(action, xyz, heading, check=False)[0][:, -1]

    assert torch.autograd.gradcheck(last, action, fast_mode=True)


def test_z_is_the_last_of_the_history():
    action, xyz, heading = random_batch(6, 2)
    xyz[:, -1, 2] = torch.tensor([0.5, -1.0])
    path, _ = action_space.decode(action, xyz, heading)
    assert torch.equal(path[..., 2], torch.tensor([[0.5], [-1.0]]).expand(2, 64))


def test_bounds_are_inclusive_and_clip_nothing():
    control = torch.zeros(5, 64, 2, dtype=torch.float64)
    control[1, 40, 0], control[2, 3, 1] = 9.79, -0.329
    control[3, 40, 0], control[4, 3, 1] = -9.81, 0.331
    action = action_space.normalize(control)
    assert action_space.within_bounds(action).tolist() == [True, True, True, False, False]
    torch.testing.assert_close(action_space.denormalize(action), control)


def test_tokens_come_back_from_actions(device):
    every = torch.arange(3000, device=device).repeat(6)[: 128 * 140].reshape(140, 128)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(tokens.encode_action(tokens.decode_action(every, dtype=dtype)), every)
    wild = torch.full((64, 2), 1e30, device=device)
    assert tokens.encode_action(wild).unique().tolist() == [2999]
    assert tokens.encode_action(-wild).unique().tolist() == [0]


def test_history_tokens_keep_displacements(device, tol):
    """Within half a bin each; only the first pose may be off further, where it saturates."""
    _, xyz, _ = random_batch(8, 16, device)
    again = tokens.decode_history(tokens.encode_history(xyz))
    error = (again.diff(dim=1) - xyz.diff(dim=1)).abs().amax((0, 1))
    half_bin = torch.tensor([8, 8, 20], device=device) / 999 / 2
    assert (error <= half_bin + tol(1e-5)).all()


class TestBadInput:
    def poses(self):
        return list(history_and_future(10))

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    @pytest.mark.parametrize(
        ("index", "name"),
        list(enumerate(("history_xyz", "history_rotation", "future_xyz", "future_rotation"))),
    )
    def test_not_finite(self, bad, index, name):
        poses = self.poses()
        poses[index][3, 0] = bad
        with pytest.raises(ValueError, match=f"^{name}: expected finite numbers, got 1 NaN"):
            action_space.encode(*poses)
        with pytest.raises(ValueError, match=f"^{name}: expected finite"):
            tokens.encode_future(*poses)
        if index < 2:
            with pytest.raises(ValueError, match=f"^{name}: expected finite"):
                action_space.estimate_speed(*poses[:2])
            with pytest.raises(ValueError, match=f"^{name}: expected finite"):
                tokens.encode_history(*poses[:2])
            with pytest.raises(ValueError, match=f"^{name}: expected finite"):
                action_space.decode(torch.zeros(64, 2), *poses[:2])

    def test_not_finite_action(self):
        action = torch.zeros(64, 2)
        action[5, 1] = math.nan
        with pytest.raises(ValueError, match=r"^action: expected finite numbers, got 1 NaN"):
            action_space.decode(action, *self.poses()[:2])
        with pytest.raises(ValueError, match=r"^action: expected finite numbers"):
            tokens.encode_action(action)

    def test_unchecked_nan_stays_in_its_row(self):
        poses = [torch.stack([part, part]) for part in self.poses()]
        poses[2][0, 9] = math.nan
        action = action_space.encode(*poses, check=False)
        assert action[0].isnan().any()
        assert torch.equal(action[1], action_space.encode(*self.poses()))

    def test_too_large_to_fit(self):
        poses = self.poses()
        poses[2][40:, 0] = 1e38
        with pytest.raises(
            ValueError, match=r"^future_xyz: expected distances .* got up to 1e\+38"
        ):
            action_space.encode(*poses)

    def test_wrong_shapes(self):
        history_xyz, history_heading, xyz, heading = self.poses()
        encode, decode = action_space.encode, action_space.decode
        with pytest.raises(
            ValueError, match=r"future_xyz: expected shape \[..., 64, 3\], got \[63"
        ):
            encode(history_xyz, history_heading, xyz[:-1], heading[:-1])
        with pytest.raises(ValueError, match=r"history_xyz: expected shape \[..., 16, 3\]"):
            encode(history_xyz[1:], history_heading[1:], xyz, heading)
        with pytest.raises(ValueError, match=r"future_rotation: expected shape \[..., 64, 2\]"):
            encode(history_xyz, history_heading, xyz, heading[:, :1])
        with pytest.raises(ValueError, match="future_rotation: expected the leading dimensions"):
            encode(history_xyz, history_heading, xyz, heading[None])
        with pytest.raises(ValueError, match="future_xyz: expected the leading dimensions"):
            encode(history_xyz, history_heading, xyz[None], heading[None])
        with pytest.raises(
            ValueError, match=r"action: expected shape \[..., 64, 2\], got \[64, 3\]"
        ):
            decode(torch.zeros(64, 3), history_xyz, history_heading)
        batch = [part.expand(3, *part.shape) for part in (history_xyz, history_heading)]
        with pytest.raises(ValueError, match="action: expected leading dimensions that broadcast"):
            decode(torch.zeros(2, 64, 2), *batch)

    def test_wrong_precision(self):
        history_xyz, history_heading, *_ = self.poses()
        with pytest.raises(
            ValueError, match=r"action: expected float32 or float64, got torch.bfloat16"
        ):
            action_space.decode(
                torch.zeros(64, 2, dtype=torch.bfloat16), history_xyz, history_heading
            )
        with pytest.raises(ValueError, match=r"action: expected torch.float32 on cpu like"):
            action_space.decode(
                torch.zeros(64, 2, dtype=torch.float64), history_xyz, history_heading
            )

    def test_tokens(self):
        with pytest.raises(ValueError, match=r"tokens: expected bins 0 .. 2999, got 3000"):
            tokens.decode_action(torch.full((128,), 3000))
        with pytest.raises(ValueError, match=r"tokens: expected bins 0 .. 999, got -1"):
            tokens.decode_history(torch.full((48,), -1))
        with pytest.raises(ValueError, match=r"tokens: expected integers of shape \[..., 128\]"):
            tokens.decode_action(torch.zeros(2, 127, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"tokens: expected integers .* got torch.float32"):
            tokens.decode_history(torch.zeros(48))
