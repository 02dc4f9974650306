"""NVIDIA's Alpamayo 1 (R1) and 1.5: action space, tokens, models, checkpoints.

`action_space` turns a future trajectory into 64 actions and back, `tokens` turns trajectories into
the bins of the models' vocabulary and back: functions on torch tensors, batched over any leading
dimensions, on the device and in the precision (float32 or float64) of their inputs.

Models need the extra `alpamayo`. `contract` says what they see and answer, `prompt` and
`vocabulary` how they are told, `checkpoints` loads a `model` from a folder, `sampling` draws from
it, `learning` and `lora` train its expert, `conversion` writes checkpoints in other `layouts`.
"""
