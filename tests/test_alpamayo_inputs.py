"""What Alpamayo is shown: poses, camera frames, tokens and prompts."""

import dataclasses

import numpy as np
import pytest
import torch

import alpamayo_models as tiny
from alpagym.interop.alpamayo import contract, prompt, reasoning, settings, vocabulary
from alpagym.interop.alpamayo.prompt import Patches
from alpagym.interop.alpasim import cameras


def test_quaternions_and_frames_are_alpagyms(shared_golden, tol):
    z = np.load(shared_golden / "alpagym" / "geometry.npz")
    quaternion, shift = torch.from_numpy(z["quat"]), torch.from_numpy(z["vec"])
    rotation = contract.rotation_of(quaternion)
    torch.testing.assert_close(rotation, torch.from_numpy(z["rot"]), atol=tol(1e-12), rtol=0)
    back, want = contract.quaternion_of(rotation), torch.from_numpy(z["quat_back"])
    sign = torch.where((back * want).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    assert (sign[want[:, 0] > 1e-6] > 0).all()
    torch.testing.assert_close(sign * back, want, atol=tol(1e-9), rtol=0)
    points = torch.from_numpy(z["points"])
    for k in range(len(points)):
        flat = torch.eye(3).expand(64, 3, 3)
        ahead = points[k].repeat(13, 1)[:64]
        xyz, _, _ = contract.in_world(ahead, flat, shift[k], quaternion[k])
        world = torch.from_numpy(z["world"][k]).repeat(13, 1)[:64]
        torch.testing.assert_close(xyz[1:], world, atol=tol(1e-9), rtol=0)


def circle(count, start_us=0):
    """Poses on a circle of 20 m in a world that is tilted, driven at 8 m/s."""
    time_us = start_us + torch.arange(count) * contract.STEP_US
    yaw = 8.0 / 20.0 * time_us * 1e-6
    tilt = torch.tensor([0.96, 0.2, 0.1, 0.15], dtype=torch.float64)
    tilt = contract.rotation_of(tilt / tilt.norm())
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    rows = [yaw.cos(), -yaw.sin(), zero, yaw.sin(), yaw.cos(), zero, zero, zero, one]
    turned = torch.stack(rows, -1).unflatten(-1, (3, 3)).double()
    place = 20.0 * torch.stack([yaw.sin(), 1 - yaw.cos(), zero], -1).double()
    origin = torch.tensor([5e5, -3e5, 40.0], dtype=torch.float64)
    return time_us, place @ tilt.T + origin, contract.quaternion_of(tilt @ turned)


def test_histories_are_in_the_rigs_frame_and_futures_lead_back():
    time_us, xyz, quaternion = circle(90)
    history, rotation = contract.history_of(time_us[:26], xyz[:26], quaternion[:26])
    assert history.shape == (1, 16, 3)
    assert rotation.shape == (1, 16, 3, 3)
    assert not history[0, -1].any()
    assert torch.equal(rotation[0, -1], torch.eye(3))
    yaw = -0.4 * torch.arange(15, -1, -1) * 0.1
    want = 20.0 * torch.stack([yaw.sin(), 1 - yaw.cos(), torch.zeros(16)], -1)
    torch.testing.assert_close(history[0], want, atol=1e-5, rtol=0)
    # The future that the car took, in the rig's frame, is where it was in the world.
    turn = contract.rotation_of(quaternion)
    local = (xyz[26:90] - xyz[25]) @ turn[25]
    there, facing, when = contract.in_world(
        local, turn[25].T @ turn[26:90], xyz[25], quaternion[25]
    )
    torch.testing.assert_close(there, xyz[25:90], atol=1e-6, rtol=0)
    assert (facing * quaternion[25:90]).sum(-1).abs().min() > 1 - 1e-9
    assert when.tolist() == list(range(0, 6_500_000, 100_000))


def test_histories_that_are_refused():
    time_us, xyz, quaternion = circle(20)
    with pytest.raises(ValueError, match=r"expected 16 poses, 0\.1 s apart, got 12"):
        contract.history_of(time_us[:12], xyz[:12], quaternion[:12])
    with pytest.raises(ValueError, match=r"expected poses 100000 us apart .* got 200000"):
        contract.history_of(time_us * 2, xyz, quaternion)
    with pytest.raises(ValueError, match="expected unit length, got 2"):
        contract.history_of(time_us, xyz, quaternion * 2)


def test_trajectories_have_the_shapes_of_the_contract():
    seen = tiny.inputs(batch=2)
    action = torch.zeros(2, 3, 5, 64, 2)
    xyz, rotation = contract.trajectories(action, seen.history_xyz, seen.history_rotation)
    assert xyz.shape == (2, 3, 5, 64, 3)
    assert rotation.shape == (2, 3, 5, 64, 3, 3)
    # 5 and 6 m/s for 6.4 s, with the slight acceleration that zeros stand for.
    assert xyz[:, 0, 0, -1, 0] == pytest.approx([32.6, 39.0], abs=0.2)


CHANGES = {
    "frames: expected uint8 .2, 4, 3, 64, 96., got float32": ("frames", lambda t: t.float()),
    "frames: expected uint8 .2, 4, 3, 64, 96.": ("frames", lambda t: t[..., :32]),
    "history_xyz: expected float32 .2, 1, 16, 3.": ("history_xyz", lambda t: t[:, 0]),
    "history_xyz: expected finite numbers": ("history_xyz", lambda t: t / 0),
    "history_xyz: expected the rig at t0": ("history_xyz", lambda t: t + 1),
    "camera: expected numbers of 0 to 6, rising": ("camera", lambda t: t.flip(1)),
    "camera: expected numbers of 0 to 6": ("camera", lambda t: t + 1),
    "camera: expected the same cameras": ("camera", lambda t: t + torch.tensor([[0], [-1]])),
    "time_us: expected 0 at the newest frame, got 100000 in row 0": ("time_us", lambda t: -t),
    "time_us: expected 0 at the newest frame, got -7 in row 1": (
        "time_us",
        lambda t: t - torch.tensor([[0], [7]]),
    ),
    "time_us: expected times that rise within each camera, got .0, -100000, .* in row 0": (
        "time_us",
        lambda t: t.flip(1),
    ),
    "time_us: expected times that rise .* in row 1": (
        "time_us",
        lambda t: t * torch.tensor([[1], [0]]),
    ),
    r"history_xyz: expected the rig at t0 .* \[2.0, 0.0, 0.0\] in row 1": (
        "history_xyz",
        lambda t: t + torch.tensor([0.01, 2.0])[:, None, None, None] * torch.eye(3)[0],
    ),
    "history_rotation: expected the identity at t0, got .* in row 1": (
        "history_rotation",
        lambda t: t * torch.tensor([1.0, -1.0])[:, None, None, None, None],
    ),
    "history_xyz: expected at least one situation": ("history_xyz", lambda t: t[:0]),
}


@pytest.mark.parametrize("message", CHANGES)
def test_inputs_that_break_the_contract(message):
    name, change = CHANGES[message]
    seen = tiny.inputs()
    seen.check(tiny.SIZE)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(seen, **{name: change(getattr(seen, name))}).check(tiny.SIZE)


def test_the_released_vocabulary():
    # 151669 tokens of Qwen's, among them <|image_pad|>, then 4000 bins, then the rest.
    added = [name for name in vocabulary.SPECIAL if name != "image_pad"]
    number = {name: 151669 + 4000 + n for n, name in enumerate(added)}
    assert 151669 + vocabulary.HISTORY_OFFSET == 154669
    assert number["traj_history_start"] == 155674
    assert number["traj_history_end"] == 155676
    assert (number["cot_start"], number["cot_end"]) == (155677, 155678)
    assert number["traj_future_start"] == 155681
    assert (number["traj_history"], number["traj_future"]) == (155684, 155685)
    assert (number["route_start"], number["route_end"]) == (155690, 155692)
    assert (number["question_start"], number["answer_end"]) == (155693, 155696)
    assert 151669 + 4000 + len(added) == 155697


def test_a_tokenizer_of_another_model_is_refused():
    wanted = settings.of(tiny.config())
    assert len(tiny.extended()) == wanted.vocabulary
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["one more"])
    with pytest.raises(ValueError, match=r"tokenizer: expected <i0> as number 300.*got 301"):
        vocabulary.extend(tokenizer, wanted)


def test_patches_are_those_of_qwens_processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    frames = tiny.inputs().frames[0]
    half = [0.5, 0.5, 0.5]
    theirs = Qwen2VLImageProcessorPil(
        patch_size=16, image_mean=half, image_std=half, min_pixels=1024, max_pixels=196608
    )(images=list(frames), return_tensors="pt")
    patches, grid = Patches().cut(frames)
    torch.testing.assert_close(patches, theirs["pixel_values"].float(), atol=1e-6, rtol=0)
    assert torch.equal(grid, theirs["image_grid_thw"])


def test_camera_frames_of_the_contract_are_not_resized():
    released = settings.of(tiny.config() | {"min_pixels": None})
    height, width = contract.FRAME_SIZE
    assert released.min_pixels <= height * width <= released.max_pixels
    assert Patches().tokens(height, width) == 160
    with pytest.raises(ValueError, match="expected height and width as multiples of 32"):
        Patches().tokens(324, 512)


def test_pictures_are_shrunk_as_pillow_does():
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (2, 3, 270, 480), generator=generator, dtype=torch.uint8)
    height, width = contract.FRAME_SIZE
    for size in ((height, width), (64, 96)):
        got = contract.shrunk(pictures, size)
        assert got.shape == (2, 3, *size)
        for picture, frame in zip(pictures, got, strict=True):
            image = Image.fromarray(picture.permute(1, 2, 0).numpy())
            want = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
            assert abs(frame.permute(1, 2, 0).numpy() - want).max() <= 1


def test_cameras_have_alpasims_names():
    assert set(contract.CAMERAS) == set(cameras.VIEWS)
    assert set(contract.CAMERAS.values()) == set(prompt.CAMERA_NAMES)


def test_the_prompt_of_1_5_in_words():
    words = prompt.text(
        [1, 6], 2, 3, settings.of(tiny.config()), route="Turn left in 40m", reasoning=True
    )
    image = "<|vision_start|>" + 3 * "<|image_pad|>" + "<|vision_end|>"
    assert words == (
        "<|im_start|>system\nYou are a driving assistant that generates safe and accurate actions."
        "<|im_end|>\n<|im_start|>user\n"
        f"Front camera: frame 0 {image}frame 1 {image}"
        f"Front telephoto camera: frame 0 {image}frame 1 {image}"
        f"<|traj_history_start|>{48 * '<|traj_history|>'}<|traj_history_end|>"
        "<|route_start|>Turn left in 40m<|route_end|>"
        "output the chain-of-thought reasoning of the driving process, then output the future "
        "trajectory.<|im_end|>\n<|im_start|>assistant\n<|cot_start|>"
    )


def test_the_prompt_of_r1_names_no_cameras():
    words = prompt.text([1], 2, 1, settings.of(tiny.config("alpamayo_r1")))
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"user\n{image}{image}<|traj_history_start|>" in words
    assert words.endswith("assistant\n<|traj_future_start|>")
    assert "<|traj_history_end|>output the future trajectory.<|im_end|>" in words


def build(seen=None, **options):
    wanted = settings.of(tiny.config())
    return prompt.build(seen or tiny.inputs(), wanted, tiny.extended(), Patches(), **options)


def test_prompts_hold_the_history_and_are_padded_in_front():
    wanted = settings.of(tiny.config())
    made = build(routes=["Turn left in 40m", ""])
    assert made.mask[0].all()
    missing = int((~made.mask[1]).sum())
    assert missing == len("Turn left in 40m") + 2
    assert not made.mask[1, :missing].any()
    assert (made.ids[:, -1] == wanted.trajectory_ids["future_start"]).all()
    first = wanted.trajectory_start + 3000
    for b, speed in enumerate((5, 6)):
        ids = made.ids[b]
        at = int((ids == wanted.trajectory_ids["history_start"]).nonzero())
        assert ids[at + 49] == wanted.trajectory_ids["history_end"]
        bins = (ids[at + 1 : at + 49] - first).tolist()
        # The first saturates; then 0.1 s at the speed, of 8 m in 999 steps.
        assert bins == [0, 500, 500] + 15 * [round((4 + 0.1 * speed) / 8 * 999), 500, 500]
    assert (made.ids == tiny.VLM["image_token_id"]).sum(1).tolist() == [4 * 6, 4 * 6]
    assert made.patches.shape == (2 * 4 * 24, 3 * 2 * 16 * 16)


def test_prompts_that_are_refused():
    with pytest.raises(ValueError, match="routes: expected one for each of 2 situations, got 1"):
        build(routes=["Turn left in 40m"])
    with pytest.raises(ValueError, match="routes: expected words without tokens"):
        build(routes=["<|im_end|>", ""])
    wide = dataclasses.replace(tiny.inputs(), frames=torch.zeros(2, 4, 3, 512, 512).byte())
    with pytest.raises(ValueError, match="frames: expected 1024 to 196608 pixels"):
        build(wide)
    wanted = settings.of(tiny.config())
    with pytest.raises(ValueError, match="expected 48 placeholders"):
        prompt.fuse_history(torch.zeros(2, 9).long(), tiny.inputs().history_xyz, wanted)


SETTINGS = {
    "model_type: expected one of alpamayo_r1, alpamayo1_5": {"model_type": "alpamayo2_super"},
    "traj_token_ids: expected a number of history": {"traj_token_ids": {}},
    "vocab_size: expected a number above 0, got None": {"vocab_size": None},
    "action_in_proj_cfg: expected an object, got None": {"action_in_proj_cfg": None},
    "action_space_cfg.accel_std: expected 0.6810426736454882": {
        "action_space_cfg": {"accel_std": 0.7}
    },
    "hist_traj_embed_cfg: expected none": {"hist_traj_embed_cfg": {"size": 3}},
    "expert_cfg.quantization_config: expected no other names than hidden_size": {
        "expert_cfg": {"hidden_size": 24, "quantization_config": {}}
    },
    "hidden_size: expected a number above 0, got '24'": {"expert_cfg": {"hidden_size": "24"}},
    "tokens_per_history_traj: expected 48, got 16": {"tokens_per_history_traj": 16},
}


@pytest.mark.parametrize("message", SETTINGS)
def test_configurations_that_are_refused(message):
    with pytest.raises(ValueError, match=message):
        settings.of(tiny.config() | SETTINGS[message])


def test_a_chain_of_thought_comes_before_the_future():
    model, tokenizer = tiny.make(), tiny.extended()
    asked = build(routes=["Turn left in 40m", ""], reasoning=True)
    written = model.settings.trajectory_ids["future_start"]
    with torch.no_grad():  # so that it ends now and then
        model.vlm.lm_head.weight[written] *= 3.0

    def think(seed, max_tokens=12):
        return reasoning.think(model, asked, tokenizer, seed=seed, max_tokens=max_tokens)

    drawn = [think(seed) for seed in range(4)]
    assert think(0)[1] == drawn[0][1]
    assert len({words for _, thoughts in drawn for words in thoughts}) > 4
    bins = torch.arange(4000) + model.settings.trajectory_start
    lengths = set()
    for made, thoughts in drawn:
        for b in range(2):
            before, after = asked.ids[b][asked.mask[b]], made.ids[b][made.mask[b]]
            assert torch.equal(after[: len(before)], before)
            thought = after[len(before) : -1]
            assert after[-1] == written
            assert written not in thought
            assert not torch.isin(thought, bins).any()
            assert tokenizer.decode(thought).startswith(thoughts[b])
            lengths.add(len(thought))
        prefix = model.prefix(made)
        assert (prefix.start < made.mask.sum(1)).all()
        action = torch.zeros(2, 1, 64, 2)
        assert model.velocity(prefix, action, torch.zeros(2, 1)).isfinite().all()
    assert len(lengths) > 1
    assert max(lengths) == 12
    with pytest.raises(ValueError, match=r"expected <\|cot_start\|> at its end"):
        reasoning.think(model, build(), tokenizer, seed=0)
