"""Weakly supervised searches for a resonance: windows, methods, trainings, model files (extra `train`)."""

from __future__ import annotations

from coffea_ad.resonant.claiming import claim
from coffea_ad.resonant.diagnostics import closure, flatness, overlap
from coffea_ad.resonant.injection import injected, study
from coffea_ad.resonant.members import Member, Role, Task, train_member
from coffea_ad.resonant.method import Method
from coffea_ad.resonant.methods import METHODS
from coffea_ad.resonant.publishing import outputs_of, publish, publish_window
from coffea_ad.resonant.search import check_method, in_roles, mixture, search, tasks_of, window_rows
from coffea_ad.resonant.settings import ClassifierConfig, FlowConfig, Settings
from coffea_ad.resonant.trainings import Trained, train_all
from coffea_ad.resonant.windows import PRESETS, Window, scan, windows_of
from coffea_ad.resonant.worth import Null, worth

__all__ = [
    "METHODS",
    "PRESETS",
    "ClassifierConfig",
    "FlowConfig",
    "Member",
    "Method",
    "Null",
    "Role",
    "Settings",
    "Task",
    "Trained",
    "Window",
    "check_method",
    "claim",
    "closure",
    "flatness",
    "in_roles",
    "injected",
    "mixture",
    "outputs_of",
    "overlap",
    "publish",
    "publish_window",
    "scan",
    "search",
    "study",
    "tasks_of",
    "train_all",
    "train_member",
    "window_rows",
    "windows_of",
    "worth",
]
