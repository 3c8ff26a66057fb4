"""The driver app's side of Starling's protocol (docs/driver-protocol.md), in Python."""

from .reporter import Rejected, Reporter, Stopped, connect

__all__ = ["Rejected", "Reporter", "Stopped", "connect"]
