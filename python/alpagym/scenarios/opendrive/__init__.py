"""OpenDRIVE maps (.xodr): roads for procedural traffic."""
