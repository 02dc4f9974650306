"""Alpamayo's action space and trajectory tokens, for NVIDIA's Alpamayo 1 (R1) and 1.5 models.

`action_space` turns a future trajectory into 64 actions and back, `tokens` turns trajectories into
the bins of the models' vocabulary and back. Functions on torch tensors, batched over any leading
dimensions, on the device and in the precision (float32 or float64) of their inputs.
"""
