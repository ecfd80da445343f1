"""The machine of the dashboard: its devices and who holds them, room on the disk, versions that do not fit."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import NamedTuple

import streamlit as st
from packaging.utils import canonicalize_name

from lark_engine.doctor.disk import Room, room_of, workspace_room
from lark_engine.doctor.versions import Conflict, applying, conflicts, declared
from lark_engine.errors import LarkError
from lark_engine.jobs.devices import Device, machine_devices, used_bytes
from lark_engine.jobs.leases import holder_of
from lark_engine.jobs.records import number
from lark_engine.serve import SOURCE_TREE
from lark_engine.store.atomic import existing_parent
from lark_engine.store.workspace import Workspace

# Devices do not come and go; NVML takes its time on machines with many.
_LOOK_AGAIN_S = 60.0
_MEMORY_S = 5.0
# Of more CPU slots than this only those that are held are shown one by one.
MOST_SLOTS = 4


class DeviceUse(NamedTuple):
    """A device and who has it: the id of a job, or other words; empty when it is free. `since`: seconds since 1970."""

    device: Device
    holder: str
    since: float | None
    used_bytes: int | None


class Devices(NamedTuple):
    """All devices of this machine; `problem`: why it is not known who holds them, empty where it is."""

    uses: list[DeviceUse]
    problem: str = ""

    def of(self, kind: str) -> list[DeviceUse]:
        return [use for use in self.uses if use.device.kind == kind]


class Disk(NamedTuple):
    """The disk of the workspace: its room, and what to do where that is little (else empty)."""

    room: Room | None
    cure: str


def load_devices() -> Devices:
    """The devices as of now; nothing is started or reserved for this."""
    known = _devices()
    try:
        held = [holder_of(device) for device in known]
    except LarkError as error:
        return Devices([DeviceUse(device, "", None, None) for device in known], str(error))
    return Devices([
        DeviceUse(
            device, str(said.get("holder") or "another process") if said else "", number((said or {}).get("since")),
            _used_bytes(device.id) if device.kind == "cuda" else None,
        )
        for device, said in zip(known, held, strict=True)
    ])  # fmt: skip


def load_disk(workspace: Workspace) -> Disk:
    """Room where the workspace is."""
    folder = existing_parent(workspace.root)
    return Disk(room_of(folder), workspace_room(folder).cure or "")


@st.cache_resource(ttl=_LOOK_AGAIN_S, show_spinner=False)
def _devices() -> list[Device]:
    return [*machine_devices("cuda"), *machine_devices("cpu")]


@st.cache_resource(ttl=_MEMORY_S, max_entries=64, show_spinner=False)
def _used_bytes(device_id: str) -> int | None:
    return used_bytes(device_id)


@st.cache_resource(show_spinner=False)
def load_conflicts() -> list[Conflict]:
    """Required packages that are missing or out of range; nothing of them is imported."""
    needed = declared(SOURCE_TREE).requirements
    return conflicts(needed, _installed(requirement.name for requirement in applying(needed)))


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[canonicalize_name(name)] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
