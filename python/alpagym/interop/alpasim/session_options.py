"""Options of sessions in which drivers of AlpaSim drive our simulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SessionConfig:
    """How a session with an `EgodriverService` goes, by AlpaSim's rules; times in seconds."""

    force_gt: float = 1.7
    """Time at the beginning of a session in which the record drives [s]; a multiple of the time
    between two plans."""
    skip_driver_during_force_gt: bool = False
    """Send what is observed in that time, but ask for no plans."""
    recorded_motion: bool = False
    """Tell recorded speeds in that time, where AlpaSim tells zeros."""
    planner_delay: float = 0.0
    """Age that a plan must have reached before it is followed [s]."""
    max_seconds: float = 0.0
    """Length of a session at most, the time in which the record drives included [s]; 0 for the
    record's."""
    route: str = "map"
    """What the driver is told of the way ahead: `map`, `recorded`, `simulator` or `none`. `map` is
    AlpaSim's: the record laid on lane centers and carried on along them, the bare record where a
    map has no lanes for it; `simulator` what policies see that are trained here."""
    route_start_offset: float = 0.0
    """Waypoints nearer than this are left out of the route [m]."""
    send_ground_truth: bool = False
    """Send the whole recorded path with every observation."""
    cameras: tuple[str, ...] = ()
    """Names of the cameras whose images are sent, one of each before every plan."""
    image_height: int = 320
    """Of rendered images [pixels]."""
    image_width: int = 512
    """Of rendered images [pixels]."""
    renderer: str = "placeholder"
    """What makes the images: `placeholder`, or `module:function` (`docs/alpasim.md`)."""
    log: str = ""
    """Folder for AlpaSim's logs of sessions, `rollouts/<scene>/<session>/rollout.asl`; empty for
    none."""
    concurrent: int = 256
    """Sessions at a time."""
    calls: int = 1024
    """Calls that wait for an answer at a time."""
    call_timeout: float = 30.0
    """For an answer to anything but `drive` [s]."""
    drive_timeout: float = 60.0
    """For a plan [s]."""
    retries: int = 2
    """How often a call that did not reach the driver is made again, and a session whose driver went
    away is driven anew."""
    tls_authority: str = ""
    """PEM file with the certificates that drivers at `grpcs://` must be signed by; empty for the
    system's. `serve runtime` dials drivers by TLS as soon as one of the three files is given."""
    tls_certificate: str = ""
    """PEM file with the certificate shown to them; empty for none."""
    tls_key: str = ""
    """PEM file with its key."""
