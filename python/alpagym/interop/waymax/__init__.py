"""Waymax's dynamics and its IDM agents as functions on arrays, float64 (waymo-research/waymax).

A state is a row x, y [m], yaw [rad], vel_x, vel_y [m/s] in the world frame, of a box center; a pair
of states [..., 2, 5] is one step apart. Proven against Waymax's own numbers (docs/parity.md).
"""
